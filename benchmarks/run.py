"""
What all suites are given: settings, results, progress, and systems to start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from attrs import define, field

from benchmarks.goload import Goload
from benchmarks.process import Failed
from benchmarks.progress import Progress
from benchmarks.rounds import Measurement, Point, Results, measure
from benchmarks.settings import Settings
from benchmarks.systems import SYSTEMS
from benchmarks.systems.base import HttpCluster, System, fresh_directory, running


@define(slots=True, eq=False)
class Run:
    """
    @ivar available: the systems that can be measured here, by name.
    """

    settings: Settings
    goload: Goload
    progress: Progress
    results: Results = field(factory=Results)
    available: dict[str, type[System]] = field(factory=dict)

    def look_around(self) -> None:
        """Which systems can be measured here, and why others cannot."""
        self.progress.say("looking for systems, and building clients")
        for name in self.settings.systems:
            absence = SYSTEMS[name].absence(self.goload)
            if absence is None:
                self.available[name] = SYSTEMS[name]
            else:
                self.skip(name, absence)

    def skip(self, what: str, why: str) -> None:
        """It is not measured, and that is said, once."""
        if self.results.skipped.get(what) != why:
            self.results.skipped[what] = why
            self.progress.say(f"skipped: {what}: {why}")

    @contextlib.contextmanager
    def serving(self, kind: type[System], size: int = 3) -> Iterator[System]:
        """
        A new system that serves.

        @raise Failed: it does not start.
        """
        directory = fresh_directory(self.settings.data_directory, kind.name)
        system = kind(directory, self.goload, size)
        with running(system):
            self.results.note(system.notes())
            yield system

    @contextlib.contextmanager
    def cluster(self, kind: type[HttpCluster], size: int = 3) -> Iterator[HttpCluster]:
        """The same, of a cluster that is spoken to over HTTP."""
        with self.serving(kind, size) as system:
            assert isinstance(system, HttpCluster), kind
            yield system

    def fill(self, system: System, keys: range, value_bytes: int) -> None:
        """
        Put keys in, and show how far it is.

        @raise Failed: not all could be.
        """
        with self.progress.part(f"{system.name}: keys put in", len(keys)) as tell:
            system.fill(keys, value_bytes, tell)

    def rounds(self, suite: str, points: Sequence[Point]) -> None:
        """Each point of each system, in rounds."""
        fit: list[tuple[Point, type[System]]] = []
        for point in points:
            for name, kind in self.available.items():
                unfit = kind.unfit(point.load)
                if unfit is None:
                    fit.append((point, kind))
                else:
                    self.results.note(
                        [f"{name} is left out of {suite} or a part: {unfit}"]
                    )
        rounds = self.settings.rounds
        with self.progress.part(suite, rounds * len(fit)) as tell:
            for number in range(1, rounds + 1):
                for point, kind in fit:
                    measured = self._measure(suite, kind, point, number)
                    self.results.measurements.append(measured)
                    tell(1)
                    self.tell(measured)

    def _measure(
        self, suite: str, kind: type[System], point: Point, number: int
    ) -> Measurement:
        try:
            with self.serving(kind, point.size) as system:
                if point.load.kind.reads:
                    keys = range(point.load.filled_keys)
                    self.fill(system, keys, point.load.value_bytes)
                return self.measure(suite, system, point, number)
        except Failed as error:
            return Measurement(suite, kind.name, point, number, None, str(error))

    def measure(
        self, suite: str, system: System, point: Point, number: int
    ) -> Measurement:
        """One measurement of a system that serves, after it has warmed up."""
        follower = self.settings.follower and point.size > 1
        if self.settings.warm_up_seconds:
            warm = self.settings.warm_up_seconds
            system.run(point.load, warm, follower=follower)
        seconds = self.settings.seconds
        return measure(suite, system, point, number, seconds, follower=follower)

    def tell(self, measured: Measurement) -> None:
        """Say what was measured, in a line."""
        what = f"{measured.suite}, round {measured.round}: {measured.point.label}"
        if measured.figures is None or measured.problem is not None:
            said = f"invalid: {measured.problem}"
        else:
            figures = measured.figures
            said = (
                f"{figures.rate:,.0f}/s, p50 {figures.latency.p50 / 1000:.2f} ms,"
                f" p99 {figures.latency.p99 / 1000:.2f} ms"
            )
        self.progress.say(f"{what}: {measured.system}: {said}")
