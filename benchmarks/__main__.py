"""
Measurements from the command line; see L{benchmarks}.

The exit status is 0 if all that was measured is valid, 1 if not, 2 if it could not
begin, and 130 after Ctrl-C, with what was measured until then.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from attrs import asdict, evolve
from rich.console import Console

from benchmarks import plot, report
from benchmarks.costs import costs
from benchmarks.goload import Goload
from benchmarks.load import MAX_KEYS, Skew
from benchmarks.machine import machine, warnings
from benchmarks.open_loop import open_loop
from benchmarks.process import Failed
from benchmarks.progress import Progress
from benchmarks.run import Run
from benchmarks.scale import scale
from benchmarks.settings import SUITES, Settings
from benchmarks.systems import SYSTEMS
from benchmarks.throughput import mix, puts, reads
from benchmarks.watch import watch

WORK: Final[dict[str, Callable[[Run], None]]] = {
    "puts": puts,
    "reads": reads,
    "mix": mix,
    "open": open_loop,
    "costs": costs,
    "watch": watch,
    "scale": scale,
}

QUICK: Final[dict[str, object]] = {
    "rounds": 1,
    "seconds": 1,
    "warm_up_seconds": 0,
    "connections": (1, 32),
    "value_bytes": (64,),
    "keys": 1000,
    "rates": (200, 500),
    "repetitions": 2,
    "memory_keys": 5000,
    "behind_writes": 2000,
    "restart_keys": (1000, 5000),
    "scale_keys": (1000, 5000),
    "sizes": (1, 3),
    "watchers": 100,
}

FILE_COLUMNS: Final = 160
"""Of output that goes to no terminal."""

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = FILE_COLUMNS


def _numbers(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() and int(word) for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers between commas")
    return tuple(int(word) for word in words)


def _number(text: str) -> int:
    numbers = _numbers(text)
    if len(numbers) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one number")
    return numbers[0]


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not 0 or more")
    return int(text)


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        named = text.split(",")
        for name in named:
            if name not in known:
                said = f"{name!r} is none of {', '.join(known)}"
                raise argparse.ArgumentTypeError(said)
        return tuple(name for name in known if name in named)

    return read


def parse(arguments: list[str] | None) -> Settings:
    """What is asked."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure kvdb, and others beside it.",
    )
    add = parser.add_argument
    add("--systems", type=_names(tuple(SYSTEMS)), default=tuple(SYSTEMS))
    add("--suites", type=_names(SUITES), default=SUITES)
    add("--quick", action="store_true", help="few points, for a second each")
    add("--rounds", type=_number)
    add("--seconds", type=_number, help="of each measurement")
    add("--warm-up-seconds", type=_whole)
    add("--connections", type=_numbers, help="such as 1,8,32")
    add("--value-bytes", type=_numbers, help="such as 64,1024")
    add("--keys", type=_number)
    add("--skew", choices=[skew.value for skew in Skew], help="the choice of keys")
    add("--follower", action="store_true", default=None, help="ask a follower")
    add("--rates", type=_numbers, help="of open loops, in requests a second")
    add("--repetitions", type=_number, help="of what is done to a leader")
    add("--memory-keys", type=_number)
    add("--behind-writes", type=_number)
    add("--restart-keys", type=_numbers)
    add("--scale-keys", type=_numbers)
    add("--sizes", type=_numbers, help="of clusters, in the suite scale")
    add("--watchers", type=_number, help="in the suite watch")
    add("--seed", type=_whole)
    add("--data-dir", type=Path, dest="data_directory", help="on the disk measured")
    add("--output", type=Path, default=Path("run/benchmarks"))
    told = vars(parser.parse_args(arguments))
    chosen = dict(QUICK) if told.pop("quick") else {}
    chosen |= {name: value for name, value in told.items() if value is not None}
    chosen.setdefault("data_directory", Path(tempfile.gettempdir()))
    if "skew" in chosen:
        chosen["skew"] = Skew(chosen["skew"])
    settings = Settings(**chosen)  # type: ignore[arg-type]
    for name in ("keys", "memory_keys", "behind_writes", "restart_keys", "scale_keys"):
        count = getattr(settings, name)
        if max(count if isinstance(count, tuple) else (count,)) > MAX_KEYS:
            parser.error(f"at most {MAX_KEYS:,} keys")
    if list(settings.restart_keys) != sorted(settings.restart_keys):
        parser.error("--restart-keys must grow")
    return settings


def _interrupt(number: int, _: object) -> NoReturn:
    for signal_ in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_, signal.SIG_IGN)  # said once is enough
    raise KeyboardInterrupt(signal.Signals(number).name)


def _measure(run: Run) -> bool:
    """Whether it came to its end."""
    try:
        run.look_around()
        with run.progress:
            for suite in run.settings.suites:
                WORK[suite](run)
    except KeyboardInterrupt:
        console.print("interrupted: this is what was measured until then")
        return False
    return True


def main(arguments: list[str] | None = None) -> int:
    """Measure, and tell; the exit status."""
    settings = parse(arguments)
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
        own = Path(
            tempfile.mkdtemp(prefix="kvdb-benchmarks-", dir=settings.data_directory)
        )
    except OSError as error:
        console.print(f"error: {error.filename}: {error.strerror}", markup=False)
        return 2
    about = machine(settings.data_directory)
    run = Run(evolve(settings, data_directory=own), Goload(own), Progress(console))
    for warning in warnings(settings.data_directory):
        run.results.note([warning])
        console.print(f"warning: {warning}", markup=False)
    try:
        complete = _measure(run)
        for table in report.tables(run.results):
            report.show(table, console)
        for note in run.results.notes:
            console.print(f"* {note}", markup=False)
        report.write(run.results, about, _as_text(settings), settings.output)
        written = plot.write(run.results, settings.output)
    except Failed as error:
        console.print(f"error: {error}", markup=False)
        return 2
    finally:
        shutil.rmtree(own, ignore_errors=True)
    names = ", ".join(["results.json", "results.md", *(path.name for path in written)])
    console.print(f"in {settings.output}: {names}", markup=False)
    if not complete:
        return 130
    valid = all(m.valid for m in run.results.measurements)
    valid &= all(cost.value is not None for cost in run.results.costs)
    return 0 if valid else 1


def _as_text(settings: Settings) -> dict[str, object]:
    return asdict(
        settings,
        value_serializer=lambda _, __, value: (
            str(value) if isinstance(value, Path) else getattr(value, "value", value)
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
