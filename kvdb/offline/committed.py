"""
A store that is only read, as far as its log knows it.

An engine keeps what is applied in memory for a while, for the log has it: so after a
crash, and often after a stop, the store on the disk is behind what the member has
applied, and its members, revision and keys are those of before.  Here the committed
entries of the log are applied to it, in memory.

Rules: neither log nor store is changed; what is not known to be committed is left out.
What is held in memory is what the engine had not flushed: its write buffers bound it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from attrs import define, evolve, field
from sortedcontainers import SortedDict

from kvdb.node.replica import Replica, continues
from kvdb.raft.confchange import Changer, as_v2, decode_conf_change, restore
from kvdb.raft.messages import NO_NODE, ConfState, Entry, EntryType
from kvdb.raft.tracker import Tracker
from kvdb.storage.log import Log
from kvdb.store.engine import Engine, Pair, View
from kvdb.store.store import Store

READ_BYTES: Final = 1 << 20
"""Of entries, applied at once."""


@define(slots=True, eq=False)
class Overlay:
    """
    Implements L{Engine<kvdb.store.engine.Engine>}: what is written stays in memory,
    above an engine that is only read.
    """

    _below: Engine
    _changes: SortedDict[bytes, bytes | None] = field(factory=SortedDict)

    def get(self, key: bytes) -> bytes | None:
        """See there, as for all below."""
        if key in self._changes:
            return self._changes[key]
        return self._below.get(key)

    def write(self, batch: Mapping[bytes, bytes | None]) -> None:
        """See there."""
        self._changes.update(batch)

    def scan(self, low: bytes, high: bytes) -> Iterator[Pair]:
        """See there."""
        changed = list(self._changes.irange(low, high, (True, False)))
        place = 0
        for key, value in self._below.scan(low, high):
            while place < len(changed) and changed[place] <= key:
                yield from self._pair(changed[place])
                place += 1
            if key not in self._changes:
                yield key, value
        for key in changed[place:]:
            yield from self._pair(key)

    def _pair(self, key: bytes) -> Iterator[Pair]:
        value = self._changes[key]
        if value is not None:
            yield key, value

    def begin_flush(self) -> None:
        """There is nothing to flush."""

    def flushed(self) -> bool:
        """Never: it is in memory."""
        return False

    def flush(self) -> None:
        """There is nothing to flush."""

    def open_view(self) -> View:
        """Nothing but what its holder writes changes it."""
        return self

    @property
    def size_bytes(self) -> int:
        """Of what is on the disk."""
        return self._below.size_bytes

    @property
    def unflushed_bytes(self) -> int:
        """It is never written."""
        return 0

    def close(self) -> None:
        """The engine below is closed by whoever opened it."""


def committed_index(log: Log, store: Store) -> int:
    """The last entry that is known to be committed, as far as log or store have it."""
    if not continues(log, store):
        return store.applied_index
    hard_state, _ = Replica(log, store).initial_state()
    return min(hard_state.commit, log.last_index())


def apply_until(log: Log, store: Store, until: int) -> None:
    """Apply the entries up to C{until}, as a node would."""
    while store.applied_index < until:
        first = store.applied_index + 1
        for entry in log.entries(first, until + 1, READ_BYTES):
            _apply(store, entry)


def _apply(store: Store, entry: Entry) -> None:
    if entry.type is EntryType.NORMAL:
        store.apply([entry])
        return
    change = as_v2(decode_conf_change(entry))
    effective = change
    if store.check_change(entry.index, change) is not None:
        nobody = tuple(evolve(one, node_id=NO_NODE) for one in change.changes)
        effective = evolve(change, changes=nobody)
    tracker = Tracker(0, 0)
    tracker.install(*restore(tracker, entry.index, store.conf_state))
    configuration, _ = Changer(tracker, entry.index).change(effective)
    state: ConfState = configuration.conf_state()
    store.apply_conf_change(entry.index, entry.term, change, state)
