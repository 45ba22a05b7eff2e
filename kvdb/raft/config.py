"""
What a member of a group is told when it is made.
"""

from __future__ import annotations

import random

from attrs import Factory, define

from kvdb.raft.logger import RaftLogger, SilentLogger
from kvdb.raft.messages import NO_LIMIT
from kvdb.raft.readonly import ReadOnlyOption


class ProposalDropped(Exception):
    """Nothing was appended: no leader, or a leader that takes none now."""

    def __str__(self) -> str:
        return "raft proposal dropped"


class PeerNotFound(Exception):
    """An answer came from somebody who is no member."""

    def __str__(self) -> str:
        return "raft: cannot step as peer not found"


class LocalMessage(Exception):
    """A message came from outside that only a node itself may send."""

    def __str__(self) -> str:
        return "raft: cannot step raft local message"


def _silent() -> RaftLogger:
    return SilentLogger()


@define(slots=True, kw_only=True)
class Config:
    """
    @ivar election_tick: ticks without a leader before a follower campaigns, at
        least; drawn up to twice that.
    @ivar heartbeat_tick: ticks between a leader's heartbeats.
    @ivar applied: how far the store has applied entries already.
    @ivar async_storage_writes: the log write and the apply are messages to
        local threads, see L{kvdb.raft.rawnode}.
    @ivar max_size_per_msg: bytes of entries in one append message.
    @ivar max_committed_size_per_ready: bytes of entries handed out to be
        applied and not yet so; 0 for the same as C{max_size_per_msg}.
    @ivar max_uncommitted_entries_size: bytes a leader takes in beyond what it
        has committed and applied; 0 for no bound.
    @ivar max_inflight_msgs: unanswered append messages per member.
    @ivar max_inflight_bytes: bytes in them; 0 for no bound.
    @ivar check_quorum: a leader that hears no quorum steps down, and whoever
        hears a leader refuses to elect another.
    @ivar pre_vote: ask before raising the term (thesis, section 9.6).
    @ivar disable_conf_change_validation: take any membership change; the
        application has its own rules.
    @ivar step_down_on_removal: a leader that is no voter any more stops
        leading.
    @ivar random: where election timeouts are drawn.
    """

    id: int
    election_tick: int
    heartbeat_tick: int
    random: random.Random
    applied: int = 0
    async_storage_writes: bool = False
    max_size_per_msg: int = NO_LIMIT
    max_committed_size_per_ready: int = 0
    max_uncommitted_entries_size: int = 0
    max_inflight_msgs: int = 256
    max_inflight_bytes: int = 0
    check_quorum: bool = False
    pre_vote: bool = False
    read_only_option: ReadOnlyOption = ReadOnlyOption.SAFE
    disable_proposal_forwarding: bool = False
    disable_conf_change_validation: bool = False
    step_down_on_removal: bool = False
    logger: RaftLogger = Factory(_silent)

    def validate(self) -> None:
        """
        @raise ValueError: the settings contradict themselves.
        """
        if self.id <= 0:
            raise ValueError(f"a member's id is above 0, not {self.id}")
        if self.heartbeat_tick <= 0:
            raise ValueError("heartbeat_tick must be above 0")
        if self.election_tick <= self.heartbeat_tick:
            raise ValueError("election_tick must be above heartbeat_tick")
        if self.max_inflight_msgs <= 0:
            raise ValueError("max_inflight_msgs must be above 0")
        if (
            self.read_only_option is ReadOnlyOption.LEASE_BASED
            and not self.check_quorum
        ):
            raise ValueError("lease-based reads need check_quorum")
