"""
What members say to each other, and what a member must remember.

Plain data, no behaviour: the vocabulary that every other floor speaks.  Names
and meanings are those of the Raft paper (Ongaro and Ousterhout, 2014) and of
etcd's raft library, whose data-driven cases this core is held against.

Rules:

* An L{Entry}, a L{Snapshot} and a L{ConfState} are never changed once made.
* Node ids, terms and indexes are unsigned 64-bit integers; 0 means "none".
* Two ids at the top of the range are no members: they name the local threads
  that write the log and apply entries, see L{APPEND_THREAD}.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final

from attrs import Factory, define, field, frozen

NO_NODE: Final = 0
"""The id of nobody: no leader known, no vote cast."""

NO_LIMIT: Final = 2**64 - 1
"""A limit in bytes that nothing reaches."""

APPEND_THREAD: Final = 2**64 - 1
"""Where messages go that ask for the log to be written."""

APPLY_THREAD: Final = 2**64 - 2
"""Where messages go that ask for entries to be applied."""

ENTRY_OVERHEAD: Final = 24
"""What an entry is taken to cost beside its data, in bytes."""


class EntryType(enum.IntEnum):
    """What an entry's data is; the numbers are those on disk and wire."""

    NORMAL = 0
    CONF_CHANGE = 1
    CONF_CHANGE_V2 = 2


class Role(enum.IntEnum):
    """A member's part in the current term."""

    FOLLOWER = 0
    CANDIDATE = 1
    LEADER = 2
    PRE_CANDIDATE = 3


class MessageType(enum.IntEnum):
    """
    The kinds of message; the numbers are those on the wire.

    HUP, BEAT, CHECK_QUORUM, UNREACHABLE, SNAP_STATUS and the STORAGE ones
    never leave the node.
    """

    HUP = 0
    BEAT = 1
    PROP = 2
    APP = 3
    APP_RESP = 4
    VOTE = 5
    VOTE_RESP = 6
    SNAP = 7
    HEARTBEAT = 8
    HEARTBEAT_RESP = 9
    UNREACHABLE = 10
    SNAP_STATUS = 11
    CHECK_QUORUM = 12
    TRANSFER_LEADER = 13
    TIMEOUT_NOW = 14
    READ_INDEX = 15
    READ_INDEX_RESP = 16
    PRE_VOTE = 17
    PRE_VOTE_RESP = 18
    STORAGE_APPEND = 19
    STORAGE_APPEND_RESP = 20
    STORAGE_APPLY = 21
    STORAGE_APPLY_RESP = 22
    FORGET_LEADER = 23


@define(eq=True, slots=True)
class Entry:
    """
    One place in the log.

    @ivar data: what was proposed; empty for a new leader's first entry.
    @ivar encoded: the entry's encoded form, kept by the floors that encode so
        that it is made once for all disks and all peers; the core does not
        read it.
    """

    term: int
    index: int
    type: EntryType = EntryType.NORMAL
    data: bytes = b""
    encoded: bytes | None = field(default=None, eq=False, repr=False)

    @property
    def size(self) -> int:
        """What the entry counts for against limits, in bytes."""
        return len(self.data) + ENTRY_OVERHEAD


@frozen(slots=True)
class ConfState:
    """Who is a member, as a snapshot remembers it.  Ids are sorted."""

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


@frozen(slots=True)
class Snapshot:
    """
    A point in the log below which entries are replaced by applied state.

    @ivar data: opaque to the core; kvdb leaves it empty and streams the state
        beside the message.
    """

    index: int = 0
    term: int = 0
    conf_state: ConfState = ConfState()
    data: bytes = b""


@frozen(slots=True)
class HardState:
    """What a member must not forget (paper, figure 2: persistent state)."""

    term: int = 0
    vote: int = NO_NODE
    commit: int = 0


@frozen(slots=True)
class SoftState:
    """What a member may forget: who leads, and its own part."""

    leader: int = NO_NODE
    role: Role = Role.FOLLOWER


@define(eq=True, slots=True)
class Message:
    """
    One message between members, or between a member and its local threads.

    @ivar to: the receiver's id.
    @ivar from_: the sender's id.
    @ivar log_term: the term of the entry at C{index}.
    @ivar commit: the sender's commit index.
    @ivar vote: only to the append thread: part of the hard state to write.
    @ivar reject_hint: where the receiver's log may agree with the sender's.
    @ivar context: opaque bytes that a response carries back.
    @ivar responses: to be delivered when the work asked for is durable.
    """

    type: MessageType
    to: int = NO_NODE
    from_: int = NO_NODE
    term: int = 0
    log_term: int = 0
    index: int = 0
    commit: int = 0
    vote: int = NO_NODE
    reject: bool = False
    reject_hint: int = 0
    entries: Sequence[Entry] = ()
    snapshot: Snapshot | None = None
    context: bytes = b""
    responses: Sequence[Message] = ()


@frozen(slots=True)
class ReadState:
    """
    An answer to a read-index request: once the entry at C{index} is applied, a
    local read is linearizable (thesis, section 6.4).
    """

    index: int
    context: bytes


@define(slots=True)
class Ready:
    """
    What the core wants done, in this order: make C{hard_state}, C{entries} and
    C{snapshot} durable (synced, when C{must_sync}), send C{messages}, apply
    C{committed_entries}.  With asynchronous storage writes the first and last
    are messages to L{APPEND_THREAD} and L{APPLY_THREAD}, and the fields tell
    only what they hold.
    """

    soft_state: SoftState | None = None
    hard_state: HardState | None = None
    read_states: Sequence[ReadState] = ()
    entries: Sequence[Entry] = ()
    snapshot: Snapshot | None = None
    committed_entries: Sequence[Entry] = ()
    messages: list[Message] = Factory(list)
    must_sync: bool = False


class ConfChangeType(enum.IntEnum):
    """What one change does to a member; the numbers are those in entries."""

    ADD_NODE = 0
    REMOVE_NODE = 1
    UPDATE_NODE = 2
    ADD_LEARNER_NODE = 3


class ConfChangeTransition(enum.IntEnum):
    """How a membership change passes through a joint configuration."""

    AUTO = 0
    """Simple where one voter changes; else joint, left by itself."""
    JOINT_IMPLICIT = 1
    """Joint, left by itself."""
    JOINT_EXPLICIT = 2
    """Joint, left when an empty change is proposed."""


@frozen(slots=True)
class ConfChangeSingle:
    """One change to one member."""

    type: ConfChangeType
    node_id: int


@frozen(slots=True)
class ConfChange:
    """The old form: one change, always simple (thesis, section 4.1)."""

    type: ConfChangeType
    node_id: int
    context: bytes = b""


@frozen(slots=True)
class ConfChangeV2:
    """
    Any number of changes; none at all leaves a joint configuration.

    @ivar context: opaque to the core; kvdb puts the member's record there.
    """

    changes: tuple[ConfChangeSingle, ...] = ()
    transition: ConfChangeTransition = ConfChangeTransition.AUTO
    context: bytes = b""
