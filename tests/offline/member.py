"""Stopped members' directories, made without any node."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.task import Clock

from kvdb.node.backups import Backups
from kvdb.node.replica import open_replica
from kvdb.offline.archive import ContentDigest
from kvdb.offline.directory import at_once
from kvdb.offline.files import real_filesystem
from kvdb.raft.messages import Entry, HardState
from kvdb.storage.log import Identity, Log
from kvdb.store.backup import BackupReader
from kvdb.store.commands import Command, Compact, Delete, Member, Put
from kvdb.store.memory import MemoryEngines
from kvdb.store.rocks import RocksEngines
from kvdb.store.snapshot import SnapshotReader
from kvdb.store.store import Store
from tests.store.entries import entry

CLUSTER_ID = 0x1234567
MEMBERS = [Member(n, f"http://127.0.0.1:{n}") for n in (1, 2, 3)]
SEGMENT_BYTES = 8 << 10


def some_commands(count: int = 60) -> list[Command]:
    """Puts, deletes, idempotency keys, a compaction."""
    made: list[Command] = []
    for number in range(count):
        key = b"/key-%02d" % (number % 20)
        token = b"token-%d" % number if number % 7 == 0 else b""
        made.append(Put(key, b"value %d " % number * 10, idempotency_key=token))
        if number % 10 == 9:
            made.append(Delete(key))
    made.append(Compact(count // 3))
    return made


def make_member(
    directory: Path,
    commands: Sequence[Command] = (),
    *,
    node_id: int = 1,
    applied: int | None = None,
    commit: int | None = None,
    more: Sequence[Entry] = (),
    flags: dict[str, bool] | None = None,
    term: int = 1,
) -> Path:
    """
    A directory as a node leaves it.

    @param applied: how many of the commands are in its store; None for all.
    @param commit: up to which index it knows them to be committed; None for all.
    @param more: entries behind those of the commands.
    """
    filesystem = real_filesystem()
    log = Log.open(filesystem, f"{directory}/log", Clock(), SEGMENT_BYTES)
    store = Store.open(RocksEngines(filesystem, f"{directory}/store"))
    told = {"removed": False, "diverged": False, **(flags or {})}
    identity = Identity(
        CLUSTER_ID, node_id, 1000 + node_id, told["removed"], told["diverged"]
    )
    log.set_identity(identity)
    store.bootstrap(CLUSTER_ID, MEMBERS)
    open_replica(log, store)
    entries = [entry(2 + place, one) for place, one in enumerate(commands)] + [*more]
    last = entries[-1].index if entries else 1
    known = last if commit is None else commit
    for one in entries:
        log.append([one], HardState(term, 1, min(known, one.index)))
        at_once(log.sync())
    log.append([], HardState(term, 1, known))
    at_once(log.sync())
    store.apply(entries[: len(entries) if applied is None else applied])
    store.engine.flush()
    store.close()
    log.close()
    return directory


def backup_bytes(commands: Sequence[Command]) -> bytes:
    """A backup of a cluster that carried out C{commands}."""
    store = Store.open(MemoryEngines())
    store.bootstrap(CLUSTER_ID, MEMBERS)
    store.apply([entry(2 + place, one) for place, one in enumerate(commands)])
    return backup_of(store)


def backup_of(store: Store) -> bytes:
    """As a node makes it."""
    opened = Backups(store, lambda: 1_700_000_000).begin()
    try:
        return b"".join(opened.pieces)
    finally:
        opened.close()


def digest_of(data: bytes) -> str:
    """Of a backup's keys."""
    digest, snapshot = ContentDigest(), SnapshotReader()
    for chunk in BackupReader().feed(data):
        digest.add(snapshot.take(chunk))
    assert snapshot.whole
    return digest.text()


def fingerprint(directory: Path) -> dict[str, tuple[str, int]]:
    """All that is in a directory: contents, and when it was changed."""
    found = {}
    for path, _, names in os.walk(directory):
        found[path] = ("", os.stat(path).st_mtime_ns)
        for name in names:
            file = Path(path, name)
            text = hashlib.sha256(file.read_bytes()).hexdigest()
            found[str(file)] = (text, file.stat().st_mtime_ns)
    return found


def nothing(done: float) -> None:
    """No progress is shown."""
