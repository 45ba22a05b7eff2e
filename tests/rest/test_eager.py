"""Connections that send at once send the same bytes, and lose none."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from kvdb.rest.eager import BACKLOG, EagerPort, EagerServer
from tests.timed import timed

reactor: Any = default_reactor


class Talker(Protocol):
    """The server's side: says what it is told to."""

    made: Deferred[Talker]

    def connectionMade(self) -> None:
        self.factory.made.callback(self)


class Reader(Protocol):
    """The client's side, which may refuse to read."""

    def __init__(self) -> None:
        self.read = bytearray()
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.read += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        assert reason.check(ConnectionDone), reason
        self.done.callback(bytes(self.read))


@timed(10)
async def test_what_the_kernel_does_not_take_follows_in_order() -> None:
    factory: Any = Factory.forProtocol(Talker)
    factory.made = Deferred()
    port = EagerPort(0, factory, BACKLOG, "127.0.0.1", reactor)
    port.startListening()
    try:
        reader = Reader()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await connectProtocol(endpoint, reader)
        talker = await factory.made
        assert isinstance(talker.transport, EagerServer)
        transport: Any = talker.transport
        reader.transport.pauseProducing()  # type: ignore[union-attr]
        sent = [b"%d," % number + bytes(30_000) for number in range(500)]
        for piece in sent:
            transport.write(piece)
        assert transport.dataBuffer or transport._tempDataBuffer, "all was taken"
        reader.transport.resumeProducing()  # type: ignore[union-attr]
        transport.write(b"end")
        transport.loseConnection()
        assert await reader.done == b"".join(sent) + b"end"
        transport.write(b"nobody hears this")
    finally:
        await port.stopListening()


class Closing(Talker):
    """It hears of its end."""

    def connectionMade(self) -> None:
        self.lost: Deferred[None] = Deferred()
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.callback(None)


@timed(10)
async def test_what_is_unsent_goes_with_the_connection() -> None:
    """While something else still knows of it, as a cycle that is not collected."""
    factory: Any = Factory.forProtocol(Closing)
    factory.made = Deferred()
    port = EagerPort(0, factory, BACKLOG, "127.0.0.1", reactor)
    port.startListening()
    try:
        reader = Protocol()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        await connectProtocol(endpoint, reader)
        talker = await factory.made
        reader.transport.pauseProducing()  # type: ignore[union-attr]
        transport: Any = talker.transport
        for _ in range(2):
            transport.write(bytes(10 << 20))
        transport.abortConnection()
        await talker.lost
        await deferLater(reactor, 0)
        assert not transport.dataBuffer
        assert not transport._tempDataBuffer
        reader.transport.abortConnection()  # type: ignore[union-attr]
    finally:
        await port.stopListening()
