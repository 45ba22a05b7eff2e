"""A cluster made of what one member has."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from kvdb.offline.directory import Disk, Unusable, read_directory, real_disk
from kvdb.offline.files import real_filesystem
from kvdb.offline.recover import Recovered, Survey, opened
from kvdb.offline.recover import recover as recover_it
from kvdb.raft.confchange import encode_conf_change
from kvdb.raft.messages import (
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    Entry,
    EntryType,
)
from kvdb.storage.filesystem import DirectoryInUse, hold_lock
from kvdb.storage.instance import InstanceFile, PartsDiffer
from kvdb.store.commands import Put
from kvdb.store.encoding import encode_member_change
from tests.offline.member import (
    CLUSTER_ID,
    backup_bytes,
    digest_of,
    fingerprint,
    make_member,
    nothing,
    some_commands,
)
from tests.store.entries import TIME_MS, entry

URL = "http://127.0.0.1:9"
STEP = 10**9
BOOT = "this boot"


def survey(directory: str) -> Survey:
    with opened(directory, BOOT) as survivor:
        return survivor.survey


def recover(disk: Disk, directory: str, *arguments: Any, **options: Any) -> Recovered:
    with opened(directory, BOOT) as survivor:
        return recover_it(disk, survivor, *arguments, **options)


@pytest.mark.parametrize("applied", [0, 1, 30, None])
def test_all_that_came_is_kept(tmp_path: Path, applied: int | None) -> None:
    """However much of it had reached the store."""
    commands = some_commands()
    old = make_member(tmp_path / "old", commands, applied=applied, commit=20)
    before = fingerprint(old)
    found = survey(str(old))
    assert found.last == 1 + len(commands)
    assert found.applied == 1 + (len(commands) if applied is None else applied)
    assert found.committed == max(20, found.applied)
    made = recover(
        real_disk(), str(old), str(tmp_path / "new"), 7, URL, nothing, revision_step=50
    )
    assert made.applied == found.last - found.applied
    assert made.digest == digest_of(backup_bytes(commands))
    assert fingerprint(old) == before, "the old directory was changed"
    with read_directory(str(tmp_path / "new")) as (log, store):
        assert (store.revision, store.compacted_revision) == (66 + 50, 66 + 50)
        assert [*store.members] == [7]
        assert store.members[7].url == URL
        assert store.conf_state.voters == (7,)
        assert store.cluster_id == made.cluster_id != CLUSTER_ID
        assert not list(store.engine.scan(b"h", b"i"))
        assert not list(store.engine.scan(b"v", b"w"))
        assert log.identity is not None
        assert log.identity.node_id == 7
        assert len(list(store.engine.scan(b"i", b"j"))) == 9


def test_each_recovery_makes_another_cluster(tmp_path: Path) -> None:
    old = make_member(tmp_path / "old", some_commands())
    made = [
        recover(real_disk(), str(old), str(tmp_path / name), 1, URL, nothing)
        for name in ("a", "b")
    ]
    assert made[0].cluster_id != made[1].cluster_id
    assert made[0].digest == made[1].digest


def test_what_is_not_known_to_be_committed_can_be_left_out(tmp_path: Path) -> None:
    commands = some_commands()
    old = make_member(tmp_path / "old", commands, applied=5, commit=31)
    made = recover(
        real_disk(),
        str(old),
        str(tmp_path / "new"),
        1,
        URL,
        nothing,
        discard_uncommitted=True,
    )
    assert made.applied == 25
    assert made.digest == digest_of(backup_bytes(commands[:30]))


def change(index: int, kind: ConfChangeType, node: int) -> Entry:
    context = encode_member_change(9, index, TIME_MS, node, f"http://d:{node}", b"")
    made = ConfChangeV2((ConfChangeSingle(kind, node),), context=context)
    return Entry(1, index, EntryType.CONF_CHANGE_V2, encode_conf_change(made))


def test_membership_changes_in_the_log(tmp_path: Path) -> None:
    """They are carried out, and then given up with the membership."""
    more = [
        entry(3, Put(b"/b", b"")),
        change(4, ConfChangeType.ADD_LEARNER_NODE, 4),
        change(5, ConfChangeType.ADD_NODE, 4),
        change(6, ConfChangeType.REMOVE_NODE, 2),
        Entry(1, 7),
        entry(8, Put(b"/c", b"")),
    ]
    old = make_member(tmp_path / "old", [Put(b"/a", b"")])
    with read_directory(str(old)) as (log, _):
        assert log.last_index() == 2
    old = make_member(tmp_path / "o", [Put(b"/a", b"")], applied=1, more=more)
    made = recover(real_disk(), str(old), str(tmp_path / "new"), 4, URL, nothing)
    assert (made.keys, made.applied) == (3, 6)
    with read_directory(str(tmp_path / "new")) as (_, store):
        assert [*store.members] == [4]
        assert store.removed == set()


@pytest.mark.parametrize("applied", [0, 1])
def test_what_is_told_is_with_what_the_log_knows(tmp_path: Path, applied: int) -> None:
    """However little of it had reached the store."""
    more = [
        change(3, ConfChangeType.ADD_LEARNER_NODE, 4),
        change(4, ConfChangeType.ADD_NODE, 4),
        change(5, ConfChangeType.REMOVE_NODE, 2),
        change(6, ConfChangeType.REMOVE_NODE, 9),  # which is none, and refused
        entry(7, Put(b"/b", b"")),
        change(8, ConfChangeType.REMOVE_NODE, 3),
        entry(9, Put(b"/c", b"")),
    ]
    old = make_member(
        tmp_path / "old", [Put(b"/a", b"")], applied=applied, more=more[:-2], commit=7
    )
    found = survey(str(old))
    assert (found.committed, found.last, found.revision) == (7, 7, 2)
    assert [member.id for member in found.members] == [1, 3, 4]
    assert "the other members [3, 4] are given up" in warnings(old)
    assert found.role == "voter"
    old = make_member(
        tmp_path / "more", [Put(b"/a", b"")], applied=1, more=more, commit=7
    )
    found = survey(str(old))
    assert (found.applied, found.committed, found.last) == (2, 7, 9)
    assert (found.revision, [one.id for one in found.members]) == (2, [1, 3, 4])
    assert found.uncertain_changes == ("entry 8: remove node 3",)
    assert "the members change (entry 8: remove node 3)" in warnings(old)
    before = fingerprint(old)
    made = recover(
        real_disk(),
        str(old),
        str(tmp_path / "new"),
        1,
        URL,
        nothing,
        revision_step=0,
        discard_uncommitted=True,
    )
    assert (made.revision, made.keys, made.applied) == (2, 2, 5)
    assert fingerprint(old) == before


def test_a_store_of_another_log_is_not_recovered(tmp_path: Path) -> None:
    old = make_member(tmp_path / "old", some_commands())
    InstanceFile(real_filesystem(), f"{old}/store").write(77)
    with pytest.raises(PartsDiffer, match="parts of two data directories"):
        survey(str(old))


def test_a_log_that_is_an_older_copy_is_told_of(tmp_path: Path) -> None:
    old = make_member(tmp_path / "old", some_commands())
    other = make_member(tmp_path / "other", some_commands(10))
    shutil.rmtree(old / "log")
    shutil.copytree(other / "log", old / "log")
    assert "the log is an older copy" in warnings(old)
    assert survey(str(old)).revision == 66


def warnings(directory: Path) -> str:
    return "\n".join(survey(str(directory)).warnings())


def test_what_may_be_lost_is_told(tmp_path: Path) -> None:
    old = make_member(tmp_path / "a", some_commands(), commit=1, applied=9)
    told = warnings(old)
    assert "the other members [2, 3] are given up" in told
    assert "58 entries, 11 to 68, came here" in told
    assert "elected" not in told
    assert survey(str(old)).newest_ms == TIME_MS + 68
    told = warnings(make_member(tmp_path / "b", some_commands(), term=5))
    assert "a leader was elected in term 5, after the last entry" in told
    assert "came here and may" not in told
    told = warnings(make_member(tmp_path / "c", node_id=9, flags={"removed": True}))
    assert "no member any more" in told
    told = warnings(make_member(tmp_path / "d", flags={"diverged": True}))
    assert "was found to differ" in told


def test_a_member_that_runs_is_refused(tmp_path: Path) -> None:
    old = make_member(tmp_path / "old", some_commands())
    lock = hold_lock(str(old / "log" / "lock"))
    try:
        with pytest.raises(DirectoryInUse, match="is in use: stop the node first"):
            survey(str(old))
    finally:
        lock.release()


def test_what_is_no_data_directory(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="is no data directory"):
        survey(str(tmp_path))
    (tmp_path / "log").mkdir()
    with pytest.raises(Unusable, match="holds no keys yet"):
        survey(str(tmp_path))


def test_a_directory_without_identity(tmp_path: Path) -> None:
    old = make_member(tmp_path / "old", some_commands())
    for name in (old / "log").iterdir():
        name.unlink()
    with pytest.raises(Unusable, match="has no identity"):
        survey(str(old))


def test_a_store_that_a_snapshot_brought(tmp_path: Path) -> None:
    """It is ahead of the log, which is of no use then."""
    old = make_member(tmp_path / "old", some_commands(10))
    newer = make_member(tmp_path / "newer", some_commands(40))
    (old / "store").rename(tmp_path / "unused")
    (newer / "store").rename(old / "store")
    found = survey(str(old))
    assert found.last == found.applied == 46
    made = recover(real_disk(), str(old), str(tmp_path / "new"), 1, URL, nothing)
    assert made.applied == 0
    assert made.digest == digest_of(backup_bytes(some_commands(40)))


def test_a_log_that_begins_behind_the_store(tmp_path: Path) -> None:
    old = make_member(tmp_path / "old", some_commands(100), applied=3)
    segments = sorted((old / "log").glob("log-*"))
    assert len(segments) > 2
    for segment in segments[:-1]:
        segment.unlink()
    with pytest.raises(Unusable, match="entries are missing"):
        survey(str(old))


@pytest.mark.parametrize("boot", [BOOT, "another"])
def test_a_loss_of_power_after_early_acknowledgements_is_told(
    tmp_path: Path, boot: str
) -> None:
    old = make_member(tmp_path / "old", some_commands())
    (old / "log" / "unsynced").write_text(boot)
    told = [one for one in survey(str(old)).warnings() if "--sync-interval" in one]
    assert len(told) == (boot != BOOT)
