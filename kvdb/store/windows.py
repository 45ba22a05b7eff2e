"""
A rolling hash of what is applied, to find a replica that differs.

Entries are taken in windows of L{WINDOW_ENTRIES}; the hash of a window covers
what each of its commands made of the state: records as they stand now, with
their revisions and versions, and outcomes.  All replicas must come to the same
hash at the same index, however entries came to them in batches.  One whose
memory, disk or release has led it astray does not, as soon as it touches what is
wrong.

Rules: a window is whole or has no hash: one in which a node started, or
received a snapshot, is left out; nothing of it is on disk.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from attrs import define, field

WINDOW_ENTRIES: Final = 256
"""Entries in a window: it ends at each index that this divides."""

MAX_WINDOWS: Final = 64
"""How many hashes are kept, the newest."""

HASH_BYTES: Final = 8


def _new() -> blake2b:
    return blake2b(digest_size=HASH_BYTES)


@define(slots=True, eq=False)
class Windows:
    """
    @ivar hashes: of whole windows, by their last index, oldest first.
    """

    hashes: dict[int, int] = field(factory=dict)
    _hash: blake2b = field(factory=_new)
    _is_whole: bool = False

    def begin(self, applied_index: int) -> None:
        """The state is that at C{applied_index}, wherever it came from."""
        self.hashes.clear()
        self._hash = _new()
        self._is_whole = applied_index % WINDOW_ENTRIES == 0

    def fold(self, data: bytes) -> None:
        """Something was made of the state."""
        self._hash.update(data)

    def ended(self, index: int) -> None:
        """The entry at C{index} is applied."""
        if index % WINDOW_ENTRIES:
            return
        if self._is_whole:
            self.hashes[index] = int.from_bytes(self._hash.digest(), "big")
            if len(self.hashes) > MAX_WINDOWS:
                del self.hashes[next(iter(self.hashes))]
        self._hash = _new()
        self._is_whole = True
