"""
Of the suite costs: how long nobody serves when the leader goes.

* B{killed}: its process ends at once, and its connections are closed.
* B{frozen}: its process stops without ending (SIGSTOP), as when its machine goes
  away: nothing is closed, and nobody is told.
* B{stopped}: in peace (SIGTERM), while clients write to a follower.

All with default ticks.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import time
from collections.abc import Iterator
from typing import Final

from benchmarks.attempts import Attempt, Writer
from benchmarks.process import Failed
from benchmarks.rounds import Cost
from benchmarks.run import Run
from benchmarks.systems.base import HttpCluster, Member

SHORT_SECONDS: Final = 0.5
"""For an attempt where the leader dies: it is soon given up for the next."""

LONG_SECONDS: Final = 10.0
"""For an attempt where the leader stops in peace: longer than a server's own."""

WARM_WRITES: Final = 20
"""Acknowledged before anything is done to the leader."""

AFTER_WRITES: Final = 20
"""Acknowledged of those begun after it has ended."""

KILLED: Final = "leader killed: until a write is acknowledged"
FROZEN: Final = "leader frozen: until a write is acknowledged"
STOPPED: Final = "leader stopped in peace: until a write is acknowledged"
SILENT: Final = "leader stopped in peace: longest time without an acknowledgement"
LOST: Final = "leader stopped in peace: writes that failed"


def leader_goes(run: Run, kind: type[HttpCluster]) -> None:
    """All three, each so many times, in one cluster."""
    run.progress.say(f"costs: the leader goes ({kind.name})")
    repetitions = run.settings.repetitions
    try:
        with (
            run.cluster(kind) as cluster,
            run.progress.part(f"{kind.name}: leader goes", 3 * repetitions) as tell,
        ):
            for number in range(1, repetitions + 1):
                for work in (_killed, _frozen, _stopped):
                    for cost in work(cluster, number):
                        run.results.costs.append(cost)
                    tell(1)
    except Failed as error:
        cost = Cost("costs", KILLED, kind.name, "ms", 0, None, str(error))
        run.results.costs.append(cost)


def _cost(
    cluster: HttpCluster, what: str, number: int, value: float, unit: str = "ms"
) -> Cost:
    return Cost("costs", what, cluster.name, unit, number, value)


@contextlib.contextmanager
def _writer(
    addresses: list[str], cluster: HttpCluster, seconds: float
) -> Iterator[Writer]:
    writer = Writer(addresses, cluster.dialect, seconds)
    try:
        yield writer
    finally:
        writer.close()


def _taken(cluster: HttpCluster, leader: Member, how: signal.Signals) -> float:
    """How long nobody acknowledges a write that begins after the leader is gone."""
    others = [m.address for m in cluster.members if m is not leader]
    with _writer(others, cluster, SHORT_SECONDS) as writer:
        writer.write_until(
            lambda: sum(a.acknowledged for a in writer.attempts) >= WARM_WRITES,
            f"{cluster.name} acknowledges writes",
        )
        leader.process.signal(how)
        gone = time.monotonic()
        writer.write_until(
            lambda: writer.acknowledged_since(gone) is not None,
            f"{cluster.name} acknowledges a write without its leader",
        )
        first = writer.acknowledged_since(gone)
    assert first is not None and first.ended is not None, "it was seen"
    return first.ended - gone


def _come_back(cluster: HttpCluster, member: Member) -> None:
    member.process.kill()
    member.process.start()
    cluster.wait_ready()
    cluster.leader()


def _killed(cluster: HttpCluster, number: int) -> list[Cost]:
    leader = cluster.leader()
    taken = _taken(cluster, leader, signal.SIGKILL)
    _come_back(cluster, leader)
    return [_cost(cluster, KILLED, number, taken * 1000)]


def _frozen(cluster: HttpCluster, number: int) -> list[Cost]:
    leader = cluster.leader()
    try:
        taken = _taken(cluster, leader, signal.SIGSTOP)
    finally:
        leader.process.kill()
    _come_back(cluster, leader)
    return [_cost(cluster, FROZEN, number, taken * 1000)]


def _stopped(cluster: HttpCluster, number: int) -> list[Cost]:
    leader, follower = cluster.leader(), cluster.follower()
    with _writer([follower.address], cluster, LONG_SECONDS) as writer:
        writer.write_until(
            lambda: sum(a.acknowledged for a in writer.attempts) >= WARM_WRITES,
            f"{cluster.name} acknowledges writes",
        )
        leader.process.signal(signal.SIGTERM)
        told = time.monotonic()
        writer.write_until(
            lambda: not leader.process.alive, f"{leader.process.name} ends"
        )
        ended = time.monotonic()
        writer.write_until(
            lambda: _acknowledged(writer.attempts, ended) >= AFTER_WRITES,
            f"{cluster.name} acknowledges writes without its leader",
        )
        writer.drain()
        first = writer.acknowledged_since(told)
        attempts = list(writer.attempts)
    assert first is not None and first.ended is not None, "it was seen"
    meanwhile = [a for a in attempts if a.ended is None or a.ended >= told]
    failed = sum(a.failed for a in meanwhile)
    _come_back(cluster, leader)
    return [
        _cost(cluster, STOPPED, number, (first.ended - told) * 1000),
        _cost(cluster, SILENT, number, longest_silence(attempts, told) * 1000),
        _cost(cluster, LOST, number, 1000 * failed / len(meanwhile), "per 1000"),
    ]


def _acknowledged(attempts: list[Attempt], since: float) -> int:
    return sum(a.acknowledged for a in attempts if a.begun >= since)


def longest_silence(attempts: list[Attempt], since: float) -> float:
    """Between two acknowledgements after C{since}, in seconds."""
    ends = [a.ended for a in attempts if a.acknowledged and a.ended is not None]
    times = [since, *sorted(end for end in ends if end >= since)]
    return max((b - a for a, b in itertools.pairwise(times)), default=0.0)
