"""
A log in memory: what a test, or a first reading of the core, needs of a disk.

Rules are those of L{kvdb.raft.storage.LogReader}; nothing here is durable.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from kvdb.raft.log import limit_size
from kvdb.raft.messages import ConfState, Entry, HardState, Snapshot
from kvdb.raft.storage import (
    Compacted,
    SnapshotTemporarilyUnavailable,
    Unavailable,
)


@define(slots=True)
class MemoryLog:
    """
    @ivar last_snapshot: what C{snapshot} answers.
    """

    hard_state: HardState = field(factory=HardState)
    last_snapshot: Snapshot = field(factory=Snapshot)
    _base_index: int = 0
    _base_term: int = 0
    _entries: list[Entry] = field(factory=list)

    def initial_state(self) -> tuple[HardState, ConfState]:
        """See L{LogReader<kvdb.raft.storage.LogReader>}, as for all below."""
        return self.hard_state, self.last_snapshot.conf_state

    def first_index(self) -> int:
        """One above the last entry that was cut away."""
        return self._base_index + 1

    def last_index(self) -> int:
        """The highest index."""
        return self._base_index + len(self._entries)

    def term(self, index: int) -> int:
        """The term at C{index}."""
        if index < self._base_index:
            raise Compacted
        if index > self.last_index():
            raise Unavailable
        if index == self._base_index:
            return self._base_term
        return self._entries[index - self._base_index - 1].term

    def entries(self, low: int, high: int, max_size: int) -> Sequence[Entry]:
        """The entries from C{low} on, below C{high}."""
        if low <= self._base_index:
            raise Compacted
        if high > self.last_index() + 1:
            raise Unavailable
        first = self.first_index()
        return limit_size(self._entries[low - first : high - first], max_size)

    def snapshot(self) -> Snapshot:
        """The snapshot that was last given."""
        if self.last_snapshot.index == 0:
            raise SnapshotTemporarilyUnavailable
        return self.last_snapshot

    # What a log is told.

    def set_hard_state(self, hard_state: HardState) -> None:
        """Remember C{hard_state}."""
        self.hard_state = hard_state

    def append(self, entries: Sequence[Entry]) -> None:
        """Put C{entries} at their place; what stood there and after goes."""
        if not entries:
            return
        keep = entries[0].index - self.first_index()
        if keep < 0:
            # Part of them was cut away already, as applied.
            entries = entries[-keep:]
            keep = 0
        assert keep <= len(self._entries), (
            f"missing log entry [last: {self.last_index()},"
            f" append at: {entries[0].index}]"
        )
        self._entries[keep:] = entries

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """A snapshot takes the place of the log."""
        self.last_snapshot = snapshot
        self._base_index = snapshot.index
        self._base_term = snapshot.term
        self._entries = []

    def compact(self, index: int) -> None:
        """
        Cut the entries up to C{index} away.

        @raise Compacted: they are gone already.
        """
        if index <= self._base_index:
            raise Compacted
        if index > self.last_index():
            raise Unavailable
        self._base_term = self.term(index)
        del self._entries[: index - self._base_index]
        self._base_index = index

    def entries_all(self) -> Sequence[Entry]:
        """Every entry that is held."""
        return list(self._entries)
