"""
A disk that notes all that is done to it, and what crashes may leave of that.

Rules:

* a sync makes durable what was done to its file when it was asked for, and
  counts from the moment that it has ended;
* of what was done to a file since, a crash keeps any part: some operations and
  not others, some sectors of a write and not others;
* names change in order, so a crash keeps the first so many changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from random import Random
from typing import Final

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kvdb.simulation.filesystem import SECTOR_BYTES, SimulatedFileSystem
from kvdb.storage.filesystem import File, Lock, Space

FEW: Final = 8
"""Of so many operations that no sync has seen, every subset is kept once."""

TEARS: Final = 3
"""Places within its sectors at which a write is torn."""

Image = dict[str, bytes]
"""What is on a disk, by path."""


@frozen(slots=True)
class Write:
    inode: int
    offset: int
    data: bytes


@frozen(slots=True)
class Resize:
    """An allocation, or a truncation where it may also shrink."""

    inode: int
    length: int
    only_grow: bool


@frozen(slots=True)
class Sync:
    """What was done to the file before operation C{upto} is durable."""

    inode: int
    upto: int


@frozen(slots=True)
class Name:
    """A path came to stand for another file, or for none."""

    path: str
    inode: int | None
    old: str | None = None


@frozen(slots=True)
class SyncNames:
    """Name changes before operation C{upto} are durable."""

    upto: int


Change = Write | Resize
Operation = Change | Sync | Name | SyncNames


@define(slots=True, eq=False)
class RecordingFile:
    """Implements L{File<kvdb.storage.filesystem.File>}."""

    path: str
    _disk: RecordingFileSystem
    _inode: int
    _file: File

    def size(self) -> int:
        return self._file.size()

    def read(self, offset: int, length: int) -> bytes:
        return self._file.read(offset, length)

    def write(self, offset: int, data: bytes) -> None:
        self._file.write(offset, data)
        if data:
            self._disk.note(Write(self._inode, offset, data))

    def allocate(self, length: int) -> None:
        self._file.allocate(length)
        self._disk.note(Resize(self._inode, length, True))

    def allocate_later(self, length: int) -> Deferred[None]:
        operation = Resize(self._inode, length, True)
        done = self._file.allocate_later(length)
        return done.addCallback(lambda _: self._disk.note(operation))

    def truncate(self, length: int) -> None:
        self._file.truncate(length)
        self._disk.note(Resize(self._inode, length, False))

    def sync(self) -> None:
        self._file.sync()
        self._disk.note(Sync(self._inode, len(self._disk.operations)))

    def sync_later(self) -> Deferred[None]:
        operation = Sync(self._inode, len(self._disk.operations))
        done = self._file.sync_later()
        return done.addCallback(lambda _: self._disk.note(operation))

    def close(self) -> None:
        self._file.close()


@define(slots=True, eq=False)
class RecordingFileSystem:
    """
    Implements L{FileSystem<kvdb.storage.filesystem.FileSystem>}, over another.

    @ivar operations: all that was done, in order.
    """

    disk: SimulatedFileSystem
    operations: list[Operation] = field(factory=list)
    _inodes: dict[str, int] = field(factory=dict)
    _numbers: Iterator[int] = field(factory=count)

    def note(self, operation: Operation) -> None:
        self.operations.append(operation)

    def _made(self, path: str) -> int:
        if path not in self._inodes:
            self._inodes[path] = next(self._numbers)
            self.note(Name(path, self._inodes[path]))
        return self._inodes[path]

    def space_of(self, path: str) -> Space | None:
        return self.disk.space_of(path)

    def make_directory(self, path: str) -> None:
        self.disk.make_directory(path)

    def list(self, path: str) -> list[str]:
        return self.disk.list(path)

    def exists(self, path: str) -> bool:
        return self.disk.exists(path)

    def open(self, path: str) -> RecordingFile:
        file = self.disk.open(path)
        return RecordingFile(path, self, self._made(path), file)

    def rename(self, old: str, new: str) -> None:
        self.disk.rename(old, new)
        self._inodes[new] = self._inodes.pop(old)
        self.note(Name(new, self._inodes[new], old))

    def remove(self, path: str) -> None:
        self.disk.remove(path)
        del self._inodes[path]
        self.note(Name(path, None))

    def sync_directory(self, path: str) -> None:
        self.disk.sync_directory(path)
        self.note(SyncNames(len(self.operations)))

    def sync_directory_later(self, path: str) -> Deferred[None]:
        operation = SyncNames(len(self.operations))
        done = self.disk.sync_directory_later(path)
        return done.addCallback(lambda _: self.note(operation))

    def lock(self, path: str) -> Lock:
        lock = self.disk.lock(path)
        self._made(path)
        return lock


def put(disk: SimulatedFileSystem | RecordingFileSystem, image: Image) -> None:
    """Let a new disk hold C{image}, durably."""
    for path, content in image.items():
        file = disk.open(path)
        if content:
            file.write(0, content)
        file.sync()
    disk.sync_directory("")


def make_disk(
    clock: IReactorTime, image: Image, seed: int = 0, space: int | None = None
) -> SimulatedFileSystem:
    """A disk that holds C{image}."""
    disk = SimulatedFileSystem(clock, Random(seed))
    put(disk, image)
    disk.space = space
    return disk


def _carry_out(content: bytearray, change: Change) -> None:
    if isinstance(change, Write):
        content.extend(bytes(max(0, change.offset - len(content))))
        content[change.offset : change.offset + len(change.data)] = change.data
    elif len(content) < change.length:
        content.extend(bytes(change.length - len(content)))
    elif not change.only_grow:
        del content[change.length :]


def _names(operations: Sequence[Name]) -> dict[str, int]:
    names: dict[str, int] = {}
    for name in operations:
        if name.old is not None:
            names.pop(name.old, None)
        if name.inode is None:
            names.pop(name.path, None)
        else:
            names[name.path] = name.inode
    return names


def _part(write: Write, start: int, end: int) -> list[Change]:
    """What C{write} puts from one place in the file to another."""
    low, high = max(start, write.offset), min(end, write.offset + len(write.data))
    if low >= high:
        return []
    data = write.data[low - write.offset : high - write.offset]
    return [evolve(write, offset=low, data=data)]


def _sectors(write: Write) -> list[Change]:
    first = write.offset // SECTOR_BYTES * SECTOR_BYTES
    end = write.offset + len(write.data)
    return [
        part
        for start in range(first, end, SECTOR_BYTES)
        for part in _part(write, start, start + SECTOR_BYTES)
    ]


def _tears(write: Write, random: Random) -> Iterator[list[Change]]:
    """Parts of a write that a crash may leave."""
    start, end = write.offset, write.offset + len(write.data)
    sectors = _sectors(write)
    places = {sector.offset for sector in sectors if isinstance(sector, Write)}
    places |= {random.randrange(start, end) for _ in range(TEARS)}
    for place in sorted(places - {start}):
        yield _part(write, start, place)
        yield _part(write, place, end)
    if len(sectors) > 2:
        yield sectors[::2]
        yield sectors[1::2]
        for missing in range(len(sectors)):
            yield sectors[:missing] + sectors[missing + 1 :]


def _kept(
    pending: Sequence[Change], random: Random, samples: int
) -> Iterator[Sequence[Change]]:
    """What a crash may keep of changes that no sync has seen."""
    number = len(pending)
    if number <= FEW:
        for subset in range(1 << number):
            yield [one for place, one in enumerate(pending) if subset >> place & 1]
    else:
        for place in range(number + 1):
            yield pending[:place]
            yield [*pending[:place], *pending[place + 1 :]]
        for _ in range(samples):
            yield [one for one in pending if random.random() < 0.7]
    writes = [place for place, one in enumerate(pending) if isinstance(one, Write)]
    if not writes:
        return
    last = pending[writes[-1]]
    assert isinstance(last, Write)
    before, behind = pending[: writes[-1]], pending[writes[-1] + 1 :]
    omitted = random.randrange(len(before)) if before else 0
    for others in (before, [], [*before[:omitted], *before[omitted + 1 :]]):
        for part in _tears(last, random):
            yield [*others, *part, *behind]
    for _ in range(samples):
        pieces = [
            piece
            for one in pending
            for piece in (_sectors(one) if isinstance(one, Write) else [one])
        ]
        kept = [piece for piece in pieces if random.random() < 0.7]
        if random.random() < 0.3:
            random.shuffle(kept)
        yield kept


def crashes(
    operations: Sequence[Operation], random: Random, samples: int
) -> Iterator[Image]:
    """What a crash behind the last of C{operations} may leave, each once or more."""
    synced: dict[int, int] = {}
    named = 0
    for one in operations:
        if isinstance(one, Sync):
            synced[one.inode] = max(one.upto, synced.get(one.inode, 0))
        elif isinstance(one, SyncNames):
            named = max(named, one.upto)
    names: list[Name] = []
    durable_names = 0
    durable: dict[int, bytearray] = {}
    pending: list[Change] = []
    for place, one in enumerate(operations):
        if isinstance(one, Name):
            names.append(one)
            durable_names += place < named
        elif isinstance(one, Write | Resize):
            if place < synced.get(one.inode, 0):
                _carry_out(durable.setdefault(one.inode, bytearray()), one)
            else:
                pending.append(one)
    for length in range(durable_names, len(names) + 1):
        paths = _names(names[:length])
        # What is not a segment is not read.
        read = {inode for path, inode in paths.items() if is_segment(path)}
        found = [one for one in pending if one.inode in read]
        for kept in _kept(found, random, samples):
            contents = {inode: bytearray(durable.get(inode, b"")) for inode in read}
            for one in kept:
                _carry_out(contents[one.inode], one)
            yield {
                path: bytes(contents.get(inode, b"")) for path, inode in paths.items()
            }


def is_segment(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith("log-") and not name.endswith(".new")
