"""
A cluster in memory, for the tests of whoever uses the client.

It has the real REST surface, byte for byte (the one place where the client
imports kvdb's other rooms), and under it one store instead of a replicated
one.  No sockets, no disk, no threads; time is a L{Clock}, which L{FakeCluster.run}
moves on as soon as everybody waits for it, so that a test of an hour takes
milliseconds and goes the same way each time::

    cluster = FakeCluster()
    client = cluster.client()
    cluster.run(client.put("/k", b"v"))
    cluster.members[1].stop()
    assert cluster.run(client.get("/k")).value == b"v"

What it never does: lose what it has taken, or elect in anything but no time.
"""

from __future__ import annotations

import random
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from attrs import define, evolve, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import (
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
)
from twisted.internet.interfaces import (
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
    ITransport,
)
from twisted.internet.task import Clock, LoopingCall
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from kvdb import __version__
from kvdb.client.client import Client
from kvdb.client.transport import IDLE_CONNECTIONS, IDLE_SECONDS
from kvdb.interfaces import (
    Audience,
    Backup,
    Caller,
    CompactedRevision,
    DatabaseError,
    MembershipRefused,
    MemberStatus,
    NodeStatus,
    NoSpace,
    Selection,
    Unavailable,
    UnknownMember,
    WatchListener,
)
from kvdb.interfaces import Watch as DatabaseWatch
from kvdb.node.backups import Backups
from kvdb.node.watches import Watches
from kvdb.raft.messages import Entry
from kvdb.rest.site import RestSettings, Site, make_site
from kvdb.store import commands
from kvdb.store.commands import Command, Compact, Outcome, Record
from kvdb.store.encoding import encode_command, join_commands
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Compacted, Store
from kvdb.times import time_ms_of

T = TypeVar("T")

CLUSTER_ID: Final = 0xC1
TICK_SECONDS: Final = 1.0
"""How often members look after their watches."""

LEADERLESS_SECONDS: Final = 2.0
"""After how long without a leader a member ends its watches."""

CATCH_UP_SECONDS: Final = 1.0
"""How long a learner takes to become a voter."""

PIPE_BYTES: Final = 64 << 10
"""How much a connection holds before its writer is told to wait."""

MAX_VIRTUAL_SECONDS: Final = 600.0
"""How much time L{FakeCluster.run} lets pass."""


class NeverFinished(AssertionError):
    """What was to be run waits for something that does not come."""


@implementer(ITransport, IPushProducer)
class _End:
    """One end of a connection: a transport."""

    disconnecting = False

    def __init__(self, clock: Any, name: str, member: FakeMember) -> None:
        self._clock = clock
        self._name = name
        self._member = member
        self._out: list[bytes] = []
        self._size = 0
        self._producer: Any = None
        self._told_to_wait = False
        self._paused = False
        self._closing = self._aborting = False
        self._call: Any = None
        self.protocol: Any = None
        self.other: _End
        self.connected = True

    # What the protocol says.

    def write(self, data: bytes) -> None:
        if self.connected and not self._closing:
            self._out.append(data)
            self._size += len(data)
            if self._producer is not None and self._size > PIPE_BYTES:
                self._tell_to_wait()
            self._wake()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self, _: object = None) -> None:
        self._closing = self.disconnecting = True
        self._wake()

    def abortConnection(self) -> None:
        if self.connected and not self._aborting:
            self._aborting = True
            self._clock.callLater(0, self.cut, ConnectionAborted(), ConnectionLost())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._producer = producer
        self._told_to_wait = False

    def unregisterProducer(self) -> None:
        self._producer = None
        self._wake()

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self.other._wake()

    def stopProducing(self) -> None:
        self.loseConnection()

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self._name, 0)

    getHost = getPeer

    # What the network does.

    def _tell_to_wait(self) -> None:
        if not self._told_to_wait:
            self._told_to_wait = True
            self._producer.pauseProducing()

    def _wake(self) -> None:
        is_needed = self._out or self._closing or self._told_to_wait
        if is_needed and self._call is None and self.connected:
            self._call = self._clock.callLater(self._member.latency, self._deliver)

    def _deliver(self) -> None:
        self._call = None
        if not self.connected or self._member.is_frozen or self.other._paused:
            return
        data, self._out, self._size = b"".join(self._out), [], 0
        if data:
            self.other.protocol.dataReceived(data)
        if self._told_to_wait and self._producer is not None and self.connected:
            self._told_to_wait = False
            self._producer.resumeProducing()
        if self._closing and not self._out and self._producer is None:
            self.cut(ConnectionDone(), ConnectionDone())

    def thaw(self) -> None:
        self._wake()

    def cut(self, here: Exception, there: Exception) -> None:
        """The connection is gone."""
        for end, reason in ((self, here), (self.other, there)):
            if end.connected:
                end.connected = False
                if end._call is not None:
                    end._call.cancel()
                    end._call = None
                end.protocol.connectionLost(Failure(reason))


