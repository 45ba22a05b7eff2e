"""What becomes of those who wait for a write."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvdb.interfaces import OutcomeUnknown, Unavailable
from kvdb.node import proposals
from kvdb.node.proposals import MAX_BATCH_BYTES, MAX_ENTRY_BYTES, Proposals
from kvdb.raft.config import ProposalDropped
from kvdb.raft.messages import Entry, EntryType
from kvdb.store.commands import Outcome, OutcomeStatus
from kvdb.store.encoding import split_commands

DONE = Outcome(OutcomeStatus.DONE, 7)


class ProposalsTests(SynchronousTestCase):
    """Queue, proposal, outcome; time that runs out."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.proposals = Proposals(session=5, timeout=10.0, clock=self.clock)
        self.batches: list[Sequence[Entry]] = []

    def proposed(self) -> list[list[list[bytes]]]:
        """What was proposed: the commands of each entry of each batch."""
        return [
            [
                split_commands(e.data) if e.type is EntryType.NORMAL else [e.data]
                for e in batch
            ]
            for batch in self.batches
        ]

    def submit(
        self, data: bytes, now: float = 0.0, kind: EntryType = EntryType.NORMAL
    ) -> Deferred[Outcome]:
        sequence = self.proposals.next_sequence()
        done: Deferred[Outcome] = Deferred()
        self.proposals.submit(now, sequence, data, done, kind)
        return done

    def settle_all(self) -> None:
        for sequence in range(1, 99):
            self.proposals.settle(5, sequence, DONE)

    def refuse(self, entries: Sequence[Entry]) -> None:
        raise ProposalDropped

    def test_all_that_wait_are_proposed_at_once_in_order(self) -> None:
        for data in (b"a", b"b", b"c"):
            self.submit(data)
        self.proposals.offer(self.batches.append, 3)
        self.assertEqual(self.proposed(), [[[b"a", b"b", b"c"]]])
        self.proposals.offer(self.batches.append, 3)
        self.assertEqual(len(self.batches), 1)

    def test_a_batch_is_bounded_in_bytes_but_takes_an_entry_of_any_size(self) -> None:
        big = b"x" * (MAX_BATCH_BYTES + 1)
        for data in (b"a", big, b"b"):
            self.submit(data)
        self.proposals.offer(self.batches.append, 3)
        self.assertEqual(self.proposed(), [[[b"a"]], [[big]], [[b"b"]]])

    def test_an_entry_is_bounded_in_bytes_but_takes_a_command_of_any_size(self) -> None:
        big = b"x" * (MAX_ENTRY_BYTES + 1)
        half = b"x" * (MAX_ENTRY_BYTES // 2)
        for data in (half, half, b"a", b"b", big, b"c"):
            self.submit(data)
        self.proposals.offer(self.batches.append, 3)
        entries = [[half, half], [b"a", b"b"], [big], [b"c"]]
        self.assertEqual(self.proposed(), [entries])

    def test_what_is_queued_is_bounded_whatever_became_of_the_rest(self) -> None:
        self.patch(proposals, "MAX_QUEUED_BYTES", 4)
        for _ in range(3):  # refused by a leader, given up, proposed
            refused = self.submit(b"four", now=0.0)
            self.assertRaises(Unavailable, self.submit, b"x")
            self.proposals.offer(self.refuse, 3)
            self.assertRaises(Unavailable, self.submit, b"x")
            self.proposals.expire(10.0, "late")
            self.failureResultOf(refused, Unavailable)
            late = self.submit(b"four", now=10.0)
            self.proposals.offer(self.batches.append, 3)
            self.proposals.applied_term(4)
            self.assertRaises(Unavailable, self.submit, b"x")
            self.proposals.offer(self.batches.append, 4)
            self.settle_all()
            self.successResultOf(late)

    def test_failures_are_counted_by_reason(self) -> None:
        self.patch(proposals, "MAX_WAITING", 2)
        taken, queued = self.submit(b"a", now=0.0), None
        self.proposals.offer(self.batches.append, 3)
        queued = self.submit(b"b", now=0.0)
        self.assertRaises(Unavailable, self.submit, b"c")
        self.proposals.expire(10.0, "late")
        self.failureResultOf(taken, OutcomeUnknown)
        self.failureResultOf(queued, Unavailable)
        self.failureResultOf(self.stopped(), Unavailable)
        self.assertEqual(
            self.proposals.failed,
            {
                "busy": 1,
                "no-space": 0,
                "not-taken": 1,
                "outcome-unknown": 1,
                "stopping": 1,
            },
        )

    def stopped(self) -> Deferred[Outcome]:
        """One that waits when the node stops."""
        waiting = self.submit(b"d", now=10.0)
        self.proposals.refuse_all("the node is stopping")
        return waiting

    def test_a_membership_change_goes_alone(self) -> None:
        self.submit(b"a")
        self.submit(b"change", kind=EntryType.CONF_CHANGE_V2)
        self.submit(b"b")
        self.proposals.offer(self.batches.append, 3)
        self.assertEqual(self.proposed(), [[[b"a"]], [[b"change"]], [[b"b"]]])

    def test_what_no_leader_takes_stays_queued_in_order(self) -> None:
        self.submit(b"a")
        self.submit(b"b")
        self.proposals.offer(self.refuse, 3)
        self.submit(b"c")
        self.proposals.offer(self.batches.append, 3)
        self.assertEqual(self.proposed(), [[[b"a", b"b", b"c"]]])

    def test_an_outcome_reaches_its_own_caller_once(self) -> None:
        first, second = self.submit(b"a"), self.submit(b"b")
        self.proposals.settle(5, 2, DONE)
        self.proposals.settle(5, 2, DONE)
        self.assertNoResult(first)
        self.assertEqual(self.successResultOf(second), DONE)

    def test_another_sessions_outcome_reaches_nobody(self) -> None:
        waiting = self.submit(b"a")
        self.proposals.settle(6, 1, DONE)
        self.assertNoResult(waiting)

    def test_time_that_runs_out_in_the_queue_means_nothing_was_done(self) -> None:
        waiting = self.submit(b"a")
        self.proposals.expire(9.9, "no leader")
        self.assertNoResult(waiting)
        self.proposals.expire(10.0, "no leader")
        error = self.failureResultOf(waiting, Unavailable).value
        self.assertEqual(str(error), "no leader")
        self.proposals.offer(self.batches.append, 3)
        self.assertEqual(self.batches, [])

    def test_time_that_runs_out_under_way_means_nobody_knows(self) -> None:
        waiting = self.submit(b"a")
        self.proposals.offer(self.batches.append, 3)
        self.proposals.expire(10.0, "no leader")
        self.failureResultOf(waiting, OutcomeUnknown)

    def test_only_those_whose_time_is_up_are_told(self) -> None:
        early, late = self.submit(b"a", now=0), self.submit(b"b", now=5)
        self.proposals.expire(12.0, "no leader")
        self.failureResultOf(early, Unavailable)
        self.assertNoResult(late)

    def test_at_the_end_everyone_is_told(self) -> None:
        under_way = self.submit(b"a")
        self.proposals.offer(self.batches.append, 3)
        queued = self.submit(b"b")
        self.proposals.refuse_all("stopping")
        self.failureResultOf(under_way, OutcomeUnknown)
        self.failureResultOf(queued, Unavailable)
        self.assertEqual(len(self.proposals), 0)

    def test_a_caller_who_gives_up_changes_nothing(self) -> None:
        waiting = self.submit(b"a")
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.proposals.offer(self.batches.append, 3)
        self.proposals.settle(5, 1, DONE)
        self.assertEqual(self.proposed(), [[[b"a"]]])

    def test_what_went_down_with_its_leader_is_proposed_again(self) -> None:
        waiting = self.submit(b"a")
        self.proposals.offer(self.batches.append, 3)
        self.proposals.applied_term(3)
        self.proposals.offer(self.batches.append, 4)
        self.assertEqual(len(self.batches), 1)
        self.proposals.applied_term(4)
        self.proposals.offer(self.batches.append, 4)
        self.assertEqual(self.proposed()[1], [[b"a"]])
        self.proposals.settle(5, 1, DONE)
        self.successResultOf(waiting)
        self.proposals.applied_term(9)
        self.proposals.offer(self.batches.append, 9)
        self.assertEqual(len(self.batches), 2)

    def test_what_a_snapshot_may_hold_is_not_proposed_again(self) -> None:
        under_way = self.submit(b"a")
        self.proposals.offer(self.batches.append, 3)
        self.proposals.lost_sight()
        self.proposals.applied_term(4)
        self.proposals.offer(self.batches.append, 4)
        self.assertEqual(len(self.batches), 1)
        self.proposals.expire(10.0, "no leader")
        self.failureResultOf(under_way, OutcomeUnknown)

    def test_too_many_or_too_much_is_refused_at_once(self) -> None:
        self.patch(proposals, "MAX_WAITING", 2)
        self.submit(b"a")
        self.submit(b"b")
        self.assertRaises(Unavailable, self.submit, b"c")
        self.patch(proposals, "MAX_WAITING", 10)
        self.patch(proposals, "MAX_QUEUED_BYTES", 2)
        self.assertRaises(Unavailable, self.submit, b"c")
        self.proposals.offer(self.batches.append, 3)
        self.submit(b"c")
