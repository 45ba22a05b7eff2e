"""
The durable Raft log: entries and hard state, over a journal of segment files.

::

    <directory>/lock                     held while the log is open
    <directory>/reserve                  space to free when the disk is full
    <directory>/log-0000000000000001     segments, see docs/log-format.md
    <directory>/log-0000000000000002
    <directory>/spare.new                a file for the next, made ahead of need

Each segment begins with who the node is, its hard state, and the index and
term of the entry before it, so that older segments can be removed.

Rules:

* what is appended in one call counts whole or not at all, and for good once
  the C{sync} asked for after it has fired;
* an entry at a place that is taken replaces that one and all behind it, and
  never one that is known to be committed;
* a full disk refuses a whole append; a failed sync ends the log's life;
* memory is bounded: of each entry its place and term are kept, and whole
  entries only of the recent end.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Final

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kvdb.raft.messages import Entry, HardState
from kvdb.raft.storage import Compacted, Unavailable
from kvdb.storage.filesystem import FileSystem, Lock, Space, SyncFailed
from kvdb.storage.journal import Journal, start_again
from kvdb.storage.records import (
    BadRecord,
    RecordType,
    decode_entries,
    encode_entry,
    encode_record,
)
from kvdb.storage.segment import (
    CorruptLog,
    Record,
    Segment,
    TornEnd,
    from_place,
    to_place,
)
from kvdb.storage.starts import (
    PeerStart,
    Starts,
    decode_peer_starts,
    decode_starts,
    encode_peer_starts,
    encode_starts,
)

SEGMENT_BYTES: Final = 16 << 20
"""The size of a segment, but for one that holds a longer batch."""

RECENT_BYTES: Final = 4 << 20
"""Entries kept in memory, by their sizes."""

READ_BYTES: Final = 256 << 10
"""How much is read back at once."""

FORMAT_VERSION: Final = 2
"""In 2, a member's starts are recorded, and those it met of its peers; a log of
format 1 is read, and goes on as one of format 2."""

_IDENTITY = struct.Struct(">QQQHB")
_VERSION_FIELD: Final = 3
_REMOVED: Final = 1
_DIVERGED: Final = 2
_INSTALLING: Final = 4
_HARD_STATE = struct.Struct(">QQQ")
_MARK = struct.Struct(">QQB")


class UnknownFormat(Exception):
    """The directory was written by a later version."""


@frozen(slots=True)
class Identity:
    """
    Whose log it is.

    @ivar cluster_id: 0 while a joining node does not know it.
    @ivar instance_id: random, made with the directory.
    @ivar removed: the node was told that it is no member any more.
    @ivar diverged: its data was found to differ from the other members'.
    @ivar starts: those of this directory, see L{kvdb.storage.starts}.
    @ivar installing: a snapshot is being put in the store's place: the store may be
        ahead of this log.
    """

    cluster_id: int
    node_id: int
    instance_id: int
    removed: bool = False
    diverged: bool = False
    starts: Starts = Starts()
    installing: bool = False


@define(slots=True, eq=False)
class Log:
    """
    See the head of this module.

    @ivar identity: None in a directory that was just made.
    @ivar peer_starts: the newest starts that were met of other members, by id.
    """

    directory: str
    _journal: Journal
    _lock: Lock
    _recent_bytes: int = RECENT_BYTES
    identity: Identity | None = None
    hard_state: HardState = field(factory=HardState)
    peer_starts: Mapping[int, PeerStart] = field(factory=dict)
    _mark_index: int = 0
    _mark_term: int = 0
    _terms: array[int] = field(factory=lambda: array("Q"))
    _places: array[int] = field(factory=lambda: array("Q"))
    _recent: list[Entry] = field(factory=list)
    _recent_size: int = 0

    # Opening and closing.

    @classmethod
    def open(
        cls,
        filesystem: FileSystem,
        directory: str,
        clock: IReactorTime,
        segment_bytes: int = SEGMENT_BYTES,
        recent_bytes: int = RECENT_BYTES,
        when_sync_fails: Callable[[SyncFailed], SyncFailed] = start_again,
    ) -> Log:
        """
        Open the log in C{directory}, or make one.

        @param when_sync_fails: called before anybody hears that a sync has failed;
            gives the error that they hear.
        @raise DirectoryInUse: another process has it open.
        @raise CorruptLog: it is not what was written.
        @raise UnknownFormat: a later version wrote it.
        """
        filesystem.make_directory(directory)
        lock = filesystem.lock(f"{directory}/lock")
        journal = Journal(filesystem, directory, clock, segment_bytes)
        journal.when_sync_fails = when_sync_fails
        log = cls(directory, journal, lock, recent_bytes)
        try:
            for segment, record in journal.recover(log._head):
                log._replay(segment, record)
            journal.make_reserve()
        except BaseException:
            log.close()
            raise
        return log

    def _replay(self, segment: Segment, record: Record) -> None:
        try:
            self._take_record(segment, record)
        except (struct.error, ValueError) as error:
            raise CorruptLog(
                segment.file.path, record.offset, "a record of another length"
            ) from error

    def _take_record(self, segment: Segment, record: Record) -> None:
        kind, body = record.kind, record.body
        if record.entry is not None:
            self._replay_entry(segment, record.offset, record.entry)
        elif kind == RecordType.HARD_STATE:
            self.hard_state = HardState(*_HARD_STATE.unpack(body))
        elif kind == RecordType.MARK:
            index, term, is_reset = _MARK.unpack(body)
            segment.before = index
            if is_reset:
                self._journal.let_go(segment.number)
            if is_reset or segment is self._journal.segments[0]:
                self._forget_all(index, term)
        elif kind == RecordType.IDENTITY:
            # Before all else: a later format may be of another length.
            version = _IDENTITY.unpack_from(body)[_VERSION_FIELD]
            if version > FORMAT_VERSION:
                raise UnknownFormat(
                    f"{self.directory} has format {version}, this release of kvdb"
                    f" reads {FORMAT_VERSION}: start a later release"
                )
            self.identity = _decode_identity(body, version)
        elif kind == RecordType.PEER_STARTS:
            self.peer_starts = decode_peer_starts(body)
        else:
            raise CorruptLog(segment.file.path, record.offset, "unknown record")

    def _replay_entry(self, segment: Segment, offset: int, entry: Entry) -> None:
        if entry.index <= self._mark_index:
            # Rewritten before what came before it was cut away.
            self._truncate(self._mark_index + 1)
            if entry.index == self._mark_index:
                self._mark_term = entry.term
            return
        if entry.index > self.last_index() + 1:
            raise CorruptLog(
                segment.file.path,
                offset,
                f"entry {entry.index} follows entry {self.last_index()}",
            )
        self._truncate(entry.index)
        self._note(to_place(segment.number, offset), entry)
        if self._recent_size > 2 * self._recent_bytes:
            self._trim_recent()

    def close(self) -> None:
        """Be done; what was not synced may be lost."""
        self._journal.close()
        self._lock.release()

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
        segment = self._journal.segment(number)
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
                raise CorruptLog(segment.file.path, offset, error.why) from error
            if entry.index != low:
                raise CorruptLog(segment.file.path, offset, "another entry's record")
            entries.append(entry)
            low += 1
        return entries

    def _record_room(self, segment: Segment, index: int, start: int) -> int:
        """At most how long the record of the entry at C{index} is."""
        if index < self.last_index():
            number, following = self._place(index + 1)
            if number == segment.number:
                return following - start
        return segment.length - start

    def _place(self, index: int) -> tuple[int, int]:
        return from_place(self._places[index - self._mark_index - 1])

    def first_within(self, index: int, max_bytes: int) -> int:
        """
        The lowest index from which on the entries up to C{index} take at most
        C{max_bytes} of the segments; one above C{index} where the last takes more.
        """
        segments = self._journal.segments
        lengths = (segment.length for segment in segments)
        starts = list(accumulate(lengths, initial=0))
        number = segments[0].number

        def position(place: int) -> int:
            in_segment, offset = from_place(place)
            return starts[in_segment - number] + offset

        count = index - self._mark_index
        is_last = count == len(self._places)
        behind = self._journal.end if is_last else self._places[count]
        least = position(behind) - max_bytes
        dropped = bisect_left(self._places, least, hi=count, key=position)
        return self._mark_index + 1 + dropped

    @property
    def repaired(self) -> TornEnd | None:
        """What was wrong with its end when it was opened, if anything was."""
        return self._journal.repaired

    @property
    def size_bytes(self) -> int:
        """What the segments hold."""
        return self._journal.size_bytes

    # Writing.

    def append(self, entries: Sequence[Entry], hard_state: HardState | None) -> None:
        """
        Write entries and hard state, without syncing them.

        @raise DiskFull: there is no space; nothing was changed.
        @raise LogClosed: the log takes nothing any more.
        """
        self._journal.check()
        records: list[bytes] = []
        if hard_state is not None and hard_state != self.hard_state:
            records.append(_encode_hard_state(hard_state))
        if entries:
            first = entries[0].index
            kept_from = max(self._mark_index, self.hard_state.commit)
            assert kept_from < first <= self.last_index() + 1, (
                f"entry {first} appended to a log of {self.first_index()} to"
                f" {self.last_index()}, committed to {self.hard_state.commit}"
            )
            records.extend([encode_entry(entry) for entry in entries])
        if not records:
            return
        place = self._journal.write(records, urgent=not entries)
        if len(records) > len(entries):
            assert hard_state is not None
            self.hard_state = hard_state
            place += len(records[0])
        if entries:
            self._truncate(entries[0].index)
            for entry in entries:
                self._note(place, entry)
                assert entry.encoded is not None
                place += len(entry.encoded)
            self._trim_recent()

    def _note(self, place: int, entry: Entry) -> None:
        self._terms.append(entry.term)
        self._places.append(place)
        self._recent.append(entry)
        self._recent_size += entry.size

    def _trim_recent(self) -> None:
        drop = 0
        while self._recent_size > self._recent_bytes and drop < len(self._recent) - 1:
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

    def _head(self, segment: Segment) -> list[bytes]:
        """What C{segment} begins with, so that those before it can be removed."""
        segment.before = self.last_index()
        mark = _MARK.pack(segment.before, self.term(segment.before), False)
        return self._encode_head(mark, self.hard_state, self.identity)

    def _encode_head(
        self, mark: bytes, hard_state: HardState, identity: Identity | None
    ) -> list[bytes]:
        records = [encode_record(RecordType.MARK, mark), _encode_hard_state(hard_state)]
        if identity is not None:
            records.append(_encode_identity(identity))
        if self.peer_starts:
            records.append(_encode_peer_starts(self.peer_starts))
        return records

    def set_identity(self, identity: Identity) -> None:
        """Record whose log it is, durably."""
        self._journal.write([_encode_identity(identity)], urgent=True)
        self._journal.sync_now()
        self.identity = identity

    def note_peer_starts(self, peer_starts: Mapping[int, PeerStart]) -> Deferred[None]:
        """
        Record the newest starts that were met of other members; fires once they
        are durable, see L{sync}.

        @raise DiskFull: there is no space; nothing was changed.
        @raise LogClosed: the log takes nothing any more.
        """
        self._journal.write([_encode_peer_starts(peer_starts)], urgent=True)
        self.peer_starts = dict(peer_starts)
        return self.sync()

    def begin_install(self) -> None:
        """
        Record, durably, that a snapshot is about to take the store's place: from
        now on until L{reset} the store may be ahead of this log.
        """
        self._record_installing(installing=True)

    def end_install(self) -> None:
        """The same, of a snapshot that did not: the store is as it was."""
        self._record_installing(installing=False)

    def _record_installing(self, *, installing: bool) -> None:
        assert self.identity is not None, "a snapshot for a log without identity"
        if self.identity.installing != installing:
            self.set_identity(evolve(self.identity, installing=installing))

    def reset(self, index: int, term: int, hard_state: HardState) -> None:
        """
        Begin anew behind a snapshot at C{index}.  A crash before the next sync
        leaves what was there or what is now, and nothing between.

        @raise DiskFull: there is no space; nothing was changed.
        @raise LogClosed: the log takes nothing any more.
        """
        identity = self.identity and evolve(self.identity, installing=False)

        def head(segment: Segment) -> list[bytes]:
            segment.before = index
            return self._encode_head(
                _MARK.pack(index, term, True), hard_state, identity
            )

        segment = self._journal.begin(0, head)
        self.hard_state = hard_state
        self.identity = identity
        self._forget_all(index, term)
        self._journal.let_go(segment.number)

    def _forget_all(self, index: int, term: int) -> None:
        self._mark_index = index
        self._mark_term = term
        self._terms = array("Q")
        self._places = array("Q")
        self._recent = []
        self._recent_size = 0

    def compact(self, index: int) -> None:
        """
        Let go of the entries up to C{index}, which must be in the store: at once
        from memory, and by whole segments from the disk.
        """
        self._journal.check()
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
        segments = self._journal.segments
        needed = segments[0]
        for segment in segments[1:]:
            if segment.before > index:
                break
            needed = segment
        self._journal.let_go(needed.number)
        self._journal.make_reserve()

    # Durability and space.

    def sync(self) -> Deferred[None]:
        """
        Make durable what was appended; fires when it is.  Those who ask while
        a sync runs share the next.

        @raise SyncFailed: through the Deferred; then the log's life has ended.
        """
        return self._journal.sync()

    def pending_sync_seconds(self) -> float:
        """For how long the running sync has been waited for; else 0."""
        return self._journal.pending_sync_seconds()

    def space(self) -> Space | None:
        """What is left of the disk under it; None where that is not known."""
        return self._journal.filesystem.space_of(self.directory)

    def release_reserve(self) -> None:
        """Free the space kept for a full disk."""
        self._journal.release_reserve()


def _encode_hard_state(state: HardState) -> bytes:
    body = _HARD_STATE.pack(state.term, state.vote, state.commit)
    return encode_record(RecordType.HARD_STATE, body)


def _decode_identity(body: bytes, version: int) -> Identity:
    fixed, rest = body[: _IDENTITY.size], body[_IDENTITY.size :]
    cluster, node, instance, _, end = _IDENTITY.unpack(fixed)
    starts = Starts() if version == 1 else decode_starts(rest)
    if rest != (b"" if version == 1 else encode_starts(starts)):
        raise struct.error(f"an identity of {len(body)} bytes")
    return Identity(
        cluster,
        node,
        instance,
        removed=bool(end & _REMOVED),
        diverged=bool(end & _DIVERGED),
        starts=starts,
        installing=bool(end & _INSTALLING),
    )


def _encode_identity(identity: Identity) -> bytes:
    body = _IDENTITY.pack(
        identity.cluster_id,
        identity.node_id,
        identity.instance_id,
        FORMAT_VERSION,
        _REMOVED * identity.removed
        | _DIVERGED * identity.diverged
        | _INSTALLING * identity.installing,
    )
    body += encode_starts(identity.starts)
    return encode_record(RecordType.IDENTITY, body)


def _encode_peer_starts(peer_starts: Mapping[int, PeerStart]) -> bytes:
    return encode_record(RecordType.PEER_STARTS, encode_peer_starts(peer_starts))
