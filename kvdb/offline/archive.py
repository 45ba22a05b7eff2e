"""
What is in a backup: read through, with every checksum on the way.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from attrs import define, evolve, field, frozen

from kvdb.offline.directory import Progress
from kvdb.store.backup import BackupHeader, BackupReader, BadBackup, LaterBackup
from kvdb.store.commands import Member
from kvdb.store.encoding import decode_conf_state, decode_member
from kvdb.store.engine import Pair
from kvdb.store.memory import MemoryEngines
from kvdb.store.snapshot import BadSnapshot, SnapshotReader
from kvdb.store.store import Store

FIRST_KEY: Final = b"i"
END_KEY: Final = b"s"
"""What a new cluster takes over lies between these in the engine: all but history."""

READ_BYTES: Final = 256 << 10
"""Of a file, at once."""

REMEDY: Final = "take another backup, or this one again from where it was copied"

_LENGTHS: Final = struct.Struct(">II")


def is_key(pair: Pair) -> bool:
    """Whether a pair of an engine is a client's key with its record."""
    return pair[0].startswith(b"k")


def is_kept(pair: Pair) -> bool:
    """Whether a pair is one that a new cluster takes over."""
    return FIRST_KEY <= pair[0] < END_KEY


@frozen(slots=True)
class Contents:
    """
    What is in a backup.

    @ivar keys: how many.
    @ivar members: who was in the cluster.
    @ivar outcomes: how many are remembered for retries.
    @ivar size: of the file, in bytes.
    @ivar sha256: of it, as its end says: its name among all backups.
    @ivar digest: of keys and records, see L{ContentDigest}.
    """

    header: BackupHeader
    keys: int
    members: Sequence[Member]
    outcomes: int
    size: int
    sha256: str
    digest: str


@define(slots=True, eq=False)
class ContentDigest:
    """
    The SHA-256 of all keys with their records (value, revisions, version): lengths
    of key and record (4 each, big-endian), key without its C{k}, record; in order of
    keys.  A backup, and whatever was restored from it, have the same one.

    @ivar keys: how many there were.
    """

    keys: int = 0
    _sha256: hashlib._Hash = field(factory=hashlib.sha256)

    def add(self, pairs: Iterable[Pair]) -> None:
        """Some pairs of an engine, of which only keys count."""
        parts: list[bytes] = []
        for pair in pairs:
            if is_key(pair):
                key, record = pair[0][1:], pair[1]
                self.keys += 1
                parts += (_LENGTHS.pack(len(key), len(record)), key, record)
        self._sha256.update(b"".join(parts))

    def text(self) -> str:
        """In hexadecimal."""
        return self._sha256.hexdigest()


@define(slots=True, eq=False)
class _Gathered:
    """What is taken note of among the pairs."""

    members: list[Member] = field(factory=list)
    learners: Sequence[int] = ()
    outcomes: int = 0
    _state: dict[bytes, bytes | None] = field(factory=dict)

    def add(self, pairs: Iterable[Pair]) -> None:
        for key, value in pairs:
            if key.startswith(b"m"):
                self._state[key] = value
            if key.startswith(b"n"):
                self.members.append(decode_member(value))
            elif key.startswith(b"i"):
                self.outcomes += 1
            elif key == b"mc":
                self.learners = decode_conf_state(value).learners

    def all_members(self) -> list[Member]:
        """Whose roles are known only now."""
        learners = self.learners
        return [evolve(one, learner=one.id in learners) for one in self.members]

    def check(self, header: BackupHeader, snapshot: SnapshotReader) -> None:
        """
        Whether snapshot and store say of themselves what C{header} says of them.

        @raise BadBackup: one says something else.
        @raise UnknownFormat: a later release wrote it.
        """
        engines = MemoryEngines()
        engines.open().write(self._state)
        try:
            store = Store.open(engines)
        except (struct.error, ValueError) as error:
            raise BadBackup(f"the store in the backup is none: {error}") from error
        for what, says, holds in (
            ("cluster", f"{header.cluster_id:016x}", f"{store.cluster_id:016x}"),
            ("index", header.applied_index, snapshot.index),
            ("term", header.applied_term, snapshot.term),
            ("index", header.applied_index, store.applied_index),
            ("term", header.applied_term, store.applied_term),
            ("revision", header.revision, store.revision),
            ("compacted revision", header.compacted_revision, store.compacted_revision),
        ):
            if says != holds:
                raise BadBackup(
                    f"the backup says that it is of {what} {says}, and holds {what}"
                    f" {holds}"
                )


def verify(path: str, progress: Progress) -> Contents:
    """
    Read a backup through.

    @raise BadBackup: it is not what was written, or not all of it.
    @raise UnknownFormat: a later release wrote the store in it.
    """
    return read_through(path, lambda pairs: None, progress)


def read_through(
    path: str, take: Callable[[Sequence[Pair]], None], progress: Progress
) -> Contents:
    """
    What is in a backup, each part of which is given to C{take}.

    @raise BadBackup: as L{verify}; what was taken is then of no use.
    """
    try:
        return _read_through(path, take, progress)
    except LaterBackup as error:
        raise LaterBackup(f"{path}: {error}") from error
    except BadBackup as error:
        raise BadBackup(f"{path}: {error}.  What to do: {REMEDY}") from error


def _read_through(
    path: str, take: Callable[[Sequence[Pair]], None], progress: Progress
) -> Contents:
    reader, snapshot = BackupReader(), SnapshotReader()
    digest, gathered = ContentDigest(), _Gathered()
    with open(path, "rb") as file:
        while data := file.read(READ_BYTES):
            for chunk in reader.feed(data):
                pairs = _pairs_of(snapshot, chunk)
                take(pairs)
                digest.add(pairs)
                try:
                    gathered.add(pairs)
                except (struct.error, ValueError) as error:
                    raise BadBackup(f"the members in it are none: {error}") from error
            progress(reader.size)
    header = reader.finish()
    if not snapshot.whole:
        raise BadBackup("the snapshot in the backup breaks off before its end")
    gathered.check(header, snapshot)
    return Contents(
        header,
        digest.keys,
        gathered.all_members(),
        gathered.outcomes,
        reader.size,
        reader.digest,
        digest.text(),
    )


def _pairs_of(snapshot: SnapshotReader, chunk: bytes) -> list[Pair]:
    try:
        return snapshot.take(chunk)
    except BadSnapshot as error:
        raise BadBackup(f"the snapshot in the backup is none: {error}") from error


def size_of(path: str) -> int:
    """In bytes."""
    return os.path.getsize(path)
