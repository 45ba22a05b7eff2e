"""
The state machine: committed commands in, outcomes and records out.

What is in the engine, by the first byte of the key (docs/store-format.md):

=====================  ===========================================================
``k``                  a key's current record, and here
``v``, ``h``, ``b``    L{kvdb.store.history}: what keys were, and what changed them
``i``, ``j``           L{kvdb.store.outcomes}: answers for those who retry
``n``, ``r``, ``mc``   L{kvdb.store.members}: who is a member, and who was
``ms``                 everything else, and here
=====================  ===========================================================

Rules:

* the same entries give the same state and the same outcomes on every member,
  however they come in batches;
* each batch carries the applied index, so after a crash the engine tells how
  far it got;
* a command that fails changes nothing and takes no revision;
* a new value is written once: the record it replaces moves into history.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from attrs import define, field

from kvdb.raft.confchange import Change, as_v2
from kvdb.raft.messages import ConfChangeV2, ConfState, Entry
from kvdb.store.batch import WriteBatch
from kvdb.store.commands import (
    Compact,
    Condition,
    ConditionKind,
    Delete,
    Member,
    Outcome,
    OutcomeStatus,
    Put,
    Record,
    RegisterInstance,
)
from kvdb.store.encoding import (
    RECORD,
    Envelope,
    Event,
    MemberChange,
    decode_command,
    decode_member_change,
    decode_plain_put,
    decode_record,
    encode_conf_state,
    split_commands,
)
from kvdb.store.engine import Engine, Engines
from kvdb.store.history import Compacted, History
from kvdb.store.members import Members
from kvdb.store.membership import TRANSIENT, refusal
from kvdb.store.outcomes import Outcomes, fingerprint, fingerprint_of_change
from kvdb.store.recent import RecentRecords
from kvdb.store.snapshot import SnapshotReceiver, StoreSnapshot
from kvdb.store.windows import Windows

__all__ = ["Compacted", "Settled", "Store", "UnknownFormat"]

FORMAT_VERSION: Final = 1

BOOTSTRAP_INDEX: Final = 1
"""The index of the state that a new cluster starts from."""

_SWEPT_AT_ONCE: Final = 1000
"""Events given back in one write, where nobody waits."""

_STATE_KEY: Final = b"ms"
_STATE = struct.Struct(">HQQQQQQQQQ")
_VERSION: Final = struct.Struct(">H")
_OUTCOME: Final = struct.Struct(">BQ")

Settled = tuple[int, int, Outcome]
"""Session and sequence number of a proposal, and what became of it."""


class UnknownFormat(Exception):
    """The store was written by a later release."""


@define(slots=True, eq=False)
class Store:
    """
    @ivar applied_index: of the last entry applied; 0 for none.
    @ivar cluster_id: 0 while nothing was applied.
    @ivar revision: of the newest change.
    @ivar compacted_revision: history at and below it is forgotten.
    @ivar windows: hashes of what was applied.
    @ivar recent: current records that need not be asked of the engine.
    """

    engines: Engines
    applied_index: int = 0
    applied_term: int = 0
    cluster_id: int = 0
    revision: int = 0
    flushing: bool = False
    _durable_index: int = 0
    _flush_index: int = 0
    _batch: WriteBatch = field(init=False)
    _history: History = field(factory=History)
    _outcomes: Outcomes = field(factory=Outcomes)
    _members: Members = field(factory=Members)
    recent: RecentRecords = field(factory=RecentRecords)
    windows: Windows = field(factory=Windows)

    @classmethod
    def open(cls, engines: Engines) -> Store:
        """
        The store in the current engine.

        @raise UnknownFormat: a later release wrote it.
        """
        store = cls(engines)
        store._load(engines.open())
        return store

    @staticmethod
    def _read_state(engine: Engine) -> tuple[int, ...] | None:
        """
        What an engine says of itself, if it says anything.

        @raise UnknownFormat: a later release wrote it.
        """
        state = engine.get(_STATE_KEY)
        if state is None:
            return None
        # Before all else: a later format may be of another length.
        version = _VERSION.unpack_from(state)[0]
        if version > FORMAT_VERSION:
            raise UnknownFormat(
                f"the store has format {version}, this release of kvdb reads"
                f" {FORMAT_VERSION}: start a later release"
            )
        return _STATE.unpack(state)

    def _load(self, engine: Engine) -> None:
        self._batch = WriteBatch(engine)
        state = self._read_state(engine)
        if state is not None:
            _, index, term, cluster, revision, compacted, swept = state[:7]
            first, next_, written = state[7:]
            self.applied_index, self.applied_term = index, term
            self.cluster_id, self.revision = cluster, revision
            self._history = History(compacted, swept, written)
            self._outcomes = Outcomes(first, next_)
        self._members = Members.load(engine)
        self._durable_index = self._flush_index = self.applied_index
        self.flushing = False
        self.windows.begin(self.applied_index)

    @property
    def engine(self) -> Engine:
        """The current one."""
        return self._batch.engine

    @property
    def compacted_revision(self) -> int:
        """History at and below it is forgotten."""
        return self._history.compacted

    @property
    def members(self) -> Mapping[int, Member]:
        """By id, in their order."""
        return self._members.by_id

    @property
    def removed(self) -> AbstractSet[int]:
        """Ids that were members once."""
        return self._members.removed

    @property
    def conf_state(self) -> ConfState:
        """Who votes, and who learns."""
        return self._members.conf_state

    def bootstrap(self, cluster_id: int, members: Sequence[Member]) -> None:
        """
        The state that every member of a new cluster starts from: as if a
        snapshot at index 1 had brought it.
        """
        assert self.applied_index == 0, "a store that holds something is bootstrapped"
        self.cluster_id = cluster_id
        self._begin_with(members)

    def begin_anew(
        self, cluster_id: int, members: Sequence[Member], revision: int
    ) -> None:
        """
        Make of the state that was taken over from another cluster what every
        member of a new one starts from, at index 1 and term 1.  Keys and outcomes
        stay; history, members, and ids that were removed are forgotten.

        @param revision: of the new cluster's beginning; all up to it counts as
            compacted, so that who watched the other cluster hears that it missed
            something.
        """
        assert revision >= self.revision, "a revision that moves back"
        self.cluster_id = cluster_id
        self.revision = self._history.compacted = revision
        self._history.written = 0
        self._begin_with(members)

    def _begin_with(self, members: Sequence[Member]) -> None:
        voters = tuple(sorted(member.id for member in members))
        self._members.begin(self._batch, members, ConfState(voters))
        self._finish(BOOTSTRAP_INDEX, 1)
        while self.compact_slice(_SWEPT_AT_ONCE):
            pass
        self.engine.flush()
        self._durable_index = self._flush_index = BOOTSTRAP_INDEX
        self.windows.begin(BOOTSTRAP_INDEX)

    def close(self) -> None:
        """Be done; what was not flushed is in the Raft log."""
        self.engine.close()

    @property
    def size_bytes(self) -> int:
        """About how much the engine holds."""
        return self.engine.size_bytes

    @property
    def unflushed_bytes(self) -> int:
        """About how much of it has yet to find its space on the disk."""
        return self.engine.unflushed_bytes

    # Reading.

    def get(self, key: bytes, revision: int | None = None) -> Record | None:
        """
        A key's record, now or as of a revision.

        @raise Compacted: that past is forgotten.
        @raise ValueError: C{revision} lies in the future.
        """
        data = self._current(b"k" + key)
        current = None if data is None else decode_record(data)
        if revision is None:
            return current
        self._check_revision(revision)
        if current is not None and current.mod_revision <= revision:
            return current
        return self._history.record_at(self._batch, key, revision)

    def _current(self, record_key: bytes) -> bytes | None:
        """A key's current record, of the batch in hand where it is there."""
        record = self.recent.get(record_key)
        if record is None:
            record = self._batch.read(record_key)
            if record is not None:
                self.recent.put(record_key, record)
        return record

    def _check_revision(self, revision: int) -> None:
        if revision > self.revision:
            raise ValueError(
                f"revision {revision} is in the future: the newest is {self.revision}"
            )
        if revision < self.compacted_revision:
            raise Compacted(
                f"revision {revision} is forgotten: history begins at"
                f" {self.compacted_revision}"
            )

    def range(
        self, low: bytes, high: bytes, limit: int
    ) -> Iterator[tuple[bytes, Record]]:
        """Up to C{limit} current records, C{low <= key < high}, by key."""
        for count, (key, data) in enumerate(self.engine.scan(b"k" + low, b"k" + high)):
            if count >= limit:
                return
            yield key[1:], decode_record(data)

    def events(self, after: int) -> Iterator[tuple[int, Event]]:
        """
        The changes at revisions above C{after}, in order.

        @raise Compacted: some of them are forgotten.
        """
        return self._history.events(self._batch, after)

    def replaced(self, event: Event) -> Record | None:
        """The record that an event of L{events} has replaced, if there was one."""
        return self._history.replaced(self._batch, event)

    # Applying.

    def apply(self, entries: Sequence[Entry]) -> list[Settled]:
        """
        Carry out committed entries, in order; what became of each command.

        @raise UnknownCommand: an entry is of a later release.
        """
        settled: list[Settled] = []
        index = self.applied_index
        term = self.applied_term
        windows = self.windows
        for entry in entries:
            index += 1
            assert entry.index == index, f"entry {entry.index} applied as {index}"
            term = entry.term
            for data in split_commands(entry.data):
                plain = decode_plain_put(data)
                if plain is not None:
                    session, sequence, time_ms, key, value = plain
                    outcome = self._set(
                        key, value, 0, time_ms, self._current(b"k" + key)
                    )
                else:
                    envelope, command = decode_command(data)
                    session, sequence = envelope.session, envelope.sequence
                    outcome = self._carry_out(command, envelope)
                    windows.fold(_hashed(outcome))
                settled.append((session, sequence, outcome))
            self._history.end_entry(self._batch, self.revision)
            windows.ended(index)
        self._finish(index, term)
        return settled

    def _finish(self, index: int, term: int) -> None:
        """Write the batch, with how far it brings the store."""
        self.applied_index = index
        self.applied_term = term
        self._batch.changes[_STATE_KEY] = _STATE.pack(
            FORMAT_VERSION,
            index,
            term,
            self.cluster_id,
            self.revision,
            self._history.compacted,
            self._history.swept,
            self._outcomes.first,
            self._outcomes.next,
            self._history.written,
        )
        self._batch.write()

    def _carry_out(
        self, command: Put | Delete | Compact | RegisterInstance, envelope: Envelope
    ) -> Outcome:
        if isinstance(command, Compact):
            forgotten = self._history.compact(command.revision, self.revision)
            return Outcome(OutcomeStatus.DONE, forgotten)
        if isinstance(command, RegisterInstance):
            return self._members.register_instance(self._batch, command)
        token = command.idempotency_key
        if not token:
            return self._write(command, envelope)
        mark = fingerprint(envelope)
        known = self._outcomes.known(self._batch, token, mark)
        if known is not None:
            return known
        outcome = self._write(command, envelope)
        self._outcomes.remember(self._batch, token, outcome, mark)
        return outcome

    def _write(self, command: Put | Delete, envelope: Envelope) -> Outcome:
        if isinstance(command, Put):
            return self._put(command, envelope)
        return self._delete(command, envelope)

    def _put(self, command: Put, envelope: Envelope) -> Outcome:
        current = self._current(b"k" + command.key)
        if command.condition.kind:
            previous = 0 if current is None else RECORD.unpack_from(current)[1]
            if not _holds(command.condition, previous):
                return Outcome(OutcomeStatus.CONDITION_FAILED, previous)
        return self._set(
            command.key, command.value, command.lease, envelope.time_ms, current
        )

    def _set(
        self, key: bytes, value: bytes, lease: int, time_ms: int, current: bytes | None
    ) -> Outcome:
        """
        @param current: the key's record so far, if it has one.
        """
        revision = self.revision = self.revision + 1
        if current is None:
            create, previous, version = revision, 0, 0
        else:
            create, previous, version, _ = RECORD.unpack_from(current)
        record = RECORD.pack(create, revision, version + 1, lease) + value
        self._batch.changes[b"k" + key] = record
        self.recent.put(b"k" + key, record)
        self.windows.fold(record)
        self._history.note_put(self._batch, key, previous, current, time_ms)
        return Outcome(OutcomeStatus.DONE, revision)

    def _delete(self, command: Delete, envelope: Envelope) -> Outcome:
        key = command.key
        current = self._current(b"k" + key)
        previous = 0 if current is None else RECORD.unpack_from(current)[1]
        if not _holds(command.condition, previous):
            return Outcome(OutcomeStatus.CONDITION_FAILED, previous)
        if current is None:
            return Outcome(OutcomeStatus.NOT_FOUND)
        self.revision += 1
        self._batch.changes[b"k" + key] = None
        self.recent.discard(b"k" + key)
        self._history.note_delete(
            self._batch, key, self.revision, previous, current, envelope.time_ms
        )
        return Outcome(OutcomeStatus.DONE, self.revision)

    # History.

    def compact_slice(self, max_events: int) -> bool:
        """
        Give back the space of about C{max_events} forgotten events, an entry's
        together; whether any are left.  What is read does not depend on it.
        """
        history = self._history
        if history.swept >= history.compacted:
            return False
        history.sweep(self._batch, max_events)
        self._finish(self.applied_index, self.applied_term)
        return history.swept < history.compacted

    def history_bytes(self) -> int:
        """About how many bytes of history are kept."""
        return self._history.size(self._batch)

    def history_within(self, max_bytes: int) -> int:
        """The revision to compact to for about C{max_bytes} of history to be kept."""
        return self._history.within(self._batch, max_bytes)

    # Membership.

    def check_change(self, index: int, change: Change) -> Outcome | None:
        """
        What a committed membership change comes to without being carried out: it is
        refused, or was asked for before; None if it is to be carried out.
        """
        v2 = as_v2(change)
        record = decode_member_change(v2.context)
        known = self._known_change(v2, record)
        if known is not None:
            return known
        return refusal(index, v2, record, self.members, self.removed, self.conf_state)

    def _known_change(
        self, change: ConfChangeV2, record: MemberChange
    ) -> Outcome | None:
        if not record.idempotency_key:
            return None
        mark = fingerprint_of_change(change, record)
        return self._outcomes.known(self._batch, record.idempotency_key, mark)

    def apply_conf_change(
        self, index: int, term: int, change: Change, conf_state: ConfState
    ) -> Settled | None:
        """
        Carry out a committed membership change.

        @param conf_state: the membership that follows; the one before, if
            L{check_change} had a reason.
        """
        assert index == self.applied_index + 1, f"change at {index} out of order"
        v2 = as_v2(change)
        record = decode_member_change(v2.context)
        outcome = self._known_change(v2, record)
        if outcome is None:
            outcome = refusal(
                index, v2, record, self.members, self.removed, self.conf_state
            )
            if outcome is None:
                self._members.change(self._batch, v2.changes[0].type, record)
                outcome = Outcome(OutcomeStatus.DONE)
            if record.idempotency_key and outcome.reason not in TRANSIENT:
                mark = fingerprint_of_change(v2, record)
                self._outcomes.remember(
                    self._batch, record.idempotency_key, outcome, mark
                )
        self.windows.fold(_hashed(outcome) + encode_conf_state(conf_state))
        self.windows.ended(index)
        self._members.set_conf_state(self._batch, conf_state)
        self._finish(index, term)
        return record.session, record.sequence, outcome

    # Durability, and state sent whole.

    def begin_flush(self) -> None:
        """Begin to make all that is applied durable without the log."""
        self._flush_index = self.applied_index
        self.flushing = True
        self.engine.begin_flush()

    def poll_flush(self) -> int:
        """The highest applied index known to be durable without the log."""
        if self.flushing and self.engine.flushed():
            self._durable_index = self._flush_index
            self.flushing = False
        return self._durable_index

    def open_snapshot(self) -> StoreSnapshot:
        """The store as it is now, to be streamed while it goes on."""
        return StoreSnapshot(
            self.engine.open_view(),
            self.applied_index,
            self.applied_term,
            self.conf_state,
        )

    def receive_snapshot(self) -> SnapshotReceiver:
        """Begin to build another store from what is received."""
        return SnapshotReceiver(self.engines, self.engines.stage())

    def install(self, receiver: SnapshotReceiver) -> None:
        """
        Let a store that was received whole take the place of this one.

        @raise DiskFull: there is no space for that; nothing was changed.
        """
        staged = receiver.finished
        self._read_state(staged)  # or it is of a later release
        self.engines.switch(staged)
        receiver.take()
        self.recent.clear()
        self._load(staged)

    def digest(self) -> str:
        """
        A fingerprint of all that is kept, to hold two members against each
        other; alike once both have swept what they forgot.
        """
        digest = hashlib.sha256()
        for key, value in self.engine.scan(b"", b"\xff"):
            digest.update(struct.pack(">II", len(key), len(value)))
            digest.update(key)
            digest.update(value)
        return digest.hexdigest()


def _hashed(outcome: Outcome) -> bytes:
    """What of an outcome all members must agree on: not why something was refused,
    which a directory of an earlier release says in other words."""
    return _OUTCOME.pack(outcome.status, outcome.revision)


def _holds(condition: Condition, mod_revision: int) -> bool:
    kind = condition.kind
    if kind is ConditionKind.ALWAYS:
        return True
    if kind is ConditionKind.EXISTS:
        return mod_revision != 0
    if kind is ConditionKind.ABSENT:
        return mod_revision == 0
    return mod_revision == condition.revision and mod_revision != 0
