"""
Log and store as one: what the core reads from.

The log ends where the store may begin: entries up to the store's applied index
are in the store, and those behind it in the log.  Both are told of a crash at
different moments, so opening them puts them in step again.

Rules: a store is ahead of its log only as it was bootstrapped, or where the log says
that a snapshot was being installed; any other has lost its log, and is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from kvdb.raft.messages import NO_NODE, ConfState, Entry, HardState, Snapshot
from kvdb.raft.storage import SnapshotTemporarilyUnavailable
from kvdb.storage.instance import PartsDiffer
from kvdb.storage.log import Log
from kvdb.store.store import BOOTSTRAP_INDEX, Store


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

    @raise PartsDiffer: they are not the two parts of one data directory, or one of
        them is an older copy.
    """
    _check_owner(log, store)
    applied = store.applied_index
    places = f"the log in {log.directory}", f"the store in {store.engines.directory}"
    if applied + 1 < log.first_index():
        what = "is missing or an older copy" if applied else "is missing"
        raise PartsDiffer(
            f"{places[0]} begins at index {log.first_index()}, and {places[1]} ends at"
            f" {applied}: the store that belongs to the log {what}"
        )
    if continues(log, store):
        if log.identity is not None and log.identity.installing:
            log.end_install()
        return Replica(log, store)
    if not may_be_ahead(log, store):
        raise PartsDiffer(
            f"{places[1]} holds entry {applied} of term {store.applied_term}, and"
            f" {places[0]} does not (its last is {log.last_index()}): the log that"
            " belongs to the store is missing, or it is an older copy"
        )
    hard_state = log.hard_state
    vote = hard_state.vote if hard_state.term >= store.applied_term else NO_NODE
    term = max(hard_state.term, store.applied_term)
    # What is behind the store is gone, and with it what was committed of it
    # as far as this member knew: it hears it again from its leader.
    hard_state = HardState(term, vote, applied)
    log.reset(applied, store.applied_term, hard_state)
    return Replica(log, store)


def _check_owner(log: Log, store: Store) -> None:
    """@raise PartsDiffer: the store is of another cluster or instance."""
    identity = log.identity
    if identity is None or store.applied_index == 0:
        return
    member = store.members.get(identity.node_id)
    instance = 0 if member is None else member.instance_id
    if store.cluster_id == identity.cluster_id and instance in (
        0,
        identity.instance_id,
    ):
        return
    raise PartsDiffer(
        f"the store in {store.engines.directory} is of cluster {store.cluster_id:016x}"
        f" and knows member {identity.node_id} as instance {instance:016x}, and the"
        f" log in {log.directory} is of cluster {identity.cluster_id:016x} and instance"
        f" {identity.instance_id:016x}: they are parts of two data directories"
    )


def continues(log: Log, store: Store) -> bool:
    """Whether C{log} goes on where C{store} ends."""
    applied = store.applied_index
    return applied <= log.last_index() and log.term(applied) == store.applied_term


def may_be_ahead(log: Log, store: Store) -> bool:
    """Whether C{store} may hold what C{log} does not."""
    if log.identity is not None and log.identity.installing:
        return True
    return log.last_index() == 0 and store.applied_index == BOOTSTRAP_INDEX
