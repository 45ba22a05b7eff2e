"""A log on a simulated disk, in virtual time; what real files need in tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvdb.raft.messages import Entry, HardState
from kvdb.simulation.filesystem import SimulatedFileSystem
from kvdb.storage.log import Log

DIRECTORY: Final = "log"
ENOUGH: Final = 1 << 60


def make_entries(low: int, high: int, term: int = 1, size: int = 10) -> list[Entry]:
    """Entries whose data tells which they are."""
    return [
        Entry(term, index, data=(b"%d/%d " % (term, index)).ljust(size, b"."))
        for index in range(low, high)
    ]


def content(log: Log) -> list[Entry]:
    """All that the log holds."""
    first, behind = log.first_index(), log.last_index() + 1
    found = log.entries(first, behind, ENOUGH) if first < behind else ()
    for entry in found:
        assert log.term(entry.index) == entry.term
    return list(found)


class AtOnce:
    """Syncs in the caller's own thread."""

    def run(self, work: Callable[[], None]) -> Deferred[None]:
        return execute(work)


class LogTestCase(SynchronousTestCase):
    """A disk, a clock, and logs that are opened and lost."""

    segment_bytes = 4 << 10
    recent_bytes = 1 << 20

    def setUp(self) -> None:
        self.make_disk(0)

    def make_disk(self, seed: int) -> None:
        self.clock = Clock()
        self.disk = SimulatedFileSystem(self.clock, Random(seed))

    def open(self) -> Log:
        return Log.open(
            self.disk, DIRECTORY, self.clock, self.segment_bytes, self.recent_bytes
        )

    def reopen(self, log: Log) -> Log:
        log.close()
        return self.open()

    def restart(self) -> Log:
        """Lose power and come back."""
        self.disk.crash()
        return self.open()

    def sync(self, log: Log) -> None:
        done = log.sync()
        self.clock.advance(self.disk.sync_delay)
        self.successResultOf(done)

    def write(
        self, log: Log, entries: Sequence[Entry], state: HardState | None = None
    ) -> None:
        """Append and sync."""
        log.append(entries, state)
        self.sync(log)

    def start_sync(self, log: Log) -> Deferred[None]:
        done = log.sync()
        self.assertNoResult(done)
        return done

    def segments(self) -> list[str]:
        return [name for name in self.disk.list(DIRECTORY) if name.startswith("log-")]
