"""
How far a run is: bars on a terminal, lines elsewhere.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

from attrs import define, field
from rich import progress as rich_progress
from rich.console import Console

TELL_SECONDS: Final = 30.0
"""How often progress is told where there is no terminal."""


@define(slots=True, eq=False)
class Progress:
    """Shown while it is entered."""

    console: Console
    _bars: rich_progress.Progress = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._bars = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
        )

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def say(self, line: str) -> None:
        """One line, above the bars."""
        self.console.print(line, markup=False)

    @contextlib.contextmanager
    def part(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """A part of the run; what it gives is told of each step."""
        task = self._bars.add_task(what, total=total)
        done, told = 0, time.monotonic()

        def tell(steps: int) -> None:
            nonlocal done, told
            done += steps
            self._bars.update(task, completed=done)
            if not self.console.is_terminal and time.monotonic() > told + TELL_SECONDS:
                told = time.monotonic()
                self.say(f"{what}: {done:,} of {total:,}")

        try:
            yield tell
        finally:
            self._bars.remove_task(task)
