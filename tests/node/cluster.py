"""
A cluster of whole nodes in virtual time: real cores, logs and stores, with
messages handed over as bytes, and disks that can crash.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kvdb.node.node import Node
from kvdb.node.replica import open_replica
from kvdb.node.settings import NodeSettings
from kvdb.peer.codec import decode_messages, encode_frames
from kvdb.peer.handshake import Hello, Identity, Purpose, Refusal
from kvdb.raft.messages import Message
from kvdb.simulation.filesystem import SimulatedFileSystem
from kvdb.storage import log as durable_log
from kvdb.storage.log import Log
from kvdb.store.commands import Member, Outcome, Put
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Store

DELAY = 0.001
"""Seconds a message travels."""

CLUSTER_ID = 0xC0FFEE

T = TypeVar("T")


def url(node: int) -> str:
    """Where a member would be reached."""
    return f"http://127.0.0.1:{10_000 + node}"


class Wire:
    """One node's connections: the L{Network} it is given."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.urls: dict[int, str] = {}
        self.open: dict[int, tuple[Identity, Identity, int]] = {}

    def _reaches(self, to: int) -> Machine | None:
        """The other's machine, if both would talk to each other now."""
        machine = self.cluster.machines.get(to)
        own = self.cluster.machines[self.node_id]
        pair = (self.node_id, to)
        if machine is None or pair in self.cluster.cut or own.node is None:
            return None
        if machine.node is None or self.node_id not in self.cluster.machines:
            return None
        ends = (own.node.identity, machine.node.identity, self.cluster.memberships)
        known = self.open.get(to)
        if known and all(a is b for a, b in zip(known, ends, strict=True)):
            return machine  # they have greeted each other
        hello = Hello(own.node.identity, to, Purpose.MESSAGES)
        refusal = machine.node.judge(hello)
        if refusal is not None:
            self.cluster.refusals.append((self.node_id, refusal))
            own.node.refused(to, refusal)
            return None
        answer = Hello(machine.node.identity, self.node_id, Purpose.MESSAGES)
        if own.node is None or own.node.judge(answer) is not None:
            return None
        machine.learn(own.node.identity)
        self.open[to] = ends
        return machine

    def send(self, to: int, messages: Sequence[Message]) -> None:
        """See L{kvdb.node.node.Network}, as for all below."""
        frames = [body for body, _ in encode_frames(messages)]
        machine = self._reaches(to)
        if machine is not None:
            self.cluster.clock.callLater(DELAY, self._deliver, machine, frames)

    def send_now(self, message: Message) -> bool:
        """See there."""
        if message.to not in self.connected():
            return False
        self.send(message.to, [message])
        return True

    def _deliver(self, machine: Machine, frames: list[bytes]) -> None:
        if (self.node_id, machine.node_id) in self.cluster.cut:
            return
        for frame in frames:
            if machine.node is not None:
                machine.node.messages_received(self.node_id, decode_messages(frame))

    def set_members(self, urls: dict[int, str]) -> None:
        """See there."""
        self.urls = urls
        self.cluster.memberships += 1

    def connected(self) -> Collection[int]:
        """See there."""
        return [
            to
            for to in sorted(self.urls)
            if (self.node_id, to) not in self.cluster.cut
            and (machine := self.cluster.machines.get(to)) is not None
            and machine.node is not None
        ]

    def versions(self) -> dict[int, int]:
        """See there."""
        return {n: v for n, v in self.cluster.versions.items() if n != self.node_id}

    def send_snapshot(
        self, to: int, message: Message, chunks: Iterator[bytes]
    ) -> Deferred[None]:
        """See there."""
        done: Deferred[None] = Deferred()
        frames = [body for body, _ in encode_frames([message])]
        self.cluster.clock.callLater(
            DELAY, self._stream, to, frames[0], list(chunks), done
        )
        return done

    def _stream(
        self, to: int, frame: bytes, chunks: list[bytes], done: Deferred[None]
    ) -> None:
        machine = self._reaches(to)
        if machine is None or machine.node is None:
            done.errback(Failure(ConnectionError("cut")))
            return
        sink = machine.node.snapshots.begin(decode_messages(frame)[0])
        for chunk in chunks:
            sink.chunk(chunk)
        sink.finish()
        self.cluster.snapshots += 1
        done.callback(None)


