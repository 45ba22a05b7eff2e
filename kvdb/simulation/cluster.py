"""
A whole cluster in virtual time: machines, network, clients, operator, observer.

It can be told to do things to itself; what is done when is decided elsewhere
(L{kvdb.simulation.faults}).  All chance comes from sources made of one seed,
each for one purpose, so that what one of them draws does not move the others.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, Final

from attrs import define, field, frozen
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from kvdb.node.node import Node
from kvdb.node.settings import NodeSettings
from kvdb.raft.messages import Role
from kvdb.simulation.clients import (
    Client,
    Conversation,
    Conversations,
    Keyspace,
    Reply,
    Workload,
    read_answer,
)
from kvdb.simulation.filesystem import Crashed
from kvdb.simulation.history import History, Kind, Operation, Result
from kvdb.simulation.linearizability import Violation
from kvdb.simulation.machine import (
    BIT_FLIPPED,
    CLIENT_PORT,
    ROLLED_BACK,
    SYNC_FAILS,
    Machine,
    address,
    peer_url,
)
from kvdb.simulation.network import Network, SimulatedReactor
from kvdb.simulation.observer import Observer, Tap
from kvdb.simulation.timeline import Timeline
from kvdb.simulation.watchers import Chronicle, Watcher
from kvdb.storage.filesystem import DiskFull, SyncFailed
from kvdb.storage.journal import LogClosed
from kvdb.storage.segment import CorruptLog

MAX_OPERATOR_TRIES: Final = 60
"""How often the operator asks for one thing."""

MAX_REFUSALS: Final = 20
"""After so many tries a refusal is taken for the last word."""

PROBE_SECONDS: Final = 0.15
"""How often an isolated member is asked what it knows."""

LOOK_SECONDS: Final = 0.02
"""How often it is looked whether something is done."""

REPLACED: Final = {
    BIT_FLIPPED: "flipped bits found out",
    ROLLED_BACK: "older copies found out",
}
"""Excuses of a member whose data are of no use any more, and what is counted."""

EXPECTED_FAILURES: Final = (Crashed, CorruptLog, DiskFull, LogClosed, SyncFailed)
"""What a node may log with a traceback: its disk's doing, and nothing else."""


@frozen(slots=True, kw_only=True)
class Plan:
    """
    What a run is made of.

    @ivar size: how many members there are in the beginning.
    """

    seed: int
    size: int = 3
    node: NodeSettings = field(factory=NodeSettings)
    workload: Workload = field(factory=Workload)
    clock_drift: float = 0.0
    latency: tuple[float, float] = (0.0002, 0.002)
    split: float = 0.02
    flush_polls: int = 2


