"""The log and its seam, on the operating system's files."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvdb.raft.messages import HardState
from kvdb.storage.filesystem import (
    DirectoryInUse,
    DiskFull,
    OneThread,
    RealFileSystem,
    SyncFailed,
    hold_lock,
)
from kvdb.storage.log import Identity, Log
from tests.storage.disk import AtOnce, content, make_entries
from tests.timed import timed


class Later:
    """Syncs when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Callable[[], None], Deferred[None]]] = []

    def run(self, work: Callable[[], None]) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        self.asked.append((work, done))
        return done

    def work(self) -> None:
        work, done = self.asked.pop(0)
        work()
        done.callback(None)


def fails_with(number: int) -> Callable[..., Any]:
    """A system call that does not succeed."""

    def call(*args: object) -> Any:
        raise OSError(number, os.strerror(number))

    return call


class RealFileTests(SynchronousTestCase):
    """Files, directories and what goes wrong with them."""

    def setUp(self) -> None:
        self.filesystem = RealFileSystem(AtOnce())
        self.directory = self.mktemp() + "/a/b"
        self.filesystem.make_directory(self.directory)
        self.path = f"{self.directory}/file"

    def test_what_is_written_is_read(self) -> None:
        file = self.filesystem.open(self.path)
        file.write(3, b"hello")
        self.assertEqual(file.read(0, 100), b"\0\0\0hello")
        self.assertEqual(file.read(4, 2), b"el")
        file.allocate(20)
        self.assertEqual(file.size(), 20)
        self.assertEqual(file.read(0, 100), b"\0\0\0hello" + bytes(12))
        file.truncate(5)
        self.assertEqual(file.read(0, 100), b"\0\0\0he")
        file.sync()
        self.successResultOf(file.sync_later())
        file.close()

    def test_names(self) -> None:
        self.filesystem.open(self.path).close()
        self.assertTrue(self.filesystem.exists(self.path))
        self.filesystem.rename(self.path, self.path + "2")
        self.filesystem.open(self.directory + "/a").close()
        self.filesystem.sync_directory(self.directory)
        self.assertEqual(self.filesystem.list(self.directory), ["a", "file2"])
        self.filesystem.remove(self.path + "2")
        self.assertFalse(self.filesystem.exists(self.path + "2"))

    def test_space_and_names_beside_the_reactor(self) -> None:
        later = Later()
        filesystem = RealFileSystem(later)
        file = filesystem.open(self.path)
        allocated = file.allocate_later(100)
        synced = filesystem.sync_directory_later(self.directory)
        self.assertEqual(file.size(), 0)
        later.work()
        self.successResultOf(allocated)
        self.assertEqual(file.size(), 100)
        later.work()
        self.successResultOf(synced)
        file.close()

    def test_a_directory_is_made_with_those_above_it(self) -> None:
        synced: list[str] = []
        self.patch(
            RealFileSystem, "sync_directory", lambda self, path: synced.append(path)
        )
        top = self.mktemp()
        self.filesystem.make_directory(f"{top}/one/two")
        self.filesystem.make_directory(f"{top}/one/two")
        self.assertEqual(synced[-2:], [top, f"{top}/one"])

    def test_nobody_else_can_read_them(self) -> None:
        self.filesystem.open(self.path).close()
        for path, mode in ((self.path, 0o600), (self.directory, 0o700)):
            self.assertEqual(stat.S_IMODE(Path(path).stat().st_mode), mode)

    def test_a_short_write_is_gone_on_with(self) -> None:
        real = os.pwrite
        self.patch(os, "pwrite", lambda fd, data, at: real(fd, data[:3], at))
        file = self.filesystem.open(self.path)
        file.write(1, b"0123456789")
        self.assertEqual(file.read(1, 20), b"0123456789")
        file.close()

    def test_no_space_is_a_full_disk_whatever_call_meets_it(self) -> None:
        file = self.filesystem.open(self.path)
        self.addCleanup(file.close)
        calls: list[tuple[str, Callable[[], object]]] = [
            ("pwrite", lambda: file.write(0, b"x")),
            ("posix_fallocate", lambda: file.allocate(10)),
            ("open", lambda: self.filesystem.open(self.path)),
            ("replace", lambda: self.filesystem.rename(self.path + "0", self.path)),
        ]
        for name, call in calls:
            for number in (errno.ENOSPC, errno.EDQUOT):
                patch = self.patch(os, name, fails_with(number))
                self.assertRaisesRegex(DiskFull, f"no space.*{self.path}", call)
                patch.restore()
            patch = self.patch(os, name, fails_with(errno.EIO))
            self.assertRaises(OSError, call)
            patch.restore()

    def test_a_failed_sync_says_which_file_and_what_to_do(self) -> None:
        file = self.filesystem.open(self.path)
        patch = self.patch(os, "fdatasync", fails_with(errno.EIO))
        self.assertRaisesRegex(SyncFailed, f"{self.path}.*Check the disk", file.sync)
        self.failureResultOf(file.sync_later(), SyncFailed)
        patch.restore()
        file.close()
        patch = self.patch(os, "fsync", fails_with(errno.EIO))
        with self.assertRaisesRegex(SyncFailed, self.directory):
            self.filesystem.sync_directory(self.directory)
        patch.restore()

    def test_a_file_that_is_closed_finishes_its_syncs(self) -> None:
        later = Later()
        file = RealFileSystem(later).open(self.path)
        fd = file._fd
        first, second = file.sync_later(), file.sync_later()
        file.close()
        later.work()
        os.fstat(fd)
        later.work()
        self.assertRaises(OSError, os.fstat, fd)
        self.successResultOf(first)
        self.successResultOf(second)

    def test_a_lock_is_held_by_one(self) -> None:
        path = f"{self.directory}/lock"
        lock = self.filesystem.lock(path)
        with self.assertRaisesRegex(DirectoryInUse, f"{self.directory} is in use"):
            hold_lock(path)
        lock.release()
        hold_lock(path).release()


