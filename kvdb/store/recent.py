"""
Current records that were written or read of late, so that a write need not ask
the engine what it replaces.

Two generations: what is used goes into the younger; when that has grown to half
of the bound it becomes the older, and what the older held is forgotten.

Rules: it holds what the engine holds, or will hold once the batch in hand is
written; it is bounded in bytes.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field

MAX_BYTES: Final = 4 << 20
"""Both generations, with what a dictionary takes for each record."""

OVERHEAD_BYTES: Final = 200
"""What a record takes beside its key's and its own bytes, about."""


@define(slots=True, eq=False)
class RecentRecords:
    """See the head of this module."""

    max_bytes: int = MAX_BYTES
    _young: dict[bytes, bytes] = field(factory=dict)
    _old: dict[bytes, bytes] = field(factory=dict)
    _young_bytes: int = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> bytes | None:
        """The record, or None if it is not known here."""
        record = self._young.get(key)
        if record is None:
            record = self._old.get(key)
            if record is not None:
                self.put(key, record)
        return record

    def put(self, key: bytes, record: bytes) -> None:
        """It was written, or read."""
        self._young[key] = record
        self._young_bytes += len(key) + len(record) + OVERHEAD_BYTES
        if 2 * self._young_bytes > self.max_bytes:
            self._old, self._young = self._young, {}
            self._young_bytes = 0

    def discard(self, key: bytes) -> None:
        """It was deleted."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        """Another store takes the place of this one."""
        self._young.clear()
        self._old.clear()
        self._young_bytes = 0
