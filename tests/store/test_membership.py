"""Who is a member, and which changes fit."""

from __future__ import annotations

from typing import Any

from kvdb.raft.messages import ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState
from kvdb.store.commands import (
    Delete,
    Member,
    Outcome,
    OutcomeStatus,
    Reason,
    RegisterInstance,
)
from kvdb.store.encoding import Judged, UnknownCommand, encode_member_change
from kvdb.store.membership import CAUGHT_UP_ENTRIES, explain
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Store
from tests.store.entries import FIRST, TIME_MS, Changer, changed
from tests.store.suite import OnRocks, StoreTestCase

DONE, NOT_FOUND = OutcomeStatus.DONE, OutcomeStatus.NOT_FOUND
REFUSED = OutcomeStatus.REFUSED
ADD, REMOVE = ConfChangeType.ADD_NODE, ConfChangeType.REMOVE_NODE
LEARN, UPDATE = ConfChangeType.ADD_LEARNER_NODE, ConfChangeType.UPDATE_NODE


class MembershipTests(StoreTestCase):
    """Who is a member."""

    def setUp(self) -> None:
        super().setUp()
        self.changer = Changer(self.store)
        self.change = self.changer.change

    def refused(self, *args: Any) -> Reason:
        before = (dict(self.store.members), set(self.store.removed))
        outcome = self.change(*args)
        self.assertEqual(outcome.status, REFUSED)
        self.assertEqual((self.store.members, self.store.removed), before)
        return outcome.reason

    def test_a_new_cluster_has_the_members_it_was_given(self) -> None:
        store = Store.open(MemoryEngines())
        two = Member(2, "http://b:1")
        store.bootstrap(9, [two, FIRST])
        self.assertEqual(list(store.members.items()), [(1, FIRST), (2, two)])
        self.assertEqual(store.conf_state, ConfState((1, 2)))
        self.assertEqual((store.applied_index, store.applied_term), (1, 1))
        self.assertEqual((store.cluster_id, store.poll_flush()), (9, 1))
        self.assertRaises(AssertionError, store.bootstrap, 9, [FIRST])

    def test_a_member_comes_learns_votes_and_goes(self) -> None:
        self.assertEqual(self.change(LEARN, 2, "http://b:1"), Outcome(DONE))
        self.assertEqual(self.store.members[2], Member(2, "http://b:1", learner=True))
        self.assertEqual(self.change(ADD, 2), Outcome(DONE))
        self.assertEqual(self.store.members[2], Member(2, "http://b:1"))
        self.assertEqual(self.store.conf_state, ConfState((1, 2)))
        self.assertEqual(self.change(REMOVE, 2), Outcome(DONE))
        self.assertEqual((self.store.members, self.store.removed), ({1: FIRST}, {2}))
        self.reopen()
        self.assertEqual((self.store.members, self.store.removed), ({1: FIRST}, {2}))

    def test_what_does_not_fit_is_refused(self) -> None:
        judged = Judged((1,))
        for reason, *change in (
            (Reason.ONLY_VOTER, REMOVE, 1),
            (Reason.NO_MEMBER, REMOVE, 7),
            (Reason.IS_MEMBER, LEARN, 1, "http://x:1"),
            (Reason.URL_TAKEN, LEARN, 2, "http://A:1/"),
            (Reason.URL_TAKEN, LEARN, 2, "http://A:1/", b"", judged),
            (Reason.BAD_URL, LEARN, 2, "nonsense", b"", judged),
            (Reason.BAD_URL, LEARN, 2, "http://[::1]foo:81", b"", judged),
            (Reason.NO_LEARNER, ADD, 2),
            (Reason.NO_LEARNER, ADD, 1),
            (Reason.NOT_SUPPORTED, UPDATE, 1),
        ):
            self.assertEqual(self.refused(*change), reason, change)
        self.change(LEARN, 2, "http://b:1")
        self.change(REMOVE, 2)
        self.assertEqual(self.refused(LEARN, 2, "http://c:1"), Reason.WAS_REMOVED)

    def test_why_is_told_in_words(self) -> None:
        for reason in Reason:
            outcome = Outcome(REFUSED, reason=reason, number=3)
            self.assertTrue(explain(outcome, 2, "http://b:1"))
        taken = Outcome(REFUSED, reason=Reason.URL_TAKEN, number=3)
        self.assertEqual(
            explain(taken, 2, "http://b:1"), "http://b:1 is the URL of member 3"
        )
        bad = Outcome(REFUSED, reason=Reason.BAD_URL)
        self.assertIn("0.0.0.0", explain(bad, 2, "http://0.0.0.0:1"))

    def voters(self, *nodes: int) -> None:
        """Let these vote, each added as earlier releases add one."""
        for node in nodes:
            self.change(LEARN, node, f"http://v{node}:1")
            self.change(ADD, node)

    def test_what_is_left_can_commit_with_those_that_were_reached(self) -> None:
        self.voters(2, 3, 4)
        judged = Judged((1, 2, 3))
        self.assertEqual(self.change(REMOVE, 1, "", b"", judged), Outcome(DONE))
        # As it was judged, it fitted; now it would leave 3 and 4.
        few = Outcome(REFUSED, reason=Reason.TOO_FEW_REACHED, number=1)
        self.assertEqual(self.change(REMOVE, 2, "", b"", judged), few)
        self.assertEqual(self.change(REMOVE, 4, "", b"", judged), Outcome(DONE))
        self.assertEqual(self.change(REMOVE, 2, "", b"", judged), Outcome(DONE))
        self.assertEqual(self.store.conf_state, ConfState((3,)))

    def test_an_entry_of_an_earlier_release_is_judged_as_there(self) -> None:
        self.voters(2, 3, 4)
        for node in (1, 2):
            self.assertEqual(self.change(REMOVE, node), Outcome(DONE))
        # Whatever a Python let in, all let in; two spellings are one address.
        for node, url in enumerate(
            ("http://[::1]foo:81", "http://0.0.0.0:1", "nonsense", "http://a..b:1"), 5
        ):
            self.assertEqual(self.change(LEARN, node, url), Outcome(DONE), url)
        self.assertEqual(self.refused(LEARN, 9, "tcp://[::1]:81/"), Reason.URL_TAKEN)
        for url in ("http://" + "a" * 1018 + ":1", "http://\u00e4:1"):
            self.assertEqual(self.refused(LEARN, 9, url), Reason.BAD_URL)

    def test_a_voter_is_made_of_who_is_reached_and_caught_up(self) -> None:
        self.change(LEARN, 2, "http://b:1")
        self.do(*[Delete(b"/none")] * CAUGHT_UP_ENTRIES)
        index = self.store.applied_index
        far = Judged((1, 2), index - CAUGHT_UP_ENTRIES - 1)
        self.assertEqual(self.refused(ADD, 2, "", b"", far), Reason.NOT_CAUGHT_UP)
        alone = Judged((1,), index)
        self.assertEqual(self.refused(ADD, 2, "", b"", alone), Reason.TOO_FEW_REACHED)
        near = Judged((1, 2), self.store.applied_index - CAUGHT_UP_ENTRIES)
        self.assertEqual(self.change(ADD, 2, "", b"", near), Outcome(DONE))

    def test_what_may_pass_is_judged_again_under_the_same_key(self) -> None:
        self.voters(2)
        self.assertEqual(
            self.refused(REMOVE, 1, "", b"t", Judged((1,))), Reason.TOO_FEW_REACHED
        )
        for judged in (Judged((1, 2)), Judged((1,))):
            self.assertEqual(self.change(REMOVE, 1, "", b"t", judged), Outcome(DONE))

    def test_a_change_concerns_one_member(self) -> None:
        context = encode_member_change(5, 1, TIME_MS, 2, "http://b:1", b"")
        for changes in (
            (),
            (ConfChangeSingle(LEARN, 3),),
            (ConfChangeSingle(LEARN, 2), ConfChangeSingle(LEARN, 3)),
        ):
            outcome = self.changer.commit(ConfChangeV2(changes, context=context), 2)
            self.assertEqual(outcome.status, REFUSED)
            self.assertEqual(outcome.reason, Reason.NOT_ONE_MEMBER)

    def test_a_change_that_is_none_of_ours_is_not_passed_over(self) -> None:
        v2 = ConfChangeV2((ConfChangeSingle(LEARN, 2),))
        self.assertRaises(UnknownCommand, self.store.check_change, 2, v2)

    def test_a_retried_change_gets_its_first_outcome(self) -> None:
        first = self.change(LEARN, 2, "http://b:1", b"t")
        self.assertEqual(self.change(LEARN, 2, "http://b:1", b"t"), first)
        self.assertEqual(first, Outcome(DONE))
        failed = self.change(LEARN, 2, "http://b:1", b"u")
        self.assertEqual(self.change(LEARN, 2, "http://b:1", b"u"), failed)
        other = self.change(LEARN, 3, "http://c:1", b"t")
        self.assertEqual((other.status, list(self.store.members)), (REFUSED, [1, 2]))

    def test_the_kind_of_a_change_tells_it_apart(self) -> None:
        self.change(LEARN, 2, "http://b:1")
        self.assertEqual(self.change(ADD, 2, "", b"t"), Outcome(DONE))
        other = self.change(REMOVE, 2, "", b"t")
        self.assertEqual((other.status, list(self.store.members)), (REFUSED, [1, 2]))

    def test_a_change_comes_in_order(self) -> None:
        context = encode_member_change(5, 1, TIME_MS, 2, "http://b:1", b"")
        v2 = ConfChangeV2((ConfChangeSingle(LEARN, 2),), context=context)
        state = changed(self.store.conf_state, LEARN, 2)
        with self.assertRaisesRegex(AssertionError, "out of order"):
            self.store.apply_conf_change(7, 1, v2, state)

    def test_a_member_lives_in_one_data_directory(self) -> None:
        self.assertEqual(self.one(RegisterInstance(1, 9)), (DONE, 0))
        self.assertEqual(self.one(RegisterInstance(1, 9)), (DONE, 0))
        [other] = self.do(RegisterInstance(1, 8))
        self.assertEqual(other, Outcome(REFUSED, reason=Reason.OTHER_DIRECTORY))
        self.assertEqual(self.one(RegisterInstance(4, 8)), (NOT_FOUND, 0))
        self.reopen()
        self.assertEqual(self.store.members[1].instance_id, 9)

    def test_a_learner_registers_and_stays_one(self) -> None:
        self.change(LEARN, 2, "http://b:1")
        self.do(RegisterInstance(2, 9))
        expected = Member(2, "http://b:1", 9, learner=True)
        self.assertEqual(self.store.members[2], expected)
        self.reopen()
        self.assertEqual(self.store.members[2], expected)


class MembershipOnRocksTests(OnRocks, MembershipTests):
    """On the engine of real members."""