class RealLogTests(SynchronousTestCase):
    """The log as a member has it."""

    def test_a_log_is_written_and_read_again(self) -> None:
        filesystem = RealFileSystem(AtOnce())
        directory = self.mktemp()

        def open_log() -> Log:
            return Log.open(filesystem, directory, Clock(), 8 << 10, 1000)

        log = open_log()
        log.set_identity(Identity(1, 2, 3))
        for index in range(1, 200):
            log.append(make_entries(index, index + 1, size=200), HardState(1, 1, index))
            self.successResultOf(log.sync())
        self.assertRaises(DirectoryInUse, open_log)
        log.compact(50)
        self.assertEqual(content(log), make_entries(51, 200, size=200))
        log.close()
        log = open_log()
        self.assertEqual(log.identity, Identity(1, 2, 3))
        self.assertEqual(log.hard_state, HardState(1, 1, 199))
        first = log.first_index()
        self.assertEqual(content(log), make_entries(first, 200, size=200))
        log.reset(300, 2, HardState(2, 0, 300))
        log.close()
        self.assertEqual(open_log().last_index(), 300)


@timed(20)
async def test_syncs_run_beside_the_reactor(tmp_path: Path) -> None:
    thread = OneThread(reactor)
    filesystem = RealFileSystem(thread)
    log = Log.open(filesystem, f"{tmp_path}/log", reactor)
    syncs = []
    for index in range(1, 30):
        log.append(make_entries(index, index + 1), None)
        syncs.append(log.sync())
    assert not any(done.called for done in syncs)
    await gatherResults(syncs)
    assert log.pending_sync_seconds() == 0.0
    log.close()
    log = Log.open(filesystem, f"{tmp_path}/log", reactor)
    assert content(log) == make_entries(1, 30)
    log.close()
    thread.stop()


@timed(20)
async def test_a_thread_works_in_order_and_reports_what_goes_wrong() -> None:
    thread = OneThread(reactor)
    begun: list[tuple[int, bool]] = []

    def work(number: int) -> None:
        begun.append((number, threading.current_thread().name == "sync"))
        if number == 3:
            raise SyncFailed("the third")

    done = [thread.run(lambda number=number: work(number)) for number in range(5)]  # type: ignore[misc]
    failed: list[str] = []
    done[3].addErrback(lambda failure: failed.append(str(failure.value)))
    await gatherResults(done)
    thread.stop()
    thread.stop()
    assert begun == [(number, True) for number in range(5)]
    assert failed == ["the third"]
