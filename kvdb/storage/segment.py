"""
One file of the log, and what a crash may have done to it.

A segment is a sequence of batches, each written by one call; its space is
reserved beforehand, so what was never written reads as zeros.  A batch begins
with a BATCH record that holds the offset up to which the segment was known to
be durable when the batch was written.

That offset tells a torn write from corruption.  A crash may lose any part of
what was not yet synced, and keep parts behind it; but what had been synced
must be there.  So behind a bad record

* no batch claims that its place was durable: the write was torn, nobody was
  told that it happened, and it is erased;
* a batch does: the disk has lost or changed what it had promised to keep, and
  the log refuses to open.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from attrs import define, frozen

from kvdb.storage.filesystem import File
from kvdb.storage.records import (
    HEAD,
    BadRecord,
    RecordType,
    decode_record,
    encode_record,
)

BATCH: Final = struct.Struct(">Q")

_BATCH_BYTES: Final = HEAD.size + 1 + BATCH.size
_BATCH_START: Final = struct.pack(">I", 1 + BATCH.size)


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


@frozen(slots=True)
class Placed:
    """A record and where it stands."""

    offset: int
    end: int
    kind: int
    body: bytes


@define(slots=True, eq=False)
class Segment:
    """
    @ivar number: segments are read in this order.
    @ivar length: where the next batch goes.
    @ivar durable: up to where it is known to be synced.
    @ivar before: the index of the last entry before it, when it was begun.
    """

    number: int
    file: File
    size: int
    before: int = 0
    length: int = 0
    durable: int = 0

    def encode_batch(self, records: list[bytes]) -> bytes:
        """The bytes of a batch to be written next."""
        head = encode_record(RecordType.BATCH, BATCH.pack(self.durable))
        return b"".join([head, *records])

    def write(self, batch: bytes) -> int:
        """Write a batch; the offset of the first record behind its head."""
        start = self.length
        self.file.write(start, batch)
        self.length = start + len(batch)
        return start + _BATCH_BYTES

    def records(self, *, last: bool) -> Iterator[Placed]:
        """
        What the segment holds, without the heads of batches.

        @param last: it is the log's last, so that its end may be torn; the torn
            end is erased before the records end.
        @raise CorruptLog: a record is bad and was good once.
        """
        buffer = self.file.read(0, self.size)
        offset = 0
        while offset < len(buffer):
            try:
                kind, body, end = decode_record(buffer, offset)
            except BadRecord as error:
                if buffer.count(0, offset) == len(buffer) - offset:
                    break
                if not last or _claims_durable(buffer, offset):
                    why = str(error).partition(" at offset")[0]
                    raise CorruptLog(self.file.path, offset, why) from error
                self._erase(offset)
                break
            if kind != RecordType.BATCH:
                yield Placed(offset, end, kind, body)
            offset = end
        self.length = self.durable = offset

    def _erase(self, offset: int) -> None:
        # Zeros, lest a later opening takes what is left for good records
        # behind a bad one.
        self.file.truncate(offset)
        self.file.allocate(self.size)
        self.file.sync()


def _claims_durable(buffer: bytes, bad: int) -> bool:
    """Whether any batch behind C{bad} says that its place was durable."""
    offset = buffer.find(_BATCH_START, bad + 1)
    while offset != -1:
        try:
            kind, body, _ = decode_record(buffer, offset)
        except BadRecord:
            pass
        else:
            if kind == RecordType.BATCH and bad < BATCH.unpack(body)[0] <= offset:
                return True
        offset = buffer.find(_BATCH_START, offset + 1)
    return False
