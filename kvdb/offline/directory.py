"""
Data directories: one that is there, to be read; and one in the making.

Rules: a directory that a node uses is refused; one that is read is not changed; one
that is made stands under another name until it is whole and on the disk, so that
what was given up halfway is no data directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kvdb.node.replica import open_replica
from kvdb.offline.committed import Overlay
from kvdb.offline.files import SharedLock, Untouched, is_directory, real_filesystem
from kvdb.storage.filesystem import DirectoryInUse, FileSystem, hold_lock
from kvdb.storage.instance import InstanceFile
from kvdb.storage.log import Identity, Log
from kvdb.store.engine import Engine, EngineError, Engines
from kvdb.store.rocks import RocksEngines, RocksReader, current_engine
from kvdb.store.store import Store

UNFINISHED: Final = ".unfinished"
"""What the name of a directory in the making ends with."""

OWN_NAMES: Final = frozenset({"log", "store"})
"""What is in a data directory."""

Progress = Callable[[int], None]
"""Told how many bytes were read so far."""


class Unusable(Exception):
    """A path is not what it must be; the text says what to do."""


@frozen(slots=True)
class Disk:
    """
    Where directories are made.

    @ivar engines: the engines in a directory.
    @ivar entropy: so many bytes that nobody can foretell.
    """

    filesystem: FileSystem
    engines: Callable[[str], Engines]
    entropy: Callable[[int], bytes]


def real_disk() -> Disk:
    """This machine's."""
    filesystem = real_filesystem()
    return Disk(filesystem, lambda path: RocksEngines(filesystem, path), os.urandom)


# What is there.


@frozen(slots=True)
class OneEngine:
    """Implements L{Engines<kvdb.store.engine.Engines>} for reading."""

    _engine: Engine
    directory: str

    def open(self) -> Engine:
        """See there."""
        return self._engine

    def stage(self) -> Engine:
        """Nothing is made here."""
        raise AssertionError("a store that is only read takes no snapshot")

    def switch(self, staged: Engine) -> None:
        """Nor anything replaced."""

    def discard(self, staged: Engine) -> None:
        """Nor thrown away."""


@frozen(slots=True)
class Held:
    """A data directory that is kept from every node."""

    directory: str
    _lock: SharedLock

    def check(self) -> None:
        """
        @raise DirectoryInUse: it had no lock, and a node was started in it since.
        """
        # Made here it would have kept nodes out; but nothing here may be changed.
        if not self._lock.held and os.path.exists(self._lock.path):
            raise DirectoryInUse(
                f"a node was started in {self.directory} meanwhile, and what was read"
                " may be of two minds: stop the node first"
            )


@contextmanager
def held(directory: str) -> Iterator[Held]:
    """
    A data directory, kept from every node meanwhile.

    @raise DirectoryInUse: a node has it, or, where there was no lock, had it.
    @raise OSError: it may not be looked at.
    @raise Unusable: it is none.
    """
    if not is_directory(f"{directory}/log"):
        raise Unusable(
            f"{directory} is no data directory of kvdb: there is no {directory}/log"
        )
    lock = Untouched().lock(f"{directory}/log/lock")
    try:
        kept = Held(directory, lock)
        try:
            yield kept
        except Exception:
            kept.check()  # what was read may have been wrong only meanwhile
            raise
        kept.check()
    finally:
        lock.release()


@contextmanager
def read_log(directory: str) -> Iterator[Log]:
    """
    The log of a data directory, as a node would find it.

    @raise CorruptLog: it is not what was written.
    """
    log = Log.open(Untouched(), f"{directory}/log", Clock())
    try:
        yield log
    finally:
        log.close()


@contextmanager
def read_engine(directory: str) -> Iterator[RocksReader]:
    """
    The engine of a data directory.

    @raise EngineError: it cannot be read.
    @raise Unusable: there is none.
    """
    store = f"{directory}/store"
    name = current_engine(Untouched(), store)
    if name is None:
        raise Unusable(f"there is no {store}/CURRENT: this member holds no keys yet")
    path = f"{store}/{name}"
    if "/" in name or not is_directory(path):
        raise EngineError(f"{store}/CURRENT names {name[:50]!r}, which is not there")
    with tempfile.TemporaryDirectory(prefix="kvdb-") as scratch:
        engine = RocksReader(path, scratch)
        try:
            yield engine
        finally:
            engine.close()


