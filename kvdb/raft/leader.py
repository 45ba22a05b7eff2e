"""
What a leader does with a message: take proposals, follow its followers, answer
reads, hand over.
"""

from __future__ import annotations

from kvdb.raft.confchange import (
    as_v2,
    decode_conf_change,
    describe_conf_change,
)
from kvdb.raft.config import ProposalDropped
from kvdb.raft.messages import (
    NO_NODE,
    Entry,
    EntryType,
    Message,
    MessageType,
    ReadState,
)
from kvdb.raft.progress import Progress, ProgressState
from kvdb.raft.quorum import VoteResult
from kvdb.raft.readonly import ReadOnlyOption
from kvdb.raft.replication import (
    broadcast_append,
    broadcast_heartbeat,
    maybe_commit,
    send_append,
    send_timeout_now,
)
from kvdb.raft.state import Raft


def step_leader(raft: Raft, message: Message) -> None:
    """A message of this term, or a local one."""
    kind = message.type
    own = _OWN.get(kind)
    if own is not None:
        own(raft, message)
        return
    about_member = _ABOUT_MEMBER.get(kind)
    if about_member is None:
        return
    progress = raft.tracker.progress.get(message.from_)
    if progress is None:
        raft.logger.debug(f"{raft.id:x} no progress available for {message.from_:x}")
        return
    about_member(raft, message, progress)


def _beat(raft: Raft, message: Message) -> None:
    broadcast_heartbeat(raft, raft.read_only.last_context)


def _check_quorum(raft: Raft, message: Message) -> None:
    if not raft.tracker.quorum_active():
        raft.logger.warning(
            f"{raft.id:x} stepped down to follower since quorum is not active"
        )
        raft.become_follower(raft.term, NO_NODE)
    for node, progress in raft.tracker.progress.items():
        if node != raft.id:
            progress.recent_active = False


# Proposals.


def _propose(raft: Raft, message: Message) -> None:
    assert message.entries, f"{raft.id:x} stepped empty MsgProp"
    if raft.id not in raft.tracker.progress:
        # Removed: it leads only until somebody takes over.
        raise ProposalDropped
    if raft.transferee != NO_NODE:
        raft.logger.debug(
            f"{raft.id:x} [term {raft.term}] transfer leadership to"
            f" {raft.transferee:x} is in progress; dropping proposal"
        )
        raise ProposalDropped
    entries = list(message.entries)
    next_index = raft.log.last_index() + 1
    for position, entry in enumerate(entries):
        if entry.type is EntryType.NORMAL:
            continue
        if _admit_conf_change(raft, entry):
            raft.pending_conf_index = next_index + position
        else:
            entries[position] = Entry(0, 0)
    if not raft.append_entries(entries):
        raise ProposalDropped
    broadcast_append(raft)


def _admit_conf_change(raft: Raft, entry: Entry) -> bool:
    """Whether a membership change may be appended now, or an empty entry
    takes its place."""
    change = decode_conf_change(entry)
    configuration = raft.tracker.configuration
    leaves = not as_v2(change).changes
    if raft.pending_conf_index > raft.log.applied:
        reason = (
            f"possible unapplied conf change at index {raft.pending_conf_index}"
            f" (applied to {raft.log.applied})"
        )
    elif configuration.joint and not leaves:
        reason = "must transition out of joint config first"
    elif not configuration.joint and leaves:
        reason = "not in joint state; refusing empty conf change"
    else:
        return True
    if raft.config.disable_conf_change_validation:
        return True
    raft.logger.info(
        f"{raft.id:x} ignoring conf change {describe_conf_change(change)} at config"
        f" {configuration}: {reason}"
    )
    return False


# Reads.


def _read_index(raft: Raft, message: Message) -> None:
    if not raft.log.matches(raft.log.committed, raft.term):
        # Its commit index may lag behind what an earlier leader committed,
        # until an entry of its own term is committed (thesis, section 6.4).
        # The earlier one may be itself, alone, before a restart: a commit index
        # is written now and then only.
        raft.postponed_reads.append(message)
    else:
        _confirm_read(raft, message)


def _confirm_read(raft: Raft, message: Message) -> None:
    committed = raft.log.committed
    alone = raft.tracker.is_singleton
    if alone or raft.read_only.option is ReadOnlyOption.LEASE_BASED:
        _answer_read(raft, message, committed)
        return
    raft.read_only.add(committed, message)
    raft.read_only.ack(raft.id, message.context)
    broadcast_heartbeat(raft, message.context)


def _answer_read(raft: Raft, message: Message, index: int) -> None:
    if message.from_ in (NO_NODE, raft.id):
        raft.read_states.append(ReadState(index, message.context))
        return
    raft.send(
        Message(
            MessageType.READ_INDEX_RESP,
            to=message.from_,
            index=index,
            context=message.context,
        )
    )


def _release_postponed_reads(raft: Raft) -> None:
    postponed, raft.postponed_reads = raft.postponed_reads, []
    for message in postponed:
        _confirm_read(raft, message)


# What followers answer.


def _append_response(raft: Raft, message: Message, progress: Progress) -> None:
    progress.recent_active = True
    if message.reject:
        _append_rejected(raft, message, progress)
    elif message.index > raft.log.last_index():
        # By a number that a member has and the leader has not, no logs agree.
        raft.logger.error(
            f"{raft.id:x} ignored MsgAppResp from {message.from_:x} for index"
            f" {message.index}, which is beyond its own log [lastindex:"
            f" {raft.log.last_index()}]"
        )
    elif progress.maybe_update(message.index) or (
        # A probe that brought nothing new still tells where the logs agree.
        progress.match == message.index and progress.state is ProgressState.PROBE
    ):
        _append_accepted(raft, message, progress)


