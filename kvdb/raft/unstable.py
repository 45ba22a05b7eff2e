"""
The end of the log that is not yet known to be on disk.

Entries and at most one snapshot wait here until the append thread says that
they are durable.  Each is either not yet handed to that thread, or in
progress::

    stable log | in progress  |  not yet handed over
               ^ offset       ^ offset_in_progress

Rules: entries are consecutive from C{offset}; what is in progress may still be
replaced by a new leader's entries, and the answer for the old ones must then
not count (the term tells them apart).
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from kvdb.raft.logger import RaftLogger
from kvdb.raft.messages import Entry, Snapshot


@define(slots=True)
class Unstable:
    """See the head of this module."""

    offset: int
    offset_in_progress: int
    logger: RaftLogger
    entries: list[Entry] = field(factory=list)
    snapshot: Snapshot | None = None
    snapshot_in_progress: bool = False

    def first_index(self) -> int | None:
        """The first index of the log, where a waiting snapshot sets it."""
        return None if self.snapshot is None else self.snapshot.index + 1

    def last_index(self) -> int | None:
        """The last index of the log, where it is held here."""
        if self.entries:
            return self.offset + len(self.entries) - 1
        return None if self.snapshot is None else self.snapshot.index

    def term(self, index: int) -> int | None:
        """The term of the entry at C{index}, where it is held here."""
        position = index - self.offset
        if 0 <= position < len(self.entries):
            return self.entries[position].term
        if self.snapshot is not None and index == self.snapshot.index:
            return self.snapshot.term
        return None

    def next_entries(self) -> Sequence[Entry]:
        """The entries not yet handed over."""
        return self.entries[self.offset_in_progress - self.offset :]

    def has_next_entries(self) -> bool:
        """Whether there are any."""
        return len(self.entries) > self.offset_in_progress - self.offset

    def next_snapshot(self) -> Snapshot | None:
        """The snapshot, if it is not yet handed over."""
        return None if self.snapshot_in_progress else self.snapshot

    def accept_in_progress(self) -> None:
        """All that is held here was handed over."""
        if self.entries:
            self.offset_in_progress = self.offset + len(self.entries)
        if self.snapshot is not None:
            self.snapshot_in_progress = True

    def stable_to(self, index: int, term: int) -> None:
        """
        The entry at C{index} is durable with all before it, if it is still
        the one of C{term}.
        """
        held = self.term(index)
        if held is None:
            self.logger.routine(
                f"entry at index {index} missing from unstable log; ignoring"
            )
            return
        if index < self.offset:
            self.logger.routine(
                f"entry at index {index} matched unstable snapshot; ignoring"
            )
            return
        if held != term:
            self.logger.routine(
                f"entry at (index,term)=({index},{term}) mismatched with entry at"
                f" ({index},{held}) in unstable log; ignoring"
            )
            return
        del self.entries[: index + 1 - self.offset]
        self.offset = index + 1
        self.offset_in_progress = max(self.offset_in_progress, self.offset)

    def stable_snapshot_to(self, index: int) -> None:
        """The snapshot at C{index} is durable, if it is still that one."""
        if self.snapshot is not None and self.snapshot.index == index:
            self.snapshot = None
            self.snapshot_in_progress = False

    def restore(self, snapshot: Snapshot) -> None:
        """A snapshot takes the place of everything."""
        self.offset = snapshot.index + 1
        self.offset_in_progress = self.offset
        self.entries = []
        self.snapshot = snapshot
        self.snapshot_in_progress = False

    def truncate_and_append(self, entries: Sequence[Entry]) -> None:
        """Put C{entries} at their place; what stood there and after goes."""
        first = entries[0].index
        if first == self.offset + len(self.entries):
            self.entries.extend(entries)
        elif first <= self.offset:
            self.logger.info(f"replace the unstable entries from index {first}")
            self.entries = list(entries)
            self.offset = first
            self.offset_in_progress = first
        else:
            self.logger.info(f"truncate the unstable entries before index {first}")
            self.entries = [*self.entries[: first - self.offset], *entries]
            self.offset_in_progress = min(self.offset_in_progress, first)

    def slice(self, low: int, high: int) -> list[Entry]:
        """The entries C{low <= index < high}, which must be held here."""
        assert self.offset <= low <= high <= self.offset + len(self.entries), (
            f"unstable log asked for [{low}, {high}), holds from {self.offset}"
            f" {len(self.entries)} entries"
        )
        return self.entries[low - self.offset : high - self.offset]
