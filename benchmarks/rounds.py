"""
Measurements, and rounds of them.

In a round each system is measured once at each point, one right after the other;
then the next round begins.  So what the machine does to one it does to all: medians
are over rounds, and a ratio is taken within each round before their median is.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence

from attrs import asdict, define, field, frozen

from benchmarks.load import Figures, Load
from benchmarks.process import Failed, Process, Usage
from benchmarks.systems.base import System


@frozen(slots=True)
class Point:
    """
    What is measured, of all systems alike.

    @ivar size: of how many members a cluster is.
    """

    label: str
    load: Load
    size: int = 3


@frozen(slots=True)
class Measurement:
    """
    @ivar figures: None where there are none; then C{failure} says why.
    @ivar usage: what each process used meanwhile.
    """

    suite: str
    system: str
    point: Point
    round: int
    figures: Figures | None
    failure: str | None = None
    usage: dict[str, Usage] = field(factory=dict)

    @property
    def problem(self) -> str | None:
        """Why it says nothing."""
        return self.failure if self.figures is None else self.figures.problem

    @property
    def valid(self) -> bool:
        """Whether it counts."""
        return self.problem is None


@frozen(slots=True)
class Cost:
    """
    One value of what something costs, or how long it takes.

    @ivar what: the name of a row.
    """

    suite: str
    what: str
    system: str
    unit: str
    round: int
    value: float | None
    failure: str | None = None


@define(slots=True)
class Results:
    """
    All that was measured.

    @ivar skipped: what was not, and why.
    @ivar notes: what has to be known to judge it.
    """

    measurements: list[Measurement] = field(factory=list)
    costs: list[Cost] = field(factory=list)
    skipped: dict[str, str] = field(factory=dict)
    notes: list[str] = field(factory=list)

    def note(self, lines: Iterable[str]) -> None:
        """Each once."""
        self.notes += [line for line in lines if line not in self.notes]

    def as_json(self) -> dict[str, object]:
        """For a file."""
        return asdict(
            self,
            value_serializer=lambda _, __, value: getattr(value, "value", value),
        )


def measure(
    suite: str,
    system: System,
    point: Point,
    number: int,
    seconds: int,
    *,
    follower: bool = False,
) -> Measurement:
    """One measurement of a system that serves."""
    try:
        processes = system.processes()
        before = _usage(processes)
        figures = system.run(point.load, seconds, follower=follower)
        after = _usage(processes)
    except Failed as error:
        return Measurement(suite, system.name, point, number, None, str(error))
    used = {name: usage.since(before[name]) for name, usage in after.items()}
    return Measurement(suite, system.name, point, number, figures, None, used)


def _usage(processes: dict[str, Process]) -> dict[str, Usage]:
    return {name: process.usage() for name, process in processes.items()}


Value = Callable[[Measurement], float]


def of(
    measurements: Iterable[Measurement], system: str, label: str
) -> list[Measurement]:
    """Those of one system at one point."""
    return [m for m in measurements if m.system == system and m.point.label == label]


def median(measurements: Iterable[Measurement], value: Value) -> float | None:
    """Of those that are valid; None where none is."""
    values = [value(m) for m in measurements if m.valid]
    return statistics.median(values) if values else None


def rate(measurement: Measurement) -> float:
    """Requests a second, of one that is valid."""
    assert measurement.figures is not None, "a measurement without figures"
    return measurement.figures.rate


def ratio(
    ours: Sequence[Measurement], theirs: Sequence[Measurement], value: Value = rate
) -> float | None:
    """
    The median of the ratios within rounds.

    None where no round has both.
    """
    ratios = [
        value(mine) / value(other)
        for mine in ours
        for other in theirs
        if mine.round == other.round and mine.valid and other.valid
    ]
    return statistics.median(ratios) if ratios else None
