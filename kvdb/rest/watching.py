"""
Changes of keys as Server-Sent Events (the HTML standard, section 9.2).

Each event's C{id} is its revision, so that a reader who comes again with the
last it saw (C{Last-Event-ID}) misses nothing and sees nothing twice.

Rules: an event is written whole; what is written once is shared by all who
watch; the last event of a stream that the server ends says why.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.interfaces import IReactorTime

from kvdb.interfaces import Change, Database, DatabaseError, Selection, Watch
from kvdb.rest.call import Call
from kvdb.rest.fields import text_field
from kvdb.rest.parsing import (
    MAX_DIGITS,
    check_query,
    flag_of,
    number_of,
    parameter_of,
)
from kvdb.rest.problems import Problem, problem_of
from kvdb.rest.streaming import Sink, Source, Stream

MAX_REVISION: Final = 2**63 - 1

_HEADERS: Final = {
    b"content-type": b"text/event-stream",
    b"cache-control": b"no-store",
    # nginx, which else gathers a stream before it passes it on.
    b"x-accel-buffering": b"no",
}


def encode_event(name: str, revision: int | None, data: dict[str, Any]) -> bytes:
    """An event; JSON holds no line break."""
    place = "" if revision is None else f"id: {revision}\n"
    text = json.dumps(data, ensure_ascii=False)
    return f"event: {name}\n{place}data: {text}\n\n".encode()


def encode_change(change: Change, previous: bool = False) -> bytes:
    """
    A change, as an event.

    @param previous: with the value that the key had before.
    """
    record = change.record
    data: dict[str, Any] = text_field("key", change.key)
    if record is not None:
        data |= text_field("value", record.value)
    data["revision"] = change.revision
    if record is not None:
        data["create_revision"] = record.create_revision
        data["version"] = record.version
    data["previous_revision"] = change.previous
    if previous:
        replaced = change.replaced
        data |= (
            {"previous_value": None}
            if replaced is None
            else text_field("previous_value", replaced.value)
        )
    data["time"] = change.time_ms / 1000
    name = "delete" if record is None else "put"
    return encode_event(name, change.revision, data)


@define(slots=True, eq=False)
class Watching:
    """C{GET /_/watch}."""

    database: Database
    clock: IReactorTime
    max_key_bytes: int
    _last: dict[bool, tuple[Change, bytes]] = field(factory=dict, init=False)

    @inlineCallbacks
    def get(self, call: Call) -> Generator[Deferred[None], None, Stream]:
        """The stream, or why there is none."""
        check_query(call.args, ("key", "prefix", "since", "previous"))
        key = parameter_of(call.args, "key", self.max_key_bytes)
        prefix = parameter_of(call.args, "prefix", self.max_key_bytes)
        if key is not None and prefix is not None:
            raise Problem(400, "key and prefix are given together")
        previous = flag_of(call.args, "previous")
        selection = Selection(key, prefix or b"", previous)
        since = _since_of(call)
        yield self.database.read_barrier()
        reader = Reader(self, previous)
        try:
            reader.watch = self.database.watch(selection, since, reader)
        except ValueError as error:
            raise Problem(400, str(error)) from error
        return Stream(_HEADERS, self.clock, reader.begin, reader.watch.cancel)

    def encoded(self, change: Change, previous: bool) -> bytes:
        """C{change} as an event; one that many watch is encoded once, and once more
        for those who ask for the value before."""
        last = self._last.get(previous)
        if last is None or last[0] is not change:
            last = self._last[previous] = change, encode_change(change, previous)
        return last[1]


def _since_of(call: Call) -> int | None:
    """Behind which revision to begin.  Who connects again says so in a header,
    and repeats the query that it began with."""
    last = call.header("last-event-id")
    if last is None or not last.strip():
        return number_of(call.args, "since", 0, MAX_REVISION)
    text = last.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise Problem(400, "Last-Event-ID is a revision, as the ids of events are")
    return int(text)


@define(slots=True, eq=False)
class Reader:
    """
    One who watches: a L{WatchListener<kvdb.interfaces.WatchListener>}, and the
    L{Source} of its stream.
    """

    _watching: Watching
    _previous: bool
    watch: Watch = field(init=False)
    _sink: Sink | None = None

    def begin(self, sink: Sink) -> Source:
        """The stream is open: tell from where."""
        self._sink = sink
        revision = self.watch.position
        sink.write(encode_event("ready", revision, {"revision": revision}))
        return self

    # What is told.

    def changed(self, change: Change) -> None:
        """See L{WatchListener<kvdb.interfaces.WatchListener>}, as for the two
        below."""
        if self._sink is not None:
            self._sink.write(self._watching.encoded(change, self._previous))

    def progress(self, revision: int) -> None:
        """See there."""
        if self._sink is not None:
            self._sink.write(encode_event("progress", revision, {"revision": revision}))

    def ended(self, error: DatabaseError) -> None:
        """See there."""
        if self._sink is not None:
            problem = json.loads(problem_of(error).answer().body)
            self._sink.write(encode_event("end", None, problem))
            self._sink.finish()

    # How the reader fares.

    def pause(self) -> None:
        """See L{Source}, as for the two below."""
        self.watch.pause()

    def resume(self) -> None:
        """See there."""
        self.watch.resume()

    def stop(self) -> None:
        """See there."""
        self.watch.cancel()
