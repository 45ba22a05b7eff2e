"""
Room for the bodies of requests: how many bytes of them one member holds.

A long body is let in before it is read, with all of its length, and counts until
its request is answered.  What finds no room is not refused: its connection is not
read, so that the sender waits in TCP, and goes on in its turn.

Rules: whatever was let in can arrive whole, so bodies never wait for each other's
ends; nobody overtakes; a body of any length is let in where nothing else is held;
short ones are not counted, being no more than one read of a socket.
"""

from __future__ import annotations

from typing import Final, Protocol

from attrs import define, field

MAX_BODIES_BYTES: Final = 32 << 20
"""Of long bodies that arrive, or whose requests wait for an answer."""

SHORT_BODY_BYTES: Final = 64 << 10
"""A body that is no longer is short."""


class Sender(Protocol):
    """Who sends a body: a connection."""

    def go_on(self) -> None:
        """There is room now: read the body that had to wait."""


@define(slots=True, eq=False)
class Intake:
    """
    @ivar held_bytes: of all that were let in.
    """

    held_bytes: int = 0
    _held: dict[Sender, int] = field(factory=dict)
    _waiting: dict[Sender, int] = field(factory=dict)

    @property
    def is_full(self) -> bool:
        """Whether somebody waits for room."""
        return bool(self._waiting)

    def admit(self, sender: Sender, length: int) -> bool:
        """
        Let in a body of C{length} bytes, now or later.

        @return: whether it is let in now; if not, L{Sender.go_on} follows.
        """
        if self._waiting or not self._fits(length):
            self._waiting[sender] = length
            return False
        self._hold(sender, length)
        return True

    def release(self, sender: Sender) -> None:
        """The request of C{sender} is answered, or gone."""
        self._waiting.pop(sender, None)
        self.held_bytes -= self._held.pop(sender, 0)
        while self._waiting:
            sender, length = next(iter(self._waiting.items()))
            if not self._fits(length):
                return
            del self._waiting[sender]
            self._hold(sender, length)
            sender.go_on()

    def _fits(self, length: int) -> bool:
        return not self._held or self.held_bytes + length <= MAX_BODIES_BYTES

    def _hold(self, sender: Sender, length: int) -> None:
        self._held[sender] = length
        self.held_bytes += length
