"""
How long answers took, in whole microseconds.

wrk reports its latencies corrected: an answer that took several times the usual
time stands for those that the waiting connection could not send meanwhile.  So
that figures of other clients compare with it, L{Histogram.corrected} does the
same to theirs.  Open loops need no correction, and get none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from attrs import define, field, frozen


@frozen(slots=True)
class Latency:
    """Percentiles, and the most, in microseconds."""

    p50: int
    p90: int
    p99: int
    max: int


@define(slots=True)
class Histogram:
    """
    @ivar counts: how many answers took so many microseconds.
    """

    counts: dict[int, int] = field(factory=dict)

    @classmethod
    def read(cls, counts: Mapping[str, int]) -> Histogram:
        """From JSON, where names are text."""
        return cls({int(name): count for name, count in counts.items()})

    @property
    def total(self) -> int:
        """How many answers."""
        return sum(self.counts.values())

    def add(self, microseconds: int) -> None:
        """One more answer."""
        self.counts[microseconds] = self.counts.get(microseconds, 0) + 1

    def corrected(self, interval: int) -> Histogram:
        """
        As wrk has it.

        @param interval: from one answer to the next on one connection, on average.
        """
        if interval <= 0:
            return self
        counts = dict(self.counts)
        for taken in sorted(self.counts):
            missed = taken - interval
            while missed > interval:
                counts[missed] = counts.get(missed, 0) + self.counts[taken]
                missed -= interval
        return Histogram(counts)

    def percentile(self, percent: float) -> int:
        """What so many of the answers did not exceed; 0 where there are none."""
        rank = max(1, math.ceil(self.total * percent / 100))
        seen = 0
        for taken in sorted(self.counts):
            seen += self.counts[taken]
            if seen >= rank:
                return taken
        return 0

    def latency(self) -> Latency:
        """In short."""
        return Latency(
            self.percentile(50),
            self.percentile(90),
            self.percentile(99),
            max(self.counts, default=0),
        )
