"""
One member of a group: what it knows, and how it changes roles.

L{Raft} is the state that the other modules of this package act upon; their
functions take it as their first argument.  Here are only the moves that all of
them share: sending, appending, and becoming follower, candidate or leader
(paper, figure 4)::

              times out          wins               steps down
    follower -----------> (pre-)candidate ---> leader -----------> follower

Rules:

* a term never goes back, and a vote lasts as long as its term;
* a message whose truth rests on what is being written (an accepted append, a
  vote) waits in C{messages_after_append} until that is durable; a member's
  answers to itself wait there too;
* a leader's own entries count as held by it only once they are durable.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from kvdb.raft.config import Config
from kvdb.raft.log import Log
from kvdb.raft.logger import RaftLogger
from kvdb.raft.messages import (
    NO_NODE,
    Entry,
    HardState,
    Message,
    MessageType,
    ReadState,
    Role,
    SoftState,
)
from kvdb.raft.readonly import ReadOnly
from kvdb.raft.tracker import Tracker

_AFTER_APPEND = frozenset(
    {MessageType.APP_RESP, MessageType.VOTE_RESP, MessageType.PRE_VOTE_RESP}
)
_CARRY_TERM = frozenset(
    {
        MessageType.VOTE,
        MessageType.VOTE_RESP,
        MessageType.PRE_VOTE,
        MessageType.PRE_VOTE_RESP,
    }
)
_NO_TERM = frozenset({MessageType.PROP, MessageType.READ_INDEX})

ROLE_NAMES = {
    Role.FOLLOWER: "StateFollower",
    Role.CANDIDATE: "StateCandidate",
    Role.LEADER: "StateLeader",
    Role.PRE_CANDIDATE: "StatePreCandidate",
}


def payload_size(entries: Sequence[Entry]) -> int:
    """The bytes of data in C{entries}."""
    return sum(len(entry.data) for entry in entries)


@define(slots=True, kw_only=True)
class Raft:
    """
    @ivar leader: who leads this term, as far as is known.
    @ivar transferee: whom this leader is handing leadership to.
    @ivar pending_conf_index: no membership change is taken in until the entry
        at this index is applied.
    @ivar uncommitted_size: bytes of data this leader took in and has not yet
        applied; an estimate that never stops an empty log from growing.
    @ivar election_elapsed: ticks since the leader was heard, the member's own
        campaign began, or, at a leader, since it last checked for its quorum.
    """

    id: int
    config: Config
    log: Log
    tracker: Tracker
    read_only: ReadOnly
    logger: RaftLogger
    term: int = 0
    vote: int = NO_NODE
    role: Role = Role.FOLLOWER
    leader: int = NO_NODE
    is_learner: bool = False
    transferee: int = NO_NODE
    pending_conf_index: int = 0
    uncommitted_size: int = 0
    election_elapsed: int = 0
    heartbeat_elapsed: int = 0
    randomized_election_timeout: int = 0
    messages: list[Message] = field(factory=list)
    messages_after_append: list[Message] = field(factory=list)
    read_states: list[ReadState] = field(factory=list)
    postponed_reads: list[Message] = field(factory=list)

    def soft_state(self) -> SoftState:
        """What the member may forget."""
        return SoftState(self.leader, self.role)

    def hard_state(self) -> HardState:
        """What it must not."""
        return HardState(self.term, self.vote, self.log.committed)

    @property
    def promotable(self) -> bool:
        """Whether the member may campaign: a voter, and not half restored."""
        progress = self.tracker.progress.get(self.id)
        return (
            progress is not None
            and not progress.is_learner
            and not self.log.has_unstable_snapshot()
        )

    @property
    def in_lease(self) -> bool:
        """Whether a leader was heard so lately that no other is wanted."""
        return (
            self.config.check_quorum
            and self.leader != NO_NODE
            and self.election_elapsed < self.config.election_tick
        )

    # Sending and appending.

    def send(self, message: Message) -> None:
        """Have C{message} sent, at once or when what it rests on is durable."""
        kind = message.type
        if message.from_ == NO_NODE:
            message.from_ = self.id
        if kind in _CARRY_TERM:
            assert message.term != 0, f"{kind.name} without a term"
        else:
            assert message.term == 0, f"{kind.name} brings its own term"
            if kind not in _NO_TERM:
                message.term = self.term
        if kind in _AFTER_APPEND:
            self.messages_after_append.append(message)
        else:
            assert message.to != self.id, f"{kind.name} sent to oneself"
            self.messages.append(message)

    def append_entries(self, entries: Sequence[Entry]) -> bool:
        """
        Give this leader's new C{entries} their places; whether it took them,
        or has too much uncommitted already.
        """
        if not self._take_in(payload_size(entries)):
            self.logger.warning(
                f"{self.id:x} appending new entries to log would exceed uncommitted"
                " entry size limit; dropping proposal"
            )
            return False
        index = self.log.last_index()
        for entry in entries:
            index += 1
            entry.term = self.term
            entry.index = index
            entry.encoded = None  # if any, of another place
        self.log.append(entries)
        self.send(Message(MessageType.APP_RESP, to=self.id, index=index))
        return True

    def _take_in(self, size: int) -> bool:
        limit = self.config.max_uncommitted_entries_size
        # An empty entry, and the first of any size, are always taken: a limit
        # must not stop a leader from leading, nor a large value for ever.
        if (
            limit
            and size > 0
            and self.uncommitted_size > 0
            and self.uncommitted_size + size > limit
        ):
            return False
        self.uncommitted_size += size
        return True

    def give_back(self, size: int) -> None:
        """C{size} bytes of data were applied."""
        self.uncommitted_size = max(0, self.uncommitted_size - size)

    # Roles.

    def reset_election_timeout(self) -> None:
        """Draw the next one (paper, section 5.2)."""
        ticks = self.config.election_tick
        self.randomized_election_timeout = ticks + self.config.random.randrange(ticks)

    def _reset(self, term: int) -> None:
        if self.term != term:
            assert term > self.term, f"term {term} after term {self.term}"
            self.term = term
            self.vote = NO_NODE
        self.leader = NO_NODE
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.reset_election_timeout()
        self.transferee = NO_NODE
        self.tracker.votes.clear()
        self.tracker.reset_progress(self.id, self.log.last_index())
        self.pending_conf_index = 0
        self.uncommitted_size = 0
        self.read_only.pending.clear()
        self.postponed_reads.clear()

    def become_follower(self, term: int, leader: int) -> None:
        """Follow C{leader}, or wait for one."""
        self._reset(term)
        self.leader = leader
        self.role = Role.FOLLOWER
        self.logger.info(f"{self.id:x} became follower at term {self.term}")

    def become_candidate(self) -> None:
        """Open an election in a new term, with one's own vote."""
        assert self.role is not Role.LEADER, "a leader became candidate"
        self._reset(self.term + 1)
        self.vote = self.id
        self.role = Role.CANDIDATE
        self.logger.info(f"{self.id:x} became candidate at term {self.term}")

    def become_pre_candidate(self) -> None:
        """Ask whether an election could be won; term and vote stay."""
        assert self.role is not Role.LEADER, "a leader became pre-candidate"
        self.tracker.votes.clear()
        self.leader = NO_NODE
        self.role = Role.PRE_CANDIDATE
        self.logger.info(f"{self.id:x} became pre-candidate at term {self.term}")

    def become_leader(self) -> None:
        """Lead this term, beginning with an empty entry of it."""
        assert self.role is not Role.FOLLOWER, "a follower became leader"
        self._reset(self.term)
        self.leader = self.id
        self.role = Role.LEADER
        progress = self.tracker.progress[self.id]
        progress.become_replicate()
        progress.recent_active = True
        # There may be a membership change in the log already: take no other
        # until all that is there now is applied.
        self.pending_conf_index = self.log.last_index()
        self.append_entries([Entry(0, 0)])
        self.logger.info(f"{self.id:x} became leader at term {self.term}")
