"""The whole program, of what is quick to measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import wrk

ROOT = Path(__file__).resolve().parent.parent.parent


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.skipif(wrk.absence() is not None, reason=wrk.absence() or "wrk is here")
def test_bare(tmp_path: Path) -> None:
    output, data = tmp_path / "output", tmp_path / "data"
    data.mkdir()
    done = benchmarks(
        *("--quick", "--systems", "bare-protocol,fdatasync"),
        *("--suites", "puts", "--connections", "1"),
        *("--output", str(output), "--data-dir", str(data)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads((output / "results.json").read_text())
    assert told["machine"]["kernel"]
    measured = {m["system"]: m["figures"] for m in told["measurements"]}
    assert (
        measured["bare-protocol"]["requests"] > measured["fdatasync"]["requests"] / 50
    )
    assert measured["bare-protocol"]["errors"] == {}
    assert "bare-protocol" in (output / "results.md").read_text()
    assert (output / "put.svg").exists()
    assert not list(data.iterdir())  # nothing is left


def test_errors_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = benchmarks("--quick", "--output", str(file / "below"))
    assert done.returncode == 2
    (line,) = done.stdout.splitlines()
    assert line.startswith("error: ")
    assert not done.stderr
