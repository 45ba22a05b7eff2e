"""
The suite watch, of kvdb alone: many who watch, all on the member that leads.

First they watch other keys than those that are written, at full speed: what that
takes off the rate.  Then each watches a key of its own while writes come at a
fixed rate, and every one of them must be told, in order.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.dialect import Request
from benchmarks.load import Kind, Load
from benchmarks.process import (
    Failed,
    Process,
    clean_environment,
    until,
)
from benchmarks.rounds import Cost, Point
from benchmarks.run import Run
from benchmarks.systems.base import HttpCluster, Member
from benchmarks.systems.kvdb import Kvdb

SUITE: Final = "watch"
CONNECTIONS: Final = 128
RATE: Final = 2_000
"""Writes a second, while all are told."""

DELIVERY_SECONDS: Final = 30.0
"""After the last write, within which all must be told."""

MEGABYTE: Final = 1_000_000


def watch(run: Run) -> None:
    """Both."""
    if Kvdb.name not in run.available:
        run.skip(SUITE, "kvdb is not measured")
        return
    try:
        with run.cluster(Kvdb) as cluster:
            _others(run, cluster)
        with run.cluster(Kvdb) as cluster:
            _delivered(run, cluster)
    except Failed as error:
        _cost(run, "all", "", None, str(error))


def _cost(
    run: Run, what: str, unit: str, value: float | None, failure: str | None = None
) -> None:
    title = f"{run.settings.watchers:,} watchers: {what}"
    run.results.costs.append(Cost(SUITE, title, Kvdb.name, unit, 1, value, failure))


@contextlib.contextmanager
def _watching(run: Run, leader: Member, prefix: str) -> Iterator[Process]:
    """So many who watch."""
    command = [sys.executable, "-m", "benchmarks.watching", leader.address]
    command += [str(run.settings.watchers), "--prefix", prefix]
    process = Process(
        "the watchers",
        command,
        Path(__file__).parents[1],
        leader.process.directory / "watchers.log",
        clean_environment("KVDB_"),
        talks=True,
    )
    process.start()
    try:
        assert process.running.stdout is not None, "it talks"
        if process.running.stdout.readline().strip() != b"ready":
            process.wait()
            process.require_alive()
        yield process
    finally:
        process.kill()


def _told(process: Process) -> Any:
    """What the watchers have heard."""
    running = process.running
    assert running.stdin is not None and running.stdout is not None, "it talks"
    running.stdin.write(b"\n")
    running.stdin.flush()
    line = running.stdout.readline()
    if not line:
        process.wait()
        process.require_alive()
    return json.loads(line)


def _load(run: Run, rate: int | None = None) -> Load:
    settings = run.settings
    size = settings.value_bytes[0]
    keys = settings.watchers
    return Load(Kind.PUT, CONNECTIONS, size, keys, settings.skew, settings.seed, rate)


def _others(run: Run, cluster: HttpCluster) -> None:
    """The rate with and without those who watch other keys, in turn."""
    leader = cluster.leader()
    without = Point("put, nobody watches", _load(run))
    with_them = Point(f"put, {run.settings.watchers:,} watch other keys", _load(run))
    run.measure(SUITE, cluster, without, 0)  # to warm up
    for number in range(1, run.settings.rounds + 1):
        for point in (without, with_them):
            with contextlib.ExitStack() as stack:
                if point is with_them:
                    stack.enter_context(_watching(run, leader, "other-"))
                measured = run.measure(SUITE, cluster, point, number)
            run.results.measurements.append(measured)
            run.tell(measured)


def _delivered(run: Run, cluster: HttpCluster) -> None:
    """Whether each hears of each write to its key, and what that takes."""
    problem = run.goload.usable()
    if problem is not None:
        run.skip("watch: delivery", problem)
        return
    leader = cluster.leader()
    before = leader.process.usage()
    with _watching(run, leader, "") as watchers:
        begun = leader.process.usage()
        first = _revision(leader)
        figures = cluster.run(_load(run, RATE), 2 * run.settings.seconds)
        written = _revision(leader) - first
        until(
            lambda: _told(watchers)["events"] >= written,
            "all are told",
            DELIVERY_SECONDS,
        )
        told = _told(watchers)
        loaded = leader.process.usage()
    failure = figures.problem
    if (told["distinct"], told["disorder"], told["ended"]) != (written, 0, 0):
        failure = f"{written} writes, and watchers heard {told}"
    kept = (begun.resident_bytes - before.resident_bytes) / run.settings.watchers
    for what, unit, value in (
        ("memory of their member before", "MB", before.resident_bytes / MEGABYTE),
        ("the same with all of them", "MB", begun.resident_bytes / MEGABYTE),
        ("the same under load", "MB", loaded.resident_bytes / MEGABYTE),
        ("for each of them", "kB", kept / 1000),
        (f"writes a second, {RATE:,} asked for", "", figures.rate),
        ("events told, each once and in order", "", told["events"]),
        ("from proposal to arrival, p50", "ms", told["p50"]),
        ("from proposal to arrival, p99", "ms", told["p99"]),
    ):
        _cost(run, what, unit, value, failure)


def _revision(leader: Member) -> int:
    status = leader.told(Request("GET", "/_/status"))
    if status is None:
        raise Failed("the leader does not tell its status")
    revision: int = status["revision"]
    return revision
