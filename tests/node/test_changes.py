"""
Membership changes asked for at the same time: what is checked before a change is
queued is checked again behind the queue, so what one of them may cost, two may not.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvdb.interfaces import (
    DatabaseError,
    MembershipRefused,
    OutcomeUnknown,
    UnknownMember,
)
from kvdb.node.node import Node
from kvdb.peer.handshake import JUDGED_VERSION
from kvdb.raft.confchange import as_v2, decode_conf_change
from kvdb.raft.messages import EntryType
from kvdb.store.encoding import MemberChange, decode_member_change
from tests.node.cluster import Cluster, url


def changes_in_log(node: Node) -> list[MemberChange]:
    """The membership changes that a member's log holds."""
    log = node.replica.log
    entries = log.entries(log.first_index(), log.last_index() + 1, 1 << 30)
    return [
        decode_member_change(as_v2(decode_conf_change(entry)).context)
        for entry in entries
        if entry.type is not EntryType.NORMAL
    ]


class ChangesAtOnce(SynchronousTestCase):
    """Of four or five members, of which some are down."""

    def begin(self, size: int, *down: int) -> Cluster:
        cluster = Cluster(size)
        leader = cluster.leader()
        if leader.pump.node_id in down:
            to = next(n for n in cluster.first if n not in down)
            cluster.result(leader.transfer_leadership(to))
        cluster.run(2.0)  # all data directories are on record
        cluster.settle()
        for node in down:
            cluster.machines[node].stop()
        cluster.run(1.0)
        return cluster

    def outcomes(self, cluster: Cluster, *asked: Deferred[Any]) -> list[Any]:
        """None for what was done, else the error."""
        results: list[Any] = []
        for one in asked:
            one.addBoth(results.append)
        cluster.until(lambda: len(results) == len(asked), 60)
        return [r.value if isinstance(r, Failure) else None for r in results]

    def check(self, cluster: Cluster, outcomes: list[Any], done: int) -> None:
        """
        So many were done, the others refused, or asked by a member that was removed
        before it could hear; and the cluster goes on.
        """
        self.assertEqual(outcomes.count(None), done, outcomes)
        for error in outcomes:
            if error is not None:
                self.assertIsInstance(error, (MembershipRefused, OutcomeUnknown))
        leader = cluster.leader()
        cluster.put(leader, b"k", b"v")
        stayed = leader.replica.store.members
        index = leader.replica.store.applied_index
        for node in cluster.nodes():
            if node.pump.node_id in stayed:
                store = node.replica.store
                cluster.until(lambda s=store: s.applied_index >= index)  # type: ignore[misc]
                self.assertEqual(store.members.keys(), stayed.keys())

    def others(self, cluster: Cluster) -> list[int]:
        """Who follows."""
        leader = cluster.leader()
        return [n.pump.node_id for n in cluster.nodes() if n is not leader]

    def test_two_removals_by_one_member(self) -> None:
        cluster = self.begin(4, 4)
        leader = cluster.leader()
        asked = [leader.remove_member(node) for node in self.others(cluster)]
        outcomes = self.outcomes(cluster, *asked)
        self.check(cluster, outcomes, done=1)
        refused = next(error for error in outcomes if error is not None)
        self.assertIn("can be reached", str(refused))
        self.assertIn("retry", refused.hint)

    def test_two_removals_by_two_members(self) -> None:
        cluster = self.begin(4, 4)
        one, two = self.others(cluster)
        asked = [
            cluster.node(one).remove_member(two),
            cluster.node(two).remove_member(one),
        ]
        self.check(cluster, self.outcomes(cluster, *asked), done=1)

    def test_the_second_is_judged_when_it_is_applied(self) -> None:
        # Both are in the leader's hands before either is applied anywhere.
        cluster = self.begin(4, 4)
        leader = cluster.leader()
        one, two = self.others(cluster)
        asked = [cluster.node(n).remove_member(n) for n in (one, two)]
        self.check(cluster, self.outcomes(cluster, *asked), done=1)
        removals = [c for c in changes_in_log(leader) if c.member_id in (one, two)]
        self.assertEqual(len(removals), 2, "the second never was in the log")
        for removal in removals:
            assert removal.judged is not None
            self.assertEqual(removal.judged.reached, (1, 2, 3))

    def test_three_removals(self) -> None:
        cluster = self.begin(5, 5)
        leader = cluster.leader()
        asked = [leader.remove_member(node) for node in self.others(cluster)]
        # Of four that are reached, two can be spared: two of three go on.
        self.check(cluster, self.outcomes(cluster, *asked), done=2)

    def test_the_leader_and_another(self) -> None:
        for first in ("leader", "other"):
            cluster = self.begin(4, 4)
            leader = cluster.leader()
            other = self.others(cluster)[0]
            nodes = [leader.pump.node_id, other]
            if first == "other":
                nodes.reverse()
            asked = [leader.remove_member(node) for node in nodes]
            self.check(cluster, self.outcomes(cluster, *asked), done=1)

    def test_removals_while_leadership_is_handed_over(self) -> None:
        cluster = self.begin(4, 4)
        leader = cluster.leader()
        one, two = self.others(cluster)
        asked: list[Deferred[Any]] = [
            cluster.node(one).remove_member(two),
            leader.transfer_leadership(one),
            cluster.node(two).remove_member(leader.pump.node_id),
        ]
        outcomes = self.outcomes(cluster, *asked)
        del outcomes[1]
        self.check(cluster, outcomes, done=1)

    def test_removals_that_are_fine_one_after_the_other_are_both_done(self) -> None:
        cluster = self.begin(5)
        leader = cluster.leader()
        asked = [
            cluster.node(node).remove_member(node) for node in self.others(cluster)[:2]
        ]
        self.check(cluster, self.outcomes(cluster, *asked), done=2)
        self.assertEqual(len(leader.replica.store.conf_state.voters), 3)

    def test_one_member_is_removed_through_all(self) -> None:
        for token, done in ((b"", 1), (b"a key", 3)):
            cluster = self.begin(4)
            gone = self.others(cluster)[0]
            asked = [
                node.remove_member(gone, token)
                for node in cluster.nodes()
                if node.pump.node_id != gone
            ]
            outcomes = self.outcomes(cluster, *asked)
            self.check(cluster, outcomes, done=done)
            for error in outcomes:
                if error is not None:
                    self.assertIsInstance(error, UnknownMember)

    def test_one_comes_and_one_goes(self) -> None:
        cluster = self.begin(4, 4)
        leader = cluster.leader()
        gone = self.others(cluster)[0]
        cluster.add(5).start()
        asked = [leader.add_member(5, url(5)), leader.remove_member(gone)]
        self.check(cluster, self.outcomes(cluster, *asked), done=2)
        store = leader.replica.store
        cluster.until(lambda: 5 in store.conf_state.voters)
        cluster.put(cluster.leader(), b"k", b"v")

    def test_the_same_url_twice(self) -> None:
        cluster = self.begin(3)
        asked = [node.add_member(9, url(9)) for node in cluster.nodes()]
        asked += [node.add_member(8, url(9)) for node in cluster.nodes()]
        self.check(cluster, self.outcomes(cluster, *asked), done=1)

    def test_who_is_gone_when_the_change_leaves_the_queue_counts_no_more(
        self,
    ) -> None:
        cluster = self.begin(5, 5)
        node = cluster.leader()
        others = self.others(cluster)
        offer = type(node.pump.proposals).offer
        # Queued while nobody takes proposals, then two more members are lost.
        proposals = node.pump.proposals
        self.patch(type(proposals), "offer", lambda *args: None)
        asked = node.remove_member(others[0])
        cluster.until(lambda: len(proposals) > 0)
        cluster.machines[others[1]].stop()
        self.patch(type(proposals), "offer", offer)
        [error] = self.outcomes(cluster, asked)
        self.assertIsInstance(error, MembershipRefused)
        self.assertEqual(
            [c.member_id for c in changes_in_log(node) if c.member_id == others[0]], []
        )
        self.assertEqual(len(proposals), 0)
        self.assertEqual(proposals.queued_bytes, 0)
        cluster.put(node, b"k", b"v")

    def test_a_learner_that_is_not_caught_up_any_more_stays_one(self) -> None:
        cluster = self.begin(3)
        node = cluster.leader()
        error: list[DatabaseError] = []
        cluster.result(node.add_member(4, url(4)))
        try:
            node.changes._check_promotion(4)
        except DatabaseError as raised:
            error.append(raised)
        self.assertEqual(len(error), 1, "a learner that never was there")
        self.assertEqual(node.replica.store.conf_state.learners, (4,))


class EarlierReleases(SynchronousTestCase):
    """Entries that they can read, while one is known to run."""

    def judged(self, versions: dict[int, int]) -> list[bool]:
        cluster = Cluster(3)
        cluster.versions = versions
        leader = cluster.leader()
        cluster.result(leader.add_member(4, url(4)))
        cluster.result(leader.remove_member(4))
        return [change.judged is not None for change in changes_in_log(leader)]

    def test_while_one_is_known_to_run_entries_are_of_its_form(self) -> None:
        now, before = JUDGED_VERSION, JUDGED_VERSION - 1
        for earlier in (1, 2, 3):
            versions = dict.fromkeys((1, 2, 3), now) | {earlier: before}
            cluster = Cluster(3)
            cluster.versions = versions
            via = cluster.node(earlier % 3 + 1)
            cluster.leader()
            cluster.result(via.add_member(4, url(4)))
            [change] = changes_in_log(via)
            self.assertIsNone(change.judged)

    def test_when_all_are_of_this_release_or_not_known_of(self) -> None:
        self.assertEqual(self.judged({}), [True, True])
        self.assertEqual(self.judged(dict.fromkeys((1, 2), 3)), [True, True])
