"""
One file of the log: batches of records, one behind the other.

A batch is what one call wrote, and counts whole or not at all.  It begins with
a BATCH record: up to which place the log was known to be durable when the batch
was written, and how long the records of the batch are.  A segment's space is
reserved beforehand, so what was never written reads as zeros.

A I{place} is a segment's number and an offset in it, as one integer, so that
places compare in the order of the log.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import define, frozen

from kvdb.raft.messages import Entry
from kvdb.storage.filesystem import File
from kvdb.storage.records import (
    HEAD,
    BadRecord,
    RecordType,
    decode_entries,
    decode_record,
    encode_record,
)

BATCH: Final = struct.Struct(">QI")

BATCH_BYTES: Final = HEAD.size + 1 + BATCH.size
"""The BATCH record at the head of a batch."""

_BATCH_START: Final = struct.pack(">I", 1 + BATCH.size)
_PLACE_BITS: Final = 32
_OFFSET_MASK: Final = 2**_PLACE_BITS - 1
_KIND_OFFSET: Final = HEAD.size
_ENTRY: Final = int(RecordType.ENTRY)


def to_place(number: int, offset: int) -> int:
    """The place at C{offset} of segment C{number}."""
    return number << _PLACE_BITS | offset


def from_place(place: int) -> tuple[int, int]:
    """Number and offset of a place."""
    return place >> _PLACE_BITS, place & _OFFSET_MASK


class CorruptLog(Exception):
    """The log is not what was written."""

    def __init__(self, path: str, offset: int, why: str) -> None:
        super().__init__(
            f"{path} is corrupt at offset {offset} ({why}).  The disk did not keep"
            " what it had confirmed: check it.  If the other members are well,"
            " remove this one from the cluster and add it under a new id with an"
            " empty data directory; else restore a backup"
        )
        self.path = path
        self.offset = offset
        self.why = why


@frozen(slots=True)
class TornEnd:
    """
    Where the log was not whole, as a crash leaves it.

    @ivar offset: from here on it was erased.
    """

    path: str
    offset: int
    why: str

    def __str__(self) -> str:
        return f"{self.path} from offset {self.offset} on: {self.why}"


@define(slots=True)  # not frozen, as that costs time at each start
class Record:
    """
    A record and where it stands.

    @ivar body: empty where it is an entry's.
    """

    offset: int
    kind: int
    body: bytes
    entry: Entry | None = None


@frozen(slots=True)
class Batch:
    """
    What one call wrote.

    @ivar end: the offset behind it.
    @ivar durable: up to which place the log was known to be durable then.
    """

    offset: int
    end: int
    durable: int
    records: Sequence[Record]


@define(slots=True, eq=False)
class Segment:
    """
    @ivar number: segments are read in this order.
    @ivar size: how long a segment may become.
    @ivar length: where the next batch goes.
    @ivar before: the index of the last entry before it, when it was begun.
    """

    number: int
    file: File
    size: int
    length: int = 0
    before: int = 0

    @property
    def end(self) -> int:
        """The place where the next batch goes."""
        return to_place(self.number, self.length)

    def write(self, durable: int, records: Sequence[bytes]) -> int:
        """
        Write a batch.

        @param durable: up to which place the log is known to be durable.
        @return: the place of its first record.
        """
        length = sum(map(len, records))
        head = encode_record(RecordType.BATCH, BATCH.pack(durable, length))
        first = self.length + BATCH_BYTES
        self.file.write(self.length, b"".join((head, *records)))
        self.length = first + length
        return to_place(self.number, first)

    def batches(self) -> Iterator[Batch]:
        """The good batches, up to the first that is not."""
        buffer = self.file.read(0, self.size)
        offset = 0
        while offset < len(buffer):
            try:
                batch = decode_batch(buffer, offset)
            except BadRecord:
                return
            yield batch
            offset = batch.end

    def what_is_bad(self) -> BadRecord | None:
        """What is wrong with the bytes at C{length}; None where all are zeros."""
        buffer = self.file.read(self.length, self.size - self.length)
        if not buffer.strip(b"\0"):
            return None
        try:
            decode_batch(buffer, 0)
        except BadRecord as error:
            return BadRecord(self.length + error.offset, error.why)
        return BadRecord(self.length, "a batch that does not follow")

    def claims(self, bad: int, offset: int) -> bool:
        """
        Whether any batch from C{offset} on says that the place C{bad}, which
        lies before it, was durable.
        """
        buffer = self.file.read(0, self.size)
        offset = buffer.find(_BATCH_START, offset)
        while offset != -1:
            try:
                kind, body, _ = decode_record(buffer, offset)
            except BadRecord:
                pass
            else:
                if kind == RecordType.BATCH:
                    durable, _ = BATCH.unpack(body)
                    if bad < durable <= to_place(self.number, offset):
                        return True
            offset = buffer.find(_BATCH_START, offset + 1)
        return False

    def erase(self) -> None:
        """
        Put zeros where the next batch goes and behind, lest what is left there
        is taken for batches that follow it.
        """
        buffer = self.file.read(self.length, self.size - self.length)
        # Not by cutting and allocating anew: the disk may be full.
        left = len(buffer.rstrip(b"\0"))
        if left:
            self.file.write(self.length, bytes(left))

    def write_again(self, start: int) -> None:
        """Write what stands from C{start} on as it stands."""
        if start < self.length:
            self.file.write(start, self.file.read(start, self.length - start))


def find_batch(buffer: bytes, offset: int) -> Batch | None:
    """The first that is whole, from C{offset} on."""
    offset = buffer.find(_BATCH_START, offset)
    while offset != -1:
        try:
            return decode_batch(buffer, offset)
        except BadRecord:
            offset = buffer.find(_BATCH_START, offset + 1)
    return None


def decode_batch(buffer: bytes, start: int) -> Batch:
    """
    The batch at C{start}.

    @raise BadRecord: it is not there whole.
    """
    kind, body, offset = decode_record(buffer, start)
    if kind != RecordType.BATCH or len(body) != BATCH.size:
        raise BadRecord(start, "no batch begins here")
    durable, length = BATCH.unpack(body)
    end = offset + length
    if end > len(buffer):
        raise BadRecord(start, "a batch of impossible length")
    records = []
    while offset < end:
        at = offset + _KIND_OFFSET
        if at < end and buffer[at] == _ENTRY:
            (entry,) = decode_entries(buffer, offset, 1)
            assert entry.encoded is not None
            records.append(Record(offset, _ENTRY, b"", entry))
            offset += len(entry.encoded)
        else:
            kind, body, behind = decode_record(buffer, offset)
            records.append(Record(offset, kind, body))
            offset = behind
    if offset != end:
        raise BadRecord(start, "a batch of another length")
    return Batch(start, end, durable, records)
