"""
Whether a backup came to its end (docs/snapshot-format.md).

The last 36 bytes of one are four zeros and the SHA-256 of all before them.  This
is looked at while it comes; what it means is another room's.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from attrs import define, field

_END: Final = bytes(4)
_END_BYTES: Final = 36


@define(slots=True, eq=False)
class EndCheck:
    """
    @ivar size: bytes that have come.
    """

    size: int = 0
    _tail: bytes = b""
    _hash: Any = field(factory=hashlib.sha256)

    def feed(self, data: bytes) -> None:
        """What comes next."""
        self.size += len(data)
        held = self._tail + data
        self._hash.update(held[:-_END_BYTES])
        self._tail = held[-_END_BYTES:]

    def is_whole(self) -> bool:
        """Whether that was all, as it was sent."""
        digest: bytes = self._hash.digest()
        return self._tail == _END + digest
