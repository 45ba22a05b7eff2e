"""
What the core says of itself, in the node's log.
"""

from __future__ import annotations

from attrs import define
from twisted.logger import Logger

log = Logger(namespace="kvdb.raft")


@define(slots=True, eq=False)
class CoreLog:
    """
    Implements L{RaftLogger<kvdb.raft.logger.RaftLogger>}.

    @ivar repeats: it says the same again and again: C{info} counts as C{debug}.
    """

    repeats: bool = False

    def routine(self, text: str) -> None:
        """See there, as for all below: of no use here."""

    def debug(self, text: str) -> None:
        """See there."""
        log.debug("{text}", text=text)

    def info(self, text: str) -> None:
        """See there."""
        if self.repeats:
            log.debug("{text}", text=text)
        else:
            log.info("{text}", text=text)

    def warning(self, text: str) -> None:
        """See there."""
        log.warn("{text}", text=text)

    def error(self, text: str) -> None:
        """See there."""
        log.error("{text}", text=text)
