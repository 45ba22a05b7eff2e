"""
A group of members in one process, for tests of the core alone: messages are
delivered in rounds, links can be cut, members stopped and started again with
what their logs remember.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from kvdb.raft.config import PeerNotFound, ProposalDropped
from kvdb.raft.core import Config
from kvdb.raft.log import Log
from kvdb.raft.memory import MemoryLog
from kvdb.raft.messages import (
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    Role,
    Snapshot,
)
from kvdb.raft.rawnode import RawNode

ELECTION_TICKS = 10


class Group:
    """
    @ivar up: the members that run, by id.
    @ivar cut: pairs (from, to) whose messages are lost.
    @ivar lose: whether a message is lost on its way.
    @ivar applied: the data of the entries each member has applied.
    """

    def __init__(self, size: int, seed: int = 0, **config: object) -> None:
        self.random = random.Random(seed)
        self.config = {"check_quorum": True, "pre_vote": True, **config}
        self.ids = range(1, size + 1)
        self.disks: dict[int, MemoryLog] = {}
        self.up: dict[int, RawNode] = {}
        self.applied: dict[int, list[bytes]] = {}
        self.cut: set[tuple[int, int]] = set()
        self.lose: Callable[[Message], bool] = lambda message: False
        self.in_flight: list[Message] = []
        for node in self.ids:
            disk = MemoryLog()
            disk.apply_snapshot(Snapshot(1, 1, ConfState(tuple(self.ids))))
            self.disks[node] = disk
            self.start(node)

    def start(self, node: int) -> None:
        """Start a member, from what its log remembers."""
        self.applied[node] = []
        self.up[node] = RawNode(
            Config(
                id=node,
                election_tick=ELECTION_TICKS,
                heartbeat_tick=1,
                random=random.Random(self.random.random()),
                applied=1,
                **self.config,  # type: ignore[arg-type]
            ),
            self.disks[node],
        )

    def stop(self, node: int) -> None:
        """Stop a member; what it had not yet stored or sent is lost."""
        del self.up[node]

    def isolate(self, *nodes: int) -> None:
        """Cut every link between C{nodes} and the rest."""
        for a in self.ids:
            for b in self.ids:
                if (a in nodes) != (b in nodes):
                    self.cut.add((a, b))

    def carry_out(self, node: int) -> bool:
        """One Ready of one member; whether there was any."""
        raft = self.up[node]
        if not raft.has_ready():
            return False
        ready = raft.ready()
        disk = self.disks[node]
        if ready.hard_state is not None:
            disk.set_hard_state(ready.hard_state)
        disk.append(ready.entries)
        for entry in ready.committed_entries:
            if entry.type is EntryType.NORMAL and entry.data:
                self.applied[node].append(entry.data)
        self.in_flight.extend(ready.messages)
        raft.advance()
        return True

    def deliver(self) -> bool:
        """Every message in flight, in order; whether there was any."""
        messages, self.in_flight = self.in_flight, []
        for message in messages:
            lost = (message.from_, message.to) in self.cut or self.lose(message)
            if message.to in self.up and not lost:
                try:
                    self.up[message.to].step(message)
                except (PeerNotFound, ProposalDropped):
                    pass
        return bool(messages)

    def settle(self) -> None:
        """Until nothing is left to do without a tick."""
        busy = True
        while busy:
            busy = False
            for node in list(self.up):
                while self.carry_out(node):
                    busy = True
            busy = self.deliver() or busy

    def tick(self, count: int = 1) -> None:
        """Let time pass for all, and everything settle after each tick."""
        for _ in range(count):
            for raft in self.up.values():
                raft.tick()
            self.settle()

    def leaders(self) -> list[int]:
        """Who believes to lead."""
        return [n for n, r in self.up.items() if r.core.role is Role.LEADER]

    def elect(self, node: int | None = None) -> int:
        """Have somebody lead: C{node}, or whoever it comes to be."""
        if node is not None:
            self.up[node].campaign()
            self.settle()
        else:
            for _ in range(20 * ELECTION_TICKS):
                if self.leaders():
                    break
                self.tick()
        leaders = self.leaders()
        assert leaders, "nobody was elected"
        return max(leaders, key=lambda n: self.up[n].core.term)

    def propose(self, node: int, *datas: bytes) -> None:
        """Propose on a member, and let everything settle."""
        self.up[node].propose(datas)
        self.settle()

    def log(self, node: int) -> list[tuple[int, int, bytes]]:
        """A member's whole log: index, term and data."""
        log: Log = self.up[node].core.log
        return [
            (entry.index, entry.term, entry.data)
            for entry in log.entries(log.first_index(), 2**63)
        ]


def append(
    term: int, previous: tuple[int, int], terms: list[int], commit: int = 0
) -> Message:
    """An append message from member 1: entries of C{terms} after C{previous},
    an index and its term."""
    index, log_term = previous
    entries = [
        Entry(entry_term, index + 1 + i, EntryType.NORMAL, b"x")
        for i, entry_term in enumerate(terms)
    ]
    return Message(
        MessageType.APP,
        from_=1,
        term=term,
        index=index,
        log_term=log_term,
        entries=entries,
        commit=commit,
    )