class _Database:
    """
    Implements L{Database<kvdb.interfaces.Database>} for one member.
    """

    def __init__(self, cluster: FakeCluster, member: FakeMember) -> None:
        self._cluster = cluster
        self._member = member

    def _check(self) -> None:
        if self._member.failure is not None:
            raise self._member.failure
        if self._cluster.leader is None:
            raise Unavailable("no leader is known", "Start a majority of the members.")

    def _check_write(self) -> None:
        self._check()
        if self._member.is_full:
            raise NoSpace("no space on the disk for /data/log", "Free some space.")

    def listen(self, audience: Audience) -> None:
        """Everything is told at once."""

    def write(self, command: Command) -> Deferred[Outcome]:
        try:
            self._check_write()
        except DatabaseError as error:
            return fail(error)
        outcome = self._cluster.apply(command)
        if self._member.answers_to_lose:
            self._member.answers_to_lose -= 1
            self._member.cut()
            return Deferred()
        return succeed(outcome)

    def write_for(self, command: Command, caller: Caller[Outcome]) -> None:
        self.write(command).addCallbacks(
            caller.callback, lambda failure: caller.errback(failure.value)
        )

    def read_barrier(self) -> Deferred[None]:
        try:
            self._check()
        except DatabaseError as error:
            return fail(error)
        return succeed(None)

    def read_for(self, caller: Caller[None]) -> None:
        self.read_barrier().addCallbacks(
            caller.callback, lambda failure: caller.errback(failure.value)
        )

    def get(self, key: bytes, revision: int | None = None) -> Record | None:
        try:
            return self._cluster.store.get(key, revision)
        except Compacted as error:
            raise CompactedRevision(str(error)) from error

    def range(
        self, low: bytes, high: bytes, limit: int
    ) -> tuple[int, Iterator[tuple[bytes, Record]]]:
        store = self._cluster.store
        return store.revision, store.range(low, high, limit)

    def watch(
        self, selection: Selection, since: int | None, listener: WatchListener
    ) -> DatabaseWatch:
        return self._member.watches.watch(selection, since, listener)

    def open_backup(self) -> Backup:
        self._check()
        return self._member.backups.begin()

    def add_member(
        self, node_id: int, url: str, idempotency_key: bytes = b""
    ) -> Deferred[None]:
        try:
            self._check_write()
            self._cluster.add(node_id, url, idempotency_key)
        except DatabaseError as error:
            return fail(error)
        return succeed(None)

    def remove_member(
        self, node_id: int, idempotency_key: bytes = b""
    ) -> Deferred[None]:
        try:
            self._check_write()
            self._cluster.remove(node_id)
        except DatabaseError as error:
            return fail(error)
        return succeed(None)

    def transfer_leadership(self, to: int | None) -> Deferred[int]:
        try:
            self._check()
            return succeed(self._cluster.hand_over(to))
        except DatabaseError as error:
            return fail(error)

    def status(self) -> NodeStatus:
        cluster, own = self._cluster, self._member
        members = [self._status_of(node) for node in sorted(cluster.members)]
        return NodeStatus(
            id=own.id,
            cluster_id=f"{CLUSTER_ID:016x}",
            role=own.role,
            leader=cluster.leader,
            term=cluster.term,
            commit_index=cluster.store.applied_index,
            applied_index=cluster.store.applied_index,
            revision=cluster.store.revision,
            compacted_revision=cluster.store.compacted_revision,
            log_bytes=0,
            store_bytes=cluster.store.size_bytes,
            version=__version__,
            members=members,
            alarms=[],
            warnings=[],
        )

    def _status_of(self, node: int) -> MemberStatus:
        cluster, member = self._cluster, self._cluster.members[node]
        leads = cluster.leader == self._member.id
        index = cluster.store.applied_index
        status = MemberStatus(
            node,
            member.peer_url,
            member.role,
            index if leads else None,
            0 if leads else None,
            None if node == self._member.id else member.running,
        )
        if not member.running:
            return status
        return evolve(
            status,
            client_url=member.url,
            term=cluster.term,
            last_index=index,
            applied_index=index,
            revision=cluster.store.revision,
            version=__version__,
            store_bytes=cluster.store.size_bytes,
            links=[m.id for m in cluster.members.values() if m.running and m != member],
            age_seconds=0.0,
        )

    def is_ready(self) -> bool:
        return self._cluster.leader is not None


