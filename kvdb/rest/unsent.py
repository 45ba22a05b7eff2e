"""
Answers that clients do not read: how many bytes of them one member holds.

A connection is full while its transport holds more than its own bound (64 KiB),
and takes no request then; what was written to it meanwhile is counted here until
all of it is sent.  When full connections hold more than L{MAX_UNSENT_BYTES}
together, those that have sent nothing to the end for longest are cut.

Rules: the connection that was written to last is not cut; connections that are
not full are not counted, and hold no more than their transports' bound each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from attrs import define, field

MAX_UNSENT_BYTES: Final = 64 << 20
"""Of answers to connections that are full, all together."""


class Transport(Protocol):
    """What can be cut."""

    def abortConnection(self) -> None:
        """Cut it, and drop what is unsent."""


class Connection(Protocol):
    """A connection that is full."""

    transport: Transport


@define(slots=True, eq=False)
class Unsent:
    """
    @ivar held_bytes: of all connections that are full.
    @param complain: told when one is cut.
    """

    _complain: Callable[[], None]
    held_bytes: int = 0
    _held: dict[Connection, int] = field(factory=dict)

    def hold(self, connection: Connection, length: int) -> None:
        """C{length} bytes more were written to C{connection}, which is full."""
        self._held[connection] = self._held.get(connection, 0) + length
        self.held_bytes += length
        while self.held_bytes > MAX_UNSENT_BYTES and len(self._held) > 1:
            oldest = next(one for one in self._held if one is not connection)
            self.release(oldest)
            self._complain()
            oldest.transport.abortConnection()

    def release(self, connection: Connection) -> None:
        """All was sent to it, or it is lost."""
        self.held_bytes -= self._held.pop(connection, 0)
