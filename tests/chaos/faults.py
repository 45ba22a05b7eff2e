"""
Faults, drawn from a seed.

Each kind is a generator: it does the harm, calls C{took} once the harm is seen
to be there, yields how long to wait, and takes the harm back when it goes on or
is closed.  What did not take hold is not counted.
"""

from __future__ import annotations

import contextlib
import email.utils
import heapq
import itertools
import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from tests.chaos.cluster import Cluster, Node
from tests.end_to_end.cluster import Answer, ask

Fault = Iterator[float]

LONGEST_PAUSE: Final = 4.0
"""Seconds between the beginnings of two faults, at most."""

ADD_SECONDS: Final = 30.0
"""How long a new member is tried to be added."""

FULL: Final = re.compile("no space on the disk|No space left on device")
"""What a node says whose disk is full."""


def state_of(node: Node) -> str:
    """The state of its process, as the system tells it."""
    assert node.process is not None, "it was never started"
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{node.process.pid}/stat").read_text()
        return text.rpartition(")")[2].split()[0]
    return "gone"


def request(method: str, url: str, value: Any = None) -> Answer | None:
    """An answer in short time, or None."""
    body = None if value is None else json.dumps(value).encode()
    with contextlib.suppress(OSError):
        return ask(method, url, body, timeout=3)
    return None


