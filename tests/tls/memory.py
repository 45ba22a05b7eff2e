"""Two ends of a connection in memory, and virtual time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvdb.complaints import Complaints
from kvdb.reloading import RealFiles, Reloaded
from kvdb.tls.files import Material, load
from kvdb.tls.settings import TLSFiles
from kvdb.tls.transport import Dialler, SecuredFactory, Server
from tests.tls.certificates import Authority, Pair


class Recorder(Protocol):
    """What was within the connection."""

    def __init__(self) -> None:
        self.heard = b""
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class Wire(StringTransport):
    """An end whose bytes wait to be carried over."""

    aborted = False

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def abortConnection(self) -> None:
        self.aborted = self.disconnecting = True


def material(
    pair: Pair, authority: Authority | None, auth: bool = False
) -> Reloaded[Material]:
    """Read from real files."""
    named = TLSFiles(
        prefix="",
        cert=pair.cert,
        key=pair.key,
        ca=None if authority is None else authority.path,
        client_cert_auth=auth,
    )
    files = RealFiles()
    return Reloaded("TLS", named.paths, files, partial(load, files, named))


def recorders() -> Any:
    factory: Any = Factory.forProtocol(Recorder)
    factory.noisy = False
    return factory


End = tuple[Any, Wire]
"""A connection's end, and what carries its bytes."""


def end(factory: Any) -> End:
    """Made by C{factory}; C{within} is what speaks over it."""
    protocol = factory.buildProtocol(None)
    protocol.within = protocol.wrappedProtocol
    wire = Wire()
    protocol.makeConnection(wire)
    return protocol, wire


class Listening:
    """A TLS server; C{said} is what it logged."""

    def __init__(
        self,
        found: Reloaded[Material],
        auth: bool = False,
        wrapped: Any = None,
        plain_answer: Callable[[bytes], bytes] = lambda data: b"speak TLS",
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        self.clock = Clock()
        self.events: list[Any] = []
        log: Any = Logger("kvdb.test", observer=self.events.append)  # type: ignore[arg-type]
        self.factory = Server(
            found,
            auth,
            wrapped or recorders(),
            self.clock,
            Complaints(self.clock, log),
            "the port",
            plain_answer,
            is_full,
        )

    @property
    def said(self) -> str:
        return "\n".join(event["text"] for event in self.events)

    def accept(self) -> End:
        """A connection from somebody."""
        return end(self.factory)


def dialled(found: Reloaded[Material], host: str, clock: Clock) -> End:
    """The other end."""
    return end(SecuredFactory(Dialler(found, host), True, recorders(), clock))


def drop(one: End) -> None:
    """As the reactor does once a connection was asked to close."""
    protocol, wire = one
    assert wire.disconnecting, "nobody asked it to close"
    protocol.connectionLost(
        Failure(ConnectionAborted() if wire.aborted else ConnectionDone())
    )


def carry(one: End, other: End) -> None:
    """Until neither has anything to say, or both are gone."""
    ends = [one, other]
    closed = [False, False]
    while True:
        moved = False
        for mine, (_, wire) in enumerate(ends):
            data = wire.value()
            wire.clear()
            other_end = ends[1 - mine][0]
            if data and not closed[1 - mine]:
                other_end.dataReceived(data)
                moved = True
            if wire.disconnecting and not closed[mine] and not wire.value():
                closed[mine] = moved = True
                drop(ends[mine])
                if not closed[1 - mine]:
                    closed[1 - mine] = True
                    other_end.connectionLost(Failure(ConnectionDone()))
        if not moved:
            return
