"""
Records: the bytes in which entries travel and rest.

A record is (big-endian)::

     0  4  length of what follows the checksum
     4  4  CRC-32C of it
     8  1  type
     9  n  body

and the body of an entry's record::

     0  8  term
     8  8  index
    16  1  entry type
    17  n  data

Rules: an entry is encoded once, by the leader that gives it its place; the
same bytes go to the wire and to every disk, and its checksum is verified
wherever they are read.  Nothing here does I/O.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

from google_crc32c import value as crc32c

from kvdb.raft.messages import Entry, EntryType

MAX_ENTRY_BYTES: Final = 16 << 20
"""The longest body of an entry's record."""

HEAD: Final = struct.Struct(">II")
"""A record's length and checksum."""

_ENTRY: Final = struct.Struct(">BQQB")
_PREFIX: Final = HEAD.size + _ENTRY.size
_FULL: Final = struct.Struct(">IIBQQB")


class RecordType(enum.IntEnum):
    """What a record holds; the numbers are those on disk."""

    ENTRY = 1
    BATCH = 2
    IDENTITY = 3
    HARD_STATE = 4
    MARK = 5
    SEGMENT = 6
    PEER_STARTS = 7


class BadRecord(Exception):
    """
    Bytes that are no record.

    @ivar offset: where they stand in what was read.
    @ivar why: what is wrong with them.
    """

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"{why} at offset {offset}")
        self.offset = offset
        self.why = why


_ENTRY_RECORD: Final = int(RecordType.ENTRY)
_ENTRY_TYPES: Final = {int(kind): kind for kind in EntryType}


def encode_record(kind: RecordType, body: bytes) -> bytes:
    """A record of any type."""
    covered = bytes([kind]) + body
    return HEAD.pack(len(covered), crc32c(covered)) + covered


def encode_entry(entry: Entry) -> bytes:
    """
    An entry's record; made once, then kept in C{entry.encoded}.

    @raise ValueError: the entry is too long.
    """
    encoded = entry.encoded
    if encoded is None:
        data = entry.data
        if len(data) > MAX_ENTRY_BYTES:
            raise ValueError(
                f"an entry holds {len(data)} bytes, at most {MAX_ENTRY_BYTES} fit"
            )
        covered = _ENTRY.pack(_ENTRY_RECORD, entry.term, entry.index, entry.type) + data
        encoded = entry.encoded = HEAD.pack(len(covered), crc32c(covered)) + covered
    return encoded


def decode_record(buffer: bytes, offset: int) -> tuple[int, bytes, int]:
    """
    The record at C{offset}: its type, its body, and the offset behind it.

    @raise BadRecord: there is none.
    """
    start = offset + HEAD.size
    if len(buffer) < start + 1:
        raise BadRecord(offset, "a record cut within its head")
    length, checksum = HEAD.unpack_from(buffer, offset)
    end = start + length
    if not 0 < length <= MAX_ENTRY_BYTES + _ENTRY.size or len(buffer) < end:
        raise BadRecord(offset, "a record of impossible length")
    covered = buffer[start:end]
    if crc32c(covered) != checksum:
        raise BadRecord(offset, "a record with a wrong checksum")
    return covered[0], covered[1:], end


def decode_entries(buffer: bytes, offset: int, count: int) -> list[Entry]:
    """
    C{count} entries' records from C{offset} on.

    @raise BadRecord: they are not there.
    """
    entries = []
    size = len(buffer)
    for _ in range(count):
        if size < offset + _PREFIX:
            raise BadRecord(offset, "an entry cut within its head")
        length, checksum, kind, term, index, entry_type = _FULL.unpack_from(
            buffer, offset
        )
        end = offset + HEAD.size + length
        if length > MAX_ENTRY_BYTES + _ENTRY.size or size < end:
            raise BadRecord(offset, "an entry of impossible length")
        encoded = buffer[offset:end]
        if crc32c(encoded[HEAD.size :]) != checksum:
            raise BadRecord(offset, "an entry with a wrong checksum")
        known = _ENTRY_TYPES.get(entry_type)
        if kind != _ENTRY_RECORD or length < _ENTRY.size or known is None:
            raise BadRecord(offset, "a record that is no entry's")
        entries.append(Entry(term, index, known, encoded[_PREFIX:], encoded))
        offset = end
    return entries
