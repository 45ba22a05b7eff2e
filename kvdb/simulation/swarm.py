"""
Which cases are run: another for each seed, and what all of them must reach.

Each seed draws its own size, load, settings and mix of faults (swarm testing;
Groce et al. 2012): a case that has everything at once never gets far enough for
what needs a long quiet time between two faults.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Final

from kvdb.node.settings import NodeSettings
from kvdb.simulation.clients import Workload
from kvdb.simulation.cluster import Plan
from kvdb.simulation.faults import KINDS, draw_schedule
from kvdb.simulation.run import FIRST_FAULT, Case

SECONDS: Final = 36.0
"""The time in which faults strike, in virtual seconds."""

REACH_SEEDS: Final = 200
"""A set of so many seeds or more must reach all of L{REACHED}."""

REACHED: Final = (
    *(f"fault: {kind}" for kind in sorted(KINDS)),
    "answers 404",
    "answers 412",
    "answers 503",
    "answers 504",
    "answers 507",
    "connections cut within a frame",
    "entries lost that nobody was promised",
    "flipped bits found out",
    "histories cut",
    "leaders removed",
    "leaders that stepped down",
    "logs cut behind what is applied",
    "logs truncated on conflict",
    "members removed together",
    "members that left",
    "nodes that stopped over their disk",
    "older copies found out",
    "power lost within a candidacy",
    "power lost within a disk operation",
    "proposals carried over",
    "restarts with a log",
    "retries with an idempotency key",
    "snapshots installed",
    "snapshots installed while a membership changed",
    "torn ends of logs repaired",
)
"""What must happen somewhere in a set of runs, or it has shown too little."""


def not_reached(counts: Counter[str]) -> list[str]:
    """What of L{REACHED} never happened."""
    return [name for name in REACHED if not counts[name]]


def draw_case(seed: int, seconds: float = SECONDS) -> Case:
    """
    The case of a seed: another size, load and mix of faults each time (swarm
    testing; Groce et al. 2012).
    """
    random = Random(f"{seed} case")
    kinds = sorted(KINDS)
    chosen = [kind for kind in kinds if random.random() < 0.4]
    if random.random() < 0.05:
        chosen = []
    elif random.random() < 0.1:
        chosen = kinds
    node = NodeSettings(
        election_ticks=random.choice([10, 10, 5, 3]),
        snapshot_count=random.choice([20, 60, 200, 10_000]),
        catch_up_entries=random.choice([0, 10, 100]),
        history_revisions=random.choice([20, 200, 100_000]),
        segment_bytes=random.choice([16 << 10, 64 << 10]),
        recent_bytes=random.choice([1 << 10, 16 << 10, 1 << 20]),
    )
    workload = Workload(
        clients=random.randint(2, 6),
        watchers=Random(f"{seed} watchers").choice([0, 1, 2, 3]),
        pause=random.choice([0.3, 1.0, 2.0]),
        keys=random.randint(1, 6),
        conditions=random.choice([0.0, 0.3, 0.8]),
        tokens=random.choice([0.0, 0.3, 1.0]),
        patience=random.choice([1.0, 7.0]),
    )
    plan = Plan(
        seed=seed,
        size=random.choice([1, 2, 3, 3, 3, 3, 3, 4, 5, 5, 5]),
        node=node,
        workload=workload,
        clock_drift=random.choice([0.0, 0.01, 0.1]),
        latency=random.choice([(0.0001, 0.001), (0.0002, 0.01), (0.01, 0.03)]),
        split=random.choice([0.0, 0.02, 0.3]),
        flush_polls=random.choice([0, 2, 20]),
    )
    every = random.choice([0.4, 1.0, 3.0])
    last = FIRST_FAULT + seconds * 0.8
    return Case(
        plan=plan,
        faults=draw_schedule(random, chosen, FIRST_FAULT, last, every),
        seconds=seconds,
    )
