"""
The embedded database under the store.

An engine maps bytes to bytes, in order of keys.  It need not make a write
durable: the Raft log does that.  It must lose only the newest writes in a
crash: what is left is the state after some whole batch.

Engines live in a directory, one of which is current; a snapshot is received
into another, which takes its place in one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

Pair = tuple[bytes, bytes]


class EngineError(Exception):
    """The engine cannot go on; its message names the directory."""


class View(Protocol):
    """The engine as it was at one moment, for one scan at a time."""

    def scan(self, low: bytes, high: bytes) -> Iterator[Pair]:
        """The pairs whose keys are at least C{low} and below C{high}, in order."""

    def close(self) -> None:
        """Let go of what only this view sees."""


class Engine(Protocol):
    """See the head of this module."""

    def get(self, key: bytes) -> bytes | None:
        """The value at C{key}, or None."""

    def write(self, batch: Mapping[bytes, bytes | None]) -> None:
        """Set and, where the value is None, remove keys: all or none."""

    def scan(self, low: bytes, high: bytes) -> Iterator[Pair]:
        """As L{View.scan}, of the engine now; not to be used over a write."""

    def begin_flush(self) -> None:
        """Begin to make durable what was written; returns at once."""

    def flushed(self) -> bool:
        """Whether what was written before the last C{begin_flush} is durable."""

    def flush(self) -> None:
        """Make durable what was written, now."""

    def open_view(self) -> View:
        """The engine as it is now."""

    @property
    def size_bytes(self) -> int:
        """About how much it holds."""

    @property
    def unflushed_bytes(self) -> int:
        """About how much of it is in memory alone, and has yet to find its space."""

    def close(self) -> None:
        """Be done with it."""


class Engines(Protocol):
    """A directory of engines, of which one is current."""

    @property
    def directory(self) -> str:
        """Where it is, for people."""

    def open(self) -> Engine:
        """The current engine, made where there is none."""

    def stage(self) -> Engine:
        """A new, empty engine beside the current one."""

    def switch(self, staged: Engine) -> None:
        """
        Make C{staged}, which was flushed, the current engine, in one durable
        step, and close and remove the one before.
        """

    def discard(self, staged: Engine) -> None:
        """Close and remove a staged engine."""
