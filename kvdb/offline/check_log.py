"""
What is wrong with the log of a data directory.

Each segment is read by itself, so that all that is bad is found, and not the first
alone; whether what is bad was durable once, or is what a crash leaves, is decided as
at a node's start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, field

from kvdb.offline.files import Untouched
from kvdb.offline.findings import LATER, START, Findings
from kvdb.raft.confchange import as_v2, decode_conf_change
from kvdb.raft.messages import Entry, EntryType
from kvdb.storage.log import Log
from kvdb.storage.records import BadRecord
from kvdb.storage.segment import CorruptLog, TornEnd, decode_batch, find_batch
from kvdb.storage.unsynced import LOST, MARK, REMEDY, Unsynced
from kvdb.store.encoding import (
    UnknownCommand,
    decode_command,
    decode_member_change,
    split_commands,
)

SYNC: Final = "start the node before the machine stops; it syncs all of it"

READ_BYTES: Final = 1 << 20
"""Of entries, read at once."""

TORN: Final = (
    "nothing, if there was a crash: its next start erases it; else check the disk"
)

Read = Callable[[int], None]
"""Told how many bytes more were read."""


@define(slots=True, eq=False)
class LogCheck:
    """
    @ivar segments: how many were read; C{size} bytes are in them.
    @ivar entries: how many were read.
    """

    directory: str
    boot_id: str
    findings: Findings
    read: Read
    segments: int = 0
    size: int = 0
    entries: int = 0
    _bad: list[tuple[str, BadRecord]] = field(factory=list)

    def check_segments(self) -> None:
        """Find bad records; whether they are errors is said later."""
        filesystem = Untouched()
        for name in filesystem.list(self.directory):
            path = f"{self.directory}/{name}"
            if name.startswith("log-") and not name.endswith(".new"):
                file = filesystem.open(path)
                buffer = file.read(0, file.size())
                file.close()
                self.segments += 1
                self._check_segment(path, buffer)
                self.read(len(buffer))
            elif name not in ("lock", "reserve", MARK) and not name.endswith(".new"):
                self.findings.warning(
                    path, None, "this file is none of kvdb's", "move it elsewhere"
                )

    def _check_segment(self, path: str, buffer: bytes) -> None:
        offset = 0
        end = len(buffer.rstrip(b"\0"))
        while offset < end:
            try:
                batch = decode_batch(buffer, offset)
            except BadRecord as error:
                self._bad.append((path, error))
                found = find_batch(buffer, offset + 1)
                if found is None:
                    break
                batch = found
            self.size += batch.end - offset
            offset = batch.end

    def check_mark(self) -> None:
        """Whether there may be less here than was acknowledged."""
        mark = Unsynced(Untouched(), self.directory, self.boot_id)
        if mark.is_of_before():
            self.findings.error(mark.path, None, LOST, REMEDY)
        elif mark.is_set():
            what = "what was acknowledged last is in this machine's memory alone"
            self.findings.warning(mark.path, None, what, SYNC)

    def note_torn(self, torn: TornEnd) -> None:
        """The log was read, but for its end."""
        what = f"the end of the log is not whole ({torn.why})"
        self.findings.warning(torn.path, torn.offset, what, TORN)

    def note_corrupt(self, error: CorruptLog) -> None:
        """It cannot be opened, and so all that is bad is an error."""
        self.findings.error(error.path, error.offset, error.why)
        for path, bad in self._bad:
            self.findings.error(path, bad.offset, bad.why)

    def check_entries(self, log: Log) -> None:
        """What is in a log that can be opened."""
        index, last = log.first_index(), log.last_index()
        term = log.term(index - 1)
        while index <= last:
            try:
                entries = log.entries(index, last + 1, READ_BYTES)
            except CorruptLog as error:
                self.findings.error(error.path, error.offset, error.why)
                return
            for entry in entries:
                self._check_entry(entry, term)
                term = entry.term
            index += len(entries)
        if log.identity is None:
            what = "the log does not say whose it is"
            self.findings.warning(self.directory, None, what, START)
        state = log.hard_state
        if state.term < term:
            self._error(f"the hard state has term {state.term}, and entries {term}")
        if state.commit > last:
            self._error(f"entry {state.commit} was committed, and the last is {last}")

    def _check_entry(self, entry: Entry, term: int) -> None:
        self.entries += 1
        if entry.term < term:
            self._error(f"entry {entry.index} is of term {entry.term}, behind {term}")
        try:
            read_entry(entry)
        except (UnknownCommand, ValueError) as error:
            self.findings.error(
                self.directory, None, f"entry {entry.index}: {error}", LATER
            )
        self.read(entry.size)

    def _error(self, what: str) -> None:
        self.findings.error(self.directory, None, what)


def read_entry(entry: Entry) -> None:
    """
    @raise UnknownCommand, ValueError: this release cannot carry it out.
    """
    if entry.type is not EntryType.NORMAL:
        decode_member_change(as_v2(decode_conf_change(entry)).context)
        return
    for command in split_commands(entry.data):
        decode_command(command)
