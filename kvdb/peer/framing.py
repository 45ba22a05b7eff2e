"""
Frames: how the bytes between two members are cut into pieces to be trusted::

    0  4  length of the body, in bytes (all numbers are big-endian)
    4  1  type
    5  4  CRC-32C of the type byte and the body
    9  n  body

Rules:

* A frame whose length exceeds the limit is refused when its header is read,
  before memory is spent on it; and never more than one frame is held back.
* A frame whose checksum is wrong is never seen by anybody.  TCP's own sum is
  sixteen bits long and some network cards and boxes get it wrong.
* This layout is that of every protocol version: the handshake that agrees on
  a version travels in it.

What a body means is for others to say.
"""

from __future__ import annotations

import enum
import struct
from typing import Final, cast

from google_crc32c import extend, value
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol

HEADER: Final = struct.Struct(">IBI")

MAX_FRAME_BYTES: Final = 17 * 2**20
"""The longest body: one entry of 16 MiB, and room for what surrounds it."""

MAX_HELLO_BYTES: Final = 4096
"""The longest body before the other side is known to be a member."""

_TLS_HANDSHAKE: Final = 0x1603
"""What TLS begins with (RFC 8446, section 5.1): no frame is that long."""


class FrameType(enum.IntEnum):
    """What a frame's body is; the numbers are those on the wire."""

    HELLO = 1
    REFUSE = 2
    PING = 3
    MESSAGES = 4
    SNAPSHOT_BEGIN = 5
    SNAPSHOT_CHUNK = 6
    SNAPSHOT_END = 7
    SNAPSHOT_RESULT = 8
    REPORT = 9


class ProtocolError(Exception):
    """
    The other side sent what no peer of this protocol sends.

    @ivar reason: what was wrong, for people.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class FrameTooLong(ProtocolError):
    """
    A frame's header announces more than the limit.

    @ivar is_tls: it is the beginning of a TLS handshake.
    """

    def __init__(self, length: int, limit: int) -> None:
        super().__init__(f"a frame of {length} bytes; {limit} may be")
        self.is_tls = length >> 16 == _TLS_HANDSHAKE


_TYPES: Final = {
    int(kind): (kind, cast(int, value(bytes([kind])))) for kind in FrameType
}
"""Each type by its number, with the checksum of its byte."""


def encode_frame(kind: FrameType, body: bytes = b"") -> bytes:
    """
    @raise ValueError: the body is longer than L{MAX_FRAME_BYTES}.
    """
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"a {kind.name} frame of {len(body)} bytes is too long")
    return HEADER.pack(len(body), kind, extend(_TYPES[kind][1], body)) + body


class FrameParser:
    """
    Bytes in, frames out, whatever pieces the bytes come in.

    Each byte is copied a fixed number of times: L{bytes} that hold whole
    frames are read where they are, and a partial frame grows in one
    L{bytearray}.

    @ivar max_body: the longest body that is accepted, in bytes.
    """

    def __init__(self, max_body: int) -> None:
        self.max_body = max_body
        self._buffer: bytes | bytearray = b""
        self._offset = 0

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        buffer = self._buffer
        if self._offset == len(buffer):
            self._buffer = data
        elif isinstance(buffer, bytearray):
            del buffer[: self._offset]
            buffer += data
        else:
            self._buffer = bytearray(buffer[self._offset :])
            self._buffer += data
        self._offset = 0

    def next(self) -> tuple[FrameType, bytes] | None:
        """
        The next whole frame, or None until more has arrived.

        @raise FrameTooLong, ProtocolError: what follows can never be a frame;
            the parser is of no more use.
        """
        buffer, start = self._buffer, self._offset + HEADER.size
        if len(buffer) < start:
            return None
        length, number, checksum = HEADER.unpack_from(buffer, self._offset)
        if length > self.max_body:
            raise FrameTooLong(length, self.max_body)
        end = start + length
        if len(buffer) < end:
            return None
        if number not in _TYPES:
            raise ProtocolError(f"a frame of unknown type {number}")
        kind, seed = _TYPES[number]
        body = bytes(memoryview(buffer)[start:end])
        if extend(seed, body) != checksum:
            raise ProtocolError(f"a {kind.name} frame with a wrong checksum")
        self._offset = end
        return kind, body


class FrameProtocol(Protocol):
    """
    Frames over a transport.

    @ivar finished: nothing that arrives is looked at any more.
    @ivar held: frames wait, and no more bytes are read, until L{release}.
    """

    transport: ITCPTransport

    def __init__(self, max_body: int = MAX_FRAME_BYTES) -> None:
        self.parser = FrameParser(max_body)
        self.finished = False
        self.held = False

    def dataReceived(self, data: bytes) -> None:
        """Cut what has arrived into frames."""
        if not self.finished:
            self.parser.feed(data)
            self._deliver()

    def hold(self) -> None:
        """Deliver no frame until L{release}; the other side will wait."""
        self.held = True
        self.transport.pauseProducing()  # type: ignore[attr-defined]

    def release(self) -> None:
        """Undo L{hold}."""
        if self.held and not self.finished:
            self.held = False
            self.transport.resumeProducing()  # type: ignore[attr-defined]
            self._deliver()

    def send_frame(self, kind: FrameType, body: bytes = b"") -> None:
        """Write one frame."""
        self.transport.write(encode_frame(kind, body))

    def frame_received(self, kind: FrameType, body: bytes) -> None:
        """
        A whole frame with a right checksum has come.

        @raise ProtocolError: it should not have.
        """
        raise NotImplementedError

    def protocol_broken(self, error: ProtocolError) -> None:
        """What came is no frame, or should not have: close the connection."""
        raise NotImplementedError

    def _deliver(self) -> None:
        try:
            while not (self.held or self.finished):
                frame = self.parser.next()
                if frame is None:
                    return
                self.frame_received(*frame)
        except ProtocolError as error:
            self.finished = True
            self.protocol_broken(error)
