"""
A store as a stream of chunks, and a store made of them.

The first chunk says what comes, those between hold pairs of the engine, and
the last says how many there were and what their checksum is::

    HEADER   magic, format version, applied index and term
    PAIRS    (key length u32, value length u32, key, value) ...
    TRAILER  number of pairs u64, CRC-32C of all PAIRS chunks u32

each chunk begins with its kind in one byte.

Rules: a chunk is bounded; a stream that is not whole, or not as it was sent,
makes no store.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from attrs import define, field, frozen
from google_crc32c import extend as extend_crc32c

from kvdb.raft.messages import ConfState
from kvdb.store.engine import Engine, Engines, Pair, View

CHUNK_BYTES: Final = 256 << 10
"""The size of a chunk, but for one that holds a longer pair."""

MAGIC: Final = b"kvdbsnap"
FORMAT_VERSION: Final = 1

_HEADER: Final = struct.Struct(">B8sHQQ")
_PAIR: Final = struct.Struct(">II")
_TRAILER: Final = struct.Struct(">BQI")

_IS_HEADER, _IS_PAIRS, _IS_TRAILER = 1, 2, 3
_END: Final = b"\xff"


class BadSnapshot(Exception):
    """What was received is no snapshot, or not the whole of one."""


@frozen(slots=True, eq=False)
class StoreSnapshot:
    """A point in time of a store."""

    _view: View
    index: int
    term: int
    conf_state: ConfState

    def chunks(self, chunk_bytes: int | None = None) -> Iterator[bytes]:
        """
        The stream; each chunk is made when it is asked for.

        @param chunk_bytes: if they are not to be of the usual size.
        """
        chunk_bytes = CHUNK_BYTES if chunk_bytes is None else chunk_bytes
        yield _HEADER.pack(_IS_HEADER, MAGIC, FORMAT_VERSION, self.index, self.term)
        count = checksum = size = 0
        parts: list[bytes] = []
        for key, value in self._view.scan(b"", _END):
            parts += (_PAIR.pack(len(key), len(value)), key, value)
            size += _PAIR.size + len(key) + len(value)
            count += 1
            if size >= chunk_bytes:
                chunk = b"".join(parts)
                checksum = extend_crc32c(checksum, chunk)
                yield bytes([_IS_PAIRS]) + chunk
                parts, size = [], 0
        if parts:
            chunk = b"".join(parts)
            checksum = extend_crc32c(checksum, chunk)
            yield bytes([_IS_PAIRS]) + chunk
        yield _TRAILER.pack(_IS_TRAILER, count, checksum)

    def close(self) -> None:
        """Let go of the point in time."""
        self._view.close()


@define(slots=True, eq=False)
class SnapshotReader:
    """
    The pairs in a stream of chunks.

    @ivar index: the last entry that is in it, of term C{term}, as its header says.
    @ivar whole: the trailer has come, and all was as it was sent.
    """

    index: int = 0
    term: int = 0
    whole: bool = False
    _started: bool = False
    _count: int = 0
    _checksum: int = 0

    def take(self, chunk: bytes) -> list[Pair]:
        """
        The pairs in the next chunk.

        @raise BadSnapshot: it is not one.
        """
        kind = chunk[0] if chunk else 0
        try:
            if not self._started:
                self._begin(chunk)
            elif self.whole:
                self.whole = False
                raise BadSnapshot("a chunk behind the end")
            elif kind == _IS_PAIRS:
                return self._read(chunk[1:])
            elif kind == _IS_TRAILER:
                self._end(chunk)
            else:
                raise BadSnapshot(f"a chunk of unknown kind {kind}")
        except struct.error as error:
            raise BadSnapshot(f"a chunk of {len(chunk)} bytes is cut") from error
        return []

    def _begin(self, chunk: bytes) -> None:
        kind, magic, version, index, term = _HEADER.unpack(chunk)
        if kind != _IS_HEADER or magic != MAGIC:
            raise BadSnapshot("not the beginning of a snapshot")
        if version != FORMAT_VERSION:
            raise BadSnapshot(
                f"a snapshot of format {version}, this release reads {FORMAT_VERSION}"
            )
        self.index, self.term = index, term
        self._started = True

    def _read(self, chunk: bytes) -> list[Pair]:
        pairs: list[Pair] = []
        offset = 0
        while offset < len(chunk):
            key_length, value_length = _PAIR.unpack_from(chunk, offset)
            start = offset + _PAIR.size
            middle = start + key_length
            offset = middle + value_length
            if offset > len(chunk):
                raise BadSnapshot("a pair cut within a chunk")
            pairs.append((chunk[start:middle], chunk[middle:offset]))
        self._count += len(pairs)
        self._checksum = extend_crc32c(self._checksum, chunk)
        return pairs

    def _end(self, chunk: bytes) -> None:
        _, count, checksum = _TRAILER.unpack(chunk)
        if (count, checksum) != (self._count, self._checksum):
            raise BadSnapshot(
                f"{self._count} pairs with checksum {self._checksum:08x} came, {count}"
                f" with {checksum:08x} were sent"
            )
        self.whole = True


@define(slots=True, eq=False)
class SnapshotReceiver:
    """A store in the making, beside the one that serves."""

    _engines: Engines
    _engine: Engine | None
    _reader: SnapshotReader = field(factory=SnapshotReader)

    def write(self, chunk: bytes) -> None:
        """
        The next chunk.

        @raise BadSnapshot: it is not one.
        """
        pairs = self._reader.take(chunk)
        if pairs:
            batch: dict[bytes, bytes | None] = dict(pairs)
            assert self._engine is not None
            self._engine.write(batch)

    def finish(self) -> None:
        """
        All chunks have come: make the new store durable.

        @raise BadSnapshot: the end is missing.
        """
        if not self._reader.whole:
            raise BadSnapshot("the end of the snapshot is missing")
        assert self._engine is not None
        self._engine.flush()

    @property
    def finished(self) -> Engine:
        """The finished engine, until it is taken."""
        assert self._engine is not None, "a snapshot was taken twice, or aborted"
        assert self._reader.whole, "a snapshot was taken that was not whole"
        return self._engine

    def take(self) -> Engine:
        """Hand over the finished engine."""
        engine = self.finished
        self._engine = None
        return engine

    def abort(self) -> None:
        """Throw away what was received."""
        if self._engine is not None:
            self._engines.discard(self._engine)
            self._engine = None
