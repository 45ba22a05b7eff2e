"""A leader whose disk is full has another member lead, where one can."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvdb.interfaces import NoSpace
from kvdb.node.handover import AGAIN_SECONDS
from kvdb.node.node import Node
from kvdb.store.commands import Put
from tests.node.cluster import Cluster


class FullDisks(SynchronousTestCase):
    def setUp(self) -> None:
        self.cluster = Cluster(3)
        self.old = self.cluster.leader()
        self.others = [node for node in self.cluster.nodes() if node is not self.old]
        self.cluster.put(self.old, b"k", b"v")

    def fill(self, *nodes: Node) -> None:
        """Have them find their disks full, and what they kept for that used up."""
        leader = self.cluster.leader()
        for _ in range(2_000):
            for node in nodes:
                self.cluster.machines[node.pump.node_id].disk.space = 0
            if all(node.pump.writer.full for node in nodes):
                return
            leader.write(Put(b"big", b"x" * 100)).addErrback(lambda _: None)
            self.cluster.run(0.001)
        raise AssertionError("the disks did not fill")

    def report(self) -> None:
        """Let each hear from each, as a second's reports would."""
        for sender in self.cluster.nodes():
            for node in self.cluster.nodes():
                if node is not sender:
                    node.report_received(sender.pump.node_id, sender.report())

    def test_leadership_goes_to_who_has_space(self) -> None:
        self.report()
        self.fill(self.old)
        self.report()
        self.cluster.until(lambda: not self.old.pump.leading, 2 * AGAIN_SECONDS)
        new = self.cluster.leader()
        self.assertIn(new, self.others)
        for node in self.others:
            self.cluster.put(node, b"k", b"w")
            self.assertEqual(self.cluster.read(node, b"k"), b"w")
        self.failureResultOf(self.old.write(Put(b"k", b"x")), NoSpace)
        self.cluster.machines[self.old.pump.node_id].disk.space = 1 << 30
        self.cluster.run(1)
        self.assertEqual(self.cluster.read(self.old, b"k"), b"w")
        self.cluster.put(self.old, b"k", b"x")

    def test_it_stays_where_too_few_others_could_vote(self) -> None:
        full = self.others[0]
        self.fill(self.old, full)
        self.report()
        self.cluster.run(2 * AGAIN_SECONDS)
        self.assertTrue(self.old.pump.leading)
        self.assertEqual(self.old.pump.leader_changes, 1)
        for node in self.cluster.nodes():
            self.assertEqual(self.cluster.read(node, b"k"), b"v")
        self.cluster.machines[full.pump.node_id].disk.space = 1 << 30
        self.cluster.run(1)
        self.report()
        self.cluster.until(lambda: not self.old.pump.leading, 2 * AGAIN_SECONDS)
        self.cluster.put(self.cluster.leader(), b"k", b"w")

    def test_it_stays_where_the_others_do_not_reach_each_other(self) -> None:
        one, other = (node.pump.node_id for node in self.others)
        self.cluster.cut |= {(one, other), (other, one)}
        self.fill(self.old)
        self.report()
        self.cluster.run(2 * AGAIN_SECONDS)
        self.assertTrue(self.old.pump.leading)
        self.assertEqual(self.cluster.read(self.others[0], b"k"), b"v")
        self.cluster.cut.clear()
        self.report()
        self.cluster.until(lambda: not self.old.pump.leading, 2 * AGAIN_SECONDS)
        self.cluster.put(self.cluster.leader(), b"k", b"w")

    def test_who_says_nothing_is_not_asked(self) -> None:
        self.fill(self.old)
        self.cluster.run(2 * AGAIN_SECONDS)
        self.assertTrue(self.old.pump.leading)


class EarlyAcknowledgements(SynchronousTestCase):
    """With --sync-interval what the disk takes again is answered at once, and more
    follows from that."""

    def test_space_that_comes_back_is_used(self) -> None:
        cluster = Cluster(1, sync_interval=0.05)
        node = cluster.leader()
        machine = cluster.machines[1]
        while node.pump.writer.full is None:
            machine.disk.space = 0
            waiting = node.write(Put(b"k", b"x" * 100))
            cluster.run(0.002)
        machine.disk.space = 1 << 30
        cluster.result(waiting)
        self.assertEqual(machine.stopped, [])
        cluster.put(node, b"k", b"w")
