"""
One member's log: a stable part on disk, an unstable end, and three marks.

::

    first_index ... applied <= applying <= committed <= last_index
    |----- stable log (read back) -----|---- unstable ----|

C{committed}: a quorum holds it.  C{applying}: handed out to be applied.
C{applied}: known to be applied.

Rules: the marks never move back; an entry at or below C{committed} is never
replaced, and a leader that has another one there is not followed; how much is handed
out and not yet applied is bounded in bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from kvdb.raft.logger import RaftLogger
from kvdb.raft.messages import NO_LIMIT, Entry, Snapshot
from kvdb.raft.storage import Compacted, LogReader, Unavailable
from kvdb.raft.unstable import Unstable


class CommittedConflict(Exception):
    """
    A leader's log contradicts this one where both cannot be right: a majority of the
    members has lost what was durable, or this member has.
    """


class AcknowledgedLost(Exception):
    """
    A leader counts on entries that this log does not have any more: what was durable
    here is lost.
    """


def entries_size(entries: Sequence[Entry]) -> int:
    """What C{entries} count for against limits, in bytes."""
    return sum(entry.size for entry in entries)


def limit_size(entries: Sequence[Entry], max_size: int) -> Sequence[Entry]:
    """The first entries that sum to at most C{max_size} bytes, at least one."""
    if max_size >= NO_LIMIT or not entries:
        return entries
    size = 0
    for count, entry in enumerate(entries):
        size += entry.size
        if size > max_size and count > 0:
            return entries[:count]
    return entries


@define(slots=True)
class Log:
    """
    @ivar max_applying_size: how many bytes may be handed out to be applied and
        not yet be so.
    """

    storage: LogReader
    logger: RaftLogger
    max_applying_size: int
    unstable: Unstable
    committed: int
    applying: int
    applied: int
    applying_size: int = 0
    applying_paused: bool = False

    @classmethod
    def open(
        cls, storage: LogReader, logger: RaftLogger, max_applying_size: int
    ) -> Log:
        """The log as C{storage} holds it, nothing applied above its snapshot."""
        next_index = storage.last_index() + 1
        snapshot_index = storage.first_index() - 1
        return cls(
            storage=storage,
            logger=logger,
            max_applying_size=max_applying_size,
            unstable=Unstable(next_index, next_index, logger),
            committed=snapshot_index,
            applying=snapshot_index,
            applied=snapshot_index,
        )

    def __str__(self) -> str:
        return (
            f"committed={self.committed}, applied={self.applied},"
            f" applying={self.applying}, unstable.offset={self.unstable.offset},"
            f" unstable.offsetInProgress={self.unstable.offset_in_progress},"
            f" len(unstable.Entries)={len(self.unstable.entries)}"
        )

    # What it holds.

    def first_index(self) -> int:
        """The lowest index that can be read."""
        first = self.unstable.first_index()
        return self.storage.first_index() if first is None else first

    def last_index(self) -> int:
        """The highest index."""
        last = self.unstable.last_index()
        return self.storage.last_index() if last is None else last

    def last_term(self) -> int:
        """The term of the entry at the highest index."""
        return self.term(self.last_index())

    def term(self, index: int) -> int:
        """
        The term of the entry at C{index}.

        @raise Compacted, Unavailable: no longer held, or not yet.
        """
        term = self.unstable.term(index)
        if term is not None:
            return term
        if index + 1 < self.first_index():
            raise Compacted
        if index > self.last_index():
            raise Unavailable
        return self.storage.term(index)

    def term_or_zero(self, index: int) -> int:
        """The term of the entry at C{index}, or 0 where it is not held."""
        try:
            return self.term(index)
        except (Compacted, Unavailable):
            return 0

    def matches(self, index: int, term: int) -> bool:
        """Whether the entry at C{index} is held and is of C{term}."""
        try:
            return self.term(index) == term
        except (Compacted, Unavailable):
            return False

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """
        Whether a candidate's log is at least as good as this one (paper,
        section 5.4.1).
        """
        own_term = self.last_term()
        return last_term > own_term or (
            last_term == own_term and last_index >= self.last_index()
        )

    def slice(self, low: int, high: int, max_size: int) -> Sequence[Entry]:
        """
        The entries C{low <= index < high}, as many as C{max_size} bytes allow,
        at least one.

        @raise Compacted: C{low} is no longer held.
        """
        assert low <= high <= self.last_index() + 1, (
            f"log asked for [{low}, {high}), last index {self.last_index()}"
        )
        if low < self.first_index():
            raise Compacted
        if low == high:
            return []
        offset = self.unstable.offset
        if low >= offset:
            return limit_size(self.unstable.slice(low, high), max_size)
        cut = min(high, offset)
        entries = self.storage.entries(low, cut, max_size)
        if high <= offset or len(entries) < cut - low:
            return entries
        room = max_size - entries_size(entries)
        if room <= 0:
            return entries
        rest = limit_size(self.unstable.slice(offset, high), room)
        if len(rest) == 1 and rest[0].size > room:
            return entries
        return [*entries, *rest]

    def entries(self, low: int, max_size: int) -> Sequence[Entry]:
        """All entries from C{low} on, as many as C{max_size} bytes allow."""
        last = self.last_index()
        return [] if low > last else self.slice(low, last + 1, max_size)

    def snapshot(self) -> Snapshot:
        """The snapshot that a follower could be sent now."""
        if self.unstable.snapshot is not None:
            return self.unstable.snapshot
        return self.storage.snapshot()

    # What comes in.

    def append(self, entries: Sequence[Entry]) -> int:
        """Put C{entries} at their place; the last index after it."""
        if entries:
            before = entries[0].index - 1
            assert before >= self.committed, (
                f"after({before}) is out of range [committed({self.committed})]"
            )
            self.unstable.truncate_and_append(entries)
        return self.last_index()

    def maybe_append(
        self, prev_index: int, prev_term: int, entries: Sequence[Entry], commit: int
    ) -> int | None:
        """
        What a follower does with a leader's entries (paper, figure 2,
        AppendEntries 2 to 5): the last index they reach, or None where the
        log does not hold the entry before them.
        """
        if not self.matches(prev_index, prev_term):
            return None
        last_new = prev_index + len(entries)
        conflict = self.find_conflict(entries)
        held = (conflict or last_new + 1) - (prev_index + 1)
        if held:
            self.check_held(entries[:held])
        if conflict:
            assert conflict > self.committed, (
                f"entry {conflict} conflict with committed entry"
                f" [committed({self.committed})]"
            )
            self.append(entries[conflict - (prev_index + 1) :])
        self.commit_to(min(commit, last_new))
        return last_new

    def find_conflict(self, entries: Sequence[Entry]) -> int:
        """
        The index of the first entry that is not held as it is: one that
        contradicts the log, or a new one; 0 if all are held.
        """
        last = self.last_index()
        for entry in entries:
            if entry.index > last:
                return entry.index
            if not self.matches(entry.index, entry.term):
                self.logger.info(
                    f"found conflict at index {entry.index} [existing term:"
                    f" {self.term_or_zero(entry.index)}, conflicting term:"
                    f" {entry.term}]"
                )
                return entry.index
        return 0

    def check_committed(self, index: int, term: int) -> None:
        """
        Hold an entry of a leader's log against what is committed here (paper,
        section 5.4, leader completeness).  Where entries are compacted, terms that
        never fall along a log tell what they can.

        @raise CommittedConflict: both logs cannot be right.
        """
        if index > self.committed:
            # Terms never fall along the leader's log either.
            held = self.committed
            fits = term >= self.term(held)
        elif index + 1 >= self.first_index():
            held = index
            fits = term == self.term(held)
        else:
            held = self.first_index() - 1
            fits = term <= self.term(held)
        if not fits:
            raise CommittedConflict(
                f"the leader's log has an entry of term {term} at index {index}; here"
                f" index {held} is committed, and of term {self.term(held)}"
            )

    def check_held(self, entries: Sequence[Entry]) -> None:
        """
        Hold C{entries} of a leader against those here, of the same places and terms:
        they are the same (paper, section 5.3, log matching), unless two led one term.

        @raise CommittedConflict: one is not.
        """
        first = self.first_index()
        entries = [entry for entry in entries if entry.index >= first]
        if not entries:
            return
        held = self.slice(entries[0].index, entries[-1].index + 1, NO_LIMIT)
        for entry, own in zip(entries, held, strict=True):
            if (entry.type, entry.data) != (own.type, own.data):
                raise CommittedConflict(
                    f"the leader's log has another entry of term {entry.term} at index"
                    f" {entry.index} than the one of that term here: two members have"
                    " led that term"
                )

    def find_conflict_by_term(self, index: int, term: int) -> tuple[int, int]:
        """
        The highest place at or below C{index} whose term is at most C{term},
        and that term: where two logs may agree, given that one holds C{term}
        at C{index}.  The term is 0 where it is not known.
        """
        while index > 0:
            try:
                own_term = self.term(index)
            except (Compacted, Unavailable):
                return index, 0
            if own_term <= term:
                return index, own_term
            index -= 1
        return 0, 0

    def commit_to(self, index: int) -> None:
        """All up to C{index} is committed, if that is news."""
        if index > self.committed:
            last = self.last_index()
            if index > last:
                raise AcknowledgedLost(
                    f"tocommit({index}) is out of range [lastIndex({last})]. Was the"
                    " raft log corrupted, truncated, or lost?"
                )
            self.committed = index

    def maybe_commit(self, index: int, term: int) -> bool:
        """
        Commit up to C{index}, if that is news and its entry is of C{term}
        (paper, section 5.4.2: a leader counts only for its own term's
        entries); whether it did.
        """
        if index > self.committed and term != 0 and self.matches(index, term):
            self.commit_to(index)
            return True
        return False

    def restore(self, snapshot: Snapshot) -> None:
        """A snapshot takes the place of the log."""
        self.logger.info(
            f"log [{self}] starts to restore snapshot [index: {snapshot.index},"
            f" term: {snapshot.term}]"
        )
        self.committed = snapshot.index
        self.unstable.restore(snapshot)

    # What goes out, to the disk.

    def has_unstable_entries(self) -> bool:
        """Whether any entry is not yet known to be durable."""
        return bool(self.unstable.entries)

    def has_unstable_snapshot(self) -> bool:
        """Whether a snapshot is not yet known to be durable."""
        return self.unstable.snapshot is not None

    # What goes out, to be applied.

    def max_appliable_index(self, allow_unstable: bool) -> int:
        """How far entries may be applied now."""
        if allow_unstable:
            return self.committed
        return min(self.committed, self.unstable.offset - 1)

    def has_next_committed(self, allow_unstable: bool) -> bool:
        """Whether entries wait to be handed out to be applied."""
        if self.applying_paused or self.has_unstable_snapshot():
            return False
        return self.applying < self.max_appliable_index(allow_unstable)

    def next_committed(self, allow_unstable: bool) -> Sequence[Entry]:
        """The entries to hand out next to be applied."""
        if not self.has_next_committed(allow_unstable):
            return []
        room = self.max_applying_size - self.applying_size
        assert room > 0, f"{self.applying_size} bytes are being applied, and not paused"
        high = self.max_appliable_index(allow_unstable) + 1
        return self.slice(self.applying + 1, high, room)

    def accept_applying(self, index: int, size: int, allow_unstable: bool) -> None:
        """Entries up to C{index}, of C{size} bytes, were handed out."""
        assert index <= self.committed, (
            f"applying({index}) is out of range [prevApplying({self.applying}),"
            f" committed({self.committed})]"
        )
        self.applying = index
        self.applying_size += size
        # Where a limit cut the hand-out short, nothing more goes out until
        # some of it is applied.
        self.applying_paused = (
            self.applying_size >= self.max_applying_size
            or index < self.max_appliable_index(allow_unstable)
        )

    def applied_to(self, index: int, size: int) -> None:
        """Entries up to C{index}, of C{size} bytes, are applied."""
        assert self.applied <= index <= self.committed, (
            f"applied({index}) is out of range [prevApplied({self.applied}),"
            f" committed({self.committed})]"
        )
        self.applied = index
        self.applying = max(self.applying, index)
        self.applying_size = max(0, self.applying_size - size)
        self.applying_paused = self.applying_size >= self.max_applying_size
