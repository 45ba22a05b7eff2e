"""
The state machine: committed commands in, outcomes and records out.

What is in the engine, by the first byte of the key (docs/store-format.md):

=====  =======================================  ==================================
``k``  key                                      the key's current record
``v``  key, then mod_revision counted down      a record that was replaced, or
                                                nothing where a deletion stands
``h``  revision of the last of them             the events of an entry: what changed
                                                which key
``i``  idempotency key                          its outcome
``j``  number                                   the idempotency key, oldest first
``n``  member id                                the member
``r``  member id                                a member that was removed
``m``  ``c``, ``s``                             membership; everything else
=====  =======================================  ==================================

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
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from attrs import define, evolve, field

from kvdb.raft.confchange import Change, as_v2
from kvdb.raft.messages import ConfChangeType, ConfChangeV2, ConfState, Entry
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
    EVENT,
    RECORD,
    Envelope,
    Event,
    MemberChange,
    Operation,
    decode_command,
    decode_conf_state,
    decode_events,
    decode_member,
    decode_member_change,
    decode_outcome,
    decode_plain_put,
    decode_record,
    encode_conf_state,
    encode_event,
    encode_member,
    encode_outcome,
    split_commands,
)
from kvdb.store.engine import Engine, Engines
from kvdb.store.membership import refusal
from kvdb.store.recent import RecentRecords
from kvdb.store.snapshot import SnapshotReceiver, StoreSnapshot
from kvdb.store.windows import Windows

MAX_IDEMPOTENCY_KEYS: Final = 100_000
"""Outcomes remembered for retries; the oldest goes first.  The same on every
member, or they would forget differently: changing it is a new format."""

FORMAT_VERSION: Final = 1

_SWEPT_AT_ONCE: Final = 1000
"""Events given back in one write, where nobody waits."""

_STATE_KEY: Final = b"ms"
_CONF_STATE_KEY: Final = b"mc"
_STATE = struct.Struct(">HQQQQQQQQQ")
_VERSION: Final = struct.Struct(">H")
_U64 = struct.Struct(">Q")
_TOP: Final = 2**64 - 1
_PUT: Final = int(Operation.PUT)

Settled = tuple[int, int, Outcome]
"""Session and sequence number of a proposal, and what became of it."""


class Compacted(Exception):
    """The history asked for is no longer kept."""


class UnknownFormat(Exception):
    """The store was written by a later release."""


class _Missing:
    """Not in the batch, so ask the engine."""


_MISSING = _Missing()


def _history_prefix(key: bytes) -> bytes:
    # Escaped and ended, so that keys keep their order and none is the
    # beginning of another.
    if b"\0" in key:
        key = key.replace(b"\0", b"\0\xff")
    return b"v" + key + b"\0\x01"


def _history_key(key: bytes, revision: int) -> bytes:
    return _history_prefix(key) + _U64.pack(_TOP - revision)


def fingerprint(envelope: Envelope) -> bytes:
    """What tells one command from another under the same idempotency key."""
    return hashlib.blake2b(envelope.payload, digest_size=8).digest()


@define(slots=True, eq=False)
class Store:
    """
    @ivar applied_index: of the last entry applied; 0 for none.
    @ivar cluster_id: 0 while nothing was applied.
    @ivar revision: of the newest change.
    @ivar compacted_revision: history at and below it is forgotten.
    @ivar members: by id.
    @ivar removed: ids that were members once.
    @ivar windows: hashes of what was applied.
    @ivar recent: current records that need not be asked of the engine.
    """

    engines: Engines
    engine: Engine = field(init=False)
    applied_index: int = 0
    applied_term: int = 0
    cluster_id: int = 0
    revision: int = 0
    compacted_revision: int = 0
    members: dict[int, Member] = field(factory=dict)
    removed: set[int] = field(factory=set)
    conf_state: ConfState = field(factory=ConfState)
    flushing: bool = False
    _swept_revision: int = 0
    _first_token: int = 0
    _next_token: int = 0
    _durable_index: int = 0
    _flush_index: int = 0
    _batch: dict[bytes, bytes | None] = field(factory=dict)
    _events: list[bytes] = field(factory=list)
    recent: RecentRecords = field(factory=RecentRecords)
    windows: Windows = field(factory=Windows)

    @classmethod
    def open(cls, engines: Engines) -> Store:
        """
        The store in the current engine.

        @raise UnknownFormat: a later release wrote it.
        """
        store = cls(engines)
        store.engine = engines.open()
        store._load()
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

    def _load(self) -> None:
        state = self._read_state(self.engine)
        if state is not None:
            (
                _,
                self.applied_index,
                self.applied_term,
                self.cluster_id,
                self.revision,
                self.compacted_revision,
                self._swept_revision,
                self._first_token,
                self._next_token,
                _,
            ) = state
        conf_state = self.engine.get(_CONF_STATE_KEY)
        self.conf_state = decode_conf_state(conf_state) if conf_state else ConfState()
        found = [decode_member(data) for _, data in self.engine.scan(b"n", b"o")]
        self._set_members(found)
        self.removed = {
            _U64.unpack(key[1:])[0] for key, _ in self.engine.scan(b"r", b"s")
        }
        self._durable_index = self._flush_index = self.applied_index
        self.flushing = False
        self.windows.begin(self.applied_index)

    def bootstrap(self, cluster_id: int, members: Sequence[Member]) -> None:
        """
        The state that every member of a new cluster starts from: as if a
        snapshot at index 1 had brought it.
        """
        assert self.applied_index == 0, "a store that holds something is bootstrapped"
        self.cluster_id = cluster_id
        voters = tuple(sorted(member.id for member in members))
        for member in members:
            self._put_member(member)
        self._set_conf_state(ConfState(voters))
        self._finish(1, 1)
        self.engine.flush()
        self._durable_index = self._flush_index = 1
        self.windows.begin(1)

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
        for node in self.members:
            self._batch[b"n" + _U64.pack(node)] = None
        for node in self.removed:
            self._batch[b"r" + _U64.pack(node)] = None
        self.members, self.removed = {}, set()
        self.cluster_id = cluster_id
        self.revision = self.compacted_revision = revision
        for member in members:
            self._put_member(member)
        self._set_conf_state(ConfState(tuple(sorted(self.members))))
        self._finish(1, 1)
        while self.compact_slice(_SWEPT_AT_ONCE):
            pass
        self.engine.flush()
        self._durable_index = self._flush_index = 1
        self.windows.begin(1)

    def close(self) -> None:
        """Be done; what was not flushed is in the Raft log."""
        self.engine.close()

    @property
    def size_bytes(self) -> int:
        """About how much the engine holds."""
        return self.engine.size_bytes

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
        prefix = _history_prefix(key)
        start = prefix + _U64.pack(_TOP - revision)
        end = prefix + _U64.pack(_TOP) + b"\0"
        for _, past in self.engine.scan(start, end):
            return decode_record(past) if past else None
        return None

    def _current(self, record_key: bytes) -> bytes | None:
        """A key's current record, of the batch in hand where it is there."""
        record = self.recent.get(record_key)
        if record is None:
            record = self._read(record_key)
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
        if after < self.compacted_revision:
            raise Compacted(
                f"events after revision {after} are forgotten: history begins at"
                f" {self.compacted_revision}"
            )
        for last, events in self._event_groups(after, _TOP):
            first = last - len(events) + 1
            for revision, event in enumerate(events, first):
                if revision > after:
                    yield revision, event

    def _event_groups(self, after: int, to: int) -> Iterator[tuple[int, list[Event]]]:
        """The events of each entry whose last has a revision in C{after < r <= to},
        and that revision."""
        low, high = b"h" + _U64.pack(after + 1), b"h" + _U64.pack(to) + b"\0"
        for key, data in self.engine.scan(low, high):
            yield _U64.unpack(key[1:])[0], decode_events(data)

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
                    windows.fold(encode_outcome(outcome, b""))
                settled.append((session, sequence, outcome))
            if self._events:
                # An entry's together: a record of its own for each is dear.
                self._batch[b"h" + _U64.pack(self.revision)] = b"".join(self._events)
                self._events.clear()
            windows.ended(index)
        self._finish(index, term)
        return settled

    def _finish(self, index: int, term: int) -> None:
        """Write the batch, with how far it brings the store."""
        self.applied_index = index
        self.applied_term = term
        self._batch[_STATE_KEY] = _STATE.pack(
            FORMAT_VERSION,
            index,
            term,
            self.cluster_id,
            self.revision,
            self.compacted_revision,
            self._swept_revision,
            self._first_token,
            self._next_token,
            0,
        )
        self.engine.write(self._batch)
        self._batch = {}

    def _read(self, key: bytes) -> bytes | None:
        """From the batch, where it is there."""
        found = self._batch.get(key, _MISSING)
        if isinstance(found, _Missing):
            return self.engine.get(key)
        return found

    def _carry_out(
        self, command: Put | Delete | Compact | RegisterInstance, envelope: Envelope
    ) -> Outcome:
        if isinstance(command, Compact):
            return self._compact(command.revision)
        if isinstance(command, RegisterInstance):
            return self._register_instance(command)
        token = command.idempotency_key
        if not token:
            return self._write(command, envelope)
        mark = fingerprint(envelope)
        known = self._known_outcome(token, mark)
        if known is not None:
            return known
        outcome = self._write(command, envelope)
        self._remember(token, outcome, mark)
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
        batch = self._batch
        revision = self.revision = self.revision + 1
        if current is None:
            create, previous, version = revision, 0, 0
        else:
            create, previous, version, _ = RECORD.unpack_from(current)
            batch[_history_key(key, previous)] = current
        record = RECORD.pack(create, revision, version + 1, lease) + value
        batch[b"k" + key] = record
        self.recent.put(b"k" + key, record)
        self.windows.fold(record)
        self._events += (EVENT.pack(len(key), _PUT, previous, time_ms), key)
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
        batch = self._batch
        batch[_history_key(key, previous)] = current
        batch[_history_key(key, self.revision)] = b""
        batch[b"k" + key] = None
        self.recent.discard(b"k" + key)
        event = Event(Operation.DELETE, previous, envelope.time_ms, key)
        self._events.append(encode_event(event))
        return Outcome(OutcomeStatus.DONE, self.revision)

    # Exactly once.

    def _known_outcome(self, token: bytes, mark: bytes) -> Outcome | None:
        data = self._read(b"i" + token)
        if data is None:
            return None
        outcome, first_mark = decode_outcome(data)
        if mark != first_mark:
            return Outcome(
                OutcomeStatus.REFUSED,
                reason="the Idempotency-Key was used for another request before",
            )
        return outcome

    def _remember(self, token: bytes, outcome: Outcome, mark: bytes) -> None:
        self._batch[b"i" + token] = encode_outcome(outcome, mark)
        self._batch[b"j" + _U64.pack(self._next_token)] = token
        self._next_token += 1
        if self._next_token - self._first_token > MAX_IDEMPOTENCY_KEYS:
            oldest = b"j" + _U64.pack(self._first_token)
            forgotten = self._read(oldest)
            assert forgotten is not None, f"no idempotency key {self._first_token}"
            self._batch[b"i" + forgotten] = None
            self._batch[oldest] = None
            self._first_token += 1

    # History.

    def _compact(self, revision: int) -> Outcome:
        # Never the newest: whoever watches needs a place to go on from.
        revision = min(revision, self.revision)
        self.compacted_revision = max(self.compacted_revision, revision)
        return Outcome(OutcomeStatus.DONE, self.compacted_revision)

    def compact_slice(self, max_events: int) -> bool:
        """
        Give back the space of about C{max_events} forgotten events, an entry's
        together; whether any are left.  What is read does not depend on it.
        """
        if self._swept_revision >= self.compacted_revision:
            return False
        swept = 0
        groups = self._event_groups(self._swept_revision, self.compacted_revision)
        for last, events in groups:
            self._sweep(last, events)
            swept += len(events)
            if swept >= max_events:
                break
        else:
            self._swept_revision = self.compacted_revision
        self._finish(self.applied_index, self.applied_term)
        return self._swept_revision < self.compacted_revision

    def _sweep(self, last: int, events: Sequence[Event]) -> None:
        """Delete events, the last of which has revision C{last}, and with them
        the records that only they lead to."""
        batch = self._batch
        batch[b"h" + _U64.pack(last)] = None
        for revision, event in enumerate(events, last - len(events) + 1):
            if event.previous:
                batch[_history_key(event.key, event.previous)] = None
            if event.operation is Operation.DELETE:
                batch[_history_key(event.key, revision)] = None
        self._swept_revision = last

    # Membership.

    def check_change(self, change: Change) -> str | None:
        """Why a committed membership change does not fit, or None."""
        v2 = as_v2(change)
        record = decode_member_change(v2.context)
        known = self._known_change(v2, record)
        if known is not None:
            return "it was carried out before"
        return refusal(v2, record, self.members, self.removed, self.conf_state)

    def _known_change(
        self, change: ConfChangeV2, record: MemberChange
    ) -> Outcome | None:
        if not record.idempotency_key:
            return None
        token = record.idempotency_key
        return self._known_outcome(token, _change_mark(change, record))

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
            reason = refusal(v2, record, self.members, self.removed, self.conf_state)
            if reason is None:
                self._change_members(v2.changes[0].type, record)
                outcome = Outcome(OutcomeStatus.DONE)
            else:
                outcome = Outcome(OutcomeStatus.REFUSED, reason=reason)
            if record.idempotency_key:
                self._remember(
                    record.idempotency_key, outcome, _change_mark(v2, record)
                )
        self.windows.fold(encode_outcome(outcome, b"") + encode_conf_state(conf_state))
        self.windows.ended(index)
        self._set_conf_state(conf_state)
        self._finish(index, term)
        return record.session, record.sequence, outcome

    def _change_members(self, kind: ConfChangeType, record: MemberChange) -> None:
        node = record.member_id
        if kind is ConfChangeType.REMOVE_NODE:
            del self.members[node]
            self.removed.add(node)
            self._batch[b"n" + _U64.pack(node)] = None
            self._batch[b"r" + _U64.pack(node)] = b""
        elif node not in self.members:
            self._put_member(Member(node, record.url))

    def _register_instance(self, command: RegisterInstance) -> Outcome:
        member = self.members.get(command.node_id)
        if member is None:
            return Outcome(OutcomeStatus.NOT_FOUND)
        if member.instance_id not in (0, command.instance_id):
            return Outcome(
                OutcomeStatus.REFUSED,
                reason=f"member {member.id} is known with another data directory",
            )
        self._put_member(evolve(member, instance_id=command.instance_id))
        return Outcome(OutcomeStatus.DONE)

    def _put_member(self, member: Member) -> None:
        self.members[member.id] = member
        self._batch[b"n" + _U64.pack(member.id)] = encode_member(member)

    def _set_conf_state(self, conf_state: ConfState) -> None:
        self.conf_state = conf_state
        self._batch[_CONF_STATE_KEY] = encode_conf_state(conf_state)
        self._set_members(self.members.values())

    def _set_members(self, members: Iterable[Member]) -> None:
        learners = self.conf_state.learners
        self.members = {
            member.id: evolve(member, learner=member.id in learners)
            for member in sorted(members, key=lambda member: member.id)
        }

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
        """Let a store that was received whole take the place of this one."""
        staged = receiver.take()
        self._read_state(staged)  # or it is of a later release
        self.engines.switch(staged)
        self.engine = staged
        self._batch = {}
        self._events.clear()
        self.recent.clear()
        self._load()

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


def _holds(condition: Condition, mod_revision: int) -> bool:
    kind = condition.kind
    if kind is ConditionKind.ALWAYS:
        return True
    if kind is ConditionKind.EXISTS:
        return mod_revision != 0
    if kind is ConditionKind.ABSENT:
        return mod_revision == 0
    return mod_revision == condition.revision and mod_revision != 0


def _change_mark(change: ConfChangeV2, record: MemberChange) -> bytes:
    kinds = [int(single.type) for single in change.changes]
    text = f"{kinds} {record.member_id} {record.url}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
