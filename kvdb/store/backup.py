"""
A backup: a store's snapshot as a file, or as a stream that becomes one.

::

     0  8  magic, "kvdbbkup"                        (all numbers are big-endian)
     8  2  format version
    10  8  cluster id
    18  8  applied index
    26  8  applied term
    34  8  revision
    42  8  compacted revision
    50  8  when it was begun, milliseconds since 1970
    58  4  CRC-32C of these 58 bytes
    62     chunks, each:  length of the body (4), CRC-32C of the body (4), body
           end:           length 0 (4), SHA-256 of all before (32)

The bodies are a snapshot's chunks (L{kvdb.store.snapshot}).

Rules: any bit that is not as it was written is found, and where; a backup without
its end is none.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Any, Final

from attrs import define, field, frozen
from google_crc32c import value as crc32c

from kvdb.store.snapshot import CHUNK_BYTES

MAGIC: Final = b"kvdbbkup"
FORMAT_VERSION: Final = 1

MAX_BODY_BYTES: Final = 2 * CHUNK_BYTES + (17 << 20)
"""A chunk with a pair of the longest that an entry can bring."""

_HEADER: Final = struct.Struct(">8sHQQQQQQ")
_CRC: Final = struct.Struct(">I")
_CHUNK: Final = struct.Struct(">II")
_END: Final = struct.Struct(">I32s")

HEADER_BYTES: Final = _HEADER.size + _CRC.size


class BadBackup(Exception):
    """What was read is no backup, or not as it was written, or not all of it."""


class LaterBackup(BadBackup):
    """It is of a format that a later release brought."""


@frozen(slots=True)
class BackupHeader:
    """
    What a backup is of.

    @ivar time_ms: when it was begun, by its member's clock.
    """

    cluster_id: int
    applied_index: int
    applied_term: int
    revision: int
    compacted_revision: int
    time_ms: int


def encode_header(header: BackupHeader) -> bytes:
    """The beginning of a backup."""
    fixed = _HEADER.pack(
        MAGIC,
        FORMAT_VERSION,
        header.cluster_id,
        header.applied_index,
        header.applied_term,
        header.revision,
        header.compacted_revision,
        header.time_ms,
    )
    return fixed + _CRC.pack(crc32c(fixed))


def decode_header(data: bytes) -> BackupHeader:
    """
    The other way.

    @raise BadBackup: it is none, or L{LaterBackup}.
    """
    if len(data) < HEADER_BYTES or not data.startswith(MAGIC):
        raise BadBackup("this is no backup: it does not begin as one")
    _, version, *numbers = _HEADER.unpack_from(data)
    (checksum,) = _CRC.unpack_from(data, _HEADER.size)
    is_whole = checksum == crc32c(data[: _HEADER.size])
    if not is_whole and version == FORMAT_VERSION:
        raise BadBackup("the backup's first 62 bytes are not as they were written")
    if not is_whole:
        # A later format may have its checksum elsewhere.
        raise BadBackup(
            "the backup's first 62 bytes are not as they were written, unless it is"
            f" of format {version}: this release of kvdb reads {FORMAT_VERSION}"
        )
    if version != FORMAT_VERSION:
        raise LaterBackup(
            f"the backup has format {version}, this release of kvdb reads"
            f" {FORMAT_VERSION}: use a later release"
        )
    cluster_id, index, term, revision, compacted, time_ms = numbers
    return BackupHeader(cluster_id, index, term, revision, compacted, time_ms)


def backup_pieces(header: BackupHeader, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A backup, in pieces of about a chunk; each is made when it is asked for."""
    digest = hashlib.sha256()
    piece = encode_header(header)
    digest.update(piece)
    yield piece
    for chunk in chunks:
        piece = _CHUNK.pack(len(chunk), crc32c(chunk)) + chunk
        digest.update(piece)
        yield piece
    yield _END.pack(0, digest.digest())


@define(slots=True, eq=False)
class BackupReader:
    """
    A backup, from whatever pieces it comes in.

    @ivar header: None until it has come.
    @ivar finished: the end has come, and all was as it was written.
    @ivar size: bytes taken in.
    @ivar digest: SHA-256 of the backup, in hexadecimal, once it is finished: its
        name among all backups.
    """

    header: BackupHeader | None = None
    finished: bool = False
    size: int = 0
    digest: str = ""
    _buffer: bytearray = field(factory=bytearray)
    _offset: int = 0
    _hash: Any = field(factory=hashlib.sha256)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        Take in what comes next; the chunks that are whole with it.

        @raise BadBackup: it is not as it was written; says where.
        """
        self.size += len(data)
        self._buffer += data
        if self.header is None:
            if len(self._buffer) < HEADER_BYTES:
                if not MAGIC.startswith(bytes(self._buffer[: len(MAGIC)])):
                    decode_header(bytes(self._buffer))
                return
            self.header = decode_header(bytes(self._buffer[:HEADER_BYTES]))
            self._take(HEADER_BYTES)
        while (chunk := self._next()) is not None:
            yield chunk
        if self.finished and self._buffer:
            raise BadBackup(f"there is more behind the end, from byte {self._offset}")

    def finish(self) -> BackupHeader:
        """
        Nothing more comes.

        @raise BadBackup: something is missing.
        """
        if not self.finished or self.header is None:
            raise BadBackup(
                f"the backup breaks off after {self.size} bytes, in what begins at"
                f" byte {self._offset}: its end is missing"
            )
        return self.header

    def _take(self, length: int) -> bytes:
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._offset += length
        self._hash.update(data)
        return data

    def _next(self) -> bytes | None:
        if self.finished or len(self._buffer) < _CRC.size:
            return None
        (length,) = _CRC.unpack_from(self._buffer)
        if length == 0:
            if len(self._buffer) >= _END.size:
                self._end()
            return None
        if length > MAX_BODY_BYTES:
            raise BadBackup(f"the chunk at byte {self._offset} has a wrong length")
        if len(self._buffer) < _CHUNK.size + length:
            return None
        place = self._offset
        piece = self._take(_CHUNK.size + length)
        chunk = piece[_CHUNK.size :]
        if _CHUNK.unpack_from(piece)[1] != crc32c(chunk):
            raise BadBackup(f"the chunk at byte {place} is not as it was written")
        return chunk

    def _end(self) -> None:
        written = _END.unpack_from(self._buffer)[1]
        if written != self._hash.digest():
            raise BadBackup(
                f"the whole is not as it was written: its sum, at byte {self._offset},"
                " is another"
            )
        self.digest = self._hash.hexdigest()
        del self._buffer[: _END.size]
        self._offset += _END.size
        self.finished = True
