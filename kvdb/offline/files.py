"""
The disk, as the tools here see it.

L{AtOnce} does what a node has done beside its reactor at once.  L{Untouched} shows
what is there, and keeps every change to itself: a log opened through it is read as a
node would read it at its start, torn end and all, and is left as it was.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from typing import Final

from attrs import define
from twisted.internet.defer import Deferred, maybeDeferred, succeed

from kvdb.storage.filesystem import DirectoryInUse, RealFileSystem, Space, read_at

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
"""What is in the place of a file is not waited for, as a FIFO would be."""

_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class AtOnce:
    """Implements L{SyncThread<kvdb.storage.filesystem.SyncThread>}."""

    def run(self, work: Callable[[], None]) -> Deferred[None]:
        """Do it now."""
        return maybeDeferred(work)


def exists(path: str) -> bool:
    """
    Whether there is something.

    @raise OSError: one may not know.
    """
    try:
        os.stat(path)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return False
    except ValueError:
        return False  # with a zero byte, as no name has
    return True


def is_directory(path: str) -> bool:
    """
    Whether there is a directory.

    @raise OSError: one may not know.
    """
    return exists(path) and os.path.isdir(path)


def real_filesystem() -> RealFileSystem:
    """The operating system's, without a reactor."""
    return RealFileSystem(AtOnce())


@define(slots=True, eq=False)
class UntouchedFile:
    """
    Implements L{File<kvdb.storage.filesystem.File>}: what is written to it is
    forgotten.
    """

    path: str
    _fd: int | None
    _size: int

    def size(self) -> int:
        """See there, as for all below."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """See there."""
        return b"" if self._fd is None else read_at(self._fd, offset, length)

    def write(self, offset: int, data: bytes) -> None:
        """Forgotten."""

    def allocate(self, length: int) -> None:
        """It only says so."""
        self._size = max(self._size, length)

    def allocate_later(self, length: int) -> Deferred[None]:
        """Likewise."""
        self.allocate(length)
        return succeed(None)

    def truncate(self, length: int) -> None:
        """Forgotten."""

    def sync(self) -> None:
        """There is nothing to sync."""

    def sync_later(self) -> Deferred[None]:
        """Likewise."""
        return succeed(None)

    def close(self) -> None:
        """See there."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


@define(slots=True, eq=False)
class SharedLock:
    """
    A lock that several tools have together; or, where its file is missing, none.
    """

    path: str
    _fd: int | None

    @property
    def held(self) -> bool:
        """Whether it keeps a node out."""
        return self._fd is not None

    def release(self) -> None:
        """See L{Lock<kvdb.storage.filesystem.Lock>}."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Untouched:
    """Implements L{FileSystem<kvdb.storage.filesystem.FileSystem>}."""

    def space_of(self, path: str) -> Space | None:
        """Nothing is written, so nobody needs to know."""
        return None

    def make_directory(self, path: str) -> None:
        """Forgotten."""

    def list(self, path: str) -> list[str]:
        """See there."""
        return sorted(os.listdir(path))

    def exists(self, path: str) -> bool:
        """See there."""
        return exists(path)

    def open(self, path: str) -> UntouchedFile:
        """See there; what is not there is empty."""
        try:
            fd = os.open(path, _READ)
        except FileNotFoundError:
            return UntouchedFile(path, None, 0)
        return UntouchedFile(path, fd, os.fstat(fd).st_size)

    def rename(self, old: str, new: str) -> None:
        """Forgotten."""

    def remove(self, path: str) -> None:
        """Forgotten."""

    def sync_directory(self, path: str) -> None:
        """There is nothing to sync."""

    def sync_directory_later(self, path: str) -> Deferred[None]:
        """Likewise."""
        return succeed(None)

    def lock(self, path: str) -> SharedLock:
        """
        See there: a node has the file locked for itself, and several tools may
        share it.
        """
        try:
            fd = os.open(path, _READ)
        except FileNotFoundError:
            return SharedLock(path, None)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise DirectoryInUse(
                f"{os.path.dirname(os.path.dirname(path))} is in use: stop the node"
                " first"
            ) from None
        return SharedLock(path, fd)
