"""A backup made into members of another cluster."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from kvdb.offline import directory as directories
from kvdb.offline.archive import verify
from kvdb.offline.directory import (
    UNFINISHED,
    Disk,
    Unusable,
    read_directory,
    real_disk,
)
from kvdb.offline.restore import MAX_REVISION, NewCluster, restore
from kvdb.storage.filesystem import DiskFull
from kvdb.store.backup import BackupHeader, BadBackup, backup_pieces
from kvdb.store.commands import Put
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Compacted, Store
from tests.end_to_end.cluster import TWISTD, free_ports
from tests.offline.member import (
    CLUSTER_ID,
    MEMBERS,
    backup_bytes,
    digest_of,
    nothing,
    some_commands,
)

NEW = NewCluster(members={1: "http://a:1", 2: "http://b:2", 3: "http://c:3"})
STEP = 10**9


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    path = tmp_path / "backup"
    path.write_bytes(backup_bytes(some_commands()))
    return path


def test_each_member_gets_the_same_store(tmp_path: Path, backup: Path) -> None:
    stores = {}
    for node in NEW.members:
        target = tmp_path / str(node)
        made = restore(real_disk(), str(backup), str(target), node, NEW, nothing)
        assert made.contents.digest == digest_of(backup.read_bytes())
        assert sorted(os.listdir(target)) == ["log", "store"]
        with read_directory(str(target)) as (log, store):
            stores[node] = store.digest()
            assert store.cluster_id == made.cluster_id != CLUSTER_ID
            assert store.revision == store.compacted_revision == 66 + STEP
            assert [*store.members.values()] == NEW.founders()
            assert store.conf_state.voters == (1, 2, 3)
            assert log.identity is not None
            assert log.identity.node_id == node
            assert log.identity.cluster_id == made.cluster_id
            assert (log.first_index(), log.last_index()) == (2, 1)
            with pytest.raises(Compacted):
                next(store.events(66))
    assert len(set(stores.values())) == 1
    assert not [name for name in os.listdir(tmp_path) if UNFINISHED in name]


def test_records_and_outcomes_are_those_of_the_backup(
    tmp_path: Path, backup: Path
) -> None:
    restore(real_disk(), str(backup), str(tmp_path / "1"), 1, NEW, nothing)
    with read_directory(str(tmp_path / "1")) as (_, store):
        record = store.get(b"/key-00")
        assert record is not None
        assert record.value == b"value 40 " * 10
        assert (record.create_revision, record.mod_revision) == (1, 45)
        assert len(list(store.engine.scan(b"i", b"j"))) == 9


def test_the_new_cluster_is_told_by_what_it_is_made_of() -> None:
    same = NewCluster(members=dict(reversed([*NEW.members.items()])))
    ids = {
        NEW.cluster_id("origin"),
        NEW.cluster_id("another"),
        evolve(NEW, token="t").cluster_id("origin"),
        evolve(NEW, revision_step=5).cluster_id("origin"),
        evolve(NEW, members={1: "http://a:1"}).cluster_id("origin"),
    }
    assert len(ids) == 5
    assert same.cluster_id("origin") == NEW.cluster_id("origin")


def test_a_directory_that_is_not_empty_is_refused(tmp_path: Path, backup: Path) -> None:
    target = tmp_path / "there"
    target.mkdir()
    (target / "file").write_text("precious")
    with pytest.raises(Unusable, match="is not empty"):
        restore(real_disk(), str(backup), str(target), 1, NEW, nothing)
    with pytest.raises(Unusable, match="is no directory"):
        restore(real_disk(), str(backup), str(target / "file"), 1, NEW, nothing)
    assert (target / "file").read_text() == "precious"
    assert os.listdir(target) == ["file"]


def test_an_empty_one_is_taken(tmp_path: Path, backup: Path) -> None:
    target = tmp_path / "empty"
    target.mkdir()
    link = tmp_path / "link"
    link.symlink_to(target)
    restore(real_disk(), str(backup), str(link), 1, NEW, nothing)
    assert link.is_symlink()
    assert sorted(os.listdir(target)) == ["log", "store"]


def test_a_mount_point_is_refused(
    tmp_path: Path, backup: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    with pytest.raises(Unusable, match="mounted"):
        restore(real_disk(), str(backup), str(tmp_path / "m"), 1, NEW, nothing)


def test_a_member_that_is_not_in_the_cluster(tmp_path: Path, backup: Path) -> None:
    with pytest.raises(Unusable, match="member 4 is not in --cluster"):
        restore(real_disk(), str(backup), str(tmp_path / "4"), 4, NEW, nothing)


def test_a_step_too_far(tmp_path: Path, backup: Path) -> None:
    far = evolve(NEW, revision_step=MAX_REVISION)
    with pytest.raises(Unusable, match="smaller step"):
        restore(real_disk(), str(backup), str(tmp_path / "1"), 1, far, nothing)
    assert os.listdir(tmp_path) == ["backup"]


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_backup_that_is_cut_makes_nothing(
    tmp_path: Path, backup: Path, part: float
) -> None:
    data = backup.read_bytes()
    backup.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(BadBackup):
        restore(real_disk(), str(backup), str(tmp_path / "1"), 1, NEW, nothing)
    assert os.listdir(tmp_path) == ["backup"]


class Full:
    """A disk that is full when it has made so many syncs, renames and the like."""

    def __init__(self, left: int) -> None:
        self._real = real_disk().filesystem
        self.left = left

    def __getattr__(self, name: str) -> object:
        real = getattr(self._real, name)

        def call(*args: object) -> object:
            self.left -= 1
            if self.left < 0:
                raise DiskFull(f"no space on the disk for {args[0]}")
            return real(*args)

        return call


def test_a_full_disk_leaves_nothing(tmp_path: Path, backup: Path) -> None:
    """Wherever it happens."""
    calls = 0
    while True:
        filesystem: Any = Full(calls)
        disk = evolve(real_disk(), filesystem=filesystem)
        try:
            restore(disk, str(backup), str(tmp_path / "1"), 1, NEW, nothing)
        except DiskFull:
            calls += 1
            # The last sync is of a directory that has its name already.
            if filesystem.left >= 0 or (tmp_path / "1").exists():
                break
            assert os.listdir(tmp_path) == ["backup"]
        else:
            break
    assert calls > 20
    with read_directory(str(tmp_path / "1")) as (_, store):
        assert store.revision == 66 + STEP


def test_ctrl_c_leaves_nothing(tmp_path: Path, backup: Path) -> None:
    def interrupt(done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(real_disk(), str(backup), str(tmp_path / "1"), 1, NEW, interrupt)
    assert os.listdir(tmp_path) == ["backup"]


KILLED = """
import os, signal, sys
from kvdb.offline import restore
from kvdb.offline.directory import real_disk

