"""
When a leader proposes what has come in, and when it waits for more.

A batch costs each member about the same, whether it holds one command or a
hundred.  So while some batches are under way what comes in is gathered, until
one of them is committed; alone, nobody waits.

Rules: only a leader asks; nothing waits longer than L{GATHER_SECONDS}, nor once
it fills L{GATHER_BYTES}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kvdb.raft.log import Log

MAX_BATCHES: Final = 2
"""Batches under way before what comes in is gathered: with one at a time the
members would wait for each other."""

GATHER_SECONDS: Final = 0.002
"""For how long at most: where a commit takes longer than this, waiting for one
gains nothing."""

GATHER_BYTES: Final = 8 << 10
"""How much is gathered at most, in bytes: it is worth a batch of its own."""


@define(slots=True, eq=False)
class Gathering:
    """
    @ivar wake: called when what was gathered has waited long enough.
    """

    clock: IReactorTime
    wake: Callable[[], None]
    _under_way: deque[int] = field(factory=deque)
    _waiting: IDelayedCall | None = None

    def waits(self, log: Log, waiting_bytes: int) -> bool:
        """
        Whether what waits is to wait for more.

        @param waiting_bytes: how much it is.
        """
        under_way = self._under_way
        while under_way and not log.committed < under_way[0] <= log.last_index():
            under_way.popleft()
        if len(under_way) >= MAX_BATCHES and waiting_bytes < GATHER_BYTES:
            if self._waiting is None:
                self._waiting = self.clock.callLater(GATHER_SECONDS, self._long_enough)
            return True
        self._stop_waiting()
        return False

    def proposed(self, last_index: int) -> None:
        """A batch is under way that ends there."""
        self._under_way.append(last_index)

    def stop(self) -> None:
        """Nothing is gathered any more, and what is under way is others' business."""
        self._under_way.clear()
        self._stop_waiting()

    def _long_enough(self) -> None:
        self._waiting = None
        self._under_way.clear()
        self.wake()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def __len__(self) -> int:
        return len(self._under_way)
