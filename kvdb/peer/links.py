"""
Messages between this node and one other: a L{Link} out, an L{Inbox} in.

Each member dials each other one.  Messages travel only the way a connection
was dialled, so two members hold two connections, and none has to be agreed on.

Rules:

* A link dials until it is stopped: at once when a connection that held is lost,
  for whether the other side still listens is news.  Then the wait between
  attempts doubles from hundredths of a second to seconds, and half of it is
  drawn, so that members that lost each other together do not return together.
* What the transport has not taken waits in one of two queues, each bounded in
  bytes: L{BULK} in one, in order, and all else in the other, which goes first.
  So heartbeats, votes, reads and their answers wait for at most one frame of bulk
  that is being written, and for what the kernel holds; Raft allows for messages
  that overtake others.
* What finds no room, or no connection, is dropped and reported: Raft sends it
  again once it has found out how much arrived.  Nothing is kept for a connection
  yet to come, since it would be stale by then.
* L{Link.send_now} drops nothing: it writes to the transport, or does nothing.
* A message is believed only as far as the handshake goes: it must be for this
  node, and from the peer, except where followers pass a request on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Protocol

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from kvdb.peer.addresses import Dial
from kvdb.peer.codec import decode_messages, encode_frames
from kvdb.peer.connection import Connection, Dialled, OneConnection, Owner, State
from kvdb.peer.framing import FrameType, ProtocolError
from kvdb.peer.handshake import JUDGED_VERSION, REPORT_VERSION, Purpose
from kvdb.peer.report import Report, decode_report, encode_report
from kvdb.peer.round_trip import round_trip_seconds
from kvdb.raft.messages import Message, MessageType

BULK: Final = frozenset({MessageType.APP, MessageType.PROP})
"""Messages that carry entries.  An append without entries keeps its place among
the others, which it refers to."""

FORWARDED: Final = frozenset(
    {MessageType.PROP, MessageType.READ_INDEX, MessageType.TRANSFER_LEADER}
)
"""Requests that a follower passes on to its leader as they are: they name who
asked first, or who shall lead."""


def _comparable(report: Report, connection: Connection) -> Report:
    """Without hashes, between members that make them of different things."""
    return (
        report if connection.version >= JUDGED_VERSION else evolve(report, windows=())
    )


def back_off(attempts: int, first: float, most: float, random: Random) -> float:
    """
    How long to wait before dialling again, in seconds.

    @param attempts: how many failed since a connection last held.
    @param first: the longest wait before the first attempt.
    @param most: what that grows to.
    """
    longest = min(most, first * float(2 ** min(attempts, 30)))
    return longest * (0.5 + random.random() / 2)


class _Queue:
    """
    Frames that wait to be written: any one, or several that are not longer than
    the bound together.

    @ivar size_bytes: of their bodies.
    """

    def __init__(self, max_bytes: int) -> None:
        self.size_bytes = 0
        self._max_bytes = max_bytes
        self._frames: deque[tuple[bytes, int]] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, body: bytes, count: int) -> bool:
        """Whether there is room for a frame of C{count} messages; then it waits."""
        if self._frames and self.size_bytes + len(body) > self._max_bytes:
            return False
        self._frames.append((body, count))
        self.size_bytes += len(body)
        return True

    def get(self) -> tuple[bytes, int]:
        """Take the oldest."""
        body, count = self._frames.popleft()
        self.size_bytes -= len(body)
        return body, count

    def clear(self) -> int:
        """Forget all; how many messages were in them."""
        messages = sum(count for _, count in self._frames)
        self._frames.clear()
        self.size_bytes = 0
        return messages


class LinkOwner(Owner, Protocol):
    """What a link asks of those who made it."""

    clock: IReactorTime
    random: Random
    dial: Dial

    def report(self) -> Report:
        """What this node says of itself."""

    def link_opened(self, link: Link) -> None:
        """Messages can be sent."""

    def link_has_room(self, link: Link) -> None:
        """All that waited was given to the transport, and it takes more."""

    def link_lost(self, link: Link) -> None:
        """The open connection is gone, by no doing of this node."""

    def nobody_listens(self, link: Link) -> None:
        """An attempt to dial that member was refused by its machine."""

    def dropped(self, link: Link) -> None:
        """Messages to that member were dropped."""


@implementer(IPushProducer)
class Link:
    """
    The way to one member.

    @ivar node_id: whose.
    @ivar url: where it is dialled.
    @ivar version: the protocol version that was last agreed on with that member, on a
        connection either way; 0 while none was.
    @ivar messages_sent: how many were given to the transport, ever.
    @ivar messages_dropped: how many were not, ever.
    @ivar bytes_sent: the bodies of their frames, ever.
    """

    def __init__(self, owner: LinkOwner, node_id: int, url: str) -> None:
        self.node_id = node_id
        self.url = url
        self.version = 0
        self.messages_sent = 0
        self.messages_dropped = 0
        self.bytes_sent = 0
        self._owner = owner
        self._control = _Queue(owner.settings.max_control_bytes)
        self._bulk = _Queue(owner.settings.max_queue_bytes)
        self._paused = False
        self._stopped = False
        self._attempts = 0
        self._opened_at = 0.0
        self._open: Connection | None = None
        self._dialled: Connection | None = None
        self._connecting: Deferred[IProtocol] | None = None
        self._retry: IDelayedCall | None = None

    @property
    def queued_bytes(self) -> int:
        """What waits to be written."""
        return self._control.size_bytes + self._bulk.size_bytes

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent now."""
        return self._open is not None and self._open.state is State.OPEN

    @property
    def round_trip_seconds(self) -> float | None:
        """How long a word takes to it and back; None where that is unknown."""
        if self._open is None:
            return None
        return round_trip_seconds(self._open.transport)

    def start(self) -> None:
        """Dial, and dial again whenever the connection is lost."""
        self._dial()

    def stop(self) -> None:
        """Close the connection and dial no more."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._dialled is not None:
            self._dialled.close()
        elif self._connecting is not None:
            self._connecting.cancel()

    def hurry(self) -> None:
        """The member is known to be there: do not wait to dial it."""
        if self._retry is not None:
            self._retry.reset(0)

    def send(self, messages: Sequence[Message]) -> None:
        """Write C{messages}, or queue them, or drop them."""
        if not self.is_open:
            self._drop(len(messages))
            return
        if self._paused:
            self._put(self._control, [m for m in messages if m.type not in BULK])
            self._put(self._bulk, [m for m in messages if m.type in BULK])
            return
        written = 0
        for body, count in encode_frames(messages):
            self._write(body, count)
            written += count
            if self._paused:
                if written < len(messages):
                    self.send(messages[written:])
                return

    def send_now(self, message: Message) -> bool:
        """Write C{message} if the transport has room; whether it was written."""
        if self._paused or not self.is_open:
            return False
        for body, count in encode_frames([message]):
            self._write(body, count)
        return True

    def _put(self, queue: _Queue, messages: Sequence[Message]) -> None:
        left = len(messages)
        for body, count in encode_frames(messages):
            if not queue.put(body, count):
                self._drop(left)
                return
            left -= count

    def pauseProducing(self) -> None:
        """The transport has enough for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport has written what it had."""
        self._paused = False
        while not self._paused:
            if self._control:
                self._write(*self._control.get())
            elif self._bulk:
                self._write(*self._bulk.get())
            else:
                self._owner.link_has_room(self)
                return

    def stopProducing(self) -> None:
        """The transport is gone; L{closed} follows."""

    def opened(self, connection: Connection) -> None:
        """The handshake is done."""
        self._open = connection
        self.version = connection.version
        self._opened_at = self._owner.now()
        connection.transport.registerProducer(  # type: ignore[attr-defined]
            self, True
        )
        self._owner.link_opened(self)
        self._send_report()

    def frame_received(self, kind: FrameType, body: bytes) -> None:
        """@raise ProtocolError: always; messages come by another connection."""
        raise ProtocolError(f"a {kind.name} frame against the direction")

    def tick(self, now: float) -> None:
        """Report of this node."""
        self._send_report()

    def closed(self, reason: str, ours: bool) -> None:
        """Forget what waited, and dial again."""
        was_open = self._open is not None
        self._dialled = self._open = None
        self._paused = False
        waited = self._control.clear() + self._bulk.clear()
        held = self._owner.now() - self._opened_at
        did_hold = was_open and held >= self._owner.settings.retry_most_seconds
        if did_hold:
            self._attempts = 0
        self.messages_dropped += waited
        if was_open and not ours:
            self._owner.link_lost(self)
        self._dial_later(reason, at_once=did_hold)

    def _write(self, body: bytes, count: int) -> None:
        assert self._open is not None, "frames are written while it is open"
        self.messages_sent += count
        self.bytes_sent += len(body)
        self._open.send_frame(FrameType.MESSAGES, body)

    def _send_report(self) -> None:
        # One that does not take what was sent has no use for the newest.
        if self.is_open and not self._paused:
            assert self._open is not None, "an open link without a connection"
            if self._open.version >= REPORT_VERSION:
                report = _comparable(self._owner.report(), self._open)
                self._open.send_frame(FrameType.REPORT, encode_report(report))

    def _drop(self, count: int) -> None:
        self.messages_dropped += count
        self._owner.dropped(self)

    def _dial(self) -> None:
        self._retry = None
        connection = Dialled(self._owner, self, self.node_id, Purpose.MESSAGES)
        try:
            endpoint = self._owner.dial(self.url)
        except ValueError as error:  # an earlier release may have let it in
            self._dial_later(str(error))
            return
        self._connecting = endpoint.connect(OneConnection(connection))
        self._connecting.addCallbacks(self._connected, self._failed)

    def _connected(self, connection: IProtocol) -> None:
        self._connecting = None
        assert isinstance(connection, Connection), "the one from OneConnection"
        if not connection.finished:
            self._dialled = connection

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        self._dial_later(failure.getErrorMessage())
        if failure.check(ConnectionRefusedError) and not self._stopped:
            self._owner.nobody_listens(self)

    def _dial_later(self, reason: str, *, at_once: bool = False) -> None:
        if self._stopped:
            return
        settings = self._owner.settings
        self._owner.complain(
            f"member {self.node_id}", f"no connection to {self.url}: {reason}"
        )
        wait = back_off(
            self._attempts,
            settings.retry_first_seconds,
            settings.retry_most_seconds,
            self._owner.random,
        )
        self._attempts += 1
        self._retry = self._owner.clock.callLater(0 if at_once else wait, self._dial)


class Inbox:
    """
    The messages that one member sends here.

    @param receive: is called with the messages of each frame.
    @param reported: is called with what that member says of itself.
    @param lost: is called when the connection is gone; with whether this side
        closed it.
    @ivar bytes_received: the bodies of its frames of messages, ever.
    """

    def __init__(
        self,
        node_id: int,
        own_id: int,
        receive: Callable[[int, list[Message]], None],
        reported: Callable[[int, Report], None],
        lost: Callable[[Inbox, bool], None],
        bytes_received: int = 0,
    ) -> None:
        self.node_id = node_id
        self.bytes_received = bytes_received
        self.connection: Connection | None = None
        self._own_id = own_id
        self._receive = receive
        self._reported = reported
        self._lost = lost

    def opened(self, connection: Connection) -> None:
        """The handshake is done."""
        self.connection = connection

    def frame_received(self, kind: FrameType, body: bytes) -> None:
        """@raise ProtocolError: it is not what that member may say."""
        if kind is FrameType.REPORT:
            assert self.connection is not None, "a frame before the handshake"
            report = _comparable(decode_report(body), self.connection)
            self._reported(self.node_id, report)
            return
        if kind is not FrameType.MESSAGES:
            raise ProtocolError(f"a {kind.name} frame among messages")
        self.bytes_received += len(body)
        messages = decode_messages(body)
        for message in messages:
            self._check(message)
        self._receive(self.node_id, messages)

    def tick(self, now: float) -> None:
        """Nothing is due."""

    def closed(self, reason: str, ours: bool) -> None:
        """The member is gone, or was replaced by a newer connection."""
        self._lost(self, ours)

    def _check(self, message: Message) -> None:
        kind, sender = message.type, message.from_
        if message.to != self._own_id:
            raise ProtocolError(f"a {kind.name} for member {message.to}")
        if sender != self.node_id and kind not in FORWARDED:
            raise ProtocolError(f"a {kind.name} in the name of member {sender}")
        if kind is MessageType.SNAP:
            raise ProtocolError("a SNAP among messages, without its data")
