"""
Connections that have more requests to be answered than one turn of the reactor
may spend on them: they go on in the turns that follow, the longest waiting first.

Rules: a turn goes on with connections for L{TURN_SECONDS}, and with one at least;
each is given its share (L{kvdb.rest.channel.TURN_BYTES}) and then waits behind the
others.  So who sends many requests ahead delays the others by no more than that.
Work that takes long, and that many wait to begin at the same moment, takes turns too
(L{Turns.turn}).
"""

from __future__ import annotations

from typing import Final, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

TURN_SECONDS: Final = 0.003
"""Of one turn of the reactor, for requests that were sent ahead."""


class Waiting(Protocol):
    """A connection, or what else waits."""

    def next_turn(self) -> None:
        """Go on."""


@define(slots=True, eq=False)
class _Turn:
    done: Deferred[None]

    def next_turn(self) -> None:
        self.done.callback(None)


@define(slots=True, eq=False)
class Turns:
    """See the head of this module."""

    clock: IReactorTime
    _waiting: dict[Waiting, None] = field(factory=dict)
    _call: IDelayedCall | None = None
    _until: float = 0.0

    def is_over(self) -> bool:
        """Whether this turn has spent its time on requests that were sent ahead."""
        if self._call is None:
            self._begin()
        return self.clock.seconds() >= self._until

    def _begin(self) -> None:
        self._until = self.clock.seconds() + TURN_SECONDS
        self._call = self.clock.callLater(0, self._next)

    def wait(self, connection: Waiting) -> None:
        """Have C{connection} go on in another turn."""
        self._waiting[connection] = None
        if self._call is None:
            self._begin()

    def turn(self) -> Deferred[None]:
        """Fires while there is time in a turn, perhaps already in this one."""
        if not self.is_over():
            return succeed(None)
        turn = _Turn(Deferred(lambda _: self.forget(turn)))
        self.wait(turn)
        return turn.done

    def forget(self, connection: Waiting) -> None:
        """It is lost."""
        self._waiting.pop(connection, None)
        if not self._waiting and self._call is not None:
            self._call.cancel()
            self._call = None

    def _next(self) -> None:
        """A turn begins."""
        self._call = None
        for connection in list(self._waiting):
            # One before it may have cut it off.
            if connection in self._waiting:
                if self.is_over():
                    break
                del self._waiting[connection]
                connection.next_turn()
