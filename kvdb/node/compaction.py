"""
Forgetting in time: the log behind the store, and history behind its bound.

The log may be cut where the store is durable without it.  The engine is asked
to flush and polled until it has; then the log is cut up to the index that was
applied when it was asked, less a tail for followers a little behind.  Nobody
waits, and no copy of the data is made, however large it is.

History is cut by a command that the leader proposes, so that every member
forgets the same; the bytes are given back in slices.
"""

from __future__ import annotations

from typing import Final

from attrs import define
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvdb.node.pump import Pump
from kvdb.store.commands import Compact, Outcome

log = Logger(namespace="kvdb.node")

SLICE_EVENTS: Final = 500
"""Events of history deleted at each tick, where there are any to delete."""

SWEEP_AHEAD: Final = 4
"""Under load history is swept as it grows, and faster by one part in this many."""

HISTORY_SLACK: Final = 10
"""History is cut when it is over its bound by one part in this many."""


@define(slots=True, eq=False)
class Compaction:
    """Implements L{Watcher<kvdb.node.pump.Watcher>}."""

    pump: Pump
    _entries: int = 0
    _bytes_at_cut: int = 0
    _flushing: bool = False
    _compacting: bool = False

    def applied(self, entries: int, commands: int) -> None:
        """See L{Watcher<kvdb.node.pump.Watcher>}, as for the two below."""
        self._entries += entries
        settings = self.pump.settings
        grown = self.pump.replica.log.size_bytes - self._bytes_at_cut
        if not self._flushing and (
            self._entries >= settings.snapshot_count or grown >= settings.snapshot_bytes
        ):
            self._entries = 0
            self._bytes_at_cut = self.pump.replica.log.size_bytes
            self._flushing = True
            self.pump.replica.store.begin_flush()
        if commands:
            self.pump.replica.store.compact_slice(commands + commands // SWEEP_AHEAD)

    def leader_changed(self) -> None:
        """Nothing follows from that here."""

    def ticked(self) -> None:
        """Look whether the flush is done; cut a slice of history."""
        if self._flushing:
            self._cut_log()
        store = self.pump.replica.store
        store.compact_slice(SLICE_EVENTS)
        if self.pump.leading and not self._compacting:
            target = self._history_target()
            if target > store.compacted_revision:
                self._compacting = True
                self.pump.write(Compact(target)).addBoth(self._compacted)

    def _history_target(self) -> int:
        """The revision to which history is to be cut; 0 if it is within its bounds."""
        store, settings = self.pump.replica.store, self.pump.settings
        bound, max_bytes = settings.history_revisions, settings.history_bytes
        target = 0
        kept = store.revision - store.compacted_revision
        if kept > bound + bound // HISTORY_SLACK:
            target = store.revision - bound
        if store.history_bytes() > max_bytes + max_bytes // HISTORY_SLACK:
            target = max(target, store.history_within(max_bytes))
        return target

    def _cut_log(self) -> None:
        replica = self.pump.replica
        durable = replica.store.poll_flush()
        if replica.store.flushing:
            return
        self._flushing = False
        # A log that ends before it waits for space, to begin anew behind a snapshot.
        if replica.log.first_index() <= durable <= replica.log.last_index():
            self._cut_behind(durable)
        self._bytes_at_cut = replica.log.size_bytes

    def _cut_behind(self, durable: int) -> None:
        """Cut what is in the store for good, less a tail of entries and of bytes."""
        replica, settings = self.pump.replica, self.pump.settings
        by_entries = durable - settings.catch_up_entries
        by_bytes = replica.log.first_within(durable, settings.catch_up_bytes) - 1
        target = max(by_entries, by_bytes)
        if target < replica.log.first_index():
            return
        replica.log.compact(target)
        log.info(
            "the log was cut: it begins at index {first}, {size} bytes are left",
            first=replica.log.first_index(),
            size=replica.log.size_bytes,
        )

    def _compacted(self, result: Outcome | Failure) -> None:
        self._compacting = False
        if isinstance(result, Failure):
            log.info(
                "history could not be cut yet: {reason}",
                reason=result.getErrorMessage(),
            )
