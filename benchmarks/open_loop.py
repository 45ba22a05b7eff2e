"""
The suite open: writes and reads that are sent when they are due.

Latency counts from that moment, so that a pause of the server is seen by all that
were due meanwhile, not by those alone that were under way.
"""

from __future__ import annotations

from typing import Final

from benchmarks.load import Kind, Load
from benchmarks.rounds import Point
from benchmarks.run import Run

CONNECTIONS: Final = 128
"""Over which requests are sent; a request waits where none is free."""


def open_loop(run: Run) -> None:
    """At each rate."""
    problem = run.goload.usable()
    if problem is not None:
        run.skip("open", problem)
        return
    settings = run.settings
    points = []
    for kind in (Kind.PUT, Kind.GET):
        for rate in settings.rates:
            load = Load(
                kind,
                CONNECTIONS,
                settings.value_bytes[0],
                settings.keys,
                settings.skew,
                settings.seed,
                rate,
            )
            points.append(Point(f"{kind.value} at {rate:,}/s", load))
    run.rounds("open", points)
