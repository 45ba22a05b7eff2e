"""
Commands and records as bytes.

The data of a log entry is commands, each behind its length (4 bytes, big-endian):
those that one node proposed at once.  A command is (big-endian)::

     0  8  session      which run of which node waits for the outcome
     8  8  sequence     which of its proposals this is
    16  8  time         milliseconds since 1970, by the proposer's clock (L{kvdb.times})
    24  1  operation
    25  n  what the operation takes, see docs/store-format.md

Rules: bytes once given a meaning keep it; an operation that is not known was
written by a later release, and nobody may go on past it.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterable
from typing import Final

from attrs import frozen

from kvdb.raft.messages import ConfState
from kvdb.store.commands import (
    ALWAYS,
    Command,
    Compact,
    Condition,
    ConditionKind,
    Delete,
    Member,
    Outcome,
    OutcomeStatus,
    Put,
    Reason,
    Record,
    RegisterInstance,
)


class Operation(enum.IntEnum):
    """The kinds of command; the numbers are those in entries and on disk."""

    PUT = 1
    DELETE = 2
    COMPACT = 3
    REGISTER_INSTANCE = 4


class UnknownCommand(Exception):
    """An entry that this release cannot carry out."""


@frozen(slots=True)
class Envelope:
    """
    Who waits for a command, and when it was proposed.

    @ivar payload: operation and arguments, without the idempotency key: what
        makes two commands the same.
    """

    session: int
    sequence: int
    time_ms: int
    payload: bytes


_PUT: Final = int(Operation.PUT)
_LENGTH: Final = struct.Struct(">I")
_ENVELOPE: Final = struct.Struct(">QQQ")
# Envelope, operation, condition kind, its revision, lease, lengths of idempotency
# key and key.
_WRITE_ENTRY: Final = struct.Struct(">QQQBBQQHI")
_PAIR: Final = struct.Struct(">QQ")
_ONE: Final = struct.Struct(">Q")
_CHANGE: Final = struct.Struct(">QQQQHH")
# The index that the learner was known to hold, how many members were reached, and
# the length of the idempotency key.
_JUDGED: Final = struct.Struct(">QHH")
_IS_JUDGED: Final = 0xFFFF
"""In place of the length of the idempotency key: what L{_JUDGED} says follows."""

MAX_REACHED: Final = 4096
"""Members that a change may name as reached."""

_CONDITIONS: Final = {int(kind): kind for kind in ConditionKind}
_REASONS: Final = {int(reason): reason for reason in Reason}


def encode_command(
    session: int, sequence: int, time_ms: int, command: Command
) -> bytes:
    """A command as it stands in an entry."""
    if type(command) is Put and command.condition is ALWAYS:
        key, token = command.key, command.idempotency_key
        return (
            _WRITE_ENTRY.pack(
                session,
                sequence,
                time_ms,
                _PUT,
                0,
                0,
                command.lease,
                len(token),
                len(key),
            )
            + token
            + key
            + command.value
        )
    if isinstance(command, Put | Delete):
        is_put = isinstance(command, Put)
        condition = command.condition
        fixed = _WRITE_ENTRY.pack(
            session,
            sequence,
            time_ms,
            Operation.PUT if is_put else Operation.DELETE,
            condition.kind,
            condition.revision,
            command.lease if isinstance(command, Put) else 0,
            len(command.idempotency_key),
            len(command.key),
        )
        value = command.value if isinstance(command, Put) else b""
        return fixed + command.idempotency_key + command.key + value
    envelope = _ENVELOPE.pack(session, sequence, time_ms)
    if isinstance(command, Compact):
        return envelope + bytes([Operation.COMPACT]) + _ONE.pack(command.revision)
    return (
        envelope
        + bytes([Operation.REGISTER_INSTANCE])
        + _PAIR.pack(command.node_id, command.instance_id)
    )


def join_commands(commands: Iterable[bytes]) -> bytes:
    """The data of an entry that asks for C{commands}, in order."""
    parts: list[bytes] = []
    for command in commands:
        parts += (_LENGTH.pack(len(command)), command)
    return b"".join(parts)


def split_commands(data: bytes) -> list[bytes]:
    """
    The other way.

    @raise UnknownCommand: this is none.
    """
    commands: list[bytes] = []
    size = len(data)
    start = 0
    try:
        while start < size:
            body = start + 4  # the length
            start = body + _LENGTH.unpack_from(data, start)[0]
            commands.append(data[body:start])
    except struct.error as error:
        raise UnknownCommand(f"an entry of {size} bytes is cut in a length") from error
    if start > size:
        raise UnknownCommand(f"an entry of {size} bytes is cut in a command")
    return commands


def decode_plain_put(data: bytes) -> tuple[int, int, int, bytes, bytes] | None:
    """
    Session, sequence, time, key and value of a PUT without conditions, which
    most commands are; None of any other, for L{decode_command} to read.
    """
    if len(data) < _WRITE_ENTRY.size or data[_ENVELOPE.size] != _PUT:
        return None
    session, sequence, time_ms, _, kind, _, lease, token_length, key_length = (
        _WRITE_ENTRY.unpack_from(data)
    )
    end = _WRITE_ENTRY.size + key_length
    if kind or lease or token_length or len(data) < end:
        return None
    return session, sequence, time_ms, data[_WRITE_ENTRY.size : end], data[end:]


def decode_command(data: bytes) -> tuple[Envelope, Command]:
    """
    What a command asks for.

    @raise UnknownCommand: this release does not know.
    """
    try:
        return _decode(data)
    except (struct.error, IndexError, KeyError) as error:
        raise UnknownCommand(f"{len(data)} bytes in an entry are no command") from error


def _decode(data: bytes) -> tuple[Envelope, Command]:
    session, sequence, time_ms = _ENVELOPE.unpack_from(data)
    operation = data[_ENVELOPE.size]
    if operation in (Operation.PUT, Operation.DELETE):
        return _decode_write(data)
    body = data[_ENVELOPE.size + 1 :]
    envelope = Envelope(session, sequence, time_ms, body)
    if operation == Operation.COMPACT:
        return envelope, Compact(*_ONE.unpack(body))
    if operation == Operation.REGISTER_INSTANCE:
        return envelope, RegisterInstance(*_PAIR.unpack(body))
    raise UnknownCommand(
        f"an entry asks for operation {operation}, which this release of kvdb does"
        " not know: a later one wrote it.  Start this member with that release"
    )


def _decode_write(data: bytes) -> tuple[Envelope, Command]:
    (
        session,
        sequence,
        time_ms,
        operation,
        kind,
        revision,
        lease,
        token_length,
        key_length,
    ) = _WRITE_ENTRY.unpack_from(data)
    start = _WRITE_ENTRY.size
    key_start = start + token_length
    value_start = key_start + key_length
    if len(data) < value_start:
        raise UnknownCommand(f"a write cut after {len(data)} bytes")
    token = data[start:key_start]
    key = data[key_start:value_start]
    condition = ALWAYS if not kind else Condition(_CONDITIONS[kind], revision)
    payload = b""
    if token:
        payload = data[_ENVELOPE.size : start] + data[key_start:]
    envelope = Envelope(session, sequence, time_ms, payload)
    if operation == Operation.PUT:
        return envelope, Put(key, data[value_start:], condition, token, lease)
    return envelope, Delete(key, condition, token)


@frozen(slots=True)
class Judged:
    """
    What a membership change was judged on before it was queued, to be judged again
    when it is applied.

    @ivar reached: ids of the members that were reached, with the one that asked.
    @ivar match: up to which index the learner that is to be a voter was known to
        hold the log; else 0.
    """

    reached: tuple[int, ...]
    match: int = 0


@frozen(slots=True)
class MemberChange:
    """
    What a membership entry brings beside the change itself.

    @ivar url: of the member that is added; else empty.
    @ivar judged: None in the entries of releases before protocol version 3.
    """

    session: int
    sequence: int
    time_ms: int
    member_id: int
    url: str
    idempotency_key: bytes
    judged: Judged | None = None


def encode_member_change(
    session: int,
    sequence: int,
    time_ms: int,
    member_id: int,
    url: str,
    idempotency_key: bytes,
    judged: Judged | None = None,
) -> bytes:
    """
    The context of a membership change.

    @raise ValueError: it names more than L{MAX_REACHED} members.
    """
    encoded = url.encode()
    token = len(idempotency_key)
    if judged is None:
        length, rest = token, b""
    else:
        count = len(judged.reached)
        if count > MAX_REACHED:
            raise ValueError(f"{count} members are reached, at most {MAX_REACHED} fit")
        length = _IS_JUDGED
        rest = _JUDGED.pack(judged.match, count, token)
        rest += struct.pack(f">{count}Q", *judged.reached)
    fixed = _CHANGE.pack(session, sequence, time_ms, member_id, len(encoded), length)
    return fixed + encoded + rest + idempotency_key


def decode_member_change(context: bytes) -> MemberChange:
    """
    @raise UnknownCommand: the context is none of ours.
    """
    judged: Judged | None = None
    try:
        session, sequence, time_ms, member, url_length, token_length = (
            _CHANGE.unpack_from(context)
        )
        start = _CHANGE.size
        url = context[start : start + url_length].decode()
        start += url_length
        if token_length == _IS_JUDGED:
            match, count, token_length = _JUDGED.unpack_from(context, start)
            start += _JUDGED.size
            reached = struct.unpack_from(f">{count}Q", context, start)
            start += 8 * count
            judged = Judged(reached, match)
    except (struct.error, UnicodeDecodeError) as error:
        raise UnknownCommand("a membership change without its record") from error
    token = context[start:][:token_length]
    if len(token) < token_length:
        raise UnknownCommand(f"a membership change cut after {len(context)} bytes")
    return MemberChange(session, sequence, time_ms, member, url, token, judged)


# What rests in the engine.

RECORD: Final = struct.Struct(">QQQQ")
"""Create revision, mod revision, version, lease; the value follows."""

EVENT: Final = struct.Struct(">IBQQ")
"""Length of the key, operation, the key's mod revision before, time; the key
follows."""

_OUTCOME: Final = struct.Struct(">BQ8s")
_DIGITS: Final = frozenset(b"0123456789")
_MOST_DIGITS: Final = 20
_MEMBER: Final = struct.Struct(">QQ")
_CONF_STATE: Final = struct.Struct(">BHHHH")


def encode_record(record: Record) -> bytes:
    """A key's record."""
    return (
        RECORD.pack(
            record.create_revision, record.mod_revision, record.version, record.lease
        )
        + record.value
    )