@define(slots=True, eq=False)
class FakeMember:
    """
    One member.

    @ivar url: where clients find it.
    @ivar running: whether anybody listens there.
    @ivar failure: what everything that needs a quorum fails with there, such as
        C{kvdb.interfaces.Unavailable("too busy")}; None for nothing.
    @ivar is_full: whether its disk is: writes are refused with 507, reads answered.
    @ivar answers_to_lose: so many writes will be carried out, and the
        connection cut instead of an answer.
    @ivar latency: seconds that bytes are under way, to it and from it.
    @ivar is_frozen: whether no bytes get through.
    """

    cluster: FakeCluster = field(repr=False)
    id: int
    peer_url: str
    learner: bool = False
    running: bool = True
    failure: DatabaseError | None = None
    is_full: bool = False
    answers_to_lose: int = 0
    latency: float = 0.0
    is_frozen: bool = False
    url: str = ""
    watches: Watches = field(init=False, repr=False)
    backups: Backups = field(init=False, repr=False)
    site: Site = field(init=False, repr=False)
    _connections: list[_End] = field(factory=list, repr=False)

    def __attrs_post_init__(self) -> None:
        self.url = self.url or f"http://member{self.id}.test:12380"
        self.watches = Watches(self.cluster.store, self.cluster.reactor)
        self.backups = Backups(self.cluster.store, self.cluster.reactor.seconds)
        settings = RestSettings()
        database = _Database(self.cluster, self)
        self.site = make_site(database, self.cluster.reactor, settings)

    @property
    def role(self) -> str:
        """As its status tells."""
        if self.learner:
            return "learner"
        if not self.running:
            return "unknown"
        return "leader" if self.cluster.leader == self.id else "follower"

    def stop(self) -> None:
        """As if its process were killed: connections are cut, new ones refused."""
        self.running = False
        self.watches = Watches(self.cluster.store, self.cluster.reactor)
        self.cut()
        self.cluster.elect()

    def start(self) -> None:
        """Have it back."""
        self.running = True
        self.cluster.elect()

    def freeze(self) -> None:
        """Let it take connections and say nothing, as a member that hangs."""
        self.is_frozen = True

    def thaw(self) -> None:
        """Have it go on."""
        self.is_frozen = False
        for end in list(self._connections):
            end.thaw()
            end.other.thaw()

    def end_watches(self) -> None:
        """End its watches as a member does that stops in peace."""
        self.watches.end_all(Unavailable("this member stops", "Watch another one."))

    def cut(self) -> None:
        """Cut its connections."""
        ends, self._connections = self._connections, []
        for end in ends:
            end.cut(ConnectionLost(), ConnectionLost())

    def ticked(self) -> None:
        """Time has passed."""
        if self.running:
            has_leader = self.cluster.leader is not None
            self.watches.ticked(has_leader, LEADERLESS_SECONDS)

    def connect(self, factory: Any) -> Deferred[Any]:
        """A connection from a client."""
        if not self.running:
            return fail(ConnectionRefusedError())
        clock = self.cluster.reactor
        here, there = _End(clock, "client", self), _End(clock, f"member{self.id}", self)
        here.other, there.other = there, here
        here.protocol = factory.buildProtocol(there.getPeer())
        there.protocol = self.site.buildProtocol(here.getPeer())
        self._connections = [end for end in self._connections if end.connected]
        self._connections.append(there)
        there.protocol.makeConnection(there)
        here.protocol.makeConnection(here)
        return succeed(here.protocol)


