"""
The HTTP server: what comes before any address is looked at.

Twisted's own, with bodies bounded: what is beyond the longest value is read
and dropped, so that its sender can hear why, and cut off when it is far beyond.

Connections are bounded too, and once a second each is looked at:

* a request whose sender waits for C{100 Continue}, or whose head claims more than
  is read and dropped, is handled from its head: what the head alone shows to be
  wrong is refused before a body is asked for, and the connection is closed;
* a request must arrive within a bounded time, however it is dribbled;
* when there are almost as many as there may be, those that ask nothing go
  sooner than they else would.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Generator, Iterator
from functools import partial
from heapq import nsmallest
from typing import Any, Final

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web import server

from kvdb.access.guard import Guard
from kvdb.complaints import Complaints
from kvdb.durations import Durations
from kvdb.interfaces import Database
from kvdb.rest.app import API, Exposition, RawPathResource, route_of, send
from kvdb.rest.backing_up import BackingUp
from kvdb.rest.channel import FastChannel
from kvdb.rest.intake import Intake
from kvdb.rest.keys import Keys, too_large
from kvdb.rest.lane import Counted, Lane, encode_answer
from kvdb.rest.listing import Listing
from kvdb.rest.members import Members
from kvdb.rest.problems import Answer, Problem
from kvdb.rest.turns import Turns
from kvdb.rest.ui import Dashboard
from kvdb.rest.unsent import Unsent
from kvdb.rest.watching import Watching

log = Logger(namespace="kvdb.rest")

MAX_CONNECTIONS: Final = 16_384
MAX_KEY_BYTES: Final = 4096
MAX_VALUE_BYTES: Final = 1 << 20
IDLE_SECONDS: Final = 60
"""After how long without a word a connection is closed."""

SWEEP_SECONDS: Final = 1.0
"""How often connections are looked at."""

ARRIVE_SECONDS: Final = 20.0
"""How long a request may take to arrive, and L{ARRIVE_BYTES} of its body are
given a second more each."""

ARRIVE_BYTES: Final = 16 << 10

SCARCE_SECONDS: Final = 5.0
"""The same while others wait for room for their bodies."""

SCARCE_BYTES: Final = 128 << 10

ROOM_SECONDS: Final = 10.0
"""How long a body may wait for room, see L{kvdb.rest.intake}."""

LINGER_SECONDS: Final = 60.0
"""How long a client may take to read its last answer."""

CROWDED: Final = 0.9
"""The part of the connections there may be that idle ones may take up: beyond
it those that are idle longest are closed, after L{CROWDED_SECONDS}."""

CROWDED_SECONDS: Final = 5.0

FINISH_SECONDS: Final = 2.0
"""How long requests that were begun may take at a stop."""

FINISH_STEP: Final = 0.02
"""How often it is looked whether they are done, in seconds."""

METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
"""Counted by their names; all else is other."""

WITH_BODY: Final = frozenset({b"PUT", b"POST"})
"""Methods whose bodies are looked at; those of others are read and dropped."""

STREAMS: Final = frozenset({"watch", "snapshot"})

DRAIN_BYTES: Final = 64 << 20
"""How much is read of a body that is too long before its sender is told.  Behind
that it is told and the connection closed; what still comes is dropped for
L{LINGER_SECONDS}, for many senders read only when they have sent all."""


@frozen(slots=True, kw_only=True)
class RestSettings:
    """
    Limits of the surface.

    @ivar fast_lane: whether plain requests take it; the answers are the same.
    @ivar max_connections: with one more, it is turned away.
    @ivar local_only: only this machine reaches it, and nobody is asked who they
        are: requests that name another machine are refused.
    """

    max_key_bytes: int = MAX_KEY_BYTES
    max_value_bytes: int = MAX_VALUE_BYTES
    idle_seconds: int = IDLE_SECONDS
    fast_lane: bool = True
    max_connections: int = MAX_CONNECTIONS
    local_only: bool = False


class BoundedRequest(server.Request):
    """
    A request whose body takes no more memory than the longest value, and none
    where the method has no use for it.

    There is one class for all servers: the component registry keeps every class
    that it has looked up, and with a class made for one server all that the class
    refers to.

    @ivar begun: when, by the server's clock.
    @ivar longest_held: how much of the body may come to be held, in bytes.
    """

    content: Any
    transport: Any
    received = 0
    longest_held = 0
    _early = False  # it is handled from its head
    _whole = False
    _body: Deferred[bytes] | None = None  # who waits for it
    _no_room = False
    _claimed: int | None = None

    def __init__(
        self,
        *args: Any,
        settings: RestSettings,
        guard: Guard | None,
        clock: IReactorTime,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.max_body = settings.max_value_bytes
        self.local_only = settings.local_only
        self.guard = guard
        self.begun = clock.seconds()

    def getRequestHostname(self) -> bytes:
        """For the router, which wants one; what was sent may be none."""
        return b"kvdb"

    def gotLength(self, length: int | None) -> None:
        """See L{twisted.web.http.Request}."""
        self._claimed = length
        self.content = io.BytesIO()
        if self.channel._command in WITH_BODY:
            most = self.max_body if length is None else length
            self.longest_held = most if most <= self.max_body else 0

    def handleContentChunk(self, data: bytes) -> None:
        """See there."""
        self.received += len(data)
        if self.received <= self.longest_held:
            self.content.write(data)
            return
        self.content = io.BytesIO()
        if self._body is not None and self.received > self.max_body:
            self._fail_body(self._too_large())
        elif self.received > DRAIN_BYTES:
            if self._early:
                self.transport.abortConnection()
            else:
                self.begin_early()

    @property
    def claims_too_much(self) -> bool:
        """Whether its body would not be read to its end."""
        return self._claimed is not None and self._claimed > DRAIN_BYTES

    @property
    def is_early(self) -> bool:
        """Whether it is being handled, or was, and its body has not all come."""
        return self._early and not self._whole

    def begin_early(self) -> None:
        """Handle it from its head."""
        self._early = True
        channel = self.channel
        super().requestReceived(channel._command, channel._path, channel._version)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """See there: its body has come."""
        self._whole = True
        if not self._early:
            super().requestReceived(command, path, version)
        elif self._no_room:
            self._fail_body(_NO_ROOM)
        elif self._body is not None:
            body, self._body = self._body, None
            body.callback(self.content.getvalue())

    def read_body(self) -> Deferred[bytes]:
        """See L{Call<kvdb.rest.call.Call>}."""
        if not self.is_early:
            return succeed(self.content.getvalue())
        self._body = Deferred()
        channel: Any = self.channel
        channel.ask_for_body()
        return self._body

    def _fail_body(self, problem: Problem) -> None:
        if self._body is not None:
            body, self._body = self._body, None
            body.errback(problem)

    def write(self, data: bytes) -> None:
        """See there: an answer before the end of the body is the last."""
        if self.is_early and not self.startedWriting and not self._disconnected:
            self.setHeader(b"connection", b"close")
            self.channel.persistent = False
        super().write(data)

    def _too_large(self) -> Problem:
        size = self._claimed if self._claimed is not None else self.received
        return too_large(self.max_body, f"{size} bytes")

    def drop_body(self) -> None:
        """There is no room for it, which its sender hears once it has come."""
        self._no_room = True
        self.longest_held = 0
        self.content = io.BytesIO()

    def process(self) -> None:
        """See there."""
        if self._no_room:
            self.write_and_finish(_NO_ROOM.answer())
        elif max(self.received, self._claimed or 0) > self.max_body:
            self.write_and_finish(self._too_large().answer())
        else:
            super().process()

    def write_and_finish(self, made: Any) -> None:
        """Answer without a resource."""
        self.write(send(self, made))
        self.finish()


def plain_response(made: Answer) -> bytes:
    """An answer to whoever has no request, and the last."""
    headers = {**made.headers, b"connection": b"close"}
    return encode_answer(evolve(made, headers=headers), b"")


class TurnedAway(Protocol):
    """A connection too many."""

    transport: Any

    def connectionMade(self) -> None:
        """Say so, and close it."""
        self.transport.write(_TOO_MANY)
        self.transport.loseConnection()


class Site(server.Site):
    """
    No access log: it costs a quarter of the throughput.

    @ivar open: the connections there are.
    @ivar counts: requests that twisted.web has answered.
    """

    noisy = False
    protocol: Any = FastChannel  # and none that could become HTTP/2

    def __init__(
        self,
        lane: Lane | None,
        turns: Turns,
        max_connections: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._lane = lane
        self._max_connections = max_connections
        self._clock: IReactorTime = kwargs["reactor"]
        self._complaints = Complaints(self._clock, log)
        self._sweeping: IDelayedCall | None = None
        self.intake = Intake()
        self.turns = turns
        self.unsent = Unsent(self._too_much_unsent)
        self.open: dict[Any, None] = {}
        self.counts: Counter[Counted] = Counter()
        self._took: dict[str, Durations] = {}

    @property
    def is_full(self) -> bool:
        """Whether there may be no more connections; says so in the log."""
        if len(self.open) < self._max_connections:
            return False
        self._complaints.say(
            "full",
            f"{len(self.open)} connections are open, and another was turned away:"
            " see --max-connections",
        )
        return True

    def _too_much_unsent(self) -> None:
        self._complaints.say(
            "unsent",
            "answers that clients do not read take up all room for them; the"
            " connection that has not been read for longest was cut",
        )

    def speaks_tls(self, peer: Any) -> None:
        """Somebody speaks TLS, and nobody here does."""
        self._complaints.say(
            "TLS",
            f"{getattr(peer, 'host', peer)} speaks TLS to the clients' port, which"
            " serves plain http://: see --cert-file",
        )

    def buildProtocol(self, addr: Any) -> Any:
        """Note the connection, and when it is gone."""
        if self.is_full:
            return TurnedAway()
        if self._sweeping is None:
            self._sweeping = self._clock.callLater(SWEEP_SECONDS, self._sweep)
        channel: Any = super().buildProtocol(addr)
        channel.lane = self._lane
        self.open[channel] = None
        lost = channel.connectionLost

        def connection_lost(reason: Any) -> None:
            self.open.pop(channel, None)
            if not self.open and self._sweeping is not None:
                self._sweeping.cancel()
                self._sweeping = None
            lost(reason)

        channel.connectionLost = connection_lost
        return channel

    def _sweep(self) -> None:
        self._sweeping = self._clock.callLater(SWEEP_SECONDS, self._sweep)
        now = self._clock.seconds()
        idle: list[tuple[float, int, Any]] = []
        for channel in list(self.open):
            seconds = channel.doing_so_for(now)
            if seconds < CROWDED_SECONDS:
                continue
            if channel.waiting:
                if seconds >= ROOM_SECONDS:
                    self._complaints.say(
                        "room",
                        "the bodies of requests come faster than they are stored;"
                        " one was refused with 503",
                    )
                    channel.give_up()
            elif channel.arriving:
                longest = ARRIVE_SECONDS + channel.arrived_bytes / ARRIVE_BYTES
                if self.intake.is_full:
                    longest = SCARCE_SECONDS + channel.arrived_bytes / SCARCE_BYTES
                if seconds >= longest:
                    self._complaints.say(
                        "slow", "a request took too long to arrive, and was cut"
                    )
                    channel.turn_away(_TOO_SLOW)
            elif channel.closing:
                if seconds >= LINGER_SECONDS:
                    channel.transport.abortConnection()
            elif not channel.busy:
                idle.append((-seconds, len(idle), channel))
        staying = sum(not channel.closing for channel in self.open)
        too_many = staying - int(self._max_connections * CROWDED)
        for _, _, channel in nsmallest(too_many, idle):
            channel.loseConnection()

    @inlineCallbacks
    def finish(self, clock: Any) -> Generator[Deferred[Any], Any, None]:
        """Answer what was asked, for a while, and close the connections."""
        for _ in range(int(FINISH_SECONDS / FINISH_STEP)):
            for channel in list(self.open):
                if not channel.busy:
                    channel.loseConnection()
            if not self.open:
                return
            yield deferLater(clock, FINISH_STEP)
        for channel in list(self.open):
            channel.transport.abortConnection()

    def log(self, request: Any) -> None:
        """Count a request that was answered."""
        route = route_of(request.uri)
        method = request.method.decode("latin-1")
        if method not in METHODS:
            method = "other"
        self.counts[route, method, request.code] += 1
        if route not in STREAMS:  # which last as long as somebody reads
            took = self._took.setdefault(route, Durations())
            took.observe(self._clock.seconds() - request.begun)

    def counted(self) -> Iterator[tuple[Counted, int]]:
        """Requests answered on either way."""
        lane = Counter() if self._lane is None else self._lane.counts
        yield from (self.counts + lane).items()

    def took(self) -> Iterator[tuple[str, Durations]]:
        """How long requests took, by their routes; those of the lane apart."""
        yield from self._took.items()
        if self._lane is not None:
            yield "key, plain", self._lane.took


_TOO_MANY: Final = plain_response(
    Problem(
        503,
        "too many connections are open here",
        "Keep fewer open, or ask another member.",
        {b"retry-after": b"5"},
    ).answer()
)
_NO_ROOM: Final = Problem(
    503,
    "the bodies of other requests take up all room for them; nothing was done",
    "Slow down, and try again, or ask another member.",
    {b"retry-after": b"5"},
)
_TOO_SLOW: Final = plain_response(
    Problem(408, "the request took too long to arrive; nothing was done").answer()
)


def make_site(
    database: Database,
    clock: IReactorTime,
    settings: RestSettings,
    exposition: Exposition | None = None,
    guard: Guard | None = None,
) -> Site:
    """
    The server of one node.

    @param exposition: its metrics; None where there are none.
    @param guard: who checks what is asked for, if anybody does.
    """
    turns = Turns(clock)
    api = API(
        Keys(database, settings.max_key_bytes, settings.max_value_bytes),
        Members(database, clock),
        Listing(database, settings.max_key_bytes, turns),
        Watching(database, clock, settings.max_key_bytes),
        BackingUp(database, clock),
        Dashboard(),
        exposition,
    )

    lane = None
    if settings.fast_lane:
        longest_key, longest_value = settings.max_key_bytes, settings.max_value_bytes
        lane = Lane(
            database, clock, longest_key, longest_value, guard, settings.local_only
        )
    return Site(
        lane,
        turns,
        settings.max_connections,
        RawPathResource(api.app),
        requestFactory=partial(
            BoundedRequest, settings=settings, guard=guard, clock=clock
        ),
        parsePOSTFormSubmission=False,
        timeout=settings.idle_seconds,
        reactor=clock,
    )
