"""
A line in the log when little space is left on the disk, and one when there is enough
again: before it is full, while something can be done.

It reads what the disk says, now and then, and decides nothing.
"""

from __future__ import annotations

from typing import Final

from attrs import define
from twisted.logger import Logger

from kvdb.node.pump import Pump
from kvdb.node.status import low_space

log = Logger(namespace="kvdb.node")

LOOK_SECONDS: Final = 10.0
"""How often the disk is asked."""


@define(slots=True, eq=False)
class DiskSpace:
    """Implements L{Watcher<kvdb.node.pump.Watcher>}."""

    pump: Pump
    _next: float = 0.0
    _is_low: bool = False

    def ticked(self) -> None:
        """See L{Watcher<kvdb.node.pump.Watcher>}, as for the two below."""
        now = self.pump.clock.seconds()
        if now < self._next:
            return
        self._next = now + LOOK_SECONDS
        alarm = low_space(self.pump)
        if alarm is not None and not self._is_low:
            log.warn("{alarm}", alarm=alarm)
        elif alarm is None and self._is_low and self.pump.writer.full is None:
            log.info("there is enough space on the disk again")
        self._is_low = alarm is not None

    def leader_changed(self) -> None:
        """Nothing follows from that here."""

    def applied(self, entries: int, commands: int) -> None:
        """Nothing follows from that here."""