@implementer(IStreamClientEndpoint)
@define(slots=True)
class _Endpoint:
    """The way to one member."""

    _member: FakeMember | None

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """See L{IStreamClientEndpoint}."""
        if self._member is None:
            return fail(ConnectionRefusedError())
        return self._member.connect(factory)


@implementer(IAgentEndpointFactory)
@define(slots=True)
class _Network:
    """Finds the member that a URL is for."""

    _cluster: FakeCluster

    def endpointForURI(self, uri: URI) -> Any:
        """See L{IAgentEndpointFactory}."""
        address = uri.host.decode("ascii"), uri.port
        for member in self._cluster.members.values():
            parts = urlsplit(member.url)
            if (parts.hostname, parts.port) == address:
                return _Endpoint(member)
        return _Endpoint(None)


class FakeCluster:
    """
    Members over one store, each with the real surface.

    @ivar reactor: the clock that all goes by.
    @ivar members: by id.
    @ivar leader: its id, or None while fewer than a majority of voters runs.
    @ivar store: what all of them serve.
    """

    def __init__(self, size: int = 3, reactor: Any = None) -> None:
        """
        @param reactor: a L{Clock} of its own if left out.  With a real one,
            await what the client gives instead of L{run}, and L{close} the
            cluster at the end.
        """
        self.reactor: Any = Clock() if reactor is None else reactor
        self.store = Store.open(MemoryEngines())
        urls = {node: f"http://member{node}.test:12379" for node in range(1, size + 1)}
        self.store.bootstrap(
            CLUSTER_ID, [commands.Member(node, url) for node, url in urls.items()]
        )
        self.term = 1
        self.leader: int | None = 1
        self.members: dict[int, FakeMember] = {}
        for node, url in urls.items():
            self.members[node] = FakeMember(self, node, url)
        self._tokens: set[bytes] = set()
        self._removed: set[int] = set()
        self._pools: list[HTTPConnectionPool] = []
        self._source = random.Random(1)
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = self.reactor
        self._ticking.start(TICK_SECONDS, now=False)

    # For tests.

    @property
    def endpoints(self) -> list[str]:
        """Where its members are."""
        return [member.url for member in self.members.values()]

    def client(self, endpoints: Sequence[str] | None = None, **more: Any) -> Client:
        """
        A client of it.

        @param endpoints: of these members; of all, if left out.
        @param more: as L{Client} takes it.
        """
        pool = HTTPConnectionPool(self.reactor)
        pool.cachedConnectionTimeout = IDLE_SECONDS  # type: ignore[assignment]
        pool.maxPersistentPerHost = IDLE_CONNECTIONS
        pool.retryAutomatically = False
        self._pools.append(pool)
        agent = Agent.usingEndpointFactory(self.reactor, _Network(self), pool)
        more.setdefault("entropy", self._source.randbytes)
        return Client(self.reactor, endpoints or self.endpoints, agent=agent, **more)

    def run(
        self,
        work: Coroutine[Any, Any, T] | Deferred[T],
        seconds: float = MAX_VIRTUAL_SECONDS,
    ) -> T:
        """
        What C{work} gives, or raises, once time has gone on for it to be done.

        @param seconds: how much time, at most.
        @raise NeverFinished: that was not enough.
        """
        if isinstance(work, Deferred):
            waiting = work
        else:
            waiting = Deferred.fromCoroutine(work)
        results: list[Any] = []
        waiting.addBoth(results.append)
        deadline = self.reactor.seconds() + seconds
        while not results:
            calls = self.reactor.getDelayedCalls()
            due = min(call.getTime() for call in calls)
            if due > deadline:
                waiting.addErrback(lambda _: None)
                waiting.cancel()
                raise NeverFinished(f"it was not done within {seconds:g} s")
            self.reactor.advance(max(due - self.reactor.seconds(), 0))
        [result] = results
        if isinstance(result, Failure):
            result.raiseException()
        value: T = result
        return value

    def advance(self, seconds: float) -> None:
        """Let time pass, for everything that is under way."""
        deadline = self.reactor.seconds() + seconds
        while True:
            due = min(call.getTime() for call in self.reactor.getDelayedCalls())
            if due > deadline:
                break
            self.reactor.advance(max(due - self.reactor.seconds(), 0))
        self.reactor.advance(max(deadline - self.reactor.seconds(), 0))

    def close(self) -> Deferred[Any]:
        """End everything that goes by the clock; fires once it has."""
        if self._ticking.running:
            self._ticking.stop()
        for member in self.members.values():
            member.watches.stop()
            member.cut()
        closing = [pool.closeCachedConnections() for pool in self._pools]
        return closing[-1] if closing else succeed(None)

    def compact(self, revision: int) -> None:
        """Forget the history at and below C{revision}."""
        self.apply(Compact(revision))
        while self.store.compact_slice(1000):
            pass

    # For the members.

    def apply(self, command: Command) -> Outcome:
        """Carry out a command."""
        index = self.store.applied_index + 1
        time_ms = time_ms_of(self.reactor.seconds())
        data = join_commands([encode_command(1, index, time_ms, command)])
        [(_, _, outcome)] = self.store.apply([Entry(self.term, index, data=data)])
        for member in self.members.values():
            if member.running:
                member.watches.applied()
        return outcome

    def elect(self) -> None:
        """Have a leader, if there can be one."""
        voters = [m for m in self.members.values() if not m.learner]
        running = [m.id for m in voters if m.running]
        if len(running) <= len(voters) // 2:
            self.leader = None
        elif self.leader not in running:
            self.leader = running[0]
            self.term += 1

    def hand_over(self, to: int | None) -> int:
        """Have another leader."""
        if to is None:
            to = next(
                m.id
                for m in self.members.values()
                if m.running and not m.learner and m.id != self.leader
            )
        if to not in self.members:
            raise UnknownMember(f"member {to} is not in the cluster")
        if self.members[to].learner:
            raise MembershipRefused(f"member {to} is a learner, and does not lead")
        if not self.members[to].running:
            raise Unavailable(f"member {to} did not take over in time", "Try again.")
        if to != self.leader:
            self.leader = to
            self.term += 1
        return to

    def add(self, node: int, url: str, token: bytes) -> None:
        """A learner; its process runs from the first."""
        if token and token in self._tokens:
            return
        if node in self.members or node in self._removed:
            was = "was removed" if node in self._removed else "exists"
            raise MembershipRefused(f"member {node} {was}", "Choose another id.")
        self._tokens.add(token)
        member = FakeMember(self, node, url, learner=True)
        self.members[node] = member
        self.reactor.callLater(CATCH_UP_SECONDS, setattr, member, "learner", False)

    def remove(self, node: int) -> None:
        """A member, which stops."""
        if node not in self.members:
            raise UnknownMember(f"member {node} is not in the cluster")
        if len(self.members) == 1:
            raise MembershipRefused("the last voter cannot be removed")
        self._removed.add(node)
        member = self.members.pop(node)
        self.reactor.callLater(0, member.stop)
        self.elect()

    def _tick(self) -> None:
        for member in list(self.members.values()):
            member.ticked()