def killed(*args):
    os.kill(os.getpid(), signal.SIGKILL)

setattr(restore, sys.argv[1], killed)
new = restore.NewCluster(members={1: "http://a:1", 2: "http://b:2", 3: "http://c:3"})
restore.restore(real_disk(), sys.argv[2], sys.argv[3], 1, new, lambda done: None)
"""


@pytest.mark.parametrize("where", ["write_pairs", "moved_on", "write_log"])
def test_a_restore_that_is_killed(tmp_path: Path, backup: Path, where: str) -> None:
    """It leaves no data directory, and does not keep another run from its work."""
    target = tmp_path / "1"
    command = [sys.executable, "-c", KILLED, where, str(backup), str(target)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    assert not target.exists()
    assert os.listdir(tmp_path / f"1{UNFINISHED}")
    restore(real_disk(), str(backup), str(target), 1, NEW, nothing)
    assert sorted(os.listdir(tmp_path)) == ["1", "backup"]


def test_what_others_left_there_stays(tmp_path: Path, backup: Path) -> None:
    unfinished = tmp_path / f"1{UNFINISHED}"
    unfinished.mkdir()
    (unfinished / "thesis.tex").write_text("")
    with pytest.raises(Unusable, match="in the way"):
        restore(real_disk(), str(backup), str(tmp_path / "1"), 1, NEW, nothing)
    assert os.listdir(unfinished) == ["thesis.tex"]


def test_two_runs_at_once(tmp_path: Path, backup: Path) -> None:
    target = str(tmp_path / "1")
    disk: Disk = real_disk()
    with directories.new_directory(disk.filesystem, target) as made:
        with pytest.raises(Unusable, match="being made by another"):
            restore(disk, str(backup), target, 1, NEW, nothing)
        assert os.path.isdir(made)
        Path(made, "log").mkdir()
    assert os.listdir(target) == ["log"]


def test_an_engine_that_fails(tmp_path: Path, backup: Path) -> None:
    """What RocksDB meets is told as what it is."""

    def engines(path: str) -> Any:
        raise OSError(errno.EACCES, "Permission denied", path)

    disk = evolve(real_disk(), engines=engines)
    with pytest.raises(PermissionError):
        restore(disk, str(backup), str(tmp_path / "1"), 1, NEW, nothing)
    assert os.listdir(tmp_path) == ["backup"]


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (BackupHeader(CLUSTER_ID, 1, 1, 17, 0, 0), "of revision 17, .* revision 0"),
        (BackupHeader(CLUSTER_ID, 1, 1, 0, 5, 0), "of compacted revision 5, .* 0"),
        (BackupHeader(CLUSTER_ID, 9, 1, 0, 0, 0), "of index 9, .* index 1"),
        (BackupHeader(CLUSTER_ID, 1, 9, 0, 0, 0), "of term 9, .* term 1"),
        (BackupHeader(9, 1, 1, 0, 0, 0), "of cluster 0{15}9, .* cluster 0{9}1234567"),
    ],
)
def test_a_backup_that_contradicts_itself(
    tmp_path: Path, header: BackupHeader, why: str
) -> None:
    """Its header and the store in it."""
    store = Store.open(MemoryEngines())
    store.bootstrap(CLUSTER_ID, MEMBERS)
    path = tmp_path / "backup"
    with path.open("wb") as file:
        file.writelines(backup_pieces(header, store.open_snapshot().chunks()))
    with pytest.raises(BadBackup, match=why):
        verify(str(path), nothing)
    with pytest.raises(BadBackup, match=why):
        restore(real_disk(), str(path), str(tmp_path / "1"), 1, NEW, nothing)
    assert os.listdir(tmp_path) == ["backup"]


@pytest.mark.parametrize("size", ["1m", "20m"])
def test_a_disk_that_is_really_full(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, size: str
) -> None:
    """For the engine's files, and for the log."""
    path = tmp_path_factory.mktemp("files") / "backup"
    values = [Put(b"/%d" % n, os.urandom(1 << 20)) for n in range(12)]
    path.write_bytes(backup_bytes(values))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "kvdb-test", str(tmp_path)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
    try:
        with pytest.raises(DiskFull, match="no space on the disk for"):
            restore(real_disk(), str(path), str(tmp_path / "1"), 1, NEW, nothing)
        assert os.listdir(tmp_path) == []
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_long_values_come_through(tmp_path: Path) -> None:
    values = {b"/%d" % size: os.urandom(size) for size in (0, 1, 70_000, 1 << 20)}
    path = tmp_path / "backup"
    path.write_bytes(backup_bytes([Put(key, value) for key, value in values.items()]))
    restore(real_disk(), str(path), str(tmp_path / "1"), 1, NEW, nothing)
    with read_directory(str(tmp_path / "1")) as (_, store):
        for key, value in values.items():
            record = store.get(key)
            assert record is not None
            assert record.value == value


def test_a_member_restored_for_another_machine_says_so(
    tmp_path: Path, backup: Path
) -> None:
    """Its address is that of its data, not what is typed."""
    elsewhere = NewCluster(members={1: "http://192.0.2.1:1"})
    restore(real_disk(), str(backup), str(tmp_path / "1"), 1, elsewhere, nothing)
    [port] = free_ports(1)
    done = subprocess.run(
        [
            *(TWISTD, "-n", "--pidfile=", "kvdb", "--id", "1", "--port", "0"),
            *("--cluster", f"http://127.0.0.1:{port}", "--data-dir", "1"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "http://192.0.2.1:1, the address of member 1" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
