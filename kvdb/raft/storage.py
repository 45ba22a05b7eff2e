"""
What the core asks of the log it reads from.

The core never writes: what must be written stands in L{Ready
<kvdb.raft.messages.Ready>}.  It reads back what it no longer holds itself,
through the five methods of L{LogReader}, which must answer at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from kvdb.raft.messages import ConfState, Entry, HardState, Snapshot


class Compacted(Exception):
    """The index asked for lies below the first one that is kept."""


class Unavailable(Exception):
    """The index asked for lies above the last one that is kept."""


class SnapshotTemporarilyUnavailable(Exception):
    """No snapshot can be taken now; the core asks again later."""


class LogReader(Protocol):
    """The stable log, as the core sees it."""

    def initial_state(self) -> tuple[HardState, ConfState]:
        """What was last made durable, and the membership applied with it."""

    def first_index(self) -> int:
        """The lowest index whose entry is kept; one above the last index
        where none is."""

    def last_index(self) -> int:
        """The highest index whose entry is kept, or the snapshot's index."""

    def term(self, index: int) -> int:
        """
        The term of the entry at C{index}, from C{first_index - 1} (the
        snapshot's own) to C{last_index}.

        @raise Compacted: below that range.
        @raise Unavailable: above it.
        """

    def entries(self, low: int, high: int, max_size: int) -> Sequence[Entry]:
        """
        The entries C{low <= index < high}, cut so that their sizes
        (L{Entry.size}) sum to at most C{max_size} bytes, but at least one.

        @raise Compacted: C{low} lies below C{first_index}.
        @raise Unavailable: C{high - 1} lies above C{last_index}.
        """

    def snapshot(self) -> Snapshot:
        """
        The newest point a follower could be brought to without the log.

        @raise SnapshotTemporarilyUnavailable: not now.
        """
