"""
Runs of a cluster in virtual time, from the command line.

::

    python -m kvdb.simulation --seed 42 --trace     one run, told as it goes
    python -m kvdb.simulation --seeds 1000          many, on all processors

The exit status is 0 if nothing was found wrong, and all that must be reached
was reached; 1 if something was; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from threading import Thread
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from twisted.logger import globalLogBeginner

from kvdb.simulation.run import Report, run, shrink
from kvdb.simulation.swarm import REACH_SEEDS, SECONDS, draw_case, not_reached

TELL_SECONDS: Final = 30.0
"""How often progress is told where there is no terminal."""

AHEAD: Final = 4
"""Runs begun ahead of the one waited for, per process."""

TAIL_LINES: Final = 60
"""Of the trace of a shrunk case, so many lines are shown."""

console = Console(soft_wrap=True, highlight=False)


def main(arguments: list[str] | None = None) -> int:
    """Do what is asked; the exit status."""
    options = parse(arguments)
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    if options.seeds is None:
        return one(options)
    return many(options)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """What is asked."""
    parser = argparse.ArgumentParser(
        prog="python -m kvdb.simulation",
        description="Run clusters in virtual time, with faults, and check them.",
    )
    parser.add_argument("--seed", type=int, default=1, help="the first or only one")
    parser.add_argument("--seeds", type=int, help="how many, from --seed on")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="virtual seconds with faults"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="processes at a time"
    )
    parser.add_argument(
        "--budget", type=float, help="start no more runs after so many seconds"
    )
    parser.add_argument(
        "--first", action="store_true", help="stop at the first run that fails"
    )
    parser.add_argument("--trace", action="store_true", help="tell all of a run")
    parser.add_argument(
        "--no-shrink", action="store_true", help="show a failure as it was found"
    )
    return parser.parse_args(arguments)


def one(options: argparse.Namespace) -> int:
    """One run."""
    trace = _print if options.trace else None
    report = run(draw_case(options.seed, options.seconds), trace)
    console.print(
        f"seed {options.seed}: {report.virtual:.1f} virtual seconds,"
        f" {report.virtual / report.real:.0f} times as fast as real time,"
        f" trace {report.hash}"
    )
    summarize(report.counts)
    if report.violation is None:
        return 0
    explain(options, report)
    return 1


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _run_seed(seed: int, seconds: float) -> Report:
    return run(draw_case(seed, seconds))


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    parent.join()
    os._exit(1)


def many(options: argparse.Namespace) -> int:
    """Many runs, and what they came to."""
    counts: Counter[str] = Counter()
    failures: list[Report] = []
    virtual: defaultdict[int, float] = defaultdict(float)  # by size of cluster
    real: defaultdict[int, float] = defaultdict(float)
    runs = 0
    started = time.monotonic()
    try:
        for report in reports(options):
            runs += 1
            counts += report.counts
            size = report.case.plan.size
            virtual[size] += report.virtual
            real[size] += report.real
            if report.violation is not None:
                failures.append(report)
                seed = report.case.plan.seed
                said = escape(first_line(report))
                console.print(f"[red]seed {seed} failed[/]: {said}")
                if options.first:
                    break
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130
    summarize(counts)
    console.print(
        f"{runs} runs, {sum(virtual.values()) / 3600:.2f} virtual hours in"
        f" {time.monotonic() - started:.0f} s.  Times as fast as real time, on one"
        " processor, by members at the beginning: "
        + ", ".join(f"{n}: {virtual[n] / real[n]:.0f}" for n in sorted(real))
    )
    missed = not_reached(counts) if runs >= REACH_SEEDS else []
    for name in missed:
        console.print(f"[red]never reached[/]: {name}")
    if failures:
        explain(options, min(failures, key=lambda report: report.virtual))
        seeds = sorted(report.case.plan.seed for report in failures)
        console.print(f"[red]{len(failures)} of {runs} runs failed[/]: seeds {seeds}")
    else:
        console.print(f"[green]nothing was found wrong in {runs} runs[/]")
    return 1 if failures or missed or not runs else 0


def reports(options: argparse.Namespace) -> Iterator[Report]:
    """The runs that are asked for, as they end, with a progress bar."""
    first, seeds = options.seed, options.seeds
    started = time.monotonic()

    def seeds_to_run() -> Iterator[int]:
        for seed in range(first, first + seeds):
            if options.budget and time.monotonic() - started > options.budget:
                return
            yield seed

    bar = Progress(
        TextColumn("simulating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[hours]:.2f} virtual hours"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    done, virtual, told = 0, 0.0, started
    context = multiprocessing.get_context("fork")
    with (
        context.Pool(options.jobs, _begin_worker) as pool,
        bar,
    ):
        task = bar.add_task("", total=seeds, hours=0.0)
        for report in _in_turn(pool, options, seeds_to_run()):
            done += 1
            virtual += report.virtual
            bar.update(task, advance=1, hours=virtual / 3600)
            if not console.is_terminal and time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                console.print(f"{done} of {seeds} runs, {virtual / 3600:.2f} hours")
            yield report


def _in_turn(pool: Any, options: argparse.Namespace, seeds: Iterator[int]) -> Any:
    """The reports, in the order of the seeds, with few begun ahead."""
    ahead: deque[Any] = deque()
    for seed in seeds:
        ahead.append(pool.apply_async(_run_seed, (seed, options.seconds)))
        while len(ahead) >= AHEAD * options.jobs:
            yield ahead.popleft().get()
    for begun in ahead:
        yield begun.get()


def summarize(counts: Counter[str]) -> None:
    """What happened."""
    table = Table("what", "how often", box=None)
    for name in sorted(counts):
        table.add_row(name, f"{counts[name]:,}")
    console.print(table)


def first_line(report: Report) -> str:
    """What was wrong, in short."""
    lines = (report.violation or "").strip().splitlines()
    return (lines[-1] if lines and lines[0].startswith("Traceback") else lines[0])[:200]


def explain(options: argparse.Namespace, report: Report) -> None:
    """Show a failure, made as small as can be."""
    case, seed = report.case, report.case.plan.seed
    if not options.no_shrink and case.faults:
        console.print(f"shrinking seed {seed}, of {len(case.faults)} faults ...")
        case, report = shrink(case, console.print)
    lines: list[str] = []
    run(case, lines.append)
    console.print(f"\nseed {seed}, {len(case.faults)} faults:")
    for fault in case.faults:
        console.print(f"  {fault}", markup=False)
    console.print(f"the last {TAIL_LINES} lines of {len(lines)}:")
    for line in lines[-TAIL_LINES:]:
        console.print(f"  {line}", markup=False)
    console.print(f"\n[red]violated[/]: {escape(str(report.violation))}")
    console.print(
        f"again: python -m kvdb.simulation --seed {seed}"
        f" --seconds {options.seconds:g} --trace"
    )


if __name__ == "__main__":
    sys.exit(main())
