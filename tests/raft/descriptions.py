"""
How messages, entries and Readys are printed in the data-driven tests.

The printed forms are those of etcd's raft, byte for byte: the files that hold
them were written by it.  Those of log lines, progress and configurations are
the core's own, as operators see them too; those here are for tests alone.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from kvdb.raft.confchange import as_v2, decode_conf_change
from kvdb.raft.core import message_name
from kvdb.raft.messages import (
    APPEND_THREAD,
    APPLY_THREAD,
    NO_NODE,
    ConfChangeSingle,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    ReadState,
    Ready,
    Snapshot,
    SoftState,
)
from kvdb.raft.state import ROLE_NAMES
from tests.raft.casefile import CommandFailed

INDENT = "  "

_ENTRY_TYPES = {
    EntryType.NORMAL: "EntryNormal",
    EntryType.CONF_CHANGE: "EntryConfChange",
    EntryType.CONF_CHANGE_V2: "EntryConfChangeV2",
}
MESSAGE_TYPES = {message_name(kind): kind for kind in MessageType}
"""The kinds of message, by their printed forms."""

_TARGETS = {
    NO_NODE: "None",
    APPEND_THREAD: "AppendThread",
    APPLY_THREAD: "ApplyThread",
}
CHANGE_LETTERS = {
    "v": ConfChangeType.ADD_NODE,
    "l": ConfChangeType.ADD_LEARNER_NODE,
    "r": ConfChangeType.REMOVE_NODE,
    "u": ConfChangeType.UPDATE_NODE,
}
_LETTERS_OF_CHANGES = {kind: letter for letter, kind in CHANGE_LETTERS.items()}
_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def quote(data: bytes) -> str:
    """C{data} as Go's C{%q} prints it: as text where it is UTF-8."""
    text = data.decode("utf-8", "surrogateescape")
    return '"' + "".join(_quote_character(character) for character in text) + '"'


