"""Who is let in, who is refused, and what is no peer at all."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Protocol
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvdb.peer import peers
from kvdb.peer.connection import PeerSettings
from kvdb.peer.framing import (
    MAX_HELLO_BYTES,
    FrameType,
    encode_frame,
)
from kvdb.peer.handshake import (
    JUDGED_VERSION,
    MAX_VERSION,
    NO_CLUSTER,
    NOT_A_PEER_RESPONSE,
    Hello,
    Purpose,
    Refusal,
    RefusalCode,
    encode_hello,
    encode_refusal,
)
from tests.peer.network import REPORT, Member, Network, heartbeat, host


class Refused(SynchronousTestCase):
    """Member 2 dials member 1, who will not talk to it."""

    def setUp(self) -> None:
        self.network = Network()
        self.a = Member(self.network, 1, members=(1, 2))

    def check(
        self, b: Member, code: RefusalCode, by: Member | None = None
    ) -> list[str]:
        """Returns what is logged."""
        with capturedLogs() as logs:
            (by or self.a).start()
            b.start()
            self.network.run(20.0)
        codes = {refusal.code for _, refusal in b.refusals}
        self.assertEqual(codes, {code})
        self.assertGreater(len(b.refusals), 5, "it goes on trying")
        self.assertEqual(b.received, [])
        self.assertEqual(b.peers.connected(), [])
        self.assertNotIn(("connected", 1), b.events)
        self.assertNotIn(("disconnected", 1), b.events)
        return [log["what"] for log in logs if "what" in log]

    def check_logged_once(self, logged: list[str], part: str) -> None:
        """Once by who refuses, once by who is refused."""
        for word in ("refused: ", "it refuses this node: "):
            found = [w for w in logged if word in w and part in w]
            self.assertEqual(len(found), 1, logged)

    def test_a_member_of_another_cluster(self) -> None:
        b = Member(self.network, 2, cluster=99, members=(1,))
        self.a.know(1)
        logged = self.check(b, RefusalCode.WRONG_CLUSTER)
        self.check_logged_once(logged, f"{99:016x}")

    def test_a_node_that_was_not_added(self) -> None:
        self.a.know(1)
        b = Member(self.network, 2, cluster=NO_CLUSTER, members=(1,))
        logged = self.check(b, RefusalCode.UNKNOWN_MEMBER)
        self.check_logged_once(logged, "POST /2")

    def test_a_removed_member(self) -> None:
        self.a.know(1)
        self.a.removed.add(2)
        b = Member(self.network, 2, members=(1, 2))
        logged = self.check(b, RefusalCode.REMOVED_MEMBER)
        self.check_logged_once(logged, "was removed")

    def test_a_member_with_another_data_directory(self) -> None:
        b = Member(self.network, 2, instance=5, members=(1, 2))
        self.a.instances[2] = 6
        logged = self.check(b, RefusalCode.WRONG_INSTANCE)
        self.assertTrue(any("refuses this node" in w for w in logged), logged)
        self.assertTrue(any("DELETE /2" in w for w in logged), logged)

    def test_who_wanted_another_node(self) -> None:
        c = Member(self.network, 3, members=(3, 2))
        c.node = 1  # member 3 listens where member 1 should
        b = Member(self.network, 2, members=(1, 2))
        logged = self.check(b, RefusalCode.WRONG_TARGET, by=c)
        self.assertTrue(any("--id" in w for w in logged), logged)

    def test_a_peer_of_another_version(self) -> None:
        later = PeerSettings(min_version=MAX_VERSION + 1, max_version=MAX_VERSION + 2)
        b = Member(self.network, 2, members=(1,), settings=later)
        self.a.know(1)
        logged = self.check(b, RefusalCode.UNSUPPORTED_VERSION)
        self.check_logged_once(logged, "upgrade")

    def test_versions_that_overlap_are_agreed_on(self) -> None:
        later = PeerSettings(min_version=1, max_version=MAX_VERSION + 1)
        b = Member(self.network, 2, members=(1, 2), settings=later).start()
        self.a.start()
        self.network.run(1.0)
        self.assertEqual(b.peers.connected(), [1])
        for wire in self.network.transports:
            self.assertEqual(wire.protocol.version, MAX_VERSION)

    def test_members_report_of_themselves_each_second(self) -> None:
        b = Member(self.network, 2, members=(1, 2)).start()
        self.a.know(2)
        self.a.start()
        self.network.run(5.5)
        self.assertIn(len(b.reports), (5, 6))
        self.assertEqual(set(b.reports), {(1, REPORT)})
        self.assertEqual(set(self.a.reports), {(2, REPORT)})

    def test_an_earlier_release_is_sent_no_reports(self) -> None:
        earlier = PeerSettings(max_version=1)
        b = Member(self.network, 2, members=(1, 2), settings=earlier).start()
        self.a.know(2)
        self.a.start()
        self.network.run(3.0)
        self.assertEqual((b.peers.connected(), self.a.peers.connected()), ([1], [2]))
        self.assertEqual((b.reports, self.a.reports), ([], []))
        self.a.say(2, heartbeat(1, 2))
        self.network.run(1.0)
        self.assertEqual(len(b.received), 1)

    def test_an_earlier_release_hashes_other_things_and_is_not_compared(self) -> None:
        earlier = PeerSettings(max_version=JUDGED_VERSION - 1)
        b = Member(self.network, 2, members=(1, 2), settings=earlier).start()
        self.a.know(2)
        self.a.start()
        self.network.run(1.5)
        without = evolve(REPORT, windows=())
        self.assertNotEqual(REPORT, without)
        self.assertEqual(set(b.reports), {(1, without)})
        self.assertEqual(set(self.a.reports), {(2, without)})

    def test_the_version_of_a_peer_is_remembered(self) -> None:
        self.a.know(2)
        self.a.start()
        self.assertEqual(self.a.peers.versions(), {})
        earlier = PeerSettings(max_version=JUDGED_VERSION - 1)
        b = Member(self.network, 2, members=(1, 2), settings=earlier).start()
        self.network.run(3.0)
        self.assertEqual(self.a.peers.versions(), {2: JUDGED_VERSION - 1})
        b.peers.stopService()
        self.network.run(6.0)
        self.assertEqual(self.a.peers.connected(), [])
        self.assertEqual(self.a.peers.versions(), {2: JUDGED_VERSION - 1})
        Member(self.network, 2, members=(1, 2)).start()
        self.network.run(6.0)
        self.assertEqual(self.a.peers.versions(), {2: MAX_VERSION})

    def test_who_dials_may_refuse_the_answer(self) -> None:
        self.a.instances[2] = 5
        b = Member(self.network, 2, members=(2,)).start()
        with capturedLogs() as logs:
            self.a.start()
            self.network.run(20.0)
        self.assertEqual(self.a.peers.connected(), [])
        said = [log["what"] for log in logs if "what" in log]
        self.assertTrue(any("it refuses this node" in w for w in said), said)
        self.assertEqual(b.received, [])

    def test_a_refusal_is_read_before_the_connection_is_closed(self) -> None:
        self.network.piece_bytes = 5
        self.a.know(1)
        self.a.removed.add(2)
        b = Member(self.network, 2, members=(1, 2))
        self.check(b, RefusalCode.REMOVED_MEMBER)

    def test_a_member_that_is_removed_hears_it_where_it_is_connected(self) -> None:
        b = Member(self.network, 2, members=(1, 2)).start()
        self.a.start()
        self.network.run(1.0)
        self.a.removed.add(2)
        self.a.know(1)
        self.network.run(0.1)
        self.assertEqual({c.code for _, c in b.refusals}, {RefusalCode.REMOVED_MEMBER})
        self.assertEqual(self.a.peers.status(), {})
        self.assertNotIn(("disconnected", 2), self.a.events)

    def test_a_member_whose_instance_turns_out_wrong_is_cut_off(self) -> None:
        b = Member(self.network, 2, members=(1, 2)).start()
        self.a.start()
        self.network.run(1.0)
        self.a.instances[2] = 5
        self.a.know(1, 2)
        self.assertEqual(self.a.peers.connected(), [], "not even while it closes")
        self.a.say(2, heartbeat(1, 2))
        self.network.run(0.1)
        self.assertEqual(b.received, [])
        self.assertEqual({c.code for _, c in b.refusals}, {RefusalCode.WRONG_INSTANCE})


class Client(Protocol):
    """Whatever dials the peers' port."""

    def __init__(self) -> None:
        self.got = bytearray()
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost = True


