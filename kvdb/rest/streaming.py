"""
Answers that go on: a body in pieces, no faster than its reader takes them.

A handler answers with a L{Stream}: a head, and who begins the body.  That one is
given a L{Sink} to write to, and gives back a L{Source} that hears how the reader
fares.

Rules: a body has an end or is cut off, and never ends as if it were whole when
it is not; whoever reads nothing after the end is cut off, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

LINGER_SECONDS: Final = 15.0
"""How long the reader may take for what is left after the end."""


class Source(Protocol):
    """Who writes a body."""

    def pause(self) -> None:
        """The reader takes no more for now; what is written is held in memory."""

    def resume(self) -> None:
        """It takes more."""

    def stop(self) -> None:
        """It is gone, or all was written: nothing more is wanted.  Told once."""


@frozen(slots=True)
class Stream:
    """
    An answer whose body is written bit by bit.

    @ivar begin: called once with the sink; it may write at once.
    @ivar drop: called in its place where the body is not wanted: for a HEAD, or
        because the stream is refused after all.
    """

    headers: Mapping[bytes, bytes]
    clock: IReactorTime
    begin: Callable[[Sink], Source]
    drop: Callable[[], None]


@implementer(IPushProducer)
@define(slots=True, eq=False)
class Sink:
    """
    The way to one reader.

    @ivar done: fires when the body is written; cancelled when the reader goes.
    """

    _request: Any
    _clock: IReactorTime
    done: Deferred[bytes] = field(init=False)
    _source: Source | None = None
    _full: bool = False
    _ended: bool = False

    def __attrs_post_init__(self) -> None:
        self.done = Deferred()

    def start(self, stream: Stream) -> Deferred[bytes]:
        """Have the body written."""
        gone: Deferred[None] = self._request.notifyFinish()
        gone.addBoth(self._gone)
        self._request.registerProducer(self, True)
        source = stream.begin(self)
        self._source = source
        if self._ended:
            source.stop()
        elif self._full:
            source.pause()
        return self.done

    def write(self, data: bytes) -> None:
        """The next piece."""
        if not self._ended:
            self._request.write(data)

    def finish(self) -> None:
        """That was all of it."""
        if self._ended:
            return
        self._end()
        if self._full:
            abort = self._request.transport.abortConnection
            self._clock.callLater(LINGER_SECONDS, abort)
        self._request.unregisterProducer()
        self.done.callback(b"")

    def abort(self) -> None:
        """There is more, and it cannot be had: cut the connection."""
        if not self._ended:
            self._request.transport.abortConnection()

    def _end(self) -> None:
        self._ended = True
        if self._source is not None:
            self._source.stop()

    def _gone(self, _: object) -> None:
        """The request is finished, or its connection lost."""
        if not self._ended:
            self._end()

    # What the connection says.

    def pauseProducing(self) -> None:
        """See L{IPushProducer}, as for the two below."""
        self._full = True
        if not self._ended and self._source is not None:
            self._source.pause()

    def resumeProducing(self) -> None:
        """See there."""
        self._full = False
        if not self._ended and self._source is not None:
            self._source.resume()

    def stopProducing(self) -> None:
        """See there."""
        if not self._ended:
            self._end()
