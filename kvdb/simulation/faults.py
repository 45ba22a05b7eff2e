"""
What goes wrong, and when.

A schedule is drawn before the run: each fault has its time, its kind and a seed
of its own, so leaving one out leaves the others as they are.  Whom a fault hits
is decided when it strikes; one that finds nothing to hit does not count.

Rules: what a fault breaks it mends after a while, or the end does; no more data
are destroyed than the cluster can bear, for of that nobody promises anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from attrs import frozen

from kvdb.simulation.cluster import Cluster
from kvdb.simulation.machine import (
    BAD_READS,
    BIT_FLIPPED,
    DATA,
    DISK_FULL,
    ROLLED_BACK,
    SYNC_FAILS,
    Machine,
    address,
)
from kvdb.storage.segment import Segment, from_place

Way = tuple[str, str]

CANDIDACY_LOOKS: Final = 2000
"""How often it is looked, every 2 ms, whether a member stands for election."""

Strike = Callable[[Cluster, Random], bool]
"""Has something go wrong; whether it found anything to hit."""


@frozen(slots=True)
class Fault:
    """@ivar seed: what it draws from."""

    at: float
    kind: str
    seed: int

    def __str__(self) -> str:
        return f"{self.at:8.3f} {self.kind} ({self.seed})"


# The network.


def _split(cluster: Cluster, random: Random) -> tuple[list[str], list[str]]:
    hosts = [address(node) for node in cluster.machines]
    random.shuffle(hosts)
    cut = random.randint(1, max(1, len(hosts) - 1))
    return hosts[:cut], hosts[cut:]


def _between(some: Sequence[str], others: Sequence[str]) -> list[Way]:
    return [(a, b) for a in some for b in others]


def _cut(cluster: Cluster, random: Random, ways: list[Way], longest: float) -> bool:
    if not ways or cluster.mended:
        return False
    cluster.network.cut.update(ways)
    cluster.timeline.after(longest * random.random(), cluster.network.heal, *ways)
    return True


def _partition(cluster: Cluster, random: Random) -> bool:
    some, others = _split(cluster, random)
    ways = _between(some, others) + _between(others, some)
    return _cut(cluster, random, ways, 8.0)


def _one_way(cluster: Cluster, random: Random) -> bool:
    some, others = _split(cluster, random)
    return _cut(cluster, random, _between(some, others), 8.0)


def _bridge(cluster: Cluster, random: Random) -> bool:
    hosts = [address(node) for node in cluster.machines]
    if len(hosts) < 3:
        return False
    random.shuffle(hosts)
    middle = len(hosts) // 2
    some, others = hosts[:middle], hosts[middle + 1 :]
    return _cut(cluster, random, _between(some, others) + _between(others, some), 8.0)


def _isolate_leader(cluster: Cluster, random: Random) -> bool:
    leader = cluster.leader()
    if leader is None:
        return False
    own = [address(leader.node_id)]
    others = [address(node) for node in cluster.machines if node != leader.node_id]
    ways = [*_between(own, others), *_between(others, own)]
    rest = [node for node in cluster.members() if node != leader.node_id]
    if rest and random.random() < 0.7:
        # A leader whose clock is slow takes longer to see that it is none.
        if random.random() < 0.5:
            leader.reactor.run_at(0.5)
        cluster.operator.look_and_write(leader.node_id, rest, 5.0)
    if random.random() < 0.4:
        ways = _between(own, others) if random.random() < 0.5 else _between(others, own)
    return _cut(cluster, random, ways, 6.0)


def _busy_leader_isolated(cluster: Cluster, random: Random) -> bool:
    """With entries in its log that nobody else will ever have."""
    leader = cluster.leader()
    if leader is None:
        return False
    cluster.operator.burst(leader.node_id, random.randint(2, 25))
    others = [address(node) for node in cluster.machines if node != leader.node_id]
    ways = _between([address(leader.node_id)], others)
    if random.random() < 0.5:
        ways += _between(others, [address(leader.node_id)])
    cluster.timeline.after(0.005 * random.random(), _cut, cluster, random, ways, 8.0)
    return True


def _flapping(cluster: Cluster, random: Random) -> bool:
    some, others = _split(cluster, random)
    ways = _between(some, others)
    if random.random() < 0.5:
        ways += _between(others, some)
    period = 0.05 + 0.8 * random.random()

    def cut() -> None:
        if not cluster.mended:
            cluster.network.cut.update(ways)

    for turn in range(random.randint(2, 8)):
        at = 2 * turn * period
        cluster.timeline.after(at, cut)
        cluster.timeline.after(at + period, cluster.network.heal, *ways)
    return bool(ways)


def _slow_links(cluster: Cluster, random: Random) -> bool:
    some, others = _split(cluster, random)
    ways = _between(some, others) + _between(others, some)
    factor = random.choice([5.0, 20.0, 100.0, 400.0])
    slow = cluster.network.slow

    def mend() -> None:
        for way in ways:
            slow.pop(way, None)

    slow.update(dict.fromkeys(ways, factor))
    cluster.timeline.after(8.0 * random.random(), mend)
    return bool(ways)


def _reset_connections(cluster: Cluster, random: Random) -> bool:
    open_ = [t for t in cluster.network.transports if not t.lost]
    busy = [t for t in open_ if len(t.buffer) > 1]
    if not open_:
        return False
    for transport in random.sample(busy or open_, min(3, len(busy or open_))):
        if not transport.lost and cluster.network.reset(transport):
            cluster.counts["connections cut within a frame"] += 1
    return True


# Processes and machines.


def _of_a_machine(strike: Callable[[Cluster, Machine, Random], None]) -> Strike:
    """A fault of one machine whose node runs, often the leader's."""

    def strike_one(cluster: Cluster, random: Random) -> bool:
        machine = cluster.leader()
        if machine is None or random.random() >= 0.35:
            up = cluster.up()
            if not up:
                return False
            machine = random.choice(up)
        strike(cluster, machine, random)
        return True

    return strike_one


