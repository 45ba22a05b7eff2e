"""
What the core says of itself, in the node's log.
"""

from __future__ import annotations

from twisted.logger import Logger

log = Logger(namespace="kvdb.raft")


class CoreLog:
    """Implements L{RaftLogger<kvdb.raft.logger.RaftLogger>}."""

    def routine(self, text: str) -> None:
        """See there, as for all below: of no use here."""

    def debug(self, text: str) -> None:
        """See there."""
        log.debug("{text}", text=text)

    def info(self, text: str) -> None:
        """See there."""
        log.info("{text}", text=text)

    def warning(self, text: str) -> None:
        """See there."""
        log.warn("{text}", text=text)

    def error(self, text: str) -> None:
        """See there."""
        log.error("{text}", text=text)