@contextmanager
def read_store(directory: str) -> Iterator[Store]:
    """
    The store of a data directory, as it is on the disk; what is applied to it stays
    in memory.

    @raise EngineError: it cannot be read.
    @raise Unusable: there is none.
    """
    with read_engine(directory) as engine:
        try:
            store = Store.open(OneEngine(Overlay(engine), f"{directory}/store"))
        except (struct.error, ValueError) as error:
            raise EngineError(
                f"the state in {engine.path} is none ({error}): see kvdbctl fsck"
            ) from error
        yield store


@contextmanager
def read_directory(directory: str) -> Iterator[tuple[Log, Store]]:
    """Log and store of a directory that no node uses."""
    with ExitStack() as stack:
        stack.enter_context(held(directory))
        log = stack.enter_context(read_log(directory))
        yield log, stack.enter_context(read_store(directory))


# What is made.


def other_owner(directory: str) -> tuple[int, int] | None:
    """
    Whose node it will be that is to open a new directory, if that is another user
    than who makes it: who owns the empty directory in its place, or else the
    nearest one above.

    @return: user and group id; None if it is whoever runs this, or root, whose
        directories are for all.
    """
    # It is not given to them here: they can put what they like in place of what is
    # about to be given.
    path = os.path.realpath(directory)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    found = os.stat(path)
    if found.st_uid in (0, os.geteuid()):
        return None
    return found.st_uid, found.st_gid


@contextmanager
def new_directory(filesystem: FileSystem, directory: str) -> Iterator[str]:
    """
    A directory in the making: the name under which it is made.  It gets its own
    name at the end, when it is durable; what fails leaves nothing.

    @raise DirectoryInUse: what is there under the name for the time is used.
    @raise Unusable: there is something already.
    """
    path = os.path.realpath(directory)
    above = os.path.dirname(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise Unusable(f"{directory} is no directory")
    full = Unusable(f"{directory} is not empty: name a new directory, or an empty one")
    if os.path.isdir(path) and os.listdir(path):
        raise full
    if os.path.ismount(path):
        raise Unusable(
            f"{directory} is where a file system is mounted: name a directory in it,"
            " since a new one is made beside it and renamed when it is whole"
        )
    made = path + UNFINISHED
    if os.path.lexists(made) and (os.path.islink(made) or not os.path.isdir(made)):
        raise Unusable(f"{made} is in the way: remove it")
    try:
        filesystem.make_directory(made)
        with _working_in(made):
            try:
                yield made
                _sync_tree(filesystem, made)
                try:
                    filesystem.rename(made, path)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    raise full from error  # by now
                filesystem.sync_directory(above)
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                raise
    except (KeyboardInterrupt, SystemExit):
        with suppress(OSError):
            os.rmdir(made)  # where it came before the directory was ours
        raise


@contextmanager
def _working_in(made: str) -> Iterator[None]:
    """Have C{made} alone, and empty: nothing in it is touched before it is ours."""
    taken = Unusable(f"{made} is being made by another process")
    # The other run may give it its own name, or remove it, before it is locked here.
    try:
        fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise taken from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(fd), os.stat(made))
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            raise taken
        _remove_unfinished(made)
        yield
    finally:
        os.close(fd)


def _remove_unfinished(made: str) -> None:
    """What another run left, which was killed."""
    left = os.listdir(made)
    if not OWN_NAMES.issuperset(left):
        raise Unusable(f"{made} is in the way: remove it")
    if os.path.exists(f"{made}/log/lock"):
        hold_lock(f"{made}/log/lock").release()
    for name in left:
        shutil.rmtree(f"{made}/{name}")


def _sync_tree(filesystem: FileSystem, directory: str) -> None:
    """Make durable all that is in a directory."""
    for path, _, names in os.walk(directory):
        for name in names:
            file = filesystem.open(f"{path}/{name}")
            try:
                file.sync()
            finally:
                file.close()
        filesystem.sync_directory(path)


def write_log(disk: Disk, directory: str, node_id: int, store: Store) -> None:
    """The log of a member that begins with what C{store} holds."""
    instance_id = int.from_bytes(disk.entropy(8), "big") >> 1 | 1
    log = Log.open(disk.filesystem, f"{directory}/log", Clock())
    try:
        log.set_identity(Identity(store.cluster_id, node_id, instance_id))
        open_replica(log, store)
        InstanceFile(disk.filesystem, f"{directory}/store").write(instance_id)
        at_once(log.sync())
    finally:
        log.close()


def at_once(done: Deferred[None]) -> None:
    """What a Deferred has come to already."""
    results: list[object] = []
    done.addBoth(results.append)
    assert results, "on this disk nothing is done later"
    if isinstance(results[0], Failure):
        results[0].raiseException()
