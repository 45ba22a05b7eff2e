"""
One member of a group, as a node drives it.

::

    node = RawNode(config, storage)
    node.tick(), node.step(message), node.propose([...])     # any inputs
    if node.has_ready():
        ready = node.ready()     # what follows from them, see Ready
        ...                      # carry it out, in its order
        node.advance()           # without asynchronous storage writes only

With asynchronous storage writes nothing waits for the disk: C{ready.messages}
holds a message to L{APPEND_THREAD} that names what to write, and one to
L{APPLY_THREAD} that names what to apply.  When the work of one is done, its
C{responses} are delivered: those to this node through L{RawNode.step}, others
over the network.  Work for each thread is done in the order it was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from kvdb.raft.confchange import Change, encode_conf_change
from kvdb.raft.config import Config, LocalMessage, PeerNotFound
from kvdb.raft.core import new_raft, step, tick
from kvdb.raft.log import entries_size
from kvdb.raft.membership import apply_conf_change
from kvdb.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    NO_NODE,
    ConfChange,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    Ready,
    Role,
    SoftState,
)
from kvdb.raft.state import Raft
from kvdb.raft.storage import LogReader

_LOCAL = frozenset(
    {
        MessageType.HUP,
        MessageType.BEAT,
        MessageType.UNREACHABLE,
        MessageType.SNAP_STATUS,
        MessageType.CHECK_QUORUM,
        MessageType.STORAGE_APPEND,
        MessageType.STORAGE_APPEND_RESP,
        MessageType.STORAGE_APPLY,
        MessageType.STORAGE_APPLY_RESP,
    }
)
_RESPONSES = frozenset(
    {
        MessageType.APP_RESP,
        MessageType.VOTE_RESP,
        MessageType.PRE_VOTE_RESP,
        MessageType.HEARTBEAT_RESP,
        MessageType.READ_INDEX_RESP,
    }
)
_THREADS = (APPEND_THREAD, APPLY_THREAD)
_NO_HARD_STATE = HardState()


@define(slots=True, init=False)
class RawNode:
    """See the head of this module."""

    core: Raft
    _sync: bool
    _soft_state: SoftState
    _hard_state: HardState
    _on_advance: list[Message] = field(factory=list)

    def __init__(self, config: Config, storage: LogReader) -> None:
        core = new_raft(config, storage)
        self.__attrs_init__(
            core,
            not config.async_storage_writes,
            core.soft_state(),
            core.hard_state(),
        )

    # Inputs.

    def tick(self) -> None:
        """One tick of the clock has passed."""
        tick(self.core)

    def campaign(self) -> None:
        """Try to become leader now."""
        step(self.core, Message(MessageType.HUP))

    def propose(self, datas: Sequence[bytes]) -> None:
        """
        Have each of C{datas} appended to the log, in this order: all or none.

        @raise ProposalDropped: none, and none will be.
        """
        self.propose_entries([Entry(0, 0, EntryType.NORMAL, data) for data in datas])

    def propose_conf_change(self, change: Change) -> None:
        """
        Have a membership change appended; an empty entry takes its place where
        another one is still going on.

        @raise ProposalDropped: nothing was appended.
        """
        kind = (
            EntryType.CONF_CHANGE
            if isinstance(change, ConfChange)
            else EntryType.CONF_CHANGE_V2
        )
        self.propose_entries([Entry(0, 0, kind, encode_conf_change(change))])

    def propose_entries(self, entries: Sequence[Entry]) -> None:
        """
        Have C{entries} appended; their term and index are set here.

        @raise ProposalDropped: nothing was appended.
        """
        step(
            self.core,
            Message(MessageType.PROP, from_=self.core.id, entries=entries),
        )

    def step(self, message: Message) -> None:
        """
        A message came from another member or a local thread.

        @raise ProposalDropped: it was a proposal, and nothing came of it.
        @raise PeerNotFound: it answers somebody who is no member any more.
        @raise LocalMessage: only this node may send such a message.
        """
        from_thread = message.from_ in _THREADS
        if message.type in _LOCAL and not from_thread:
            raise LocalMessage
        if (
            message.type in _RESPONSES
            and not from_thread
            and message.from_ not in self.core.tracker.progress
        ):
            raise PeerNotFound
        step(self.core, message)

    def read_index(self, context: bytes) -> None:
        """Ask for a L{ReadState<kvdb.raft.messages.ReadState>} with C{context}."""
        step(self.core, Message(MessageType.READ_INDEX, context=context))

    def transfer_leadership(self, to: int) -> None:
        """Hand leadership to C{to}, if it is a voter that can be caught up."""
        step(self.core, Message(MessageType.TRANSFER_LEADER, from_=to))

    def forget_leader(self) -> None:
        """Follow nobody, in the same term, until a leader is heard again."""
        step(self.core, Message(MessageType.FORGET_LEADER))

    def step_down(self) -> None:
        """Stop leading; for a leader that cannot write its log."""
        if self.core.role is Role.LEADER:
            self.core.become_follower(self.core.term, NO_NODE)

    def report_unreachable(self, node: int) -> None:
        """What was last sent to C{node} may be lost."""
        step(self.core, Message(MessageType.UNREACHABLE, from_=node))

    def report_snapshot(self, node: int, ok: bool) -> None:
        """The snapshot sent to C{node} arrived, or did not."""
        message = Message(MessageType.SNAP_STATUS, from_=node, reject=not ok)
        step(self.core, message)

    def apply_conf_change(self, change: Change) -> ConfState:
        """
        A committed membership change is being applied; the membership that
        follows.  To be called for every one of them, in order; a change that
        the application refuses is given with its node ids set to 0.

        @raise ConfChangeError: it does not fit the membership in force.
        """
        return apply_conf_change(self.core, change)

    # Outputs.

    def has_ready(self) -> bool:
        """Whether there is anything to carry out."""
        core = self.core
        log = core.log
        # Field by field: this is asked at every turn, and mostly for nothing.
        soft, hard = self._soft_state, self._hard_state
        return bool(
            core.messages
            or core.messages_after_append
            or log.unstable.has_next_entries()
            or log.committed != hard.commit
            or log.has_next_committed(self._sync)
            or core.read_states
            or core.leader != soft.leader
            or core.role is not soft.role
            or core.term != hard.term
            or core.vote != hard.vote
            or log.unstable.next_snapshot() is not None
        )

    def ready(self) -> Ready:
        """All that is to be carried out now; it is taken to be under way."""
        core = self.core
        log = core.log
        ready = Ready(
            entries=log.unstable.next_entries(),
            snapshot=log.unstable.next_snapshot(),
            committed_entries=log.next_committed(self._sync),
            read_states=core.read_states,
            messages=core.messages,
        )
        self._note_state_changes(ready)
        if self._sync:
            self._queue_on_advance(ready)
        else:
            self._ask_threads(ready)
        core.messages = []
        core.messages_after_append = []
        core.read_states = []
        log.unstable.accept_in_progress()
        if ready.committed_entries:
            entries = ready.committed_entries
            log.accept_applying(entries[-1].index, entries_size(entries), self._sync)
        return ready

    def _note_state_changes(self, ready: Ready) -> None:
        soft_state = self.core.soft_state()
        if soft_state != self._soft_state:
            ready.soft_state = self._soft_state = soft_state
        before = self._hard_state
        hard_state = self.core.hard_state()
        ready.must_sync = (
            bool(ready.entries)
            or hard_state.vote != before.vote
            or hard_state.term != before.term
        )
        if hard_state != before:
            ready.hard_state = self._hard_state = hard_state

    def _append_response(self, ready: Ready) -> Message | None:
        """What tells the core that C{ready} is durable, if it must know."""
        core = self.core
        log = core.log
        if not log.has_unstable_entries() and ready.snapshot is None:
            return None
        message = Message(
            MessageType.STORAGE_APPEND_RESP,
            to=core.id,
            from_=APPEND_THREAD,
            term=core.term,
            snapshot=ready.snapshot,
        )
        if log.has_unstable_entries():
            # The newest entry handed over, by now or before: a later answer
            # covers an earlier one that was ignored for its term.
            message.index = log.last_index()
            message.log_term = log.last_term()
        return message

    def _apply_response(self, entries: Sequence[Entry]) -> Message:
        return Message(
            MessageType.STORAGE_APPLY_RESP,
            to=self.core.id,
            from_=APPLY_THREAD,
            entries=entries,
        )

    # Without asynchronous storage writes.

    def _queue_on_advance(self, ready: Ready) -> None:
        assert not self._on_advance, "two Readys without advance() between them"
        core = self.core
        for message in core.messages_after_append:
            if message.to == core.id:
                self._on_advance.append(message)
            else:
                ready.messages.append(message)
        response = self._append_response(ready)
        if response is not None:
            self._on_advance.append(response)
        if ready.committed_entries:
            self._on_advance.append(self._apply_response(ready.committed_entries))

    def advance(self) -> None:
        """The last Ready is carried out: durable, sent and applied."""
        assert self._sync, "advance() with asynchronous storage writes"
        messages, self._on_advance = self._on_advance, []
        for message in messages:
            step(self.core, message)

    # With them.

    def _ask_threads(self, ready: Ready) -> None:
        core = self.core
        responses = core.messages_after_append
        if (
            ready.entries
            or ready.hard_state is not None
            or ready.snapshot is not None
            or responses
        ):
            own = self._append_response(ready)
            hard_state = ready.hard_state or _NO_HARD_STATE
            ready.messages.append(
                Message(
                    MessageType.STORAGE_APPEND,
                    to=APPEND_THREAD,
                    from_=core.id,
                    term=hard_state.term,
                    vote=hard_state.vote,
                    commit=hard_state.commit,
                    entries=ready.entries,
                    snapshot=ready.snapshot,
                    responses=responses if own is None else [*responses, own],
                )
            )
        if ready.committed_entries:
            entries = ready.committed_entries
            ready.messages.append(
                Message(
                    MessageType.STORAGE_APPLY,
                    to=APPLY_THREAD,
                    from_=core.id,
                    entries=entries,
                    responses=[self._apply_response(entries)],
                )
            )