def _quote_character(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        # A byte that is part of no UTF-8 sequence.
        return f"\\x{code - 0xDC00:02x}"
    if character == " " or unicodedata.category(character)[0] in "LMNPS":
        return character
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def describe_list(values: Iterable[object]) -> str:
    """A list as Go prints it: C{[1 2 3]}."""
    return "[" + " ".join(str(value) for value in values) + "]"


def describe_boolean(value: bool) -> str:
    """C{true} or C{false}."""
    return "true" if value else "false"


def describe_changes(changes: Iterable[ConfChangeSingle]) -> str:
    """Membership changes as the cases write them: C{v1 l2 r3 u4}."""
    return " ".join(
        f"{_LETTERS_OF_CHANGES[change.type]}{change.node_id}" for change in changes
    )


def parse_changes(text: str) -> tuple[ConfChangeSingle, ...]:
    """
    Membership changes as C{v1 l2 r3 u4}.

    @raise CommandFailed: it is none.
    """
    changes = []
    for word in text.split():
        if len(word) < 2:
            raise CommandFailed(f"unknown token {word}")
        kind = CHANGE_LETTERS.get(word[0])
        if kind is None:
            raise CommandFailed(f"unknown input: {word}")
        if not (word[1:].isascii() and word[1:].isdigit()):
            raise CommandFailed(
                f"strconv.ParseUint: parsing {quote(word[1:].encode())}: invalid syntax"
            )
        changes.append(ConfChangeSingle(kind, int(word[1:])))
    return tuple(changes)


def describe_entry(entry: Entry) -> str:
    """C{term/index type data}."""
    if entry.type is EntryType.NORMAL:
        data = quote(entry.data)
    else:
        data = describe_changes(as_v2(decode_conf_change(entry)).changes)
    head = f"{entry.term}/{entry.index} {_ENTRY_TYPES[entry.type]}"
    return f"{head} {data}" if data else head


def describe_entries(entries: Iterable[Entry]) -> str:
    """An entry a line."""
    return "".join(f"{describe_entry(entry)}\n" for entry in entries)


def describe_conf_state(state: ConfState) -> str:
    """A membership as a snapshot holds it."""
    return (
        f"Voters:{describe_list(state.voters)}"
        f" VotersOutgoing:{describe_list(state.voters_outgoing)}"
        f" Learners:{describe_list(state.learners)}"
        f" LearnersNext:{describe_list(state.learners_next)}"
        f" AutoLeave:{describe_boolean(state.auto_leave)}"
    )


def describe_snapshot(snapshot: Snapshot) -> str:
    """A snapshot, without its content."""
    return (
        f"Index:{snapshot.index} Term:{snapshot.term}"
        f" ConfState:{describe_conf_state(snapshot.conf_state)}"
    )


def describe_target(node: int) -> str:
    """The sender or the receiver of a message."""
    return _TARGETS.get(node, f"{node:x}")


def describe_message(message: Message, indent: str = "") -> str:
    """
    A message; on several lines where it holds several entries, a snapshot or
    responses, with no newline at the end.
    """
    inner = indent + INDENT
    head = (
        f"{indent}{describe_target(message.from_)}->{describe_target(message.to)}"
        f" {message_name(message.type)} Term:{message.term}"
        f" Log:{message.log_term}/{message.index}"
    )
    parts = [head]
    if message.reject:
        parts.append(f" Rejected (Hint: {message.reject_hint})")
    if message.commit:
        parts.append(f" Commit:{message.commit}")
    if message.vote:
        parts.append(f" Vote:{message.vote}")
    if len(message.entries) == 1:
        parts.append(f" Entries:[{describe_entry(message.entries[0])}]")
    elif message.entries:
        lines = "".join(f"\n{inner}{describe_entry(e)}" for e in message.entries)
        parts.append(f" Entries:[{lines}\n{indent}]")
    if message.snapshot is not None and message.snapshot.index:
        parts.append(f"\n{inner}Snapshot: {describe_snapshot(message.snapshot)}")
    if message.responses:
        lines = "".join(f"\n{describe_message(r, inner)}" for r in message.responses)
        parts.append(f" Responses:[{lines}\n{indent}]")
    return "".join(parts)


def describe_messages(messages: Iterable[Message]) -> str:
    """A message after the other."""
    return "".join(f"{describe_message(message)}\n" for message in messages)


def describe_soft_state(state: SoftState) -> str:
    """What a member may forget."""
    return f"Lead:{state.leader} State:{ROLE_NAMES[state.role]}"


def describe_hard_state(state: HardState) -> str:
    """What a member must not forget."""
    vote = f" Vote:{state.vote}" if state.vote else ""
    return f"Term:{state.term}{vote} Commit:{state.commit}"


def describe_read_states(states: Sequence[ReadState]) -> str:
    """Answers to read-index requests: the index, and the context's bytes."""
    return describe_list(
        f"{{{state.index} {describe_list(state.context)}}}" for state in states
    )


def describe_ready(ready: Ready) -> str:
    """What a Ready holds, in the order in which it is to be carried out."""
    parts = []
    if ready.soft_state is not None:
        parts.append(describe_soft_state(ready.soft_state) + "\n")
    if ready.hard_state is not None:
        parts.append(f"HardState {describe_hard_state(ready.hard_state)}\n")
    if ready.read_states:
        parts.append(f"ReadStates {describe_read_states(ready.read_states)}\n")
    if ready.entries:
        parts.append("Entries:\n" + describe_entries(ready.entries))
    if ready.snapshot is not None:
        parts.append(f"Snapshot {describe_snapshot(ready.snapshot)}\n")
    if ready.committed_entries:
        parts.append("CommittedEntries:\n" + describe_entries(ready.committed_entries))
    if ready.messages:
        parts.append("Messages:\n" + describe_messages(ready.messages))
    if not parts:
        return "<empty Ready>"
    return f"Ready MustSync={describe_boolean(ready.must_sync)}:\n" + "".join(parts)
