"""
The pump: one Raft group, driven.

::

    peers --messages--> |            | --messages--> peers
    callers --writes--> |    core    | --appends---> LogWriter --> log
    callers --reads---> |            | --applies---> store
    clock --ticks-----> |            | <-responses-- both

Whatever callers ask for during one turn of the reactor waits for its end; then
it is proposed and its reads are asked for together, and all that follows is
carried out: one log write, one frame per peer, one engine batch.  Cost is per
turn, not per request.  What another member or the disk says is acted upon at
once, for it stands for a batch already.

Rules:

* no rule of the Raft paper stands here; those are the core's;
* entries are applied a slice per turn, behind what the network and the disk
  bring: a follower's answer to an append, and heartbeats, do not wait for it;
* a broken invariant stops the node: C{stop} is told, and nothing is retried.
"""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvdb.durations import Durations
from kvdb.interfaces import Audience, Caller, DatabaseError, NoSpace, Unavailable
from kvdb.node.corelog import CoreLog
from kvdb.node.forwarded import Forwarded
from kvdb.node.gathering import Gathering
from kvdb.node.outbox import Outbox
from kvdb.node.proposals import Proposals
from kvdb.node.reads import Reads
from kvdb.node.replica import Replica
from kvdb.node.settings import NodeSettings
from kvdb.node.writer import LogWriter
from kvdb.raft.config import PeerNotFound, ProposalDropped
from kvdb.raft.core import Config
from kvdb.raft.log import AcknowledgedLost, CommittedConflict
from kvdb.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    NO_NODE,
    Entry,
    EntryType,
    Message,
    MessageType,
    Ready,
    Role,
    Snapshot,
    SoftState,
)
from kvdb.raft.rawnode import RawNode
from kvdb.storage.filesystem import DiskFull
from kvdb.store.commands import Command, Outcome
from kvdb.store.encoding import encode_command
from kvdb.times import time_ms_of

MAX_MESSAGE_BYTES: Final = 1 << 20
"""Entries in one append message, in bytes."""

MAX_INFLIGHT_MESSAGES: Final = 256
"""Append messages sent ahead of their answers, per follower."""

MAX_INFLIGHT_BYTES: Final = 8 << 20
"""Data in them, in bytes."""

MAX_APPLY_BYTES: Final = 512 << 10
"""Entries handed out to be applied and not yet so, in bytes."""

APPLY_SLICE_BYTES: Final = 16 << 10
"""Entries applied in one turn, in bytes, or one of any size."""

MAX_UNCOMMITTED_BYTES: Final = 128 << 20
"""Data a leader takes in beyond what it has applied, in bytes."""

SPARE_SEGMENTS: Final = 2
"""Segments' worth of space that is left free beside what the store has yet to write:
the log may take as much in one step, a segment and the one prepared behind it."""

log = Logger(namespace="kvdb.node")

MAX_READYS_PER_TURN: Final = 16
"""Passes through the core before the reactor has its turn again."""

REMEDIES: Final[dict[type, str]] = {
    CommittedConflict: (
        "Both cannot be right, so a majority of the members has lost what was durable:"
        " a data directory was put back to an older copy, or a disk lost what it had"
        " confirmed.  Keep {log} and the store beside it as they are, stop the other"
        " members, and see docs/procedures.md, 'Members contradict each other'"
    ),
    AcknowledgedLost: (
        "{log} has lost entries that this member had acknowledged: it was put back to"
        " an older copy, or its disk lost what it had confirmed.  Start this member"
        " with the directory it had; or remove it, and add it under a new id with an"
        " empty data directory"
    ),
}
"""What to do where what was durable is found to be lost."""

NOT_ADDED: Final = (
    "this member waits to join: it was not added to the cluster yet, or no member"
    " reaches its peer URL"
)
NO_LEADER: Final = "no leader is known: fewer than half of the members can be reached"


class Watcher(Protocol):
    """Who else acts when the pump moves: memberships, snapshots, compaction."""

    def ticked(self) -> None:
        """A tick has passed."""

    def leader_changed(self) -> None:
        """Another leader, or another role here."""

    def applied(self, entries: int, commands: int) -> None:
        """So many more entries are applied, with so many commands in them."""


