"""
A watch: changes, each once and in order, for as long as they are wanted.

Rules:

* it knows the revision up to which all was given, and goes on behind it
  wherever it connects again: so no event is lost, and none repeated;
* a silent connection is a lost one: members say C{progress} every ten seconds;
* what was not read waits with the member, not here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, Protocol

from twisted.internet.defer import CancelledError, Deferred

from kvdb.client import model
from kvdb.client.addresses import query
from kvdb.client.errors import (
    RETRY_STATUSES,
    ClientError,
    UnexpectedAnswer,
    error_of,
)
from kvdb.client.events import MAX_EVENT_BYTES, EventReader, EventTooLong, Message
from kvdb.client.model import Event, Put
from kvdb.client.transport import Body, NoAnswer, Request

SILENT_SECONDS: Final = 25.0
"""Seconds that a stream may be silent: two C{progress} may be missed."""


class Streams(Protocol):
    """Where streams come from: L{Calls<kvdb.client.calls.Calls>}."""

    async def connect(self, request: Request, patient: bool) -> tuple[str, Body]:
        """Open one."""

    async def pause(self, rounds: int) -> None:
        """Wait, the longer, the more often it failed."""

    def failed(self, endpoint: str) -> None:
        """Use another endpoint next."""


class Watch:
    """
    An asynchronous iterator of events (L{Put<kvdb.client.model.Put>},
    L{Delete<kvdb.client.model.Delete>}), and a context manager that is
    connected when it is entered, and closed when it is left.

    Iterating raises L{Compacted<kvdb.client.errors.Compacted>} when the next
    events are no longer kept, and what else a member refuses; a member that
    dies or stops is left for another one.

    @ivar revision: all changes up to it were given; None before the first
        connection of a watch that begins with what comes.
    @ivar connections: how often it has connected.
    @ivar endpoint: whom it is, or was last, connected to.
    """

    def __init__(
        self,
        streams: Streams,
        parameters: Mapping[str, bytes | str | int | None],
        since: int | None,
    ) -> None:
        self.revision = since
        self.connections = 0
        self._streams = streams
        self._parameters = parameters
        self._messages: deque[Message] = deque()
        self._reader = EventReader(MAX_EVENT_BYTES)
        self.endpoint = ""
        self._body: Body | None = None
        self._opening: Deferred[None] | None = None
        self._losses = 0
        self._closed = False

    async def __aenter__(self) -> Watch:
        try:
            await self._begin()
        except BaseException:
            self._drop()  # nobody will leave what was not entered
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> Watch:
        return self

    async def __anext__(self) -> Event:
        while not self._closed:
            while self._messages:
                event = self._next()
                if event is not None:
                    return event
            await self._more()
        raise StopAsyncIteration

    async def close(self) -> None:
        """Watch no more; an iteration that goes on ends."""
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
        self._drop()

    async def _begin(self) -> None:
        """Connect, and hear where it begins."""
        while not self._closed and self.revision is None:
            while self._messages and self.revision is None:
                self._next()
            if self.revision is None:
                await self._more()
        if self._body is None and not self._closed:
            await self._more()

    async def _more(self) -> None:
        """Have more messages, or another connection."""
        if self._body is None:
            await self._open()
            return
        try:
            data = await self._body.read(SILENT_SECONDS)
            if data:
                self._messages.extend(self._reader.feed(data))
                return
        except NoAnswer:
            pass  # lost: another member knows how it goes on
        except EventTooLong as error:
            self._drop()
            raise UnexpectedAnswer(str(error), endpoint=self.endpoint) from error
        if not self._closed:
            self._lost()

    async def _open(self) -> None:
        self._opening = Deferred.fromCoroutine(self._connect())
        try:
            await self._opening
        except CancelledError:
            if not self._closed:
                raise
        finally:
            self._opening = None

    async def _connect(self) -> None:
        if self._losses > 1:
            await self._streams.pause(self._losses - 2)
        self._losses += 1
        target = "/_/watch" + query({**self._parameters, "since": self.revision})
        request = Request("GET", target, b"", {"Accept": "text/event-stream"})
        patient = self.connections > 0
        self.endpoint, self._body = await self._streams.connect(request, patient)
        self.connections += 1
        self._reader = EventReader(MAX_EVENT_BYTES)

    def _drop(self) -> None:
        self._messages.clear()
        body, self._body = self._body, None
        if body is not None:
            body.close()

    def _lost(self) -> None:
        self._streams.failed(self.endpoint)
        self._drop()

    def _next(self) -> Event | None:
        """What the next message is; without a connection, once one is none."""
        try:
            return self._take(self._messages.popleft())
        except ClientError:
            self._drop()
            raise

    def _take(self, message: Message) -> Event | None:
        """The event that a message is, if it is one that is new."""
        if message.event == "end":
            self._end(message)
            return None
        if message.event not in ("ready", "put", "delete", "progress"):
            return None  # of a later release
        value = model.json_of(message.data, "changes", self.endpoint)
        if message.event == "ready":
            # With C{since}, what lies behind that is yet to come.
            if self.revision is None:
                self.revision = model.position_of(value, self.endpoint)
            return None
        self._losses = 0
        if message.event == "progress":
            self._reach(model.position_of(value, self.endpoint))
            return None
        kind = model.put_of if message.event == "put" else model.delete_of
        event: Event = kind(value, self.endpoint)
        if self.revision is not None and event.revision <= self.revision:
            return None
        self.revision = event.revision
        return event

    def _reach(self, revision: int) -> None:
        if self.revision is None or revision > self.revision:
            self.revision = revision

    def _end(self, message: Message) -> None:
        """The member ends the stream: go elsewhere, or say why not."""
        self._lost()
        value = model.json_of(message.data, "changes", self.endpoint)
        status = value.get("status") if isinstance(value, dict) else None
        if status in RETRY_STATUSES:
            return
        number = status if type(status) is int else 500
        error: ClientError = error_of(number, {}, message.data, self.endpoint)
        raise error


__all__ = ["Event", "Put", "Watch"]
