"""What a member says of the others: what is known, of one moment, or nothing."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from kvdb.interfaces import MemberStatus
from kvdb.node.node import Node
from kvdb.node.reports import FRESH_SECONDS
from tests.node.cluster import Cluster


def member(node: Node, number: int) -> MemberStatus:
    """A row of C{node}'s status."""
    [found] = [m for m in node.status().members if m.id == number]
    return found


class Lag(SynchronousTestCase):
    def test_of_a_leader_that_has_gone_nothing_is_known(self) -> None:
        cluster = Cluster(3)
        before = cluster.leader()
        for number in range(20):
            cluster.put(before, b"/k%d" % number, b"v")
        gone = before.pump.node_id
        cluster.machines[gone].crash()
        after = cluster.leader()
        cluster.put(after, b"/k", b"v")
        cluster.run(0.1)
        row = member(after, gone)
        self.assertEqual((row.match_index, row.lag), (None, None))
        own = after.pump.node_id
        self.assertEqual(member(after, own).lag, 0)
        [other] = {1, 2, 3} - {gone, own}
        last = after.pump.raft.core.log.last_index()
        row = member(after, other)
        self.assertEqual((row.match_index, row.lag), (last, 0))

    def test_a_follower_that_stopped_is_behind_by_what_it_lacks(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        cluster.settle()
        [other, _] = {1, 2, 3} - {leader.pump.node_id}
        cluster.machines[other].crash()
        for number in range(7):
            cluster.put(leader, b"/k%d" % number, b"v")
        self.assertEqual(member(leader, other).lag, 7)

    def test_a_row_is_of_the_moment_of_its_report(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        cluster.settle()
        [other, _] = {1, 2, 3} - {leader.pump.node_id}
        report = cluster.node(other).report()
        leader.report_received(other, evolve(report, last_index=report.last_index - 2))
        for number in range(7):
            cluster.put(leader, b"/k%d" % number, b"v")
        row = member(leader, other)
        self.assertEqual((row.lag, row.applied_index), (2, report.applied_index))
        cluster.run(FRESH_SECONDS + 1)
        row = member(leader, other)
        self.assertEqual((row.lag, row.applied_index), (0, None))
