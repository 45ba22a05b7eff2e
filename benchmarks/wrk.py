"""
wrk: closed loops over HTTP, and what it says of them.

It runs C{load.lua}, whose last line of output has the figures.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

from benchmarks.latency import Latency
from benchmarks.load import Figures, Load
from benchmarks.process import Failed, run_to_end

SCRIPT: Final = Path(__file__).with_name("load.lua")
FIGURES: Final = "FIGURES "
ANSWER_SECONDS: Final = 10
"""An answer that takes longer is an error."""

MARGIN_SECONDS: Final = 30.0
"""Beyond its time, within which it has to end."""

FEW_CONNECTIONS: Final = 32
"""Up to so many, one thread of the client is enough."""

ERROR_NAMES: Final = {
    "connect": "connections refused",
    "read": "errors reading",
    "write": "errors writing",
    "timeout": "time-outs",
    "status": "answers of 400 and above",
}


def absence() -> str | None:
    """Why it cannot be used here."""
    return None if shutil.which("wrk") else "wrk is not installed"


def run(address: str, dialect: str, load: Load, seconds: int) -> Figures:
    """
    One measurement.

    @param dialect: the name of one.
    @raise Failed: wrk does not run.
    """
    threads = 1 if load.connections <= FEW_CONNECTIONS else 2
    keys = load.filled_keys if load.kind.reads else load.keys
    command = ["wrk", f"-t{threads}", f"-c{load.connections}", f"-d{seconds}s"]
    command += ["--timeout", f"{ANSWER_SECONDS}s", "-s", str(SCRIPT)]
    command += [f"http://{address}/", "--", dialect, load.kind.value]
    command += [str(load.value_bytes), str(keys), load.skew.value, str(load.seed)]
    done = run_to_end(command, seconds + MARGIN_SECONDS)
    return parse(done.output, done.cpu_seconds)


def parse(output: str, client_cpu_seconds: float | None = None) -> Figures:
    """
    What wrk has said.

    @raise Failed: there are no figures in it.
    """
    for line in output.splitlines():
        if line.startswith(FIGURES):
            told = json.loads(line.removeprefix(FIGURES))
            return Figures(
                told["requests"],
                told["microseconds"] / 1e6,
                Latency(**told["latency"]),
                {ERROR_NAMES[k]: n for k, n in told["errors"].items() if n},
                client_cpu_seconds,
            )
    raise Failed("wrk has given no figures")
