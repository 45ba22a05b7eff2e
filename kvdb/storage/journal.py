"""
Batches of records, kept over segment files: what makes the log durable.

The journal does not know what the records say.  It writes batches into the
last segment, begins another in time, makes them durable, puts its end in order
after a crash, and removes segments that nobody needs.

Segments follow each other without waiting for the disk: one may be begun, and
written to, while those before it are being synced.  A crash may then lose the
end of one and keep the beginning of the next.  What tells that from corruption
are the claims in the batches, see docs/log-format.md.

Rules:

* nothing here waits for the disk once the log is open, but C{sync_now};
* a failed sync ends the journal's life, and with it all syncs under way: the
  kernel may have dropped what it could not write, and says so once;
* a full disk refuses a whole batch, and changes nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, FirstError, fail, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from kvdb.storage.filesystem import DiskFull, File, FileSystem, SyncFailed
from kvdb.storage.records import RecordType, encode_record
from kvdb.storage.segment import (
    BATCH_BYTES,
    Batch,
    CorruptLog,
    Record,
    Segment,
    TornEnd,
    from_place,
)

STATE_ROOM: Final = 4096
"""Bytes at a segment's end that only urgent batches may use, so that a member
can still vote and stop when there is no space for another segment."""

HEAD_ROOM: Final = 4096
"""Bytes that are enough for the first batch of a segment."""

SMALL_SEGMENT_BYTES: Final = 64 << 10
"""What a segment for urgent batches takes on a full disk."""

RESERVE_BYTES: Final = 4 << 20
"""The file that is removed when the disk is full."""

_SEGMENT: Final = struct.Struct(">QQ")
_SPARE: Final = "spare.new"


Head = Callable[[Segment], list[bytes]]
"""The records that a new segment begins with, so that those before it can be
removed."""


def start_again(error: SyncFailed) -> SyncFailed:
    """What a member is told whose sync failed, where it waits for each sync."""
    return SyncFailed(
        f"{error}, then start this member again: nothing that it acknowledged rests on"
        " what was not synced"
    )


class LogClosed(Exception):
    """The log takes nothing any more: it was closed, or a sync has failed."""


@define(slots=True, eq=False)
class Journal:
    """
    @ivar durable: up to which place everything is synced.
    @ivar broken: what ended its life, if anything did.
    @ivar repaired: where and why its end was found torn when it was opened.
    @ivar when_sync_fails: does what must be done first then, and has what to tell.
    """

    filesystem: FileSystem
    directory: str
    clock: IReactorTime
    segment_bytes: int
    segments: list[Segment] = field(factory=list)
    durable: int = 0
    broken: BaseException | None = None
    repaired: TornEnd | None = None
    when_sync_fails: Callable[[SyncFailed], SyncFailed] = start_again
    _head: Head = lambda _: []
    _named: int = 0
    _spare: File | None = None
    _spare_for: int = 0
    _needed_from: int = 0
    _needless_once: int = 0
    _waiting: list[Deferred[None]] = field(factory=list)
    _syncing: list[Deferred[None]] = field(factory=list)
    _sync_started: float = 0.0

    # Opening and closing.

    def recover(self, head: Head) -> Iterator[tuple[Segment, Record]]:
        """
        What is there, in order.  When all was taken, the end is in order, and
        there is a segment to write to.

        @param head: makes the head of each segment begun from now on.
        @raise CorruptLog: something is bad that was durable once.
        """
        self._head = head
        self._find_segments()
        claimed = 0
        for position, segment in enumerate(self.segments):
            for batch in segment.batches():
                if not batch.offset and not self._continues(position, batch):
                    break
                segment.length = batch.end
                claimed = max(claimed, batch.durable)
                for record in batch.records:
                    if record.kind != RecordType.SEGMENT:
                        yield segment, record
            if self._is_bad(position):
                break
        if not self.segments:
            self.begin(0)
        # A process that was killed may have left what no sync has seen; and
        # what was erased and removed must not come back behind later batches.
        # Where a sync has failed the kernel may take for written what is not:
        # so what no batch says to be durable is written again.
        number, start = from_place(claimed)
        for segment in self.segments:
            if segment.number >= number:
                segment.write_again(start if segment.number == number else 0)
        self.sync_now()

    def _find_segments(self) -> None:
        for name in self.filesystem.list(self.directory):
            path = f"{self.directory}/{name}"
            if name.endswith(".new"):
                self.filesystem.remove(path)
            elif name.startswith("log-"):
                number = int(name[4:], 16)
                if self.segments and number != self.segments[-1].number + 1:
                    missing = self._path(self.segments[-1].number + 1)
                    raise CorruptLog(missing, 0, "the file is missing")
                file = self.filesystem.open(path)
                self.segments.append(Segment(number, file, file.size()))

    def _continues(self, position: int, batch: Batch) -> bool:
        """Whether a segment's first batch shows that the one before is whole."""
        segment = self.segments[position]
        number, before = 0, 0
        if batch.records and batch.records[0].kind == RecordType.SEGMENT:
            try:
                number, before = _SEGMENT.unpack(batch.records[0].body)
            except struct.error as error:
                raise CorruptLog(
                    segment.file.path, 0, "a record of another length"
                ) from error
        if number != segment.number:
            raise CorruptLog(segment.file.path, 0, "another segment's content")
        return position == 0 or before == self.segments[position - 1].length

    def _is_bad(self, position: int) -> bool:
        """
        Whether the log ends in the segment at C{position}, and not as it
        should; then it ends there from now on.

        @raise CorruptLog: what is missing was durable.
        """
        segment = self.segments[position]
        bad = segment.what_is_bad()
        if bad is None and segment.length:
            return False
        path, place = segment.file.path, segment.end
        offset, why = (bad.offset, bad.why) if bad else (0, "its beginning is missing")
        if position and not segment.length:
            before = self.segments[position - 1]
            place = before.end
            if _begins_well(segment):
                path, offset, why = (
                    before.file.path,
                    before.length,
                    "its end is missing",
                )
        # The first there is was needed from the moment that another was removed.
        lost = position == 0 and not segment.length and segment.number > 1
        if lost or self._claimed(place, position):
            raise CorruptLog(path, offset, why)
        self.repaired = TornEnd(path, offset, why)
        self._end_at(position)
        return True

    def _claimed(self, place: int, position: int) -> bool:
        return any(
            segment.claims(place, segment.length)
            for segment in self.segments[position:]
        )

    def _end_at(self, position: int) -> None:
        keep = position + (self.segments[position].length > 0)
        for segment in reversed(self.segments[keep:]):
            segment.file.close()
            self.filesystem.remove(segment.file.path)
        del self.segments[keep:]
        if self.segments:
            self.segments[-1].erase()

    def close(self) -> None:
        """Be done; what was not synced may be lost."""
        if self.broken is None:
            self.broken = LogClosed("the log is closed")
        for segment in self.segments:
            segment.file.close()
        if self._spare is not None:
            self._spare.close()
        self.segments = []
        self._spare = None

    def check(self) -> None:
        """@raise LogClosed: it takes nothing any more."""
        if self.broken is not None:
            raise LogClosed(str(self.broken)) from self.broken

    # Writing.

    @property
    def end(self) -> int:
        """The place where the next batch goes, if it fits."""
        return self.segments[-1].end

    @property
    def size_bytes(self) -> int:
        """What the segments hold."""
        return sum(segment.length for segment in self.segments)

    def segment(self, number: int) -> Segment:
        """The segment of that number."""
        return self.segments[number - self.segments[0].number]

    def write(self, records: Sequence[bytes], *, urgent: bool = False) -> int:
        """
        Write a batch, without syncing it.

        @param urgent: it is small and must be written even if the disk is full.
        @return: the place of its first record.
        @raise DiskFull: there is no space; nothing was changed.
        @raise LogClosed: the journal takes nothing any more.
        """
        self.check()
        length = BATCH_BYTES + sum(map(len, records))
        segment = self.segments[-1]
        room = segment.size - segment.length - (0 if urgent else STATE_ROOM)
        if length > room:
            segment = self.begin(length, urgent=urgent)
        try:
            place = segment.write(self.durable, records)
        except BaseException as error:
            # Part of it may be there, and could be taken for what is written
            # in its place.
            self.broken = error
            raise
        if 2 * segment.length > segment.size:
            self._prepare_spare()
        return place

    def begin(
        self,
        room: int,
        head: Head | None = None,
        *,
        urgent: bool = False,
    ) -> Segment:
        """
        Begin another segment.

        @param room: bytes that must fit into it behind its head.
        @param head: makes its head, if not as for all.
        @raise DiskFull: there is no space; nothing was changed but for the
            reserve, which was released.
        """
        self.check()
        try:
            segment = self._make_segment(room, head or self._head, urgent=urgent)
        except DiskFull:
            raise
        except BaseException as error:
            self.broken = error
            raise
        self.segments.append(segment)
        return segment

    def _make_segment(self, room: int, head: Head, *, urgent: bool) -> Segment:
        """A segment with its head; it bears its name only when written."""
        before = self.segments[-1] if self.segments else None
        number = before.number + 1 if before else 1
        path = self._path(number)
        room += HEAD_ROOM + STATE_ROOM
        file = self._take_spare(room) or self._allocate(path, room, urgent=urgent)
        segment = Segment(number, file, file.size())
        record = _SEGMENT.pack(number, before.length if before else 0)
        try:
            segment.write(
                self.durable,
                [encode_record(RecordType.SEGMENT, record), *head(segment)],
            )
            self.filesystem.rename(file.path, path)
        except BaseException:
            self._discard(file)
            raise
        file.path = path
        return segment

    def _allocate(self, path: str, room: int, *, urgent: bool) -> File:
        try:
            return self._make_file(path, max(room, self.segment_bytes))
        except DiskFull:
            self.release_reserve()
            if not urgent:
                raise
        return self._make_file(path, max(room, SMALL_SEGMENT_BYTES))

    def _make_file(self, path: str, size: int) -> File:
        file = self.filesystem.open(path + ".new")
        try:
            file.allocate(size)
        except BaseException:
            self._discard(file)
            raise
        return file

    def _discard(self, file: File) -> None:
        file.close()
        self.filesystem.remove(file.path)

    # The file of the next segment is made ahead of need, beside the reactor.

    def _prepare_spare(self) -> None:
        after = self.segments[-1].number
        if self._spare is not None or self._spare_for == after:
            return
        self._spare_for = after
        try:
            file = self.filesystem.open(f"{self.directory}/{_SPARE}")
        except DiskFull:
            return  # the segment in use may last until there is space again
        made = file.allocate_later(self.segment_bytes).addCallbacks(
            lambda _: self._prepared(file),
            lambda failure: self._not_prepared(file, failure),
        )
        made.addErrback(self._fail)

    def _prepared(self, file: File) -> None:
        if self.broken is None:
            self._spare = file
        else:
            file.close()

    def _not_prepared(self, file: File, failure: Failure) -> None:
        if not failure.check(DiskFull):
            self._fail(failure)
        if self.broken is None:
            self._discard(file)
        else:
            file.close()

    def _take_spare(self, room: int) -> File | None:
        spare = self._spare
        if spare is None or spare.size() < room:
            return None
        self._spare = None
        return spare

    # Syncing.

    def sync(self) -> Deferred[None]:
        """
        Make durable what was written; fires when it is.  Those who ask while a
        sync runs share the next.

        @raise SyncFailed: through the Deferred; then the journal's life has
            ended.
        """
        if self.broken is not None:
            return fail(self.broken)
        if self.durable == self.end and not self._syncing:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if not self._syncing:
            self._start_sync()
        return done

    def _start_sync(self) -> None:
        self._syncing, self._waiting = self._waiting, []
        self._sync_started = self.clock.seconds()
        last = self.segments[-1]
        end = last.end
        parts = [segment.file.sync_later() for segment in self._unsynced()]
        if self._named < last.number:
            parts.append(self.filesystem.sync_directory_later(self.directory))
        done: Deferred[Any]
        # None where a sync in between has covered all.
        done = parts[0] if len(parts) == 1 else gatherResults(parts, consumeErrors=True)
        done.addCallback(lambda _: self._synced(end, last.number))
        done.addErrback(self._fail)

    def _unsynced(self) -> list[Segment]:
        return [segment for segment in self.segments if segment.end > self.durable]

    def _synced(self, end: int, number: int) -> None:
        # Closed; or another sync has failed, and the kernel says so once.
        if self.broken is not None:
            raise self.broken
        self._note_durable(end, number)
        done, self._syncing = self._syncing, []
        if self._waiting:
            self._start_sync()
        for waiting in done:
            waiting.callback(None)

    def _note_durable(self, end: int, number: int) -> None:
        self.durable = max(self.durable, end)
        self._named = max(self._named, number)
        self._remove_needless()

    def _fail(self, failure: Failure) -> None:
        """The journal's life ends; those who wait hear why."""
        if isinstance(failure.value, FirstError):
            failure = failure.value.subFailure
        assert failure.value is not None, "a failure of nothing"
        failure = Failure(self._broken_by(failure.value))
        waiting = self._syncing + self._waiting
        self._syncing, self._waiting = [], []
        for one in waiting:
            one.errback(failure)

    def sync_now(self) -> None:
        """
        Make durable what was written, before returning.

        @raise SyncFailed: it could not be; the journal's life has ended.
        """
        end, number = self.end, self.segments[-1].number
        try:
            for segment in self._unsynced():
                segment.file.sync()
            if self._named < number:
                self.filesystem.sync_directory(self.directory)
        except SyncFailed as error:
            raise self._broken_by(error) from error
        except BaseException as error:
            self.broken = error
            raise
        self._note_durable(end, number)

    def _broken_by(self, error: BaseException) -> BaseException:
        """The journal's life ends by this; what it is told as."""
        if self.broken is None and isinstance(error, SyncFailed):
            # Before anybody hears of it: the process may be killed at any time.
            error = self.when_sync_fails(error)
        self.broken = error
        return error

    def pending_sync_seconds(self) -> float:
        """For how long the running sync has been waited for; else 0."""
        if not self._syncing:
            return 0.0
        return self.clock.seconds() - self._sync_started

    # Space.

    def let_go(self, number: int) -> None:
        """Segments before C{number} are needless once all written is durable."""
        self._needed_from = max(self._needed_from, number)
        self._needless_once = self.end
        self._remove_needless()

    def _remove_needless(self) -> None:
        # Oldest first: a crash between leaves a log that begins later.  Without
        # a sync: what comes back is removed again.
        if self.durable < self._needless_once:
            return
        while self.segments[0].number < self._needed_from:
            segment = self.segments.pop(0)
            segment.file.close()
            self.filesystem.remove(segment.file.path)

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

    def _path(self, number: int) -> str:
        return f"{self.directory}/log-{number:016x}"


def _begins_well(segment: Segment) -> bool:
    """Whether its first batch, which was not taken, is good."""
    return next(segment.batches(), None) is not None
