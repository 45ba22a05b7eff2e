"""
An engine in memory, for tests and for whole clusters in virtual time.

It keeps an undo log since its last flush, so that C{crash} can bring back what
a disk would have kept: it loses what real engines lose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import define, field
from sortedcontainers import SortedDict

from kvdb.store.engine import Engine, Pair


@define(slots=True, eq=False)
class MemoryView:
    """A copy of the engine's pairs; values are shared."""

    _pairs: SortedDict[bytes, bytes]

    def scan(self, low: bytes, high: bytes) -> Iterator[Pair]:
        """See L{View<kvdb.store.engine.View>}."""
        for key in self._pairs.irange(low, high, (True, False)):
            yield key, self._pairs[key]

    def close(self) -> None:
        """Nothing is held."""


@define(slots=True, eq=False)
class MemoryEngine:
    """
    Implements L{Engine<kvdb.store.engine.Engine>}.

    @ivar flush_polls: how often it is asked whether a flush is done before it
        is.
    """

    flush_polls: int = 0
    _pairs: SortedDict[bytes, bytes] = field(factory=SortedDict)
    _undo: dict[bytes, bytes | None] = field(factory=dict)
    _flushing: dict[bytes, bytes | None] = field(factory=dict)
    _polls_left: int = 0

    def get(self, key: bytes) -> bytes | None:
        """See there, as for all below."""
        return self._pairs.get(key)

    def write(self, batch: Mapping[bytes, bytes | None]) -> None:
        """See there."""
        pairs, undo = self._pairs, self._undo
        for key, value in batch.items():
            if key not in undo:
                undo[key] = pairs.get(key)
            if value is None:
                pairs.pop(key, None)
            else:
                pairs[key] = value

    def scan(self, low: bytes, high: bytes) -> Iterator[Pair]:
        """See there."""
        for key in self._pairs.irange(low, high, (True, False)):
            yield key, self._pairs[key]

    def begin_flush(self) -> None:
        """See there."""
        # What the last one has not made durable goes with this one.
        self._flushing = {**self._undo, **self._flushing}
        self._undo = {}
        self._polls_left = self.flush_polls

    def flushed(self) -> bool:
        """See there."""
        if self._polls_left > 0:
            self._polls_left -= 1
            return False
        self._flushing = {}
        return True

    def flush(self) -> None:
        """See there."""
        self._undo = {}
        self._flushing = {}

    def open_view(self) -> MemoryView:
        """See there."""
        return MemoryView(self._pairs.copy())

    @property
    def size_bytes(self) -> int:
        """See there."""
        return sum(len(key) + len(value) for key, value in self._pairs.items())

    @property
    def unflushed_bytes(self) -> int:
        """It never takes space on a disk."""
        return 0

    def close(self) -> None:
        """See there."""

    def crash(self) -> None:
        """Lose what was not flushed."""
        for key, value in {**self._undo, **self._flushing}.items():
            if value is None:
                self._pairs.pop(key, None)
            else:
                self._pairs[key] = value
        self.flush()


@define(slots=True, eq=False)
class MemoryEngines:
    """Implements L{Engines<kvdb.store.engine.Engines>}."""

    flush_polls: int = 0
    directory: str = "memory"
    current: MemoryEngine = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.current = MemoryEngine(self.flush_polls)

    def open(self) -> Engine:
        """See there, as for all below."""
        return self.current

    def stage(self) -> Engine:
        """See there."""
        return MemoryEngine(self.flush_polls)

    def switch(self, staged: Engine) -> None:
        """See there."""
        assert isinstance(staged, MemoryEngine)
        self.current = staged

    def discard(self, staged: Engine) -> None:
        """See there."""

    def crash(self) -> None:
        """Lose what was not flushed, and what was staged."""
        self.current.crash()

    def copy(self) -> MemoryEngines:
        """Another place that holds the same; this one has crashed, or was flushed."""
        other = MemoryEngines(self.flush_polls)
        pairs = dict(self.current.open_view().scan(b"", b"\xff"))
        other.current.write(pairs)
        other.current.flush()
        return other
