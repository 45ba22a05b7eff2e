"""
What a follower does with a message, and a candidate with a leader's.

A follower takes the leader's entries, heartbeats and snapshots, and passes on
what only the leader can do.

Rule: a leader holds all that is committed.  One that has another entry in the place of
a committed one is not answered by that place's number: L{CommittedConflict
<kvdb.raft.log.CommittedConflict>} is raised, and the member must stop.
"""

from __future__ import annotations

from kvdb.raft.confchange import restore as restore_configuration
from kvdb.raft.config import ProposalDropped
from kvdb.raft.election import Campaign, hup
from kvdb.raft.membership import switch_to
from kvdb.raft.messages import NO_NODE, Message, MessageType, ReadState, Role, Snapshot
from kvdb.raft.readonly import ReadOnlyOption
from kvdb.raft.state import Raft


def step_follower(raft: Raft, message: Message) -> None:
    """A message of this term, or a local one."""
    kind = message.type
    if kind is MessageType.APP:
        _hear_leader(raft, message)
        handle_append(raft, message)
    elif kind is MessageType.HEARTBEAT:
        _hear_leader(raft, message)
        handle_heartbeat(raft, message)
    elif kind is MessageType.SNAP:
        _hear_leader(raft, message)
        handle_snapshot(raft, message)
    elif kind is MessageType.PROP:
        _forward_proposal(raft, message)
    elif kind is MessageType.TRANSFER_LEADER:
        _forward(raft, message, "leader transfer msg")
    elif kind is MessageType.READ_INDEX:
        _forward(raft, message, "index reading msg")
    elif kind is MessageType.READ_INDEX_RESP:
        raft.read_states.append(ReadState(message.index, message.context))
    elif kind is MessageType.FORGET_LEADER:
        _forget_leader(raft)
    elif kind is MessageType.TIMEOUT_NOW:
        raft.logger.info(
            f"{raft.id:x} [term {raft.term}] received MsgTimeoutNow from"
            f" {message.from_:x} and starts an election to get leadership."
        )
        # No pre-vote: the leader itself wants this election.
        hup(raft, Campaign.TRANSFER)


def _hear_leader(raft: Raft, message: Message) -> None:
    raft.election_elapsed = 0
    raft.leader = message.from_


def _forward_proposal(raft: Raft, message: Message) -> None:
    if raft.leader == NO_NODE:
        raft.logger.info(
            f"{raft.id:x} no leader at term {raft.term}; dropping proposal"
        )
        raise ProposalDropped
    if raft.config.disable_proposal_forwarding:
        raft.logger.info(
            f"{raft.id:x} not forwarding to leader {raft.leader:x} at term"
            f" {raft.term}; dropping proposal"
        )
        raise ProposalDropped
    message.to = raft.leader
    raft.send(message)


def _forward(raft: Raft, message: Message, what: str) -> None:
    if raft.leader == NO_NODE:
        raft.logger.info(f"{raft.id:x} no leader at term {raft.term}; dropping {what}")
        return
    message.to = raft.leader
    message.term = 0
    raft.send(message)


def _forget_leader(raft: Raft) -> None:
    if raft.read_only.option is ReadOnlyOption.LEASE_BASED:
        # The leader counts on being remembered for as long as its lease.
        raft.logger.error("ignoring MsgForgetLeader due to ReadOnlyLeaseBased")
        return
    if raft.leader != NO_NODE:
        raft.logger.info(
            f"{raft.id:x} forgetting leader {raft.leader:x} at term {raft.term}"
        )
        raft.leader = NO_NODE


def handle_append(raft: Raft, message: Message) -> None:
    """Take a leader's entries, or say where the logs may agree."""
    log = raft.log
    to = message.from_
    if message.index < log.committed:
        # An old message: what it could bring is committed here, if it is the same.
        log.check_committed(message.index, message.log_term)
        repeated = message.entries[: log.committed - message.index]
        for entry in repeated:
            log.check_committed(entry.index, entry.term)
        log.check_held(repeated)
        raft.send(Message(MessageType.APP_RESP, to=to, index=log.committed))
        return
    last = log.maybe_append(
        message.index, message.log_term, message.entries, message.commit
    )
    if last is not None:
        raft.send(Message(MessageType.APP_RESP, to=to, index=last))
        return
    log.check_committed(message.index, message.log_term)
    raft.logger.debug(
        f"{raft.id:x} [logterm: {log.term_or_zero(message.index)}, index:"
        f" {message.index}] rejected MsgApp [logterm: {message.log_term}, index:"
        f" {message.index}] from {to:x}"
    )
    # Not one index at a time (paper, section 5.3, end): nothing of a higher
    # term than the leader has there can be in its log, so skip all of those.
    hint, hint_term = log.find_conflict_by_term(
        min(message.index, log.last_index()), message.log_term
    )
    raft.send(
        Message(
            MessageType.APP_RESP,
            to=to,
            index=message.index,
            reject=True,
            reject_hint=hint,
            log_term=hint_term,
        )
    )


def handle_heartbeat(raft: Raft, message: Message) -> None:
    """Learn what is committed, and answer."""
    raft.log.commit_to(message.commit)
    raft.send(
        Message(MessageType.HEARTBEAT_RESP, to=message.from_, context=message.context)
    )


def handle_snapshot(raft: Raft, message: Message) -> None:
    """Take a snapshot's state in place of the log, where it is ahead of it."""
    snapshot = message.snapshot or Snapshot()
    raft.log.check_committed(snapshot.index, snapshot.term)
    restored = restore(raft, snapshot)
    word = "restored" if restored else "ignored"
    raft.logger.info(
        f"{raft.id:x} [commit: {raft.log.committed}] {word} snapshot [index:"
        f" {snapshot.index}, term: {snapshot.term}]"
    )
    index = raft.log.last_index() if restored else raft.log.committed
    raft.send(Message(MessageType.APP_RESP, to=message.from_, index=index))


def restore(raft: Raft, snapshot: Snapshot) -> bool:
    """Whether C{snapshot} took the place of the log and the membership."""
    log = raft.log
    if snapshot.index <= log.committed:
        return False
    if raft.role is not Role.FOLLOWER:
        raft.logger.warning(
            f"{raft.id:x} attempted to restore snapshot as leader; should never happen"
        )
        raft.become_follower(raft.term + 1, NO_NODE)
        return False
    state = snapshot.conf_state
    if raft.id not in (*state.voters, *state.learners, *state.voters_outgoing):
        raft.logger.warning(
            f"{raft.id:x} attempted to restore snapshot but it is not in the"
            f" ConfState {state}; should never happen"
        )
        return False
    if log.matches(snapshot.index, snapshot.term):
        # The log holds all of it: only the commit index is news.
        raft.logger.info(
            f"{_describe_end(raft)} fast-forwarded commit to snapshot [index:"
            f" {snapshot.index}, term: {snapshot.term}]"
        )
        log.commit_to(snapshot.index)
        return False
    log.restore(snapshot)
    switch_to(raft, *restore_configuration(raft.tracker, log.last_index(), state))
    raft.logger.info(
        f"{_describe_end(raft)} restored snapshot [index: {snapshot.index}, term:"
        f" {snapshot.term}]"
    )
    return True


def _describe_end(raft: Raft) -> str:
    log = raft.log
    return (
        f"{raft.id:x} [commit: {log.committed}, lastindex: {log.last_index()},"
        f" lastterm: {log.last_term()}]"
    )
