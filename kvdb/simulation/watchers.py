"""
Those who watch a simulated cluster: over HTTP, through all that happens to it.

Each watches all keys, so that every revision must come to it, one after the
other: one that is missing, repeated or out of order is seen at once.  Now and then
one hangs up, or stops reading for a while, and goes on elsewhere from where it was.

What they are told is held against each other and, in the end, against what
clients were told of their writes: L{Chronicle}.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from attrs import define, field
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from kvdb.simulation.history import History, Kind, Result
from kvdb.simulation.linearizability import Violation
from kvdb.simulation.machine import CLIENT_PORT, address
from kvdb.simulation.network import SimulatedReactor

CONNECT_SECONDS: Final = 3.0

SILENCE_SECONDS: Final = 15.0
"""After how long without a word a watcher goes elsewhere: progress comes more
often."""

RETRY_SECONDS: Final = 0.5

Told = tuple[str, str, str | None]
"""A change: its kind, key and value."""


@define(slots=True, eq=False)
class Chronicle:
    """What was told of each revision, to whomever."""

    _told: dict[int, Told] = field(factory=dict)

    def note(self, revision: int, change: Told) -> None:
        """
        Somebody was told that.

        @raise Violation: somebody else was told otherwise.
        """
        before = self._told.setdefault(revision, change)
        if before != change:
            raise Violation(
                f"revision {revision} is {before} to one, {change} to another"
            )

    def check(self, history: History) -> int:
        """
        Hold it against what clients were told; how many writes were compared.

        @raise Violation: a write is told otherwise than it was answered.
        """
        compared = 0
        for operation in history:
            if operation.result is not Result.DONE or operation.kind is Kind.GET:
                continue
            told = self._told.get(operation.revision or 0)
            if told is None:
                continue  # of a time when nobody watched
            compared += 1
            value = operation.value if operation.kind is Kind.PUT else None
            if told != (operation.kind.value, "/" + operation.key, value):
                raise Violation(f"{operation} was told to watchers as {told}")
        return compared


class Stream(Protocol):
    """An answer in pieces: given on as it comes."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._data = b""
        self._body = b""
        self._status = 0

    def connectionMade(self) -> None:
        """Ask."""
        self._watcher.connected(self)

    def ask(self, target: str) -> None:
        """Send the request."""
        request = f"GET {target} HTTP/1.1\r\nHost: kvdb\r\n\r\n"
        self.transport.write(request.encode())  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Take the chunked coding off, and cut the stream into events."""
        self._data += data
        if not self._status:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return
            self._status = int(head.split()[1])
            self._data = rest
            self._chunked = b"chunked" in head.lower()
        if not self._chunked:
            self._watcher.answered(self, self._status, self._data)
            return
        while True:
            size, end, rest = self._data.partition(b"\r\n")
            length = int(size, 16) if end else 0
            if not end or len(rest) < length + 2:
                break
            self._body += rest[:length]
            self._data = rest[length + 2 :]
        *events, self._body = self._body.split(b"\n\n")
        for event in events:
            lines = dict(line.split(": ", 1) for line in event.decode().split("\n"))
            self._watcher.heard(self, lines)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Go on elsewhere."""
        self._watcher.lost(self)


class _Streams(Factory):
    noisy = False

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def buildProtocol(self, addr: object) -> Stream:
        return Stream(self._watcher)


@define(slots=True, eq=False, kw_only=True)
class Watcher:
    """
    One who watches.

    @ivar place: the revision up to which all was told; None before the first.
    @ivar forgotten: its place was too old: it must look where to begin.
    """

    reactor: SimulatedReactor
    random: Random
    chronicle: Chronicle
    members: Callable[[], Sequence[int]]
    counts: Any
    place: int | None = None
    forgotten: bool = False
    running: bool = False
    whims: bool = True
    _stream: Stream | None = None
    _silence: Any = None

    def start(self) -> None:
        """Begin."""
        self.running = True
        self.reactor.power_on()
        self._connect()
        self._have_a_whim()

    def _connect(self) -> None:
        to = self.random.choice(self.members())
        endpoint = TCP4ClientEndpoint(
            self.reactor, address(to), CLIENT_PORT, CONNECT_SECONDS
        )
        endpoint.connect(_Streams(self)).addErrback(lambda _: self._connect_later())

    def _connect_later(self) -> None:
        self.reactor.callLater(RETRY_SECONDS * self.random.random(), self._connect)

    def connected(self, stream: Stream) -> None:
        """Ask for what comes behind what is known."""
        self._stream = stream
        self._hear_something()
        if self.forgotten:
            stream.ask("/_/kv?limit=1")
        else:
            since = "" if self.place is None else f"?since={self.place}"
            stream.ask("/_/watch" + since)

    def answered(self, stream: Stream, status: int, body: bytes) -> None:
        """It is no stream: a page, or an error."""
        if stream is not self._stream:
            return
        if self.forgotten and status == 200:
            try:
                page = json.loads(body)
            except ValueError:
                return  # the rest is on its way
            self.place, self.forgotten = page["revision"], False
        elif status == 410:
            self.forgotten = True
        elif status != 503:
            raise Violation(f"a watch from {self.place} is answered {status}: {body!r}")
        self.hang_up()

    def heard(self, stream: Stream, event: dict[str, str]) -> None:
        """The next event."""
        if stream is not self._stream:
            return
        self._hear_something()
        name, data = event["event"], json.loads(event["data"])
        self.counts[f"watch events {name}"] += 1
        if name == "end":
            if data["status"] == 410:
                self.forgotten = True
            self.hang_up()
            return
        revision = int(event["id"])
        if name == "ready" and self.place is None:
            self.place = revision
        assert self.place is not None, "told before it began"
        expected = self.place + (name in ("put", "delete"))
        if revision != expected:
            raise Violation(f"{name} of {revision} comes to one who is at {self.place}")
        self.place = revision
        if name in ("put", "delete"):
            self.chronicle.note(revision, (name, data["key"], data.get("value")))

    def lost(self, stream: Stream) -> None:
        """The connection is gone."""
        if stream is self._stream:
            self._stream = None
            self._connect_later()

    def hang_up(self) -> None:
        """Go on over another connection."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.transport.abortConnection()  # type: ignore[union-attr]
            self._connect_later()

    def _hear_something(self) -> None:
        if self._silence is not None and self._silence.active():
            self._silence.cancel()
        self._silence = self.reactor.callLater(SILENCE_SECONDS, self.hang_up)

    # Whims.

    def _have_a_whim(self) -> None:
        self.reactor.callLater(2 + 10 * self.random.random(), self._act)

    def _act(self) -> None:
        if not self.whims:
            return
        if self.random.random() < 0.5:
            self.hang_up()
        elif self._stream is not None:
            self.counts["watchers that stopped reading"] += 1
            transport: Any = self._stream.transport
            transport.pauseProducing()
            seconds = 12 * self.random.random()
            self.reactor.callLater(seconds, self._read_on, self._stream)
        self._have_a_whim()

    def _read_on(self, stream: Stream) -> None:
        if stream is self._stream:
            transport: Any = stream.transport
            transport.resumeProducing()
