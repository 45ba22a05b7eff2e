"""Log and store of a data directory, one of which is missing or of another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.task import Clock

from kvdb.node.settings import NodeSettings
from kvdb.offline.directory import at_once
from kvdb.offline.files import real_filesystem
from kvdb.raft.messages import HardState
from kvdb.service import LogService, StoreService
from kvdb.settings import Settings
from kvdb.storage.filesystem import FileSystem
from kvdb.storage.instance import PartsDiffer
from kvdb.store.commands import Put
from kvdb.store.rocks import RocksEngines
from tests.store.entries import entry

ONE = {1: "http://127.0.0.1:1"}
THREE = {n: f"http://127.0.0.1:{n}" for n in (1, 2, 3)}


@define
class Host:
    """Of L{kvdb.host.Host}, what these two services take."""

    drawn: int = 0
    reactor: Any = field(factory=Clock)
    filesystem: FileSystem = field(factory=real_filesystem)

    def engines(self, directory: str) -> RocksEngines:
        return RocksEngines(self.filesystem, directory)

    def entropy(self, length: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(length, "little")

    def boot_id(self) -> str:
        return "boot"


@define
class Member:
    """A data directory, and how its node is started."""

    data: Path
    node_id: int = 1
    cluster: dict[int, str] = field(factory=lambda: ONE)
    join: bool = False
    host: Any = field(factory=Host)

    def start(self, write: int = 0, cut: int = 0) -> tuple[int, int]:
        """
        Start it, apply so many writes, stop it; index and revision then.

        @param cut: how many entries are cut off the log, which its store then has.
        """
        settings = Settings(
            node_id=self.node_id,
            cluster=self.cluster,
            join=self.join,
            data_dir=str(self.data),
            host="127.0.0.1",
            port=0,
            max_key_bytes=1000,
            max_value_bytes=1000,
            node=NodeSettings(segment_bytes=8 << 10),
        )
        log_service = LogService(self.host, settings)
        store_service = StoreService(self.host, settings, log_service)
        try:
            log_service.startService()
            store_service.startService()
            replica = store_service.replica
            assert replica is not None
            log, store = replica.log, replica.store
            for index in range(log.last_index() + 1, log.last_index() + 1 + write):
                log.append([entry(index, Put(b"/k", b"v"))], HardState(1, 1, index))
                at_once(log.sync())
            first = store.applied_index + 1
            store.apply(log.entries(first, log.last_index() + 1, 1 << 20))
            if cut:
                store.engine.flush()
                log.compact(log.first_index() - 1 + cut)
            return store.applied_index, store.revision
        finally:
            store_service.stopService()
            log_service.stopService()


def refused(member: Member) -> str:
    """Starting it twice is refused, in the same words: nothing was changed."""
    texts = []
    for _ in range(2):
        with pytest.raises(PartsDiffer) as raised:
            member.start()
        texts.append(str(raised.value))
    assert texts[0] == texts[1]
    assert f"{member.data}/log" in texts[0]
    assert f"{member.data}/store" in texts[0]
    assert "a cluster of one is restored from a backup" in texts[0]
    assert "a member of a larger cluster is removed and added" in texts[0]
    return texts[0]


def emptied(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


@pytest.mark.parametrize("cluster", [ONE, THREE])
@pytest.mark.parametrize("join", [False, True])
@pytest.mark.parametrize("lose", [emptied, shutil.rmtree])
@pytest.mark.parametrize("writes", [0, 20])
def test_a_store_without_its_log_is_refused(
    tmp_path: Path,
    cluster: dict[int, str],
    join: bool,
    lose: Callable[[Path], None],
    writes: int,
) -> None:
    member = Member(tmp_path / "data", cluster=cluster)
    member.start(write=writes)
    lose(member.data / "log")
    member.join = join
    assert "missing" in refused(member)


@pytest.mark.parametrize("lose", [emptied, shutil.rmtree])
@pytest.mark.parametrize("cut", [0, 10])
def test_a_log_without_its_store_is_refused(
    tmp_path: Path, lose: Callable[[Path], None], cut: int
) -> None:
    member = Member(tmp_path / "data")
    member.start(write=20, cut=cut)
    lose(member.data / "store")
    assert "the store that belongs to the log is missing" in refused(member)


@pytest.mark.parametrize("part", ["log", "store"])
@pytest.mark.parametrize("other", [ONE, THREE, {1: "http://127.0.0.1:9"}])
def test_parts_of_two_directories_are_refused(
    tmp_path: Path, part: str, other: dict[int, str]
) -> None:
    host = Host()
    member = Member(tmp_path / "data", host=host)
    stranger = Member(tmp_path / "other", cluster=other, host=host)
    member.start(write=20)
    stranger.start(write=20)
    shutil.rmtree(member.data / part)
    shutil.copytree(stranger.data / part, member.data / part)
    refused(member)


@pytest.mark.parametrize("part", ["log", "store"])
def test_so_are_those_whose_store_does_not_say_whose_it_is(
    tmp_path: Path, part: str
) -> None:
    """As a release wrote it that did not: by the cluster's id."""
    member = Member(tmp_path / "data")
    stranger = Member(tmp_path / "other", cluster=THREE)
    member.start(write=20)
    stranger.start(write=20)
    shutil.rmtree(member.data / part)
    shutil.copytree(stranger.data / part, member.data / part)
    (member.data / "store" / "INSTANCE").unlink()
    refused(member)


