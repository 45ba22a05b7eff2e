"""
The seam between the log and the disk.

All disk access of the log goes through a L{FileSystem}, so that a simulated
one can lose, tear and refuse what a real one might.

Rules:

* a write is not durable before a sync of its file, and a name not before a
  sync of its directory;
* what waits for the disk can be asked for beside the reactor: C{sync_later},
  C{allocate_later}, C{sync_directory_later}.  Their like that answer at once
  are for opening, and for what happens once in a node's life; all other calls
  go no further than the page cache;
* no space is L{DiskFull}, whatever call meets it; a failed sync is
  L{SyncFailed}, and must not be tried again: the kernel may have dropped what
  it could not write, and say so only once.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class DiskFull(Exception):
    """There is no space for a write; nothing of it counts."""


class SyncFailed(Exception):
    """The disk could not make durable what was written."""


class DirectoryInUse(Exception):
    """Another process holds the lock of a directory."""


class File(Protocol):
    """An open file."""

    path: str

    def size(self) -> int:
        """Its length in bytes."""

    def read(self, offset: int, length: int) -> bytes:
        """Up to C{length} bytes from C{offset} on; fewer at its end."""

    def write(self, offset: int, data: bytes) -> None:
        """Write all of C{data} at C{offset}."""

    def allocate(self, length: int) -> None:
        """Reserve space, so that its length is C{length}, zeros at the end."""

    def allocate_later(self, length: int) -> Deferred[None]:
        """The same beside the reactor; fires when it is done."""

    def truncate(self, length: int) -> None:
        """Cut it to C{length} bytes."""

    def sync(self) -> None:
        """Make its data durable, now."""

    def sync_later(self) -> Deferred[None]:
        """Make durable what was written so far; fires when it is."""

    def close(self) -> None:
        """Be done with it; what is under way still finishes."""


class Lock(Protocol):
    """A held lock."""

    def release(self) -> None:
        """Let others have it."""


@frozen(slots=True)
class Space:
    """
    Of the disk under a path, in bytes.

    @ivar free: what this user may still take.
    @ivar total: how large it is.
    """

    free: int
    total: int


class FileSystem(Protocol):
    """Files and directories, by path."""

    def space_of(self, path: str) -> Space | None:
        """What is left of the disk under C{path}; None where that is not known."""

    def make_directory(self, path: str) -> None:
        """Make a directory and those above it, unless they exist."""

    def list(self, path: str) -> list[str]:
        """The names in a directory, sorted."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or directory at C{path}."""

    def open(self, path: str) -> File:
        """Open a file to read and write, made if it is not there."""

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what bore it."""

    def remove(self, path: str) -> None:
        """Remove a file."""

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable, now."""

    def sync_directory_later(self, path: str) -> Deferred[None]:
        """Make durable the names that it has now; fires when they are."""

    def lock(self, path: str) -> Lock:
        """
        Hold the lock file at C{path} until released or the process ends.

        @raise DirectoryInUse: another process holds it.
        """


class SyncThread(Protocol):
    """Where syncs run beside the reactor."""

    def run(self, work: Callable[[], None]) -> Deferred[None]:
        """Do C{work} after all that was asked for before."""


@define(slots=True, eq=False)
class OneThread:
    """
    A thread of its own for syncs, in order, started at first use.

    @ivar reactor: where its answers are heard.
    """

    reactor: Any
    _queue: SimpleQueue[tuple[Callable[[], None], Deferred[None]] | None] = field(
        factory=SimpleQueue
    )
    _thread: Thread | None = None

    def run(self, work: Callable[[], None]) -> Deferred[None]:
        """See L{SyncThread}."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="sync", daemon=True)
            self._thread.start()
        done: Deferred[None] = Deferred()
        self._queue.put((work, done))
        return done

    def stop(self) -> None:
        """End the thread once it has done what it was asked for."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread = None

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            work, done = job
            try:
                work()
            except BaseException:
                self.reactor.callFromThread(done.errback, Failure())
            else:
                self.reactor.callFromThread(done.callback, None)