def _append_rejected(raft: Raft, message: Message, progress: Progress) -> None:
    node = message.from_
    raft.logger.debug(
        f"{raft.id:x} received MsgAppResp(rejected, hint: (index"
        f" {message.reject_hint}, term {message.log_term})) from {node:x} for index"
        f" {message.index}"
    )
    probe = message.reject_hint
    if message.log_term > 0:
        # The follower skipped what cannot be in this log; skip what cannot be
        # in the follower's, which has no term above the hint's up to there.
        probe, _ = raft.log.find_conflict_by_term(probe, message.log_term)
    if progress.maybe_decrease(message.index, probe):
        raft.logger.debug(f"{raft.id:x} decreased progress of {node:x} to [{progress}]")
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        send_append(raft, node)


def _append_accepted(raft: Raft, message: Message, progress: Progress) -> None:
    node = message.from_
    if progress.state is ProgressState.PROBE:
        progress.become_replicate()
    elif progress.state is ProgressState.SNAPSHOT:
        if progress.match + 1 >= raft.log.first_index():
            # By a snapshot, whose own or another's: the log goes on from here.
            raft.logger.debug(
                f"{raft.id:x} recovered from needing snapshot, resumed sending"
                f" replication messages to {node:x} [{progress}]"
            )
            progress.become_probe()
            progress.become_replicate()
    else:
        progress.inflights.free_to(message.index)
    if maybe_commit(raft):
        _release_postponed_reads(raft)
        broadcast_append(raft)
    elif node != raft.id and progress.can_bump_commit(raft.log.committed):
        send_append(raft, node)
    if node != raft.id:
        # The answer made room: send all that fits into it.
        while send_append(raft, node, send_if_empty=False):
            pass
    if node == raft.transferee and progress.match == raft.log.last_index():
        raft.logger.info(
            f"{raft.id:x} sent MsgTimeoutNow to {node:x} after received MsgAppResp"
        )
        send_timeout_now(raft, node)


def _heartbeat_response(raft: Raft, message: Message, progress: Progress) -> None:
    progress.recent_active = True
    progress.append_paused = False
    if progress.match < raft.log.last_index() or progress.state is ProgressState.PROBE:
        send_append(raft, message.from_)
    if not message.context or raft.read_only.option is not ReadOnlyOption.SAFE:
        return
    acks = raft.read_only.ack(message.from_, message.context)
    if raft.tracker.vote_result(acks) is not VoteResult.WON:
        return
    for request in raft.read_only.advance(message.context):
        _answer_read(raft, request.message, request.index)


def _snapshot_status(raft: Raft, message: Message, progress: Progress) -> None:
    if progress.state is not ProgressState.SNAPSHOT:
        return
    if message.reject:
        progress.pending_snapshot = 0
        word = "failed"
    else:
        word = "succeeded"
    progress.become_probe()
    raft.logger.debug(
        f"{raft.id:x} snapshot {word}, resumed sending replication messages to"
        f" {message.from_:x} [{progress}]"
    )
    # Wait for its answer, or the next heartbeat's, before the next append.
    progress.append_paused = True


def _unreachable(raft: Raft, message: Message, progress: Progress) -> None:
    if progress.state is ProgressState.REPLICATE:
        # What was sent ahead may be lost.
        progress.become_probe()
    raft.logger.debug(
        f"{raft.id:x} failed to send message to {message.from_:x} because it is"
        f" unreachable [{progress}]"
    )


def _transfer_leader(raft: Raft, message: Message, progress: Progress) -> None:
    to = message.from_
    if progress.is_learner:
        raft.logger.debug(f"{to:x} is learner. Ignored transferring leadership")
        return
    if raft.transferee == to:
        raft.logger.info(
            f"{raft.id:x} [term {raft.term}] transfer leadership to {to:x} is in"
            f" progress, ignores request to same node {to:x}"
        )
        return
    if raft.transferee != NO_NODE:
        raft.logger.info(
            f"{raft.id:x} [term {raft.term}] abort previous transferring leadership"
            f" to {raft.transferee:x}"
        )
        raft.transferee = NO_NODE
    if to == raft.id:
        raft.logger.debug(
            f"{raft.id:x} is already leader. Ignored transferring leadership to self"
        )
        return
    raft.logger.info(
        f"{raft.id:x} [term {raft.term}] starts to transfer leadership to {to:x}"
    )
    # It has one election timeout to succeed.
    raft.election_elapsed = 0
    raft.transferee = to
    if progress.match == raft.log.last_index():
        send_timeout_now(raft, to)
        raft.logger.info(
            f"{raft.id:x} sends MsgTimeoutNow to {to:x} immediately as {to:x} already"
            " has up-to-date log"
        )
    else:
        send_append(raft, to)


def _nothing(raft: Raft, message: Message) -> None:
    """A leader knows who leads."""


_OWN = {
    MessageType.BEAT: _beat,
    MessageType.CHECK_QUORUM: _check_quorum,
    MessageType.PROP: _propose,
    MessageType.READ_INDEX: _read_index,
    MessageType.FORGET_LEADER: _nothing,
}
_ABOUT_MEMBER = {
    MessageType.APP_RESP: _append_response,
    MessageType.HEARTBEAT_RESP: _heartbeat_response,
    MessageType.SNAP_STATUS: _snapshot_status,
    MessageType.UNREACHABLE: _unreachable,
    MessageType.TRANSFER_LEADER: _transfer_leader,
}
