"""
One run: a cluster, a schedule of faults, and what must be true in the end.

A run goes through three times: faults strike while clients ask; then all is
mended, and the cluster must come to rest within L{MEND_SECONDS}; then every
member is asked for every key, and what clients were told is checked.
"""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, evolve, frozen

from kvdb.simulation import linearizability
from kvdb.simulation.cluster import Cluster, Plan
from kvdb.simulation.faults import Fault, arm, mend
from kvdb.simulation.history import Kind, Operation, Result
from kvdb.simulation.linearizability import Violation
from kvdb.simulation.machine import ROLLED_BACK

FIRST_FAULT: Final = 2.0
"""When faults begin, in seconds of virtual time."""

MEND_SECONDS: Final = 30.0
"""How long the cluster may take, once nothing is wrong any more, until all
members have applied the same, every client has its answer, and memberships
that were asked for are what was asked for."""

READ_SECONDS: Final = 10.0
"""How long each of the last reads may take."""

SHORTEST_SECONDS: Final = 4.0
"""No case is shrunk further than to this time."""

LEAST_OPERATIONS: Final = 10
"""A run with fewer definite answers shows nothing."""


@frozen(slots=True, kw_only=True)
class Case:
    """A run to be made."""

    plan: Plan
    faults: Sequence[Fault]
    seconds: float


@define(slots=True, kw_only=True)
class Report:
    """
    What became of a run.

    @ivar virtual: seconds that passed in it.
    @ivar real: seconds of a processor that it took.
    @ivar hash: of all that members said to each other and clients were told.
    @ivar violation: what was wrong, or None.
    """

    case: Case
    counts: Counter[str]
    virtual: float
    real: float
    events: int
    hash: str
    violation: str | None


def run(case: Case, trace: Callable[[str], None] | None = None) -> Report:
    """Make a run; a violation is in the report, and not raised."""
    started = time.process_time()
    violation = None
    cluster: Cluster

    def note(text: str) -> None:
        if trace is not None:
            trace(f"{cluster.timeline.now:10.5f} {text}")

    cluster = Cluster(case.plan, note, traces_logs=trace is not None)
    try:
        _run(cluster, case)
    except Violation as error:
        violation = str(error)
        note(f"VIOLATION: {error}")
    told = zlib.crc32("\n".join(map(str, cluster.history)).encode())
    return Report(
        case=case,
        counts=cluster.counts,
        virtual=cluster.timeline.now,
        real=time.process_time() - started,
        events=cluster.timeline.events,
        hash=f"{cluster.network.checksum:08x}{told:08x}",
        violation=violation,
    )


def _run(cluster: Cluster, case: Case) -> None:
    for machine in list(cluster.machines.values()):
        machine.filesystem.sync_delay = 0.001
        cluster.start(machine)
    for client in cluster.clients:
        client.start()
    for watcher in cluster.watchers:
        watcher.start()
    arm(cluster, case.faults)
    cluster.run(case.seconds)
    for client in cluster.clients:
        client.stop()
    for watcher in cluster.watchers:
        watcher.whims = False
    mend(cluster)
    cluster.trace("all is mended")
    cluster.run_until(lambda: _is_at_rest(cluster), MEND_SECONDS)
    if not _is_at_rest(cluster):
        raise Violation(f"no rest in {MEND_SECONDS:g} s: {_unrest(cluster)}")
    for machine in cluster.machines.values():
        if machine.is_up and ROLLED_BACK in machine.excuses:
            raise Violation(f"the older copy of member {machine.node_id} was let in")
    _let_watchers_end(cluster)
    _read_all(cluster)
    _compare_stores(cluster)
    linearizability.check(cluster.history)
    definite = sum(o.is_definite for o in cluster.history)
    if definite < LEAST_OPERATIONS and case.seconds >= 30:
        raise Violation(f"only {definite} operations were answered: a run of nothing")


def _is_at_rest(cluster: Cluster) -> bool:
    return _unrest(cluster) is None


