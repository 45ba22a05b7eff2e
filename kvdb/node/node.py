"""
One member: its pump, its memberships, its snapshots, behind one face.

L{Node} is what the surfaces see (L{Database<kvdb.interfaces.Database>}) and
what the peers' connections call back.  It holds no rule of its own: each call
goes to the part whose business it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvdb.interfaces import (
    Audience,
    Caller,
    CompactedRevision,
    NodeStatus,
    Selection,
    Unavailable,
    Watch,
    WatchListener,
)
from kvdb.node.backups import Backups, OpenBackup
from kvdb.node.changes import Changes
from kvdb.node.compaction import Compaction
from kvdb.node.disk_space import DiskSpace
from kvdb.node.failover import Failover
from kvdb.node.handover import HandOver
from kvdb.node.leaderless import Leaderless
from kvdb.node.outbox import Outbox
from kvdb.node.peer_starts import PeerStarts
from kvdb.node.pump import Pump
from kvdb.node.replica import Replica
from kvdb.node.reports import Reports
from kvdb.node.settings import NodeSettings
from kvdb.node.snapshots import Incoming, Snapshots
from kvdb.node.status import node_status
from kvdb.node.watches import Watches
from kvdb.peer.handshake import Hello, Identity, Refusal, RefusalCode
from kvdb.peer.report import Report
from kvdb.raft.messages import NO_NODE, Message
from kvdb.store.commands import Command, Outcome, Record
from kvdb.store.store import Compacted

log = Logger(namespace="kvdb.node")

WATCH_PATIENCE: Final = 3
"""Election timeouts without a leader, until watches end."""


class Network(Protocol):
    """The peers' connections, see L{kvdb.peer}."""

    def send(self, to: int, messages: Sequence[Message]) -> None:
        """Send C{messages}, in order, or lose them."""

    def send_now(self, message: Message) -> bool:
        """Hand C{message} over, or do nothing; which of the two."""

    def set_members(self, urls: dict[int, str]) -> None:
        """Keep connections to these, by id, and to nobody else."""

    def connected(self) -> Collection[int]:
        """The ids of the members a connection is up to."""

    def versions(self) -> Mapping[int, int]:
        """The protocol versions last agreed on with peers, as far as known."""

    def send_snapshot(
        self, to: int, message: Message, chunks: Iterator[bytes]
    ) -> Deferred[None]:
        """Stream a snapshot; fires once the receiver has it whole."""


