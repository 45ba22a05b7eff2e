"""
The durable Raft log: segments in a directory.

::

    <directory>/lock                     held while the log is open
    <directory>/reserve                  space to free when the disk is full
    <directory>/log-0000000000000001     segments, see docs/log-format.md
    <directory>/log-0000000000000002

Each segment begins with who the node is, its hard state, and the index and
term of the entry before it, so that older segments can be removed.

Rules:

* what is appended counts once the C{sync} asked for after it has fired;
* an entry at a place that is taken replaces that one and all behind it;
* a full disk refuses a whole append; a failed sync ends the log's life;
* memory is bounded: of each entry its place and term are kept, and whole
  entries only of the recent end.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Final, NoReturn

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from kvdb.raft.messages import Entry, HardState
from kvdb.raft.storage import Compacted, Unavailable
from kvdb.storage.filesystem import DiskFull, FileSystem, Lock
from kvdb.storage.records import (
    BadRecord,
    RecordType,
    decode_entries,
    encode_entry,
    encode_record,
)
from kvdb.storage.segment import CorruptLog, Placed, Segment

SEGMENT_BYTES: Final = 16 << 20
"""The size of a segment, but for one that holds a longer batch."""

HARD_STATE_ROOM: Final = 4096
"""Bytes at a segment's end that only hard states may use, so that a member can
still vote and stop when there is no space for another segment."""

RECENT_BYTES: Final = 16 << 20
"""Entries kept in memory, by their sizes."""

RESERVE_BYTES: Final = 4 << 20
"""The file that is removed when the disk is full."""

READ_BYTES: Final = 256 << 10
"""How much is read back at once."""

FORMAT_VERSION: Final = 1

_IDENTITY = struct.Struct(">QQQHB")
_HARD_STATE = struct.Struct(">QQQ")
_MARK = struct.Struct(">QQB")
_PLACE_BITS: Final = 32
_PLACE_MASK: Final = 2**_PLACE_BITS - 1


class UnknownFormat(Exception):
    """The directory was written by a later version."""


class LogClosed(Exception):
    """The log takes nothing any more: it was closed, or a sync has failed."""


@frozen(slots=True)
class Identity:
    """
    Whose log it is.

    @ivar cluster_id: 0 while a joining node does not know it.
    @ivar instance_id: random, made with the directory.
    @ivar removed: the node was told that it is no member any more.
    """

    cluster_id: int
    node_id: int
    instance_id: int
    removed: bool = False


@define(slots=True, eq=False)
class Log:
    """
    See the head of this module.

    @ivar identity: None in a directory that was just made.
    """

    filesystem: FileSystem
    directory: str
    clock: IReactorTime
    segment_bytes: int = SEGMENT_BYTES
    recent_bytes: int = RECENT_BYTES
    identity: Identity | None = None
    hard_state: HardState = field(factory=HardState)
    _lock: Lock | None = None
    _segments: list[Segment] = field(factory=list)
    _mark_index: int = 0
    _mark_term: int = 0
    _terms: array[int] = field(factory=lambda: array("Q"))
    _places: array[int] = field(factory=lambda: array("Q"))
    _recent: list[Entry] = field(factory=list)
    _recent_size: int = 0
    _waiting: list[Deferred[None]] = field(factory=list)
    _syncing: list[Deferred[None]] = field(factory=list)
    _sync_started: float = 0.0
    _broken: BaseException | None = None

    # Opening and closing.

    @classmethod
    def open(
        cls,
        filesystem: FileSystem,
        directory: str,
        clock: IReactorTime,
        segment_bytes: int = SEGMENT_BYTES,
        recent_bytes: int = RECENT_BYTES,
    ) -> Log:
        """
        Open the log in C{directory}, or make one.

        @raise DirectoryInUse: another process has it open.
        @raise CorruptLog: it is not what was written.
        @raise UnknownFormat: a later version wrote it.
        """
        log = cls(filesystem, directory, clock, segment_bytes, recent_bytes)
        filesystem.make_directory(directory)
        log._lock = filesystem.lock(f"{directory}/lock")
        try:
            log._read()
            log.make_reserve()
        except BaseException:
            log.close()
            raise
        return log

    def _read(self) -> None:
        names = self.filesystem.list(self.directory)
        for name in names:
            if name.endswith(".new"):
                self.filesystem.remove(f"{self.directory}/{name}")
        numbers = [int(name[4:], 16) for name in names if _is_segment(name)]
        for number in numbers:
            file = self.filesystem.open(self._path(number))
            segment = Segment(number, file, file.size())
            self._segments.append(segment)
            for record in segment.records(last=number == numbers[-1]):
                self._replay(segment, record)
        if not self._segments:
            self._begin_segment(0)
        # A process that was killed may have written what no sync has seen.
        self._sync_now(self._segments[-1])

    def _replay(self, segment: Segment, record: Placed) -> None:
        kind, body = record.kind, record.body
        if kind == RecordType.ENTRY:
            self._replay_entry(segment, record)
        elif kind == RecordType.HARD_STATE:
            self.hard_state = HardState(*_HARD_STATE.unpack(body))
        elif kind == RecordType.MARK:
            index, term, is_reset = _MARK.unpack(body)
            segment.before = index
            if is_reset or segment is self._segments[0]:
                self._forget_all(index, term)
        elif kind == RecordType.IDENTITY:
            cluster, node, instance, version, removed = _IDENTITY.unpack(body)
            if version > FORMAT_VERSION:
                raise UnknownFormat(
                    f"{self.directory} has format {version}, this release of kvdb"
                    f" reads {FORMAT_VERSION}: start a later release"
                )
            self.identity = Identity(cluster, node, instance, bool(removed))
        else:
            raise CorruptLog(segment.file.path, record.offset, "unknown record")

    def _replay_entry(self, segment: Segment, record: Placed) -> None:
        # The record's own bytes again, as they are what travels.
        encoded = encode_record(RecordType.ENTRY, record.body)
        entry = decode_entries(encoded, 0, 1)[0]
        if entry.index <= self._mark_index:
            # Rewritten before what came before it was cut away.
            self._truncate(self._mark_index + 1)
            if entry.index == self._mark_index:
                self._mark_term = entry.term
            return
        if entry.index > self.last_index() + 1:
            raise CorruptLog(
                segment.file.path,
                record.offset,
                f"entry {entry.index} follows entry {self.last_index()}",
            )
        self._truncate(entry.index)
        self._note(segment, record.offset, entry)

    def close(self) -> None:
        """Be done; what was not synced may be lost."""
        if self._broken is None:
            self._broken = LogClosed("the log is closed")
        for segment in self._segments:
            segment.file.close()
        self._segments = []
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    # Reading.

    def first_index(self) -> int:
        """See L{LogReader<kvdb.raft.storage.LogReader>}, as for the next three."""
        return self._mark_index + 1

    def last_index(self) -> int:
        """See there."""
        return self._mark_index + len(self._terms)

    def term(self, index: int) -> int:
        """See there."""
        position = index - self._mark_index - 1
        if 0 <= position < len(self._terms):
            return self._terms[position]
        if position == -1:
            return self._mark_term
        raise Compacted if position < 0 else Unavailable

    def entries(self, low: int, high: int, max_size: int) -> Sequence[Entry]:
        """See there."""
        if low <= self._mark_index:
            raise Compacted
        if high > self.last_index() + 1:
            raise Unavailable
        recent_first = self.last_index() + 1 - len(self._recent)
        found: list[Entry] = []
        size = 0
        while low < high:
            if low >= recent_first:
                more: Sequence[Entry] = self._recent[
                    low - recent_first : high - recent_first
                ]
            else:
                more = self._read_back(low, min(high, recent_first))
            for entry in more:
                size += entry.size
                if found and size > max_size:
                    return found
                found.append(entry)
            low += len(more)
        return found

    def _read_back(self, low: int, high: int) -> list[Entry]:
        """Some of the entries from C{low} on, at least one."""
        number, start = self._place(low)
        segment = next(s for s in self._segments if s.number == number)
        length = max(READ_BYTES, self._record_room(segment, low, start))
        buffer = segment.file.read(start, min(length, segment.length - start))
        entries: list[Entry] = []
        while low < high:
            number, offset = self._place(low)
            if number != segment.number or not 0 <= offset - start < len(buffer):
                break
            try:
                entry = decode_entries(buffer, offset - start, 1)[0]
            except BadRecord as error:
                if entries:
                    break  # cut by the end of what was read
                raise CorruptLog(segment.file.path, offset, str(error)) from error
            if entry.index != low:
                raise CorruptLog(segment.file.path, offset, "another entry's record")
            entries.append(entry)
            low += 1
        return entries

    def _record_room(self, segment: Segment, index: int, start: int) -> int:
        """At most how long the record of the entry at C{index} is."""
        if index < self.last_index():
            number, following = self._place(index + 1)
            if number == segment.number and following > start:
                return following - start
        return segment.length - start

    def _place(self, index: int) -> tuple[int, int]:
        place = self._places[index - self._mark_index - 1]
        return place >> _PLACE_BITS, place & _PLACE_MASK

    @property
    def size_bytes(self) -> int:
        """What the segments hold."""
        return sum(segment.length for segment in self._segments)

    # Writing.

    def append(self, entries: Sequence[Entry], hard_state: HardState | None) -> None:
        """
        Write entries and hard state, without syncing them.

        @raise DiskFull: there is no space; nothing was changed.
        @raise LogClosed: the log takes nothing any more.
        """
        self._check()
        records: list[bytes] = []
        if hard_state is not None and hard_state != self.hard_state:
            records.append(_encode_hard_state(hard_state))
        if entries:
            first = entries[0].index
            assert self._mark_index < first <= self.last_index() + 1, (
                f"entry {first} appended to a log of {self.first_index()} to"
                f" {self.last_index()}"
            )
            records.extend([encode_entry(entry) for entry in entries])
        if not records:
            return
        self._make_room(sum(map(len, records)), only_state=not entries)
        segment = self._segments[-1]
        offset = self._write(segment, records)
        if len(records) > len(entries):
            assert hard_state is not None
            self.hard_state = hard_state
            offset += len(records[0])
        if entries:
            self._truncate(entries[0].index)
            for entry in entries:
                self._note(segment, offset, entry)
                assert entry.encoded is not None
                offset += len(entry.encoded)
            self._trim_recent()

    def _write(self, segment: Segment, records: list[bytes]) -> int:
        """Write a batch; the offset of its first record."""
        try:
            return segment.write(segment.encode_batch(records))
        except BaseException as error:
            # Part of it may be there, and could be taken for what was written
            # in its place.
            self._broken = error
            raise

    def _note(self, segment: Segment, offset: int, entry: Entry) -> None:
        self._terms.append(entry.term)
        self._places.append(segment.number << _PLACE_BITS | offset)
        self._recent.append(entry)
        self._recent_size += entry.size
        if self._recent_size > 2 * self.recent_bytes:
            self._trim_recent()

    def _trim_recent(self) -> None:
        drop = 0
        while self._recent_size > self.recent_bytes and drop < len(self._recent) - 1:
            self._recent_size -= self._recent[drop].size
            drop += 1
        del self._recent[:drop]

    def _truncate(self, index: int) -> None:
        """Forget the entries from C{index} on."""
        keep = index - self._mark_index - 1
        dropped = len(self._terms) - keep
        if dropped <= 0:
            return
        del self._terms[keep:]
        del self._places[keep:]
        gone = self._recent[-dropped:]
        del self._recent[-dropped:]
        self._recent_size -= sum(entry.size for entry in gone)

    def _make_room(self, length: int, *, only_state: bool) -> None:
        segment = self._segments[-1]
        kept_free = 0 if only_state else HARD_STATE_ROOM
        if segment.length + length + kept_free + HARD_STATE_ROOM // 4 <= segment.size:
            return
        # What is in the old one must be durable before anything in the new
        # one can be: a torn end is looked for only in the last.
        self._sync_now(segment)
        self._begin_segment(length)

    def _begin_segment(self, room: int, *, reset_to: tuple[int, int] = (0, 0)) -> None:
        number = self._segments[-1].number + 1 if self._segments else 1
        size = max(self.segment_bytes, room + 2 * HARD_STATE_ROOM)
        try:
            segment = self._make_segment(number, size, reset_to)
        except DiskFull:
            self.release_reserve()
            raise
        except BaseException as error:
            self._broken = error
            raise
        self._segments.append(segment)

    def _make_segment(
        self, number: int, size: int, reset_to: tuple[int, int]
    ) -> Segment:
        """A segment with its head, durable: it bears its name only when whole."""
        path = self._path(number)
        file = self.filesystem.open(path + ".new")
        segment = Segment(number, file, size)
        try:
            file.allocate(size)
            self._write_head(segment, reset_to)
            file.sync()
        except BaseException:
            file.close()
            self.filesystem.remove(path + ".new")
            raise
        file.path = path
        self.filesystem.rename(path + ".new", path)
        self.filesystem.sync_directory(self.directory)
        segment.durable = segment.length
        return segment

    def _write_head(self, segment: Segment, reset_to: tuple[int, int]) -> None:
        index, term = reset_to
        is_reset = index > 0
        if not is_reset:
            index = self.last_index()
            term = self.term(index)
        segment.before = index
        records = [
            encode_record(RecordType.MARK, _MARK.pack(index, term, is_reset)),
            _encode_hard_state(self.hard_state),
        ]
        if self.identity is not None:
            records.append(_encode_identity(self.identity))
        segment.write(segment.encode_batch(records))

    def set_identity(self, identity: Identity) -> None:
        """Record whose log it is, durably."""
        self._check()
        record = _encode_identity(identity)
        self._make_room(len(record), only_state=True)
        segment = self._segments[-1]
        self._write(segment, [record])
        self._sync_now(segment)
        self.identity = identity

    def reset(self, index: int, term: int, hard_state: HardState) -> None:
        """
        Begin anew behind a snapshot at C{index}; durable on return.

        @raise DiskFull: there is no space; nothing was changed.
        """
        self._check()
        before = self.hard_state
        self.hard_state = hard_state
        try:
            self._sync_now(self._segments[-1])
            self._begin_segment(0, reset_to=(index, term))
        except DiskFull:
            self.hard_state = before
            raise
        self._forget_all(index, term)
        self._remove_segments(len(self._segments) - 1)

    def _forget_all(self, index: int, term: int) -> None:
        self._mark_index = index
        self._mark_term = term
        self._terms = array("Q")
        self._places = array("Q")
        self._recent = []
        self._recent_size = 0

    def compact(self, index: int) -> None:
        """Let go of the entries up to C{index}, which must be in the store."""
        self._check()
        assert index <= self.last_index(), (
            f"compaction to {index} of a log that ends at {self.last_index()}"
        )
        count = index - self._mark_index
        if count <= 0:
            return
        self._mark_term = self.term(index)
        self._mark_index = index
        del self._terms[:count]
        del self._places[:count]
        kept = len(self._terms)
        if len(self._recent) > kept:
            self._recent = self._recent[len(self._recent) - kept :]
            self._recent_size = sum(entry.size for entry in self._recent)
        behind = 0
        while (
            behind + 1 < len(self._segments)
            and self._segments[behind + 1].before <= index
        ):
            behind += 1
        self._remove_segments(behind)
        self.make_reserve()

    def _remove_segments(self, count: int) -> None:
        # Oldest first: a crash between leaves a log that begins later.
        for segment in self._segments[:count]:
            segment.file.close()
            self.filesystem.remove(segment.file.path)
        if count:
            self.filesystem.sync_directory(self.directory)
        del self._segments[:count]

    # Syncing.

    def sync(self) -> Deferred[None]:
        """
        Make durable what was appended; fires when it is.  Those who ask while
        a sync runs share the next.

        @raise SyncFailed: through the Deferred; then the log's life has ended.
        """
        if self._broken is not None:
            return fail(self._broken)
        segment = self._segments[-1]
        if segment.durable == segment.length and not self._syncing:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if not self._syncing:
            self._start_sync()
        return done

    def _start_sync(self) -> None:
        self._syncing, self._waiting = self._waiting, []
        self._sync_started = self.clock.seconds()
        segment = self._segments[-1]
        length = segment.length
        segment.file.sync_later().addCallbacks(
            lambda _: self._synced(segment, length), self._sync_failed
        )

    def _synced(self, segment: Segment, length: int) -> None:
        if self._broken is not None:
            # Closed; or another sync has failed, and the kernel says so once.
            self._sync_failed(Failure(self._broken))
            return
        segment.durable = max(segment.durable, length)
        done, self._syncing = self._syncing, []
        if self._waiting:
            self._start_sync()
        for waiting in done:
            waiting.callback(None)

    def _sync_failed(self, failure: Failure) -> None:
        self._broken = failure.value
        waiting = self._syncing + self._waiting
        self._syncing, self._waiting = [], []
        for one in waiting:
            one.errback(failure)

    def _sync_now(self, segment: Segment) -> None:
        try:
            segment.file.sync()
        except BaseException as error:
            self._broken = error
            raise
        segment.durable = segment.length

    def pending_sync_seconds(self) -> float:
        """For how long the running sync has been waited for; else 0."""
        if not self._syncing:
            return 0.0
        return self.clock.seconds() - self._sync_started

    # Space.

    def release_reserve(self) -> None:
        """Free the space kept for a full disk."""
        path = f"{self.directory}/reserve"
        if self.filesystem.exists(path):
            self.filesystem.remove(path)

    def make_reserve(self) -> None:
        """Keep some space for a full disk, where there is any."""
        path = f"{self.directory}/reserve"
        if self.filesystem.exists(path):
            return
        try:
            file = self.filesystem.open(path)
            try:
                file.allocate(RESERVE_BYTES)
            finally:
                file.close()
        except DiskFull:
            self.release_reserve()

    def _check(self) -> None:
        if self._broken is not None:
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise LogClosed(str(self._broken)) from self._broken

    def _path(self, number: int) -> str:
        return f"{self.directory}/log-{number:016x}"


def _is_segment(name: str) -> bool:
    return name.startswith("log-") and not name.endswith(".new")


def _encode_hard_state(state: HardState) -> bytes:
    body = _HARD_STATE.pack(state.term, state.vote, state.commit)
    return encode_record(RecordType.HARD_STATE, body)


def _encode_identity(identity: Identity) -> bytes:
    body = _IDENTITY.pack(
        identity.cluster_id,
        identity.node_id,
        identity.instance_id,
        FORMAT_VERSION,
        identity.removed,
    )
    return encode_record(RecordType.IDENTITY, body)