class Machine:
    """What a node leaves behind when it stops: its disk."""

    def __init__(self, cluster: Cluster, node_id: int) -> None:
        self.cluster = cluster
        self.node_id = node_id
        self.disk = SimulatedFileSystem(
            cluster.clock, random.Random(cluster.random.random())
        )
        self.engines = MemoryEngines()
        self.node: Node | None = None
        self.log: Log | None = None
        self.stopped: list[tuple[str, int]] = []

    def start(self, *, members: Sequence[int] = ()) -> Node:
        """Start the node: the first time with the cluster's first C{members},
        or none to join."""
        cluster = self.cluster
        log = Log.open(self.disk, "/data", cluster.clock, segment_bytes=64 << 10)
        store = Store.open(self.engines)
        if log.identity is None:
            instance = cluster.random.getrandbits(63)
            cluster_id = CLUSTER_ID if members else 0
            log.set_identity(durable_log.Identity(cluster_id, self.node_id, instance))
        if members and store.applied_index == 0:
            store.bootstrap(CLUSTER_ID, [Member(n, url(n)) for n in members])
        assert log.identity is not None
        starts = log.identity.starts.begin(cluster.random.getrandbits(63))
        identity = evolve(log.identity, starts=starts)
        log.set_identity(identity)
        self.log = log
        self.node = Node(
            cluster.clock,
            random.Random(cluster.random.random()),
            Identity(
                self.node_id,
                identity.instance_id,
                identity.cluster_id,
                url(self.node_id),
                starts,
            ),
            open_replica(log, store),
            cluster.settings,
            self._stop,
            cluster.clock.seconds,
        )
        self.node.attach(Wire(cluster, self.node_id))
        self.node.start()
        return self.node

    def learn(self, peer: Identity) -> None:
        """What a handshake tells a joining node."""
        if self.node is not None and self.node.identity.cluster_id == 0:
            self.node.cluster_learned(peer.cluster_id)

    def _stop(self, why: str, status: int) -> None:
        self.stopped.append((why, status))
        self.stop()

    def stop(self) -> None:
        """Stop the node; what it wrote stays."""
        if self.node is not None:
            self.node.halt()
            self.node = None
        if self.log is not None:
            self.log.close()
            self.log = None

    def is_down(self) -> bool:
        """Whether no node runs."""
        return self.node is None

    def crash(self) -> None:
        """Lose power: what was not synced may be lost."""
        self.stop()
        self.disk.crash()
        self.engines.crash()


class Cluster:
    """
    @ivar cut: pairs (from, to) between which nothing gets through.
    @ivar refusals: who was refused, and why.
    @ivar versions: protocol versions that nodes are known to speak.
    @ivar snapshots: how many were received.
    @ivar memberships: how often any member's was told to its connections.
    """

    def __init__(self, size: int, seed: int = 0, **settings: object) -> None:
        self.clock = Clock()
        self.random = random.Random(seed)
        self.settings = NodeSettings(**settings)  # type: ignore[arg-type]
        self.cut: set[tuple[int, int]] = set()
        self.versions: dict[int, int] = {}
        self.refusals: list[tuple[int, Refusal]] = []
        self.snapshots = 0
        self.memberships = 0
        self.machines: dict[int, Machine] = {}
        self.first = range(1, size + 1)
        for node_id in self.first:
            self.add(node_id)
        for node_id in self.first:
            self.machines[node_id].start(members=self.first)

    def add(self, node_id: int) -> Machine:
        """Another machine; its node is not started."""
        machine = self.machines[node_id] = Machine(self, node_id)
        return machine

    def node(self, node_id: int) -> Node:
        """A node that runs."""
        node = self.machines[node_id].node
        assert node is not None, f"node {node_id} does not run"
        return node

    def nodes(self) -> list[Node]:
        """All that run."""
        return [m.node for m in self.machines.values() if m.node is not None]

    def isolate(self, *nodes: int) -> None:
        """Let nothing through between C{nodes} and the rest."""
        for a in self.machines:
            for b in self.machines:
                if (a in nodes) != (b in nodes):
                    self.cut.add((a, b))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(DELAY / 2)

    def until(self, condition: Callable[[], bool], seconds: float = 30.0) -> None:
        """Let time pass until C{condition} holds, which it must in time."""
        end = self.clock.seconds() + seconds
        while not condition():
            assert self.clock.seconds() < end, "it did not come to hold in time"
            self.clock.advance(DELAY / 2)

    def leader(self) -> Node:
        """Who leads, once somebody does and a majority agrees."""

        def found() -> list[Node]:
            return [
                node
                for node in self.nodes()
                if node.pump.leading
                and 2 * sum(n.pump.leader == node.pump.node_id for n in self.nodes())
                > len(node.replica.store.conf_state.voters)
            ]

        self.until(lambda: bool(found()))
        return max(found(), key=lambda node: node.pump.raft.core.term)

    def result(self, deferred: Deferred[T], seconds: float = 30.0) -> T:
        """What C{deferred} fires with, in time; raises if it fails."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.until(lambda: bool(results), seconds)
        if isinstance(results[0], Failure):
            results[0].raiseException()
        value: T = results[0]
        return value

    def put(self, node: Node, key: bytes, value: bytes) -> Outcome:
        """Write, and wait for it."""
        return self.result(node.write(Put(key, value)))

    def read(self, node: Node, key: bytes) -> bytes | None:
        """Read linearizably."""
        self.result(node.read_barrier())
        record = node.get(key)
        return None if record is None else record.value

    def settle(self) -> None:
        """Until all nodes that run have applied the same."""
        self.leader()
        self.until(
            lambda: (
                len({n.replica.store.applied_index for n in self.nodes()}) == 1
                and len({n.pump.raft.core.log.last_index() for n in self.nodes()}) == 1
            )
        )
