"""What becomes of those who wait for a write."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Any

from attrs import fields_dict
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


class Case(SynchronousTestCase):
    """Proposals of one member, and those who take them."""

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


class ProposalsTests(Case):
    """Queue, proposal, outcome; time that runs out."""

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

    def test_nothing_is_kept_of_those_whose_time_ran_out(self) -> None:
        for now in range(1000):
            self.submit(b"queued", now=float(now)).addErrback(lambda _: None)
            self.proposals.expire(float(now), "no leader")
        self.assertEqual(len(self.proposals), 10)
        self.proposals.expire(1010.0, "no leader")
        kept = {
            name: value
            for name in fields_dict(Proposals)
            if isinstance(value := getattr(self.proposals, name), Sized)
            and name != "failed"
            and len(value)
        }
        self.assertEqual((kept, self.proposals.queued_bytes), ({}, 0))
        self.submit(b"a", now=1010.0)
        self.proposals.offer(self.batches.append, 3)
        self.assertEqual(self.proposed(), [[[b"a"]]])

    def test_many_whose_time_ran_out_together_cost_a_pass_each(self) -> None:
        looked_at: list[int] = []

        class Table(dict[int, Any]):
            def items(self) -> Any:
                for number, item in super().items():
                    looked_at.append(number)
                    yield number, item

        self.proposals._queue = Table()
        for _ in range(100):
            self.submit(b"x").addErrback(lambda _: None)
        self.proposals.expire(10.0, "late")
        self.assertEqual((len(looked_at), len(self.proposals)), (100, 0))

    def test_what_is_carried_over_goes_before_what_came_later(self) -> None:
        for data in (b"a", b"b"):
            self.submit(data)
        self.proposals.offer(self.batches.append, 3)
        self.submit(b"c")
        self.proposals.offer(self.batches.append, 4)
        self.submit(b"d")
        self.proposals.applied_term(4)
        self.proposals.offer(self.batches.append, 4)
        self.assertEqual(self.proposed()[2:], [[[b"a", b"b", b"d"]]])
        self.proposals.offer(self.batches.append, 4)
        self.assertEqual((len(self.batches), self.proposals.queued_bytes), (3, 0))

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


class WindowTests(Case):
    """What a follower passes on at a time."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(proposals, "MAX_PASSED_BYTES", 4)

    def pass_on(self, term: int = 3) -> list[bytes]:
        """What more is passed on."""
        before = len(self.batches)
        self.proposals.offer(self.batches.append, term, elsewhere=True)
        return [
            data
            for batch in self.proposed()[before:]
            for entry in batch
            for data in entry
        ]

    def fill(self) -> list[Deferred[Outcome]]:
        """Fill the window, with two more that wait."""
        waiting = [self.submit(data) for data in (b"aa", b"bb", b"cc", b"dd")]
        self.assertEqual(self.pass_on(), [b"aa", b"bb"])
        self.assertEqual(self.pass_on(), [])
        counts = (self.proposals.passed_bytes, self.proposals.queued_bytes)
        self.assertEqual(counts, (4, 4))
        return waiting

    def test_the_rest_is_passed_on_as_outcomes_come(self) -> None:
        waiting = self.fill()
        self.proposals.settle(5, 1, DONE)
        self.assertEqual(self.pass_on(), [b"cc"])
        self.proposals.settle(5, 3, DONE)
        self.proposals.settle(5, 2, DONE)
        self.assertEqual(self.pass_on(), [b"dd"])
        self.proposals.settle(5, 4, DONE)
        for one in waiting:
            self.successResultOf(one)
        counts = (self.proposals.passed_bytes, self.proposals.queued_bytes)
        self.assertEqual(counts, (0, 0))

    def test_the_rest_can_still_be_refused(self) -> None:
        waiting = self.fill()
        self.proposals.expire(10.0, "the leader did not answer")
        for one, error in zip(
            waiting,
            (OutcomeUnknown, OutcomeUnknown, Unavailable, Unavailable),
            strict=True,
        ):
            self.failureResultOf(one, error)
        self.assertEqual(self.proposals.passed_bytes, 0)

    def test_one_that_is_longer_than_the_window_goes_alone(self) -> None:
        for data in (b"a", b"longer", b"b", b"c"):
            self.submit(data)
        self.assertEqual(self.pass_on(), [b"a"])
        self.proposals.settle(5, 1, DONE)
        self.assertEqual(self.pass_on(), [b"longer"])
        self.assertEqual(self.pass_on(), [])
        self.proposals.settle(5, 2, DONE)
        self.assertEqual(self.pass_on(), [b"b", b"c"])

    def test_the_window_does_not_leak_whatever_is_lost(self) -> None:
        losses: list[tuple[str, int, Callable[[Proposals], None]]] = [
            ("another connection", 3, lambda p: p.open_window()),
            ("another leader", 4, lambda p: None),
            ("a snapshot", 3, lambda p: p.lost_sight()),
            ("time", 3, lambda p: p.expire(10.0, "late")),
        ]
        for what, term, lose in losses:
            with self.subTest(what):
                self.setUp()
                lost = [self.submit(data) for data in (b"aa", b"bb")]
                self.assertEqual(self.pass_on(), [b"aa", b"bb"])
                later = self.submit(b"cccc", now=5.0)
                lose(self.proposals)
                self.assertEqual(self.pass_on(term), [b"cccc"])
                # What is over gives nothing back a second time.
                self.proposals.expire(10.0, "late")
                for one in lost:
                    self.failureResultOf(one, OutcomeUnknown)
                self.assertEqual(self.proposals.passed_bytes, 4)
                self.proposals.settle(5, 3, DONE)
                self.successResultOf(later)
                self.assertEqual(self.proposals.passed_bytes, 0)

    def test_what_is_carried_over_takes_a_part_of_the_new_window(self) -> None:
        self.fill()
        self.assertEqual(self.pass_on(4), [b"cc", b"dd"])
        self.proposals.applied_term(4)
        self.assertEqual(self.proposals.queued_bytes, 4)
        self.assertEqual(self.pass_on(4), [])
        self.proposals.settle(5, 3, DONE)
        self.assertEqual(self.pass_on(4), [b"aa"])

    def test_who_leads_has_no_window(self) -> None:
        for _ in range(9):
            self.submit(b"aaaa")
        self.proposals.offer(self.batches.append, 3)
        self.assertEqual(self.proposals.queued_bytes, 0)
        self.assertEqual(self.proposals.passed_bytes, 0)

    def test_what_was_not_sent_stays_queued_and_takes_no_part(self) -> None:
        waiting = self.submit(b"aaaa")
        self.proposals.offer(self.refuse, 3, elsewhere=True)
        self.assertEqual(self.proposals.passed_bytes, 0)
        self.proposals.expire(10.0, "no connection")
        self.failureResultOf(waiting, Unavailable)

    def test_what_was_judged_is_judged_again_when_it_leaves_the_queue(self) -> None:
        made = [b"second", b"the third"]
        sequence = self.proposals.next_sequence()
        done: Deferred[Outcome] = Deferred()
        self.proposals.submit(
            0.0,
            sequence,
            b"first",
            done,
            EntryType.CONF_CHANGE_V2,
            lambda: made.pop(0),
        )
        self.proposals.offer(self.refuse, 3)
        self.assertEqual(self.proposals.queued_bytes, len(b"second"))
        self.proposals.offer(self.batches.append, 3)
        self.assertEqual(self.proposed(), [[[b"the third"]]])
        self.assertEqual(self.proposals.queued_bytes, 0)
        self.settle_all()
        self.assertEqual(self.successResultOf(done), DONE)

    def test_what_does_not_fit_any_more_is_not_proposed(self) -> None:
        def renew() -> bytes:
            raise Unavailable("not any more")

        self.submit(b"a")
        done: Deferred[Outcome] = Deferred()
        sequence = self.proposals.next_sequence()
        kind = EntryType.CONF_CHANGE_V2
        self.proposals.submit(0.0, sequence, b"change", done, kind, renew)
        self.submit(b"b")
        self.proposals.offer(self.batches.append, 3)
        self.assertEqual(self.proposed(), [[[b"a"]], [[b"b"]]])
        self.failureResultOf(done, Unavailable)
        self.assertEqual((len(self.proposals), self.proposals.queued_bytes), (2, 0))
