"""Snapshots, each over a connection of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvdb.peer.codec import encode_message
from kvdb.peer.connection import PeerSettings
from kvdb.peer.framing import FrameType, ProtocolError
from kvdb.peer.snapshots import (
    MAX_CHUNK_BYTES,
    MAX_RESULT_BYTES,
    ResultCode,
    SnapshotFailed,
    decode_result,
    encode_result,
)
from kvdb.raft.messages import ConfState, Entry, Message, MessageType, Snapshot
from tests.peer.network import Member, Network, Sink, heartbeat, host

STATE = [bytes([n]) * 100_000 for n in range(10)]


def snap(from_: int = 1, to: int = 2) -> Message:
    snapshot = Snapshot(9, 3, ConfState(voters=(1, 2)))
    return Message(MessageType.SNAP, to, from_, term=3, snapshot=snapshot)


class DiskBroke(Exception):
    """What a sink or a source of chunks may raise."""


class Streaming(SynchronousTestCase):
    """Member 1 sends, member 2 receives, member 3 looks on."""

    def setUp(self) -> None:
        self.network = Network()
        self.a, self.b, self.c = (
            Member(self.network, node, members=(1, 2, 3)).start() for node in (1, 2, 3)
        )
        self.network.run(1.0)
        self.sink = Sink()
        self.b.sink = self.sink
        self.read = 0

    def source(self, chunks: Iterable[bytes] = STATE) -> Iterator[bytes]:
        for chunk in chunks:
            self.read += 1
            yield chunk

    def send(
        self, chunks: Iterable[bytes] = STATE, sender: Member | None = None
    ) -> Deferred[None]:
        sender = sender or self.a
        return sender.peers.send_snapshot(2, snap(sender.node), self.source(chunks))

    def failed(self, sent: Deferred[None], *parts: str) -> None:
        failure = self.failureResultOf(sent, SnapshotFailed)
        for part in parts:
            self.assertIn(part, failure.getErrorMessage())

    def wire(self) -> Any:
        """The sender's end of the snapshot's connection."""
        ends = self.network.ends(host(1), host(2))
        (end,) = [t for t in ends if t.producer and not t.streaming]
        return end

    def idle(self) -> None:
        """Nothing is under way, and the next snapshot finds its way."""
        self.network.run(3.0)
        self.assertEqual(dict(self.a.peers.snapshots_sending), {})
        self.assertIsNone(self.b.peers.snapshot_receiving)
        self.b.sink = Sink()
        again = self.send([b"again"])
        self.network.run()
        self.successResultOf(again)
        self.assertEqual(self.b.sink.data, b"again")


class Success(Streaming):
    def test_the_state_arrives_whole_and_the_message_first(self) -> None:
        sent = self.send()
        self.network.run()
        self.successResultOf(sent)
        self.assertEqual(self.b.offers, [snap()])
        self.assertEqual(self.sink.data, b"".join(STATE))
        self.assertTrue(self.sink.finished)
        self.idle()

    def test_an_empty_state_arrives_too(self) -> None:
        sent = self.send([])
        self.network.run()
        self.successResultOf(sent)
        self.assertTrue(self.sink.finished)

    def test_it_arrives_in_whatever_pieces_the_network_makes(self) -> None:
        self.network.piece_bytes = 999
        sent = self.send()
        self.network.run()
        self.successResultOf(sent)
        self.assertEqual(self.sink.data, b"".join(STATE))

    def test_success_is_told_when_it_is_installed_not_before(self) -> None:
        installing: Deferred[None] = Deferred()
        self.sink.finishing = lambda: installing
        sent = self.send()
        self.network.run(60.0)
        self.assertNoResult(sent)
        installing.callback(None)
        self.network.run()
        self.successResultOf(sent)
        self.idle()

    def test_its_connection_is_closed_then(self) -> None:
        before = len(self.network.transports)
        self.send()
        self.network.run()
        self.assertEqual(len(self.network.transports), before)

    def test_progress_can_be_watched(self) -> None:
        taking: Deferred[None] = Deferred()
        self.sink.taking = lambda: taking
        now = self.network.now()
        self.send()
        self.network.run()
        out = self.a.peers.snapshots_sending[2]
        into = self.b.peers.snapshot_receiving
        assert into is not None, "it is under way"
        self.assertEqual((out.started_at, into.started_at), (now, now))
        self.assertEqual((into.from_id, into.bytes_received), (1, 100_000))
        self.assertGreater(out.bytes_sent, 100_000)


class BackPressure(Streaming):
    def test_a_slow_sink_makes_the_sender_wait(self) -> None:
        waiting: list[Deferred[None]] = []

        def taking() -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        self.sink.taking = taking
        sent = self.send()
        for taken in range(1, len(STATE) + 1):
            self.network.run()
            self.assertEqual(self.sink.chunks, taken)
            self.assertLessEqual(self.read, taken + 2)
            waiting.pop().callback(None)
        self.network.run()
        self.successResultOf(sent)

    def test_a_slow_network_does_too(self) -> None:
        self.network.latency = 0.01
        self.send()
        for _ in range(30):
            self.network.run(0.01)
            self.assertLessEqual(self.read, self.sink.chunks + 1)
        self.assertGreater(self.read, 3)

    def test_heartbeats_do_not_wait_behind_it(self) -> None:
        self.sink.taking = Deferred
        self.send()
        self.network.run()
        self.a.say(2, heartbeat(1, 2))
        self.network.run()
        self.assertEqual(len(self.b.received), 1)

    def test_a_sink_that_takes_its_time_is_not_taken_for_dead(self) -> None:
        waiting: list[Deferred[None]] = []

        def taking() -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        self.sink.taking = taking
        sent = self.send(STATE[:2])
        self.network.run(25.0)
        waiting.pop().callback(None)
        self.network.run(25.0)
        waiting.pop().callback(None)
        self.network.run()
        self.successResultOf(sent)

    def test_it_does_not_count_against_the_sender(self) -> None:
        impatient = PeerSettings(snapshot_progress_seconds=5.0)
        d = Member(self.network, 4, members=(1, 4), settings=impatient).start()
        self.a.know(1, 2, 3, 4)
        self.network.run(1.0)
        taking: Deferred[None] = Deferred()
        assert d.sink is not None
        d.sink.taking = lambda: taking
        sent = self.a.peers.send_snapshot(4, snap(to=4), self.source(STATE[:1]))
        self.network.run(20.0)
        taking.callback(None)
        self.network.run()
        self.successResultOf(sent)


class Refusal(Streaming):
    def test_one_at_a_time(self) -> None:
        self.sink.taking = Deferred
        first = self.send()
        self.network.run()
        second = self.send(sender=self.c)
        self.network.run()
        self.failed(second, "busy", "another snapshot")
        self.assertNoResult(first)
        self.assertFalse(self.sink.aborted)

    def test_it_is_busy_until_what_was_received_is_installed(self) -> None:
        installing: Deferred[None] = Deferred()
        self.sink.finishing = lambda: installing
        self.send().addErrback(lambda _: None)
        self.network.run()
        for wire in self.network.ends(host(1), host(2)):
            wire.abortConnection()
        self.network.run(1.0)
        second = self.send(sender=self.c)
        self.network.run()
        self.failed(second, "busy")
        installing.callback(None)
        self.idle()

    def test_a_node_may_not_want_it(self) -> None:
        self.b.sink = None
        sent = self.send()
        self.network.run()
        self.failed(sent, "refused", "not now")
        self.assertLess(self.read, len(STATE))
        self.idle()

    def test_one_to_each_member(self) -> None:
        self.sink.taking = Deferred
        self.send()
        self.failed(self.send(), "member 2")

    def test_none_to_who_is_not_known(self) -> None:
        sent = self.a.peers.send_snapshot(7, snap(to=7), self.source())
        self.failed(sent, "member 7")
        self.assertEqual(self.read, 0)

    def test_none_to_where_nobody_can_dial(self) -> None:
        # Earlier releases have let such URLs in.
        self.a.know(1, 2, 3, 4, urls={4: "http://[::1"})
        sent = self.a.peers.send_snapshot(4, snap(to=4), self.source())
        self.failed(sent, "cannot be dialled")
        self.assertEqual(dict(self.a.peers.snapshots_sending), {})

    def test_none_while_stopped(self) -> None:
        self.a.peers.stopService()
        self.failed(self.send())


class Failing(Streaming):
    def test_a_sink_that_raises_fails_the_snapshot(self) -> None:
        def broken() -> None:
            raise DiskBroke("no space")

        self.sink.taking = broken
        sent = self.send()
        self.network.run()
        self.failed(sent, "failed", "no space")
        self.assertTrue(self.sink.aborted)
        self.assertEqual(len(self.flushLoggedErrors(DiskBroke)), 1)
        self.idle()

    def test_a_sink_that_fails_later_does_too(self) -> None:
        taking: Deferred[None] = Deferred()
        self.sink.taking = lambda: taking
        sent = self.send()
        self.network.run()
        taking.errback(Failure(DiskBroke("no space")))
        self.network.run()
        self.failed(sent, "no space")
        self.assertEqual(len(self.network.ends(host(2), host(1))), 2)
        self.assertTrue(self.sink.aborted)
        self.assertEqual(len(self.flushLoggedErrors(DiskBroke)), 1)
        self.idle()

    def test_an_install_that_fails_is_told_and_not_aborted(self) -> None:
        def later() -> Deferred[None]:
            failed: Deferred[None] = Deferred()
            failed.errback(Failure(DiskBroke("no rename")))
            return failed

        def now() -> None:
            raise DiskBroke("no rename")

        for finishing in (later, now):
            self.b.sink = sink = Sink()
            sink.finishing = finishing
            sent = self.send()
            self.network.run()
            self.failed(sent, "no rename")
            self.assertFalse(sink.aborted)
        self.assertEqual(len(self.flushLoggedErrors(DiskBroke)), 2)
        self.idle()

    def test_a_node_that_breaks_at_the_offer_fails_the_snapshot(self) -> None:
        def begin_snapshot(message: Message) -> Sink:
            raise DiskBroke("no directory")

        self.patch(self.b, "begin_snapshot", begin_snapshot)
        d = Member(self.network, 4, members=(1, 4))
        self.patch(d, "begin_snapshot", begin_snapshot)
        self.a.know(1, 2, 3, 4)
        d.start()
        self.network.run(1.0)
        sent = self.a.peers.send_snapshot(4, snap(to=4), self.source())
        self.network.run()
        self.failed(sent, "no directory")
        self.assertEqual(len(self.flushLoggedErrors(DiskBroke)), 1)

    def test_a_source_that_breaks_fails_with_its_own_error(self) -> None:
        def broken() -> Iterator[bytes]:
            yield STATE[0]
            raise DiskBroke("bad sector")

        sent = self.send(broken())
        self.network.run()
        self.failureResultOf(sent, DiskBroke)
        self.assertTrue(self.sink.aborted)
        self.idle()

    def test_a_chunk_that_no_frame_may_carry_is_an_error(self) -> None:
        sent = self.send([bytes(MAX_CHUNK_BYTES + 1)])
        self.network.run()
        self.failureResultOf(sent, ValueError)
        self.assertTrue(self.sink.aborted)

    def test_a_connection_lost_fails_it_on_both_sides(self) -> None:
        self.sink.taking = Deferred
        sent = self.send()
        self.network.run()
        self.wire().abortConnection()
        self.network.run(2.5)
        self.failed(sent)
        self.assertTrue(self.sink.aborted)
        self.idle()

    def test_what_an_aborted_sink_cancels_is_no_error(self) -> None:
        taking: Deferred[None] = Deferred()
        self.sink.taking = lambda: taking
        self.send().addErrback(lambda _: None)
        self.network.run()
        self.wire().abortConnection()
        self.network.run(2.5)
        taking.cancel()
        self.assertEqual(self.flushLoggedErrors(CancelledError), [])

    def test_a_receiver_that_is_not_there_fails_it(self) -> None:
        self.network.kill(host(2))
        sent = self.send()
        self.network.run()
        self.failed(sent, "refused")
        self.assertEqual(self.read, 0)

    def test_a_receiver_that_vanishes_fails_it_within_seconds(self) -> None:
        self.sink.taking = Deferred
        sent = self.send()
        self.network.run()
        self.network.sever(host(1), host(2))
        self.network.run(6.0)
        self.failed(sent, "silent")

    def test_a_sender_that_vanishes_frees_the_receiver(self) -> None:
        self.network.latency = 0.01
        sent = self.send()
        while not self.sink.chunks:
            self.network.run(0.01)
        self.network.sever(host(1), host(2))
        self.network.run(6.0)
        self.assertTrue(self.sink.aborted)
        self.assertIsNone(self.b.peers.snapshot_receiving)
        self.failed(sent)

    def test_a_sink_stuck_for_too_long_fails_it(self) -> None:
        self.sink.taking = Deferred
        sent = self.send()
        self.network.run(28.0)
        self.assertNoResult(sent)
        self.network.run(4.0)
        self.failed(sent, "no progress for 30 s")
        self.network.run(2.5)
        self.assertTrue(self.sink.aborted)

    def test_an_install_that_takes_for_ever_fails_it(self) -> None:
        self.sink.finishing = Deferred
        sent = self.send()
        self.network.run(290.0, step=0.5)
        self.assertNoResult(sent)
        self.network.run(15.0, step=0.5)
        self.failed(sent, "no progress for 300 s")

    def test_stopping_the_sender_fails_it(self) -> None:
        self.sink.taking = Deferred
        sent = self.send()
        self.network.run()
        stopped = self.a.peers.stopService()
        self.failed(sent, "stopping")
        self.network.run()
        self.successResultOf(stopped)
        self.network.run(2.5)
        self.assertTrue(self.sink.aborted)

    def test_stopping_the_sender_while_it_dials_fails_it(self) -> None:
        self.network.sever(host(1), host(2))
        sent = self.send()
        for member in (self.a, self.b, self.c):
            member.peers.stopService()
        self.failed(sent, "stopping")
        self.network.run(2.9)
        self.assertEqual(self.network.clock.getDelayedCalls(), [])

    def test_stopping_the_receiver_fails_it(self) -> None:
        self.sink.taking = Deferred
        sent = self.send()
        self.network.run()
        self.b.peers.stopService()
        self.network.run(4.0)
        self.failed(sent)
        self.assertTrue(self.sink.aborted)


class BadFrames(Streaming):
    """A peer that is let in and then breaks the protocol."""

    def stuck(self) -> Any:
        """A snapshot under way whose sender's end a test speaks for."""
        self.sent = self.send([STATE[0]])
        self.sink.taking = lambda: None
        sender = self.a.peers.snapshots_sending[2]
        self.patch(type(sender), "resumeProducing", lambda _: None)
        self.network.run()
        return self.wire().protocol

    def check_broken(self) -> None:
        with capturedLogs() as logs:
            self.network.run()
        self.assertTrue(any("broke" in log.get("what", "") for log in logs), logs)
        self.failed(self.sent)
        self.assertIsNone(self.b.peers.snapshot_receiving)

    def test_a_second_beginning(self) -> None:
        self.stuck().send_frame(FrameType.SNAPSHOT_BEGIN, encode_message(snap()))
        self.check_broken()
        self.assertTrue(self.sink.aborted)

    def test_an_empty_chunk(self) -> None:
        self.stuck().send_frame(FrameType.SNAPSHOT_CHUNK)
        self.check_broken()

    def test_a_chunk_longer_than_the_bound(self) -> None:
        self.stuck().send_frame(FrameType.SNAPSHOT_CHUNK, bytes(MAX_CHUNK_BYTES + 1))
        self.check_broken()

    def test_an_end_of_another_length(self) -> None:
        self.stuck().send_frame(FrameType.SNAPSHOT_END, b"end")
        self.check_broken()

    def test_a_frame_of_another_kind(self) -> None:
        self.stuck().send_frame(FrameType.MESSAGES, encode_message(heartbeat(1, 2)))
        self.check_broken()
        self.assertEqual(self.b.received, [])

    def test_anything_after_the_end(self) -> None:
        self.sink.finishing = Deferred
        sent = self.send([])
        self.network.run()
        ends = self.network.ends(host(1), host(2))
        newest = ends[-1].protocol
        for kind in (FrameType.SNAPSHOT_CHUNK, FrameType.SNAPSHOT_END):
            newest.send_frame(kind, bytes(12))
        self.network.run()
        self.failed(sent)
        self.assertEqual(self.sink.chunks, 0)
        self.assertFalse(self.sink.aborted)

    def test_an_end_that_is_not_that_of_what_was_sent(self) -> None:
        self.stuck().send_frame(FrameType.SNAPSHOT_END, bytes(7) + b"\1" + bytes(4))
        self.network.run()
        self.failed(self.sent, "checksum")
        self.assertTrue(self.sink.aborted)
        self.assertFalse(self.sink.finished)

    def test_an_end_with_the_length_but_another_checksum(self) -> None:
        self.stuck().send_frame(FrameType.SNAPSHOT_END, bytes(8) + b"\0\0\0\1")
        self.network.run()
        self.failed(self.sent, "checksum")
        self.assertFalse(self.sink.finished)

    def test_a_sender_that_says_no_more_is_given_up(self) -> None:
        self.stuck()
        self.patch(self.a.peers.snapshots_sending[2], "tick", lambda now: None)
        self.network.run(32.0)
        self.failed(self.sent, "no progress")
        self.assertTrue(self.sink.aborted)

    def test_a_beginning_that_is_none(self) -> None:
        for bad in (
            [heartbeat(1, 2)],
            [snap(), snap()],
            [Message(MessageType.SNAP, 2, 1)],
            [snap(from_=3)],
            [snap(to=3)],
            [Message(MessageType.SNAP, 2, 1, entries=[Entry(1, 1)])],
        ):
            network = Network()
            a, b = (Member(network, n, members=(1, 2)).start() for n in (1, 2))
            network.run(1.0)
            sent = a.peers.send_snapshot(2, snap(), iter(()))
            body = b"".join(encode_message(m) for m in bad)
            a.peers.snapshots_sending[2]._begin = body
            network.run()
            self.failureResultOf(sent, SnapshotFailed)
            self.assertEqual(b.offers, [], bad)

    def test_an_answer_that_is_none(self) -> None:
        for kind, body in (
            (FrameType.MESSAGES, b"x"),
            (FrameType.SNAPSHOT_RESULT, b""),
            (FrameType.SNAPSHOT_RESULT, encode_result(ResultCode.INSTALLED, "")),
        ):
            self.sink = self.b.sink = Sink()
            self.sink.taking = Deferred
            sent = self.send()
            self.network.run()
            self.wire().other.protocol.send_frame(kind, body)
            self.network.run()
            self.failed(sent, "broke the protocol")
            self.network.run(2.5)

    def test_only_a_snapshot_is_sent_as_one(self) -> None:
        self.assertRaises(
            AssertionError, self.a.peers.send_snapshot, 2, heartbeat(1, 2), iter(())
        )


class Results(SynchronousTestCase):
    def test_a_result_arrives_as_it_was_sent(self) -> None:
        for code in ResultCode:
            self.assertEqual(decode_result(encode_result(code, "né")), (code, "né"))

    def test_a_long_text_is_cut(self) -> None:
        _, text = decode_result(encode_result(ResultCode.FAILED, "x" * 5000))
        self.assertEqual(len(text), MAX_RESULT_BYTES)

    @settings(deadline=None, max_examples=200)
    @given(st.binary(max_size=20))
    def test_any_bytes_are_a_result_or_an_error(self, body: bytes) -> None:
        try:
            decode_result(body)
        except ProtocolError:
            pass