@_of_a_machine
def _kill(cluster: Cluster, machine: Machine, random: Random) -> None:
    machine.kill()
    cluster.start_later(machine, 4.0 * random.random())


@_of_a_machine
def _terminate(cluster: Cluster, machine: Machine, random: Random) -> None:
    life = machine.lives
    machine.terminate()

    def again() -> None:
        if machine.is_up and machine.lives == life:
            machine.kill()  # it took too long
        cluster.start(machine)

    cluster.timeline.after(3.0 + 4.0 * random.random(), again)


@_of_a_machine
def _lose_power(cluster: Cluster, machine: Machine, random: Random) -> None:
    machine.lose_power()
    cluster.start_later(machine, 4.0 * random.random())


@_of_a_machine
def _lose_power_in_a_write(cluster: Cluster, machine: Machine, random: Random) -> None:
    disk = machine.filesystem
    disk.crash_at = disk.operations + random.randint(1, 12)
    disk.on_crash = lambda: cluster.timeline.after(0, gone, machine.lives)

    def gone(life: int) -> None:
        if machine.is_up and machine.lives == life:
            machine.lose_power()
            cluster.counts["power lost within a disk operation"] += 1
        cluster.start_later(machine, 3.0 * random.random())


def _lose_power_in_a_candidacy(cluster: Cluster, random: Random) -> bool:
    """
    A member stands for election on a slow disk, and loses power before its first
    sync is done: what it asked for in that term is known to others alone.
    """
    leader = cluster.leader()
    others = [m for m in cluster.up() if m is not leader]
    if not others:
        return False
    machine = random.choice(others)
    machine.filesystem.sync_delay = random.choice([0.05, 0.2, 0.7])
    life = machine.lives
    if leader is not None:
        leader.kill()
        cluster.start_later(leader, 4.0 * random.random())
    # As often as not it is let be for long enough to lead and to be followed.
    patience = random.choice([0.0, 0.01, 0.04, 0.2])

    def look(tries: int) -> None:
        node = machine.node
        if node is None or machine.lives != life or cluster.mended:
            return
        syncs = node.replica.log.pending_sync_seconds() > 0
        if syncs and node.pump.raft.core.vote == machine.node_id:
            cluster.timeline.after(patience * random.random(), lose)
        elif tries:
            cluster.timeline.after(0.002, look, tries - 1)
        else:
            machine.filesystem.sync_delay = 0.001

    def lose() -> None:
        machine.filesystem.sync_delay = 0.001
        if machine.is_up and machine.lives == life:
            machine.lose_power()
            cluster.counts["power lost within a candidacy"] += 1
            cluster.start_later(machine, 0.5 * random.random())

    look(CANDIDACY_LOOKS)
    return True


