"""
Messages as bytes, protocol version 1.

A message is a fixed part, then the records of its entries, then its snapshot
if it has one, then its context::

     0  1  type
     1  1  flags: 1 reject, 2 a snapshot follows
     2  2  length of the context, in bytes
     4  4  number of entries
     8  4  length of the entries' records together, in bytes
    12  8  to
    20  8  from
    28  8  term
    36  8  log term
    44  8  index
    52  8  commit index
    60  8  reject hint
    68     entries, as L{kvdb.storage.records} encodes them
           snapshot: index (8), term (8), flags (1: auto-leave), four counts
             (2 each), length of its data (4); then the ids (8 each) of voters,
             learners, outgoing voters and learners-next; then its data
           context

The body of a MESSAGES frame is messages one after another.

Rules:

* An entry is not encoded here: the record made by its proposer is copied, and
  its own checksum is verified again by L{decode_entries}.  What surrounds it
  is covered by the frame's checksum.
* What a node says to itself never leaves it: such types are neither written
  nor read.
* Any bytes either decode or raise L{ProtocolError}, and what they decode to
  is no larger than a small multiple of them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from kvdb.peer.framing import MAX_FRAME_BYTES, ProtocolError
from kvdb.raft.messages import ConfState, Entry, Message, MessageType, Snapshot
from kvdb.storage.records import BadRecord, decode_entries, encode_entry

TRAVELLING: Final = {
    int(kind): kind
    for kind in (
        MessageType.PROP,
        MessageType.APP,
        MessageType.APP_RESP,
        MessageType.VOTE,
        MessageType.VOTE_RESP,
        MessageType.SNAP,
        MessageType.HEARTBEAT,
        MessageType.HEARTBEAT_RESP,
        MessageType.TRANSFER_LEADER,
        MessageType.TIMEOUT_NOW,
        MessageType.READ_INDEX,
        MessageType.READ_INDEX_RESP,
        MessageType.PRE_VOTE,
        MessageType.PRE_VOTE_RESP,
    )
}
"""The types that go from member to member, by their numbers."""

FRAME_SOFT_BYTES: Final = 2**20
"""A frame of messages is closed once it holds this many bytes."""

MAX_CONTEXT_BYTES: Final = 2**16 - 1
"""The longest context of a message."""

_FIXED: Final = struct.Struct(">BBHII7Q")
_SNAPSHOT: Final = struct.Struct(">QQBHHHHI")

_REJECT: Final = 1
_HAS_SNAPSHOT: Final = 2


def encode_frames(messages: Iterable[Message]) -> Iterator[tuple[bytes, int]]:
    """
    The bodies of MESSAGES frames that carry C{messages} in order, and how many
    messages each holds.

    @raise ValueError: a message is longer than a frame may be, or is one that
        never leaves the node.
    """
    parts: list[bytes] = []
    size = 0
    for message in messages:
        encoded = encode_message(message)
        if size and size + len(encoded) > FRAME_SOFT_BYTES:
            yield b"".join(parts), len(parts)
            parts, size = [], 0
        parts.append(encoded)
        size += len(encoded)
    if parts:
        yield b"".join(parts), len(parts)


def encode_message(message: Message) -> bytes:
    """
    @raise ValueError: it is longer than a frame may be, or it is one that
        never leaves the node.
    """
    kind = message.type
    if kind not in TRAVELLING or message.responses or message.vote:
        raise ValueError(f"a {kind.name} like this never leaves the node")
    context = message.context
    records = [encode_entry(entry) for entry in message.entries]
    flags = _REJECT if message.reject else 0
    tail = b""
    if message.snapshot is not None:
        flags |= _HAS_SNAPSHOT
        tail = _encode_snapshot(message.snapshot)
    entry_bytes = sum(map(len, records))
    if (
        _FIXED.size + entry_bytes + len(tail) + len(context) > MAX_FRAME_BYTES
        or len(context) > MAX_CONTEXT_BYTES
    ):
        raise ValueError(
            f"a {kind.name} with {entry_bytes} bytes of entries and"
            f" {len(context)} of context is too long"
        )
    fixed = _FIXED.pack(
        kind,
        flags,
        len(context),
        len(records),
        entry_bytes,
        message.to,
        message.from_,
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.reject_hint,
    )
    if not (records or tail or context):
        return fixed
    return b"".join((fixed, *records, tail, context))


def _encode_snapshot(snapshot: Snapshot) -> bytes:
    conf = snapshot.conf_state
    groups = (
        conf.voters,
        conf.learners,
        conf.voters_outgoing,
        conf.learners_next,
    )
    ids = [node for group in groups for node in group]
    fixed = _SNAPSHOT.pack(
        snapshot.index,
        snapshot.term,
        conf.auto_leave,
        *map(len, groups),
        len(snapshot.data),
    )
    return fixed + struct.pack(f">{len(ids)}Q", *ids) + snapshot.data


def decode_messages(body: bytes) -> list[Message]:
    """
    The messages in the body of a MESSAGES frame, at least one.

    @raise ProtocolError: the bytes are none.
    """
    if not body:
        raise ProtocolError("no message where one must be")
    messages = []
    offset = 0
    while offset < len(body):
        message, offset = _decode_message(body, offset)
        messages.append(message)
    return messages


def _decode_message(body: bytes, offset: int) -> tuple[Message, int]:
    """The message at C{offset}, and the offset behind it."""
    start = offset + _FIXED.size
    if len(body) < start:
        raise ProtocolError(f"a message cut after {len(body) - offset} bytes")
    (number, flags, context_length, count, entry_bytes, *numbers) = _FIXED.unpack_from(
        body, offset
    )
    if number not in TRAVELLING:
        raise ProtocolError(f"a message of type {number}, which does not travel")
    if flags & ~(_REJECT | _HAS_SNAPSHOT):
        raise ProtocolError(f"a message with unknown flags {flags:#x}")
    end = start + entry_bytes
    if len(body) < end + context_length:
        raise ProtocolError("a message cut within its entries or its context")
    entries: list[Entry] | tuple[()] = ()
    if count or entry_bytes:
        entries = _decode_entries(body, start, count, entry_bytes)
    snapshot = None
    if flags & _HAS_SNAPSHOT:
        snapshot, end = _decode_snapshot(body, end)
    context = body[end : end + context_length]
    if len(context) < context_length:
        raise ProtocolError("a message cut within its context")
    to, from_, term, log_term, index, commit, reject_hint = numbers
    message = Message(
        TRAVELLING[number],
        to,
        from_,
        term,
        log_term,
        index,
        commit,
        reject=bool(flags & _REJECT),
        reject_hint=reject_hint,
        entries=entries,
        snapshot=snapshot,
        context=context,
    )
    return message, end + context_length


def _decode_entries(body: bytes, offset: int, count: int, length: int) -> list[Entry]:
    """C{count} entries, whose records fill C{length} bytes from C{offset} on."""
    try:
        entries = decode_entries(body, offset, count)
    except BadRecord as error:
        raise ProtocolError(f"a message with {error}") from error
    if sum(len(entry.encoded or b"") for entry in entries) != length:
        raise ProtocolError("a message whose entries do not fill their place")
    return entries


def _decode_snapshot(body: bytes, offset: int) -> tuple[Snapshot, int]:
    """The snapshot at C{offset}, and the offset behind it."""
    start = offset + _SNAPSHOT.size
    if len(body) < start:
        raise ProtocolError("a snapshot cut within its fixed part")
    index, term, auto_leave, *counts, length = _SNAPSHOT.unpack_from(body, offset)
    middle = start + 8 * sum(counts)
    end = middle + length
    if len(body) < end or auto_leave > 1:
        raise ProtocolError("a snapshot cut within its membership or its data")
    groups: list[tuple[int, ...]] = []
    for count in counts:
        groups.append(struct.unpack_from(f">{count}Q", body, start))
        start += 8 * count
    voters, learners, outgoing, learners_next = groups
    conf_state = ConfState(voters, learners, outgoing, learners_next, bool(auto_leave))
    return Snapshot(index, term, conf_state, body[middle:end]), end
