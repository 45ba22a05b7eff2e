"""
Log and store as one: what the core reads from.

The log ends where the store may begin: entries up to the store's applied index
are in the store, and those behind it in the log.  Both are told of a crash at
different moments, so opening them puts them in step again.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from kvdb.raft.messages import NO_NODE, ConfState, Entry, HardState, Snapshot
from kvdb.raft.storage import SnapshotTemporarilyUnavailable
from kvdb.storage.log import Log
from kvdb.store.store import Store


class ReplicaDiverged(Exception):
    """Log and store of one data directory do not belong together."""


@frozen(slots=True)
class Replica:
    """Implements L{LogReader<kvdb.raft.storage.LogReader>}."""

    log: Log
    store: Store

    def initial_state(self) -> tuple[HardState, ConfState]:
        """What was durable, and the membership as of the applied index."""
        hard_state = self.log.hard_state
        # The commit index is written now and then only; what is applied was
        # committed.
        commit = max(hard_state.commit, self.store.applied_index)
        state = HardState(hard_state.term, hard_state.vote, commit)
        return state, self.store.conf_state

    def first_index(self) -> int:
        """The log's."""
        return self.log.first_index()

    def last_index(self) -> int:
        """The log's."""
        return self.log.last_index()

    def term(self, index: int) -> int:
        """The log's."""
        return self.log.term(index)

    def entries(self, low: int, high: int, max_size: int) -> Sequence[Entry]:
        """The log's."""
        return self.log.entries(low, high, max_size)

    def snapshot(self) -> Snapshot:
        """The store, as it is now."""
        store = self.store
        if store.applied_index == 0:
            raise SnapshotTemporarilyUnavailable
        return Snapshot(store.applied_index, store.applied_term, store.conf_state)


def open_replica(log: Log, store: Store) -> Replica:
    """
    Put C{log} and C{store} in step.

    A store ahead of its log is a snapshot's install that a crash interrupted,
    or a bootstrap: the log begins anew behind it.

    @raise ReplicaDiverged: the log begins above what the store holds, so that
        entries are missing for good.
    """
    applied = store.applied_index
    if applied + 1 < log.first_index():
        raise ReplicaDiverged(
            f"the log begins at index {log.first_index()} and the store ends at"
            f" {applied}: the entries between are gone.  Restore this data directory"
            " from a backup, or remove the member and add it under a new id"
        )
    if applied > log.last_index() or log.term(applied) != store.applied_term:
        hard_state = log.hard_state
        vote = hard_state.vote if hard_state.term >= store.applied_term else NO_NODE
        term = max(hard_state.term, store.applied_term)
        # What is behind the store is gone, and with it what was committed of it
        # as far as this member knew: it hears it again from its leader.
        hard_state = HardState(term, vote, applied)
        log.reset(applied, store.applied_term, hard_state)
    return Replica(log, store)
