"""
Whole clusters in virtual time: a fixed set of seeds, and the simulator itself.

It takes about a minute; make sim runs more seeds, and demands that a larger set
reaches all that is to be reached.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections import Counter
from itertools import islice

import pytest
from attrs import evolve

from kvdb.simulation.__main__ import main
from kvdb.simulation.cluster import Cluster
from kvdb.simulation.run import Case, run, shrink
from kvdb.simulation.swarm import draw_case, not_reached

pytestmark = pytest.mark.logs_errors

SEEDS = range(1, 81)
PARTS = 8

MAX_KEPT_OBJECTS = 2_000
"""By how many objects a process may grow over 25 runs, each of which makes some
100,000."""


# Counting lines more than doubles what it takes: of the first part alone.
@pytest.mark.parametrize(
    "part",
    [0, *(pytest.param(n, marks=pytest.mark.no_cover) for n in range(1, PARTS))],
)
def test_nothing_is_found_wrong(part: int) -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS[part::PARTS]:
        report = run(draw_case(seed))
        assert report.violation is None, f"seed {seed}: {report.violation}"
        counts += report.counts
    assert counts["operations done"] > 500
    assert counts["elections"] > 20
    assert sum(n for name, n in counts.items() if name.startswith("fault: ")) > 100


def test_a_seed_gives_the_same_run_whatever_the_hashes() -> None:
    """Of strings, which Python seeds anew in each process."""
    script = (
        "from kvdb.simulation.run import run\n"
        "from kvdb.simulation.swarm import draw_case\n"
        "lines = []\n"
        "report = run(draw_case(7, 12.0), lines.append)\n"
        "assert report.violation is None, report.violation\n"
        "print(report.hash, report.events, len(lines))\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", script],
            check=True,
            capture_output=True,
            text=True,
            timeout=100,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1, said
    assert int(said.pop().split()[2]) > 100


def test_what_one_source_draws_does_not_move_the_others() -> None:
    case = draw_case(7, 12.0)
    fewer = evolve(case, faults=case.faults[1:])
    assert fewer.faults == case.faults[1:]
    assert run(case).hash == run(case).hash != run(fewer).hash


@pytest.mark.no_cover
def test_a_violation_is_found_told_and_shrunk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a node that answers reads without asking anybody."""
    monkeypatch.setattr("kvdb.rest.keys.consistency_of", lambda args: False)
    seeds = iter(range(1, 30))
    whole = next(case for case in map(short, seeds) if run(case).violation)
    case, report = shrink(whole, lambda line: None)
    assert report.violation is not None and "linearizability" in report.violation
    assert len(case.faults) < len(whole.faults) or case.seconds < whole.seconds
    seed = str(whole.plan.seed)
    shown = ["--seed", seed, "--seconds", str(whole.seconds), "--no-shrink"]
    assert main(shown) == 1
    said = capsys.readouterr().out
    assert "violated" in said and f"--seed {seed}" in said


def short(seed: int) -> Case:
    """A case of which many can be run."""
    return draw_case(seed, 10.0)


@pytest.mark.no_cover
def test_nothing_of_a_run_stays_in_memory() -> None:
    """Neither its clusters nor, however many runs there are, anything of them."""

    def objects() -> int:
        gc.collect()
        return len(gc.get_objects())

    runs = map(short, range(1, 31))
    for case in islice(runs, 5):  # and what is made once per process
        run(case)
    before = objects()
    for case in runs:
        run(case)
    assert objects() - before < MAX_KEPT_OBJECTS
    assert not [found for found in gc.get_objects() if type(found) is Cluster]


def test_what_was_wrong_is_shown_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Be it in brackets, which are markup to who prints it."""
    wrong = "members [all] differ, [/red] and [b'k', 5]"
    case = evolve(short(3), faults=())
    report = evolve(run(case), violation=wrong)
    monkeypatch.setattr("kvdb.simulation.__main__.run", lambda *args: report)
    assert main(["--seed", "3", "--no-shrink"]) == 1
    assert f"violated: {wrong}" in capsys.readouterr().out


def test_the_command_tells_what_was_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--seconds", "8", "--trace"]) == 0
    said = capsys.readouterr().out
    assert "leads in term" in said and "virtual seconds" in said


def test_the_command_tells_what_many_runs_came_to() -> None:
    """In a process of its own, as it forks: other tests leave threads behind."""
    command = [sys.executable, "-m", "kvdb.simulation", "--seed", "3", "--seeds", "3"]
    said = subprocess.run(
        [*command, "--seconds", "8", "--jobs", "1"],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    ).stdout
    assert "3 runs" in said and "nothing was found wrong" in said


def test_a_set_that_never_reaches_something_says_so() -> None:
    assert "fault: kill" in not_reached(Counter())
    assert "fault: kill" not in not_reached(Counter({"fault: kill": 1}))
