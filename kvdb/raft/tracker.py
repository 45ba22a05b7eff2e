"""
Who is a member, and what the leader knows of each.

A L{Configuration} names the members: voters (two sets while a joint
configuration lasts), learners, and learners-to-be.  The L{Tracker} holds the
configuration in force, a L{Progress} for each of its members, and the votes of
the election that is going on.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, field, frozen

from kvdb.raft.messages import ConfState
from kvdb.raft.progress import Inflights, Progress, ProgressMap
from kvdb.raft.quorum import VoteResult, joint_committed, joint_vote


def describe_ids(ids: Iterable[int]) -> str:
    """The printed form of a set of members: C{(1 2 a)}."""
    return "(" + " ".join(f"{node:x}" for node in sorted(ids)) + ")"


@frozen(slots=True)
class Configuration:
    """
    The members.

    @ivar incoming: the voters; in a joint configuration, those to come.
    @ivar outgoing: the voters before; empty unless the configuration is joint.
    @ivar learners: those who get the log and do not vote; no voter is one.
    @ivar learners_next: voters of C{outgoing} who become learners on leaving.
    @ivar auto_leave: the leader leaves the joint configuration by itself.
    """

    incoming: frozenset[int] = frozenset()
    outgoing: frozenset[int] = frozenset()
    learners: frozenset[int] = frozenset()
    learners_next: frozenset[int] = frozenset()
    auto_leave: bool = False

    @property
    def joint(self) -> bool:
        """Whether two majorities are needed."""
        return bool(self.outgoing)

    @property
    def voters(self) -> frozenset[int]:
        """All who vote, in either half."""
        return self.incoming | self.outgoing

    def conf_state(self) -> ConfState:
        """The form that snapshots and disks keep."""
        return ConfState(
            voters=tuple(sorted(self.incoming)),
            learners=tuple(sorted(self.learners)),
            voters_outgoing=tuple(sorted(self.outgoing)),
            learners_next=tuple(sorted(self.learners_next)),
            auto_leave=self.auto_leave,
        )

    def __str__(self) -> str:
        text = "voters=" + describe_ids(self.incoming)
        if self.outgoing:
            text += "&&" + describe_ids(self.outgoing)
        if self.learners:
            text += " learners=" + describe_ids(self.learners)
        if self.learners_next:
            text += " learners_next=" + describe_ids(self.learners_next)
        if self.auto_leave:
            text += " autoleave"
        return text


@define(slots=True)
class Tracker:
    """
    @ivar max_inflight: unanswered append messages allowed per member.
    @ivar max_inflight_bytes: bytes of data in them; 0 for no bound.
    @ivar progress: by member id, in order of id.
    """

    max_inflight: int
    max_inflight_bytes: int = 0
    configuration: Configuration = Configuration()
    progress: ProgressMap = field(factory=dict)
    votes: dict[int, bool] = field(factory=dict)

    def new_inflights(self) -> Inflights:
        """An empty window with this tracker's bounds."""
        return Inflights(self.max_inflight, self.max_inflight_bytes)

    def install(self, configuration: Configuration, progress: ProgressMap) -> None:
        """Put another configuration in force."""
        self.configuration = configuration
        self.progress = {node: progress[node] for node in sorted(progress)}

    def reset_progress(self, own_id: int, last_index: int) -> None:
        """A new term: nothing is known but one's own log."""
        for node, old in self.progress.items():
            self.progress[node] = Progress(
                match=last_index if node == own_id else 0,
                next=last_index + 1,
                inflights=self.new_inflights(),
                is_learner=old.is_learner,
            )

    @property
    def is_singleton(self) -> bool:
        """Whether one voter alone decides."""
        return len(self.configuration.incoming) == 1 and not self.configuration.joint

    def committed(self) -> int:
        """The highest index that a quorum holds."""
        configuration = self.configuration
        held = {node: progress.match for node, progress in self.progress.items()}
        return joint_committed(configuration.incoming, configuration.outgoing, held)

    def vote_result(self, votes: dict[int, bool]) -> VoteResult:
        """What C{votes} amount to in this configuration."""
        configuration = self.configuration
        return joint_vote(configuration.incoming, configuration.outgoing, votes)

    def quorum_active(self) -> bool:
        """Whether a quorum was heard from since the last check."""
        heard = {
            node: progress.recent_active
            for node, progress in self.progress.items()
            if not progress.is_learner
        }
        return self.vote_result(heard) is VoteResult.WON

    def record_vote(self, node: int, granted: bool) -> None:
        """A member's first vote in this election counts, no later one."""
        self.votes.setdefault(node, granted)

    def tally(self) -> tuple[int, int, VoteResult]:
        """Votes granted, votes refused, and what they amount to."""
        cast = [
            self.votes[node]
            for node, progress in self.progress.items()
            if not progress.is_learner and node in self.votes
        ]
        granted = sum(cast)
        return granted, len(cast) - granted, self.vote_result(self.votes)
