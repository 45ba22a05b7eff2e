"""
Members in one process: C{Peers} on a network of the test's own, in virtual
time, whose connections are slow, silent, cut or refused as a test says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    CannotListenError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
)
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from kvdb.peer.addresses import parse_peer_url
from kvdb.peer.connection import PeerSettings
from kvdb.peer.handshake import Hello, Identity, Refusal, admit
from kvdb.peer.peers import Peers
from kvdb.peer.report import Report
from kvdb.peer.snapshots import SnapshotRefused, SnapshotSink
from kvdb.raft.messages import Entry, Message, MessageType
from kvdb.storage.records import encode_entry

CLUSTER = 0xC1
TRANSPORT_BYTES = 2**16
CONNECT_SECONDS = 3.0


REPORT = Report(
    "follower",
    5,
    1,
    10,
    9,
    11,
    7,
    1000,
    2000,
    "1.2.3",
    "http://h:1",
    links=(2,),
    windows=((256, 77),),
)
"""What nodes say of themselves."""


class Transport:
    """One end of a connection."""

    other: Transport

    def __init__(self, network: Network, own: str, peer: str) -> None:
        directlyProvides(self, ITCPTransport)  # as far as it is used
        self.network = network
        self.own, self.peer = own, peer
        self.protocol: Any = None
        self.buffer = bytearray()
        self.producer: Any = None
        self.streaming = False
        self.producer_paused = False
        self.reading = True
        self.closing = False
        self.lost = False
        self.unread_loss: Exception | None = None
        self.no_delay = False
        self.pumping = False

    def write(self, data: bytes) -> None:
        if self.lost or self.closing:
            return
        if self.unread_loss is not None:
            self.network.clock.callLater(0, self.lose, self.unread_loss)
            return
        self.buffer += data
        full = len(self.buffer) > TRANSPORT_BYTES
        if full and self.streaming and self.producer and not self.producer_paused:
            self.producer_paused = True
            self.producer.pauseProducing()
        self.pump_soon()

    def pump_soon(self) -> None:
        if not self.pumping and not self.lost:
            self.pumping = True
            self.network.clock.callLater(self.network.latency, self.pump)

    def pump(self) -> None:
        self.pumping = False
        if self.lost or self.network.is_cut(self.own, self.peer):
            return
        if self.buffer:
            if not self.other.reading or self.other.lost:
                return
            piece = bytes(self.buffer[: self.network.piece_bytes])
            del self.buffer[: len(piece)]
            self.other.protocol.dataReceived(piece)
        if self.buffer:
            self.pump_soon()
        elif self.producer and (self.producer_paused or not self.streaming):
            self.producer_paused = False
            self.producer.resumeProducing()
        elif self.closing:
            self.lose(ConnectionDone())
            self.other.hear(ConnectionDone())

    def hear(self, reason: Exception) -> None:
        """The other end is gone; who does not read notices when it writes."""
        if self.reading:
            self.lose(reason)
        else:
            self.unread_loss = reason

    def lose(self, reason: Exception) -> None:
        if not self.lost:
            self.lost = True
            self.network.transports.remove(self)
            if self.producer:
                self.producer.stopProducing()
            self.protocol.connectionLost(Failure(reason))

    def loseConnection(self) -> None:
        self.closing = True
        self.pump_soon()

    def abortConnection(self) -> None:
        self.closing = True
        self.network.clock.callLater(0, self.lose, ConnectionAborted())
        if not self.network.is_cut(self.own, self.peer):
            self.network.clock.callLater(0, self.other.hear, ConnectionLost())

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None, "one producer at a time"
        self.producer, self.streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True
        self.other.pump_soon()
        if self.unread_loss is not None:
            self.network.clock.callLater(0, self.lose, self.unread_loss)

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self.peer, 1)


class Endpoint:
    """The way from one host to a URL."""

    def __init__(self, network: Network, own: str, url: str) -> None:
        self.network = network
        self.own = own
        self.host = parse_peer_url(url)[0]

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.own in self.network.dead:
            return Deferred()
        self.network.attempts.append((self.own, self.host, self.network.now()))
        connected: Deferred[Any] = Deferred(lambda _: call.cancel())
        cut = self.network.is_cut(self.own, self.host)
        delay = CONNECT_SECONDS if cut else 0
        call = self.network.clock.callLater(delay, self._connect, factory, connected)
        return connected

    def _connect(self, factory: Any, connected: Deferred[Any]) -> None:
        if self.network.is_cut(self.own, self.host):
            connected.errback(TimeoutError())
            return
        listener = self.network.listeners.get(self.host)
        server = None if listener is None else listener.buildProtocol(None)
        if server is None:
            connected.errback(ConnectionRefusedError())
            return
        client = factory.buildProtocol(None)
        self.network.join(client, self.own, server, self.host)
        connected.callback(client)


class Port:
    """Where a host listens."""

    def __init__(self, network: Network, host: str) -> None:
        self.network = network
        self.host = host

    def stopListening(self) -> Deferred[None]:
        del self.network.listeners[self.host]
        return succeed(None)


class Network:
    """
    Hosts, by address, and what is between them.

    @ivar cut: pairs (from, to) of hosts between which bytes vanish.
    @ivar dead: hosts that do nothing any more.
    @ivar attempts: who dialled whom, and when.
    @ivar latency: how long bytes take, in seconds.
    @ivar piece_bytes: how much a transport delivers at once.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.listeners: dict[str, Any] = {}
        self.transports: list[Transport] = []
        self.cut: set[tuple[str, str]] = set()
        self.dead: set[str] = set()
        self.attempts: list[tuple[str, str, float]] = []
        self.latency = 0.0
        self.piece_bytes = TRANSPORT_BYTES

    def now(self) -> float:
        return self.clock.seconds()

    def is_cut(self, own: str, peer: str) -> bool:
        return (own, peer) in self.cut

    def sever(self, a: str, b: str) -> None:
        """Let bytes vanish, both ways."""
        self.cut |= {(a, b), (b, a)}

    def heal(self) -> None:
        self.cut.clear()
        for transport in self.transports:
            transport.pump_soon()

    def kill(self, victim: str) -> None:
        """A process is killed: its kernel closes what it had open."""
        self.dead.add(victim)
        del self.listeners[victim]
        for transport in [t for t in self.transports if t.own == victim]:
            transport.lost = True
            self.transports.remove(transport)
            transport.other.lose(ConnectionDone())

    def join(self, client: Any, own: str, server: Any, host: str) -> Transport:
        """A connection; returns the client's end."""
        near, far = Transport(self, own, host), Transport(self, host, own)
        near.other, far.other = far, near
        near.protocol, far.protocol = client, server
        self.transports += [near, far]
        server.makeConnection(far)
        client.makeConnection(near)
        return near

    def run(self, seconds: float = 0.0, step: float = 0.01) -> None:
        """Let time pass; with none, let what is under way arrive."""
        end = self.now() + seconds
        self.clock.advance(0)
        while self.now() + step / 2 < end:
            self.clock.advance(step)

    def ends(self, a: str, b: str) -> list[Transport]:
        """The transports of C{a} on its connections with C{b}."""
        return [t for t in self.transports if (t.own, t.peer) == (a, b)]