def test_a_store_without_a_log_is_refused_where_it_does_not_say_whose_it_is(
    tmp_path: Path,
) -> None:
    member = Member(tmp_path / "data")
    member.start(write=20)
    emptied(member.data / "log")
    (member.data / "store" / "INSTANCE").unlink()
    refused(member)


def test_a_store_of_the_release_before_is_given_its_logs_name(tmp_path: Path) -> None:
    member = Member(tmp_path / "data")
    member.start(write=20)
    (member.data / "store" / "INSTANCE").unlink()
    assert member.start() == (21, 20)
    assert (member.data / "store" / "INSTANCE").exists()


def test_an_older_copy_of_the_log_is_refused(tmp_path: Path) -> None:
    member = Member(tmp_path / "data")
    member.start(write=5)
    shutil.copytree(member.data / "log", tmp_path / "copy")
    member.start(write=20)
    shutil.rmtree(member.data / "log")
    shutil.copytree(tmp_path / "copy", member.data / "log")
    assert "it is an older copy" in refused(member)


def test_an_older_copy_of_the_store_is_refused_where_the_log_was_cut(
    tmp_path: Path,
) -> None:
    member = Member(tmp_path / "data")
    member.start(write=5)
    shutil.copytree(member.data / "store", tmp_path / "copy")
    member.start(write=200, cut=100)
    shutil.rmtree(member.data / "store")
    shutil.copytree(tmp_path / "copy", member.data / "store")
    assert "an older copy" in refused(member)


def test_an_older_copy_of_the_store_is_brought_up_to_date_by_a_whole_log(
    tmp_path: Path,
) -> None:
    member = Member(tmp_path / "data")
    member.start(write=5)
    shutil.copytree(member.data / "store", tmp_path / "copy")
    member.start(write=20)
    shutil.rmtree(member.data / "store")
    shutil.copytree(tmp_path / "copy", member.data / "store")
    assert member.start() == (26, 25)


def test_a_member_that_joins_may_start_again_before_it_has_anything(
    tmp_path: Path,
) -> None:
    member = Member(tmp_path / "data", node_id=3, cluster=THREE, join=True)
    assert member.start() == (0, 0)
    assert member.start() == (0, 0)
    shutil.rmtree(member.data / "store")
    assert member.start() == (0, 0)


def test_a_founder_may_start_again_before_it_has_a_store(tmp_path: Path) -> None:
    member = Member(tmp_path / "data", cluster=THREE)
    assert member.start() == (1, 0)
    assert member.start() == (1, 0)
