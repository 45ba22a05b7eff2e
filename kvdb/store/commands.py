"""
What can be asked of the store, and what it answers.

A command is the data of a log entry.  Everything that an application could
decide in two ways (time, ids, random values) is decided by the proposer and
stands in the command, so that applying it gives the same state on every
member.

Rules: a command, once encoded, means the same for ever; new kinds get new
numbers; nothing here knows of Raft, peers or HTTP.
"""

from __future__ import annotations

import enum
from typing import Final

from attrs import frozen

NO_REVISION: Final = 0
"""The revision of what does not exist."""

MAX_IDEMPOTENCY_KEY_BYTES: Final = 256


class ConditionKind(enum.IntEnum):
    """What must hold of the key for a write to be done."""

    ALWAYS = 0
    EXISTS = 1
    """C{If-Match: *}"""
    ABSENT = 2
    """C{If-None-Match: *}"""
    REVISION = 3
    """C{If-Match: "N"}: the key exists and was last changed at revision N."""


@frozen(slots=True)
class Condition:
    """A compare-and-set's compare."""

    kind: ConditionKind = ConditionKind.ALWAYS
    revision: int = NO_REVISION


ALWAYS: Final = Condition()


@frozen(slots=True)
class Put:
    """
    Set a key.

    @ivar idempotency_key: empty for none; else a retry with the same one gets
        the first outcome and changes nothing.
    @ivar lease: the lease the key goes with; 0 for none.
    """

    key: bytes
    value: bytes
    condition: Condition = ALWAYS
    idempotency_key: bytes = b""
    lease: int = 0


@frozen(slots=True)
class Delete:
    """Remove a key."""

    key: bytes
    condition: Condition = ALWAYS
    idempotency_key: bytes = b""


@frozen(slots=True)
class Compact:
    """Forget the history at and below C{revision}; current records stay."""

    revision: int


@frozen(slots=True)
class RegisterInstance:
    """
    Record which data directory a member lives in, if none is recorded yet.
    """

    node_id: int
    instance_id: int


Command = Put | Delete | Compact | RegisterInstance


@frozen(slots=True)
class Member:
    """
    A member as the replicated membership knows it.

    @ivar url: where its peers reach it, C{http://host:port}.
    @ivar instance_id: its data directory's random id; 0 until known.
    """

    id: int
    url: str
    instance_id: int = 0
    learner: bool = False


@frozen(slots=True)
class Record:
    """
    A key's value and its history in numbers (etcd's data model).

    @ivar create_revision: the store's revision when the key came to be.
    @ivar mod_revision: the store's revision of its last change.
    @ivar version: how often it was changed since it came to be, from 1.
    """

    value: bytes
    create_revision: int
    mod_revision: int
    version: int
    lease: int = 0


class OutcomeStatus(enum.IntEnum):
    """How a command ended."""

    DONE = 0
    NOT_FOUND = 1
    """A delete of an absent key: nothing was changed."""
    CONDITION_FAILED = 2
    """Nothing was changed; C{Outcome.revision} is the key's current
    mod_revision, or L{NO_REVISION}."""
    REFUSED = 3
    """Nothing was changed, for the reason in C{Outcome.reason}."""


class Reason(enum.IntEnum):
    """
    Why a command was refused; the numbers are those on disk.  What people are told
    is made of it, by who asked: L{kvdb.store.membership.explain}.
    """

    NOT_KEPT = 0
    """An earlier release has refused it, and kept a text."""
    OTHER_REQUEST = 1
    """The idempotency key was used for another request."""
    OTHER_DIRECTORY = 2
    """The member is known with another data directory."""
    NOT_ONE_MEMBER = 3
    """A change concerns one member."""
    NOT_SUPPORTED = 4
    """A kind of change that this release does not make."""
    NO_MEMBER = 5
    ONLY_VOTER = 6
    IS_MEMBER = 7
    WAS_REMOVED = 8
    BAD_URL = 9
    URL_TAKEN = 10
    """C{Outcome.number} is the member that has it."""
    NO_LEARNER = 11
    TOO_FEW_REACHED = 12
    """C{Outcome.number} is how many of the voters that would be left."""
    NOT_CAUGHT_UP = 13
    """C{Outcome.number} is how many entries the learner was behind."""


@frozen(slots=True)
class Outcome:
    """
    What became of a command.

    @ivar revision: the key's mod_revision after the command; for a delete,
        the revision of the deletion.
    @ivar reason: only with REFUSED.
    @ivar number: what the reason says more, if anything.
    """

    status: OutcomeStatus
    revision: int = NO_REVISION
    reason: Reason = Reason.NOT_KEPT
    number: int = 0
