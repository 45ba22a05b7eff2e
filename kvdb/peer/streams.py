"""
Snapshots, each over a connection of its own, so that heartbeats never wait.

::

    sender                                  receiver
    SNAPSHOT_BEGIN   the MsgSnap        ->
    SNAPSHOT_CHUNK   bytes              ->  as many as the sink takes
    SNAPSHOT_END                        ->  finish
                                        <-  SNAPSHOT_RESULT  0 and nothing, or
                                            1 and why it was not taken

Rules: the next chunk is made when the transport has written the one before, so
a snapshot of any size takes the memory of a chunk; a node receives one at a
time; without progress for a while a side gives up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.logger import Logger
from zope.interface import implementer

from kvdb.peer.codec import decode_messages, encode_message
from kvdb.peer.connection import Connection, PeerSettings
from kvdb.peer.framing import FrameType, ProtocolError
from kvdb.raft.messages import Message, MessageType

log = Logger(namespace="kvdb.peer")


class SnapshotFailed(Exception):
    """The receiver does not have the snapshot, as far as is known."""


class SnapshotSink(Protocol):
    """What takes a snapshot in."""

    def chunk(self, data: bytes) -> None:
        """The next chunk."""

    def finish(self) -> None:
        """All chunks have come; take the snapshot."""

    def abort(self) -> None:
        """No more will come; called at most once, and not after C{finish}."""


@implementer(IPullProducer)
class Outgoing:
    """
    The sending side.

    @ivar done: fires once the receiver has taken the snapshot.
    @ivar bytes_sent: of chunks.
    """

    def __init__(
        self,
        message: Message,
        chunks: Iterator[bytes],
        settings: PeerSettings,
        now: Callable[[], float],
    ) -> None:
        self.done: Deferred[None] = Deferred()
        self.bytes_sent = 0
        self._message = message
        self._chunks = chunks
        self._settings = settings
        self._now = now
        self._connection: Connection | None = None
        self._progress_at = now()
        self._all_sent = False
        self._settled = False

    def opened(self, connection: Connection) -> None:
        """Begin."""
        self._connection = connection
        self._progress_at = self._now()
        connection.send_frame(FrameType.SNAPSHOT_BEGIN, encode_message(self._message))
        connection.transport.registerProducer(  # type: ignore[attr-defined]
            self, False
        )

    def resumeProducing(self) -> None:
        """The transport has room: one more chunk."""
        connection = self._connection
        assert connection is not None, "chunks are asked for before it is open"
        if self._all_sent or self._settled:
            return
        self._progress_at = self._now()
        chunk = next(self._chunks, None)
        if chunk is not None:
            self.bytes_sent += len(chunk)
            connection.send_frame(FrameType.SNAPSHOT_CHUNK, chunk)
            return
        self._all_sent = True
        connection.transport.unregisterProducer()  # type: ignore[attr-defined]
        connection.send_frame(FrameType.SNAPSHOT_END)

    def stopProducing(self) -> None:
        """The transport is gone; L{closed} follows."""

    def frame_received(self, kind: FrameType, body: bytes) -> None:
        """The receiver's result."""
        if kind is not FrameType.SNAPSHOT_RESULT or not body:
            raise ProtocolError(f"a {kind.name} frame where a result must be")
        if body[0] == 0 and self._all_sent:
            self._settle(None)
        else:
            self._settle(body[1:].decode("utf-8", "replace"))
        assert self._connection is not None, "a frame on no connection"
        self._connection.close()

    def tick(self, now: float) -> None:
        """Give up without progress."""
        waited = now - self._progress_at
        patience = (
            self._settings.snapshot_install_seconds
            if self._all_sent
            else self._settings.snapshot_progress_seconds
        )
        if waited >= patience and self._connection is not None:
            self._settle(f"no progress for {waited:.0f} s")
            self._connection.abort()

    def closed(self, reason: str, ours: bool) -> None:
        """The connection is gone."""
        self._settle(reason)

    def failed(self, reason: str) -> None:
        """There was no connection."""
        self._settle(reason)

    def _settle(self, reason: str | None) -> None:
        if self._settled:
            return
        self._settled = True
        if reason is None:
            self.done.callback(None)
        else:
            self.done.errback(SnapshotFailed(reason))


class Incoming:
    """
    The receiving side.

    @param begin: makes the sink for a message; raises L{SnapshotFailed} where
        it is not wanted.
    @param gone: is called when this receives no more.
    """

    def __init__(
        self,
        node_id: int,
        own_id: int,
        begin: Callable[[Message], SnapshotSink],
        gone: Callable[[Incoming], None],
        settings: PeerSettings,
        now: Callable[[], float],
    ) -> None:
        self.node_id = node_id
        self._own_id = own_id
        self._begin = begin
        self._gone = gone
        self._settings = settings
        self._now = now
        self._connection: Connection | None = None
        self._sink: SnapshotSink | None = None
        self._progress_at = now()

    def opened(self, connection: Connection) -> None:
        """Wait for the beginning."""
        self._connection = connection
        self._progress_at = self._now()

    def frame_received(self, kind: FrameType, body: bytes) -> None:
        """
        A part of the stream.

        @raise ProtocolError: it is not in its place.
        """
        self._progress_at = self._now()
        if kind is FrameType.SNAPSHOT_BEGIN and self._sink is None:
            message = self._read_begin(body)
            self._attempt(lambda: self._take_begin(message))
        elif kind is FrameType.SNAPSHOT_CHUNK and self._sink is not None:
            sink = self._sink
            self._attempt(lambda: sink.chunk(body))
        elif kind is FrameType.SNAPSHOT_END and self._sink is not None:
            self._attempt(self._finish)
        else:
            raise ProtocolError(f"a {kind.name} frame out of place")

    def _read_begin(self, body: bytes) -> Message:
        messages = decode_messages(body)
        message = messages[0]
        if (
            len(messages) != 1
            or message.type is not MessageType.SNAP
            or message.snapshot is None
            or message.to != self._own_id
            or message.from_ != self.node_id
        ):
            raise ProtocolError("a SNAPSHOT_BEGIN that begins no snapshot for us")
        return message

    def _take_begin(self, message: Message) -> None:
        self._sink = self._begin(message)

    def _finish(self) -> None:
        sink, self._sink = self._sink, None
        assert sink is not None, "an end without a beginning"
        sink.finish()
        self._part(b"\0")

    def _attempt(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever it is, the sender must hear of it
            log.failure("the snapshot from member {node} failed", node=self.node_id)
            self._drop()
            self._part(b"\1" + str(error).encode()[:1000])

    def _part(self, result: bytes) -> None:
        assert self._connection is not None, "a result on no connection"
        self._connection.part(FrameType.SNAPSHOT_RESULT, result)

    def tick(self, now: float) -> None:
        """Give up without progress."""
        waited = now - self._progress_at
        if waited >= self._settings.snapshot_progress_seconds:
            assert self._connection is not None, "it is open"
            self._connection.note(f"no progress for {waited:.0f} s")
            self._connection.abort()

    def closed(self, reason: str, ours: bool) -> None:
        """The connection is gone."""
        self._drop()
        self._gone(self)

    def _drop(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.abort()
