"""When those who wait for a read may read."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvdb.interfaces import Unavailable
from kvdb.node import reads
from kvdb.node.reads import ASK_AGAIN_AFTER, MAX_ROUNDS, Reads
from kvdb.raft.messages import ReadState


class ReadsTests(SynchronousTestCase):
    """Rounds: asked, answered, applied."""

    def setUp(self) -> None:
        self.reads = Reads(session=5, timeout=10.0)
        self.asked: list[bytes] = []

    def ask(self, now: float = 0.0) -> bytes:
        self.reads.ask(now, self.asked.append)
        return self.asked[-1]

    def submit(self, now: float) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.reads.submit(now, done)
        return done

    def test_readers_of_one_turn_share_a_question(self) -> None:
        waiting = [self.submit(0.0) for _ in range(3)]
        context = self.ask()
        self.assertEqual(len(self.asked), 1)
        self.reads.answer(ReadState(4, context))
        self.reads.applied_to(4)
        for reader in waiting:
            self.successResultOf(reader)

    def test_nobody_reads_before_what_was_committed_is_applied(self) -> None:
        reader = self.submit(0.0)
        self.reads.answer(ReadState(4, self.ask()))
        self.reads.applied_to(3)
        self.assertNoResult(reader)
        self.reads.applied_to(5)
        self.successResultOf(reader)

    def test_a_reader_does_not_join_a_round_that_has_asked(self) -> None:
        self.submit(0.0)
        context = self.ask()
        late = self.submit(0.0)
        self.reads.answer(ReadState(1, context))
        self.reads.applied_to(1)
        self.assertNoResult(late)
        self.assertNotEqual(self.ask(), context)

    def test_no_reader_no_question(self) -> None:
        self.reads.ask(0.0, self.asked.append)
        self.assertEqual(self.asked, [])

    def test_rounds_are_bounded_and_the_next_begins_when_one_ends(self) -> None:
        for _ in range(MAX_ROUNDS + 3):
            self.submit(0.0)
            self.ask()
        self.assertEqual(len(self.asked), MAX_ROUNDS)
        self.reads.answer(ReadState(1, self.asked[0]))
        self.ask()
        self.assertEqual(len(self.asked), MAX_ROUNDS + 1)

    def test_an_unanswered_question_is_asked_again(self) -> None:
        self.submit(0.0)
        context = self.ask(0.0)
        self.reads.ask_again(ASK_AGAIN_AFTER / 2, self.asked.append, all_rounds=False)
        self.assertEqual(self.asked, [context])
        self.reads.ask_again(ASK_AGAIN_AFTER, self.asked.append, all_rounds=False)
        self.assertEqual(self.asked, [context] * 2)
        self.reads.ask_again(ASK_AGAIN_AFTER, self.asked.append, all_rounds=True)
        self.assertEqual(self.asked, [context] * 3)

    def test_an_answer_that_nobody_waits_for_is_ignored(self) -> None:
        self.reads.answer(ReadState(4, b"of another life"))
        self.reads.applied_to(4)

    def test_time_runs_out_at_every_stage(self) -> None:
        confirmed = self.submit(0.0)
        self.reads.answer(ReadState(4, self.ask()))
        asked = self.submit(0.0)
        self.ask()
        gathered = self.submit(0.0)
        self.reads.expire(9.9, "no leader")
        for reader in (confirmed, asked, gathered):
            self.assertNoResult(reader)
        self.reads.expire(10.0, "no leader")
        for reader in (confirmed, asked, gathered):
            self.failureResultOf(reader, Unavailable)
        self.assertEqual(len(self.reads), 0)

    def test_at_the_end_everyone_is_told(self) -> None:
        asked = self.submit(0.0)
        self.ask()
        gathered = self.submit(0.0)
        self.reads.refuse_all("stopping")
        for reader in (asked, gathered):
            self.failureResultOf(reader, Unavailable)

    def test_a_reader_who_gives_up_leaves_the_others_alone(self) -> None:
        one, other = self.submit(0.0), self.submit(0.0)
        one.cancel()
        self.failureResultOf(one, CancelledError)
        self.reads.answer(ReadState(1, self.ask()))
        self.reads.applied_to(1)
        self.successResultOf(other)

    def test_readers_are_bounded(self) -> None:
        self.patch(reads, "MAX_WAITING", 1)
        waiting = self.submit(0.0)
        self.assertRaises(Unavailable, self.submit, 0.0)
        self.reads.answer(ReadState(1, self.ask()))
        self.reads.applied_to(1)
        self.successResultOf(waiting)
        self.submit(0.0)