@define(slots=True, eq=False)
class Node:
    """
    @ivar stop: told why the node stops by itself, and the exit status.
    @ivar time_of_day: seconds since the epoch, for people to read.
    @ivar more_warnings: what whoever made the node would have it say.
    """

    clock: IReactorTime
    random: random.Random
    identity: Identity
    replica: Replica
    settings: NodeSettings
    stop: Callable[[str, int], None]
    time_of_day: Callable[[], float]
    network: Network = field(init=False)
    pump: Pump = field(init=False)
    changes: Changes = field(init=False)
    snapshots: Snapshots = field(init=False)
    failover: Failover = field(init=False)
    watches: Watches = field(init=False)
    reports: Reports = field(init=False)
    handover: HandOver = field(init=False)
    backups: Backups = field(init=False)
    more_warnings: Callable[[], Iterable[str]] = lambda: ()
    _caught_up: bool = False

    def attach(self, network: Network) -> None:
        """Give the node its connections; they in turn call it."""
        self.network = network
        store = self.replica.store
        peer_starts = PeerStarts(self.replica.log, self._fail)
        self.changes = Changes(
            self.identity, store, self.network, self._removed, peer_starts
        )
        self.snapshots = Snapshots(store, self.network, self.changes.installed)
        self.pump = Pump(
            clock=self.clock,
            random=self.random,
            node_id=self.identity.node_id,
            session=self.random.getrandbits(64),
            replica=self.replica,
            settings=self.settings,
            outbox=Outbox(self.clock, self.network),
            stop=self.stop,
            time_of_day=self.time_of_day,
            apply_change=self.changes.apply,
            install=self.snapshots.install,
            send_snapshot=self.snapshots.send,
        )
        self.changes.pump = self.pump
        self.snapshots.pump = self.pump
        self.failover = Failover(self.pump, self.clock, self.random)
        self.watches = Watches(store, self.clock)
        self.backups = Backups(store, self.time_of_day)
        self.reports = Reports(
            self.pump, lambda: list(self.network.connected()), self._diverged
        )
        self.handover = HandOver(self.pump, self.changes, self.reports)
        self.pump.watchers = (
            self.changes,
            Compaction(self.pump),
            DiskSpace(self.pump),
            self.failover,
            self.handover,
            Leaderless(
                self.pump,
                self.changes.voters,
                self.network.connected,
                self.identity.url,
            ),
            self,
        )

    # Running.

    def start(self) -> None:
        """Begin to take part."""
        self.changes.start()
        self.pump.start()

    def hand_over(self) -> Deferred[None]:
        """See L{HandOver.before_stop}."""
        return self.handover.before_stop()

    def end_watches(self) -> None:
        """Tell those who watch to go elsewhere."""
        stopping = Unavailable("the node is stopping", "Watch another member.")
        self.watches.end_all(stopping)

    def begin_watches_anew(self, why: str) -> None:
        """Tell those who watch to ask again."""
        self.watches.end_all(Unavailable(why, "Watch again, with since."))

    def halt(self) -> None:
        """Take no part any more; whoever waits is told."""
        self.end_watches()
        self.watches.stop()
        self.failover.stop()
        self.pump.halt("the node is stopping")

    def _fail(self, failure: Failure) -> None:
        self.pump.fail(failure)

    def _removed(self) -> None:
        assert self.replica.log.identity is not None, "a log without identity"
        if self.replica.log.identity.removed:
            return  # told before
        self._record(removed=True)
        self.stop(f"member {self.identity.node_id} was removed from the cluster", 0)

    def _diverged(self, why: str) -> None:
        if self.pump.running:
            self._record(diverged=True)
            self.pump.halt("this member's data is not what the others have")
            self.stop(why, 1)

    def _record(self, **changes: Any) -> None:
        identity = self.replica.log.identity
        assert identity is not None, "a node on a log without identity"
        try:
            self.replica.log.set_identity(evolve(identity, **changes))
        except Exception:
            # Called by connections, which could do nothing about it.
            self.pump.fail(Failure())

    # Database.

    def listen(self, audience: Audience) -> None:
        """See L{Database<kvdb.interfaces.Database>}, as for all below."""
        self.pump.audiences.append(audience)

    def write(self, command: Command) -> Deferred[Outcome]:
        """See there."""
        return self.pump.write(command)

    def write_for(self, command: Command, caller: Caller[Outcome]) -> None:
        """See there."""
        self.pump.write_for(command, caller)

    def read_for(self, caller: Caller[None]) -> None:
        """See there."""
        self.pump.read_for(caller)

    def read_barrier(self) -> Deferred[None]:
        """See there."""
        return self.pump.read_barrier()

    def get(self, key: bytes, revision: int | None = None) -> Record | None:
        """See there."""
        try:
            return self.replica.store.get(key, revision)
        except Compacted as error:
            raise CompactedRevision(str(error)) from error

    def range(
        self, low: bytes, high: bytes, limit: int
    ) -> tuple[int, Iterator[tuple[bytes, Record]]]:
        """See there."""
        store = self.replica.store
        return store.revision, store.range(low, high, limit)

    def watch(
        self, selection: Selection, since: int | None, listener: WatchListener
    ) -> Watch:
        """See there."""
        if not self.pump.running:
            raise Unavailable("the node is stopping", "Watch another member.")
        return self.watches.watch(selection, since, listener)

    def open_backup(self) -> OpenBackup:
        """See there."""
        if not self.pump.running:
            raise Unavailable("the node is stopping", "Ask another member.")
        return self.backups.begin()

    def add_member(
        self, node_id: int, url: str, idempotency_key: bytes = b""
    ) -> Deferred[None]:
        """See there."""
        return self.changes.add(node_id, url, idempotency_key)

    def remove_member(
        self, node_id: int, idempotency_key: bytes = b""
    ) -> Deferred[None]:
        """See there."""
        return self.changes.remove(node_id, idempotency_key)

    def transfer_leadership(self, to: int | None) -> Deferred[int]:
        """See there."""
        return self.changes.transfer(to)

    def status(self) -> NodeStatus:
        """See there."""
        return node_status(self.pump, self.reports, self.more_warnings())

    def is_ready(self) -> bool:
        """See there."""
        return self._caught_up and self.pump.leader != NO_NODE

    # What the peers' connections call back.

    def judge(self, hello: Hello) -> Refusal | None:
        """See L{PeerPolicy<kvdb.peer.handshake.PeerPolicy>}."""
        return self.changes.judge(hello)

    def messages_received(self, sender: int, messages: Sequence[Message]) -> None:
        """Messages from another member."""
        self.pump.receive(messages)

    def report(self) -> Report:
        """What to tell the other members of this one."""
        return self.reports.own()

    def report_received(self, sender: int, report: Report) -> None:
        """What another member says of itself."""
        if self.pump.running:
            self.reports.received(sender, report)

    def connected(self, node_id: int) -> None:
        """A connection to a member is up."""
        self.pump.connected(node_id)

    def has_room(self, node_id: int) -> None:
        """The connection to a member takes more again."""
        self.pump.has_room(node_id)

    def begin_snapshot(self, message: Message) -> Incoming:
        """A member offers a snapshot."""
        return self.snapshots.begin(message)

    def disconnected(self, node_id: int) -> None:
        """A connection to a member is lost."""

    def process_gone(self, node_id: int) -> None:
        """A member's process is not there any more."""
        self.failover.process_gone(node_id)

    def unreachable(self, node_id: int) -> None:
        """Messages to a member were lost."""
        self.pump.report_unreachable(node_id)

    def refused(self, node_id: int, refusal: Refusal) -> None:
        """A member would not have this node."""
        if refusal.code is RefusalCode.REMOVED_MEMBER:
            self.changes.told_removed()
        elif refusal.code in (RefusalCode.WRONG_INSTANCE, RefusalCode.ROLLED_BACK):
            self.pump.halt("this member's data directory is not the one it had")
            self.stop(refusal.text, 1)

    def cluster_learned(self, cluster_id: int) -> None:
        """A joining node was told which cluster it joins."""
        self.identity = evolve(self.identity, cluster_id=cluster_id)
        self.changes.identity = self.identity
        self._record(cluster_id=cluster_id)

    # Watching the pump, for readiness and for those who watch keys.

    def ticked(self) -> None:
        """Find out once whether this node has caught up since its start."""
        patience = WATCH_PATIENCE * self.settings.election_timeout
        self.watches.ticked(self.pump.leader != NO_NODE, patience)
        self.reports.ticked()
        if not self._caught_up and self.pump.leader != NO_NODE:
            self.pump.read_barrier().addCallbacks(self._note_caught_up, lambda _: None)

    def _note_caught_up(self, _: None) -> None:
        self._caught_up = True

    def leader_changed(self) -> None:
        """Nothing follows from that here."""

    def applied(self, entries: int, commands: int) -> None:
        """Tell those who watch."""
        self.watches.applied()
