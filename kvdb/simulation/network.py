"""
A network that does to connections what real ones may.

Bytes of one connection arrive in order and whole, or not at all, as TCP has it;
but late, in pieces of any size, and only as long as nobody cuts the way.  What
is cut holds bytes back until it is healed: a partition loses no bytes, it makes
them wait, and only those who wait for them give up.  A connection may be reset
with part of a frame delivered; a machine that loses power says nothing, and
whoever still writes to it hears nothing until it is back and knows of no such
connection.

Rules: all chance is drawn from the given source; a protocol hears of data and
of its end in its own machine's time, never within somebody else's call.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from random import Random
from typing import Any, Final

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    CannotListenError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    ConnectionRefusedError,
    TimeoutError,
    UserError,
)
from twisted.internet.interfaces import (
    IConnector,
    IListeningPort,
    IPushProducer,
    IReactorTCP,
    ITCPTransport,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from kvdb.simulation.timeline import MachineClock, Timeline

TRANSPORT_BYTES: Final = 2**16
"""What a transport takes before it asks its producer to wait."""


@implementer(ITCPTransport, IPushProducer)
class Transport:
    """
    One end of a connection.

    @ivar other: the other end.
    @ivar buffer: what was written here and has not arrived there.
    """

    def __init__(
        self, network: Network, clock: MachineClock, own: IPv4Address, peer: IPv4Address
    ) -> None:
        self.network = network
        self.clock = clock
        self.own, self.peer = own, peer
        self.way = (own.host, peer.host)
        self.other: Transport = self
        self.protocol: Any = None
        self.buffer = bytearray()
        self.lost = False
        self.disconnecting = False
        self._gone: Callable[[Failure], None] = lambda _: None
        self._producer: Any = None
        self._streaming = False
        self._producer_waits = False
        self._reading = True
        self._planned = False
        self._unread: Exception | None = None

    # Writing.

    def write(self, data: bytes) -> None:
        """See L{ITransport}, as for most below."""
        if self.lost or self.disconnecting or not data:
            return
        self.buffer += data
        if (
            self._streaming
            and not self._producer_waits
            and len(self.buffer) > TRANSPORT_BYTES
        ):
            self._producer_waits = True
            self._producer.pauseProducing()
        self.plan()

    def writeSequence(self, data: Any) -> None:
        """See there."""
        self.write(b"".join(data))

    def plan(self) -> None:
        """Have what is in the buffer arrive, later."""
        if not self._planned and not self.lost:
            self._planned = True
            network = self.network
            network.timeline.after(network.latency(self.way), self._arrive)

    def _arrive(self) -> None:
        self._planned = False
        other = self.other
        if self.lost or self.way in self.network.cut:
            return
        if other.lost:
            if other.way[0] in self.network.up:
                self.hear(ConnectionLost())
            return
        if self.buffer and other._reading:
            other.clock.arrange(self._deliver)
        elif not self.buffer:
            self._sent()

    def _deliver(self) -> None:
        other = self.other
        if self.lost or other.lost or not other._reading or not self.buffer:
            return
        size = self.network.piece(len(self.buffer))
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        self.network.note(self.way, data)
        other.protocol.dataReceived(data)
        if self.buffer:
            self.plan()
        else:
            self.network.timeline.after(0, self.clock.arrange, self._sent)

    def _sent(self) -> None:
        """All that was written has arrived."""
        if self.lost or self.buffer:
            return
        if self._producer is not None:
            if self._producer_waits or not self._streaming:
                self._producer_waits = False
                self._producer.resumeProducing()
        elif self.disconnecting:
            self.other.hear(ConnectionDone(), only_when_read=True)
            self._lose(ConnectionDone())

    # The end.

    def hear(self, reason: Exception, only_when_read: bool = False) -> None:
        """The other end, or its machine, says that it is over."""
        if only_when_read and not self._reading:
            self._unread = reason
        else:
            self.clock.arrange(self._lose, reason)

    def _lose(self, reason: Exception) -> None:
        if self.lost:
            return
        self.vanish()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.stopProducing()
        failure = Failure(reason)
        self.protocol.connectionLost(failure)
        self._gone(failure)

    def vanish(self) -> None:
        """Be gone without a word."""
        self.lost = True
        self.network.transports.pop(self, None)

    def loseConnection(self, _connDone: object = None) -> None:
        """See there."""
        if not self.lost:
            self.disconnecting = True
            if self.way in self.network.cut:
                # The kernel keeps what is left; the program is done with it.
                self.network.timeline.after(
                    0, self.clock.arrange, self._lose, ConnectionDone()
                )
            else:
                self.plan()

    def loseWriteConnection(self) -> None:
        """See there."""
        self.loseConnection()

    def abortConnection(self) -> None:
        """See there."""
        if self.lost:
            return
        self.disconnecting = True
        timeline = self.network.timeline
        timeline.after(0, self.clock.arrange, self._lose, ConnectionAborted())
        if self.way not in self.network.cut and not self.other.lost:
            delay = self.network.latency(self.way)
            timeline.after(delay, self.other.hear, ConnectionLost())

    # Producers, and who reads.

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See there."""
        assert self._producer is None, "one producer at a time"
        self._producer, self._streaming = producer, streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """See there."""
        self._producer = None
        self._streaming = False
        if self.disconnecting:
            self.plan()

    def pauseProducing(self) -> None:
        """See there."""
        self._reading = False

    def resumeProducing(self) -> None:
        """See there."""
        if self.lost:
            return
        self._reading = True
        if self.other.buffer:
            self.other.plan()
        elif self._unread is not None:
            reason, self._unread = self._unread, None
            self.network.timeline.after(0, self.clock.arrange, self._lose, reason)

    def stopProducing(self) -> None:
        """See there."""
        self.loseConnection()

    # What it is.

    def getPeer(self) -> IPv4Address:
        """See there."""
        return self.peer

    def getHost(self) -> IPv4Address:
        """See there."""
        return self.own

    def getTcpNoDelay(self) -> bool:
        """See there."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See there."""

    def getTcpKeepAlive(self) -> bool:
        """See there."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See there."""


