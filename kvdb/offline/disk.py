"""
Whether a disk is fast enough: how long it takes to make a write durable.

What is written is like a log's batch, into space that was reserved before, as the
log's is.  A member's write waits for a majority of such syncs.  A leader whose sync
takes an election timeout steps down, so one that comes near it now and then is a
cluster that loses its leader now and then.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Final

from attrs import frozen

from kvdb.storage.filesystem import File, FileSystem

SECONDS: Final = 3.0
"""For how long it is measured."""

WRITE_BYTES: Final = 4096
"""Written before each sync."""

FILE_BYTES: Final = 16 << 20
"""Space that is reserved, and gone through over and over."""

MIN_SYNCS: Final = 20
"""At least so many, however long they take."""

NAME: Final = "kvdb-check-disk-"
"""What the directory that is made for it begins with: nothing that is there already
may be written to."""

ELECTION_SHARE: Final = 2
"""The longest sync may take an election timeout, divided by this."""


@frozen(slots=True)
class Latencies:
    """
    How long syncs took, in seconds.

    @ivar syncs: how many there were.
    """

    syncs: int
    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latencies:
        """Of at least one."""
        ordered = sorted(seconds)

        def at(share: float) -> float:
            return ordered[max(0, math.ceil(share * len(ordered)) - 1)]

        return cls(len(ordered), at(0.5), at(0.99), ordered[-1])


def measure(
    filesystem: FileSystem,
    directory: str,
    clock: Callable[[], float],
    progress: Callable[[float], None],
    seconds: float = SECONDS,
) -> Latencies:
    """
    Write and sync in C{directory} for so many seconds.

    @param clock: seconds, from any beginning.
    @param progress: told how many seconds have passed.
    @raise DiskFull, OSError: it cannot be written there.
    """
    with tempfile.TemporaryDirectory(prefix=NAME, dir=directory) as own:
        file = filesystem.open(os.path.join(own, "file"))
        try:
            return Latencies.of(_took(file, clock, progress, seconds))
        finally:
            file.close()


def _took(
    file: File,
    clock: Callable[[], float],
    progress: Callable[[float], None],
    seconds: float,
) -> list[float]:
    """Seconds of each sync."""
    took: list[float] = []
    file.allocate(FILE_BYTES)
    file.sync()
    data = os.urandom(WRITE_BYTES)  # what compresses would tell of another disk
    began = clock()
    offset = 0
    while len(took) < MIN_SYNCS or clock() - began < seconds:
        before = clock()
        file.write(offset, data)
        file.sync()
        took.append(clock() - before)
        offset = (offset + WRITE_BYTES) % FILE_BYTES
        progress(clock() - began)
    return took


def complaints(found: Latencies, heartbeat: float, election: float) -> list[str]:
    """
    Why a disk cannot keep an election timeout; none if it can.

    @param heartbeat: seconds between a leader's heartbeats.
    @param election: the shortest election timeout, in seconds.
    """
    what = []
    if found.longest >= election / ELECTION_SHARE:
        what.append(
            f"the longest sync took {found.longest * 1000:.0f} ms, and a leader whose"
            f" sync takes {election * 1000:.0f} ms steps down: take a faster disk, or"
            " raise --election-ticks on all members"
        )
    if found.p99 >= heartbeat:
        what.append(
            f"one sync in a hundred takes {found.p99 * 1000:.0f} ms or more, which is"
            f" longer than a heartbeat ({heartbeat * 1000:.0f} ms): writes will be slow"
        )
    return what
