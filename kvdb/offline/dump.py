"""
What is in a data directory that nobody uses, one thing after the other.

Keys are contents, and are left out unless they are asked for: without them a dump
can be shown to somebody who may not read the store.  Values are never shown.  Members,
revision and keys are those with all that the log knows to be committed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from attrs import asdict

from kvdb.offline.archive import ContentDigest
from kvdb.offline.committed import apply_until, committed_index
from kvdb.offline.directory import held, read_log, read_store
from kvdb.raft.confchange import as_v2, decode_conf_change
from kvdb.raft.messages import Entry, EntryType
from kvdb.rest.fields import text_field
from kvdb.storage.log import Log
from kvdb.store.commands import Command, Delete, Put
from kvdb.store.encoding import (
    decode_command,
    decode_member_change,
    decode_record,
    split_commands,
)
from kvdb.store.store import Store

READ_BYTES: Final = 1 << 20
"""Of entries, read at once."""

Line = dict[str, Any]
"""One thing; C{what} says which kind."""


def dump(directory: str, *, show_keys: bool) -> Iterator[Line]:
    """
    Identity, hard state, log, state, members, keys.

    @raise CorruptLog, EngineError: it cannot be read (any further).
    @raise DirectoryInUse: a node has it.
    @raise Unusable: there is nothing.
    """
    with held(directory), read_log(directory) as log:
        yield from _log_lines(log, show_keys)
        with read_store(directory) as store:
            stored = store.applied_index
            if log.identity is not None and stored + 1 >= log.first_index():
                apply_until(log, store, committed_index(log, store))
            yield from _store_lines(store, stored, show_keys)


def _log_lines(log: Log, show_keys: bool) -> Iterator[Line]:
    identity = log.identity
    if identity is not None:
        yield {
            "what": "identity",
            **asdict(identity),
            "cluster_id": f"{identity.cluster_id:016x}",
            "instance_id": f"{identity.instance_id:016x}",
            "starts": identity.starts.count,
        }
    state = log.hard_state
    yield {
        "what": "hard_state",
        "term": state.term,
        "vote": state.vote or None,
        "commit": state.commit,
    }
    first, last = log.first_index(), log.last_index()
    yield {
        "what": "log",
        "first_index": first,
        "last_index": last,
        "bytes": log.size_bytes,
        "torn_end": None if log.repaired is None else str(log.repaired),
    }
    while first <= last:
        entries = log.entries(first, last + 1, READ_BYTES)
        for entry in entries:
            yield _entry_line(entry, show_keys)
        first += len(entries)


def _entry_line(entry: Entry, show_keys: bool) -> Line:
    line: Line = {
        "what": "entry",
        "index": entry.index,
        "term": entry.term,
        "type": entry.type.name.lower(),
    }
    if entry.type is EntryType.NORMAL:
        line["commands"] = [
            _command_line(decode_command(data)[1], show_keys)
            for data in split_commands(entry.data)
        ]
        return line
    change = as_v2(decode_conf_change(entry))
    record = decode_member_change(change.context)
    line["changes"] = [
        {"change": one.type.name.lower(), "id": one.node_id} for one in change.changes
    ]
    line["url"] = record.url or None
    return line


def _command_line(command: Command, show_keys: bool) -> Line:
    line: Line = {"command": type(command).__name__.lower()}
    if isinstance(command, Put | Delete):
        line |= _key_fields(command.key, show_keys)
        if isinstance(command, Put):
            line["value_bytes"] = len(command.value)
        if command.condition.kind:
            line["condition"] = command.condition.kind.name.lower()
        return line
    return line | asdict(command)


def _key_fields(key: bytes, show_keys: bool) -> Line:
    return text_field("key", key) if show_keys else {"key_bytes": len(key)}


def _store_lines(store: Store, stored: int, show_keys: bool) -> Iterator[Line]:
    yield {
        "what": "store",
        "cluster_id": f"{store.cluster_id:016x}",
        "stored_index": stored,
        "applied_index": store.applied_index,
        "applied_term": store.applied_term,
        "revision": store.revision,
        "compacted_revision": store.compacted_revision,
        "bytes": store.size_bytes,
    }
    conf = store.conf_state
    yield {
        "what": "membership",
        "voters": list(conf.voters),
        "learners": list(conf.learners),
        "voters_outgoing": list(conf.voters_outgoing),
        "learners_next": list(conf.learners_next),
        "removed": sorted(store.removed),
    }
    for member in store.members.values():
        yield {
            "what": "member",
            **asdict(member),
            "instance_id": f"{member.instance_id:016x}",
        }
    digest = ContentDigest()
    for pair in store.engine.scan(b"k", b"l"):
        digest.add([pair])
        record = decode_record(pair[1])
        yield {
            "what": "key",
            **_key_fields(pair[0][1:], show_keys),
            "value_bytes": len(record.value),
            "create_revision": record.create_revision,
            "mod_revision": record.mod_revision,
            "version": record.version,
        }
    yield {"what": "keys", "count": digest.keys, "digest": digest.text()}
