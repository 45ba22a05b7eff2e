"""
A cluster made of what one member has: for when no majority will ever come back.

What the member's store holds is taken over, the entries of its log behind that are
applied, and the result begins a new cluster of one, as a restored one does.  It is
made beside; the member's own directory is left as it is.

What may be lost, and is told before: writes that were acknowledged by others and
never came here.  What may be kept though nobody was told that it was done: entries
that came here, and of which this member did not learn that they were committed.  In
such an emergency they are kept, as most of them were committed, and acknowledged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from attrs import frozen

from kvdb.node.replica import continues, may_be_ahead
from kvdb.offline.archive import END_KEY, FIRST_KEY, ContentDigest
from kvdb.offline.committed import READ_BYTES, apply_until, committed_index
from kvdb.offline.directory import (
    Disk,
    Held,
    Progress,
    Unusable,
    held,
    new_directory,
    read_log,
    read_store,
    write_log,
)
from kvdb.offline.files import Untouched
from kvdb.offline.restore import REVISION_STEP, moved_on, write_pairs
from kvdb.raft.confchange import as_v2, decode_conf_change
from kvdb.raft.messages import EntryType
from kvdb.storage.instance import InstanceFile
from kvdb.storage.log import Identity, Log
from kvdb.storage.segment import TornEnd
from kvdb.storage.unsynced import LOST, Unsynced
from kvdb.store.commands import Member
from kvdb.store.encoding import decode_command, split_commands
from kvdb.store.engine import Pair
from kvdb.store.store import Store

WRITE_PAIRS: Final = 1000
WRITE_BYTES: Final = 1 << 20
"""Pairs that are written at once, and their bytes, with the last one of any size."""


@frozen(slots=True)
class Survey:
    """
    What one member has.

    @ivar identity: whose it is.
    @ivar term: the newest term that it knew of.
    @ivar applied: the last entry that its store holds for good.
    @ivar committed: the last that it noted down as committed.
    @ivar last: the last in its log, of term C{last_term}.
    @ivar revision: with all that is known to be committed, as members and C{role}.
    @ivar uncertain_changes: of the members, in entries that may not be committed.
    @ivar role: what it was in the cluster, as far as it knows.
    @ivar newest_ms: when its newest write was proposed, since 1970; None where it
        cannot be told.
    @ivar lacks_log: its store holds what its log does not, and no snapshot explains it.
    @ivar repaired: what a crash left unfinished at the end of its log.
    @ivar power_was_lost: while it acknowledged what was not on its disk.
    """

    identity: Identity
    term: int
    applied: int
    committed: int
    last: int
    last_term: int
    revision: int
    members: tuple[Member, ...]
    uncertain_changes: tuple[str, ...]
    role: str
    newest_ms: int | None
    lacks_log: bool
    repaired: TornEnd | None
    power_was_lost: bool

    @property
    def uncertain(self) -> int:
        """Entries that may or may not have been committed."""
        return self.last - self.committed

    def warnings(self) -> Iterator[str]:
        """What would be lost, or may be."""
        others = [one.id for one in self.members if one.id != self.identity.node_id]
        if others:
            yield (
                f"the other members {others} are given up: what they acknowledged and"
                " this one never received is lost, and nobody can tell here how much"
                " that is"
            )
        if self.term > self.last_term:
            yield (
                f"a leader was elected in term {self.term}, after the last entry that"
                f" came here (term {self.last_term}): it may have taken writes that are"
                " not here"
            )
        if self.uncertain:
            yield (
                f"{self.uncertain} entries, {self.committed + 1} to {self.last}, came"
                " here and may or may not have been committed: they are kept, unless"
                " --discard-uncommitted is given, which loses those that were"
            )
        if self.uncertain_changes:
            yield (
                f"among them the members change ({'; '.join(self.uncertain_changes)}):"
                " all others are given up, whichever holds"
            )
        if self.role == "learner":
            yield "it was a learner, and may be far behind the voters"
        elif self.role == "no member" or self.identity.removed:
            yield "it was no member any more: what it has is as old as its removal"
        if self.identity.diverged:
            yield "its data was found to differ from the other members'"
        if self.power_was_lost:
            yield (f"{LOST}: another member, if one is left, may have more")
        if self.lacks_log:
            yield (
                "its store holds entries that its log does not: the log is an older"
                " copy, and what came behind the store is lost"
            )
        if self.repaired is not None:
            yield f"the end of its log was not whole, and is left out: {self.repaired}"


@frozen(slots=True)
class Recovered:
    """
    @ivar applied: how many entries of the log were applied to the store.
    @ivar digest: see L{ContentDigest}.
    """

    cluster_id: int
    revision: int
    applied: int
    keys: int
    digest: str


@frozen(slots=True, eq=False)
class Survivor:
    """
    A member's directory, kept from every node since it was looked at: what is made
    of it is what was told of it.
    """

    survey: Survey
    kept: Held
    log: Log
    store: Store


@contextmanager
def opened(directory: str, boot_id: str) -> Iterator[Survivor]:
    """
    What is left of a member.

    @param boot_id: of this boot of the machine.
    @raise CorruptLog, EngineError: it cannot be read.
    @raise DirectoryInUse: the member runs.
    @raise PartsDiffer: its store belongs to another log.
    @raise Unusable: there is no member's data.
    """
    with (
        held(directory) as kept,
        read_log(directory) as log,
        read_store(directory) as store,
    ):
        mark = Unsynced(Untouched(), f"{directory}/log", boot_id)
        identity = _identity(directory, log)
        instance = InstanceFile(Untouched(), f"{directory}/store")
        instance.check(identity.instance_id, log.directory)
        found = _survey(log, store, identity, power_was_lost=mark.is_of_before())
        yield Survivor(found, kept, log, store)


def _identity(directory: str, log: Log) -> Identity:
    if log.identity is None:
        raise Unusable(f"{directory} has no identity: no member was ever started in it")
    return log.identity


def _survey(
    log: Log, store: Store, identity: Identity, *, power_was_lost: bool
) -> Survey:
    if store.applied_index + 1 < log.first_index():
        raise Unusable(
            f"the log begins at index {log.first_index()} and the store ends at"
            f" {store.applied_index}: entries are missing, restore a backup"
        )
    applied, term = store.applied_index, log.hard_state.term
    # A store ahead of its log is one that a snapshot brought, or has lost its log.
    is_log = continues(log, store)
    last = log.last_index() if is_log else applied
    last_term = log.term(last) if is_log else store.applied_term
    committed = committed_index(log, store)
    apply_until(log, store, committed)
    node = identity.node_id
    own = store.members.get(node)
    voter = node in store.conf_state.voters
    role = "no member" if own is None else "voter" if voter else "learner"
    return Survey(
        identity=identity,
        term=term,
        applied=applied,
        committed=committed,
        last=last,
        last_term=last_term,
        revision=store.revision,
        members=tuple(store.members.values()),
        uncertain_changes=tuple(_changes(log, committed + 1, last)),
        role=role,
        newest_ms=_newest_ms(log) if is_log else None,
        lacks_log=not is_log and not may_be_ahead(log, store),
        repaired=log.repaired,
        power_was_lost=power_was_lost,
    )


def _changes(log: Log, first: int, last: int) -> Iterator[str]:
    """The changes of members in these entries."""
    while first <= last:
        entries = log.entries(first, last + 1, READ_BYTES)
        for entry in entries:
            if entry.type is not EntryType.NORMAL:
                change = as_v2(decode_conf_change(entry))
                for one in change.changes:
                    kind = one.type.name.lower().replace("_", " ")
                    yield f"entry {entry.index}: {kind} {one.node_id}"
        first += len(entries)


def _newest_ms(log: Log) -> int | None:
    """When the last command in the log was proposed."""
    for index in range(log.last_index(), log.first_index() - 1, -1):
        [entry] = log.entries(index, index + 1, READ_BYTES)
        if entry.type is EntryType.NORMAL and entry.data:
            envelope, _ = decode_command(split_commands(entry.data)[-1])
            return envelope.time_ms
    return None


def recover(
    disk: Disk,
    survivor: Survivor,
    target: str,
    node_id: int,
    url: str,
    progress: Progress,
    *,
    revision_step: int = REVISION_STEP,
    discard_uncommitted: bool = False,
) -> Recovered:
    """
    Make in C{target} the data directory of member C{node_id}, alone in a new
    cluster, of what C{survivor} has.

    @raise CorruptLog, EngineError: that cannot be read.
    @raise DirectoryInUse: it has no lock, and a node was started in it meanwhile.
    @raise Unusable: there is something in C{target}.
    """
    found, log, source = survivor.survey, survivor.log, survivor.store
    with new_directory(disk.filesystem, target) as made:
        engines = disk.engines(f"{made}/store")
        engine = engines.open()
        try:
            size = 0
            for pairs in _some_at_a_time(source.engine.scan(FIRST_KEY, END_KEY)):
                write_pairs(engine, pairs)
                size += sum(len(key) + len(value) for key, value in pairs)
                progress(size)
            engine.flush()
        finally:
            engine.close()
        store = Store.open(engines)
        try:
            until = found.committed if discard_uncommitted else found.last
            apply_until(log, store, until)
            revision = moved_on(store.revision, revision_step)
            cluster_id = int.from_bytes(disk.entropy(8), "big") | 1
            store.begin_anew(cluster_id, [Member(node_id, url)], revision)
            write_log(disk, made, node_id, store)
            digest = ContentDigest()
            for pairs in _some_at_a_time(store.engine.scan(b"k", b"l")):
                digest.add(pairs)
        finally:
            store.close()
        survivor.kept.check()
    applied = until - found.applied
    return Recovered(cluster_id, revision, applied, digest.keys, digest.text())


def _some_at_a_time(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    some: list[Pair] = []
    size = 0
    for key, value in pairs:
        some.append((key, value))
        size += len(key) + len(value)
        if len(some) == WRITE_PAIRS or size >= WRITE_BYTES:
            yield some
            some, size = [], 0
    if some:
        yield some
