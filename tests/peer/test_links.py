"""Messages between members: connections made, lost, and made again."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvdb.peer.codec import encode_message
from kvdb.peer.connection import Dialled, PeerSettings
from kvdb.peer.framing import FrameType
from kvdb.peer.links import back_off
from kvdb.peer.peers import PeerStatus
from kvdb.raft.messages import Entry, EntryType, Message, MessageType, Snapshot
from tests.peer.network import Member, Network, append, heartbeat, host, url


class Pair(SynchronousTestCase):
    """Two members that know each other."""

    settings = PeerSettings()

    def setUp(self) -> None:
        self.network = Network()
        self.a, self.b = (
            Member(self.network, node, members=(1, 2), settings=self.settings)
            for node in (1, 2)
        )

    def start(self) -> None:
        self.a.start()
        self.b.start()
        self.network.run(0.5)
        self.assertEqual(self.a.peers.connected(), [2])
        self.assertEqual(self.b.peers.connected(), [1])
        self.a.events.clear()
        self.b.events.clear()

    def crash(self, member: Member) -> None:
        """What its peers see when a process is killed."""
        self.network.kill(host(member.node))
        self.network.run()


class Delivery(Pair):
    def test_each_member_is_told_once_it_can_send(self) -> None:
        self.a.start()
        self.b.start()
        self.network.run(0.5)
        self.assertEqual(self.a.events, [("connected", 2)])
        self.assertEqual(self.b.events, [("connected", 1)])

    def test_messages_arrive_in_order_both_ways(self) -> None:
        self.start()
        there = [heartbeat(1, 2, commit) for commit in range(5)]
        back = [heartbeat(2, 1, commit) for commit in range(5)]
        self.a.say(2, *there[:3])
        self.a.say(2, *there[3:])
        self.b.say(1, *back)
        self.network.run()
        self.assertEqual(self.b.received, [(1, m) for m in there])
        self.assertEqual(self.a.received, [(2, m) for m in back])

    def test_they_arrive_whatever_pieces_the_network_makes(self) -> None:
        self.network.piece_bytes = 7
        self.start()
        sent = [heartbeat(1, 2, commit, size=commit) for commit in range(30)]
        self.a.say(2, *sent)
        self.network.run()
        self.assertEqual(self.b.received, [(1, m) for m in sent])

    def test_one_turns_messages_go_in_one_frame(self) -> None:
        self.start()
        (wire,) = [t for t in self.network.ends(host(1), host(2)) if t.producer]
        self.a.say(2, heartbeat(1, 2), heartbeat(1, 2), heartbeat(1, 2))
        self.assertEqual(wire.buffer[4], FrameType.MESSAGES)
        self.assertEqual(
            wire.buffer[:4], (3 * len(encode_message(heartbeat(1, 2)))).to_bytes(4)
        )

    def test_small_frames_do_not_wait_for_company(self) -> None:
        self.start()
        self.assertTrue(self.network.transports)
        self.assertTrue(all(wire.no_delay for wire in self.network.transports))

    def test_messages_to_nobody_known_are_reported(self) -> None:
        self.start()
        self.a.say(3, heartbeat(1, 3))
        self.assertEqual(self.a.events, [])
        self.network.run()
        self.assertEqual(self.a.events, [("unreachable", 3)])

    def test_messages_before_the_connection_are_dropped_and_reported_once(
        self,
    ) -> None:
        self.a.start()
        for _ in range(3):
            self.a.say(2, heartbeat(1, 2), heartbeat(1, 2))
        self.assertEqual(self.a.events, [], "not within the call")
        self.network.run()
        self.assertEqual(self.a.events.count(("unreachable", 2)), 1)
        self.assertEqual(self.a.peers.status()[2].messages_dropped, 6)
        self.a.say(2, heartbeat(1, 2))
        self.network.run()
        self.assertEqual(self.a.events.count(("unreachable", 2)), 2)

    def test_status_counts_what_was_sent(self) -> None:
        self.start()
        message = heartbeat(1, 2)
        self.a.say(2, message, message)
        size = 2 * len(encode_message(message))
        self.assertEqual(
            self.a.peers.status(), {2: PeerStatus(url(2), True, True, 0, 2, 0, size)}
        )

    def test_status_counts_what_was_received_over_all_connections(self) -> None:
        self.start()
        size = len(encode_message(heartbeat(2, 1)))
        for number in (1, 2, 3):
            self.b.say(1, heartbeat(2, 1))
            self.network.run()
            self.assertEqual(self.a.peers.status()[2].bytes_received, number * size)
            self.network.sever(host(1), host(2))
            self.network.run()
            self.assertEqual(self.a.peers.status()[2].bytes_received, number * size)
            self.network.heal()
            self.network.run(10)

    def test_what_was_received_goes_with_the_member(self) -> None:
        self.start()
        self.b.say(1, heartbeat(2, 1))
        self.network.run()
        self.a.know()
        self.assertEqual(self.a.peers.status()[2].is_member, False)
        self.b.peers.stopService()
        self.network.run(10)
        self.assertEqual(self.a.peers.status(), {})
        self.assertEqual(self.a.peers._received, {})


class BackPressure(Pair):
    settings = PeerSettings(max_queue_bytes=300_000, max_control_bytes=100_000)

    def stall(self) -> list[Any]:
        """Have member 2 read nothing; returns its ends."""
        ends = self.network.ends(host(2), host(1))
        for wire in ends:
            wire.pauseProducing()
        return ends

    def test_a_queue_is_bounded_and_what_finds_no_room_is_dropped(self) -> None:
        self.start()
        ends = self.stall()
        sent = [append(1, 2, index, size=50_000) for index in range(20)]
        for message in sent:
            self.a.say(2, message)
            self.assertLessEqual(self.a.peers.status()[2].queued_bytes, 300_000)
        self.network.run()
        status = self.a.peers.status()[2]
        self.assertEqual(self.a.events, [("unreachable", 2)])
        self.assertEqual(self.b.received, [])
        for wire in ends:
            wire.resumeProducing()
        self.network.run()
        arrived = 20 - status.messages_dropped
        self.assertEqual(self.b.received, [(1, m) for m in sent[:arrived]])
        self.assertEqual(arrived, 2 + 300_000 // 50_068)
        self.assertEqual(self.a.peers.status()[2].queued_bytes, 0)

    def test_of_one_turns_messages_those_without_room_are_dropped(self) -> None:
        self.start()
        self.stall()
        big = [append(1, 2, index, size=60_000) for index in range(40)]
        self.a.say(2, *big)
        # Frames hold 17 of these: one is with the transport, one waits alone.
        status = self.a.peers.status()[2]
        self.assertEqual((status.messages_sent, status.messages_dropped), (17, 6))

    def test_one_message_larger_than_the_queue_waits_alone(self) -> None:
        self.start()
        ends = self.stall()
        entry = Entry(1, 1, EntryType.NORMAL, bytes(400_000))
        big = Message(MessageType.APP, 2, 1, entries=[entry])
        self.a.say(2, big)
        self.a.say(2, big)
        self.a.say(2, big)
        self.assertEqual(self.a.peers.status()[2].messages_dropped, 1)
        for wire in ends:
            wire.resumeProducing()
        self.network.run()
        self.assertEqual(self.b.received, [(1, big), (1, big)])

    def test_what_waits_is_dropped_with_the_connection(self) -> None:
        self.start()
        self.stall()
        for _ in range(5):
            self.a.say(2, append(1, 2, size=50_000))
        self.crash(self.b)
        status = self.a.peers.status()[2]
        self.assertEqual((status.queued_bytes, status.messages_dropped), (0, 3))
        self.assertIn(("unreachable", 2), self.a.events)

    def test_after_the_loss_the_next_connection_is_not_held_up(self) -> None:
        self.start()
        self.stall()
        for _ in range(5):
            self.a.say(2, append(1, 2, size=50_000))
        for wire in list(self.network.transports):
            wire.abortConnection()
        self.network.run(1.0)
        self.a.say(2, heartbeat(1, 2, 77))
        self.network.run()
        self.assertEqual([m.commit for _, m in self.b.received], [77])

    def test_control_messages_overtake_bulk_that_waits(self) -> None:
        self.start()
        ends = self.stall()
        bulk = [append(1, 2, index, size=100_000) for index in range(3)]
        news = append(1, 2, 3)
        news.entries = ()
        proposal = Message(MessageType.PROP, 2, 1, 1, entries=[Entry(0, 0)])
        answer = Message(MessageType.HEARTBEAT_RESP, 2, 1, 1)
        self.a.say(2, bulk[0])
        self.a.say(2, bulk[1])
        self.a.say(2, bulk[2], news, heartbeat(1, 2, 1), proposal)
        self.a.say(2, answer)
        for wire in ends:
            wire.resumeProducing()
        self.network.run()
        arrived = [m for _, m in self.b.received]
        self.assertEqual(
            arrived,
            [bulk[0], heartbeat(1, 2, 1), answer, *bulk[1:], news, proposal],
        )

    def test_of_one_turns_messages_control_does_not_wait_for_many_frames(self) -> None:
        self.start()
        bulk = [append(1, 2, index, size=700_000) for index in range(3)]
        self.a.say(2, *bulk[:2], heartbeat(1, 2, 1), bulk[2])
        self.network.run()
        arrived = [m for _, m in self.b.received]
        self.assertEqual(arrived, [bulk[0], heartbeat(1, 2, 1), bulk[1]])

    def test_control_messages_have_a_queue_of_their_own_that_is_bounded(self) -> None:
        self.start()
        ends = self.stall()
        for index in range(9):
            self.a.say(2, append(1, 2, index, size=70_000))
        dropped = self.a.peers.status()[2].messages_dropped
        self.assertGreater(dropped, 0)
        beats = [heartbeat(1, 2, commit, size=30_000) for commit in range(9)]
        for beat in beats:
            self.a.say(2, beat)
        self.network.run()
        self.assertEqual(self.a.peers.status()[2].messages_dropped, dropped + 6)
        self.assertIn(("unreachable", 2), self.a.events)
        for wire in ends:
            wire.resumeProducing()
        self.network.run()
        arrived = [m for _, m in self.b.received if m.type is MessageType.HEARTBEAT]
        self.assertEqual(arrived, beats[:3])

    def test_what_is_sent_now_is_with_the_transport_or_nothing_was_done(self) -> None:
        proposal = Message(MessageType.PROP, 2, 1, 1, entries=[Entry(0, 0)])
        self.assertFalse(self.a.peers.send_now(proposal), "no connection")
        self.start()
        elsewhere = Message(MessageType.PROP, 3, 1, 1, entries=[Entry(0, 0)])
        self.assertFalse(self.a.peers.send_now(elsewhere))
        ends = self.stall()
        large = Entry(0, 0, data=bytes(100_000))
        first = Message(MessageType.PROP, 2, 1, 1, entries=[large])
        self.assertTrue(self.a.peers.send_now(first))
        self.assertFalse(self.a.peers.send_now(proposal), "it has enough")
        self.assertEqual(self.a.peers.status()[2].queued_bytes, 0)
        self.network.run()
        self.assertEqual((self.a.events, self.a.rooms), ([], []))
        for wire in ends:
            wire.resumeProducing()
        self.network.run()
        self.assertEqual([m for _, m in self.b.received], [first])
        self.assertEqual(self.a.rooms, [2])
        self.assertTrue(self.a.peers.send_now(proposal))


class Loss(Pair):
    def test_a_closed_port_tells_that_a_process_is_gone(self) -> None:
        self.start()
        self.network.run(3.0)
        self.crash(self.b)
        self.network.run(0.02)
        self.assertIn(("process gone", 2), self.a.events)

    def test_a_closed_port_of_one_who_goes_on_talking_tells_nothing(self) -> None:
        self.start()
        self.network.run(3.0)
        del self.network.listeners[host(2)]
        for wire in list(self.network.transports):
            if isinstance(wire.protocol, Dialled) and wire.protocol.target == 2:
                wire.abortConnection()
        self.network.run(0.5)
        self.assertIn(("disconnected", 2), self.a.events)
        self.assertNotIn(("process gone", 2), self.a.events)
        self.assertEqual(self.b.peers.connected(), [1])

    def test_a_killed_peer_is_noticed_at_once(self) -> None:
        self.start()
        self.crash(self.b)
        self.assertEqual(
            [e for e in self.a.events if e[0] == "disconnected"],
            [("disconnected", 2)] * 2,
        )
        self.assertEqual(self.a.peers.connected(), [])

    def test_messages_that_may_be_lost_with_it_are_reported(self) -> None:
        self.start()
        self.crash(self.b)
        self.assertEqual(self.a.events.count(("unreachable", 2)), 1)

    def test_a_peer_that_vanishes_is_noticed_within_seconds(self) -> None:
        self.start()
        self.network.sever(host(1), host(2))
        self.network.run(2.5)
        self.assertEqual(self.a.events, [])
        self.network.run(3.0)
        for member, other in ((self.a, 2), (self.b, 1)):
            self.assertEqual(
                [e for e in member.events if e[0] == "disconnected"],
                [("disconnected", other)] * 2,
            )

    def test_bytes_lost_one_way_only_are_noticed_too(self) -> None:
        self.start()
        self.network.cut.add((host(1), host(2)))
        self.network.run(6.0)
        self.assertIn(("disconnected", 2), self.a.events)
        self.assertIn(("disconnected", 1), self.b.events)

    def test_members_with_nothing_to_say_stay_connected(self) -> None:
        self.start()
        self.network.run(30.0, step=0.1)
        self.assertEqual((self.a.events, self.b.events), ([], []))

    def test_both_ways_are_there_again_when_the_network_is(self) -> None:
        self.start()
        self.network.sever(host(1), host(2))
        self.network.run(10.0)
        self.network.heal()
        self.network.run(6.0)
        self.a.say(2, heartbeat(1, 2))
        self.b.say(1, heartbeat(2, 1))
        self.network.run()
        self.assertEqual((len(self.a.received), len(self.b.received)), (1, 1))

    def test_a_newer_connection_replaces_the_older(self) -> None:
        self.start()
        # Only one end learns of the loss, as after a reboot of what lies between.
        lost = [t for t in self.network.ends(host(1), host(2)) if t.producer]
        lost[0].lose(ConnectionResetError())
        self.network.run(0.5)
        self.a.say(2, heartbeat(1, 2, 5))
        self.network.run()
        self.assertEqual([m.commit for _, m in self.b.received], [5])
        self.assertEqual(self.b.events, [], "the peer was never gone")
        self.assertEqual(len(self.network.ends(host(2), host(1))), 2)


class Again(Pair):
    def tries(self) -> list[float]:
        return [at for own, _, at in self.network.attempts if own == host(1)]

    def test_the_wait_doubles_up_to_a_bound_and_half_of_it_is_drawn(self) -> None:
        random = Random(1)
        for attempt in range(40):
            longest = min(2.0, 0.05 * 2**attempt)
            waits = [back_off(attempt, 0.05, 2.0, random) for _ in range(50)]
            self.assertTrue(all(longest / 2 <= w <= longest for w in waits), attempt)
            self.assertGreater(max(waits) - min(waits), longest / 4)
        back_off(10**9, 0.05, 2.0, random)

    def test_an_absent_member_is_dialled_fast_then_slowly(self) -> None:
        self.a.start()
        self.network.run(20.0)
        tries = self.tries()
        waits = [b - a for a, b in pairwise(tries)]
        self.assertLess(waits[0], 0.07)
        self.assertTrue(all(0.99 <= wait <= 2.02 for wait in waits[-5:]), waits)

    def test_the_times_are_drawn_from_the_given_source_alone(self) -> None:
        self.a.start()
        self.network.run(20.0)
        again = Network()
        Member(again, 1, members=(1, 2)).start()
        again.run(20.0)
        self.assertEqual(again.attempts, self.network.attempts)

    def test_a_connection_that_held_makes_the_next_attempt_fast_again(self) -> None:
        self.a.start()
        self.network.run(20.0)
        self.b.start()
        self.network.run(5.0)
        self.assertEqual(self.a.peers.connected(), [2])
        self.crash(self.b)
        lost_at, before = self.network.now(), len(self.tries())
        self.network.run(0.1)
        self.assertLess(self.tries()[before] - lost_at, 0.07)

    def test_a_connection_that_did_not_hold_does_not(self) -> None:
        self.a.start()
        self.network.run(20.0)
        self.b.start()
        self.network.run(0.5)
        self.assertEqual(self.a.peers.connected(), [2])
        self.crash(self.b)
        before = len(self.tries())
        self.network.run(0.9)
        self.assertEqual(len(self.tries()), before)

    def test_a_member_that_dials_is_dialled_back_at_once(self) -> None:
        self.a.start()
        self.network.run(20.0)
        self.b.start()
        self.network.run(0.01)
        self.assertEqual(self.a.peers.connected(), [2])

    def test_a_member_that_moved_is_dialled_where_it_is_now(self) -> None:
        self.b.node = 7
        self.a.start()
        self.b.start()
        self.network.run(0.5)
        self.a.know(1, 2, urls={2: url(7)})
        self.network.run(0.5)
        self.assertEqual(self.a.peers.connected(), [2])
        self.a.say(2, heartbeat(1, 2))
        self.network.run()
        self.assertEqual(len(self.b.received), 1)

    def test_a_failure_is_logged_once_and_again_when_it_differs(self) -> None:
        with capturedLogs() as logs:
            self.a.start()
            self.network.run(20.0)
            self.assertEqual(len(logs), 1, logs)
            self.assertIn("refused", logs[0]["what"])
            self.assertIn(url(2), logs[0]["what"])
            self.network.sever(host(1), host(2))
            self.network.run(20.0)
        self.assertEqual(len(logs), 2, logs)


class Trespass(Pair):
    """What a member may not say."""

    def speak(self, message: Message) -> list[Any]:
        """Have member 1 say it to member 2; returns what is logged."""
        self.start()
        with capturedLogs() as logs:
            self.a.say(2, heartbeat(1, 2, 1), message)
            self.network.run()
        self.assertEqual(self.b.received, [], "nothing of that frame is believed")
        self.assertIn(("disconnected", 1), self.b.events)
        return [log["what"] for log in logs if "broke" in log.get("what", "")]

    def test_a_message_in_anothers_name_breaks_the_connection(self) -> None:
        (what,) = self.speak(heartbeat(3, 2))
        self.assertIn("in the name of member 3", what)

    def test_a_message_for_another_breaks_the_connection(self) -> None:
        (what,) = self.speak(heartbeat(1, 3))
        self.assertIn("for member 3", what)

    def test_a_snapshot_among_messages_breaks_the_connection(self) -> None:
        snap = Message(MessageType.SNAP, 2, 1, snapshot=Snapshot(1, 1))
        (what,) = self.speak(snap)
        self.assertIn("SNAP", what)

    def test_requests_that_followers_pass_on_keep_their_names(self) -> None:
        self.start()
        passed = [
            Message(MessageType.PROP, 2, 3, entries=[Entry(0, 0)]),
            Message(MessageType.READ_INDEX, 2, 3, context=b"c"),
            Message(MessageType.TRANSFER_LEADER, 2, 3),
        ]
        self.a.say(2, *passed)
        self.network.run()
        self.assertEqual(self.b.received, [(1, m) for m in passed])

    def test_messages_against_the_direction_break_the_connection(self) -> None:
        self.start()
        (inbox,) = [t for t in self.network.ends(host(2), host(1)) if not t.producer]
        inbox.protocol.send_frame(FrameType.MESSAGES, encode_message(heartbeat(2, 1)))
        self.network.run()
        self.assertEqual(self.a.received, [])
        self.assertIn(("disconnected", 2), self.a.events)

    def test_a_ping_among_messages_is_no_message(self) -> None:
        self.start()
        (out,) = [t for t in self.network.ends(host(1), host(2)) if t.producer]
        out.protocol.send_frame(FrameType.SNAPSHOT_CHUNK, b"x")
        self.network.run()
        self.assertIn(("disconnected", 1), self.b.events)
