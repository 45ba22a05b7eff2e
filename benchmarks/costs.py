"""
The suite costs: what clusters need, and what their failures cost.

Of clusters that are spoken to over HTTP, one after the other.
"""

from __future__ import annotations

from typing import Final

from benchmarks.availability import leader_goes
from benchmarks.footprint import takes
from benchmarks.recovery import catches_up, starts_again
from benchmarks.run import Run
from benchmarks.systems.base import HttpCluster
from benchmarks.systems.etcd import EtcdHttp
from benchmarks.systems.kvdb import Kvdb

CLUSTERS: Final[tuple[type[HttpCluster], ...]] = (Kvdb, EtcdHttp)


def costs(run: Run) -> None:
    """All of them."""
    kinds = [kind for kind in CLUSTERS if kind.name in run.available]
    if not kinds:
        run.skip("costs", "neither kvdb nor etcd-http is measured")
    for work in (leader_goes, takes, catches_up, starts_again):
        for kind in kinds:
            work(run, kind)
