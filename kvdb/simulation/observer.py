"""
Raft's invariants, watched over all machines after every piece of work.

What is checked, and where it stands (paper: Ongaro and Ousterhout 2014):

* election safety: one leader a term (paper, figure 3), which is one life of one
  member: a later life that led the same term would have forgotten the first;
* nobody leads a term that is not on its own disk, with its own vote: of what a loss
  of power may leave it least;
* one vote a term and member, over restarts (section 5.2);
* log matching: what has an index and a term is the same entry everywhere, and
  so is what goes before it (figure 3), committed or not, durable or not;
* leader completeness: who is elected holds all that was committed (figure 3);
* state machine safety: what is committed at an index never changes, and what is
  applied up to an index leaves the same state and membership (figure 3);
* terms, commit and applied indexes of a running member never go back, nor do
  terms over a restart;
* what a member has acknowledged is there after a crash, be it an entry, a term
  or a vote; and the log of a member that crashed can be opened.

It looks at logs and stores from without, and changes nothing.  What it costs
follows from what is new since it looked last.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from attrs import define, field

from kvdb.node.node import Node
from kvdb.raft.messages import Entry, EntryType, Message, MessageType, Role
from kvdb.simulation.filesystem import SimulatedFileSystem
from kvdb.simulation.linearizability import Violation
from kvdb.simulation.machine import BIT_FLIPPED, DATA, Machine
from kvdb.storage.log import Log
from kvdb.storage.segment import CorruptLog

Place = tuple[int, int]
"""An entry's index and term."""


@define(slots=True)
class _Seen:
    """
    What was seen of one member.

    @ivar terms: of its log's entries, by index, from C{first} on.
    @ivar acknowledged: the highest entry that it, or its own progress as
        leader, has said to be durable.
    @ivar promised: the highest term in which it has answered.
    @ivar mark: tells quickly whether its core has changed.
    @ivar votes: whom it has voted for, by term.
    """

    life: int = 0
    term: int = 0
    role: Role = Role.FOLLOWER
    committed: int = 0
    applied: int = 0
    first: int = 1
    terms: list[int] = field(factory=list)
    acknowledged: int = 0
    promised: int = 0
    carried_over: int = 0
    mark: tuple[Any, ...] = ()
    votes: dict[int, int] = field(factory=dict)

    @property
    def last(self) -> int:
        """The last index of the log."""
        return self.first + len(self.terms) - 1