def host(node: int) -> str:
    return f"10.0.0.{node}"


def url(node: int) -> str:
    return f"http://{host(node)}:9"


class Sink:
    """Keeps what it is given; its Deferreds fire when a test says so."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.chunks = 0
        self.finished = self.aborted = False
        self.taking: Callable[[], Deferred[None] | None] = lambda: None
        self.finishing: Callable[[], Deferred[None] | None] = lambda: None

    def chunk(self, data: bytes) -> Deferred[None] | None:
        assert not self.finished and not self.aborted, "a chunk after the end"
        self.data += data
        self.chunks += 1
        return self.taking()

    def finish(self) -> Deferred[None] | None:
        assert not self.finished and not self.aborted, "ended twice"
        self.finished = True
        return self.finishing()

    def abort(self) -> None:
        assert not self.finished and not self.aborted, "ended twice"
        self.aborted = True


class Member:
    """A node, as its peers' connections see it: keeps what it is told."""

    def __init__(
        self,
        network: Network,
        node: int,
        *,
        cluster: int = CLUSTER,
        instance: int | None = None,
        settings: PeerSettings | None = None,
        members: Sequence[int] = (),
    ) -> None:
        self.network = network
        self.node = node
        instance = 1000 + node if instance is None else instance
        self.identity = Identity(node, instance, cluster, url(node))
        self.instances: dict[int, int] = {}
        self.removed: set[int] = set()
        self.received: list[tuple[int, Message]] = []
        self.reports: list[tuple[int, Report]] = []
        self.events: list[tuple[Any, ...]] = []
        self.rooms: list[int] = []
        self.refusals: list[tuple[int, Refusal]] = []
        self.offers: list[Message] = []
        self.sink: Sink | None = Sink()
        self.peers = Peers(
            network.clock, Random(node), self, self._listen, self._dial, settings
        )
        self.know(*members)

    def _listen(self, factory: Any) -> Any:
        if host(self.node) in self.network.listeners:
            raise CannotListenError(host(self.node), 9, OSError("in use"))
        self.network.listeners[host(self.node)] = factory
        return Port(self.network, host(self.node))

    def _dial(self, target: str) -> Any:
        return Endpoint(self.network, host(self.node), target)

    def know(self, *members: int, urls: Mapping[int, str] | None = None) -> None:
        """These are the members."""
        self.instances = {m: self.instances.get(m, 0) for m in members}
        self.peers.set_members({m: (urls or {}).get(m, url(m)) for m in members})

    def start(self) -> Member:
        self.peers.startService()
        return self

    def say(self, to: int, *messages: Message) -> None:
        self.peers.send(to, messages)

    # What the peers' connections call back.

    def judge(self, hello: Hello) -> Refusal | None:
        return admit(hello, self.identity, self.instances, self.removed, {})

    def messages_received(self, sender: int, messages: Sequence[Message]) -> None:
        self.received += [(sender, message) for message in messages]

    def report(self) -> Report:
        return REPORT

    def report_received(self, sender: int, report: Report) -> None:
        self.reports.append((sender, report))

    def connected(self, node_id: int) -> None:
        self.events.append(("connected", node_id))

    def has_room(self, node_id: int) -> None:
        self.rooms.append(node_id)

    def disconnected(self, node_id: int) -> None:
        self.events.append(("disconnected", node_id))

    def process_gone(self, node_id: int) -> None:
        self.events.append(("process gone", node_id))

    def unreachable(self, node_id: int) -> None:
        self.events.append(("unreachable", node_id))

    def refused(self, node_id: int, refusal: Refusal) -> None:
        self.refusals.append((node_id, refusal))

    def cluster_learned(self, cluster_id: int) -> None:
        self.events.append(("cluster", cluster_id))
        self.identity = evolve(self.identity, cluster_id=cluster_id)

    def begin_snapshot(self, message: Message) -> SnapshotSink:
        self.offers.append(message)
        if self.sink is None:
            raise SnapshotRefused("not now")
        return self.sink


def append(from_: int, to: int, index: int = 0, size: int = 0) -> Message:
    """One that brings an entry, of C{size} bytes with what surrounds it."""
    bare = len(encode_entry(Entry(1, 1)))
    entry = Entry(1, index + 1, data=bytes(max(0, size - bare)))
    return Message(MessageType.APP, to, from_, 1, 1, index, entries=[entry])


def heartbeat(from_: int, to: int, commit: int = 0, size: int = 0) -> Message:
    return Message(
        MessageType.HEARTBEAT, to, from_, term=1, commit=commit, context=bytes(size)
    )
