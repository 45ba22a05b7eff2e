"""
A backup made into the members of another cluster.

It is run once for each member, with the same file, cluster, token and step; each run
makes the same store, byte for byte, so that the members can go on together.

Rules: the new cluster has an id of its own, and so never meets the one that the
backup is of; its revisions go on far above that one's, and all before counts as
compacted, so that a watcher of the old cluster is told that it missed something
(410), and is never silently led astray.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from kvdb.offline.archive import Contents, is_kept, read_through
from kvdb.offline.directory import Disk, Progress, Unusable, new_directory, write_log
from kvdb.store.backup import BadBackup
from kvdb.store.commands import Member
from kvdb.store.engine import Engine, Pair
from kvdb.store.store import Store

REVISION_STEP: Final = 10**9
"""How far revisions move on, unless something else is said: more than a cluster
writes between a backup and its end."""

MAX_REVISION: Final = 2**53
"""Beyond it, programs that read JSON in JavaScript take one for another."""


@frozen(slots=True, kw_only=True)
class NewCluster:
    """
    What a restored cluster is to be.

    @ivar members: peer URL by id.
    @ivar token: tells apart two clusters that are restored from one file with the
        same members.
    @ivar revision_step: how far its revisions begin above the backup's.
    """

    members: Mapping[int, str]
    token: str = ""
    revision_step: int = REVISION_STEP

    def cluster_id(self, origin: str) -> int:
        """
        Its id, the same on each of its members: 64 bits of a SHA-256 over all that
        must be the same for them to go on together.

        @param origin: the backup's SHA-256.
        """
        members = [f"{node}={self.members[node]}" for node in sorted(self.members)]
        text = "\n".join(
            ["kvdb restore", origin, self.token, str(self.revision_step), *members]
        )
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") | 1

    def founders(self) -> list[Member]:
        """Its first members."""
        return [Member(node, self.members[node]) for node in sorted(self.members)]


@frozen(slots=True)
class Restored:
    """
    @ivar cluster_id: of the new cluster.
    @ivar revision: with which it begins.
    @ivar contents: of the backup.
    """

    cluster_id: int
    revision: int
    contents: Contents


def restore(
    disk: Disk,
    path: str,
    directory: str,
    node_id: int,
    cluster: NewCluster,
    progress: Progress,
) -> Restored:
    """
    Make the data directory of member C{node_id} from the backup at C{path}.

    @raise BadBackup: the backup is not whole; nothing was made.
    @raise Unusable: there is something in the directory; or an option does not fit.
    """
    if node_id not in cluster.members:
        raise Unusable(f"member {node_id} is not in --cluster, which has all members")
    with new_directory(disk.filesystem, directory) as made:
        engines = disk.engines(f"{made}/store")
        engine = engines.open()
        try:
            contents = read_through(
                path, lambda pairs: write_pairs(engine, pairs), progress
            )
            engine.flush()
        finally:
            engine.close()
        try:
            store = Store.open(engines)
        except (struct.error, ValueError) as error:
            raise BadBackup(f"the store in the backup is none: {error}") from error
        try:
            cluster_id = cluster.cluster_id(contents.sha256)
            revision = moved_on(store.revision, cluster.revision_step)
            store.begin_anew(cluster_id, cluster.founders(), revision)
            write_log(disk, made, node_id, store)
        finally:
            store.close()
    return Restored(cluster_id, revision, contents)


def write_pairs(engine: Engine, pairs: Sequence[Pair]) -> None:
    """What is taken over of some pairs, together."""
    batch: dict[bytes, bytes | None] = dict(pair for pair in pairs if is_kept(pair))
    if batch:
        engine.write(batch)


def moved_on(revision: int, step: int) -> int:
    """
    @raise Unusable: it would be too far.
    """
    if revision + step > MAX_REVISION:
        raise Unusable(
            f"revision {revision} and a --revision-step of {step} are more than"
            f" {MAX_REVISION}: take a smaller step"
        )
    return revision + step