@define(slots=True, eq=False)
class Network:
    """
    @ivar cut: ways (from, to), by host, on which nothing arrives.
    @ivar slow: by how much such a way is slower than it should be.
    @ivar up: the hosts whose machines run.
    @ivar least, most: how long bytes take, in seconds.
    @ivar split: how often a piece of what has come is delivered alone.
    @ivar watched: hosts whose traffic goes into L{checksum}.
    @ivar checksum: CRC-32 of all bytes between those.
    """

    timeline: Timeline
    random: Random
    cut: set[tuple[str, str]] = field(factory=set)
    slow: dict[tuple[str, str], float] = field(factory=dict)
    up: set[str] = field(factory=set)
    least: float = 0.0002
    most: float = 0.002
    split: float = 0.02
    watched: set[str] = field(factory=set)
    checksum: int = 0
    listeners: dict[tuple[str, int], tuple[MachineClock, Any]] = field(factory=dict)
    transports: dict[Transport, None] = field(factory=dict)
    _next_port: int = 40_000

    def latency(self, way: tuple[str, str]) -> float:
        """How long bytes take that leave now."""
        delay = self.least + (self.most - self.least) * self.random.random()
        return delay * self.slow.get(way, 1.0) if self.slow else delay

    def piece(self, length: int) -> int:
        """How much of so many bytes is delivered at once."""
        if length > 1 and self.random.random() < self.split:
            return self.random.randint(1, length - 1)
        return length

    def note(self, way: tuple[str, str], data: bytes) -> None:
        """Keep account of what arrives."""
        if way[0] in self.watched and way[1] in self.watched:
            self.checksum = zlib.crc32(data, self.checksum)

    def heal(self, *ways: tuple[str, str]) -> None:
        """Let through again what waits, everywhere if no way is named."""
        self.cut = self.cut.difference(ways) if ways else set()
        self.arrive()

    def arrive(self) -> None:
        """Something is open or up that was not: try all that waits."""
        for transport in list(self.transports):
            if transport.buffer or transport.disconnecting:
                transport.plan()

    def reset(self, transport: Transport) -> bool:
        """
        Break a connection, with part of what is under way delivered; whether
        a piece of it was.
        """
        other = transport.other
        torn = len(transport.buffer) > 1 and not other.lost
        if torn and not transport.lost and transport.way not in self.cut:
            keep = self.random.randint(1, len(transport.buffer) - 1)
            del transport.buffer[keep:]
            other.clock.arrange(transport._deliver)
        for end in (transport, other):
            if not end.lost:
                self.timeline.after(0, end.hear, ConnectionLost())
        return torn

    def port_number(self) -> int:
        """One that nobody has."""
        self._next_port += 1
        return self._next_port