@define(slots=True, eq=False)
class Cluster:
    """
    @ivar counts: what was done and what happened, by name.
    @ivar destroyed: members whose data are lost, and who are to be replaced.
    @ivar mended: no fault strikes any more.
    @ivar broken: what was found wrong, once anything is.
    @ivar trace: told of what a person who reads the run wants to know.
    @ivar traces_logs: told what the nodes log, too.
    """

    plan: Plan
    trace: Callable[[str], None]
    traces_logs: bool = False
    counts: Counter[str] = field(factory=Counter)
    timeline: Timeline = field(factory=Timeline)
    history: History = field(factory=History)
    machines: dict[int, Machine] = field(factory=dict)
    clients: list[Client] = field(factory=list)
    watchers: list[Watcher] = field(factory=list)
    chronicle: Chronicle = field(factory=Chronicle)
    destroyed: set[int] = field(factory=set)
    left: set[int] = field(factory=set)
    mended: bool = False
    broken: Violation | None = None
    network: Network = field(init=False)
    observer: Observer = field(init=False)
    operator: Operator = field(init=False)
    keyspace: Keyspace = field(init=False)

    def __attrs_post_init__(self) -> None:
        plan = self.plan
        self.network = Network(self.timeline, self.random("network"))
        self.network.least, self.network.most = plan.latency
        self.network.split = plan.split
        self.observer = Observer(self.counts, self.trace, self._change_is_pending)
        self.keyspace = Keyspace(workload=plan.workload)
        self.operator = Operator(self)
        founders = tuple(range(1, plan.size + 1))
        for node_id in founders:
            self.add_machine(node_id, founders, joins=False)
        for number in range(1, plan.workload.clients + 1):
            self.clients.append(self._client(number))
        for number in range(1, plan.workload.watchers + 1):
            self.watchers.append(self._watcher(number))

    def random(self, purpose: str) -> Random:
        """A source for one purpose."""
        return Random(f"{self.plan.seed} {purpose}")

    def _client(self, number: int) -> Client:
        reactor = SimulatedReactor(
            self.timeline, _nothing, network=self.network, host=f"10.1.0.{number}"
        )
        return Client(
            number=number,
            reactor=reactor,
            random=self.random(f"client {number}"),
            workload=self.plan.workload,
            keyspace=self.keyspace,
            history=self.history,
            members=self.who_answers,
            life_of=lambda node: self.machines[node].lives,
            counts=self.counts,
        )

    def _watcher(self, number: int) -> Watcher:
        reactor = SimulatedReactor(
            self.timeline, _nothing, network=self.network, host=f"10.2.0.{number}"
        )
        return Watcher(
            reactor=reactor,
            random=self.random(f"watcher {number}"),
            chronicle=self.chronicle,
            members=self.who_answers,
            counts=self.counts,
        )

    # Machines.

    def add_machine(
        self, node_id: int, founders: Sequence[int], *, joins: bool
    ) -> Machine:
        """Another machine, not started."""
        random = self.random(f"machine {node_id}")
        machine = Machine(
            node_id=node_id,
            founders=tuple(founders),
            joins=joins,
            node_settings=self.plan.node,
            timeline=self.timeline,
            network=self.network,
            random=random,
            observe=self._observe,
            ended=self._ended,
        )
        machine.memory.flush_polls = self.plan.flush_polls
        machine.memory.current.flush_polls = self.plan.flush_polls
        drift = self.plan.clock_drift
        machine.reactor.run_at(1 + drift * (2 * random.random() - 1))
        self.machines[node_id] = machine
        self.network.watched.add(address(node_id))
        return machine

    def start(self, machine: Machine) -> None:
        """Start a machine, unless it runs or must not."""
        node_id = machine.node_id
        if machine.is_up or node_id in self.destroyed or node_id in self.left:
            return
        machine.filesystem.bad_reads = 0  # at a start they could not be told
        machine.start()
        node = machine.node
        if node is not None and node.pump.running:
            node.pump.outbox.transport = Tap(node.network, machine, self.observer)
        self.trace(f"machine {node_id} was started")

    def start_later(self, machine: Machine, delay: float) -> None:
        """Start it in so many seconds."""
        self.timeline.after(delay, self.start, machine)

    def _observe(self, machine: Machine) -> None:
        if self.broken is None:
            try:
                self.observer.look(machine)
            except Violation as error:
                self.fail(error)

    def _ended(self, machine: Machine, why: str, status: int) -> None:
        node_id = machine.node_id
        self.trace(f"machine {node_id} ended with status {status}: {why}")
        if status == 0:
            if why != "asked to":
                self.left.add(node_id)
                self.counts["members that left"] += 1
            return
        if not machine.was_excused:
            self.fail(Violation(f"member {node_id} stopped by itself: {why}"))
            return
        self.counts["nodes that stopped over their disk"] += 1
        for excuse, found_out in REPLACED.items():
            if excuse in machine.excuses:
                self.counts[found_out] += 1
                self.destroy(machine)
                return
        # A supervisor starts it again, on a disk that works again; what the
        # kernel believes to be on it may not be.
        machine.filesystem.sync_fails = False
        machine.excuses.pop(SYNC_FAILS, None)
        machine.filesystem.space = None
        self.start_later(machine, 0.5)

    def destroy(self, machine: Machine) -> None:
        """Its data are of no use any more: have it replaced."""
        self.trace(f"the data of member {machine.node_id} are lost")
        if machine.is_up:
            machine.lose_power()
        self.destroyed.add(machine.node_id)
        self.observer.forget(machine)
        self.operator.replace(machine.node_id)

    def fail(self, error: Violation) -> None:
        """Something is wrong: the run ends."""
        if self.broken is None:
            self.broken = error
            self.timeline.stop()

    # Views.

    def up(self) -> list[Machine]:
        """The machines whose node runs and is not paused."""
        return [
            machine
            for machine in self.machines.values()
            if machine.node is not None
            and machine.node.pump.running
            and not machine.reactor.paused
        ]

    def leader(self) -> Machine | None:
        """Who leads, as it thinks itself; the one of the highest term."""
        leaders = [
            (machine.node.pump.raft.core.term, machine.node_id)
            for machine in self.up()
            if machine.node and machine.node.pump.raft.core.role is Role.LEADER
        ]
        return self.machines[max(leaders)[1]] if leaders else None

    def newest(self) -> Node | None:
        """The node that has applied most."""
        nodes = [machine.node for machine in self.up() if machine.node]
        return max(nodes, key=lambda n: n.replica.store.applied_index, default=None)

    def _change_is_pending(self) -> bool:
        leader = self.leader()
        if leader is None or leader.node is None:
            return False
        core = leader.node.pump.raft.core
        return core.pending_conf_index > core.log.applied

    def members(self) -> list[int]:
        """The members, as far as anybody that runs knows."""
        node = self.newest()
        return [] if node is None else sorted(node.replica.store.members)

    def voters(self) -> list[int]:
        """Those of them that vote."""
        node = self.newest()
        return [] if node is None else sorted(node.replica.store.conf_state.voters)

    def who_answers(self) -> list[int]:
        """Whom a client may ask."""
        up = [m.node_id for m in self.machines.values() if m.is_up]
        return up or sorted(self.machines)

    # Running.

    def run_until(self, done: Callable[[], bool], seconds: float) -> None:
        """Let time pass until it is C{done}, or for so many seconds."""
        deadline = self.timeline.now + seconds
        while not done() and self.timeline.now < deadline:
            self.run(self.timeline.now + LOOK_SECONDS)

    def run(self, until: float) -> None:
        """
        Let time pass until that time.

        @raise Violation: something is wrong.
        """
        observe: Any = self._logged  # an ILogObserver by its signature
        globalLogPublisher.addObserver(observe)
        try:
            self.timeline.run(until)
        except Violation:
            raise
        except Exception as error:
            # Nothing that a node, a connection or a client does may raise.
            raise Violation("".join(traceback.format_exception(error))) from error
        finally:
            globalLogPublisher.removeObserver(observe)
        if self.broken is not None:
            raise self.broken

    def _logged(self, event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None and failure.check(*EXPECTED_FAILURES) is None:
            self.fail(Violation(f"{formatEvent(event)}\n{failure.getTraceback()}"))
        elif self.traces_logs and event["log_namespace"].startswith("kvdb"):
            self.trace(f"  {event['log_namespace']}: {formatEvent(event)}")


def _nothing() -> None:
    pass


@define(slots=True, eq=False)
class Operator:
    """
    Who changes the membership, over HTTP, until it is done or time is up.

    @ivar tasks: how many are under way.
    """

    cluster: Cluster
    reactor: SimulatedReactor = field(init=False)
    random: Random = field(init=False)
    tasks: int = 0
    _next_id: int = 0
    _requests: int = 0

    def __attrs_post_init__(self) -> None:
        cluster = self.cluster
        self.reactor = SimulatedReactor(
            cluster.timeline, _nothing, network=cluster.network, host="10.2.0.1"
        )
        self.reactor.power_on()
        self.random = cluster.random("operator")
        self._next_id = cluster.plan.size

    def add(self) -> None:
        """Start a new machine, and make it a member."""
        self._next_id += 1
        node_id = self._next_id
        cluster = self.cluster
        machine = cluster.add_machine(node_id, cluster.members(), joins=True)
        cluster.start(machine)
        cluster.trace(f"the operator adds member {node_id}")
        self._until_done(f"/{node_id}", "POST", peer_url(node_id), lambda: None)

    def remove(self, node_id: int) -> None:
        """Have a member removed."""
        self.cluster.trace(f"the operator removes member {node_id}")
        self._until_done(f"/{node_id}", "DELETE", "", lambda: None)

    def remove_together(self, node_ids: Sequence[int]) -> None:
        """
        Have members removed by requests that are sent at the same time, while some
        others are down, and hold the answers against what was promised: a removal
        that leaves fewer than a majority within reach is refused.
        """
        cluster = self.cluster
        cluster.trace(f"the operator removes members {node_ids} together")
        up = {machine.node_id: machine.lives for machine in cluster.up()}
        waiting = set(node_ids)
        removed: set[int] = set()

        def answered(node_id: int, reply: Reply | None) -> None:
            waiting.discard(node_id)
            if reply is not None and reply.status == 204:
                removed.add(node_id)
                cluster.counts["memberships changed by DELETE"] += 1
            if not waiting:
                self.tasks -= 1
                check()

        def check() -> None:
            staying = set(up) - removed
            voters = set(cluster.voters())
            if len(removed) < 2 or voters & removed:
                return
            cluster.counts["members removed together"] += 1
            machines = [cluster.machines[node] for node in staying]
            if any(not m.is_up or m.lives != up[m.node_id] for m in machines):
                return  # some more went down meanwhile
            alive = voters & staying
            if len(alive) < len(voters) // 2 + 1:
                cluster.fail(
                    Violation(
                        f"members {sorted(removed)} were removed together, of"
                        f" {sorted(up)} that were up: of the voters {sorted(voters)}"
                        f" that are left, {sorted(alive)} are no majority"
                    )
                )

        self.tasks += 1
        for node_id in node_ids:
            self._requests += 1
            self._ask(
                "DELETE",
                f"/{node_id}",
                "",
                f"operator-{self._requests}",
                partial(answered, node_id),
            )

    def replace(self, node_id: int) -> None:
        """Have a member that lost its data removed, and another added."""
        self.cluster.trace(f"the operator replaces member {node_id}")
        self._until_done(f"/{node_id}", "DELETE", "", self.add)

    def transfer(self, to: int) -> None:
        """Have leadership handed over, if it can be had at once."""
        self._ask("POST", "/_/leader", f'{{"id": {to}}}', "", lambda reply: None)

    # Operations beside the clients', each once and in the history.

    def burst(self, node_id: int, count: int) -> None:
        """Have many writes sent to one member at once."""
        for _ in range(count):
            self._operate(node_id, Kind.PUT)

    def look_and_write(
        self, node_id: int, others: Sequence[int], seconds: float
    ) -> None:
        """Keep reading from one member what is written at the others."""
        for step in range(int(seconds / PROBE_SECONDS)):
            at = step * PROBE_SECONDS
            self.reactor.callLater(at, self._operate, node_id, Kind.GET)
            other = self.random.choice(others)
            self.reactor.callLater(at, self._operate, other, Kind.PUT)

    def _operate(self, node_id: int, kind: Kind) -> None:
        cluster = self.cluster
        now = cluster.timeline.now
        key = cluster.keyspace.draw(self.random)
        operation = Operation(0, kind, key, now, node=node_id)
        if kind is Kind.PUT:
            operation.value = cluster.keyspace.value()
        cluster.history.begin(operation)

        def answered(reply: Reply | None) -> None:
            result, revision = Result.UNKNOWN, None
            if reply is not None:
                result, revision = read_answer(operation, reply)
            if kind is Kind.GET and result is Result.UNKNOWN:
                result = Result.REFUSED
            operation.end(cluster.timeline.now, result, revision)

        body = operation.value or ""
        self._ask(kind.value.upper(), f"/{key}", body, "", answered, node_id)

    def _until_done(
        self, path: str, method: str, body: str, then: Callable[[], None]
    ) -> None:
        self.tasks += 1
        self._requests += 1
        token = f"operator-{self._requests}"
        tries = 0

        def attempt() -> None:
            nonlocal tries
            tries += 1
            self._ask(method, path, body, token, answered)

        def answered(reply: Reply | None) -> None:
            nonlocal token
            status = 0 if reply is None else reply.status
            if status == 409:  # under one key it stays so for ever
                token += "'"
            gone = method == "DELETE" and int(path[1:]) not in self.cluster.members()
            if status == 204 or (gone and status in (404, 409)):
                self.cluster.counts[f"memberships changed by {method}"] += 1
                self.tasks -= 1
                then()
            elif tries >= (MAX_REFUSALS if status == 409 else MAX_OPERATOR_TRIES):
                self.tasks -= 1
                self.cluster.counts["memberships given up"] += 1
            else:
                self.reactor.callLater(0.2 + self.random.random(), attempt)

        attempt()

    def _ask(
        self,
        method: str,
        path: str,
        body: str,
        token: str,
        then: Callable[[Reply | None], None],
        to: int = 0,
    ) -> None:
        """One request to somebody; answered once, if by nothing."""
        up = self.cluster.who_answers()
        known = [node for node in self.cluster.members() if node in up]
        to = to or self.random.choice(known or up)
        conversation: Conversation | None = None
        timer: Any = None
        over = False

        def told(reply: Reply | None) -> None:
            nonlocal over
            if over:
                return
            over = True
            if timer.active():
                timer.cancel()
            if conversation is not None and conversation.is_open:
                conversation.transport.abortConnection()  # type: ignore[union-attr]
            then(reply)

        def connected(made: Any) -> None:
            nonlocal conversation
            conversation = made
            if over:
                made.transport.abortConnection()
                return
            headers = {"Idempotency-Key": token} if token else {}
            made.ask(method, path, body.encode(), headers)

        def failed(_: Failure) -> None:
            told(None)

        timer = self.reactor.callLater(6.0, told, None)
        endpoint = TCP4ClientEndpoint(self.reactor, address(to), CLIENT_PORT, 3.0)
        endpoint.connect(Conversations(told)).addCallbacks(connected, failed)