def _all_lose_power(cluster: Cluster, random: Random) -> bool:
    machines = [m for m in cluster.machines.values() if m.is_up]
    for machine in machines:
        machine.lose_power()
        cluster.start_later(machine, 3.0 * random.random())
    return bool(machines)


@_of_a_machine
def _pause(cluster: Cluster, machine: Machine, random: Random) -> None:
    machine.reactor.pause()
    longest = random.choice([0.3, 2.0, 7.0])
    life = machine.reactor.life

    def resume() -> None:
        if machine.reactor.life == life and machine.reactor.paused:
            machine.reactor.resume()

    cluster.timeline.after(longest * random.random(), resume)


# Clocks.


@_of_a_machine
def _clock_jump(cluster: Cluster, machine: Machine, random: Random) -> None:
    machine.clock_error += random.choice([-1e6, -60.0, -1.0, 1.0, 60.0, 1e6])


@_of_a_machine
def _clock_drift(cluster: Cluster, machine: Machine, random: Random) -> None:
    machine.reactor.run_at(random.choice([0.5, 0.8, 0.95, 1.05, 1.25, 2.0]))
    cluster.timeline.after(1 + 8 * random.random(), lambda: machine.reactor.run_at(1.0))


# Disks.


@_of_a_machine
def _failed_sync(cluster: Cluster, machine: Machine, random: Random) -> None:
    machine.excuse(SYNC_FAILS)
    machine.filesystem.sync_fails = True


@_of_a_machine
def _full_disk(cluster: Cluster, machine: Machine, random: Random) -> None:
    seconds = 8.0 * random.random()
    machine.excuse(DISK_FULL, seconds + 1.0)
    # As a quota does: the log meets it in the midst of what it writes.
    machine.filesystem.tells_space = False
    machine.filesystem.space = random.choice([0, 500, 5000])
    cluster.timeline.after(seconds, setattr, machine.filesystem, "space", None)


@_of_a_machine
def _slow_disk(cluster: Cluster, machine: Machine, random: Random) -> None:
    machine.filesystem.sync_delay = random.choice([0.01, 0.05, 0.2, 0.7])
    cluster.timeline.after(
        8.0 * random.random(), setattr, machine.filesystem, "sync_delay", 0.001
    )


@_of_a_machine
def _hung_disk(cluster: Cluster, machine: Machine, random: Random) -> None:
    machine.filesystem.hung = True
    cluster.timeline.after(
        5.0 * random.random(), setattr, machine.filesystem, "hung", False
    )


def _may_destroy(cluster: Cluster) -> bool:
    """Whether a voter's data may be lost: all must be well, and on record."""
    voters = cluster.voters()
    if len(voters) < 3 or cluster.destroyed or cluster.operator.tasks:
        return False
    well = [m for m in cluster.up() if m.node_id in voters and not m.is_excused]
    return len(well) == len(voters) and all(
        member.instance_id
        for machine in well
        if machine.node is not None
        for member in machine.node.replica.store.members.values()
    )


def _lost_disk(cluster: Cluster, random: Random) -> bool:
    if not _may_destroy(cluster):
        return False
    machine = cluster.machines[random.choice(cluster.voters())]
    cluster.destroy(machine)
    return True


