"""What is in a data directory is told; what was written there only if asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvdb.offline.directory import read_directory
from kvdb.offline.dump import dump
from kvdb.raft.confchange import encode_conf_change
from kvdb.raft.messages import (
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    Entry,
    EntryType,
)
from kvdb.store.commands import (
    Command,
    Compact,
    Condition,
    ConditionKind,
    Delete,
    Put,
    RegisterInstance,
)
from kvdb.store.encoding import encode_member_change
from kvdb.store.engine import EngineError
from kvdb.store.rocks import RocksEngine
from tests.offline.member import backup_of, digest_of, fingerprint, make_member
from tests.store.entries import TIME_MS, entry

COMMANDS: list[Command] = [
    Put(b"/secret-a", b"hidden-1"),
    Put(b"/secret-b", b"hidden-2", Condition(ConditionKind.ABSENT)),
    Put(b"/\xff", b""),
    Delete(b"/secret-a"),
    Compact(1),
    RegisterInstance(1, 1001),
]


@pytest.fixture
def member(tmp_path: Path) -> Path:
    context = encode_member_change(9, 8, TIME_MS, 4, "http://d:4", b"")
    kind = ConfChangeType.ADD_LEARNER_NODE
    change = ConfChangeV2((ConfChangeSingle(kind, 4),), context=context)
    more = [Entry(1, 8, EntryType.CONF_CHANGE_V2, encode_conf_change(change))]
    return make_member(tmp_path / "m", COMMANDS, applied=len(COMMANDS), more=more)


def test_everything_is_there_in_order(member: Path) -> None:
    before = fingerprint(member)
    lines = list(dump(str(member), show_keys=True))
    assert fingerprint(member) == before
    kinds = list(dict.fromkeys(line["what"] for line in lines))
    assert kinds == [
        "identity",
        "hard_state",
        "log",
        "entry",
        "store",
        "membership",
        "member",
        "key",
        "keys",
    ]
    identity = lines[0]
    assert (identity["cluster_id"], identity["node_id"]) == ("0000000001234567", 1)
    assert lines[1] == {"what": "hard_state", "term": 1, "vote": 1, "commit": 8}
    entries = [line for line in lines if line["what"] == "entry"]
    assert [line["index"] for line in entries] == [*range(2, 9)]
    assert entries[0]["commands"] == [
        {"command": "put", "key": "/secret-a", "value_bytes": 8}
    ]
    assert entries[1]["commands"][0]["condition"] == "absent"
    assert entries[2]["commands"][0]["key_base64"] == "L/8="
    assert entries[3]["commands"] == [{"command": "delete", "key": "/secret-a"}]
    assert entries[4]["commands"] == [{"command": "compact", "revision": 1}]
    assert entries[6]["changes"] == [{"change": "add_learner_node", "id": 4}]
    assert entries[6]["url"] == "http://d:4"
    keys = [line for line in lines if line["what"] == "key"]
    assert [line.get("key") for line in keys] == ["/secret-b", None]
    assert keys[0]["mod_revision"] == 2
    assert lines[-1]["count"] == 2


def test_the_store_is_told_with_what_the_log_knows_to_be_committed(
    tmp_path: Path,
) -> None:
    context = encode_member_change(9, 8, TIME_MS, 4, "http://d:4", b"")
    single = ConfChangeSingle(ConfChangeType.ADD_LEARNER_NODE, 4)
    data = encode_conf_change(ConfChangeV2((single,), context=context))
    more = [Entry(1, 8, EntryType.CONF_CHANGE_V2, data), entry(9, Put(b"/late", b""))]
    member = make_member(tmp_path / "m", COMMANDS, applied=1, more=more, commit=8)
    before = fingerprint(member)
    lines = list(dump(str(member), show_keys=True))
    assert fingerprint(member) == before
    [store] = [line for line in lines if line["what"] == "store"]
    assert (store["stored_index"], store["applied_index"]) == (2, 8)
    assert (store["revision"], store["compacted_revision"]) == (4, 1)
    [membership] = [line for line in lines if line["what"] == "membership"]
    assert (membership["voters"], membership["learners"]) == ([1, 2, 3], [4])
    assert [line["id"] for line in lines if line["what"] == "member"] == [1, 2, 3, 4]
    keys = [line for line in lines if line["what"] == "key"]
    assert [line.get("key") for line in keys] == ["/secret-b", None]


def test_nothing_is_told_that_was_not_asked_for(member: Path) -> None:
    text = json.dumps(list(dump(str(member), show_keys=False)))
    assert "secret" not in text
    assert "hidden" not in text
    assert '"key_bytes": 9' in text
    assert "hidden" not in json.dumps(list(dump(str(member), show_keys=True)))


def test_its_digest_is_that_of_a_backup(member: Path) -> None:
    with read_directory(str(member)) as (_, store):
        data = backup_of(store)
    *_, last = dump(str(member), show_keys=False)
    assert last["digest"] == digest_of(data)


def test_a_store_that_cannot_be_read(tmp_path: Path) -> None:
    member = make_member(tmp_path / "m")
    engine = RocksEngine(f"{member}/store/engine-00000001")
    engine.write({b"mc": b"short"})
    engine.flush()
    engine.close()
    with pytest.raises(EngineError, match="see kvdbctl fsck"):
        list(dump(str(member), show_keys=False))
