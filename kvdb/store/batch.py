"""
What will be written to the engine in one piece.

Rules: a read sees what the batch holds before what the engine has; all of it is
written, or nothing.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field

from kvdb.store.engine import Engine


class _Missing:
    """Not in the batch, so ask the engine."""


_MISSING: Final = _Missing()


@define(slots=True, eq=False)
class WriteBatch:
    """
    @ivar changes: the new value of each key; None for one that goes.
    """

    engine: Engine
    changes: dict[bytes, bytes | None] = field(factory=dict)

    def read(self, key: bytes) -> bytes | None:
        """The value at C{key} once the batch is written, or None."""
        found = self.changes.get(key, _MISSING)
        if isinstance(found, _Missing):
            return self.engine.get(key)
        return found

    def write(self) -> None:
        """Have the engine take it; the next one begins empty."""
        self.engine.write(self.changes)
        self.changes = {}
