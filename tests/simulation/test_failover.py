"""A leader whose process is gone is replaced soon; one that is there stays."""

from __future__ import annotations

from statistics import median

import pytest
from attrs import evolve

from kvdb.node.failover import Failover
from kvdb.node.settings import NodeSettings
from kvdb.simulation.clients import Workload
from kvdb.simulation.cluster import Cluster, Plan
from kvdb.simulation.machine import Machine
from kvdb.simulation.run import run
from kvdb.simulation.swarm import draw_case

pytestmark = pytest.mark.logs_errors

OF_LINKS = frozenset(
    {
        "partition",
        "one-way partition",
        "bridge",
        "flapping",
        "isolated leader",
        "busy leader isolated",
        "slow links",
        "reset connections",
    }
)


def cluster_of(seed: int, size: int) -> tuple[Cluster, Machine]:
    """A cluster that has had its leader for a while, and that leader."""
    node = NodeSettings(segment_bytes=64 << 10)  # these disks are memory
    plan = Plan(seed=seed, size=size, node=node, workload=Workload(clients=0))
    cluster = Cluster(plan, lambda line: None)
    for machine in list(cluster.machines.values()):
        cluster.start(machine)
    wait_for_leader(cluster)
    cluster.run(cluster.timeline.now + 5.0)
    return cluster, wait_for_leader(cluster)


def wait_for_leader(cluster: Cluster) -> Machine:
    cluster.run_until(lambda: cluster.leader() is not None, 20.0)
    leader = cluster.leader()
    assert leader is not None, "nobody leads"
    return leader


def term_of(machine: Machine) -> int:
    assert machine.node is not None, "it does not run"
    return machine.node.pump.raft.core.term


@pytest.mark.no_cover
@pytest.mark.parametrize("size", [3, 5])
def test_a_killed_leader_is_replaced_in_milliseconds(size: int) -> None:
    took = []
    for seed in range(20):
        cluster, leader = cluster_of(seed, size)
        killed_at = cluster.timeline.now
        leader.kill()
        successor = wait_for_leader(cluster)
        took.append(cluster.timeline.now - killed_at)
        assert successor is not leader
    assert median(took) < 0.1, took
    assert max(took) < 0.6, took


@pytest.mark.parametrize("seed", range(20))
def test_a_follower_that_is_wrong_about_it_changes_nothing(seed: int) -> None:
    cluster, leader = cluster_of(seed, 3)
    term = term_of(leader)
    follower = next(m for m in cluster.machines.values() if m is not leader)
    for _ in range(20):
        assert follower.node is not None, "it does not run"
        follower.node.process_gone(leader.node_id)
        assert follower.node.pump.leader == 0, "it was not believed"
        cluster.run(cluster.timeline.now + 0.07)
    cluster.run(cluster.timeline.now + 1.0)
    assert cluster.leader() is leader
    assert follower.node is not None, "it does not run"
    assert follower.node.pump.leader == leader.node_id
    assert {term_of(m) for m in cluster.machines.values()} == {term}


@pytest.mark.parametrize("seed", range(5))
def test_that_another_follower_is_gone_is_no_reason_to_forget_the_leader(
    seed: int,
) -> None:
    cluster, leader = cluster_of(seed, 3)
    killed, left = [m for m in cluster.machines.values() if m is not leader]
    killed.kill()
    followed = set()
    for _ in range(100):
        cluster.run(cluster.timeline.now + 0.01)
        followed.add(left.node.pump.leader if left.node else None)
    number = leader.node_id  # a failure that shows all of a cluster takes minutes
    assert followed == {number}


@pytest.mark.parametrize("seed", range(12))
def test_what_links_do_is_no_sign_that_a_process_is_gone(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step the same run as without that haste: so every leader that
    changes would have changed anyway."""
    case = draw_case(seed, 20.0)
    faults = [fault for fault in case.faults if fault.kind in OF_LINKS]
    case = evolve(case, faults=faults)
    hasty = run(case)
    told: list[int] = []
    monkeypatch.setattr(
        Failover, "process_gone", lambda self, node_id: told.append(node_id)
    )
    patient = run(case)
    assert hasty.violation is None
    assert told == [] or not faults
    assert hasty.hash == patient.hash
