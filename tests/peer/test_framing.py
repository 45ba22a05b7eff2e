"""Frames, in whatever pieces they come."""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kvdb.peer.framing import (
    HEADER,
    MAX_FRAME_BYTES,
    FrameParser,
    FrameProtocol,
    FrameTooLong,
    FrameType,
    ProtocolError,
    encode_frame,
)

frames = st.tuples(st.sampled_from(FrameType), st.binary(max_size=300))


def parse(parser: FrameParser) -> list[tuple[FrameType, bytes]]:
    found = []
    while (frame := parser.next()) is not None:
        found.append(frame)
    return found


class Recorder(FrameProtocol):
    def __init__(self, hold_at: int = -1) -> None:
        super().__init__()
        self.frames: list[tuple[FrameType, bytes]] = []
        self.errors: list[ProtocolError] = []
        self.hold_at = hold_at

    def frame_received(self, kind: FrameType, body: bytes) -> None:
        self.frames.append((kind, body))
        if len(self.frames) == self.hold_at:
            self.hold()
        if body == b"bad":
            raise ProtocolError("not that")

    def protocol_broken(self, error: ProtocolError) -> None:
        self.errors.append(error)


def connect(protocol: FrameProtocol) -> StringTransport:
    transport = StringTransport()
    wire: Any = transport
    protocol.makeConnection(wire)
    return transport


class Parsing(SynchronousTestCase):
    def test_a_frame_is_laid_out_as_documented(self) -> None:
        frame = encode_frame(FrameType.MESSAGES, b"123456789")
        self.assertEqual(frame[:5], b"\0\0\0\x09\x04")
        self.assertEqual(frame[9:], b"123456789")

    def test_the_checksum_is_crc_32c_of_type_and_body(self) -> None:
        # The check value of CRC-32C is that of the digits 1 to 9; the type of
        # the frame stands before them, so it is computed here bit by bit.
        register = 0xFFFFFFFF
        for byte in b"\x04123456789":
            register ^= byte
            for _ in range(8):
                register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
        frame = encode_frame(FrameType.MESSAGES, b"123456789")
        self.assertEqual(frame[5:9], struct.pack(">I", register ^ 0xFFFFFFFF))

    @settings(deadline=None, max_examples=150)
    @given(st.lists(frames, max_size=8), st.data())
    def test_frames_come_out_however_they_are_cut(
        self, sent: list[tuple[FrameType, bytes]], data: st.DataObject
    ) -> None:
        stream = b"".join(encode_frame(*frame) for frame in sent)
        cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
        edges = [0, *sorted(cuts), len(stream)]
        parser, got = FrameParser(1000), []
        for start, end in pairwise(edges):
            parser.feed(stream[start:end])
            if data.draw(st.booleans()):
                got += parse(parser)
        self.assertEqual(got + parse(parser), sent)

    def test_frames_come_out_byte_by_byte(self) -> None:
        sent = [(kind, bytes(range(kind * 9))) for kind in FrameType]
        parser, got = FrameParser(1000), []
        for byte in b"".join(encode_frame(*frame) for frame in sent):
            parser.feed(bytes([byte]))
            got += parse(parser)
        self.assertEqual(got, sent)

    def test_a_body_at_the_limit_is_taken(self) -> None:
        parser = FrameParser(10)
        parser.feed(encode_frame(FrameType.PING, bytes(10)))
        self.assertEqual(parser.next(), (FrameType.PING, bytes(10)))

    def test_a_longer_frame_is_refused_on_its_header_alone(self) -> None:
        parser = FrameParser(10)
        parser.feed(encode_frame(FrameType.PING, bytes(11))[: HEADER.size])
        self.assertRaises(FrameTooLong, parser.next)

    def test_what_cannot_be_received_is_not_sent(self) -> None:
        too_long = bytes(MAX_FRAME_BYTES + 1)
        self.assertRaises(ValueError, encode_frame, FrameType.PING, too_long)

    def test_an_unknown_type_is_refused(self) -> None:
        parser = FrameParser(10)
        parser.feed(HEADER.pack(0, 99, 0))
        self.assertRaises(ProtocolError, parser.next)

    def test_no_flipped_bit_comes_through(self) -> None:
        frame = encode_frame(FrameType.MESSAGES, b"ballot")
        for bit in range(8 * len(frame)):
            broken = bytearray(frame)
            broken[bit // 8] ^= 1 << bit % 8
            parser = FrameParser(MAX_FRAME_BYTES)
            parser.feed(bytes(broken))
            try:
                self.assertIsNone(parser.next(), "it waits for a longer frame")
            except ProtocolError:
                pass

    @settings(deadline=None, max_examples=150)
    @given(st.lists(st.binary(max_size=40), max_size=10))
    def test_any_bytes_are_frames_or_an_error(self, pieces: list[bytes]) -> None:
        parser = FrameParser(1000)
        try:
            for piece in pieces:
                parser.feed(piece)
                parse(parser)
        except ProtocolError:
            pass


class Protocols(SynchronousTestCase):
    def test_frames_sent_by_one_are_received_by_another(self) -> None:
        sender, receiver = Recorder(), Recorder()
        wire = connect(sender)
        connect(receiver)
        sender.send_frame(FrameType.PING)
        sender.send_frame(FrameType.MESSAGES, b"x")
        receiver.dataReceived(wire.value())
        self.assertEqual(
            receiver.frames, [(FrameType.PING, b""), (FrameType.MESSAGES, b"x")]
        )

    def test_after_a_broken_frame_nothing_is_looked_at(self) -> None:
        receiver = Recorder()
        connect(receiver)
        receiver.dataReceived(encode_frame(FrameType.PING, b"bad") * 2)
        receiver.dataReceived(encode_frame(FrameType.PING, b"good"))
        self.assertEqual(receiver.frames, [(FrameType.PING, b"bad")])
        self.assertEqual([e.reason for e in receiver.errors], ["not that"])

    def test_while_held_frames_wait_and_nothing_is_read(self) -> None:
        receiver = Recorder(hold_at=1)
        wire = connect(receiver)
        bodies = [b"1", b"2", b"3"]
        receiver.dataReceived(b"".join(encode_frame(FrameType.PING, b) for b in bodies))
        self.assertEqual([body for _, body in receiver.frames], [b"1"])
        self.assertEqual(wire.producerState, "paused")
        receiver.release()
        self.assertEqual([body for _, body in receiver.frames], bodies)
        self.assertEqual(wire.producerState, "producing")

    def test_a_release_without_hold_does_nothing(self) -> None:
        receiver = Recorder()
        connect(receiver)
        receiver.release()
        self.assertEqual(receiver.frames, [])
