"""
Backups of the store while it goes on, a few at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from attrs import define, field

from kvdb.interfaces import Unavailable
from kvdb.store.backup import BackupHeader, backup_pieces
from kvdb.store.snapshot import StoreSnapshot
from kvdb.store.store import Store
from kvdb.times import time_ms_of

MAX_BACKUPS: Final = 2
"""At a time: each holds on to files that the engine could else remove."""

PIECE_BYTES: Final = 32 << 10
"""Of the engine's pairs, in a piece, but for one longer pair: so much is read in one
turn of the reactor, and all else waits meanwhile."""


@define(slots=True, eq=False)
class OpenBackup:
    """Implements L{Backup<kvdb.interfaces.Backup>}."""

    revision: int
    cluster_id: int
    pieces: Iterator[bytes]
    _snapshot: StoreSnapshot | None
    _closed: Callable[[], None]

    def close(self) -> None:
        """See there."""
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is not None:
            self.pieces = iter(())
            snapshot.close()
            self._closed()


@define(slots=True, eq=False)
class Backups:
    """
    See the head of this module.

    @ivar time_of_day: seconds since the epoch, for people to read.
    @ivar open: how many there are.
    """

    store: Store
    time_of_day: Callable[[], float]
    open: int = field(default=0, init=False)

    def begin(self) -> OpenBackup:
        """
        One of the store as it is now.

        @raise Unavailable: there are too many.
        """
        if self.open >= MAX_BACKUPS:
            raise Unavailable(
                f"there are {MAX_BACKUPS} backups of this member under way: the most",
                "Wait for one of them, or ask another member.",
            )
        self.open += 1
        store = self.store
        header = BackupHeader(
            store.cluster_id,
            store.applied_index,
            store.applied_term,
            store.revision,
            store.compacted_revision,
            time_ms_of(self.time_of_day()),
        )
        snapshot = store.open_snapshot()
        pieces = backup_pieces(header, snapshot.chunks(PIECE_BYTES))
        return OpenBackup(
            store.revision, store.cluster_id, pieces, snapshot, self._closed
        )

    def _closed(self) -> None:
        self.open -= 1
