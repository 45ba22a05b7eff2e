"""
What the disk alone can do: append a page and sync it, again and again.
"""

from __future__ import annotations

import os
import time
from typing import ClassVar, Final

from attrs import define

from benchmarks.latency import Histogram
from benchmarks.load import Figures, Kind, Load
from benchmarks.process import Process
from benchmarks.systems.base import System, Tell

PAGE_BYTES: Final = 4096


@define(slots=True, eq=False)
class Fdatasync(System):
    """One file, and nobody else."""

    name: ClassVar[str] = "fdatasync"

    @classmethod
    def unfit(cls, load: Load) -> str | None:
        """See L{System}."""
        if load.kind is not Kind.PUT or load.connections != 1:
            return "it is one writer after another, and only writes"
        return None

    def start(self) -> None:
        """Nothing is started."""

    def fill(self, keys: range, value_bytes: int, tell: Tell) -> None:
        """See L{System}."""
        tell(len(keys))

    def run(self, load: Load, seconds: int, *, follower: bool = False) -> Figures:
        """See L{System}."""
        page = os.urandom(PAGE_BYTES)
        histogram = Histogram()
        path = self.directory / "pages"
        used = time.process_time()
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            begun = now = time.monotonic()
            while now < begun + seconds:
                os.write(descriptor, page)
                os.fdatasync(descriptor)
                before, now = now, time.monotonic()
                histogram.add(round((now - before) * 1e6))
        finally:
            os.close(descriptor)
        latency = histogram.latency()
        used = time.process_time() - used
        return Figures(histogram.total, now - begun, latency, {}, used)

    def processes(self) -> dict[str, Process]:
        """None but ours."""
        return {}

    def notes(self) -> list[str]:
        """See L{System}."""
        return [
            f"fdatasync: {PAGE_BYTES} bytes appended and synced, whatever the value"
        ]
