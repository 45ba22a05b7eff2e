"""
What a candidate does with a message: count votes, or give way to a leader.

Rule: a candidate leads only once its own vote is counted, which it is once it
is durable (L{kvdb.raft.state}).  The votes of others may be a majority before
that; to lead on them alone would be to act on a term that a loss of power takes
back, and with it the vote: the member could be elected in that term again, and
give an index another entry of the same term.
"""

from __future__ import annotations

from kvdb.raft.config import ProposalDropped
from kvdb.raft.election import Campaign, poll, start_campaign
from kvdb.raft.follower import handle_append, handle_heartbeat, handle_snapshot
from kvdb.raft.messages import NO_NODE, Message, MessageType, Role
from kvdb.raft.quorum import VoteResult
from kvdb.raft.replication import broadcast_append
from kvdb.raft.state import ROLE_NAMES, Raft

_FROM_LEADER = {
    MessageType.APP: handle_append,
    MessageType.HEARTBEAT: handle_heartbeat,
    MessageType.SNAP: handle_snapshot,
}


def step_candidate(raft: Raft, message: Message) -> None:
    """A message of this term, or a local one; for pre-candidates too."""
    kind = message.type
    awaited = (
        MessageType.PRE_VOTE_RESP
        if raft.role is Role.PRE_CANDIDATE
        else MessageType.VOTE_RESP
    )
    if kind in _FROM_LEADER:
        # Somebody won this term already.
        raft.become_follower(message.term, message.from_)
        _FROM_LEADER[kind](raft, message)
    elif kind is awaited:
        _count(raft, message)
    elif kind is MessageType.PROP:
        raft.logger.info(
            f"{raft.id:x} no leader at term {raft.term}; dropping proposal"
        )
        raise ProposalDropped
    elif kind is MessageType.TIMEOUT_NOW:
        raft.logger.debug(
            f"{raft.id:x} [term {raft.term} state {ROLE_NAMES[raft.role]}] ignored"
            f" MsgTimeoutNow from {message.from_:x}"
        )


def _count(raft: Raft, message: Message) -> None:
    result = poll(raft, message.from_, message.type, not message.reject)
    if result is VoteResult.WON:
        if raft.role is Role.PRE_CANDIDATE:
            start_campaign(raft, Campaign.ELECTION)
        elif raft.id in raft.tracker.votes:
            raft.become_leader()
            broadcast_append(raft)
    elif result is VoteResult.LOST:
        # At its own term: a pre-vote's answer may bear the one to come.
        raft.become_follower(raft.term, NO_NODE)