def decode_record(data: bytes) -> Record:
    """The other way."""
    create, mod, version, lease = RECORD.unpack_from(data)
    return Record(data[RECORD.size :], create, mod, version, lease)


@frozen(slots=True)
class Event:
    """
    One change of one key.

    @ivar previous: the key's mod_revision before it; 0 if it was absent.
    """

    operation: Operation
    previous: int
    time_ms: int
    key: bytes


def encode_event(event: Event) -> bytes:
    """An event of history."""
    head = EVENT.pack(len(event.key), event.operation, event.previous, event.time_ms)
    return head + event.key


def decode_events(data: bytes) -> list[Event]:
    """
    Events that stand one after the other.

    @raise ValueError: they do not fill C{data}.
    """
    events: list[Event] = []
    start = 0
    while start < len(data):
        key_start = start + EVENT.size
        if key_start > len(data):
            raise ValueError("an event is cut in its head")
        length, operation, previous, time_ms = EVENT.unpack_from(data, start)
        start = key_start + length
        if start > len(data):
            raise ValueError("an event is cut in its key")
        key = data[key_start:start]
        events.append(Event(Operation(operation), previous, time_ms, key))
    return events


def encode_outcome(outcome: Outcome, fingerprint: bytes) -> bytes:
    """An outcome that a retry gets, and what it was the outcome of."""
    fixed = _OUTCOME.pack(outcome.status, outcome.revision, fingerprint)
    if outcome.status is not OutcomeStatus.REFUSED:
        return fixed
    # Decimal, for releases that read a text here.
    return fixed + b"%d %d" % (outcome.reason, outcome.number)


