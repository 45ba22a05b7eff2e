"""The starts that a member met of others: what it writes, and whom it refuses."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvdb.node.node import Node
from kvdb.node.peer_starts import PeerStarts
from kvdb.peer.handshake import Hello, Identity, Purpose, RefusalCode
from kvdb.storage.filesystem import DiskFull, SyncFailed
from kvdb.storage.journal import LogClosed
from kvdb.storage.starts import MAX_PEERS, PeerStart, Start, Starts
from tests.node.cluster import Cluster


@define
class Disk:
    """Implements L{StartsLog<kvdb.node.peer_starts.StartsLog>}."""

    peer_starts: Mapping[int, PeerStart] = field(factory=dict)
    refuses: Exception | None = None
    syncs: list[Deferred[None]] = field(factory=list)

    def note_peer_starts(self, peer_starts: Mapping[int, PeerStart]) -> Deferred[None]:
        if self.refuses is not None:
            raise self.refuses
        self.peer_starts = dict(peer_starts)
        self.syncs.append(Deferred())
        return self.syncs[-1]


def peer(node: int, *ids: int) -> Identity:
    """A member whose directory has seen these starts."""
    return Identity(node, 100 + node, 7, f"http://h{node}:1", Starts(len(ids), ids))


def met(node: int, number: int, start_id: int) -> dict[int, PeerStart]:
    """What is known once that start was met."""
    return {node: PeerStart(100 + node, Start(number, start_id))}


class Remembering(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = Disk()
        self.failures: list[Failure] = []
        self.starts = PeerStarts(self.disk, self.failures.append)
        self.members = {1, 2, 3}

    def test_a_start_is_written_when_it_is_met(self) -> None:
        self.starts.met(peer(2, 21, 22), self.members)
        self.assertEqual(self.disk.peer_starts, met(2, 2, 22))
        self.starts.met(peer(3, 31), self.members)
        self.assertEqual(self.disk.peer_starts, met(2, 2, 22) | met(3, 1, 31))
        self.assertEqual(PeerStarts(self.disk, print).known, self.disk.peer_starts)

    def test_the_same_start_is_written_once(self) -> None:
        for _ in range(3):
            self.starts.met(peer(2, 21, 22), self.members)
            self.starts.ticked()
        self.assertEqual(len(self.disk.syncs), 1)

    def test_a_release_that_tells_none_is_passed_over(self) -> None:
        self.starts.met(peer(2), self.members)
        self.assertEqual(self.disk.syncs, [])

    def test_a_full_disk_takes_it_later(self) -> None:
        self.disk.refuses = DiskFull(28, "no space", "/data/log")
        self.starts.met(peer(2, 21), self.members)
        self.assertEqual(self.starts.known, met(2, 1, 21))
        self.disk.refuses = None
        self.starts.ticked()
        self.assertEqual(self.disk.peer_starts, met(2, 1, 21))

    def test_a_failed_sync_stops_the_node(self) -> None:
        self.starts.met(peer(2, 21), self.members)
        self.disk.syncs[0].errback(Failure(SyncFailed(5, "I/O error", "/data/log")))
        self.assertTrue(self.failures[0].check(SyncFailed))

    def test_a_failed_write_stops_the_node(self) -> None:
        self.disk.refuses = OSError(5, "I/O error")
        self.starts.met(peer(2, 21), self.members)
        self.assertTrue(self.failures[0].check(OSError))

    def test_a_log_that_was_closed_does_not(self) -> None:
        self.starts.met(peer(2, 21), self.members)
        self.disk.syncs[0].errback(Failure(LogClosed("the log is closed")))
        self.disk.refuses = LogClosed("the log is closed")
        self.starts.met(peer(3, 31), self.members)
        self.assertEqual(self.failures, [])

    def test_removed_members_are_forgotten(self) -> None:
        self.starts.met(peer(2, 21), self.members)
        self.starts.met(peer(3, 31), {1, 3})
        self.assertEqual(self.disk.peer_starts, met(3, 1, 31))

    def test_they_are_bounded(self) -> None:
        many = set(range(MAX_PEERS + 2))
        for node in many:
            self.starts.met(peer(node, 1), many)
        self.assertEqual(len(self.starts.known), MAX_PEERS)
        self.starts.met(peer(5, 1, 2), many)
        self.assertEqual(self.starts.known[5].start, Start(2, 2))


class Refusing(SynchronousTestCase):
    """Whole nodes."""

    def greet(self, node: Node, by: Node, starts: Starts) -> RefusalCode | None:
        """What C{node} says to C{by}, had it these starts."""
        identity = evolve(by.identity, starts=starts)
        hello = Hello(identity, node.identity.node_id, Purpose.MESSAGES)
        refusal = node.judge(hello)
        return None if refusal is None else refusal.code

    def test_members_remember_each_other_s_starts(self) -> None:
        cluster = Cluster(3)
        cluster.settle()
        before = cluster.node(3).identity.starts
        cluster.machines[3].crash()
        cluster.machines[3].start()
        cluster.settle()
        node = cluster.node(3)
        self.assertEqual(node.identity.starts.count, 2)
        for other in (1, 2):
            self.assertIsNone(
                self.greet(cluster.node(other), node, node.identity.starts)
            )
        cluster.run(0.1)  # so long that it is durable
        older = before.begin(5)
        for other in (1, 2):
            peer_ = cluster.node(other)
            code = self.greet(peer_, node, older)
            self.assertIs(code, RefusalCode.ROLLED_BACK)
            # Also once it has started again, without having met it since.
            cluster.machines[other].crash()
            again = cluster.machines[other].start()
            code = self.greet(again, node, older)
            self.assertIs(code, RefusalCode.ROLLED_BACK)
            cluster.settle()

    def test_an_older_copy_of_a_member_stops(self) -> None:
        cluster = Cluster(3)
        cluster.settle()
        machine = cluster.machines[3]
        machine.crash()
        machine.start()
        cluster.settle()
        node = cluster.node(3)
        node.identity = evolve(node.identity, starts=Starts().begin(5))
        cluster.until(machine.is_down)
        (why, status), *_ = machine.stopped
        self.assertIn("an older copy of itself", why)
        self.assertEqual(status, 1)
        cluster.put(cluster.leader(), b"/k", b"v")
