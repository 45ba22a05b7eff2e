"""
A leader's view of one member's log.

The view is in one of three states::

    PROBE      where the logs agree is not known: one message at a time
      |  ^
      |  | a rejection, or the member is unreachable
      v  |
    REPLICATE  it is known: messages are sent ahead of their answers
      |
      | the entries needed are compacted
      v
    SNAPSHOT   nothing is sent until the snapshot has arrived, or not

Rules: C{match < next}; everything up to C{match} is known to be on the
member's disk; C{next} is the next entry to send.
"""

from __future__ import annotations

import enum
from collections import deque

from attrs import define, field


class ProgressState(enum.Enum):
    """How a member is sent entries."""

    PROBE = "StateProbe"
    REPLICATE = "StateReplicate"
    SNAPSHOT = "StateSnapshot"


@define(slots=True)
class Inflights:
    """
    The append messages that were sent and not yet answered, oldest first.

    @ivar size: how many there may be.
    @ivar max_bytes: how many bytes of data they may hold; 0 for no bound.
    """

    size: int
    max_bytes: int = 0
    bytes: int = 0
    _window: deque[tuple[int, int]] = field(factory=deque)

    def add(self, index: int, size: int) -> None:
        """A message was sent whose last entry is C{index}."""
        assert not self.full, "a message was sent in spite of a full window"
        self._window.append((index, size))
        self.bytes += size

    def free_to(self, index: int) -> None:
        """Everything up to C{index} is answered."""
        window = self._window
        while window and window[0][0] <= index:
            self.bytes -= window.popleft()[1]

    def reset(self) -> None:
        """Nothing is in flight any more."""
        self._window.clear()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._window)

    @property
    def full(self) -> bool:
        """Whether another message would be over a bound."""
        return len(self._window) >= self.size or (
            self.max_bytes != 0 and self.bytes >= self.max_bytes
        )


@define(slots=True)
class Progress:
    """
    @ivar sent_commit: the highest commit index that is on its way.
    @ivar pending_snapshot: the index of the snapshot that is on its way.
    @ivar recent_active: whether anything was heard from the member since the
        leader last checked for its quorum.
    @ivar append_paused: nothing is sent until the member answers.
    """

    match: int
    next: int
    inflights: Inflights
    is_learner: bool = False
    state: ProgressState = ProgressState.PROBE
    sent_commit: int = 0
    pending_snapshot: int = 0
    recent_active: bool = False
    append_paused: bool = False

    def copy(self) -> Progress:
        """
        A copy that can be changed without changing this one, but for what is
        in flight, which both share: it belongs to the member, not the view.
        """
        return Progress(
            self.match,
            self.next,
            self.inflights,
            self.is_learner,
            self.state,
            self.sent_commit,
            self.pending_snapshot,
            self.recent_active,
            self.append_paused,
        )

    def _enter(self, state: ProgressState) -> None:
        self.append_paused = False
        self.pending_snapshot = 0
        self.state = state
        self.inflights.reset()

    def become_probe(self) -> None:
        """Find anew where the logs agree; after a snapshot, just above it."""
        pending = self.pending_snapshot
        after_snapshot = self.state is ProgressState.SNAPSHOT
        self._enter(ProgressState.PROBE)
        self.next = self.match + 1
        if after_snapshot:
            self.next = max(self.next, pending + 1)
        self.sent_commit = min(self.sent_commit, self.next - 1)

    def become_replicate(self) -> None:
        """The logs agree up to C{match}."""
        self._enter(ProgressState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, index: int) -> None:
        """A snapshot at C{index} is on its way."""
        self._enter(ProgressState.SNAPSHOT)
        self.pending_snapshot = index
        self.next = index + 1
        self.sent_commit = index

    def sent_entries(self, count: int, size: int) -> None:
        """An append message of C{count} entries was sent."""
        if self.state is ProgressState.REPLICATE:
            if count > 0:
                self.next += count
                self.inflights.add(self.next - 1, size)
            # The message that fills the window is a probe: wait for a word.
            self.append_paused = self.inflights.full
        elif self.state is ProgressState.PROBE:
            if count > 0:
                self.append_paused = True
        else:
            raise AssertionError(f"entries sent in {self.state.value}")

    def can_bump_commit(self, commit: int) -> bool:
        """Whether the member could commit more if it were told C{commit}."""
        return commit > self.sent_commit and self.sent_commit < self.next - 1

    def maybe_update(self, index: int) -> bool:
        """The member holds C{index}; whether that is news."""
        if index <= self.match:
            return False
        self.match = index
        self.next = max(self.next, index + 1)
        self.append_paused = False
        return True

    def maybe_decrease(self, rejected: int, match_hint: int) -> bool:
        """
        The member refused an append that followed C{rejected}, and may agree
        at C{match_hint}; whether that is news, and not an old answer.
        """
        if self.state is ProgressState.REPLICATE:
            if rejected <= self.match:
                return False
            self.next = self.match + 1
        else:
            if self.next - 1 != rejected:
                return False
            self.next = max(min(rejected, match_hint + 1), self.match + 1)
            self.append_paused = False
        self.sent_commit = min(self.sent_commit, self.next - 1)
        return True

    @property
    def paused(self) -> bool:
        """Whether nothing may be sent now."""
        return self.state is ProgressState.SNAPSHOT or self.append_paused

    def __str__(self) -> str:
        words = [f"{self.state.value} match={self.match} next={self.next}"]
        if self.is_learner:
            words.append("learner")
        if self.paused:
            words.append("paused")
        if self.pending_snapshot > 0:
            words.append(f"pendingSnap={self.pending_snapshot}")
        if not self.recent_active:
            words.append("inactive")
        if len(self.inflights) > 0:
            full = "[full]" if self.inflights.full else ""
            words.append(f"inflight={len(self.inflights)}{full}")
        return " ".join(words)


ProgressMap = dict[int, Progress]


def describe_progress_map(progress: ProgressMap) -> str:
    """A line for each member, by id."""
    return "".join(f"{node}: {progress[node]}\n" for node in sorted(progress))
