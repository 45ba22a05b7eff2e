"""
Where the core says what it does.

The core has no logger of its own: it is given one, so that a test can hold its
words against the expected ones, and a node can send them where its operator
looks.
"""

from __future__ import annotations

from typing import Protocol


class RaftLogger(Protocol):
    """Five levels; each call is one line."""

    def routine(self, text: str) -> None:
        """What every busy turn says; etcd counts it as C{info}."""

    def debug(self, text: str) -> None:
        """What only a person who studies a trace wants to know."""

    def info(self, text: str) -> None:
        """Elections, conflicts, snapshots, memberships."""

    def warning(self, text: str) -> None:
        """What should not happen often."""

    def error(self, text: str) -> None:
        """What should not happen."""


class SilentLogger:
    """Says nothing."""

    def debug(self, text: str) -> None:
        """Nothing."""

    routine = info = warning = error = debug
