"""
Messages on their way to the other members.

An append that brings no entries only tells how much is committed.  It can wait
a moment: under load the next append tells the same, and so a third of all frames
and their answers are never sent.

Rules: messages to a member are given to the transport in their order; what waits
does so for L{LATE_SECONDS} at most, and not at all for a member that has callers of
its own waiting for that news; Raft would forgive the loss of any of them; but
proposals go past all this, and are never lost here (L{Transport.send_now}).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kvdb.raft.messages import Message, MessageType

LATE_SECONDS: Final = 0.001

EAGER_SECONDS: Final = 1.0
"""For how long after it has passed on a proposal a member is told at once."""


class Transport(Protocol):
    """What carries messages to the other members."""

    def send(self, to: int, messages: Sequence[Message]) -> None:
        """Send C{messages}, in order, or lose them."""

    def send_now(self, message: Message) -> bool:
        """
        Hand C{message} to the connection with its receiver, or do nothing.

        @return: whether that was done.  If not, the message has not left this
            machine, and never will.
        """


@define(slots=True, eq=False)
class Outbox:
    """See the head of this module."""

    clock: IReactorTime
    transport: Transport
    _late: dict[int, Message] = field(factory=dict)
    _eager_until: dict[int, float] = field(factory=dict)
    _flushing: IDelayedCall | None = None

    def send(self, to: int, messages: Sequence[Message]) -> None:
        """Send C{messages}, in order, or lose them."""
        late = self._late.pop(to, None)
        if late is not None and not any(_tells_as_much(m, late) for m in messages):
            messages = [late, *messages]
        if len(messages) == 1 and self._can_wait(messages[0]):
            self._late[to] = messages[0]
            if self._flushing is None:
                self._flushing = self.clock.callLater(LATE_SECONDS, self._flush)
        else:
            self.transport.send(to, messages)

    def send_now(self, message: Message) -> bool:
        """See L{Transport.send_now}."""
        return self.transport.send_now(message)

    def has_callers(self, node: int) -> None:
        """A member has passed on what its callers wait for."""
        self._eager_until[node] = self.clock.seconds() + EAGER_SECONDS

    def _can_wait(self, message: Message) -> bool:
        if message.type is not MessageType.APP or message.entries:
            return False
        until = self._eager_until.get(message.to)
        if until is None:
            return True
        if until > self.clock.seconds():
            return False
        del self._eager_until[message.to]
        return True

    def _flush(self) -> None:
        self._flushing = None
        late, self._late = self._late, {}
        for to, message in late.items():
            self.transport.send(to, [message])

    def close(self) -> None:
        """Nothing is sent any more."""
        self._late.clear()
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None


def _tells_as_much(message: Message, late: Message) -> bool:
    return (
        message.type is MessageType.APP
        and message.term == late.term
        and message.index >= late.index
        and message.commit >= late.commit
    )
