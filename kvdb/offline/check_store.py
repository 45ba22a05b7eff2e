"""
What is wrong with the store of a data directory.

Reading every pair has RocksDB verify the checksum of every block that holds one, up
to the first that is bad: behind it nothing can be read in order.  Two things it does
not tell: where a manifest is bad, which is looked for here; and that a filter is,
which is not: without it a key is only found more slowly.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import Final

from attrs import define, field
from google_crc32c import value as crc32c

from kvdb.node.replica import continues, may_be_ahead
from kvdb.offline.archive import ContentDigest
from kvdb.offline.check_log import Read
from kvdb.offline.directory import OneEngine, read_engine
from kvdb.offline.files import Untouched, is_directory
from kvdb.offline.findings import LATER, START, Findings
from kvdb.storage.instance import REMEDY as PARTS_REMEDY
from kvdb.storage.instance import InstanceFile, PartsDiffer
from kvdb.storage.log import Identity, Log
from kvdb.store.encoding import RECORD, decode_events, decode_outcome
from kvdb.store.engine import EngineError, Pair
from kvdb.store.rocks import RocksReader, current_engine
from kvdb.store.store import Store, UnknownFormat

SOME_PAIRS: Final = 1000
SOME_BYTES: Final = 1 << 20
"""Hashed together, pairs and their bytes, with the last one of any size."""

_BLOCK: Final = re.compile(r"in (\S+\.sst) offset (\d+)")
_TABLE: Final = re.compile(r"(/\S+\.sst)")
_MANIFEST: Final = re.compile(r"MANIFEST-\d+")
_NUMBER: Final = struct.Struct(">Q")

_RECORD_HEAD: Final = struct.Struct("<IHB")
_BLOCK_BYTES: Final = 32 << 10
_CRC_DELTA: Final = 0xA282EAD8


@define(slots=True, eq=False)
class StoreCheck:
    """
    @ivar keys: how many were read.
    @ivar digest: of them; None if they could not all be read.
    """

    directory: str
    findings: Findings
    read: Read
    keys: int = 0
    digest: str | None = None
    _newest: int = 0
    _outcomes: int = 0
    _wrong: dict[bytes, tuple[int, str]] = field(factory=dict)
    _path: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._path = f"{self.directory}/store"

    def check(self, log: Log | None) -> None:
        """
        All of it.

        @param log: of the same directory, if that can be read.
        """
        if not is_directory(self._path):
            self.findings.warning(self._path, None, "there is no store", START)
            return
        name = current_engine(Untouched(), self._path)
        if name is None:
            self._check_unnamed()
            return
        path = f"{self._path}/{name}"
        if is_directory(path):
            self._check_manifests(path)
        try:
            with read_engine(self.directory) as engine:
                if self._check_pairs(engine):
                    self._check_state(engine, log)
        except EngineError as error:
            self._note(path if os.path.isdir(path) else f"{self._path}/CURRENT", error)

    def _check_unnamed(self) -> None:
        path = f"{self._path}/CURRENT"
        engines = [one for one in os.listdir(self._path) if one.startswith("engine-")]
        if engines in ([], ["engine-00000001"]):
            # As a start leaves it that was cut short.
            self.findings.warning(path, None, "there is no store", START)
        else:
            self.findings.error(path, None, f"it is missing, and there is {engines}")

    def _check_manifests(self, path: str) -> None:
        for name in sorted(os.listdir(path)):
            if _MANIFEST.fullmatch(name):
                with open(f"{path}/{name}", "rb") as file:
                    offset = first_bad_record(file.read())
                if offset is not None:
                    self.findings.error(
                        f"{path}/{name}", offset, "a record with a wrong checksum"
                    )

    def _note(self, path: str, error: EngineError) -> None:
        """What RocksDB says, at the file and offset that it names."""
        why = str(error).partition("cannot go on (")[2].partition(").  Check")[0]
        block, table = _BLOCK.search(str(error)), _TABLE.search(str(error))
        if block is not None:
            self.findings.error(block[1], int(block[2]), why)
        elif table is not None:
            self.findings.error(table[1], None, why)
        elif not any(one.path.startswith(path) for one in self.findings.found):
            self.findings.error(path, None, why or str(error))

    # Pairs.

    def _check_pairs(self, engine: RocksReader) -> bool:
        """Whether all could be read."""
        self._newest = _newest_revision(engine, self._path)
        digest = ContentDigest()
        some: list[Pair] = []
        size = 0
        try:
            for pair in engine.scan(b"", b"\xff"):
                self._check_pair(engine, *pair)
                some.append(pair)
                size += len(pair[0]) + len(pair[1])
                if len(some) == SOME_PAIRS or size >= SOME_BYTES:
                    self._hash(digest, some)
                    some, size = [], 0
        except EngineError as error:
            self._note(engine.path, error)
            return False
        self._hash(digest, some)
        self.digest = digest.text()
        for kind, (count, first) in self._wrong.items():
            name = kind.decode("latin-1")
            what = f"{count} pairs of kind {name!r} are wrong; the first: {first}"
            self.findings.error(engine.path, None, what)
        return True

    def _hash(self, digest: ContentDigest, some: list[Pair]) -> None:
        digest.add(some)
        self.read(sum(len(key) + len(value) for key, value in some))

    def _check_pair(self, engine: RocksReader, key: bytes, value: bytes) -> None:
        kind = key[:1]
        try:
            if kind == b"k":
                self.keys += 1
                create, mod, version, _ = RECORD.unpack_from(value)
                if not 0 < create <= mod <= self._newest or not version:
                    raise ValueError(f"{version} changes, at {create} to {mod}")
            elif kind == b"h":
                last = _NUMBER.unpack(key[1:])[0]
                if not decode_events(value) or last > self._newest:
                    raise ValueError(f"revision {last}")
            elif kind == b"b":
                _NUMBER.unpack(value)
                if _NUMBER.unpack(key[1:])[0] > self._newest:
                    raise ValueError("a mark of a revision that is none")
            elif kind == b"i":
                self._outcomes += 1
                decode_outcome(value)
            elif kind == b"j":
                self._outcomes -= 1
                if engine.get(b"i" + value) is None:
                    raise ValueError("there is no such outcome")
        except (struct.error, ValueError) as error:
            count, first = self._wrong.get(kind, (0, str(error)))
            self._wrong[kind] = count + 1, first

    # What pairs say of each other, and the log of the store.

    def _check_state(self, engine: RocksReader, log: Log | None) -> None:
        try:
            store = Store.open(OneEngine(engine, self._path))
        except UnknownFormat as error:
            self.findings.error(engine.path, None, str(error), LATER)
            return
        except (struct.error, ValueError) as error:
            self.findings.error(engine.path, None, f"its state is wrong: {error}")
            return
        for what in _contradictions(store):
            self.findings.error(engine.path, None, what)
        if self._outcomes:
            what = "outcomes and idempotency keys are not equal in number"
            self.findings.error(engine.path, None, what)
        if log is not None and store.applied_index:
            self._check_together(log, store)

    def _check_together(self, log: Log, store: Store) -> None:
        if log.identity is None:
            what = "there is a store, and the log that belongs to it is missing"
            self.findings.error(self.directory, None, what, PARTS_REMEDY)
            return
        applied, first, last = store.applied_index, log.first_index(), log.last_index()
        if applied + 1 < first:
            self.findings.error(
                self.directory,
                None,
                f"the log begins at index {first}, the store ends at {applied}:"
                " entries are missing",
            )
        elif not continues(log, store) and not may_be_ahead(log, store):
            self.findings.error(
                self.directory,
                None,
                f"the store holds entry {applied} of term {store.applied_term}, and the"
                f" log, which ends at {last}, does not: the log that belongs to the"
                " store is missing, or it is an older copy",
                PARTS_REMEDY,
            )
        elif not continues(log, store):
            self.findings.warning(
                self.directory,
                None,
                f"the store, at index {applied}, is not in the log, which ends at"
                f" {last}: a snapshot came",
                "nothing: its next start begins the log anew behind the store",
            )
        self._check_identity(log.identity, log.directory, store)

    def _check_identity(self, own: Identity, log_directory: str, store: Store) -> None:
        instance = InstanceFile(Untouched(), self._path)
        try:
            instance.check(own.instance_id, log_directory)
        except PartsDiffer as error:
            self.findings.error(instance.path, None, error.what, PARTS_REMEDY)
        if own.cluster_id not in (0, store.cluster_id):
            self.findings.error(
                self.directory,
                None,
                f"the log is of cluster {own.cluster_id:016x}, the store of"
                f" {store.cluster_id:016x}",
                "they were mixed up: put log and store of one member together",
            )
        member = store.members.get(own.node_id)
        if own.diverged:
            what = "this member's data was found to differ from the others'"
            self.findings.error(self.directory, None, what)
        if own.removed or own.node_id in store.removed:
            self.findings.warning(
                self.directory,
                None,
                f"member {own.node_id} was removed from the cluster",
                "add it under a new id, with an empty data directory",
            )
        elif member is None:
            self.findings.warning(
                self.directory,
                None,
                f"member {own.node_id} is not among the members that it knows",
                "nothing, if it is joining: it hears of itself from the others",
            )
        elif member.instance_id not in (0, own.instance_id):
            self.findings.error(
                self.directory,
                None,
                f"member {own.node_id} is known with another data directory",
                "start it with its own, or remove it and add it under a new id",
            )


def _newest_revision(engine: RocksReader, path: str) -> int:
    try:
        return Store.open(OneEngine(engine, path)).revision
    except (EngineError, UnknownFormat, struct.error, ValueError):
        return 2**64  # which is told elsewhere


def _contradictions(store: Store) -> Iterator[str]:
    conf = store.conf_state
    known = {*conf.voters, *conf.learners, *conf.voters_outgoing, *conf.learners_next}
    if known != set(store.members):
        yield (
            f"voters and learners are {sorted(known)}, and members"
            f" {sorted(store.members)}"
        )
    if known & store.removed:
        yield f"{sorted(known & store.removed)} are members, and removed"
    if store.applied_index and not conf.voters:
        yield "there is no voter"
    if store.compacted_revision > store.revision:
        yield "history is compacted beyond the newest revision"


def first_bad_record(manifest: bytes) -> int | None:
    """
    The offset of the first bad record of one of RocksDB's manifests, which has the
    format of its logs: blocks of 32 KiB, in which records never cross an end; a
    record is a masked CRC-32C (4, little-endian) of type and data, length (2), type
    (1), data.
    """
    offset, size = 0, len(manifest)
    while offset < size:
        left = _BLOCK_BYTES - offset % _BLOCK_BYTES
        if left < _RECORD_HEAD.size:
            offset += left
            continue
        if offset + _RECORD_HEAD.size > size:
            return offset
        masked, length, kind = _RECORD_HEAD.unpack_from(manifest, offset)
        if not masked and not length and not kind:
            offset += left  # padding
            continue
        end = offset + _RECORD_HEAD.size + length
        rotated = (masked - _CRC_DELTA) & 0xFFFFFFFF
        checksum = (rotated >> 17 | rotated << 15) & 0xFFFFFFFF
        covered = manifest[offset + _RECORD_HEAD.size - 1 : end]
        if end > size or length + _RECORD_HEAD.size > left:
            return offset
        if crc32c(covered) != checksum:
            return offset
        offset = end
    return None
