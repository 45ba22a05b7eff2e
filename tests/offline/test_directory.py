"""Data directories: kept from others while they are read, and in the making."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kvdb.offline.directory import (
    UNFINISHED,
    Unusable,
    held,
    new_directory,
    real_disk,
)
from kvdb.offline.files import real_filesystem
from kvdb.offline.recover import opened, recover
from kvdb.storage.filesystem import DirectoryInUse, hold_lock
from kvdb.storage.segment import CorruptLog
from tests.offline.member import fingerprint, make_member, nothing, some_commands


class Meanwhile:
    """Another run does something once this one has seen to it that there is a name."""

    def __init__(self, does: Any) -> None:
        self._real: Any = real_filesystem()
        self._does = does

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def make_directory(self, path: str) -> None:
        self._real.make_directory(path)
        self._does(path)


def test_one_that_another_run_has_locked_stays(tmp_path: Path) -> None:
    """However short before."""
    with new_directory(real_filesystem(), str(tmp_path / "1")) as made:
        Path(made, "log").mkdir()
        for filesystem in (real_filesystem(), Meanwhile(nothing)):
            with (
                pytest.raises(Unusable, match="being made by another process"),
                new_directory(filesystem, str(tmp_path / "1")),
            ):
                raise AssertionError("two have it")
        assert os.listdir(made) == ["log"]
    assert os.listdir(tmp_path) == ["1"]


def rename(path: str) -> None:
    os.rename(path, path.removesuffix(UNFINISHED))


@pytest.mark.parametrize("does", [os.rmdir, rename])
def test_one_that_another_run_finished_before_it_was_locked(
    tmp_path: Path, does: Any
) -> None:
    filesystem: Any = Meanwhile(does)
    with (
        pytest.raises(Unusable, match="being made by another process"),
        new_directory(filesystem, str(tmp_path / "1")),
    ):
        raise AssertionError("it was not there")
    assert not (tmp_path / f"1{UNFINISHED}").exists()


def test_a_node_that_takes_the_place_meanwhile(tmp_path: Path) -> None:
    with (
        pytest.raises(Unusable, match="is not empty: name a new"),
        new_directory(real_filesystem(), str(tmp_path / "1")),
    ):
        (tmp_path / "1" / "log").mkdir(parents=True)
    assert os.listdir(tmp_path) == ["1"]
    assert os.listdir(tmp_path / "1") == ["log"]


def test_what_the_work_meets_is_told_as_what_it_is(tmp_path: Path) -> None:
    with (
        pytest.raises(BlockingIOError, match="of the work"),
        new_directory(real_filesystem(), str(tmp_path / "1")),
    ):
        raise BlockingIOError("of the work")
    assert os.listdir(tmp_path) == []


def test_a_link_in_place_of_one_in_the_making(tmp_path: Path) -> None:
    """What it leads to is nobody's leftover."""
    member = make_member(tmp_path / "member", some_commands(5))
    before = fingerprint(member)
    (tmp_path / f"1{UNFINISHED}").symlink_to(member)
    with (
        pytest.raises(Unusable, match="in the way"),
        new_directory(real_filesystem(), str(tmp_path / "1")),
    ):
        raise AssertionError("it is another's")
    assert fingerprint(member) == before


def test_one_in_the_making_that_somebody_uses(tmp_path: Path) -> None:
    """A survivor may have such a name, and is no leftover while it is read."""
    member = make_member(tmp_path / f"1{UNFINISHED}", some_commands(5))
    before = fingerprint(member)
    target = str(tmp_path / "1")
    with (
        opened(str(member), "boot") as survivor,
        pytest.raises(DirectoryInUse, match="is in use"),
    ):
        recover(real_disk(), survivor, target, 1, "http://a:1", nothing)
    assert fingerprint(member) == before
    lock = hold_lock(str(member / "log" / "lock"))
    try:
        with (
            pytest.raises(DirectoryInUse, match="is in use"),
            new_directory(real_filesystem(), target),
        ):
            raise AssertionError("a node has it")
    finally:
        lock.release()
    assert fingerprint(member) == before


def test_a_node_that_starts_meanwhile_is_noticed(tmp_path: Path) -> None:
    """Where there is no lock to keep it out: it was copied without."""
    member = make_member(tmp_path / "member", some_commands(5))
    lock = member / "log" / "lock"
    lock.unlink()
    before = fingerprint(member)
    with held(str(member)):
        pass
    assert fingerprint(member) == before
    with pytest.raises(DirectoryInUse, match="was started"), held(str(member)):
        hold_lock(str(lock)).release()
    lock.unlink()

    def start(done: float) -> None:
        hold_lock(str(lock)).release()

    target = str(tmp_path / "1")
    with (
        pytest.raises(DirectoryInUse, match="was started"),
        opened(str(member), "boot") as survivor,
    ):
        recover(real_disk(), survivor, target, 1, "http://a:1", start)
    assert os.listdir(tmp_path) == ["member"]


def test_a_node_that_starts_comes_before_what_is_found_wrong(tmp_path: Path) -> None:
    """Its changes look like a log that is corrupt, whose remedy would be another."""
    member = make_member(tmp_path / "member", some_commands(5))
    lock = member / "log" / "lock"
    lock.unlink()
    wrong = CorruptLog("path", 0, "as a node changes it")
    with pytest.raises(CorruptLog), held(str(member)):
        raise wrong
    with pytest.raises(DirectoryInUse, match="was started") as met, held(str(member)):
        hold_lock(str(lock)).release()
        raise wrong
    assert met.value.__context__ is wrong
