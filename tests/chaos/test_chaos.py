"""A short run, with the faults that need no privilege."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.cluster import Cluster, movable_clock
from tests.chaos.run import Run

SECONDS = 15
SEED = 1


@pytest.mark.timeout(180)
def test_one_copy_of_the_data_explains_all_answers(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, clocks=movable_clock(tmp_path))
    # Other tests run beside it: so little is asked of it in numbers.
    run = Run(cluster, SEED, SECONDS, least_faults=8, least_rate=5)
    try:
        cluster.prepare(3)
        run.go()
    finally:
        cluster.end()
    assert not any(node.alive for node in cluster.all_nodes)
