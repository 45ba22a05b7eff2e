"""
From one membership to the next: L{kvdb.raft.confchange}, from every
configuration that can be reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from attrs import frozen
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.raft.confchange import (
    MAX_CHANGES,
    Changer,
    ConfChangeError,
    Result,
    check_invariants,
    decode_conf_change,
    encode_conf_change,
    restore,
)
from kvdb.raft.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    Entry,
    EntryType,
)
from kvdb.raft.progress import Progress, ProgressMap
from kvdb.raft.quorum import VoteResult, joint_vote
from kvdb.raft.tracker import Configuration, Tracker

MAX_EXAMPLES = 200
MAX_INFLIGHT = 10
NODES = range(1, 6)

change_types = st.sampled_from(ConfChangeType)
changes = st.lists(
    st.builds(ConfChangeSingle, change_types, st.integers(0, NODES[-1])), max_size=5
)


@frozen
class Simple:
    """A simple change."""

    changes: list[ConfChangeSingle]

    def follow(self, changer: Changer) -> Result:
        return changer.simple(self.changes)


@frozen
class EnterJoint:
    """A change into a joint configuration."""

    auto_leave: bool
    changes: list[ConfChangeSingle]

    def follow(self, changer: Changer) -> Result:
        return changer.enter_joint(self.auto_leave, self.changes)


@frozen
class LeaveJoint:
    """The change out of it."""

    changes: tuple[()] = ()

    def follow(self, changer: Changer) -> Result:
        return changer.leave_joint()


Step = Simple | EnterJoint | LeaveJoint

steps = st.one_of(
    st.builds(Simple, changes),
    st.builds(EnterJoint, st.booleans(), changes),
    st.builds(LeaveJoint),
)
histories = st.lists(steps, max_size=8).map(
    # From the first voter on, as a group has at least one.
    lambda later: [
        Simple([ConfChangeSingle(ConfChangeType.ADD_NODE, 1)]),
        *later,
    ]
)


def follow(history: Sequence[Step]) -> Iterator[tuple[Step, Tracker, Result | None]]:
    """
    Each step of C{history}, what it found, and what came of it: None for an
    error.
    """
    tracker = Tracker(MAX_INFLIGHT)
    for last_index, step in enumerate(history):
        try:
            result = step.follow(Changer(tracker, last_index))
        except ConfChangeError:
            yield step, tracker, None
            continue
        yield step, tracker, result
        tracker = Tracker(MAX_INFLIGHT)
        tracker.install(*result)
        for progress in tracker.progress.values():
            # So that a progress that is kept is told from a new one.
            progress.maybe_update(last_index + 1)


def reached(history: Sequence[Step]) -> Tracker:
    """Where C{history} leads."""
    tracker = Tracker(MAX_INFLIGHT)
    for _, _, result in follow(history):
        if result is not None:
            tracker = Tracker(MAX_INFLIGHT)
            tracker.install(*result)
    return tracker


def copies(progress: ProgressMap) -> ProgressMap:
    return {node: one.copy() for node, one in progress.items()}


def has_quorum(configuration: Configuration, members: frozenset[int]) -> bool:
    votes = {node: node in members for node in NODES}
    result = joint_vote(configuration.incoming, configuration.outgoing, votes)
    return result is VoteResult.WON


def subsets() -> Iterator[frozenset[int]]:
    for size in range(len(NODES) + 1):
        yield from map(frozenset, combinations(NODES, size))


class Changes(SynchronousTestCase):
    """What holds of any change."""

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(histories)
    def test_what_is_given_is_not_changed(self, history: list[Step]) -> None:
        """Neither by what works nor by what is refused."""
        tracker = Tracker(MAX_INFLIGHT)
        for last_index, step in enumerate(history):
            before = tracker.configuration, copies(tracker.progress)
            result = None
            try:
                result = step.follow(Changer(tracker, last_index))
            except ConfChangeError:
                pass
            self.assertEqual((tracker.configuration, tracker.progress), before)
            if result is not None:
                for node, progress in result[1].items():
                    self.assertIsNot(progress, tracker.progress.get(node))
                tracker.install(*result)

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(histories)
    def test_what_comes_out_keeps_the_rules(self, history: list[Step]) -> None:
        """Those at the head of the module."""
        for _, _, result in follow(history):
            if result is None:
                continue
            c, progress = result
            self.assertTrue(c.incoming)
            members = c.incoming | c.outgoing | c.learners | c.learners_next
            self.assertEqual(list(progress), sorted(members))
            self.assertNotIn(0, members)
            self.assertFalse(c.voters & c.learners)
            self.assertLessEqual(c.learners_next, c.outgoing - c.incoming)
            learners = {node for node in progress if progress[node].is_learner}
            self.assertEqual(learners, c.learners)
            if not c.joint:
                self.assertFalse(c.learners_next or c.auto_leave)

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(histories)
    def test_majorities_before_and_after_overlap(self, history: list[Step]) -> None:
        """So that two leaders cannot be elected by both, side by side."""
        for _, tracker, result in follow(history):
            before = tracker.configuration
            if result is None or not before.incoming:
                continue
            after, _ = result
            for members in subsets():
                others = frozenset(NODES) - members
                self.assertFalse(
                    has_quorum(before, members) and has_quorum(after, others),
                    f"{before} and {after} by {set(members)} and {set(others)}",
                )

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(histories)
    def test_what_is_known_of_a_member_is_kept(self, history: list[Step]) -> None:
        """Unless it is removed on the way; a new one is probed."""
        for last_index, (step, tracker, result) in enumerate(follow(history)):
            if result is None:
                continue
            removed = {
                change.node_id
                for change in step.changes
                if change.type is ConfChangeType.REMOVE_NODE
            }
            for node, progress in result[1].items():
                old = tracker.progress.get(node)
                if old is None:
                    self.assertEqual(
                        (progress.match, progress.recent_active), (0, True)
                    )
                    self.assertEqual(progress.next, max(last_index, 1))
                elif node not in removed:
                    self.assertEqual(progress.match, old.match)
                    self.assertIs(progress.inflights, old.inflights)

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(histories, changes, st.booleans())
    def test_through_a_joint_configuration_or_not_the_end_is_the_same(
        self, history: list[Step], change: list[ConfChangeSingle], auto_leave: bool
    ) -> None:
        """Where a simple change would do."""
        tracker = reached(history)
        try:
            simple, _ = Changer(tracker, 20).simple(change)
        except ConfChangeError:
            assume(False)
        joint = Tracker(MAX_INFLIGHT)
        joint.install(*Changer(tracker, 20).enter_joint(auto_leave, change))
        self.assertEqual(joint.configuration.auto_leave, auto_leave)
        self.assertEqual(joint.configuration.outgoing, tracker.configuration.incoming)
        left, _ = Changer(joint, 20).leave_joint()
        self.assertEqual(left, simple)

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(histories)
    def test_a_snapshot_brings_the_same_configuration_back(
        self, history: list[Step]
    ) -> None:
        """Joint ones too, with all that waits in them."""
        tracker = reached(history)
        state = tracker.configuration.conf_state()
        configuration, progress = restore(Tracker(MAX_INFLIGHT), 20, state)
        self.assertEqual(configuration, tracker.configuration)
        self.assertEqual(list(progress), list(tracker.progress))

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(histories, changes, st.sampled_from(ConfChangeTransition))
    def test_an_applied_change_is_one_of_the_three(
        self,
        history: list[Step],
        change: list[ConfChangeSingle],
        transition: ConfChangeTransition,
    ) -> None:
        """None at all leaves; several, or a wish for it, enter; else simple."""
        changer = Changer(reached(history), 20)
        expected: Step
        if not change and transition is ConfChangeTransition.AUTO:
            expected = LeaveJoint()
        elif len(change) == 1 and transition is ConfChangeTransition.AUTO:
            expected = Simple(change)
        else:
            by_itself = transition is not ConfChangeTransition.JOINT_EXPLICIT
            expected = EnterJoint(by_itself, change)

        def outcome(result: Result) -> Configuration:
            return result[0]

        try:
            wanted: object = outcome(expected.follow(changer))
        except ConfChangeError as error:
            wanted = str(error)
        v2 = ConfChangeV2(tuple(change), transition)
        try:
            got: object = outcome(changer.change(v2))
        except ConfChangeError as error:
            got = str(error)
        self.assertEqual(got, wanted)


class Invariants(SynchronousTestCase):
    """A configuration that breaks a rule is found out."""

    def test_each_rule_is_checked(self) -> None:
        one, two = frozenset({1}), frozenset({2})
        both = one | two
        cases = [
            (Configuration(both), {}, "no progress for 2"),
            (Configuration(one, learners_next=one), {}, "not Voters"),
            (
                Configuration(two, one, learners_next=one),
                {1: True, 2: False},
                "already",
            ),
            (Configuration(two, one, learners=one), {1: True, 2: False}, "Voters.1."),
            (Configuration(both, learners=two), {2: True}, "Voters.0."),
            (Configuration(one, learners=two), {2: False}, "not marked as learner"),
            (Configuration(one, auto_leave=True), {}, "AutoLeave"),
        ]
        inflights = Tracker(MAX_INFLIGHT).new_inflights()
        for configuration, learners, message in cases:
            progress = {
                node: Progress(0, 1, inflights, is_learner=is_learner)
                for node, is_learner in {1: False, **learners}.items()
            }
            with self.assertRaisesRegex(ConfChangeError, message):
                check_invariants(configuration, progress)


conf_changes = st.one_of(
    st.builds(ConfChange, change_types, st.integers(0, 2**64 - 1), st.binary()),
    st.builds(
        ConfChangeV2,
        st.lists(
            st.builds(ConfChangeSingle, change_types, st.integers(0, 2**64 - 1)),
            max_size=4,
        ).map(tuple),
        st.sampled_from(ConfChangeTransition),
        st.binary(),
    ),
)


class Encoding(SynchronousTestCase):
    """The data of a membership entry."""

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(conf_changes)
    def test_what_is_encoded_is_read_back(
        self, change: ConfChange | ConfChangeV2
    ) -> None:
        """Of either kind."""
        kind = (
            EntryType.CONF_CHANGE
            if isinstance(change, ConfChange)
            else EntryType.CONF_CHANGE_V2
        )
        entry = Entry(1, 1, kind, encode_conf_change(change))
        self.assertEqual(decode_conf_change(entry), change)

    def test_the_empty_change_is_no_bytes(self) -> None:
        """As a leader that leaves a joint configuration proposes it."""
        self.assertEqual(encode_conf_change(ConfChangeV2()), b"")

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(st.binary(max_size=40), st.sampled_from(EntryType))
    def test_other_bytes_are_refused_or_read(
        self, data: bytes, kind: EntryType
    ) -> None:
        """By no other error than the one that says so."""
        try:
            decode_conf_change(Entry(1, 7, kind, data))
        except ValueError:
            pass

    def test_a_change_cut_short_is_refused_by_its_index(self) -> None:
        """So is one with several changes where there is place for one."""
        single = ConfChangeSingle(ConfChangeType.ADD_NODE, 3)
        data = encode_conf_change(ConfChangeV2((single, single)))
        with self.assertRaisesRegex(ValueError, "index 7 is cut short"):
            decode_conf_change(Entry(1, 7, EntryType.CONF_CHANGE_V2, data[:-1]))
        with self.assertRaisesRegex(ValueError, "index 7 holds 2 changes"):
            decode_conf_change(Entry(1, 7, EntryType.CONF_CHANGE, data))

    def test_too_many_changes_are_refused(self) -> None:
        """Before they are proposed."""
        single = ConfChangeSingle(ConfChangeType.ADD_NODE, 3)
        with self.assertRaisesRegex(ValueError, "1001 changes"):
            encode_conf_change(ConfChangeV2((single,) * (MAX_CHANGES + 1)))
