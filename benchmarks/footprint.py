"""
Of the suite costs: memory, disk and processor that keys and writes take.

Keys of 100 bytes are put in, each once, over as many connections as a preload
uses; what the processes then have used was used for that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from benchmarks.load import key_name
from benchmarks.process import Failed, Usage
from benchmarks.rounds import Cost
from benchmarks.run import Run
from benchmarks.systems.base import HttpCluster

VALUE_BYTES: Final = 100
MEGABYTE: Final = 1_000_000


def takes(run: Run, kind: type[HttpCluster]) -> None:
    """What so many keys take."""
    run.progress.say(f"costs: what keys and writes take ({kind.name})")
    count = run.settings.memory_keys
    title = f"{count:,} keys of {VALUE_BYTES} B"
    try:
        with run.cluster(kind) as cluster:
            leader = cluster.leader()
            before = _usages(cluster)
            run.fill(cluster, range(count), VALUE_BYTES)
            after = _usages(cluster)
    except Failed as error:
        what = f"{title}: resident memory of the leader"
        failed = Cost("costs", what, kind.name, "MB", 1, None, str(error))
        run.results.costs.append(failed)
        return
    used = {number: usage.since(before[number]) for number, usage in after.items()}
    leading = used.pop(leader.number)
    stored = count * (VALUE_BYTES + len(key_name(0)))
    for role, usages in (("the leader", [leading]), ("a follower", used.values())):
        rows = {
            f"resident memory of {role}": ("MB", _most(usages, "resident_bytes")),
            f"the same, but for mapped files, of {role}": (
                "MB",
                _most(usages, "private_bytes"),
            ),
            f"peak memory of {role}": ("MB", _most(usages, "peak_bytes")),
            f"bytes that {role} wrote per byte stored": (
                "",
                _mean(u.written_bytes for u in usages) / stored,
            ),
            f"CPU of {role} per 1000 writes": (
                "ms",
                1000 * _mean(u.cpu_seconds for u in usages) / (count / 1000),
            ),
        }
        for what, (unit, value) in rows.items():
            cost = Cost("costs", f"{title}: {what}", kind.name, unit, 1, value)
            run.results.costs.append(cost)


def _usages(cluster: HttpCluster) -> dict[int, Usage]:
    return {m.number: m.process.usage() for m in cluster.members}


def _most(usages: Iterable[Usage], name: str) -> float:
    most: int = max(getattr(usage, name) for usage in usages)
    return most / MEGABYTE


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
