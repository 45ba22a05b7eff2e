"""
The state machine's two inputs: a message, and a tick of the clock.

L{step} holds the rules that come before all roles (paper, section 5.1): a
higher term makes a follower of anybody, a lower one is stale.  What is left is
of this term and goes to the role's own module: L{kvdb.raft.follower},
L{kvdb.raft.candidate}, L{kvdb.raft.leader}.

Same inputs, same outputs: no clock is read, and randomness comes with the
L{Config}.
"""

from __future__ import annotations

from kvdb.raft.candidate import step_candidate
from kvdb.raft.confchange import restore
from kvdb.raft.config import (
    Config,
    LocalMessage,
    PeerNotFound,
    ProposalDropped,
)
from kvdb.raft.election import (
    Campaign,
    handle_vote_request,
    hup,
    refuse_in_lease,
    reject_vote,
)
from kvdb.raft.follower import step_follower
from kvdb.raft.leader import step_leader
from kvdb.raft.log import Log, entries_size
from kvdb.raft.membership import switch_to
from kvdb.raft.messages import (
    NO_NODE,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    Role,
    Snapshot,
)
from kvdb.raft.readonly import ReadOnly, ReadOnlyOption
from kvdb.raft.state import Raft, payload_size
from kvdb.raft.storage import LogReader
from kvdb.raft.tracker import Tracker

__all__ = [
    "Config",
    "LocalMessage",
    "PeerNotFound",
    "ProposalDropped",
    "ReadOnlyOption",
    "message_name",
    "new_raft",
    "step",
    "tick",
]

_ROLES = {
    Role.FOLLOWER: step_follower,
    Role.CANDIDATE: step_candidate,
    Role.PRE_CANDIDATE: step_candidate,
    Role.LEADER: step_leader,
}
_FROM_LEADER = frozenset({MessageType.APP, MessageType.HEARTBEAT, MessageType.SNAP})
_VOTE_REQUESTS = frozenset({MessageType.VOTE, MessageType.PRE_VOTE})


def message_name(kind: MessageType) -> str:
    """The printed form of a kind of message: C{MsgAppResp}."""
    return "Msg" + "".join(word.capitalize() for word in kind.name.split("_"))


def new_raft(config: Config, storage: LogReader) -> Raft:
    """
    A member as C{storage} remembers it, following nobody yet.

    @raise ValueError: the settings contradict themselves.
    """
    config.validate()
    hard_state, conf_state = storage.initial_state()
    limit = config.max_committed_size_per_ready or config.max_size_per_msg
    raft = Raft(
        id=config.id,
        config=config,
        log=Log.open(storage, config.logger, limit),
        tracker=Tracker(config.max_inflight_msgs, config.max_inflight_bytes),
        read_only=ReadOnly(config.read_only_option),
        logger=config.logger,
    )
    switch_to(raft, *restore(raft.tracker, raft.log.last_index(), conf_state))
    _load(raft, hard_state)
    if config.applied > 0:
        raft.log.applied_to(config.applied, 0)
    raft.become_follower(raft.term, NO_NODE)
    log = raft.log
    peers = ",".join(f"{node:x}" for node in sorted(raft.tracker.configuration.voters))
    raft.logger.info(
        f"newRaft {raft.id:x} [peers: [{peers}], term: {raft.term}, commit:"
        f" {log.committed}, applied: {log.applied}, lastindex: {log.last_index()},"
        f" lastterm: {log.last_term()}]"
    )
    return raft


def _load(raft: Raft, hard_state: HardState) -> None:
    if hard_state == HardState():
        return
    log = raft.log
    assert log.committed <= hard_state.commit <= log.last_index(), (
        f"{raft.id:x} state.commit {hard_state.commit} is out of range"
        f" [{log.committed}, {log.last_index()}]"
    )
    log.committed = hard_state.commit
    raft.term = hard_state.term
    raft.vote = hard_state.vote


# Time.


def tick(raft: Raft) -> None:
    """One tick of the clock has passed."""
    if raft.role is Role.LEADER:
        _tick_leader(raft)
        return
    raft.election_elapsed += 1
    if raft.promotable and raft.election_elapsed >= raft.randomized_election_timeout:
        raft.election_elapsed = 0
        step(raft, Message(MessageType.HUP, from_=raft.id))


def _tick_leader(raft: Raft) -> None:
    raft.heartbeat_elapsed += 1
    raft.election_elapsed += 1
    if raft.election_elapsed >= raft.config.election_tick:
        raft.election_elapsed = 0
        if raft.config.check_quorum:
            step(raft, Message(MessageType.CHECK_QUORUM, from_=raft.id))
        # A handover that took this long has failed: take proposals again.
        raft.transferee = NO_NODE
    if raft.role is not Role.LEADER:
        return
    if raft.heartbeat_elapsed >= raft.config.heartbeat_tick:
        raft.heartbeat_elapsed = 0
        step(raft, Message(MessageType.BEAT, from_=raft.id))