@define
class Faults:
    """
    @ivar counts: those that took hold, by kind.
    @ivar tried: those that were begun, by kind.
    @ivar unable: the kinds that cannot be had here, and why.
    @ivar incidents: processes that ended though nobody ended them.
    @ivar timeline: when what was done to whom, and when it was over.
    """

    cluster: Cluster
    source: random.Random
    counts: Counter[str] = field(factory=Counter)
    tried: Counter[str] = field(factory=Counter)
    unable: dict[str, str] = field(factory=dict)
    incidents: list[str] = field(factory=list)
    timeline: list[str] = field(factory=list)
    started: float = field(factory=time.monotonic)
    _kinds: dict[str, Callable[[], Fault]] = field(factory=dict)
    _held: set[int] = field(factory=set)
    _full: set[int] = field(factory=set)
    _leaving: set[int] = field(factory=set)
    _ended_full: set[tuple[int, int]] = field(factory=set)
    _under_way: list[tuple[float, int, str, Fault]] = field(factory=list)
    _order: Iterator[int] = field(factory=itertools.count)

    def __attrs_post_init__(self) -> None:
        kinds: dict[str, Callable[[], Fault]] = {
            "kill one": self._kill_one,
            "kill a majority": self._kill_majority,
            "stop and continue": self._pause,
            "leadership handed over": self._hand_over,
            "member replaced": self._replace,
        }
        if self.cluster.network is None:
            why = "no network namespaces are permitted here"
            self.unable["partitions, slow network"] = why
        else:
            kinds["partition in two"] = self._split
            kinds["partition one way"] = self._one_way
            kinds["leader isolated"] = self._isolate_leader
            kinds["flapping partition"] = self._flap
            slow = self.cluster.network.slow_kind
            if slow is None:
                self.unable["slow network"] = "the kernel has neither netem nor tbf"
            else:
                kinds[slow] = self._slow
        if self.cluster.small_disks:
            kinds["full disk"] = self._fill
        else:
            self.unable["full disk"] = "mounting is not permitted here"
        if self.cluster.clocks is not None:
            kinds["clock jump"] = self._jump
        else:
            self.unable["clock jump"] = "there is no C compiler"
        self._kinds = kinds

    # The course of things.

    def run(self, until: float, meanwhile: Callable[[], None]) -> None:
        """Do harm until then; C{meanwhile} is called again and again."""
        following = time.monotonic() + 1
        order: list[str] = []
        try:
            while (now := time.monotonic()) < until:
                while self._under_way and self._under_way[0][0] <= now:
                    self._step(*heapq.heappop(self._under_way)[2:])
                if now >= following:
                    if not order:  # every kind once, before any comes again
                        order = self.source.sample(list(self._kinds), len(self._kinds))
                    kind = order.pop()
                    self.tried[kind] += 1
                    self._step(kind, self._kinds[kind]())
                    following = now + self.source.uniform(0.5, LONGEST_PAUSE)
                self.look()
                meanwhile()
                time.sleep(0.05)
        finally:
            for _, _, _, fault in self._under_way:
                fault.close()  # type: ignore[attr-defined]
            self._under_way.clear()

    def _step(self, kind: str, fault: Fault) -> None:
        try:
            wait = next(fault)
        except StopIteration:
            self._note(f"over: {kind}")
            return
        place = (time.monotonic() + wait, next(self._order), kind, fault)
        heapq.heappush(self._under_way, place)

    def _note(self, what: str) -> None:
        self.timeline.append(f"{time.monotonic() - self.started:8.2f} {what}")

    def _took(self, kind: str, *whom: object) -> None:
        self.counts[kind] += 1
        self._note(f"{kind} {' '.join(map(str, whom))}")

    @property
    def full_disk_ends(self) -> int:
        """How many processes ended because their disk was full."""
        return len(self._ended_full)

    def look(self) -> None:
        """Note what ended by itself, and start it again."""
        for node in self.cluster.members:
            if node.number in self._held or node.process is None or node.alive:
                continue
            status = node.process.returncode
            if node.number in self._full:
                self._ended_full.add((node.number, node.lives))
                continue  # started when there is room again
            if status == 0 and node.number in self._leaving:
                self.cluster.forget(node)
                self._took("member removed", node.number)
                continue
            last = node.log.splitlines()[-60:]
            if node.small_disk and any(map(FULL.search, last)):
                self._ended_full.add((node.number, node.lives))  # a little late
                node.start()
                continue
            said = "\n      ".join(last[-20:])
            self.incidents.append(
                f"node {node.number} ended by itself, status {status}:\n      {said}"
            )
            node.start()

    # Choosing.

    def _free(self) -> list[Node]:
        return [
            n
            for n in self.cluster.members
            if n.alive and n.number not in self._held | self._full
        ]

    @contextlib.contextmanager
    def _hold(self, nodes: list[Node]) -> Iterator[None]:
        numbers = {node.number for node in nodes}
        self._held |= numbers
        try:
            yield
        finally:
            self._held -= numbers

    def leader(self) -> Node | None:
        """Who says to lead, in the newest term."""
        found: tuple[int, Node] | None = None
        for node in self._free():
            with contextlib.suppress(OSError, ValueError, KeyError):
                status = ask("GET", node.url + "/_/status", timeout=0.5).json()
                if status["role"] == "leader" and (
                    found is None or status["term"] > found[0]
                ):
                    found = status["term"], node
        return None if found is None else found[1]

    # Processes.

    def _kill_one(self) -> Fault:
        return self._kill("kill one", 1)

    def _kill_majority(self) -> Fault:
        return self._kill("kill a majority", len(self.cluster.nodes) // 2 + 1)

    def _kill(self, kind: str, count: int) -> Fault:
        free = self._free()
        if len(free) < count:
            return
        nodes = self.source.sample(free, count)
        seconds = self.source.uniform(0, 5)
        with self._hold(nodes):
            for node in nodes:
                node.signal(signal.SIGKILL)
            if all(node.wait() == -signal.SIGKILL for node in nodes):
                self._took(kind, *(node.number for node in nodes))
            try:
                yield seconds
            finally:
                for node in nodes:
                    node.start()

    def _pause(self) -> Fault:
        free = self._free()
        if not free:
            return
        nodes = self.source.sample(free, min(len(free), self.source.choice((1, 1, 2))))
        seconds = self.source.uniform(1, 8)
        with self._hold(nodes):
            try:
                for node in nodes:
                    node.signal(signal.SIGSTOP)
                yield 0.05
                if all(state_of(node) == "T" for node in nodes):
                    self._took("stop and continue", *(n.number for n in nodes))
                yield seconds
            finally:
                for node in nodes:
                    node.signal(signal.SIGCONT)

    # The network.

    def _pairs(self, side: list[int]) -> list[tuple[int, int]]:
        """From one side to all others, and back."""
        others = [n for n in self.cluster.nodes if n not in side]
        there = [(a, b) for a in side for b in others]
        return there + [(b, a) for a, b in there]

    def _cut(self, kind: str, pairs: list[tuple[int, int]], seconds: float) -> Fault:
        network = self.cluster.network
        assert network is not None, "without a network nothing is cut"
        network.cut(pairs)
        try:
            self._took(kind, *(f"{a}>{b}" for a, b in pairs))
            yield seconds
        finally:
            network.heal(pairs)

    def _split(self) -> Fault:
        numbers = list(self.cluster.nodes)
        side = self.source.sample(numbers, self.source.randint(1, len(numbers) // 2))
        seconds = self.source.uniform(1, 8)
        yield from self._cut("partition in two", self._pairs(side), seconds)

    def _one_way(self) -> Fault:
        numbers = list(self.cluster.nodes)
        one = self.source.choice(numbers)
        others = [n for n in numbers if n != one]
        chosen = self.source.sample(others, self.source.randint(1, len(others)))
        pairs = [(one, n) for n in chosen]
        if self.source.random() < 0.5:
            pairs = [(b, a) for a, b in pairs]
        seconds = self.source.uniform(1, 8)
        yield from self._cut("partition one way", pairs, seconds)

    def _isolate_leader(self) -> Fault:
        seconds = self.source.uniform(1, 8)
        leader = self.leader()
        if leader is not None:
            pairs = self._pairs([leader.number])
            yield from self._cut("leader isolated", pairs, seconds)

    def _flap(self) -> Fault:
        numbers = list(self.cluster.nodes)
        side = self.source.sample(numbers, self.source.randint(1, len(numbers) // 2))
        network = self.cluster.network
        assert network is not None, "without a network nothing is cut"
        pairs = self._pairs(side)
        for turn in range(self.source.randint(3, 8)):
            network.cut(pairs)
            try:
                if turn == 1:
                    self._took("flapping partition", *side)
                yield self.source.uniform(0.1, 0.8)
            finally:
                network.heal(pairs)
            yield self.source.uniform(0.1, 0.8)

    def _slow(self) -> Fault:
        network = self.cluster.network
        assert network is not None, "without a network nothing is slow"
        number = self.source.choice(list(self.cluster.nodes))
        key = -number  # a slow host may well be killed or cut off
        if key in self._held:
            return
        self._held.add(key)
        network.slow(number)
        try:
            self._took(network.slow_kind or "", number)
            yield self.source.uniform(2, 8)
        finally:
            network.fast(number)
            self._held.discard(key)

    # Disks and clocks.

    def _fill(self) -> Fault:
        free = [n for n in self._free() if n.small_disk]
        if not free:
            return
        node = self.source.choice(free)
        seconds = self.source.uniform(2, 6)
        ballast = node.data / "ballast"
        self._full.add(node.number)
        try:
            with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 12))
            if os.statvfs(node.data).f_bavail == 0:
                self._took("full disk", node.number)
            yield seconds
        finally:
            ballast.unlink(missing_ok=True)
            self._full.discard(node.number)
            if not node.alive and node.number in self.cluster.nodes:
                node.start()

    def _jump(self) -> Fault:
        free = self._free()
        if not free:
            return
        node = self.source.choice(free)
        offset = self.source.choice((-1, 1)) * 10 ** self.source.uniform(1, 4)
        seconds = self.source.uniform(2, 10)
        node.set_clock(offset)
        try:
            for _ in range(8):
                yield 0.3
                if self._shows(node, offset):
                    self._took("clock jump", node.number, round(offset))
                    yield seconds
                    return
        finally:
            node.set_clock(0)

    @staticmethod
    def _shows(node: Node, offset: float) -> bool:
        """Whether the node's answers bear such a date."""
        with contextlib.suppress(OSError):
            said = ask("GET", node.url + "/_/live", timeout=0.5).headers.get("Date", "")
            shown = email.utils.parsedate_to_datetime(said).timestamp()
            return abs(shown - time.time() - offset) < 3
        return False

    # Members.

    def _hand_over(self) -> Fault:
        free = self._free()
        if len(free) < 2:
            return
        asked, target = self.source.sample(free, 2)
        answer = request("POST", asked.url + "/_/leader", {"id": target.number})
        if answer is not None and answer.status == 200:
            self._took("leadership handed over", target.number)
        yield 0.0

    def _listed(self) -> set[int] | None:
        """The members that the leader knows."""
        leader = self.leader()
        if leader is not None:
            answer = request("GET", leader.url + "/_/members")
            if answer is not None and answer.status == 200:
                return {member["id"] for member in answer.json()["members"]}
        return None

    def _replace(self) -> Fault:
        """A member leaves, and another comes under a new id."""
        if len(self.cluster.nodes) >= self.cluster.size:
            yield from self._remove()
        if len(self.cluster.nodes) < self.cluster.size:
            yield from self._join()

    def _remove(self) -> Fault:
        free = self._free()
        if len(free) < 2:
            return
        old, asked = self.source.sample(free, 2)
        pause = self.source.uniform(0, 3)
        with self._hold([old]):
            answer = request("DELETE", f"{asked.url}/_/members/{old.number}")
            if answer is None or answer.status == 504:  # nobody knows
                self._leaving.add(old.number)
                listed = None
                for _ in range(20):
                    yield 0.5
                    listed = self._listed()
                    if listed is not None:
                        break
                if listed is None or old.number in listed:
                    return
            elif answer.status != 204:
                return
            self.cluster.forget(old)
        self._took("member removed", old.number)
        yield pause

    def _join(self) -> Fault:
        new = self.cluster.join_next()
        deadline = time.monotonic() + ADD_SECONDS
        added = False
        with self._hold([new]):
            try:
                while not added and time.monotonic() < deadline:
                    added = self._add(new)
                    yield 0.0 if added else 0.5
            finally:
                if added:
                    new.start()
                    self._took("member added", new.number)
                else:
                    self.cluster.forget(new)

    def _add(self, new: Node) -> bool:
        """Whether it is a member now."""
        free = self._free()
        if not free:
            return False
        asked = self.source.choice(free)
        value = {"id": new.number, "url": new.peer_url}
        answer = request("POST", asked.url + "/_/members", value)
        if answer is not None and answer.status == 201:
            return True
        return new.number in (self._listed() or ())