@define(slots=True, eq=False)
class Observer:
    """
    @ivar counts: what has happened, by name; see docs/testing.md.
    @ivar trace: told of what a person who reads a run wants to know.
    @ivar change_is_pending: whether a membership change is under way.
    """

    counts: Counter[str]
    trace: Callable[[str], None]
    change_is_pending: Callable[[], bool]
    _seen: dict[int, _Seen] = field(factory=dict)
    _leaders: dict[int, tuple[int, int]] = field(factory=dict)
    _entries: dict[Place, tuple[int, EntryType, int]] = field(factory=dict)
    _committed: dict[int, int] = field(factory=dict)
    _committed_in: dict[int, int] = field(factory=dict)
    _last_committed: int = 0
    _states: dict[int, object] = field(factory=dict)
    _compacted: int = 0

    # After each piece of work.

    def look(self, machine: Machine) -> None:
        """Something was done on C{machine}."""
        node = machine.node
        if node is None:
            return
        seen = self._seen.get(machine.node_id)
        if seen is None or seen.life != machine.lives:
            if not node.pump.running:
                return
            seen = self._begin(machine, node)
        core = node.pump.raft.core
        log = core.log
        unstable = log.unstable
        entries = unstable.entries
        mark = (
            core.term,
            core.role,
            log.committed,
            unstable.offset,
            len(entries),
            entries[-1].term if entries else 0,
            unstable.snapshot is None,
        )
        if mark != seen.mark:
            seen.mark = mark
            self._look_at_core(machine, core, seen)
        if not node.pump.running:
            # Its last work counts: a conflict that it resolved may be on disk.
            return
        store = node.replica.store
        if store.applied_index != seen.applied:
            self._look_at_state(machine.node_id, store, seen)
            carried = node.pump.proposals.carried_over
            if carried > seen.carried_over:
                self.counts["proposals carried over"] += carried - seen.carried_over
                seen.carried_over = carried
        if core.role is Role.LEADER:
            own = core.tracker.progress.get(machine.node_id)
            if own is not None and own.match > seen.acknowledged:
                seen.acknowledged = own.match

    def _look_at_core(self, machine: Machine, core: Any, seen: _Seen) -> None:
        name = machine.node_id
        if core.term != seen.term or core.role is not seen.role:
            self._look_at_role(machine, core, seen)
        log = core.log
        last = log.last_index()
        if last != seen.last or (seen.terms and log.term(last) != seen.terms[-1]):
            self._look_at_log(name, log, seen)
        if log.committed != seen.committed:
            self._look_at_commit(name, log, seen)

    def sends(self, machine: Machine, messages: Sequence[Message]) -> None:
        """C{machine} says something to another member."""
        seen = self._seen.get(machine.node_id)
        if seen is None:
            return
        for message in messages:
            if message.reject:
                continue
            if message.type is MessageType.VOTE_RESP:
                seen.promised = max(seen.promised, message.term)
                before = seen.votes.setdefault(message.term, message.to)
                if before != message.to:
                    raise Violation(
                        f"member {machine.node_id} votes in term {message.term} for"
                        f" {before} and for {message.to}"
                    )
            elif message.type is MessageType.APP_RESP:
                seen.promised = max(seen.promised, message.term)
                seen.acknowledged = max(seen.acknowledged, message.index)

    def forget(self, machine: Machine) -> None:
        """The data of C{machine} are lost, and its promises with them."""
        self._seen.pop(machine.node_id, None)

    # A new life.

    def _begin(self, machine: Machine, node: Node) -> _Seen:
        log = node.replica.log
        if log.repaired is not None:
            self.counts["torn ends of logs repaired"] += 1
        first = log.first_index()
        terms = [log.term(index) for index in range(first, log.last_index() + 1)]
        old = self._seen.get(machine.node_id)
        seen = _Seen(machine.lives, log.hard_state.term, Role.FOLLOWER)
        seen.applied = node.replica.store.applied_index
        seen.committed = node.pump.raft.core.log.committed
        seen.first, seen.terms = first, terms
        if old is not None:
            self._compare_lives(machine, old, seen, log.hard_state)
        for index in range(first, log.last_index() + 1):
            self._register(machine.node_id, log, index)
        self._check_committed(machine.node_id, seen, first, seen.committed)
        self._seen[machine.node_id] = seen
        return seen

    def _compare_lives(
        self, machine: Machine, old: _Seen, new: _Seen, hard_state: Any
    ) -> None:
        name = machine.node_id
        if new.term < old.promised:
            raise Violation(
                f"member {name} answered in term {old.promised}, and was started in"
                f" {new.term}"
            )
        new.promised = old.promised
        new.votes = old.votes
        vote = old.votes.get(hard_state.term)
        if vote is not None and hard_state.vote != vote:
            raise Violation(
                f"member {name} voted for {vote} in term {hard_state.term}, and"
                f" knows of {hard_state.vote} after a restart"
            )
        acknowledged = min(old.acknowledged, old.last)
        if acknowledged < old.first:
            return
        if new.last < acknowledged:
            raise Violation(
                f"member {name} acknowledged entry {acknowledged}, and has {new.last}"
                " after a restart"
            )
        for index in range(max(old.first, new.first), acknowledged + 1):
            before = old.terms[index - old.first]
            after = new.terms[index - new.first]
            if before != after:
                raise Violation(
                    f"member {name} acknowledged entry {index} of term {before}, and"
                    f" has one of term {after} after a restart"
                )
        new.acknowledged = acknowledged
        self.counts["restarts with a log"] += 1
        if new.last < old.last:
            self.counts["entries lost that nobody was promised"] += 1

    # Roles.

    def _look_at_role(self, machine: Machine, core: Any, seen: _Seen) -> None:
        name = machine.node_id
        if core.term < seen.term:
            raise Violation(
                f"member {name} went from term {seen.term} back to {core.term}"
            )
        if core.role is Role.LEADER and (
            seen.role is not Role.LEADER or core.term != seen.term
        ):
            other, life = self._leaders.setdefault(core.term, (name, machine.lives))
            if other != name:
                raise Violation(f"members {other} and {name} both lead in {core.term}")
            if life != machine.lives:
                raise Violation(
                    f"member {name} leads in term {core.term} for the second time,"
                    f" having forgotten the first (lives {life}, {machine.lives})"
                )
            self._check_durable(machine, core.term)
            self.counts["elections"] += 1
            self.trace(f"member {name} leads in term {core.term}")
            self._check_complete(name, core.term, core.log)
        if seen.role is Role.LEADER and core.role is not Role.LEADER:
            self.counts["leaders that stepped down"] += 1
        seen.term, seen.role = core.term, core.role

    def _check_durable(self, machine: Machine, term: int) -> None:
        """Who leads has its term and its own vote on its disk."""
        files = machine.filesystem.durable()
        disk = SimulatedFileSystem(machine.reactor, Random(0))
        disk.put_back(files)
        try:
            log = Log.open(disk, f"{DATA}/log", machine.reactor)
        except CorruptLog:
            if BIT_FLIPPED in machine.excuses:
                return  # it will be found out at the next start
            raise
        state = log.hard_state
        log.close()
        if (state.term, state.vote) != (term, machine.node_id):
            raise Violation(
                f"member {machine.node_id} leads in term {term}, and on its disk is"
                f" term {state.term} with a vote for {state.vote}"
            )

    def _check_complete(self, name: int, term: int, log: Any) -> None:
        # An election of an earlier term may be decided after a later one's, as
        # votes are late: it binds nobody to what was committed since.
        first = log.first_index() - 1
        for index in range(max(first, 1), self._last_committed + 1):
            expected = self._committed.get(index)
            if expected is None or self._committed_in[index] >= term:
                continue
            found = log.term_or_zero(index) if index <= log.last_index() else 0
            if found != expected:
                raise Violation(
                    f"member {name} was elected without the committed entry {index} of"
                    f" term {expected}; it has one of term {found}"
                )

    # Logs.

    def _look_at_log(self, name: int, log: Any, seen: _Seen) -> None:
        first, last = log.first_index(), log.last_index()
        if last < seen.first or first > seen.last + 1:  # a snapshot took its place
            seen.first, seen.terms = first, []
            self._count_snapshot()
        index = min(last, seen.last)
        low = max(first, seen.first)
        while index >= low and log.term(index) != seen.terms[index - seen.first]:
            index -= 1
        cut = seen.last - max(index, low - 1)
        if cut > 0:
            keep = max(index, low - 1)
            if seen.terms and keep < seen.committed:
                raise Violation(
                    f"member {name} gave up entries behind {keep}, committed to"
                    f" {seen.committed}"
                )
            del seen.terms[max(0, keep + 1 - seen.first) :]
            seen.acknowledged = min(seen.acknowledged, keep)
            self.counts["logs truncated on conflict"] += 1
        if first > seen.first:
            self.counts["logs cut behind what is applied"] += 1
            del seen.terms[: first - seen.first]
            seen.first = first
        for new in range(seen.last + 1, last + 1):
            self._register(name, log, new)
            seen.terms.append(log.term(new))

    def _count_snapshot(self) -> None:
        self.counts["snapshots installed"] += 1
        if self.change_is_pending():
            self.counts["snapshots installed while a membership changed"] += 1

    def _register(self, name: int, log: Any, index: int) -> None:
        entry = _entry(log, index)
        found = (log.term(index - 1), entry.type, zlib.crc32(entry.data))
        known = self._entries.setdefault((index, entry.term), found)
        if known != found:
            raise Violation(
                f"log matching: member {name} has another entry {index} of term"
                f" {entry.term}, or another before it"
            )

    def _look_at_commit(self, name: int, log: Any, seen: _Seen) -> None:
        if log.committed < seen.committed:
            raise Violation(
                f"member {name} went from commit {seen.committed} back to"
                f" {log.committed}"
            )
        self._check_committed(name, seen, seen.committed + 1, log.committed)
        seen.committed = log.committed

    def _check_committed(self, name: int, seen: _Seen, low: int, high: int) -> None:
        for index in range(max(low, seen.first), high + 1):
            term = seen.terms[index - seen.first]
            known = self._committed.setdefault(index, term)
            self._committed_in.setdefault(index, seen.term)
            if known != term:
                raise Violation(
                    f"entry {index} was committed in term {known}; member {name} has"
                    f" one of term {term} committed"
                )
        if high > self._last_committed:
            self.counts["entries committed"] += high - self._last_committed
            self._last_committed = high

    # The state.

    def _look_at_state(self, name: int, store: Any, seen: _Seen) -> None:
        if store.applied_index <= seen.applied:
            raise Violation(
                f"member {name} went from applied {seen.applied} back to"
                f" {store.applied_index}"
            )
        if store.applied_index > self._last_committed:
            raise Violation(
                f"member {name} applied {store.applied_index}, committed is"
                f" {self._last_committed}"
            )
        state = (
            store.applied_term,
            store.revision,
            store.compacted_revision,
            store.conf_state,
            tuple(store.members.values()),
            tuple(sorted(store.removed)),
        )
        known = self._states.setdefault(store.applied_index, state)
        if known != state:
            raise Violation(
                f"state at index {store.applied_index}: member {name} has {state},"
                f" another had {known}"
            )
        seen.applied = store.applied_index
        if store.compacted_revision > self._compacted:
            self._compacted = store.compacted_revision
            self.counts["histories cut"] += 1


def _entry(log: Any, index: int) -> Entry:
    """The entry at an index, of a core's log or a durable one."""
    read = log.slice if hasattr(log, "slice") else log.entries
    entry: Entry = read(index, index + 1, 1)[0]
    return entry


@define(slots=True, eq=False)
class Tap:
    """A member's way to the others, with the observer listening."""

    network: Any
    machine: Machine
    observer: Observer

    def send(self, to: int, messages: Sequence[Message]) -> None:
        """See L{Transport<kvdb.node.pump.Transport>}."""
        self.observer.sends(self.machine, messages)
        self.network.send(to, messages)

    def send_now(self, message: Message) -> bool:
        """See there."""
        sent: bool = self.network.send_now(message)
        if sent:
            self.observer.sends(self.machine, [message])
        return sent
