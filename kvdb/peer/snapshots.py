"""
A snapshot's way to a member that is too far behind, on its own connection.

The sender's frames, and the one that answers::

    SNAPSHOT_BEGIN   the SNAP message, as the codec writes it
    SNAPSHOT_CHUNK   bytes of the state, at least one; any number of frames
    SNAPSHOT_END     how many bytes that was (8), CRC-32C of them all (4)
    SNAPSHOT_RESULT  code (1), length of the text (2), text in UTF-8

Rules:

* Heartbeats never wait behind a snapshot: they have their own connection.
* The sender reads the next chunk when the transport has written the last one;
  the receiver reads no more while its sink is busy.  Each side holds a few
  chunks in memory, however large the state and however slow the other side.
* The receiver answers once: early when it does not want the snapshot, or when
  it is installed.  Only "installed" is success; a connection lost is not.
* A receiver takes one snapshot at a time.

It never looks into the state, and never gives the SNAP to the core: the node
does, from its sink, once the state is there.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from google_crc32c import extend
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kvdb.peer.codec import decode_messages, encode_message
from kvdb.peer.connection import Connection, Owner
from kvdb.peer.framing import FrameType, ProtocolError
from kvdb.raft.messages import Message, MessageType

MAX_CHUNK_BYTES: Final = 33 * 2**19
"""The most that one SNAPSHOT_CHUNK carries: more than the longest value, with what
stands before it."""

MAX_RESULT_BYTES: Final = 1024
"""The longest text of a result; the rest is cut off."""

_END: Final = struct.Struct(">QI")
_RESULT: Final = struct.Struct(">BH")

log = Logger(namespace="kvdb.peer")


class ResultCode(enum.IntEnum):
    """How a snapshot ended; the numbers are those on the wire."""

    INSTALLED = 0
    BUSY = 1
    """Another snapshot is being received."""
    REFUSED = 2
    """The receiver does not want it."""
    FAILED = 3
    """The receiver wanted it, and something went wrong."""


class SnapshotFailed(Exception):
    """A snapshot did not arrive, or was not installed; the text says why."""


class SnapshotRefused(Exception):
    """Raised by a node that does not want a snapshot; the text says why."""


class SnapshotSink(Protocol):
    """
    Where a received snapshot goes.

    Either L{finish} or L{abort} is called, once, and nothing after it.  None
    for a Deferred is the same as one that has fired.
    """

    def chunk(self, data: bytes) -> Deferred[None] | None:
        """Take the next piece; no other comes before the Deferred fires."""

    def finish(self) -> Deferred[None] | None:
        """All pieces have come: install them.  Fires once that is done."""

    def abort(self) -> None:
        """No more will come: forget the pieces."""


def encode_result(code: ResultCode, text: str) -> bytes:
    """The body of a SNAPSHOT_RESULT frame."""
    encoded = text.encode("utf-8", "replace")[:MAX_RESULT_BYTES]
    return _RESULT.pack(code, len(encoded)) + encoded


def decode_result(body: bytes) -> tuple[ResultCode, str]:
    """@raise ProtocolError: it is none."""
    if len(body) < _RESULT.size:
        raise ProtocolError(f"a SNAPSHOT_RESULT of {len(body)} bytes")
    number, length = _RESULT.unpack_from(body)
    text = body[_RESULT.size :]
    known = number in ResultCode._value2member_map_
    if not known or len(text) != length or length > MAX_RESULT_BYTES:
        raise ProtocolError(f"a SNAPSHOT_RESULT of code {number}, length {length}")
    return ResultCode(number), text.decode("utf-8", "replace")


@implementer(IPullProducer)
class SnapshotSender:
    """
    One snapshot on its way out.

    @ivar to: the receiver's node id.
    @ivar done: fires when the receiver has installed the snapshot; fails with
        L{SnapshotFailed}, or with what reading the chunks raised.  No chunk is
        asked for after that.
    @ivar started_at: when, by the clock, in seconds.
    @ivar bytes_sent: how much of the state was given to the transport.
    """

    def __init__(
        self, owner: Owner, to: int, message: Message, chunks: Iterator[bytes]
    ) -> None:
        """
        @param message: a SNAP for C{to}.
        @param chunks: the state, in pieces of at most L{MAX_CHUNK_BYTES}.
        """
        assert message.type is MessageType.SNAP and message.to == to
        self.to = to
        self.done: Deferred[None] = Deferred()
        self.started_at = owner.now()
        self.bytes_sent = 0
        self._owner = owner
        self._begin = encode_message(message)
        self._chunks = chunks
        self._checksum = 0
        self._connection: Connection | None = None
        self._progress_at = self.started_at
        self._ended = False
        self._over = False

    def opened(self, connection: Connection) -> None:
        """The handshake is done: begin."""
        self._connection = connection
        self._progress_at = self._owner.now()
        connection.send_frame(FrameType.SNAPSHOT_BEGIN, self._begin)
        connection.transport.registerProducer(  # type: ignore[attr-defined]
            self, False
        )

    def resumeProducing(self) -> None:
        """The transport has written the last chunk: read the next."""
        self._progress_at = self._owner.now()
        try:
            chunk = next(self._chunks, b"")
            if len(chunk) > MAX_CHUNK_BYTES:
                raise ValueError(f"a snapshot chunk of {len(chunk)} bytes")
        except Exception:
            self._settle(Failure())
            return
        assert self._connection is not None, "only a transport asks for chunks"
        if chunk:
            self._checksum = extend(self._checksum, chunk)
            self.bytes_sent += len(chunk)
            self._connection.send_frame(FrameType.SNAPSHOT_CHUNK, chunk)
            return
        self._ended = True
        transport = self._connection.transport
        transport.unregisterProducer()  # type: ignore[attr-defined]
        end = _END.pack(self.bytes_sent, self._checksum)
        self._connection.send_frame(FrameType.SNAPSHOT_END, end)

    def stopProducing(self) -> None:
        """The transport is gone; L{closed} follows."""

    def frame_received(self, kind: FrameType, body: bytes) -> None:
        """The result."""
        if kind is not FrameType.SNAPSHOT_RESULT:
            raise ProtocolError(f"a {kind.name} frame against the direction")
        code, text = decode_result(body)
        if code is not ResultCode.INSTALLED:
            self.abort(f"member {self.to} answers {code.name.lower()}: {text}")
        elif not self._ended:
            raise ProtocolError("a snapshot installed before it was sent")
        else:
            self._settle(None)

    def tick(self, now: float) -> None:
        """Give up when nothing has moved for too long."""
        settings = self._owner.settings
        bound = (
            settings.snapshot_install_seconds
            if self._ended
            else settings.snapshot_progress_seconds
        )
        if now - self._progress_at >= bound:
            self.abort(f"no progress for {bound:g} s")

    def closed(self, reason: str, ours: bool) -> None:
        """The connection is gone: a failure, unless the result came first."""
        self._connection = None
        self.abort(reason)

    def abort(self, reason: str) -> None:
        """Give up; does nothing when it is over."""
        self._settle(Failure(SnapshotFailed(reason)))

    def _settle(self, failure: Failure | None) -> None:
        if self._over:
            return
        self._over = True
        connection = self._connection
        if failure is None:
            if connection is not None:
                connection.close()
            self.done.callback(None)
        else:
            if connection is not None:
                connection.abort()  # the chunk under way is of no use
            self.done.errback(failure)


class SnapshotReceiver:
    """
    One snapshot on its way in.

    @ivar from_id: the sender's node id.
    @ivar started_at: when, by the clock, in seconds.
    @ivar bytes_received: how much of the state was given to the sink.
    """

    def __init__(
        self,
        owner: Owner,
        from_id: int,
        own_id: int,
        claim: Callable[[SnapshotReceiver], bool],
        begin: Callable[[Message], SnapshotSink],
    ) -> None:
        """
        @param claim: whether this may be the one that receives now.
        @param begin: makes the sink, or raises L{SnapshotRefused}.
        """
        self.from_id = from_id
        self.started_at = owner.now()
        self.bytes_received = 0
        self._owner = owner
        self._own_id = own_id
        self._claim = claim
        self._begin = begin
        self._checksum = 0
        self._progress_at = self.started_at
        self._connection: Connection | None = None
        self._sink: SnapshotSink | None = None
        self._finishing = False

    @property
    def is_busy(self) -> bool:
        """Whether its sink is in use."""
        return self._sink is not None

    def opened(self, connection: Connection) -> None:
        """The handshake is done."""
        self._connection = connection

    def frame_received(self, kind: FrameType, body: bytes) -> None:
        """@raise ProtocolError: it is not what comes next."""
        self._progress_at = self._owner.now()
        if kind is FrameType.SNAPSHOT_BEGIN and self._sink is None:
            self._take_begin(body)
        elif self._sink is None or self._finishing:
            raise ProtocolError(f"a {kind.name} frame out of place")
        elif kind is FrameType.SNAPSHOT_CHUNK and 0 < len(body) <= MAX_CHUNK_BYTES:
            self._take_chunk(self._sink, body)
        elif kind is FrameType.SNAPSHOT_END and len(body) == _END.size:
            self._take_end(self._sink, body)
        else:
            raise ProtocolError(f"a {kind.name} frame of {len(body)} bytes")

    def tick(self, now: float) -> None:
        """Give up when nothing has come for too long, though it could."""
        bound = self._owner.settings.snapshot_progress_seconds
        assert self._connection is not None, "only an open connection ticks"
        if self._finishing or self._connection.held:
            self._progress_at = now
        elif now - self._progress_at >= bound:
            self._fail(ResultCode.FAILED, f"no progress for {bound:g} s")

    def closed(self, reason: str, ours: bool) -> None:
        """The sender is gone; what is being installed goes on."""
        self._connection = None
        if not self._finishing:
            self._forget()

    def _take_begin(self, body: bytes) -> None:
        messages = decode_messages(body)
        message = messages[0]
        if len(messages) != 1 or message.type is not MessageType.SNAP:
            raise ProtocolError("a snapshot that begins without its message")
        if message.snapshot is None or message.entries:
            raise ProtocolError("a SNAP without a snapshot, or with entries")
        if (message.to, message.from_) != (self._own_id, self.from_id):
            raise ProtocolError(f"a SNAP from {message.from_} for {message.to}")
        if not self._claim(self):
            self._fail(ResultCode.BUSY, "another snapshot is being received")
            return
        try:
            self._sink = self._begin(message)
        except SnapshotRefused as refusal:
            self._fail(ResultCode.REFUSED, str(refusal))
        except Exception:
            self._sink_failed(Failure())

    def _take_chunk(self, sink: SnapshotSink, body: bytes) -> None:
        self._checksum = extend(self._checksum, body)
        self.bytes_received += len(body)
        try:
            taken = sink.chunk(body)
        except Exception:
            self._sink_failed(Failure())
            return
        if taken is None:
            return
        if not taken.called:
            assert self._connection is not None, "frames come by a connection"
            self._connection.hold()
        taken.addCallbacks(self._chunk_taken, self._sink_failed)

    def _chunk_taken(self, _: None) -> None:
        if self._connection is not None:
            self._connection.release()

    def _take_end(self, sink: SnapshotSink, body: bytes) -> None:
        if _END.unpack(body) != (self.bytes_received, self._checksum):
            self._fail(
                ResultCode.FAILED,
                f"{self.bytes_received} bytes came; their number or their"
                " checksum is not that of what was sent",
            )
            return
        self._finishing = True
        try:
            finished = sink.finish()
        except Exception:
            self._sink_failed(Failure())
            return
        if finished is None:
            self._installed(None)
        else:
            finished.addCallbacks(self._installed, self._sink_failed)

    def _installed(self, _: None) -> None:
        self._sink = None
        self._answer(ResultCode.INSTALLED, "")

    def _sink_failed(self, failure: Failure) -> None:
        if self._sink is None and failure.check(CancelledError) is not None:
            return  # what was aborted may cancel what it was doing
        log.failure(
            "the snapshot from member {node} failed", failure, node=self.from_id
        )
        self._fail(ResultCode.FAILED, failure.getErrorMessage())

    def _fail(self, code: ResultCode, text: str) -> None:
        self._forget()
        self._answer(code, text)

    def _forget(self) -> None:
        """Abort the sink, unless it has been told to finish."""
        sink, self._sink = self._sink, None
        if sink is not None and not self._finishing:
            sink.abort()

    def _answer(self, code: ResultCode, text: str) -> None:
        if self._connection is not None:
            self._connection.part(FrameType.SNAPSHOT_RESULT, encode_result(code, text))
