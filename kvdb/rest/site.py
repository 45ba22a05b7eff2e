"""
The HTTP server: what comes before any address is looked at.

Twisted's own, with bodies bounded: what is beyond the longest value is read
and dropped, so that its sender can hear why, and cut off when it is far beyond.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Generator, Iterator
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.web import server

from kvdb.durations import Durations
from kvdb.interfaces import Database
from kvdb.rest.app import API, Exposition, RawPathResource, route_of, send
from kvdb.rest.backing_up import BackingUp
from kvdb.rest.channel import FastChannel
from kvdb.rest.keys import Keys, too_large
from kvdb.rest.lane import Counted, Lane
from kvdb.rest.listing import Listing
from kvdb.rest.members import Members
from kvdb.rest.ui import Dashboard
from kvdb.rest.watching import Watching

MAX_KEY_BYTES: Final = 4096
MAX_VALUE_BYTES: Final = 1 << 20
IDLE_SECONDS: Final = 60
"""After how long without a word a connection is closed."""

FINISH_SECONDS: Final = 2.0
"""How long requests that were begun may take at a stop."""

FINISH_STEP: Final = 0.02
"""How often it is looked whether they are done, in seconds."""

METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})
"""Counted by their names; all else is other."""

STREAMS: Final = frozenset({"watch", "snapshot"})

DRAIN_BYTES: Final = 64 << 20
"""How much is read of a body that is too long, so that its sender gets to hear
why; behind that the connection is cut."""


@frozen(slots=True, kw_only=True)
class RestSettings:
    """
    Limits of the surface.

    @ivar fast_lane: whether plain requests take it; the answers are the same.
    """

    max_key_bytes: int = MAX_KEY_BYTES
    max_value_bytes: int = MAX_VALUE_BYTES
    idle_seconds: int = IDLE_SECONDS
    fast_lane: bool = True


class BoundedRequest(server.Request):
    """A request whose body takes no more memory than the longest value."""

    content: Any
    transport: Any
    max_body = MAX_VALUE_BYTES
    _received = 0
    _claimed: int | None = None

    def getRequestHostname(self) -> bytes:
        """For the router, which wants one; what was sent may be none."""
        return b"kvdb"

    def gotLength(self, length: int | None) -> None:
        """See L{twisted.web.http.Request}."""
        self._claimed = length
        self.content = io.BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """See there."""
        self._received += len(data)
        if self._received <= self.max_body:
            self.content.write(data)
        elif self._received > DRAIN_BYTES:
            self.transport.abortConnection()
        else:
            self.content = io.BytesIO()

    def process(self) -> None:
        """See there."""
        if self._received <= self.max_body:
            super().process()
            return
        size = self._claimed if self._claimed is not None else self._received
        self.write_and_finish(too_large(self.max_body, f"{size} bytes").answer())

    def write_and_finish(self, made: Any) -> None:
        """Answer without a resource."""
        self.write(send(self, made))
        self.finish()


class Site(server.Site):
    """
    No access log: it costs a quarter of the throughput.

    @ivar open: the connections there are.
    @ivar counts: requests that twisted.web has answered.
    """

    noisy = False
    protocol: Any = FastChannel  # and none that could become HTTP/2

    def __init__(self, lane: Lane | None, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lane = lane
        self._clock: IReactorTime = kwargs["reactor"]
        self.open: dict[Any, None] = {}
        self.counts: Counter[Counted] = Counter()
        self._took: dict[str, Durations] = {}

    def buildProtocol(self, addr: Any) -> Any:
        """Note the connection, and when it is gone."""
        channel: Any = super().buildProtocol(addr)
        channel.lane = self._lane
        self.open[channel] = None
        lost = channel.connectionLost

        def connection_lost(reason: Any) -> None:
            self.open.pop(channel, None)
            lost(reason)

        channel.connectionLost = connection_lost
        return channel

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


def make_site(
    database: Database,
    clock: IReactorTime,
    settings: RestSettings,
    exposition: Exposition | None = None,
) -> Site:
    """
    The server of one node.

    @param exposition: its metrics; None where there are none.
    """
    api = API(
        Keys(database, settings.max_key_bytes, settings.max_value_bytes),
        Members(database, clock),
        Listing(database, settings.max_key_bytes),
        Watching(database, clock, settings.max_key_bytes),
        BackingUp(database, clock),
        Dashboard(),
        exposition,
    )

    class Request(BoundedRequest):
        max_body = settings.max_value_bytes

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.begun = clock.seconds()

    lane = None
    if settings.fast_lane:
        lane = Lane(database, clock, settings.max_key_bytes, settings.max_value_bytes)
    return Site(
        lane,
        RawPathResource(api.app),
        requestFactory=Request,
        parsePOSTFormSubmission=False,
        timeout=settings.idle_seconds,
        reactor=clock,
    )
