"""
A client's connection: plain requests to the lane, all others to twisted.web.

Rules:

* A request is the lane's only where the connection is between two requests and
  its whole head has arrived; twisted.web gets every other byte as it came.
  When it has answered what it got, the connection is the lane's again.
* What a connection is doing can be seen without a note of it being taken for
  each request: whoever looks now and then (L{Site<kvdb.rest.site.Site>}) sees
  whether it is still at the same.
* One request at a time, in order.  What a client sends ahead is held up to
  L{MAX_HELD_BYTES}, then left in TCP.
* No request is taken while the transport holds more than its own bound of what
  was answered before (64 KiB, Twisted's C{bufferSize}).  So what a connection has
  unsent is at most that and one answer.
* What one turn of the reactor answers on a connection is at most L{TURN_BYTES} and
  one answer, or L{TURN_SECONDS} of twisted.web's work and one request; the rest
  waits for the next turn, and connections take turns (L{kvdb.rest.turns}).
* A long body is read once there is room for it (L{kvdb.rest.intake}); the time
  until then is not its sender's.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import http

from kvdb.rest.intake import SHORT_BODY_BYTES
from kvdb.rest.lane import MEASURED, Lane
from kvdb.rest.turns import TURN_SECONDS
from kvdb.store.commands import Outcome, Put

log = Logger(namespace="kvdb.rest")

_TLS_RECORD: Final = b"\x16\x03"
"""What TLS begins with, and no request."""

_NO_TLS: Final = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
"""By which clients that wait for TLS see at once that there is none."""

MAX_HELD_BYTES: Final = 1 << 16
"""What a client may send ahead of an answer, beside one read of the socket."""

TURN_BYTES: Final = 2 << 20
"""Of answers to one connection in one turn of the reactor, beside the last."""


class FastChannel(http.HTTPChannel):
    """
    See the head of this module.

    @ivar lane: None for a server that has none.
    @ivar held_bytes: what has arrived and waits to be looked at.
    @ivar closing: it was asked to close.
    @ivar waiting: a body is not read, as there is no room for it yet.
    """

    transport: Any
    requests: list[Any]
    site: Any
    lane: Lane | None = None
    _aside = False  # twisted.web has the connection
    _asked = False  # a request of the lane's waits for its answer
    _begun = 0.0  # when it was asked, of one that is measured
    _reading = b""  # the key that it reads; empty for a write
    _taking = False  # a loop takes what is held
    _full = False  # the transport holds more than its bound
    _queued = False  # the next request waits for another turn
    _spent = 0.0  # of what a turn may answer, in bytes
    _writing = 0  # how long what was written last is, in bytes
    _held: list[bytes]
    held_bytes = 0
    _needed_bytes = 0
    _answered = 0
    _answered_before = 0
    _whole = 0  # requests that twisted.web had whole
    closing = False
    _counted = False  # a body takes up room, or waits for it
    waiting = False
    _no_room = False  # twisted.web gets a request whose body is to be dropped
    _handling = False  # the last of them waits for its answer
    _expecting = False  # the client waits for 100 Continue
    _unread = False  # the last answer was made before all of the request had come
    _doing: tuple[bool, bool, bool, int] = (False, False, False, 0)
    _since = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._held = []

    @property
    def busy(self) -> bool:
        """Whether a request was begun and not answered."""
        return self._asked or bool(self._held) or bool(self.requests)

    @property
    def arriving(self) -> bool:
        """Whether a part of a request has come, and the rest is waited for."""
        if self.closing:
            return False
        if self._aside:
            return not self._handling
        return bool(self._held) and not (self._asked or self._full or self._queued)

    def doing_so_for(self, now: float) -> float:
        """
        For how many seconds, as seen by who calls this now and then, it has been
        waiting for the same request, or for the rest of it, for room, or to answer.
        """
        done = self._answered + self._whole
        doing = (self.arriving, self.waiting, self.closing, done)
        if doing != self._doing:
            self._doing, self._since = doing, now
        return now - self._since

    @property
    def arrived_bytes(self) -> int:
        """How much has come of the body that is arriving, and is wanted."""
        if not self.requests:
            return self.held_bytes
        request = self.requests[-1]
        return int(min(request.received, request.max_body))

    def turn_away(self, answer: bytes) -> None:
        """Say why, and hang up, whatever is arriving."""
        self.transport.write(answer)
        self.loseConnection()

    # What arrives.

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol<twisted.internet.interfaces.IProtocol>}."""
        if self._aside:
            if self._handling:
                self._hold_ahead(data)
            elif not self.closing:
                super().dataReceived(data)
                self._wait_on()
        elif self._asked or self._full or self._queued:
            self._hold_ahead(data)
        elif self._held:
            self._hold(data)
            self._go_on()
            self._wait_on()
        else:
            self._take(data)

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self.held_bytes += len(data)

    def _hold_ahead(self, data: bytes) -> None:
        """Hold what waits for the answer to what came before."""
        if not self.closing:
            self._hold(data)
            self._regulate()

    def _regulate(self) -> None:
        """Leave in TCP what cannot be taken now."""
        if self.closing:
            return
        if self.held_bytes > MAX_HELD_BYTES or self.waiting:
            self.transport.pauseProducing()
        elif not self._full:
            self.transport.resumeProducing()

    def _go_on(self) -> None:
        """Take what is held, as far as it goes."""
        self._taking = True
        while (
            self._held
            and not self._asked
            and not self._aside
            and not self._full
            and not self._queued
            and not self.closing
            and self.held_bytes >= self._needed_bytes
        ):
            data = b"".join(self._held)
            self._held.clear()
            self.held_bytes = self._needed_bytes = 0
            self._take(data)
            if self._held and not self._asked and self.site.turns.is_over():
                self._wait_for_turn()
        self._taking = False

    # What a turn may answer, and what may be unsent.

    def write(self, data: bytes) -> None:
        """See there: what twisted.web answers."""
        self._writing = len(data)
        self._spent += self._writing
        super().write(data)

    def writeSequence(self, iovec: Any) -> None:
        """See there."""
        self._writing = sum(map(len, iovec))
        self._spent += self._writing
        super().writeSequence(iovec)

    def _wait_for_turn(self) -> None:
        """This turn has answered enough here."""
        if not self._queued and not self.closing:
            self._queued = True
            self.site.turns.wait(self)

    def next_turn(self) -> None:
        """See L{Waiting<kvdb.rest.turns.Waiting>}."""
        self._queued = False
        self._spent = 0.0
        self._go_on()
        self._regulate()

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
            self._admit(end - begin)
            return
        if len(data) > end:
            self._hold(data[end:])
        assert lane is not None, "a plain request without a lane"
        if not is_put and stale:
            self._answer(lane.read(key))
            return
        self._asked = True
        lane.asked += 1
        if not lane.asked % MEASURED:
            self._begun = lane.clock.seconds()
        if is_put:
            self._reading = b""
            lane.database.write_for(Put(key, data[begin:end]), self)
        else:
            self._reading = key
            lane.database.read_for(self)

    # Room for long bodies.

    def _admit(self, length: int) -> None:
        """A body of C{length} bytes begins."""
        if length > SHORT_BODY_BYTES:
            self._counted = True
            self.waiting = not self.site.intake.admit(self, length)
            self._wait_on()

    def _wait_on(self) -> None:
        """Read no further while there is no room."""
        if self.waiting:
            self.transport.pauseProducing()

    def go_on(self) -> None:
        """See L{Sender<kvdb.rest.intake.Sender>}."""
        self.waiting = False
        if not self._full:
            self.transport.resumeProducing()

    def give_up(self) -> None:
        """No room was found in time: drop the body as it comes, and then say so."""
        self._release()
        if self._aside:
            self.requests[-1].drop_body()
        else:
            held = b"".join(self._held)
            self._held.clear()
            self.held_bytes = self._needed_bytes = 0
            self._no_room = True
            self._step_aside(held)
            self._no_room = False
        if not self._full:
            self.transport.resumeProducing()

    def _release(self) -> None:
        """The body is not held any more, nor waited for."""
        self._counted = self.waiting = False
        self.site.intake.release(self)

    # Answers: a channel is the L{Caller<kvdb.interfaces.Caller>} of its request.

    def callback(self, result: Outcome | None) -> None:
        """The write was carried out, or the key may be read."""
        lane = self.lane
        assert lane is not None, "an answer of no lane"
        if result is None:
            self._told(lane.read(self._reading))
        else:
            self._told(lane.written(result))

    def errback(self, error: BaseException) -> None:
        """It could not be done."""
        assert self.lane is not None, "an answer of no lane"
        method = "GET" if self._reading else "PUT"
        self._told(self.lane.failed(Failure(error), method))

    def _told(self, answer: bytes) -> None:
        if self._asked:  # else the client has hung up
            try:
                self._answer(answer)
            except Exception:
                # As twisted does with what a protocol raises.
                log.failure("a connection has failed")
                self.transport.abortConnection()

    def _answer(self, answer: bytes) -> None:
        self._asked = False
        self._answered += 1
        if self._counted:
            self._release()
        lane = self.lane
        assert lane is not None, "an answer of no lane"
        if self._begun:
            lane.took.observe(lane.clock.seconds() - self._begun)
            self._begun = 0.0
        self._writing = len(answer)
        self._spent += self._writing
        if self._held:
            # What follows may be answered at once, and must not come before.
            self.transport.write(answer)
        else:
            lane.send(self.transport, answer)
        if self._spent > TURN_BYTES:
            self._wait_for_turn()
        if self._held and not self._taking:
            self._go_on()
            self._regulate()

    # Taking turns with twisted.web.

    def _step_aside(self, data: bytes) -> None:
        self._aside = True
        if data.startswith(_TLS_RECORD):
            self.site.speaks_tls(self.transport.getPeer())
            self.turn_away(_NO_TLS)
            return
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        """The head of a request has come."""
        super().allHeadersReceived()
        request = self.requests[-1]
        expects = request.requestHeaders.hasHeader(b"expect")
        if self._no_room:
            request.drop_body()
        elif self.length != 0 and (expects or request.claims_too_much):
            request.begin_early()
        if self.requests and not self._no_room:
            self._admit(request.longest_held)

    def _send100Continue(self) -> None:
        """See there: not before the head is known to be right."""
        self._expecting = True

    def ask_for_body(self) -> None:
        """The head is right, and the body is wanted."""
        if self._expecting:
            self._expecting = False
            super()._send100Continue()

    def rawDataReceived(self, data: bytes) -> None:
        """See there."""
        if not self.closing:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        """A request has come, whole."""
        if not self.requests:
            return  # it was answered before
        self._whole += 1
        self._handling = True
        clock = self.site.turns.clock
        begun = clock.seconds()
        super().allContentReceived()
        self._spent += TURN_BYTES * (clock.seconds() - begun) / TURN_SECONDS
        if self._spent > TURN_BYTES:
            self._wait_for_turn()

    def requestDone(self, request: Any) -> None:
        """twisted.web has answered: have the connection back."""
        self._handling = self._expecting = False
        self._unread = request.is_early
        if self._counted:
            self._release()
        # What came with the request, and is not part of it.
        rest = b"".join(self._dataBuffer) + self.clearLineBuffer()
        self._dataBuffer.clear()
        super().requestDone(request)
        if self.persistent:
            self._aside = False
            if rest:
                self._held.insert(0, rest)
                self.held_bytes += len(rest)
            if self._spent > TURN_BYTES or (self._held and self.site.turns.is_over()):
                self._wait_for_turn()
            if self._held:
                if not self._taking:
                    self._go_on()
                self._regulate()

    def loseConnection(self) -> Any:
        """See there, as for all below: once what was written is sent."""
        self.closing = True
        if self._unread:
            # A socket that is closed with something unread is reset, and the
            # client may lose the answer.  No transport in memory has halves.
            self._unread = False
            half = getattr(self.transport, "loseWriteConnection", None)
            if half is not None:
                self.transport.unregisterProducer()
                return half()
        return super().loseConnection()

    def pauseProducing(self) -> None:
        """See there."""
        self._full = True
        self.site.unsent.hold(self, self._writing)
        self._writing = 0
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """See there."""
        was_full, self._full = self._full, False
        self.site.unsent.release(self)
        super().resumeProducing()
        self._regulate()
        if was_full and self._held and not (self._asked or self._handling):
            self._wait_for_turn()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See there."""
        self._aside, self._asked = True, False
        if self._counted:
            self._release()
        self._held.clear()
        self.held_bytes = 0
        self.site.turns.forget(self)
        self.site.unsent.release(self)
        super().connectionLost(reason)

    def timeoutConnection(self) -> None:
        """Only where nothing was asked since the time was set last."""
        busy = self._asked or self.waiting
        if busy or self._answered != self._answered_before:
            self._answered_before = self._answered
            self.setTimeout(self.timeOut)
        else:
            super().timeoutConnection()
