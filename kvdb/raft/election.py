"""
Asking for votes, and giving them (paper, section 5.2; thesis, section 9.6).

Three ways into an election: a time-out, a pre-vote first where that is asked
for, or at once because the leader hands over; the last is marked in the
message, so that those who still hear the leader answer too.
"""

from __future__ import annotations

import enum

from kvdb.raft.messages import (
    NO_NODE,
    EntryType,
    Message,
    MessageType,
    Role,
)
from kvdb.raft.quorum import VoteResult
from kvdb.raft.state import Raft

TRANSFER_CONTEXT = b"CampaignTransfer"
"""The context of a vote request that the leader itself asked for."""

VOTE_NAMES = {
    MessageType.VOTE: "MsgVote",
    MessageType.VOTE_RESP: "MsgVoteResp",
    MessageType.PRE_VOTE: "MsgPreVote",
    MessageType.PRE_VOTE_RESP: "MsgPreVoteResp",
}

_SCAN_BYTES = 1 << 20
"""How much of the log is read at once in search of membership changes."""


class Campaign(enum.Enum):
    """How an election begins."""

    PRE_ELECTION = "pre-election"
    ELECTION = "election"
    TRANSFER = "transfer"


def response_type(request: MessageType) -> MessageType:
    """The answer to a vote request."""
    if request is MessageType.VOTE:
        return MessageType.VOTE_RESP
    return MessageType.PRE_VOTE_RESP


def hup(raft: Raft, campaign: Campaign) -> None:
    """Campaign, unless something speaks against it."""
    if raft.role is Role.LEADER:
        raft.logger.debug(f"{raft.id:x} ignoring MsgHup because already leader")
        return
    if not raft.promotable:
        raft.logger.warning(f"{raft.id:x} is unpromotable and can not campaign")
        return
    if _has_unapplied_conf_change(raft):
        # Its quorum may not be the one in force.
        raft.logger.warning(
            f"{raft.id:x} cannot campaign at term {raft.term} since there are still"
            " pending configuration changes to apply"
        )
        return
    raft.logger.info(f"{raft.id:x} is starting a new election at term {raft.term}")
    start_campaign(raft, campaign)


def _has_unapplied_conf_change(raft: Raft) -> bool:
    log = raft.log
    low = log.applied + 1
    while low <= log.committed:
        entries = log.slice(low, log.committed + 1, _SCAN_BYTES)
        if any(entry.type is not EntryType.NORMAL for entry in entries):
            return True
        low += len(entries)
    return False


def start_campaign(raft: Raft, campaign: Campaign) -> None:
    """Ask every voter, oneself too."""
    if campaign is Campaign.PRE_ELECTION:
        raft.become_pre_candidate()
        kind = MessageType.PRE_VOTE
        term = raft.term + 1  # the one it would campaign in
    else:
        raft.become_candidate()
        kind = MessageType.VOTE
        term = raft.term
    context = TRANSFER_CONTEXT if campaign is Campaign.TRANSFER else b""
    last_index = raft.log.last_index()
    last_term = raft.log.last_term()
    for node in sorted(raft.tracker.configuration.voters):
        if node == raft.id:
            # Counted once it is durable, like anybody's vote.
            raft.send(Message(response_type(kind), to=node, term=term))
            continue
        raft.logger.info(
            f"{raft.id:x} [logterm: {last_term}, index: {last_index}] sent"
            f" {VOTE_NAMES[kind]} request to {node:x} at term {raft.term}"
        )
        raft.send(
            Message(
                kind,
                to=node,
                term=term,
                index=last_index,
                log_term=last_term,
                context=context,
            )
        )


def refuse_in_lease(raft: Raft, message: Message) -> bool:
    """
    Whether a request for a vote in a higher term is to be left unanswered,
    because a leader is being heard (paper, section 6, last paragraphs).
    """
    if message.context == TRANSFER_CONTEXT or not raft.in_lease:
        return False
    remaining = raft.config.election_tick - raft.election_elapsed
    raft.logger.info(
        f"{_voter(raft)} ignored {_request(raft, message)}: lease is not expired"
        f" (remaining ticks: {remaining})"
    )
    return True


def handle_vote_request(raft: Raft, message: Message) -> None:
    """Give or refuse a vote, or a promise of one."""
    can_vote = (
        raft.vote == message.from_
        or (raft.vote == NO_NODE and raft.leader == NO_NODE)
        or (message.type is MessageType.PRE_VOTE and message.term > raft.term)
    )
    if can_vote and raft.log.is_up_to_date(message.index, message.log_term):
        raft.logger.info(f"{_voter(raft)} cast {_request(raft, message, 'for')}")
        # At the candidate's term, which with a pre-vote is not one's own.
        raft.send(
            Message(response_type(message.type), to=message.from_, term=message.term)
        )
        if message.type is MessageType.VOTE:
            raft.election_elapsed = 0
            raft.vote = message.from_
    else:
        reject_vote(raft, message)


def reject_vote(raft: Raft, message: Message) -> None:
    """Refuse, at one's own term."""
    raft.logger.info(f"{_voter(raft)} rejected {_request(raft, message)}")
    raft.send(
        Message(
            response_type(message.type),
            to=message.from_,
            term=raft.term,
            reject=True,
        )
    )


def poll(raft: Raft, node: int, kind: MessageType, granted: bool) -> VoteResult:
    """Count a vote; where the election stands."""
    what = VOTE_NAMES[kind] if granted else f"{VOTE_NAMES[kind]} rejection"
    raft.logger.info(f"{raft.id:x} received {what} from {node:x} at term {raft.term}")
    raft.tracker.record_vote(node, granted)
    yes, no, result = raft.tracker.tally()
    raft.logger.info(
        f"{raft.id:x} has received {yes} {VOTE_NAMES[kind]} votes and {no} vote"
        " rejections"
    )
    return result


def _voter(raft: Raft) -> str:
    return (
        f"{raft.id:x} [logterm: {raft.log.last_term()}, index:"
        f" {raft.log.last_index()}, vote: {raft.vote:x}]"
    )


def _request(raft: Raft, message: Message, preposition: str = "from") -> str:
    return (
        f"{VOTE_NAMES[message.type]} {preposition} {message.from_:x} [logterm:"
        f" {message.log_term}, index: {message.index}] at term {raft.term}"
    )
