"""See L{tests.mutants}."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.mutants.catalogue import MUTANTS, Mutant

ROOT: Final = Path(__file__).resolve().parents[2]
SEEDS: Final = 199
"""How many seeds are tried where the one on record finds nothing."""

SIMULATION_SECONDS: Final = 240
TESTS_SECONDS: Final = 200


@frozen(slots=True)
class Verdict:
    """How a mutant fared; C{by} is empty where nothing found it."""

    mutant: Mutant
    by: str
    seconds: float


def apply(mutant: Mutant, tree: Path) -> None:
    """@raise ValueError: its text does not stand there once."""
    path = tree / "kvdb" / mutant.file
    text = path.read_text()
    if text.count(mutant.before) != 1 or mutant.before == mutant.after:
        raise ValueError(f"{mutant.name}: its text does not stand once in {path}")
    path.write_text(text.replace(mutant.before, mutant.after))


def copy_tree(to: Path) -> None:
    """The product and its tests."""
    for name in ("kvdb", "tests", "twisted", "scripts"):
        shutil.copytree(
            ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__", ".*")
        )
    for name in ("pyproject.toml", "README.md", "Procfile", "Makefile"):
        shutil.copy(ROOT / name, to / name)


def run(tree: Path, seconds: float, *arguments: str) -> tuple[int, str]:
    """Run Python in a tree; its status and what it said."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tree,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"},
        )
    except subprocess.TimeoutExpired:
        return -1, ""
    return done.returncode, done.stdout + done.stderr


def simulate(tree: Path, mutant: Mutant) -> str:
    """Which seed finds it, in words; nothing if none does."""
    first = mutant.seed if mutant.seed is not None else 1
    for seed, seeds in ((first, 1), (1, SEEDS)):
        status, output = run(
            tree,
            SIMULATION_SECONDS,
            *("kvdb.simulation", "--jobs", "1", "--first", "--no-shrink"),
            *("--seed", str(seed), "--seeds", str(seeds)),
        )
        found = re.search(r"^seed (\d+) failed", output, re.MULTILINE)
        if found:
            return f"seed {found[1]}"
        if status not in (0, 1, -1):
            raise RuntimeError(f"{mutant.name}: the simulator failed\n{output}")
    return ""


def test(tree: Path, mutant: Mutant) -> str:
    """Which test finds it, in words; nothing if none does."""
    status, output = run(
        tree,
        TESTS_SECONDS,
        *("pytest", "-x", "-q", "--no-header", "-p", "no:randomly"),
        *mutant.tests.split(),
    )
    failed = [line for line in output.splitlines() if line.startswith("FAILED")]
    if status == 1 and failed:
        return failed[0].removeprefix("FAILED ").split(" - ")[0]
    return ""


def judge(mutant: Mutant) -> Verdict:
    """Make a mutant, and look for it."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place)
        copy_tree(tree)
        apply(mutant, tree)
        by = test(tree, mutant) if mutant.tests and mutant.seed is None else ""
        by = by or simulate(tree, mutant)
    verdict = Verdict(mutant, by, time.monotonic() - started)
    print(f"{'killed ' if by else 'SURVIVED'} {mutant.name}: {by}", flush=True)
    return verdict


def main() -> int:
    """All that is asked for; 0 if every one was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants")
    parser.add_argument("--only", help="part of a name")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if not options.only or options.only in m.name]
    with ThreadPoolExecutor(options.jobs) as pool:
        verdicts = list(pool.map(judge, chosen))
    survivors = [v.mutant.name for v in verdicts if not v.by]
    print(f"{len(verdicts) - len(survivors)} of {len(verdicts)} mutants killed")
    for name in survivors:
        print(f"survived: {name}")
    return 1 if survivors or not verdicts else 0


if __name__ == "__main__":
    sys.exit(main())