def _known_durable(machine: Machine) -> list[tuple[str, int]]:
    """
    Files of its log, and how much of each is behind no claim: some later batch
    says that it was durable, so its damage can be told from a torn write.
    """
    disk, directory = machine.filesystem, f"{DATA}/log"
    ends: dict[int, tuple[str, int]] = {}
    claimed = 0
    for name in disk.list(directory):
        if not name.startswith("log-") or name.endswith(".new"):
            continue
        file = disk.open(f"{directory}/{name}")
        number = int(name[4:], 16)
        for batch in Segment(number, file, file.size()).batches():
            claimed = max(claimed, batch.durable)
            ends[number] = (file.path, batch.end)
    last, offset = from_place(claimed)
    return [
        (path, offset if number == last else end)
        for number, (path, end) in ends.items()
        if number < last or (number == last and offset > 0)
    ]


def _bit_flip(cluster: Cluster, random: Random) -> bool:
    """
    One bit changes in a file of a machine that is off.  It must not start, or
    be as it was; but for the last batches, whose damage cannot be told from a
    torn write (docs/log-format.md), and which are therefore left alone.
    """
    if not _may_destroy(cluster):
        return False
    machine = cluster.machines[random.choice(cluster.voters())]
    machine.lose_power()
    disk = machine.filesystem
    places = _known_durable(machine)
    if not places:
        cluster.start_later(machine, 1.0)
        return False
    path, length = random.choice(places)
    disk.flip_bit(path, random.randrange(length), random.randrange(8))
    machine.excuse(BIT_FLIPPED)

    def again() -> None:
        cluster.start(machine)
        cluster.timeline.after(2.0, settle)

    def settle() -> None:
        if machine.is_up:  # the flip changed nothing that counts
            machine.excuses.pop(BIT_FLIPPED, None)

    cluster.timeline.after(random.random(), again)
    return True


def _rolled_back(cluster: Cluster, random: Random) -> bool:
    """
    A disk is put back to an older copy of itself, made before the last start.  Where
    all others have met that start, the member may take no part any more; where not,
    it could not be known, so nothing is done.
    """
    if not _may_destroy(cluster):
        return False
    machine = cluster.machines[random.choice(cluster.voters())]
    machine.lose_power()
    copy = machine.copy_disk()
    cluster.start_later(machine, random.random())

    def put_back() -> None:
        if not _may_destroy(cluster) or not _all_have_met(cluster, machine):
            return
        machine.lose_power()
        machine.put_back(copy)
        machine.excuse(ROLLED_BACK)
        cluster.observer.forget(machine)
        cluster.counts["disks put back"] += 1
        cluster.trace(f"the disk of machine {machine.node_id} is put back")
        cluster.start_later(machine, random.random())

    cluster.timeline.after(1.5 + 5 * random.random(), put_back)
    return True


def _all_have_met(cluster: Cluster, machine: Machine) -> bool:
    """Whether all other voters know durably of the machine's last start."""
    if machine.node is None:
        return False
    newest = machine.node.identity.starts.newest
    logs = [
        other.node.replica.log
        for other in cluster.up()
        if other.node is not None and other is not machine
    ]
    return len(logs) == len(cluster.voters()) - 1 and all(
        machine.node_id in log.peer_starts
        and log.peer_starts[machine.node_id].start == newest
        and not log.pending_sync_seconds()
        for log in logs
    )


@_of_a_machine
def _bad_reads(cluster: Cluster, machine: Machine, random: Random) -> None:
    machine.excuse(BAD_READS, 4.0)
    machine.filesystem.bad_reads = random.randint(1, 3)
    cluster.timeline.after(3.0, setattr, machine.filesystem, "bad_reads", 0)


# Memberships.


def _transfer(cluster: Cluster, random: Random) -> bool:
    voters = cluster.voters()
    if not voters:
        return False
    cluster.operator.transfer(random.choice(voters))
    return True


def _add_member(cluster: Cluster, random: Random) -> bool:
    if not cluster.members() or len(cluster.members()) >= 6 or cluster.operator.tasks:
        return False
    cluster.operator.add()
    return True


