"""
The suites puts, reads and mix: closed loops, by connections and sizes of values.

All numbers of connections are measured with the first size of values, the other
sizes with L{SIZE_CONNECTIONS}, and a zipfian choice of keys with L{SKEW_CONNECTIONS}.
"""

from __future__ import annotations

from typing import Final

from benchmarks.load import Kind, Load, Skew
from benchmarks.rounds import Point
from benchmarks.run import Run
from benchmarks.settings import Settings

SIZE_CONNECTIONS: Final = 32
SKEW_CONNECTIONS: Final = 128

CORRECTED: Final = (
    "latencies of closed loops are corrected as wrk does it: an answer that took"
    " several times the usual stands for those that could not be sent meanwhile"
)

KINDS: Final = {
    "puts": (Kind.PUT,),
    "reads": (Kind.GET, Kind.STALE),
    "mix": (Kind.MIX,),
}


def size_text(count: int) -> str:
    """How many bytes, for people."""
    return f"{count // 1024} KiB" if count >= 1024 else f"{count} B"


def points_of(suite: str, settings: Settings) -> list[Point]:
    """What is measured in a suite."""
    points = []
    for kind in KINDS[suite]:
        size, *other_sizes = settings.value_bytes
        few = min(SIZE_CONNECTIONS, max(settings.connections))
        many = min(SKEW_CONNECTIONS, max(settings.connections))
        wanted = [(count, size, settings.skew) for count in settings.connections]
        wanted += [(few, other, settings.skew) for other in other_sizes]
        if settings.skew is Skew.UNIFORM:
            wanted.append((many, size, Skew.ZIPFIAN))
        for connections, value_bytes, skew in wanted:
            load = Load(
                kind, connections, value_bytes, settings.keys, skew, settings.seed
            )
            label = f"{kind.value}, {connections} conn., {size_text(value_bytes)}"
            if skew is not Skew.UNIFORM:
                label += ", zipfian"
            points.append(Point(label, load))
    return points


def puts(run: Run) -> None:
    """Writes."""
    _closed(run, "puts")


def reads(run: Run) -> None:
    """Reads, linearizable and stale."""
    _closed(run, "reads")


def mix(run: Run) -> None:
    """Nine reads for one write."""
    _closed(run, "mix")


def _closed(run: Run, suite: str) -> None:
    run.results.note([CORRECTED])
    run.rounds(suite, points_of(suite, run.settings))