def decode_outcome(data: bytes) -> tuple[Outcome, bytes]:
    """The other way."""
    status, revision, fingerprint = _OUTCOME.unpack_from(data)
    reason, number = Reason.NOT_KEPT, 0
    words = data[_OUTCOME.size :].split(b" ")
    if len(words) == 2 and all(map(_is_number, words)):
        reason = _REASONS.get(int(words[0]), Reason.NOT_KEPT)
        number = int(words[1])
    return Outcome(OutcomeStatus(status), revision, reason, number), fingerprint


def _is_number(word: bytes) -> bool:
    return 0 < len(word) <= _MOST_DIGITS and _DIGITS.issuperset(word)


def encode_member(member: Member) -> bytes:
    """A member; whether it is a learner stands in the membership."""
    return _MEMBER.pack(member.id, member.instance_id) + member.url.encode()


def decode_member(data: bytes) -> Member:
    """The other way."""
    node, instance = _MEMBER.unpack_from(data)
    return Member(node, data[_MEMBER.size :].decode(), instance)


def encode_conf_state(state: ConfState) -> bytes:
    """The membership."""
    groups = (
        state.voters,
        state.learners,
        state.voters_outgoing,
        state.learners_next,
    )
    ids = [node for group in groups for node in group]
    fixed = _CONF_STATE.pack(state.auto_leave, *map(len, groups))
    return fixed + struct.pack(f">{len(ids)}Q", *ids)


def decode_conf_state(data: bytes) -> ConfState:
    """The other way."""
    auto_leave, *counts = _CONF_STATE.unpack_from(data)
    offset = _CONF_STATE.size
    groups: list[tuple[int, ...]] = []
    for count in counts:
        groups.append(struct.unpack_from(f">{count}Q", data, offset))
        offset += 8 * count
    voters, learners, outgoing, learners_next = groups
    return ConfState(voters, learners, outgoing, learners_next, bool(auto_leave))