class Strangers(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.a = Member(self.network, 1, members=(1, 2)).start()

    def dial(self, data: bytes = b"", own: str = "192.0.2.1") -> Client:
        client = Client()
        server = self.network.listeners[host(1)].buildProtocol(None)
        self.assertIsNotNone(server)
        wire: Any = self.network.join(client, own, server, host(1))
        wire.write(data)
        self.network.run()
        return client

    def hello(self, **changes: Any) -> bytes:
        b = Member(self.network, 2)
        hello = Hello(evolve(b.identity, **changes), 1, Purpose.MESSAGES)
        return encode_frame(FrameType.HELLO, encode_hello(hello))

    def test_a_curl_is_told_what_this_port_is(self) -> None:
        client = self.dial(b"GET /my-key HTTP/1.1\r\nHost: h\r\n\r\n")
        self.assertEqual(client.got, NOT_A_PEER_RESPONSE)
        self.network.run(4.0)
        self.assertTrue(client.lost)

    def test_one_that_sends_much_is_told_the_same_and_not_listened_to(self) -> None:
        client = self.dial(b"PUT /k HTTP/1.1\r\n\r\n" + bytes(500_000))
        self.assertEqual(client.got, NOT_A_PEER_RESPONSE)

    def test_curls_are_logged_once_for_each_host(self) -> None:
        with capturedLogs() as logs:
            for _ in range(5):
                self.dial(b"GET / HTTP/1.1\r\n\r\n")
            self.dial(b"GET / HTTP/1.1\r\n\r\n", own="192.0.2.2")
        said = [log["who"] for log in logs if "no kvdb peer" in log.get("what", "")]
        self.assertEqual(said, ["192.0.2.1", "192.0.2.2"])

    def test_what_is_remembered_of_strangers_is_bounded(self) -> None:
        with capturedLogs():
            for last in range(2 * peers.MAX_COMPLAINTS):
                self.a.peers.complain(f"host {last}", "what")
        self.assertEqual(len(self.a.peers._complaints), peers.MAX_COMPLAINTS)

    def test_a_hello_longer_than_one_can_be_is_not_waited_for(self) -> None:
        client = self.dial((MAX_HELLO_BYTES + 1).to_bytes(4, "big") + bytes(5))
        self.assertEqual(client.got, NOT_A_PEER_RESPONSE)

    def test_other_noise_is_hung_up_on(self) -> None:
        for noise in (
            encode_frame(FrameType.MESSAGES, b"x"),
            encode_frame(FrameType.PING),
            encode_frame(FrameType.HELLO, b"kvdbpeer"),
            b"\0\0\0\1\1\0\0\0\0x",
        ):
            client = self.dial(noise)
            self.assertTrue(client.lost, noise)
            self.assertEqual(client.got, b"", noise)

    def test_who_says_nothing_is_hung_up_on(self) -> None:
        client = self.dial()
        self.network.run(4.0)
        self.assertFalse(client.lost)
        self.network.run(2.5)
        self.assertTrue(client.lost)

    def test_a_stranger_cannot_tell_a_node_that_it_was_removed(self) -> None:
        word = encode_refusal(Refusal(RefusalCode.REMOVED_MEMBER, "go"))
        refuse = encode_frame(FrameType.REFUSE, word)
        with capturedLogs() as logs:
            self.assertTrue(self.dial(refuse).lost)
        self.assertFalse([log for log in logs if "go" in log.get("what", "")])
        self.dial(self.hello() + refuse)
        self.network.run(0.1)
        self.assertEqual(self.a.refusals, [])

    def test_a_second_hello_breaks_the_connection(self) -> None:
        client = self.dial(self.hello() * 2)
        self.assertTrue(client.lost)

    def test_many_that_say_nothing_do_not_keep_a_member_out(self) -> None:
        silent = [self.dial() for _ in range(peers.MAX_HANDSHAKES + 10)]
        self.assertEqual(sum(client.lost for client in silent), 10)
        self.assertTrue(silent[0].lost)
        b = Member(self.network, 2, members=(1, 2)).start()
        self.network.run(0.5)
        self.assertEqual(b.peers.connected(), [1])

    def test_connections_are_bounded(self) -> None:
        self.patch(peers, "MAX_ACCEPTED", 3)
        for _ in range(3):
            self.dial()
        self.assertIsNone(self.network.listeners[host(1)].buildProtocol(None))

    def test_a_url_where_something_else_answers_is_explained(self) -> None:
        class Web(Client):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        class Site:
            def buildProtocol(self, addr: object) -> Web:
                return Web()

        with capturedLogs() as logs:
            self.network.listeners[host(2)] = Site()
            self.network.run(20.0)
        said = [
            log["what"] for log in logs if "port for clients" in log.get("what", "")
        ]
        self.assertEqual(len(said), 1, said)

    def test_an_answer_from_another_member_is_not_believed(self) -> None:
        class Liar(Client):
            def connectionMade(liar) -> None:  # noqa: N805
                assert liar.transport is not None
                liar.transport.write(self.hello(node_id=3))

        class Site:
            def buildProtocol(self, addr: object) -> Liar:
                return Liar()

        with capturedLogs() as logs:
            self.network.listeners[host(2)] = Site()
            self.network.run(3.0)
        self.assertTrue(any("as member 3" in log.get("what", "") for log in logs))
        self.assertEqual(self.a.peers.connected(), [])
        self.assertEqual(self.a.events, [])


class Joining(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.a = Member(self.network, 1, members=(1, 2)).start()
        self.b = Member(self.network, 2, cluster=NO_CLUSTER).start()

    def test_it_learns_its_cluster_and_can_answer(self) -> None:
        self.network.run(1.0)
        self.assertEqual(
            self.b.events,
            [("cluster", self.a.identity.cluster_id), ("connected", 1)],
        )
        self.a.say(2, heartbeat(1, 2))
        self.b.say(1, heartbeat(2, 1))
        self.network.run()
        self.assertEqual((len(self.a.received), len(self.b.received)), (1, 1))
        self.assertFalse(self.b.peers.status()[1].is_member)

    def test_it_learns_by_dialling_too(self) -> None:
        self.a.peers._links[2].stop()
        self.b.know(1)
        self.network.run(1.0)
        self.assertEqual(self.b.identity.cluster_id, self.a.identity.cluster_id)

    def test_once_it_knows_it_is_told_apart_from_other_clusters(self) -> None:
        self.network.run(1.0)
        c = Member(self.network, 3, cluster=99, members=(2,)).start()
        self.network.run(1.0)
        self.assertEqual({r.code for _, r in c.refusals}, {RefusalCode.WRONG_CLUSTER})

    def test_whom_it_answers_stays_while_an_older_membership_is_applied(self) -> None:
        self.network.run(1.0)
        self.b.know(7)
        self.network.run(0.2)
        self.assertEqual(self.b.peers.connected(), [1])

    def test_a_stranger_that_leaves_is_not_dialled(self) -> None:
        self.network.run(1.0)
        self.a.peers.stopService()
        self.network.run(1.0)
        self.assertEqual(self.b.peers.status(), {})
        before = len(self.network.attempts)
        self.network.run(5.0)
        self.assertEqual(len(self.network.attempts), before)

    def test_a_stranger_that_becomes_a_member_keeps_its_connection(self) -> None:
        self.network.run(1.0)
        self.b.events.clear()
        self.b.know(1, 2)
        self.network.run(1.0)
        self.assertEqual(self.b.events, [])
        self.assertTrue(self.b.peers.status()[1].is_member)

    def test_strangers_are_dialled_back_within_a_bound(self) -> None:
        self.patch(peers, "MAX_LINKS", 2)
        c = Member(self.network, 3)
        c.start()
        for node in (4, 5, 6):
            Member(self.network, node, members=(3,)).start()
        self.network.run(1.0)
        self.assertEqual(len(c.peers.status()), 2)


class Stopping(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.a = Member(self.network, 1, members=(1, 2, 3)).start()
        self.b = Member(self.network, 2, members=(1, 2)).start()
        self.network.run(1.0)

    def test_everything_is_closed_before_it_is_done(self) -> None:
        stopped = self.a.peers.stopService()
        self.assertNoResult(stopped)
        self.network.run()
        self.successResultOf(stopped)
        self.assertEqual(self.network.ends(host(1), host(2)), [])
        self.assertNotIn(host(1), self.network.listeners)

    def test_nothing_is_left_to_happen(self) -> None:
        for member in (self.a, self.b):
            member.peers.stopService()
        self.network.run()
        self.assertEqual(self.network.clock.getDelayedCalls(), [])

    def test_the_node_hears_nothing_more(self) -> None:
        self.a.events.clear()
        self.b.say(1, heartbeat(2, 1))
        self.a.say(3, heartbeat(1, 3))
        self.a.peers.stopService()
        self.network.run(5.0)
        self.assertEqual((self.a.events, self.a.received), ([], []))

    def test_what_was_sent_before_still_arrives(self) -> None:
        self.a.say(2, heartbeat(1, 2))
        self.a.peers.stopService()
        self.network.run()
        self.assertEqual(len(self.b.received), 1)

    def test_what_waits_in_a_queue_does_not_keep_it_open(self) -> None:
        ends = self.network.ends(host(2), host(1))
        for wire in ends:
            wire.pauseProducing()
        for _ in range(5):
            self.a.say(2, heartbeat(1, 2, size=50_000))
        stopped = self.a.peers.stopService()
        for wire in ends:
            wire.resumeProducing()
        self.network.run()
        self.successResultOf(stopped)

    def test_a_peer_that_does_not_answer_is_not_waited_for(self) -> None:
        self.network.sever(host(1), host(2))
        stopped = self.a.peers.stopService()
        self.network.run(1.5)
        self.assertNoResult(stopped)
        self.network.run(2.0)
        self.successResultOf(stopped)

    def test_it_can_be_stopped_without_ever_having_run(self) -> None:
        self.successResultOf(Member(self.network, 4, members=(1,)).peers.stopService())

    def test_an_attempt_to_connect_is_given_up(self) -> None:
        self.network.sever(host(1), host(3))
        self.network.run(3.0)
        stopped = self.a.peers.stopService()
        self.network.run()
        self.successResultOf(stopped)
        self.network.run(5.0)
        self.b.peers.stopService()
        self.network.run()
        self.assertEqual(self.network.clock.getDelayedCalls(), [])

    def test_who_dials_in_while_it_stops_is_turned_away(self) -> None:
        listener = self.network.listeners[host(1)]
        self.a.peers.stopService()
        self.assertIsNone(listener.buildProtocol(None))

    def test_a_port_in_use_is_an_error_at_start(self) -> None:
        other = Member(self.network, 1)
        self.assertRaises(CannotListenError, other.start)
        self.assertFalse(other.peers.running)
