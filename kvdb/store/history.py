"""
What keys were before, and which changes made them so.

=====  =======================================  ==================================
``v``  key, then mod_revision counted down      a record that was replaced, or
                                                nothing where a deletion stands
``h``  revision of the last of them             the events of an entry: what changed
                                                which key
``b``  revision                                 bytes of history written up to it, each
                                                time that L{MARK_BYTES} more were
=====  =======================================  ==================================

Compaction only moves C{compacted}; the space is given back later, a slice at a
time.

Rules: what is at or below C{compacted} is not read, swept or not; the newest
revision is never compacted, for whoever watches needs a place to go on from; how
many bytes there are is known without reading them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import define, field

from kvdb.store.batch import WriteBatch
from kvdb.store.commands import Record
from kvdb.store.encoding import (
    EVENT,
    Event,
    Operation,
    decode_events,
    decode_record,
    encode_event,
)

_U64: Final = struct.Struct(">Q")
_TOP: Final = 2**64 - 1
_PUT: Final = int(Operation.PUT)

MARK_BYTES: Final = 1 << 20
"""Of history between two of its marks: it is cut at marks where it has too many bytes.
The same on every member: changing it is a new format."""


class Compacted(Exception):
    """The history asked for is no longer kept."""


def _prefix(key: bytes) -> bytes:
    # Escaped and ended, so that keys keep their order and none is the
    # beginning of another.
    if b"\0" in key:
        key = key.replace(b"\0", b"\0\xff")
    return b"v" + key + b"\0\x01"


def _history_key(key: bytes, revision: int) -> bytes:
    return _prefix(key) + _U64.pack(_TOP - revision)


@define(slots=True, eq=False)
class History:
    """
    @ivar compacted: history at and below this revision is forgotten.
    @ivar swept: up to which its space was given back.
    @ivar written: bytes of it that were written, ever.
    """

    compacted: int = 0
    swept: int = 0
    written: int = 0
    _events: list[bytes] = field(factory=list)
    _records_bytes: int = 0

    # What the store notes as it applies an entry.

    def note_put(
        self,
        batch: WriteBatch,
        key: bytes,
        previous: int,
        old: bytes | None,
        time_ms: int,
    ) -> None:
        """
        C{key} has another record.

        @param previous: its mod_revision before; 0 if it was absent.
        @param old: the record that was replaced; None if it was absent.
        """
        if old is not None:
            batch.changes[_history_key(key, previous)] = old
            self._records_bytes += len(key) + len(old)
        self._events += (EVENT.pack(len(key), _PUT, previous, time_ms), key)

    def note_delete(
        self,
        batch: WriteBatch,
        key: bytes,
        revision: int,
        previous: int,
        old: bytes,
        time_ms: int,
    ) -> None:
        """C{key} was deleted at C{revision}; else as L{note_put}."""
        batch.changes[_history_key(key, previous)] = old
        batch.changes[_history_key(key, revision)] = b""
        self._records_bytes += 2 * len(key) + len(old)
        event = Event(Operation.DELETE, previous, time_ms, key)
        self._events.append(encode_event(event))

    def end_entry(self, batch: WriteBatch, revision: int) -> None:
        """The entry is applied; its last change has C{revision}."""
        if self._events:
            # An entry's together: a record of its own for each is dear.
            events = b"".join(self._events)
            batch.changes[b"h" + _U64.pack(revision)] = events
            before = self.written
            self.written += self._records_bytes + len(events)
            if before // MARK_BYTES != self.written // MARK_BYTES:
                mark = _U64.pack(self.written)
                batch.changes[b"b" + _U64.pack(revision)] = mark
            self._events.clear()
            self._records_bytes = 0

    # Reading.

    def record_at(self, batch: WriteBatch, key: bytes, revision: int) -> Record | None:
        """The record that C{key} had at C{revision}, of those that were replaced."""
        prefix = _prefix(key)
        start = prefix + _U64.pack(_TOP - revision)
        end = prefix + _U64.pack(_TOP) + b"\0"
        for _, past in batch.engine.scan(start, end):
            return decode_record(past) if past else None
        return None

    def events(self, batch: WriteBatch, after: int) -> Iterator[tuple[int, Event]]:
        """
        The changes at revisions above C{after}, in order.

        @raise Compacted: some of them are forgotten.
        """
        if after < self.compacted:
            raise Compacted(
                f"events after revision {after} are forgotten: history begins at"
                f" {self.compacted}"
            )
        for last, events in self._groups(batch, after, _TOP):
            first = last - len(events) + 1
            for revision, event in enumerate(events, first):
                if revision > after:
                    yield revision, event

    def _groups(
        self, batch: WriteBatch, after: int, to: int
    ) -> Iterator[tuple[int, list[Event]]]:
        """The events of each entry whose last has a revision in C{after < r <= to},
        and that revision."""
        low, high = b"h" + _U64.pack(after + 1), b"h" + _U64.pack(to) + b"\0"
        for key, data in batch.engine.scan(low, high):
            yield _U64.unpack(key[1:])[0], decode_events(data)

    def replaced(self, batch: WriteBatch, event: Event) -> Record | None:
        """
        The record that the key of an event had before it; None if it was absent.
        It is there for as long as the event is: they are swept together.
        """
        if not event.previous:
            return None
        data = batch.engine.get(_history_key(event.key, event.previous))
        assert data, f"the record of revision {event.previous} was swept too early"
        return decode_record(data)

    # Forgetting.

    def size(self, batch: WriteBatch) -> int:
        """About how many bytes are not forgotten; what was written before they were
        counted is left out."""
        for _, written in self._marks(batch):
            return self.written - written
        return 0

    def within(self, batch: WriteBatch, max_bytes: int) -> int:
        """The lowest mark behind which there are at most C{max_bytes}, or the last."""
        last = self.compacted
        for revision, written in self._marks(batch):
            last = revision
            if self.written - written <= max_bytes:
                break
        return last

    def _marks(self, batch: WriteBatch) -> Iterator[tuple[int, int]]:
        """Revisions above C{compacted}, and the bytes written up to each."""
        low, high = b"b" + _U64.pack(self.compacted + 1), b"b" + _U64.pack(_TOP)
        for key, data in batch.engine.scan(low, high):
            yield _U64.unpack(key[1:])[0], _U64.unpack(data)[0]

    def compact(self, revision: int, newest: int) -> int:
        """Forget what is at and below C{revision}; what is forgotten now."""
        self.compacted = max(self.compacted, min(revision, newest))
        return self.compacted

    def sweep(self, batch: WriteBatch, max_events: int) -> None:
        """Have the batch give back the space of about C{max_events} forgotten
        events, an entry's together."""
        swept = 0
        before = self.swept
        for last, events in self._groups(batch, self.swept, self.compacted):
            self._sweep_entry(batch, last, events)
            swept += len(events)
            if swept >= max_events:
                break
        else:
            self.swept = self.compacted
        low, high = b"b" + _U64.pack(before + 1), b"b" + _U64.pack(self.swept + 1)
        marks = batch.engine.scan(low, high)
        batch.changes.update((key, None) for key, _ in marks)

    def _sweep_entry(
        self, batch: WriteBatch, last: int, events: Sequence[Event]
    ) -> None:
        """Delete events, the last of which has revision C{last}, and with them
        the records that only they lead to."""
        changes = batch.changes
        changes[b"h" + _U64.pack(last)] = None
        for revision, event in enumerate(events, last - len(events) + 1):
            if event.previous:
                changes[_history_key(event.key, event.previous)] = None
            if event.operation is Operation.DELETE:
                changes[_history_key(event.key, revision)] = None
        self.swept = last
