"""
How many must agree: majorities, alone and joined.

Pure arithmetic on sets of voter ids (paper, section 5.3 for commit, 5.2 for
votes; section 6 for joint configurations, where both majorities must agree).

Rules: an empty set of voters agrees to everything, so that a joint
configuration with an empty half behaves as the other half alone; a voter that
has not been heard counts as index 0 and as a vote not yet cast.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from typing import Final

INFINITE_INDEX: Final = 2**64 - 1
"""What a majority of nobody has committed."""


class VoteResult(enum.Enum):
    """Where an election stands."""

    PENDING = "VotePending"
    LOST = "VoteLost"
    WON = "VoteWon"


def majority_committed(voters: Collection[int], acked: Mapping[int, int]) -> int:
    """The highest index that more than half of C{voters} hold."""
    count = len(voters)
    if count == 0:
        return INFINITE_INDEX
    held = sorted(acked.get(voter, 0) for voter in voters)
    return held[count - (count // 2 + 1)]


def joint_committed(
    incoming: Collection[int], outgoing: Collection[int], acked: Mapping[int, int]
) -> int:
    """The highest index that both majorities hold."""
    committed = majority_committed(incoming, acked)
    if outgoing:
        committed = min(committed, majority_committed(outgoing, acked))
    return committed


def majority_vote(voters: Collection[int], votes: Mapping[int, bool]) -> VoteResult:
    """Where an election among C{voters} stands, given the C{votes} cast."""
    if not voters:
        return VoteResult.WON
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    missing = sum(1 for voter in voters if voter not in votes)
    majority = len(voters) // 2 + 1
    if granted >= majority:
        return VoteResult.WON
    if granted + missing >= majority:
        return VoteResult.PENDING
    return VoteResult.LOST


def joint_vote(
    incoming: Collection[int], outgoing: Collection[int], votes: Mapping[int, bool]
) -> VoteResult:
    """An election is won in both halves, and lost in either."""
    first = majority_vote(incoming, votes)
    second = majority_vote(outgoing, votes)
    if first is second:
        return first
    if VoteResult.LOST in (first, second):
        return VoteResult.LOST
    return VoteResult.PENDING


def describe_majority(voters: Collection[int], acked: Mapping[int, int]) -> str:
    """
    A table for people: a bar per voter, as long as the number of voters it is
    ahead of, then its index and its id.
    """
    if not voters:
        return "<empty majority quorum>"
    count = len(voters)
    lines = [" " * count + "    idx"]
    for voter in sorted(voters):
        if voter in acked:
            index = acked[voter]
            ahead = sum(1 for other in voters if acked.get(other, 0) < index)
            bar = ("x" * ahead + ">").ljust(count + 1)
        else:
            index = 0
            bar = "?" + " " * count
        lines.append(f"{bar} {index:5d}    (id={voter:x})")
    return "\n".join(lines) + "\n"
