"""
Writes on their way through the log.

A proposal is queued until a leader takes it, then it is under way until the
entry that holds it is applied here.  Which of the two it is decides what its
caller is told when time runs out: that nothing was done, or that nobody knows.

A proposal that went down with its leader is found out and queued again.  It
was taken in a term, by that term's leader and no other; once an entry of a
later term is applied, no entry of the earlier one will be any more (paper,
section 5.4: leader completeness and log matching).  So what is still under way
then was never carried out, and never will be.

Rules:

* a caller who gives up changes nothing;
* what a proposal was judged on before it was queued is judged again when it leaves
  the queue, also for the next leader;
* a command names its proposal by this node's session (drawn anew at each start)
  and a sequence number, so no other node's command, and none of an earlier run,
  settles it;
* what is proposed at once goes into as few entries as may be: an entry is dear,
  to the core, the log and the wire, and a command in it cheap;
* what waits is bounded in number and in bytes: beyond that nothing is taken in;
* there is one table of proposals, in the order of their sequence numbers; which of
  them are queued is noted in each, and the rest is counted from that;
* a follower passes on a window of bytes at a time; the rest stays queued, and so
  can still be refused, or passed to the next leader.  The window is given back
  when an outcome is known here, when time runs out, and as a whole when the
  connection, the term or what can be known has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from kvdb.durations import Durations
from kvdb.interfaces import Caller, DatabaseError, OutcomeUnknown, Unavailable
from kvdb.raft.config import ProposalDropped
from kvdb.raft.messages import Entry, EntryType
from kvdb.store.commands import Outcome
from kvdb.store.encoding import join_commands

_QUEUED: Final = 0
_UNKNOWN: Final = 2**64

FAILURES: Final = ("busy", "no-space", "not-taken", "outcome-unknown", "stopping")
"""Why writes fail: too many wait; the disk is full; no leader took it in time; one
did, and it was not seen to be carried out in time; the node stops."""

MAX_WAITING: Final = 65_536
"""Proposals queued and under way."""

MAX_QUEUED_BYTES: Final = 64 << 20
"""Bytes of data in queued proposals."""

MAX_PASSED_BYTES: Final = 4 << 20
"""Bytes of data that a follower has passed to its leader and that are under way, or
one proposal of any size.  A leader holds several times that for each member, see
L{kvdb.node.forwarded}."""

MAX_BATCH_BYTES: Final = 1 << 20
"""Bytes of entries proposed at once, or one entry of any size."""

MAX_ENTRY_BYTES: Final = 8 << 10
"""Bytes of commands that share an entry, or one command of any size: enough to
make its cost small, and few enough for its turn to be short."""

HINT: Final = (
    "It may yet be carried out.  Retry with the same Idempotency-Key, or read back."
)


@define(slots=True, eq=False)
class _Waiting:
    """
    @ivar data: the command, or the membership change.
    @ivar renew: makes C{data} again, when it is proposed.
    @ivar term: in which it is under way; L{_QUEUED}, or L{_UNKNOWN} where
        nothing can be concluded any more.
    @ivar window: the window that it takes a part of; 0 for none.
    """

    caller: Caller[Outcome]
    deadline: float
    data: bytes
    kind: EntryType
    renew: Callable[[], bytes] | None
    term: int = _QUEUED
    window: int = 0


@define(slots=True)
class Proposals:
    """
    @ivar session: this run of this node, a random unsigned 64-bit integer.
    @ivar timeout: seconds a caller waits at most.
    @ivar queued_bytes: what waits to be taken by a leader.
    @ivar passed_bytes: what was passed to another member, the leader, and is under
        way, as far as the window counts it.
    @ivar failed: how many were not carried out, as far as is known here, by reason.
    @ivar took: until a proposal was carried out; measured of one at a time.
    @ivar carried_over: how many were queued again, as their leader had failed.
    """

    session: int
    timeout: float
    clock: IReactorTime
    carried_over: int = 0
    queued_bytes: int = 0
    passed_bytes: int = 0
    failed: dict[str, int] = field(factory=lambda: dict.fromkeys(FAILURES, 0))
    took: Durations = field(factory=Durations)
    _measured: int = 0
    _measured_from: float = 0.0
    _sequence: int = 0
    _queue: dict[int, _Waiting] = field(factory=dict)
    _next: int = 1  # none of a lower number is queued
    _window: int = 1
    _window_term: int = 0

    def __len__(self) -> int:
        return len(self._queue)

    def next_sequence(self) -> int:
        """
        The number of the next proposal.

        @raise Unavailable: too many wait already.
        """
        if len(self._queue) >= MAX_WAITING or self.queued_bytes >= MAX_QUEUED_BYTES:
            self.failed["busy"] += 1
            raise Unavailable(
                f"{len(self._queue)} writes are waiting already",
                "Slow down, and try again.",
            )
        self._sequence += 1
        return self._sequence

    def submit(
        self,
        now: float,
        sequence: int,
        data: bytes,
        caller: Caller[Outcome],
        kind: EntryType = EntryType.NORMAL,
        renew: Callable[[], bytes] | None = None,
    ) -> None:
        """
        Queue a proposal.

        @param data: the command, or the membership change, which bears the
            session and C{sequence}.
        @param caller: told the outcome once it is applied.
        @param renew: where C{data} stands on what may change while it is queued: makes
            it again whenever it is proposed, or raises the L{DatabaseError} that
            the caller is told instead.
        """
        if not self._measured:
            self._measured, self._measured_from = sequence, now
        self._queue[sequence] = _Waiting(caller, now + self.timeout, data, kind, renew)
        self.queued_bytes += len(data)

    def offer(
        self,
        propose: Callable[[Sequence[Entry]], None],
        term: int,
        *,
        elsewhere: bool = False,
    ) -> None:
        """
        Have what is queued proposed, in order, in batches.

        @param propose: takes a batch, or raises L{ProposalDropped}; then this
            batch and all behind it stay queued.
        @param term: the one whose leader takes them, or nobody does.
        @param elsewhere: another member leads: no more than the window is passed on.
        """
        if elsewhere and term != self._window_term:
            self.open_window()
            self._window_term = term
        window = self._window if elsewhere else 0
        while self.queued_bytes:
            room = MAX_PASSED_BYTES - self.passed_bytes if elsewhere else None
            entries, taken, size, following = self._next_batch(room)
            if not taken:
                return
            try:
                propose(entries)
            except ProposalDropped:
                return
            for one in taken:
                one.term, one.window = term, window
            self._next = following
            self.queued_bytes -= size
            if elsewhere:
                self.passed_bytes += size

    def _next_batch(
        self, room: int | None
    ) -> tuple[list[Entry], list[_Waiting], int, int]:
        """
        Entries to be proposed at once, the proposals in them, the bytes of these,
        and the sequence number behind them.

        @param room: bytes that the window has left; None where there is none.
        """
        entries: list[Entry] = []
        taken: list[_Waiting] = []
        following = self._next
        commands: list[bytes] = []
        total = size = 0
        most = MAX_BATCH_BYTES if room is None else min(MAX_BATCH_BYTES, room)
        for sequence in range(self._next, self._sequence + 1):
            # Of the table itself: a caller that is told may have all refused.
            one = self._queue.get(sequence)
            if one is None or one.term != _QUEUED:
                continue
            length = len(one.data)
            alone = one.kind is not EntryType.NORMAL
            if taken:
                if alone or total + length > most:
                    break
            else:
                self._next = sequence
                if one.renew is not None:
                    if not self._is_renewed(sequence, one, one.renew):
                        continue
                    length = len(one.data)
                if room is not None and self.passed_bytes and length > room:
                    break
            taken.append(one)
            following = sequence + 1
            total += length
            if alone:  # a membership change
                entries.append(Entry(0, 0, one.kind, one.data))
                break
            if commands and size + length > MAX_ENTRY_BYTES:
                entries.append(Entry(0, 0, data=join_commands(commands)))
                commands, size = [], 0
            commands.append(one.data)
            size += length
        if commands:
            entries.append(Entry(0, 0, data=join_commands(commands)))
        return entries, taken, total, following

    def open_window(self) -> None:
        """Nothing that was passed on so far takes a part of the window any more."""
        self._window += 1
        self.passed_bytes = 0

    def _is_renewed(
        self, sequence: int, one: _Waiting, renew: Callable[[], bytes]
    ) -> bool:
        """Make a proposal again; if it is not to be made any more, its caller hears
        so."""
        before = len(one.data)
        try:
            one.data = renew()
        except DatabaseError as error:
            del self._queue[sequence]
            self._uncount(one)
            if sequence == self._measured:
                self._measured = 0
            one.caller.errback(error)
            return False
        self.queued_bytes += len(one.data) - before
        return True

    def settle(self, session: int, sequence: int, outcome: Outcome) -> None:
        """A command was carried out here: its caller, if one of ours, hears of it."""
        if session == self.session:
            if sequence == self._measured:
                self._measured = 0
                self.took.observe(self.clock.seconds() - self._measured_from)
            waiting = self._queue.pop(sequence, None)
            if waiting is not None:
                self._uncount(waiting)
                waiting.caller.callback(outcome)

    def _uncount(self, waiting: _Waiting) -> None:
        """It is in the table no more."""
        if waiting.term == _QUEUED:
            self.queued_bytes -= len(waiting.data)
        elif waiting.window == self._window:
            self.passed_bytes -= len(waiting.data)

    def applied_term(self, term: int) -> None:
        """
        An entry of C{term} was applied: queue again what earlier leaders took
        and nobody will carry out.
        """
        for sequence, waiting in self._queue.items():
            if _QUEUED < waiting.term < term:
                self._uncount(waiting)
                waiting.term = _QUEUED
                self.carried_over += 1
                self._next = min(self._next, sequence)
                self.queued_bytes += len(waiting.data)

    def lost_sight(self) -> None:
        """
        Entries were applied elsewhere, in a snapshot: nothing can be said of
        those that are under way.
        """
        self.open_window()
        for waiting in self._queue.values():
            if waiting.term != _QUEUED:
                waiting.term = _UNKNOWN

    def expire(self, now: float, why: str) -> None:
        """
        Tell those whose time is up.

        @param why: why nothing may have come of it, for people.
        """
        late = []
        for sequence, waiting in self._queue.items():
            # All wait equally long, so the oldest comes first.
            if waiting.deadline > now:
                break
            late.append((sequence, waiting))
        for sequence, waiting in late:
            if self._queue.pop(sequence, None) is None:
                continue  # a caller that was just told had all refused
            self._uncount(waiting)
            self._next = max(self._next, sequence + 1)
            queued = waiting.term == _QUEUED
            self._note_failed(sequence, "not-taken" if queued else "outcome-unknown")
            waiting.caller.errback(self._error(waiting, why))

    def refuse_all(self, why: str) -> None:
        """The node stops: tell everyone."""
        waiting, self._queue = self._queue, {}
        self.queued_bytes = self.passed_bytes = 0
        for sequence, one in waiting.items():
            self._note_failed(sequence, "stopping")
            one.caller.errback(self._error(one, why))

    def _note_failed(self, sequence: int, why: str) -> None:
        self.failed[why] += 1
        if sequence == self._measured:
            self._measured = 0

    def _error(self, waiting: _Waiting, why: str) -> DatabaseError:
        if waiting.term != _QUEUED:
            return OutcomeUnknown(
                f"the write was not seen to be carried out in {self.timeout:g} s", HINT
            )
        return Unavailable(why, "Try again.")
