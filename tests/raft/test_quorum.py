"""
How many must agree: L{kvdb.raft.quorum}, against what a majority is by
definition.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.raft.quorum import (
    INFINITE_INDEX,
    VoteResult,
    describe_majority,
    joint_committed,
    joint_vote,
    majority_committed,
    majority_vote,
)

MAX_EXAMPLES = 200

ids = st.integers(1, 9)
voter_sets = st.frozensets(ids, max_size=7)
indexes = st.integers(0, 12)
acks = st.dictionaries(ids, indexes)
ballots = st.dictionaries(ids, st.booleans())


def majorities(voters: Collection[int]) -> list[frozenset[int]]:
    """The smallest sets of more than half of C{voters}; one, empty, of none."""
    size = len(voters) // 2 + 1 if voters else 0
    return [frozenset(chosen) for chosen in combinations(sorted(voters), size)]


def held_by_a_majority(voters: Collection[int], acked: Mapping[int, int]) -> int:
    """The highest index for which there is a majority that holds it."""
    return max(
        min((acked.get(voter, 0) for voter in majority), default=INFINITE_INDEX)
        for majority in majorities(voters)
    )


def outcomes(voters: Collection[int], votes: Mapping[int, bool]) -> set[bool]:
    """
    Whether the election can be won, and whether it can be lost, by what those
    who have not voted yet may do.
    """
    open_ = [voter for voter in voters if voter not in votes]
    possible = set()
    for count in range(len(open_) + 1):
        # Only how many grant their vote can matter; any so many will do.
        granted = {voter for voter in voters if votes.get(voter)} | set(open_[:count])
        possible.add(any(majority <= granted for majority in majorities(voters)))
    return possible


AS_RESULT = {
    frozenset({True}): VoteResult.WON,
    frozenset({False}): VoteResult.LOST,
    frozenset({True, False}): VoteResult.PENDING,
}


class Committed(SynchronousTestCase):
    """The index that a majority holds."""

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(voter_sets, acks)
    def test_it_is_the_highest_that_some_majority_holds(
        self, voters: frozenset[int], acked: dict[int, int]
    ) -> None:
        self.assertEqual(
            majority_committed(voters, acked), held_by_a_majority(voters, acked)
        )

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(voter_sets, voter_sets, acks)
    def test_of_two_halves_it_is_the_lower(
        self, incoming: frozenset[int], outgoing: frozenset[int], acked: dict[int, int]
    ) -> None:
        expected = min(
            majority_committed(incoming, acked), majority_committed(outgoing, acked)
        )
        self.assertEqual(joint_committed(incoming, outgoing, acked), expected)
        self.assertEqual(joint_committed(outgoing, incoming, acked), expected)

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(voter_sets, voter_sets, acks, ids, indexes)
    def test_it_never_goes_back_when_a_voter_goes_on(
        self,
        incoming: frozenset[int],
        outgoing: frozenset[int],
        acked: dict[int, int],
        voter: int,
        more: int,
    ) -> None:
        further = {**acked, voter: acked.get(voter, 0) + more}
        self.assertLessEqual(
            joint_committed(incoming, outgoing, acked),
            joint_committed(incoming, outgoing, further),
        )

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(voter_sets.filter(bool), acks, ids, indexes)
    def test_only_voters_count(
        self, voters: frozenset[int], acked: dict[int, int], other: int, index: int
    ) -> None:
        if other not in voters:
            self.assertEqual(
                majority_committed(voters, acked),
                majority_committed(voters, {**acked, other: index}),
            )

    def test_nobody_holds_everything(self) -> None:
        self.assertEqual(majority_committed([], {}), INFINITE_INDEX)
        self.assertEqual(joint_committed([], [], {}), INFINITE_INDEX)

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(voter_sets.filter(bool), acks)
    def test_the_table_tells_all_that_is_known(
        self, voters: frozenset[int], acked: dict[int, int]
    ) -> None:
        """A line for each voter; who is behind has the shorter bar."""
        header, *lines = describe_majority(voters, acked).splitlines()
        self.assertEqual(header, " " * len(voters) + "    idx")
        self.assertEqual(len(lines), len(voters))
        bars = {}
        for voter, line in zip(sorted(voters), lines, strict=True):
            bar, index, id = line.split()
            self.assertEqual(id, f"(id={voter:x})")
            self.assertEqual(int(index), acked.get(voter, 0))
            self.assertEqual(bar == "?", voter not in acked)
            bars[voter] = len(bar)
        known = [voter for voter in sorted(voters) if voter in acked]
        for one, other in combinations(known, 2):
            self.assertEqual(acked[one] < acked[other], bars[one] < bars[other])


class Votes(SynchronousTestCase):
    """Where an election stands."""

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(voter_sets, ballots)
    def test_it_is_decided_when_no_vote_to_come_can_change_it(
        self, voters: frozenset[int], votes: dict[int, bool]
    ) -> None:
        expected = AS_RESULT[frozenset(outcomes(voters, votes))]
        self.assertIs(majority_vote(voters, votes), expected)

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(voter_sets, voter_sets, ballots)
    def test_of_two_halves_both_must_be_won(
        self,
        incoming: frozenset[int],
        outgoing: frozenset[int],
        votes: dict[int, bool],
    ) -> None:
        halves = {majority_vote(incoming, votes), majority_vote(outgoing, votes)}
        for result in (VoteResult.LOST, VoteResult.PENDING, VoteResult.WON):
            if result in halves:
                self.assertIs(joint_vote(incoming, outgoing, votes), result)
                self.assertIs(joint_vote(outgoing, incoming, votes), result)
                break

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(voter_sets, voter_sets, ballots, ids, st.booleans())
    def test_what_is_decided_stays_so(
        self,
        incoming: frozenset[int],
        outgoing: frozenset[int],
        votes: dict[int, bool],
        voter: int,
        vote: bool,
    ) -> None:
        before = joint_vote(incoming, outgoing, votes)
        after = joint_vote(incoming, outgoing, {voter: vote, **votes})
        if before is not VoteResult.PENDING:
            self.assertIs(after, before)

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(voter_sets.filter(bool), voter_sets, ballots)
    def test_two_candidates_cannot_both_win(
        self,
        incoming: frozenset[int],
        outgoing: frozenset[int],
        votes: dict[int, bool],
    ) -> None:
        against = {voter: not vote for voter, vote in votes.items()}
        results = [joint_vote(incoming, outgoing, v) for v in (votes, against)]
        self.assertNotEqual(results, [VoteResult.WON, VoteResult.WON])

    @settings(max_examples=MAX_EXAMPLES, deadline=None)
    @given(voter_sets.filter(bool), acks, indexes)
    def test_who_holds_an_entry_could_elect_by_it(
        self, voters: frozenset[int], acked: dict[int, int], index: int
    ) -> None:
        """Commit and election count by the same majorities."""
        votes = {voter: acked.get(voter, 0) >= index for voter in voters}
        self.assertEqual(
            majority_vote(voters, votes) is VoteResult.WON,
            majority_committed(voters, acked) >= index,
        )
