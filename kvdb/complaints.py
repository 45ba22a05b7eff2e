"""
Log lines about strangers, who could else fill the disk with them: of each kind
one in a while, with how many were left out.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

COMPLAINT_SECONDS: Final = 10.0
"""At most one line of a kind in this time."""


@define(slots=True, eq=False)
class Complaints:
    """
    @ivar log: where they are told.
    """

    clock: IReactorTime
    log: Logger
    _next: dict[str, float] = field(factory=dict)
    _left_out: dict[str, int] = field(factory=dict)

    def say(self, kind: str, text: str) -> None:
        """
        Log C{text}, unless one of its kind was logged a moment ago.

        @param kind: one of a few that stand in the code.
        """
        now = self.clock.seconds()
        if now < self._next.get(kind, now):
            self._left_out[kind] = self._left_out.get(kind, 0) + 1
            return
        self._next[kind] = now + COMPLAINT_SECONDS
        more = self._left_out.pop(kind, 0)
        if more:
            text += f" ({more} more of this kind were not logged)"
        self.log.warn("{text}", text=text)
