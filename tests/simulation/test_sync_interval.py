"""
Clusters that acknowledge before they sync: correct for as long as no machine loses
power, and a machine that did is not used any more.
"""

from __future__ import annotations

import pytest
from attrs import evolve

from kvdb.service import STOP_SECONDS
from kvdb.simulation.cluster import Cluster
from kvdb.simulation.machine import DATA, Machine
from kvdb.simulation.run import Case, run
from kvdb.simulation.swarm import draw_case
from kvdb.storage.unsynced import MARK

INTERVAL = 0.2
"""Seconds: longer than most pauses between faults."""

MAY_LOSE = ("power", "lost", "sync", "bit", "reads", "put back")
"""What the names of faults hold that may take what was not synced."""


def case(seed: int) -> Case:
    """That of a seed, but for faults that may take what was not synced."""
    drawn = draw_case(seed, seconds=20.0)
    faults = [
        fault
        for fault in drawn.faults
        if not any(word in fault.kind for word in MAY_LOSE)
    ]
    node = evolve(drawn.plan.node, sync_interval=INTERVAL)
    return evolve(drawn, plan=evolve(drawn.plan, node=node), faults=faults)


@pytest.mark.logs_errors
@pytest.mark.parametrize("seed", range(900, 906))
def test_what_leaves_the_machine_alone_costs_nothing(seed: int) -> None:
    report = run(case(seed))
    assert report.violation is None
    assert report.counts["operations done"] > 10


def started(cluster: Cluster) -> list[Machine]:
    machines = list(cluster.machines.values())
    for machine in machines:
        cluster.start(machine)
    cluster.run_until(lambda: cluster.leader() is not None, 10.0)
    return machines


def test_who_lost_power_does_not_start_again() -> None:
    plan = evolve(case(1).plan, size=3)
    ends: list[tuple[str, int]] = []
    cluster = Cluster(plan, lambda _: None, traces_logs=False)
    machines = started(cluster)
    victim = next(machine for machine in machines if machine is not cluster.leader())
    victim.kill()
    cluster.start(victim)
    cluster.run(cluster.timeline.now + 1.0)
    assert victim.is_up, "a process that was killed has lost nothing"
    victim.lose_power()
    victim.ended = lambda _, why, status: ends.append((why, status))
    cluster.start(victim)
    cluster.run(cluster.timeline.now + 1.0)
    [(why, status)] = ends
    assert status == 1
    assert "--sync-interval" in why
    assert "remove the member" in why


@pytest.mark.logs_errors
def test_whose_sync_failed_and_is_killed_before_its_stop_does_not_start_again() -> None:
    plan = evolve(case(1).plan, size=3)
    ends: list[tuple[str, int]] = []
    cluster = Cluster(plan, lambda _: None, traces_logs=False)
    victim = next(m for m in started(cluster) if m is not cluster.leader())
    node = victim.node
    assert node is not None
    # In the same boot, in place of its stop.
    node.pump.stop = lambda why, status: cluster.timeline.after(0, victim.kill)
    victim.filesystem.sync_fails = True
    cluster.run_until(lambda: not victim.is_up, 10.0)
    victim.filesystem.sync_fails = False
    victim.ended = lambda _, why, status: ends.append((why, status))
    cluster.start(victim)
    cluster.run(cluster.timeline.now + 1.0)
    [(why, status)] = ends
    assert status == 1
    assert "its disk failed while this member acknowledged" in why


@pytest.mark.logs_errors
def test_whose_sync_failed_does_not_start_again() -> None:
    # What the kernel could not write it may drop, also while the machine runs.
    plan = evolve(case(1).plan, size=3)
    ends: list[tuple[str, int]] = []
    cluster = Cluster(plan, lambda _: None, traces_logs=False)
    victim = next(m for m in started(cluster) if m is not cluster.leader())
    victim.ended = lambda _, why, status: ends.append((why, status))
    victim.filesystem.sync_fails = True
    cluster.run_until(lambda: bool(ends), 10.0)
    why = ends.pop()[0]
    assert why.startswith("the disk could not sync")
    assert "remove the member" in why
    assert "start this member again" not in why
    victim.filesystem.sync_fails = False
    cluster.start(victim)
    cluster.run(cluster.timeline.now + 1.0)
    [(why, status)] = ends
    assert status == 1
    assert "its disk failed while this member acknowledged" in why
    assert "remove the member" in why


def test_whose_syncs_fail_only_at_a_start_does_not_start_either() -> None:
    plan = evolve(case(1).plan, size=3)
    ends: list[tuple[str, int]] = []
    cluster = Cluster(plan, lambda _: None, traces_logs=False)
    victim = started(cluster)[0]
    victim.ended = lambda _, why, status: ends.append((why, status))
    victim.kill()
    for victim.filesystem.sync_fails in (True, False):
        cluster.start(victim)
        cluster.run(cluster.timeline.now + 1.0)
    assert [status for _, status in ends] == [1, 1]
    assert "its disk failed while this member acknowledged" in ends[1][0]


@pytest.mark.logs_errors
def test_a_disk_that_hangs_does_not_hold_up_a_stop() -> None:
    plan = evolve(case(1).plan, size=3)
    cluster = Cluster(plan, lambda _: None, traces_logs=False)
    victim, _, leader = sorted(started(cluster), key=lambda m: m is cluster.leader())
    gone: list[int] = []
    victim.ended = lambda _, why, status: gone.append(status)
    victim.filesystem.hung = True
    leader.terminate()  # another's term is to be synced
    cluster.run(cluster.timeline.now + 3.0)
    victim.terminate()
    cluster.run_until(lambda: bool(gone), 2 * STOP_SECONDS)
    assert gone == [0]
    assert MARK in victim.filesystem.list(f"{DATA}/log"), "not all is synced"


def test_who_stopped_in_peace_starts_after_a_loss_of_power() -> None:
    plan = evolve(case(1).plan, size=3)
    cluster = Cluster(plan, lambda _: None, traces_logs=False)
    machines = started(cluster)
    victim = machines[0]
    gone: list[int] = []
    victim.ended = lambda _, why, status: gone.append(status)
    victim.terminate()
    cluster.run_until(lambda: bool(gone), 10.0)
    victim.lose_power()
    cluster.start(victim)
    cluster.run(cluster.timeline.now + 1.0)
    assert victim.is_up