@implementer(IConnector)
class Connector:
    """An attempt to connect, and what became of it."""

    def __init__(
        self, reactor: SimulatedReactor, address: IPv4Address, factory: Any, wait: float
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._factory = factory
        self._timer = reactor.callLater(wait, self._failed, TimeoutError())
        self._connecting = True
        self._life = reactor.life
        factory.doStart()
        factory.startedConnecting(self)
        network = reactor.network
        way = (reactor.host, address.host)
        network.timeline.after(2 * network.latency(way), self._knock)

    def _knock(self) -> None:
        """What the server's kernel says."""
        network, host = self._reactor.network, self._address.host
        own = self._reactor.host
        if (own, host) in network.cut or (host, own) in network.cut:
            return
        if host not in network.up or self._life != self._reactor.life:
            return
        listener = network.listeners.get((host, self._address.port))
        if listener is None:
            self._reactor.arrange(self._failed, ConnectionRefusedError())
        else:
            listener[0].arrange(self._accept, *listener)

    def _accept(self, clock: MachineClock, factory: Any) -> None:
        if not self._connecting or self._life != self._reactor.life:
            return
        network = self._reactor.network
        own = IPv4Address("TCP", self._reactor.host, network.port_number())
        server = factory.buildProtocol(own)
        if server is None:
            self._reactor.arrange(self._failed, ConnectionRefusedError())
            return
        near = Transport(network, self._reactor, own, self._address)
        far = Transport(network, clock, self._address, own)
        near.other, far.other = far, near
        network.transports[near] = network.transports[far] = None
        far.protocol = server
        server.makeConnection(far)
        self._reactor.arrange(self._joined, near)

    def _joined(self, near: Transport) -> None:
        if not self._connecting:
            near.lost = True
            near.network.transports.pop(near, None)
            near.other.hear(ConnectionDone())
            return
        self._connecting = False
        self._timer.cancel()
        near.protocol = self._factory.buildProtocol(self._address)
        near._gone = self._lost
        if near.protocol is None:
            near.abortConnection()
            near.lost = True
        else:
            near.protocol.makeConnection(near)

    def _failed(self, reason: Exception) -> None:
        if self._connecting:
            self._connecting = False
            if self._timer.active():
                self._timer.cancel()
            self._factory.clientConnectionFailed(self, Failure(reason))
            self._factory.doStop()

    def _lost(self, reason: Failure) -> None:
        self._factory.clientConnectionLost(self, reason)
        self._factory.doStop()

    def stopConnecting(self) -> None:
        """See L{IConnector}, as for all below."""
        self._failed(UserError())

    def disconnect(self) -> None:
        """See there."""
        self.stopConnecting()

    def connect(self) -> None:
        """See there; nobody does."""
        raise NotImplementedError

    def getDestination(self) -> IPv4Address:
        """See there."""
        return self._address


@implementer(IListeningPort)
@define(slots=True, eq=False)
class Port:
    """Where a machine listens."""

    _network: Network
    _address: IPv4Address

    def startListening(self) -> None:
        """See L{IListeningPort}; it does from the beginning."""

    def stopListening(self) -> Deferred[None]:
        """See there."""
        self._network.listeners.pop((self._address.host, self._address.port), None)
        return succeed(None)

    def getHost(self) -> IPv4Address:
        """See there."""
        return self._address


@implementer(IReactorTCP)
@define(slots=True, eq=False, kw_only=True)
class SimulatedReactor(MachineClock):
    """
    What a node takes for its reactor.

    @ivar host: the machine's address.
    """

    network: Network
    host: str

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> Port:
        """See L{IReactorTCP}, as for the next."""
        address = IPv4Address("TCP", self.host, port or self.network.port_number())
        place = (address.host, address.port)
        if place in self.network.listeners:
            raise CannotListenError(interface, port, OSError("in use"))
        self.network.listeners[place] = (self, factory)
        factory.doStart()
        return Port(self.network, address)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30.0,
        bindAddress: Any = None,
    ) -> Connector:
        """See there."""
        return Connector(self, IPv4Address("TCP", host, port), factory, timeout)

    def callWhenRunning(self, work: Callable[..., None], *args: Any) -> None:
        """It always runs."""
        self.callLater(0, work, *args)

    def power_off(self, *, quietly: bool) -> None:
        """
        Be gone with all connections.

        @param quietly: as when the power is lost; else the process is gone, and
            the machine's kernel closes them, and refuses others.
        """
        network = self.network
        self.end()
        for place, (clock, _) in list(network.listeners.items()):
            if clock is self:
                del network.listeners[place]
        if quietly:
            network.up.discard(self.host)
        for transport in list(network.transports):
            if transport.clock is self:
                transport.vanish()
                if not quietly and transport.way not in network.cut:
                    delay = network.latency(transport.way)
                    network.timeline.after(
                        delay, transport.other.hear, ConnectionLost()
                    )

    def power_on(self) -> None:
        """Be reachable; what others still send to an earlier life is refused."""
        self.network.up.add(self.host)
        self.network.arrive()