def _remove_member(cluster: Cluster, random: Random) -> bool:
    voters = cluster.voters()
    if len(voters) <= 3 or cluster.operator.tasks or cluster.destroyed:
        return False
    leader = cluster.leader()
    if leader is not None and leader.node_id in voters and random.random() < 0.4:
        cluster.operator.remove(leader.node_id)
        cluster.counts["leaders removed"] += 1
    else:
        cluster.operator.remove(random.choice(voters))
    return True


def _remove_members_together(cluster: Cluster, random: Random) -> bool:
    """With a voter that is down, so that each may go, and not all of them."""
    voters = cluster.voters()
    up = [m.node_id for m in cluster.up() if m.node_id in voters]
    if len(voters) < 4 or cluster.operator.tasks or cluster.destroyed:
        return False
    if len(up) < len(voters):
        return False
    down = cluster.machines[random.choice(up)]
    up.remove(down.node_id)
    chosen = random.sample(up, random.choice([2, 2, 3]))
    down.kill()
    cluster.start_later(down, 12.0)

    def ask(tries: int) -> None:
        if down.is_up or cluster.mended or cluster.operator.tasks:
            return
        nodes = [m.node for m in cluster.up() if m.node is not None]
        if all(down.node_id not in node.network.connected() for node in nodes):
            cluster.operator.remove_together(chosen)
        elif tries:
            cluster.timeline.after(0.1, ask, tries - 1)

    ask(50)
    return True


KINDS: Final[dict[str, Strike]] = {
    "partition": _partition,
    "one-way partition": _one_way,
    "bridge": _bridge,
    "isolated leader": _isolate_leader,
    "busy leader isolated": _busy_leader_isolated,
    "flapping": _flapping,
    "slow links": _slow_links,
    "reset connections": _reset_connections,
    "kill": _kill,
    "terminate": _terminate,
    "power loss": _lose_power,
    "power loss in a write": _lose_power_in_a_write,
    "power loss in a candidacy": _lose_power_in_a_candidacy,
    "power loss everywhere": _all_lose_power,
    "pause": _pause,
    "clock jump": _clock_jump,
    "clock drift": _clock_drift,
    "failed sync": _failed_sync,
    "full disk": _full_disk,
    "slow disk": _slow_disk,
    "hung disk": _hung_disk,
    "lost disk": _lost_disk,
    "bit flip": _bit_flip,
    "disk put back": _rolled_back,
    "bad reads": _bad_reads,
    "transfer of leadership": _transfer,
    "member added": _add_member,
    "member removed": _remove_member,
    "members removed together": _remove_members_together,
}
"""What may go wrong, by name."""


def draw_schedule(
    random: Random, kinds: Sequence[str], first: float, last: float, every: float
) -> list[Fault]:
    """
    Faults from C{first} to C{last}, in seconds.

    @param every: the mean time between two of them.
    """
    faults = []
    at = first
    while kinds:
        at += 2 * every * random.random()
        if at >= last:
            break
        faults.append(Fault(at, random.choice(list(kinds)), random.getrandbits(32)))
    return faults


def arm(cluster: Cluster, faults: Sequence[Fault]) -> None:
    """Have each strike at its time."""

    def strike(fault: Fault) -> None:
        if not cluster.mended and KINDS[fault.kind](cluster, Random(fault.seed)):
            cluster.counts[f"fault: {fault.kind}"] += 1
            cluster.trace(f"fault: {fault.kind}")

    for fault in faults:
        cluster.timeline.at(fault.at, strike, fault)


def mend(cluster: Cluster) -> None:
    """Nothing is wrong any more, from now on."""
    cluster.mended = True
    network = cluster.network
    network.slow.clear()
    network.heal()
    for machine in cluster.machines.values():
        disk = machine.filesystem
        disk.space, disk.hung, disk.sync_delay = None, False, 0.001
        disk.crash_at, disk.bad_reads, disk.sync_fails = 0, 0, False
        machine.excuses.pop(SYNC_FAILS, None)
        machine.reactor.run_at(1.0)
        if machine.reactor.paused:
            machine.reactor.resume()
        if not machine.is_up:
            cluster.start(machine)
