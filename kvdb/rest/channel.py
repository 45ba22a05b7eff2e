"""
A client's connection: plain requests to the lane, all others to twisted.web.

Rules:

* A request is the lane's only where the connection is between two requests and
  its whole head has arrived; twisted.web gets every other byte as it came.
  When it has answered what it got, the connection is the lane's again.
* One request at a time, in order.  What a client sends ahead is held up to
  L{MAX_HELD_BYTES}, then left in TCP.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http

from kvdb.rest.lane import Lane
from kvdb.store.commands import Outcome, Put

MAX_HELD_BYTES: Final = 1 << 16
"""What a client may send ahead of an answer, beside one read of the socket."""


class FastChannel(http.HTTPChannel):
    """
    See the head of this module.

    @ivar lane: None for a server that has none.
    @ivar held_bytes: what has arrived and waits to be looked at.
    """

    transport: Any
    requests: list[Any]
    lane: Lane | None = None
    _aside = False  # twisted.web has the connection
    _asked: Deferred[Any] | None = None  # what the lane waits for
    _taking = False  # a loop takes what is held
    _full = False  # the client does not take what it asked for
    _held: list[bytes]
    held_bytes = 0
    _needed_bytes = 0
    _answered = 0
    _answered_before = 0

    def __init__(self) -> None:
        super().__init__()
        self._held = []

    @property
    def busy(self) -> bool:
        """Whether a request was begun and not answered."""
        return self._asked is not None or bool(self.requests)

    # What arrives.

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol<twisted.internet.interfaces.IProtocol>}."""
        if self._aside:
            super().dataReceived(data)
        elif self._asked is not None:
            self._hold(data)
            if self.held_bytes > MAX_HELD_BYTES:
                self.transport.pauseProducing()
        elif self._held:
            self._hold(data)
            self._go_on()
        else:
            self._take(data)

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self.held_bytes += len(data)

    def _go_on(self) -> None:
        """Take what is held, as far as it goes."""
        self._taking = True
        while (
            self._held
            and self._asked is None
            and not self._aside
            and self.held_bytes >= self._needed_bytes
        ):
            data = b"".join(self._held)
            self._held.clear()
            self.held_bytes = self._needed_bytes = 0
            self._take(data)
        self._taking = False

    def _take(self, data: bytes) -> None:
        """What begins with a request."""
        lane = self.lane
        plain = None if lane is None else lane.recognise(data)
        if plain is None:
            self._step_aside(data)
            return
        is_put, key, stale, begin, end = plain
        if len(data) < end:
            self._hold(data)
            self._needed_bytes = end
            return
        if len(data) > end:
            self._hold(data[end:])
        assert lane is not None, "a plain request without a lane"
        if is_put:
            self._asked = lane.database.write(Put(key, data[begin:end]))
            self._asked.addCallbacks(self._written, self._failed)
        elif stale:
            self._answer(lane.read(key))
        else:
            self._asked = lane.database.read_barrier()
            self._asked.addCallbacks(self._may_read, self._failed, (key,))

    # Answers.

    def _written(self, outcome: Outcome) -> None:
        self._answer(self.lane.written(outcome))  # type: ignore[union-attr]

    def _may_read(self, _: None, key: bytes) -> None:
        self._answer(self.lane.read(key))  # type: ignore[union-attr]

    def _failed(self, failure: Failure) -> None:
        self._answer(self.lane.failed(failure))  # type: ignore[union-attr]

    def _answer(self, answer: bytes) -> None:
        self._asked = None
        self._answered += 1
        self.lane.send(self.transport, answer)  # type: ignore[union-attr]
        if self._held and not self._taking:
            if self.held_bytes > MAX_HELD_BYTES and not self._full:
                self.transport.resumeProducing()
            self._go_on()

    # Taking turns with twisted.web.

    def _step_aside(self, data: bytes) -> None:
        self._aside = True
        super().dataReceived(data)

    def requestDone(self, request: Any) -> None:
        """twisted.web has answered: have the connection back."""
        super().requestDone(request)
        if self.lane is not None and self.persistent and not self.requests:
            self._aside = False
            rest = self.clearLineBuffer()
            if rest:
                self.dataReceived(rest)

    def pauseProducing(self) -> None:
        """See there, as for all below."""
        self._full = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """See there."""
        self._full = False
        super().resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See there."""
        self._aside = True
        if self._asked is not None:
            self._asked.cancel()
        super().connectionLost(reason)

    def timeoutConnection(self) -> None:
        """Only where nothing was asked since the time was set last."""
        if self._asked is not None or self._answered != self._answered_before:
            self._answered_before = self._answered
            self.setTimeout(self.timeOut)
        else:
            super().timeoutConnection()