# Messages.


def step(raft: Raft, message: Message) -> None:
    """
    A message came.

    @raise ProposalDropped: it was a proposal, and nothing came of it.
    """
    if message.term > raft.term:
        if not _meet_higher_term(raft, message):
            return
    elif message.term < raft.term and message.term != 0:
        _meet_lower_term(raft, message)
        return
    kind = message.type
    if kind is MessageType.HUP:
        before = Campaign.PRE_ELECTION if raft.config.pre_vote else Campaign.ELECTION
        hup(raft, before)
    elif kind is MessageType.STORAGE_APPEND_RESP:
        _appended(raft, message)
    elif kind is MessageType.STORAGE_APPLY_RESP:
        _applied(raft, message)
    elif kind in _VOTE_REQUESTS:
        handle_vote_request(raft, message)
    else:
        _ROLES[raft.role](raft, message)


def _meet_higher_term(raft: Raft, message: Message) -> bool:
    """Whether the message is to be looked at further."""
    kind = message.type
    if kind in _VOTE_REQUESTS and refuse_in_lease(raft, message):
        return False
    if kind is MessageType.PRE_VOTE:
        return True  # asks about a term that nobody is in yet
    if kind is MessageType.PRE_VOTE_RESP and not message.reject:
        return True  # the term it was asked about
    raft.logger.info(
        f"{raft.id:x} [term: {raft.term}] received a {message_name(kind)} message with"
        f" higher term from {message.from_:x} [term: {message.term}]"
    )
    leader = message.from_ if kind in _FROM_LEADER else NO_NODE
    raft.become_follower(message.term, leader)
    return True


def _meet_lower_term(raft: Raft, message: Message) -> None:
    kind = message.type
    config = raft.config
    if (config.check_quorum or config.pre_vote) and kind in (
        MessageType.HEARTBEAT,
        MessageType.APP,
    ):
        # With these two a member that was cut off cannot win an election by
        # its higher term, and its leader would never learn of that term: tell
        # it, so that it steps down and both can go on.
        raft.send(Message(MessageType.APP_RESP, to=message.from_))
    elif kind is MessageType.PRE_VOTE:
        # Its term is behind: tell it, else two could wait for each other.
        reject_vote(raft, message)
    elif kind is MessageType.STORAGE_APPEND_RESP:
        # An entry may have been replaced since, by one of another term; a
        # snapshot has not.
        if message.index != 0:
            raft.logger.info(
                f"{raft.id:x} [term: {raft.term}] ignored entry appends from a"
                f" {message_name(kind)} message with lower term [term: {message.term}]"
            )
        if message.snapshot is not None:
            _snapshot_applied(raft, message.snapshot)
    else:
        raft.logger.info(
            f"{raft.id:x} [term: {raft.term}] ignored a {message_name(kind)} message"
            f" with lower term from {message.from_:x} [term: {message.term}]"
        )


# What the local threads answer.


def _appended(raft: Raft, message: Message) -> None:
    if message.index != 0:
        raft.log.unstable.stable_to(message.index, message.log_term)
    if message.snapshot is not None:
        _snapshot_applied(raft, message.snapshot)


def _snapshot_applied(raft: Raft, snapshot: Snapshot) -> None:
    raft.log.unstable.stable_snapshot_to(snapshot.index)
    _applied_to(raft, snapshot.index, 0)


def _applied(raft: Raft, message: Message) -> None:
    if message.entries:
        entries = message.entries
        _applied_to(raft, entries[-1].index, entries_size(entries))
        raft.give_back(payload_size(entries))


def _applied_to(raft: Raft, index: int, size: int) -> None:
    index = max(index, raft.log.applied)
    raft.log.applied_to(index, size)
    configuration = raft.tracker.configuration
    if (
        configuration.auto_leave
        and raft.role is Role.LEADER
        and index >= raft.pending_conf_index
    ):
        _leave_joint(raft)


def _leave_joint(raft: Raft) -> None:
    """Propose to leave the joint configuration; a leader that cannot now is
    asked again when it next applies something."""
    configuration = raft.tracker.configuration
    entry = Entry(0, 0, EntryType.CONF_CHANGE_V2)
    message = Message(MessageType.PROP, from_=raft.id, entries=[entry])
    try:
        step(raft, message)
    except ProposalDropped as error:
        raft.logger.debug(
            "not initiating automatic transition out of joint configuration"
            f" {configuration}: {error}"
        )
    else:
        raft.logger.info(
            "initiating automatic transition out of joint configuration"
            f" {configuration}"
        )
