"""
Reads that a leader has yet to confirm (thesis, section 6.4).

A leader may be one no longer without knowing it.  Before it tells a reader its
commit index it asks a quorum whether they still follow it: heartbeats carry a
request's context, and the answers bring it back.  An answer for one request
confirms all requests before it.
"""

from __future__ import annotations

import enum

from attrs import define, field

from kvdb.raft.messages import Message


class ReadOnlyOption(enum.Enum):
    """How a leader makes sure that it leads, before a read."""

    SAFE = "safe"
    """By asking a quorum."""
    LEASE_BASED = "lease-based"
    """By its clock: faster, and wrong where clocks run at different speeds."""


@define(slots=True)
class ReadRequest:
    """
    @ivar index: the leader's commit index when the request came.
    @ivar acks: who has confirmed the leader since.
    """

    message: Message
    index: int
    acks: dict[int, bool] = field(factory=dict)


@define(slots=True)
class ReadOnly:
    """The requests not yet confirmed, oldest first, by their context."""

    option: ReadOnlyOption
    pending: dict[bytes, ReadRequest] = field(factory=dict)

    def add(self, index: int, message: Message) -> None:
        """A request came; one with the same context is the same request."""
        self.pending.setdefault(message.context, ReadRequest(message, index))

    def ack(self, node: int, context: bytes) -> dict[int, bool]:
        """C{node} confirms; all who have confirmed this request."""
        request = self.pending.get(context)
        if request is None:
            return {}
        request.acks[node] = True
        return request.acks

    def advance(self, context: bytes) -> list[ReadRequest]:
        """A quorum confirmed: this request and all before it are done."""
        if context not in self.pending:
            return []
        done = []
        for pending in list(self.pending):
            done.append(self.pending.pop(pending))
            if pending == context:
                break
        return done

    @property
    def last_context(self) -> bytes:
        """The newest request's context, or no bytes."""
        return next(reversed(self.pending), b"")