def _full(path: str, error: OSError) -> DiskFull:
    return DiskFull(f"no space on the disk for {path} ({error.strerror})")


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def read_at(fd: int, offset: int, length: int) -> bytes:
    """Up to C{length} bytes of an open file; fewer at its end."""
    parts = []
    while length > 0:
        part = os.pread(fd, length, offset)
        if not part:
            break
        parts.append(part)
        offset += len(part)
        length -= len(part)
    return b"".join(parts)


@define(slots=True, eq=False)
class RealFile:
    """A file of the operating system's."""

    path: str
    _fd: int
    _thread: SyncThread
    _under_way: int = 0
    _closing: bool = False

    def size(self) -> int:
        """See L{File}, as for all below."""
        return os.fstat(self._fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        """See there."""
        return read_at(self._fd, offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """See there."""
        try:
            written = os.pwrite(self._fd, data, offset)
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], offset + written)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise _full(self.path, error) from error
            raise

    def allocate(self, length: int) -> None:
        """See there."""
        try:
            os.posix_fallocate(self._fd, 0, length)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise _full(self.path, error) from error
            raise

    def allocate_later(self, length: int) -> Deferred[None]:
        """See there."""
        return self._later(lambda: self.allocate(length))

    def truncate(self, length: int) -> None:
        """See there."""
        os.ftruncate(self._fd, length)

    def sync(self) -> None:
        """See there."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise SyncFailed(
                f"the disk could not sync {self.path} ({error.strerror}): what was"
                " written last may be lost.  Check the disk"
            ) from error

    def sync_later(self) -> Deferred[None]:
        """See there."""
        return self._later(self.sync)

    def _later(self, work: Callable[[], None]) -> Deferred[None]:
        self._under_way += 1
        return self._thread.run(work).addBoth(self._done)

    def _done(self, result: Any) -> Any:
        self._under_way -= 1
        if self._closing and not self._under_way:
            os.close(self._fd)
        return result

    def close(self) -> None:
        """See there."""
        if self._under_way:
            self._closing = True
        else:
            os.close(self._fd)


@define(slots=True, eq=False)
class _RealLock:
    _fd: int

    def release(self) -> None:
        os.close(self._fd)


@define(slots=True, eq=False)
class RealFileSystem:
    """
    The operating system's files.

    @ivar thread: where the calls named C{later} work.
    """

    thread: SyncThread

    def space_of(self, path: str) -> Space | None:
        """See L{FileSystem}, as for all below."""
        try:
            found = os.statvfs(path)
        except OSError:
            return None
        return Space(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)

    def make_directory(self, path: str) -> None:
        """See there."""
        if Path(path).is_dir():
            return
        above = str(Path(path).parent)
        self.make_directory(above)
        Path(path).mkdir(mode=0o700, exist_ok=True)
        self.sync_directory(above)

    def list(self, path: str) -> list[str]:
        """See there."""
        return sorted(os.listdir(path))

    def exists(self, path: str) -> bool:
        """See there."""
        return Path(path).exists()

    def open(self, path: str) -> RealFile:
        """See there."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise _full(path, error) from error
            raise
        return RealFile(path, fd, self.thread)

    def rename(self, old: str, new: str) -> None:
        """See there."""
        try:
            os.replace(old, new)
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise _full(new, error) from error
            raise

    def remove(self, path: str) -> None:
        """See there."""
        os.unlink(path)

    def sync_directory(self, path: str) -> None:
        """See there."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as error:
            raise SyncFailed(
                f"the disk could not sync the directory {path} ({error.strerror}):"
                " what was written last may be lost.  Check the disk"
            ) from error
        finally:
            os.close(fd)

    def sync_directory_later(self, path: str) -> Deferred[None]:
        """See there."""
        return self.thread.run(lambda: self.sync_directory(path))

    def lock(self, path: str) -> Lock:
        """See there."""
        return hold_lock(path)


def hold_lock(path: str) -> Lock:
    """See L{FileSystem.lock}."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise DirectoryInUse(
            f"the data directory {Path(path).parent} is in use by another process"
        ) from None
    return _RealLock(fd)
