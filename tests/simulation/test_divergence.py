"""A replica that holds something else than the others is found while it runs."""

from __future__ import annotations

import pytest

from kvdb.node.settings import NodeSettings
from kvdb.simulation.clients import Workload
from kvdb.simulation.cluster import Cluster, Plan
from kvdb.simulation.machine import Machine
from kvdb.store.commands import Put
from kvdb.store.windows import WINDOW_ENTRIES

pytestmark = pytest.mark.logs_errors


class Ended:
    """Why machines ended by themselves."""

    def __init__(self, cluster: Cluster) -> None:
        self.reasons: dict[int, tuple[str, int]] = {}
        for machine in cluster.machines.values():
            machine.ended = self.note

    def note(self, machine: Machine, why: str, status: int) -> None:
        self.reasons[machine.node_id] = (why, status)


def running(seed: int, size: int) -> tuple[Cluster, Ended]:
    """A cluster with a leader, and what becomes of it."""
    node = NodeSettings(segment_bytes=64 << 10)  # these disks are memory
    plan = Plan(seed=seed, size=size, node=node, workload=Workload(clients=0))
    cluster = Cluster(plan, lambda line: None)
    ended = Ended(cluster)
    for machine in list(cluster.machines.values()):
        cluster.start(machine)
    cluster.run_until(lambda: cluster.leader() is not None, 20.0)
    return cluster, ended


def write_windows(cluster: Cluster, number: int) -> None:
    """Write so much that as many windows are whole, and let members talk."""
    for _ in range(number * WINDOW_ENTRIES):
        leader = cluster.leader()
        if leader is not None and leader.node is not None:
            leader.node.write(Put(b"/k", b"v")).addErrback(lambda _: None)
        cluster.run(cluster.timeline.now + 0.02)
    cluster.run(cluster.timeline.now + 8.0)


def spoil(machine: Machine) -> None:
    """Have one member hold another record than it should."""
    assert machine.node is not None, "it does not run"
    store = machine.node.replica.store
    record = store.engine.get(b"k/k")
    assert record is not None, "nothing was written"
    store.engine.write({b"k/k": bytes([record[0] ^ 1]) + record[1:]})
    store.recent.clear()


@pytest.mark.parametrize("who", ["leader", "follower"])
def test_the_odd_one_stops_and_the_others_name_it(who: str) -> None:
    cluster, ended = running(3, 3)
    write_windows(cluster, 1)
    leader = cluster.leader()
    assert leader is not None, "nobody leads"
    odd = next(m for m in cluster.up() if (m is leader) == (who == "leader"))
    spoil(odd)
    write_windows(cluster, 3)
    number = odd.node_id
    assert list(ended.reasons) == [number]
    why, status = ended.reasons[number]
    assert status == 1
    assert f"member {number} differs from members" in why
    others = [m for m in cluster.machines.values() if m is not odd]
    for other in others:
        assert other.node is not None, "another one stopped"
        alarms = other.node.status().alarms
        assert any(f"member {number} differs" in alarm for alarm in alarms), alarms
    # Once it is removed that is no matter any more.
    leader = cluster.leader()
    assert leader is not None and leader.node is not None, "nobody leads"
    leader.node.remove_member(number)
    cluster.run(cluster.timeline.now + 5.0)
    for other in others:
        assert other.node is not None, "another one stopped"
        assert list(other.node.status().alarms) == []
    # And it does not come back on that data.
    ended.reasons.clear()
    cluster.start(odd)
    cluster.run(cluster.timeline.now + 2.0)
    why, status = ended.reasons[number]
    assert (status, "was found to differ" in why) == (1, True)


def test_where_two_differ_nobody_knows_who_is_wrong_and_both_say_so() -> None:
    cluster, ended = running(4, 2)
    write_windows(cluster, 1)
    spoil(cluster.up()[0])
    write_windows(cluster, 3)
    assert ended.reasons == {}
    for machine in cluster.up():
        assert machine.node is not None, "it stopped"
        alarms = machine.node.status().alarms
        assert len(alarms) == 1
        assert "it is not known which is right" in alarms[0]


def test_members_that_are_alike_say_nothing() -> None:
    cluster, ended = running(5, 3)
    write_windows(cluster, 3)
    assert ended.reasons == {}
    for machine in cluster.up():
        assert machine.node is not None, "it stopped"
        status = machine.node.status()
        assert list(status.alarms) == []
        known = [member.revision for member in status.members]
        assert known == [3 * WINDOW_ENTRIES] * 3
        assert len(machine.node.replica.store.windows.hashes) >= 2
        assert [m.role for m in status.members].count("leader") == 1
        for member in status.members:
            others = [n for n in (1, 2, 3) if n != member.id]
            assert list(member.links or ()) == others
            assert member.client_url is not None
