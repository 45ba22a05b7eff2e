"""Who is a member, and which changes fit."""

from __future__ import annotations

from typing import Any

from kvdb.raft.messages import ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState
from kvdb.store.commands import (
    Member,
    Outcome,
    OutcomeStatus,
    RegisterInstance,
)
from kvdb.store.encoding import UnknownCommand, encode_member_change
from kvdb.store.membership import url_problem
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

    def refused(self, *args: Any) -> str:
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
        self.assertIn("the only voter", self.refused(REMOVE, 1))
        self.assertIn("not in the cluster", self.refused(REMOVE, 7))
        self.assertIn("already, at http://a:1", self.refused(LEARN, 1, "http://x:1"))
        self.assertIn("URL of member 1", self.refused(LEARN, 2, "http://A:1/"))
        self.assertIn("not http://host:port", self.refused(LEARN, 2, "nonsense"))
        self.assertIn("not a learner", self.refused(ADD, 2))
        self.assertIn("not a learner", self.refused(ADD, 1))
        self.assertIn("not supported", self.refused(UPDATE, 1))
        self.change(LEARN, 2, "http://b:1")
        self.change(REMOVE, 2)
        self.assertIn("not given again", self.refused(LEARN, 2, "http://c:1"))

    def test_a_change_concerns_one_member(self) -> None:
        context = encode_member_change(5, 1, TIME_MS, 2, "http://b:1", b"")
        for changes in (
            (),
            (ConfChangeSingle(LEARN, 3),),
            (ConfChangeSingle(LEARN, 2), ConfChangeSingle(LEARN, 3)),
        ):
            outcome = self.changer.commit(ConfChangeV2(changes, context=context), 2)
            self.assertEqual(outcome.status, REFUSED)
            self.assertIn("one member", outcome.reason)

    def test_a_change_that_is_none_of_ours_is_not_passed_over(self) -> None:
        v2 = ConfChangeV2((ConfChangeSingle(LEARN, 2),))
        self.assertRaises(UnknownCommand, self.store.check_change, v2)

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
        self.assertEqual(other.status, REFUSED)
        self.assertIn("another data directory", other.reason)
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

    def test_urls(self) -> None:
        for url in (
            "http://a:1",
            "tcp://a:1/",
            "http://[::1]:65535",
            "http://1.2.3.4:5",
            "https://a:1",
        ):
            self.assertIsNone(url_problem(url), url)
        for url in (
            "",
            "a:1",
            "http://a",
            "http://:1",
            "http://a:0",
            "http://a:65536",
            "http://a:x",
            "ftp://a:1",
            "http://a:1/path",
            "http://a:1?q",
            "http://a:1#f",
            "http://u@a:1",
            "http://[::1:1",
            "http://a,b:1",
            "http://\u00e4:1",
            "http://a\n:1",
        ):
            self.assertIsNotNone(url_problem(url), url)


class MembershipOnRocksTests(OnRocks, MembershipTests):
    """On the engine of real members."""
