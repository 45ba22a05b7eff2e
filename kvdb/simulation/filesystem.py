"""
A disk that does to files what real ones may.

Each file has what is durable and what was done to it since.  C{crash} keeps
any part of the latter: writes may be lost, kept, or torn, in any order, for
that is all a disk promises before a sync.  Names are kept in the order in which
they were changed, up to any point, as a journal does.

Rules: everything that is left to chance is drawn from the given source, so a
seed gives the same disk again; a file that was open at a crash is dead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Final

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from kvdb.storage.filesystem import (
    DirectoryInUse,
    DiskFull,
    File,
    Lock,
    Space,
    SyncFailed,
)

SECTOR_BYTES: Final = 512
"""A torn write is torn between sectors of this size."""


TOTAL_BYTES: Final = 1 << 30
"""How large a disk says that it is."""


class Crashed(Exception):
    """The machine lost its power."""


Change = Callable[[bytearray], None]


def _write(offset: int, data: bytes) -> Change:
    def change(content: bytearray) -> None:
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data

    return change


def _resize(length: int, *, only_grow: bool) -> Change:
    def change(content: bytearray) -> None:
        if len(content) < length:
            content.extend(bytes(length - len(content)))
        elif not only_grow:
            del content[length:]

    return change


@define(slots=True, eq=False)
class _Inode:
    """
    @ivar pending: what was done since the last sync; a write also stands with
        its offset and data, so that it can be torn.
    @ivar synced: how many changes are no longer pending.
    """

    content: bytearray = field(factory=bytearray)
    durable: bytearray = field(factory=bytearray)
    pending: list[tuple[Change, int, bytes]] = field(factory=list)
    synced: int = 0

    def do(self, change: Change, offset: int = 0, data: bytes = b"") -> None:
        change(self.content)
        self.pending.append((change, offset, data))

    @property
    def changes(self) -> int:
        """How many there were."""
        return self.synced + len(self.pending)

    def sync(self, upto: int) -> None:
        """Make the first C{upto} changes durable."""
        count = max(0, upto - self.synced)
        for change, _, _ in self.pending[:count]:
            change(self.durable)
        del self.pending[:count]
        self.synced += count

    def fail_to_sync(self) -> None:
        """What was to be written is taken for written, and is not."""
        self.synced += len(self.pending)
        self.pending = []

    def crash(self, random: Random) -> None:
        kept = [one for one in self.pending if random.random() < 0.6]
        if random.random() < 0.3:
            random.shuffle(kept)
        for change, offset, data in kept:
            if data and random.random() < 0.3:
                self._tear(random, offset, data)
            else:
                change(self.durable)
        self.pending = []
        self.content = bytearray(self.durable)

    def _tear(self, random: Random, offset: int, data: bytes) -> None:
        for start in range(0, len(data), SECTOR_BYTES):
            if random.random() < 0.5:
                part = data[start : start + SECTOR_BYTES]
                _write(offset + start, part)(self.durable)


@define(slots=True, eq=False)
class SimulatedFile:
    """Implements L{File<kvdb.storage.filesystem.File>}."""

    path: str
    _disk: SimulatedFileSystem
    _inode: _Inode
    _life: int
    _closed: bool = False

    def _use(self) -> None:
        assert not self._closed, f"{self.path} is used after it was closed"
        self._disk.operate(self._life)

    def size(self) -> int:
        """See there, as for all below."""
        return len(self._inode.content)

    def read(self, offset: int, length: int) -> bytes:
        """See there."""
        assert not self._closed, f"{self.path} is read after it was closed"
        data = bytes(self._inode.content[offset : offset + length])
        return self._disk.spoil(data) if self._disk.bad_reads else data

    def write(self, offset: int, data: bytes) -> None:
        """See there."""
        self._use()
        self._disk.take_space(offset + len(data) - self.size(), self.path)
        self._inode.do(_write(offset, data), offset, data)

    def allocate(self, length: int) -> None:
        """See there."""
        self._use()
        self._disk.take_space(length - self.size(), self.path)
        self._inode.do(_resize(length, only_grow=True))

    def allocate_later(self, length: int) -> Deferred[None]:
        """See there."""

        def work() -> None:
            self._disk.take_space(length - self.size(), self.path)
            self._inode.do(_resize(length, only_grow=True))

        return self._later(work)

    def truncate(self, length: int) -> None:
        """See there."""
        self._use()
        self._disk.give_space(self.size() - length)
        self._inode.do(_resize(length, only_grow=False))

    def sync(self) -> None:
        """See there."""
        self._use()
        self._disk.syncs += 1
        if self._disk.sync_fails:
            self._inode.fail_to_sync()
            raise SyncFailed(f"the disk could not sync {self.path}")
        self._inode.sync(self._inode.changes)

    def sync_later(self) -> Deferred[None]:
        """See there."""
        self._disk.syncs += 1
        upto = self._inode.changes

        def work() -> None:
            if self._disk.sync_fails:
                self._inode.fail_to_sync()
                raise SyncFailed(f"the disk could not sync {self.path}")
            self._inode.sync(upto)

        return self._later(work)

    def _later(self, work: Callable[[], None]) -> Deferred[None]:
        try:
            self._use()
        except Crashed:
            return fail()
        return self._disk.later(work)

    def close(self) -> None:
        """See there."""
        self._closed = True


@define(slots=True, eq=False)
class _SimulatedLock:
    _disk: SimulatedFileSystem
    _path: str

    def release(self) -> None:
        self._disk.locks.discard(self._path)


@define(slots=True, eq=False)
class SimulatedFileSystem:
    """
    Implements L{FileSystem<kvdb.storage.filesystem.FileSystem>}.

    @ivar space: bytes that are left; None for no end of them.
    @ivar tells_space: whether it says what is left, as a quota does not.
    @ivar sync_delay: seconds that what is done beside the reactor takes.
    @ivar hung: nothing of it ends until this is False again.
    @ivar sync_fails: every sync fails, and what it was for is lost though it
        can still be read: the kernel says so once, and keeps the pages.
    @ivar bad_reads: so many reads give one bit wrong.
    @ivar crash_at: the operation, counted from 1, at which the power goes.
    @ivar on_crash: called when it does.
    @ivar operations: how many there were.
    @ivar syncs: how many of them were syncs of files.
    """

    clock: IReactorTime
    random: Random
    space: int | None = None
    tells_space: bool = True
    sync_delay: float = 0.0
    hung: bool = False
    sync_fails: bool = False
    bad_reads: int = 0
    crash_at: int = 0
    on_crash: Callable[[], None] = lambda: None
    operations: int = 0
    syncs: int = 0
    locks: set[str] = field(factory=set)
    _files: dict[str, _Inode] = field(factory=dict)
    _durable: dict[str, _Inode] = field(factory=dict)
    _directories: set[str] = field(factory=set)
    _renames: list[Callable[[dict[str, _Inode]], None]] = field(factory=list)
    _named: int = 0
    _life: int = 0

    # Faults.

    def operate(self, life: int | None = None) -> None:
        """One more operation, if the power lasts."""
        if life is not None and life != self._life:
            raise Crashed
        self.operations += 1
        if self.crash_at and self.operations >= self.crash_at:
            self.on_crash()
            raise Crashed

    def spoil(self, data: bytes) -> bytes:
        """C{data} as a bad read gives it."""
        if not data:
            return data
        self.bad_reads -= 1
        spoilt = bytearray(data)
        spoilt[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(spoilt)

    def take_space(self, length: int, path: str) -> None:
        """@raise DiskFull: there is not so much left."""
        if self.space is not None and length > 0:
            if length > self.space:
                raise DiskFull(f"no space on the disk for {path}")
            self.space -= length

    def give_space(self, length: int) -> None:
        """So much is free again."""
        if self.space is not None and length > 0:
            self.space += length

    def later(self, work: Callable[[], None]) -> Deferred[None]:
        """Do C{work} when the disk has come to it, unless the power goes."""
        life = self._life
        done: Deferred[None] = Deferred()

        def attempt() -> None:
            if life != self._life:
                return
            if self.hung:
                self.clock.callLater(max(self.sync_delay, 0.01), attempt)
                return
            try:
                work()
            except (DiskFull, SyncFailed):
                done.errback()
            else:
                done.callback(None)

        self.clock.callLater(self.sync_delay, attempt)
        return done

    def crash(self) -> None:
        """Lose power, and come back with what the disk kept."""
        self._life += 1
        self.crash_at = 0
        self.locks.clear()
        self._sync_names(self._named + self.random.randint(0, len(self._renames)))
        self._renames = []
        inodes = {id(i): i for i in [*self._files.values(), *self._durable.values()]}
        for inode in inodes.values():
            inode.crash(self.random)
        self._files = dict(self._durable)

    def durable(self) -> dict[str, bytes]:
        """What a loss of power would leave at least, by path."""
        return {path: bytes(inode.durable) for path, inode in self._durable.items()}

    def put_back(self, files: Mapping[str, bytes]) -> None:
        """Hold C{files} and nothing else, all of them durable; nobody has any open."""
        self.kill()
        self._renames = []
        self._durable = {
            path: _Inode(bytearray(content), bytearray(content))
            for path, content in files.items()
        }
        self._files = dict(self._durable)

    def kill(self) -> None:
        """The process ends, and its kernel keeps what it wrote."""
        self._life += 1
        self.crash_at = 0
        self.locks.clear()

    def flip_bit(self, path: str, offset: int, bit: int) -> None:
        """Change one bit of a file that nobody has open, for good."""
        inode = self._files[path]
        assert inode.content == inode.durable, f"{path} is not wholly durable"
        for content in (inode.content, inode.durable):
            content[offset] ^= 1 << bit

    def _rename(self, change: Callable[[dict[str, _Inode]], None]) -> None:
        change(self._files)
        self._renames.append(change)

    # Files.

    def space_of(self, path: str) -> Space | None:
        """See there, as for all below."""
        if self.space is None or not self.tells_space:
            return None
        return Space(self.space, TOTAL_BYTES)

    def make_directory(self, path: str) -> None:
        """See there."""
        self.operate()
        self._directories.add(path)

    def list(self, path: str) -> list[str]:
        """See there."""
        prefix = path + "/"
        return sorted(
            name[len(prefix) :]
            for name in self._files
            if name.startswith(prefix) and "/" not in name[len(prefix) :]
        )

    def exists(self, path: str) -> bool:
        """See there."""
        return path in self._files or path in self._directories

    def open(self, path: str) -> File:
        """See there."""
        self.operate()
        if path not in self._files:
            inode = _Inode()
            self._rename(lambda files: files.__setitem__(path, inode))
        return SimulatedFile(path, self, self._files[path], self._life)

    def rename(self, old: str, new: str) -> None:
        """See there."""
        self.operate()

        def change(files: dict[str, _Inode]) -> None:
            if old in files:
                files[new] = files.pop(old)

        if new in self._files:
            self.give_space(len(self._files[new].content))
        self._rename(change)

    def remove(self, path: str) -> None:
        """See there."""
        self.operate()
        self.give_space(len(self._files[path].content))

        def change(files: dict[str, _Inode]) -> None:
            files.pop(path, None)

        self._rename(change)

    def sync_directory(self, path: str) -> None:
        """See there."""
        self.operate()
        self._sync_names(self._named + len(self._renames))

    def sync_directory_later(self, path: str) -> Deferred[None]:
        """See there."""
        try:
            self.operate()
        except Crashed:
            return fail()
        upto = self._named + len(self._renames)

        def work() -> None:
            if self.sync_fails:
                raise SyncFailed(f"the disk could not sync the directory {path}")
            self._sync_names(upto)

        return self.later(work)

    def _sync_names(self, upto: int) -> None:
        count = max(0, upto - self._named)
        for rename in self._renames[:count]:
            rename(self._durable)
        del self._renames[:count]
        self._named += count

    def lock(self, path: str) -> Lock:
        """See there."""
        if path in self.locks:
            raise DirectoryInUse(
                f"the data directory {path.rpartition('/')[0]} is in use by another"
                " process"
            )
        self.open(path)
        self.locks.add(path)
        return _SimulatedLock(self, path)
