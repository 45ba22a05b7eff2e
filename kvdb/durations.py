"""
How long something takes, counted in buckets: cheap enough for the hot path.

A histogram in the manner of Prometheus, without its registry: what turns it into
metrics reads it when it is asked (L{kvdb.metrics}).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from attrs import define, field

BOUNDS: Final = tuple(0.0001 * 2**power for power in range(17))
"""Upper bounds of the buckets in seconds: 0.1 ms, doubled up to 6.6 s; one more for
what takes longer."""


@define(slots=True, eq=False)
class Durations:
    """
    @ivar counts: observations in each bucket, not added up.
    @ivar total: of all observations, in seconds.
    """

    counts: list[int] = field(factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """It took so long."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