@define(slots=True, eq=False, kw_only=True)
class Pump:
    """
    @ivar session: this run of this node, drawn at random.
    @ivar stop: told why the node must stop, and the exit status.
    @ivar time_of_day: seconds since the epoch, noted with each write.
    @ivar apply_change: applies a membership entry; the session, sequence
        number and outcome of its proposal.
    @ivar install: puts a received snapshot's state in place.
    @ivar audiences: told when outcomes come that belong together.
    @ivar send_snapshot: streams the store to the receiver of a message.
    @ivar leader_changes: how often another leader was seen.
    @ivar applies: how long a slice of entries took to apply.
    @ivar stalled_for: seconds for which the disk has not answered, once that
        is longer than an election timeout; else 0.
    """

    clock: IReactorTime
    random: random.Random
    node_id: int
    session: int
    replica: Replica
    settings: NodeSettings
    outbox: Outbox
    stop: Callable[[str, int], None]
    time_of_day: Callable[[], float]
    apply_change: Callable[[Entry], tuple[int, int, Outcome] | None]
    install: Callable[[Snapshot], None]
    send_snapshot: Callable[[Message], None]
    watchers: Sequence[Watcher] = ()
    audiences: list[Audience] = field(factory=list)
    core_log: CoreLog = field(factory=CoreLog)
    raft: RawNode = field(init=False)
    proposals: Proposals = field(init=False)
    forwarded: Forwarded = field(init=False)
    reads: Reads = field(init=False)
    writer: LogWriter = field(init=False)
    gathering: Gathering = field(init=False)
    stalled_for: float = 0.0
    running: bool = False
    leader_changes: int = 0
    applies: Durations = field(factory=Durations)
    _last_leader: int = NO_NODE
    _advancing: bool = False
    _to_apply: deque[Message] = field(factory=deque)
    _applied_term: int = 0
    _turn_call: IDelayedCall | None = None
    _ticking: LoopingCall | None = None

    def __attrs_post_init__(self) -> None:
        timeout = self.settings.request_timeout
        self.proposals = Proposals(self.session, timeout, self.clock)
        self.forwarded = Forwarded(timeout)
        self.reads = Reads(self.session, timeout)
        self.gathering = Gathering(self.clock, self.wake)
        self.writer = LogWriter(
            self.replica.log,
            self._deliver,
            self.install,
            self.fail,
            self.clock,
            slow_seconds=self.settings.election_timeout / 2,
            sync_interval=self.settings.sync_interval,
            room=self._room,
        )
        self.raft = RawNode(self._config(), self.replica)

    def _room(self) -> int:
        """See L{LogWriter}."""
        space = self.replica.log.space()
        if space is None:
            return sys.maxsize
        unflushed = self.replica.store.unflushed_bytes
        needed = unflushed + SPARE_SEGMENTS * self.settings.segment_bytes
        if space.free < needed:
            raise DiskFull(
                f"no space on the disk for {self.replica.log.directory}:"
                f" {space.free >> 20} MiB are left, and {-(-needed >> 20)} are kept for"
                " what the store has yet to write"
            )
        return space.free - needed

    def _config(self) -> Config:
        return Config(
            id=self.node_id,
            election_tick=self.settings.election_ticks,
            heartbeat_tick=self.settings.heartbeat_ticks,
            random=self.random,
            applied=self.replica.store.applied_index,
            async_storage_writes=True,
            max_size_per_msg=MAX_MESSAGE_BYTES,
            max_committed_size_per_ready=MAX_APPLY_BYTES,
            max_uncommitted_entries_size=MAX_UNCOMMITTED_BYTES,
            max_inflight_msgs=MAX_INFLIGHT_MESSAGES,
            max_inflight_bytes=MAX_INFLIGHT_BYTES,
            check_quorum=True,
            pre_vote=True,
            step_down_on_removal=True,
            logger=self.core_log,
        )

    # Running.

    def start(self) -> None:
        """Begin to tick."""
        self.running = True
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = self.clock
        self._ticking.start(self.settings.tick, now=False)
        core = self.raft.core
        if core.tracker.is_singleton and core.promotable:
            self.raft.campaign()  # nobody else could lead
        self.wake()

    def halt(self, why: str) -> None:
        """Do nothing any more; whoever waits is told C{why}."""
        self.running = False
        if self._ticking is not None and self._ticking.running:
            self._ticking.stop()
        if self._turn_call is not None:
            self._turn_call.cancel()
            self._turn_call = None
        self.gathering.stop()
        self.writer.stop()
        self.outbox.close()
        self.proposals.refuse_all(why)
        self.reads.refuse_all(why)

    def fail(self, failure: Failure) -> None:
        """Something is broken for good: the node stops."""
        if not self.running:
            return
        why = str(failure.value)
        remedy = REMEDIES.get(type(failure.value))
        if remedy is None:
            log.failure("the node stops: {error}", failure, error=failure.value)
        else:
            why = f"{why}.  {remedy.format(log=self.replica.log.directory)}"
            log.critical("the node stops: {why}", why=why)
        self.halt("the node has failed and stops")
        self.stop(why, 1)

    def wake(self) -> None:
        """Something came in: have a pass made at the end of this turn."""
        if self._turn_call is None and self.running:
            self._turn_call = self.clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._turn_call = None
        try:
            self._propose_all()
            self.reads.ask(self.clock.seconds(), self._read_index)
            self._advance()
        except Exception:
            self.fail(Failure())

    def _read_index(self, context: bytes) -> None:
        """Ask the leader; where none is known, that follows when one is."""
        if self.leader != NO_NODE:
            self.raft.read_index(context)

    def _tick(self) -> None:
        try:
            self._one_tick()
        except Exception:
            self.fail(Failure())

    def _one_tick(self) -> None:
        now = self.clock.seconds()
        self._watch_disk()
        if self.may_lead or self.leading:
            # A member that could not write its vote must not ask for votes,
            # and does not count the time until it would.
            self.raft.tick()
        self.proposals.expire(now, self.why_not())
        self.reads.ask_again(now, self._read_index, all_rounds=False)
        self.reads.expire(now, self.why_not())
        self.forwarded.expire(now)
        for watcher in self.watchers:
            watcher.ticked()
        self.wake()

    # What is the case.

    @property
    def leading(self) -> bool:
        """Whether this member leads, as far as it knows."""
        return self.raft.core.role is Role.LEADER

    @property
    def leader(self) -> int:
        """Who leads, as far as is known here."""
        return self.raft.core.leader

    @property
    def may_lead(self) -> bool:
        """Whether the disk would let this member lead."""
        return self.writer.full is None and not self.stalled_for

    def why_not(self) -> str:
        """Why nothing comes of a request, for people."""
        if self.writer.full is not None:
            return str(self.writer.full)
        if not self.replica.store.members:
            return NOT_ADDED
        if self.leader == NO_NODE:
            return NO_LEADER
        return f"the leader, member {self.leader}, did not answer in time"

    def _watch_disk(self) -> None:
        if self.writer.full is not None:
            self.writer.write()
        waited = self.replica.log.pending_sync_seconds()
        stalled = waited >= self.settings.election_timeout
        if stalled and not self.stalled_for:
            log.error(
                "the disk under {path} has not answered for {seconds:.1f} s:"
                " this member leads no more and does not stand for election",
                path=self.replica.log.directory,
                seconds=waited,
            )
            self.raft.step_down()
        elif self.stalled_for and not stalled:
            log.info("the disk under {path} answers", path=self.replica.log.directory)
        self.stalled_for = waited if stalled else 0.0

    # Inputs.

    def write_for(self, command: Command, caller: Caller[Outcome]) -> None:
        """See L{Database<kvdb.interfaces.Database>}."""
        try:
            sequence = self._next_sequence()
        except DatabaseError as error:
            caller.errback(error)
            return
        time_ms = time_ms_of(self.time_of_day())
        data = encode_command(self.session, sequence, time_ms, command)
        self.proposals.submit(self.clock.seconds(), sequence, data, caller)
        self.wake()

    def write(self, command: Command) -> Deferred[Outcome]:
        """See there."""
        done: Deferred[Outcome] = Deferred()
        self.write_for(command, done)
        return done

    def propose_change(
        self, encode: Callable[[int, int, int], bytes]
    ) -> Deferred[Outcome]:
        """
        Propose a membership change.

        @param encode: given session, sequence number and the time in
            milliseconds, the entry's data; asked again when the change leaves the
            queue.  Raises L{DatabaseError} where it is not to be made.
        """
        done: Deferred[Outcome] = Deferred()
        try:
            sequence = self._next_sequence()
        except DatabaseError as error:
            return fail(error)
        time_ms = time_ms_of(self.time_of_day())
        renew = partial(encode, self.session, sequence, time_ms)
        try:
            data = renew()
        except DatabaseError as error:
            return fail(error)
        self.proposals.submit(
            self.clock.seconds(), sequence, data, done, EntryType.CONF_CHANGE_V2, renew
        )
        self.wake()
        return done

    def _next_sequence(self) -> int:
        if not self.running:
            self.proposals.failed["stopping"] += 1
            raise Unavailable("the node is stopping", "Ask another member.")
        if self.writer.full is not None:
            self.proposals.failed["no-space"] += 1
            raise NoSpace(
                str(self.writer.full), "Free some space, or ask another member."
            )
        return self.proposals.next_sequence()

    def read_for(self, caller: Caller[None]) -> None:
        """See L{Database<kvdb.interfaces.Database>}."""
        if not self.running:
            caller.errback(Unavailable("the node is stopping", "Ask another member."))
            return
        try:
            self.reads.submit(self.clock.seconds(), caller)
        except Unavailable as error:
            caller.errback(error)
        else:
            self.wake()

    def read_barrier(self) -> Deferred[None]:
        """See there."""
        done: Deferred[None] = Deferred()
        self.read_for(done)
        return done

    def receive(self, messages: Sequence[Message]) -> None:
        """Messages came from another member, in this order."""
        if not self.running:
            return
        try:
            for message in messages:
                self._step(message)
            self._go_on()
        except Exception:
            self.fail(Failure())

    def _step(self, message: Message) -> None:
        kind = message.type
        if kind is MessageType.PROP:
            if self.leading and message.term == self.raft.core.term:
                self.outbox.has_callers(message.from_)
                self.forwarded.keep(self.raft.core.term)
                self.forwarded.hold(
                    self.clock.seconds(), message.from_, message.entries
                )
        elif kind is MessageType.TIMEOUT_NOW and not self.may_lead:
            log.warn("leadership was offered and refused: the disk is not well")
        else:
            self._step_core(message)

    def _step_core(self, message: Message) -> None:
        try:
            self.raft.step(message)
        except PeerNotFound:
            pass  # of somebody who was just removed; while a disk was busy, oneself

    def connected(self, node: int) -> None:
        """What is sent to a member from now on goes by a new connection."""
        if self.running and node == self._last_leader:
            # What was passed on by the old one has arrived, or is lost.
            self.proposals.open_window()
            self.wake()

    def has_room(self, node: int) -> None:
        """More can be sent to a member now."""
        if node == self.leader and self.proposals.queued_bytes:
            self.wake()

    def report_unreachable(self, node: int) -> None:
        """What was last sent to a member may be lost."""
        if self.running:
            self.raft.report_unreachable(node)
            self.wake()

    def report_snapshot(self, node: int, ok: bool) -> None:
        """The snapshot for a member has arrived, or will not."""
        if self.running:
            self.raft.report_snapshot(node, ok)
            self.wake()

    def transfer_leadership(self, to: int) -> None:
        """Ask the leader, be it this node or not, to hand over to C{to}."""
        self.raft.transfer_leadership(to)
        self.wake()

    def forget_leader(self) -> None:
        """Follow nobody, until a leader is heard."""
        self.raft.forget_leader()
        self.wake()

    def campaign(self) -> None:
        """Ask whether this member could lead."""
        self.raft.campaign()
        self.wake()

    # What follows from what came in.

    def _advance(self) -> None:
        """Carry out what the core wants done, and apply a slice."""
        if self._advancing:
            return  # called by what is being carried out
        self._advancing = True
        try:
            for _ in range(MAX_READYS_PER_TURN):
                if not self.raft.has_ready():
                    break
                self._carry_out(self.raft.ready())
            if self._may_apply:
                self._apply_slice()
        finally:
            self._advancing = False
        if self._may_apply or self.raft.has_ready() or self.reads.can_ask:
            self.wake()

    @property
    def _may_apply(self) -> bool:
        """Whether there is something to apply, and it comes next."""
        # Once the core has taken a snapshot it goes by its membership: changes from
        # before would be made to that, while a full disk keeps it from its place.
        snapshot = self.raft.core.log.unstable.snapshot
        return bool(self._to_apply) and (
            snapshot is None or snapshot.index <= self.replica.store.applied_index
        )

    def _go_on(self) -> None:
        """Another member or the disk has said something."""
        self._advance()
        if self.proposals.queued_bytes or self.forwarded:
            self.wake()  # there may be room for it now

    def _propose_all(self) -> None:
        if self.leader == NO_NODE:
            return
        core = self.raft.core
        if self.leading:
            self.forwarded.keep(core.term)
        else:
            self.forwarded.clear()
        waiting_bytes = self.forwarded.size_bytes + self.proposals.queued_bytes
        if not waiting_bytes:
            return
        if self.leading and self.gathering.waits(core.log, waiting_bytes):
            return
        if self.leading:
            self.forwarded.offer(self._propose)
            self.proposals.offer(self._propose, core.term)
            self.gathering.proposed(core.log.last_index())
        else:
            self.proposals.offer(self._pass_on, core.term, elsewhere=True)

    def _propose(self, entries: Sequence[Entry]) -> None:
        core = self.raft.core
        if (
            self.leading
            and entries[0].type is not EntryType.NORMAL
            and core.pending_conf_index > core.log.applied
        ):
            # The core would put an empty entry in its place: wait for the one
            # that goes before.  Such entries come one at a time.
            raise ProposalDropped
        self.raft.propose_entries(entries)

    def _pass_on(self, entries: Sequence[Entry]) -> None:
        # Not by way of the core: what its messages meet may drop them, and what
        # is dropped here must stay queued.
        core = self.raft.core
        message = Message(
            MessageType.PROP,
            to=core.leader,
            from_=self.node_id,
            term=core.term,
            entries=entries,
        )
        if not self.outbox.send_now(message):
            raise ProposalDropped

    def _carry_out(self, ready: Ready) -> None:
        if ready.soft_state is not None:
            self._note_leader(ready.soft_state)
        outgoing: dict[int, list[Message]] = {}
        threads: list[Message] = []
        for message in ready.messages:
            if message.to in (APPEND_THREAD, APPLY_THREAD):
                threads.append(message)
            elif message.type is MessageType.SNAP:
                self.send_snapshot(message)
            else:
                outgoing.setdefault(message.to, []).append(message)
        # Followers write while the own disk does (thesis, section 10.2.1).
        for node, messages in outgoing.items():
            self.outbox.send(node, messages)
        for message in threads:
            if message.to == APPEND_THREAD:
                self.writer.submit(message, ready.must_sync)
            else:
                self._to_apply.append(message)
        for state in ready.read_states:
            self.reads.answer(state)
        self._let_read()

    def _let_read(self) -> None:
        """Let those read who waited for what is applied."""
        if self.reads.confirmed:
            for audience in self.audiences:
                audience.begin()
            self.reads.applied_to(self.replica.store.applied_index)
            for audience in self.audiences:
                audience.end()

    def _note_leader(self, state: SoftState) -> None:
        leader = "no leader" if state.leader == NO_NODE else "leader {leader}"
        log.info(
            f"member {{node}} is {{role}}, {leader}, term {{term}}",
            node=self.node_id,
            role=state.role.name.lower().replace("_", "-"),
            leader=state.leader or None,
            term=self.raft.core.term,
        )
        if state.leader not in (NO_NODE, self._last_leader):
            self._last_leader = state.leader
            self.leader_changes += 1
        # What was asked of the leader before is forgotten.
        self.reads.ask_again(self.clock.seconds(), self._read_index, all_rounds=True)
        if not self.leading:
            self.gathering.stop()
        for watcher in self.watchers:
            watcher.leader_changed()

    def _deliver(self, responses: Sequence[Message]) -> None:
        if not self.running:
            return
        outgoing: dict[int, list[Message]] = {}
        for message in responses:
            if message.to == self.node_id:
                self._step_core(message)
            else:
                outgoing.setdefault(message.to, []).append(message)
        for node, messages in outgoing.items():
            self.outbox.send(node, messages)
        self._go_on()

    def _apply_slice(self) -> None:
        """Apply some of what was handed out, in order."""
        message = self._to_apply[0]
        entries = message.entries
        # None of what a snapshot has brought since.
        start = max(0, self.replica.store.applied_index + 1 - entries[0].index)
        end, size = start, 0
        while end < len(entries) and size < APPLY_SLICE_BYTES:
            size += entries[end].size
            end += 1
        if start < end:
            self._apply(entries[start:end])
        if end >= len(entries):
            self._to_apply.popleft()
            self._deliver(message.responses)
        self._let_read()

    def _apply(self, entries: Sequence[Entry]) -> None:
        settle = self.proposals.settle
        store = self.replica.store
        start = commands = 0
        for position, entry in enumerate(entries):
            if entry.type is EntryType.NORMAL:
                continue
            commands += self._apply_normal(entries[start:position])
            settled = self.apply_change(entry)
            self.writer.remember()
            if settled is not None:
                settle(*settled)
            start = position + 1
        commands += self._apply_normal(entries[start:])
        assert store.applied_index == entries[-1].index, (
            f"applied to {store.applied_index}, not to {entries[-1].index}"
        )
        if entries[-1].term > self._applied_term:
            self._applied_term = entries[-1].term
            self.proposals.applied_term(self._applied_term)
        for watcher in self.watchers:
            watcher.applied(len(entries), commands)

    def _apply_normal(self, entries: Sequence[Entry]) -> int:
        """How many commands there were."""
        if not entries:
            return 0
        begun = self.clock.seconds()
        settled = self.replica.store.apply(entries)
        self.applies.observe(self.clock.seconds() - begun)
        settle = self.proposals.settle
        for audience in self.audiences:
            audience.begin()
        for session, sequence, outcome in settled:
            settle(session, sequence, outcome)
        for audience in self.audiences:
            audience.end()
        return len(settled)