def _unrest(cluster: Cluster) -> str | None:
    """Why the cluster is not at rest."""
    if cluster.operator.tasks:
        return "a membership change is under way"
    if any(not client.is_idle for client in cluster.clients):
        return "a client has no answer"
    leader = cluster.leader()
    if leader is None or leader.node is None:
        return "nobody leads"
    core, store = leader.node.pump.raft.core, leader.node.replica.store
    if store.applied_index != core.log.last_index():
        return "the leader has not applied its log"
    if store.conf_state.learners:
        return f"learners {store.conf_state.learners} were not made voters"
    for node_id in store.members:
        node = cluster.machines[node_id].node
        if node is None:
            return f"member {node_id} does not run"
        if node.replica.store.applied_index != store.applied_index:
            return f"member {node_id} has not applied what the leader has"
        if node.pump.raft.core.term != core.term:
            return f"member {node_id} is in another term"
        if node.pump.leader != leader.node_id:
            return f"member {node_id} does not know who leads"
    return None


def _let_watchers_end(cluster: Cluster) -> None:
    """All who watch hear of all that was done, and of nothing else."""
    leader = cluster.leader()
    assert leader is not None and leader.node is not None, "a cluster at rest is led"
    store = leader.node.replica.store

    def behind() -> list[int | None]:
        # Of now: a write that nobody waits for any more may still come.
        places = [w.place for w in cluster.watchers if not w.forgotten]
        return [place for place in places if place != store.revision]

    cluster.run_until(lambda: not behind(), MEND_SECONDS)
    if behind():
        raise Violation(f"watchers are at {behind()}, and not at {store.revision}")
    cluster.counts["writes told to watchers"] += cluster.chronicle.check(
        cluster.history
    )


def _read_all(cluster: Cluster) -> None:
    """Have every member asked for every key."""
    keys = sorted({o.key for o in cluster.history})
    client = cluster.clients[0]
    for node_id in cluster.members():
        for key in keys:
            read = Operation(1, Kind.GET, key, cluster.timeline.now)
            client.hang_up()  # its connection may be to an earlier life
            client.do(read, node_id)
            cluster.run_until(lambda: client.is_idle, READ_SECONDS)
            if not read.is_definite or read.result is Result.REFUSED:
                raise Violation(f"a last read was not answered: {read}")


def _compare_stores(cluster: Cluster) -> None:
    """Members that have applied the same hold the same."""
    members = [cluster.machines[node_id] for node_id in cluster.members()]

    def digests() -> dict[int, str]:
        return {m.node_id: m.node.replica.store.digest() for m in members if m.node}

    for _ in range(50):
        if len(set(digests().values())) == 1:
            return
        # What history forgot goes in slices, and commands may be on their way.
        cluster.run(cluster.timeline.now + 0.2)
    raise Violation(f"members differ in what they hold: {digests()}")


def shrink(case: Case, trace: Callable[[str], None]) -> tuple[Case, Report]:
    """
    The smallest case with a violation that was found: fewer faults, in halves,
    quarters and so on (delta debugging; Zeller 2002), then a shorter time.
    """
    best, report = case, run(case)
    pieces = 2
    while len(best.faults) > 1 and pieces <= 2 * len(best.faults):
        size = max(1, len(best.faults) // pieces)
        for start in range(0, len(best.faults), size):
            faults = [*best.faults[:start], *best.faults[start + size :]]
            tried = evolve(best, faults=faults)
            found = run(tried)
            if found.violation is not None:
                best, report = tried, found
                trace(f"{len(best.faults)} faults still break it")
                break
        else:
            if size == 1:
                break
            pieces *= 2
    while best.seconds > SHORTEST_SECONDS:
        tried = evolve(best, seconds=best.seconds * 3 / 4)
        found = run(tried)
        if found.violation is None:
            break
        best, report = tried, found
        trace(f"{best.seconds:.1f} seconds still break it")
    return best, report
