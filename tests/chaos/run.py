"""
One run: clients and faults for a time, then the proof.

At the end everything is healed, every member serves every key, all members
come to hold the same, and one copy of the data has to explain all answers.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from attrs import define, field

from kvdb.simulation.history import History, Kind, Operation, Result
from kvdb.simulation.linearizability import check
from tests.chaos.clients import Caller, Client, Told
from tests.chaos.cluster import Cluster, Node
from tests.chaos.faults import FULL, Faults
from tests.end_to_end.cluster import ask, until

CLIENTS: Final = 8
HEALED_SECONDS: Final = 90.0
"""Within which a healed cluster serves, and its members hold the same."""

FINAL_SECONDS: Final = 30.0
"""How long one final read is tried."""

_TRACEBACK: Final = re.compile(
    r".*\n\tTraceback \(most recent call last\):\n(?:\t .*\n)+\t(?P<error>\S.*)\n"
)
_ADDRESS: Final = re.compile(r"0x[0-9a-f]+")


class Failed(AssertionError):
    """Something that has to hold does not; the text says what."""


class LeaderWatch(threading.Thread):
    """
    Who leads, seen from outside.

    @ivar leaders: by term.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True, name="leader watch")
        self.cluster = cluster
        self.ended = threading.Event()
        self.leaders: dict[int, int] = {}
        self.failure: str | None = None

    def run(self) -> None:
        """Until it is ended."""
        while not self.ended.wait(0.2):
            for node in self.cluster.members:
                with contextlib.suppress(OSError, ValueError, KeyError):
                    status = ask("GET", node.url + "/_/status", timeout=0.3).json()
                    if status["role"] == "leader":
                        self._note(status["term"], node.number)

    def _note(self, term: int, number: int) -> None:
        other = self.leaders.setdefault(term, number)
        if other != number:
            self.failure = f"two leaders of term {term}: {other} and {number}"

    @property
    def changes(self) -> int:
        """How often another term's leader was seen."""
        return max(0, len(self.leaders) - 1)


@define
class Run:
    """
    @ivar seed: what faults and clients are drawn from.
    @ivar least_faults: a minute, of all kinds.
    @ivar least_rate: acknowledged operations a second, over the whole time.
    """

    cluster: Cluster
    seed: int
    seconds: float
    least_faults: float = 10
    least_rate: float = 50
    history: History = field(factory=History)
    started: float = field(factory=time.monotonic)
    surprises: list[str] = field(factory=list)
    clients: list[Client] = field(factory=list)
    timeline: list[str] = field(factory=list)
    _shown: float = 0.0

    def go(self) -> None:
        """
        Do all of it.

        @raise Failed: or another L{AssertionError}: what does not hold.
        """
        cluster = self.cluster
        cluster.start()
        faults = Faults(cluster, random.Random(f"{self.seed} faults"))
        self.timeline = faults.timeline
        for kind, why in faults.unable.items():
            print(f"skipped: {kind}: {why}", flush=True)
        watch = LeaderWatch(cluster)
        self.started = faults.started = time.monotonic()
        self.clients = [
            Client(n, self.seed, cluster, self.history, self.surprises, self.started)
            for n in range(CLIENTS)
        ]
        threads: list[Client | LeaderWatch] = [watch, *self.clients]
        for thread in threads:
            thread.start()
        try:
            faults.run(
                self.started + self.seconds, lambda: self._progress(faults, watch)
            )
        finally:
            for thread in threads:
                thread.ended.set()
            for thread in threads:
                thread.join(HEALED_SECONDS)
        self._prove(faults)
        self._table(faults, watch)
        self._judge(faults, watch)

    def _now(self) -> float:
        return time.monotonic() - self.started

    def _progress(self, faults: Faults, watch: LeaderWatch) -> None:
        if self._now() < self._shown + 10:
            return
        self._shown += 10
        total = sum(faults.counts.values())
        kinds = ", ".join(f"{k} {n}" for k, n in sorted(faults.counts.items()))
        print(
            f"{self._shown:5.0f} s: {sum(c.done for c in self.clients)} acknowledged,"
            f" {sum(c.unknown for c in self.clients)} unknown,"
            f" {watch.changes} leader changes, {total} faults: {kinds}",
            flush=True,
        )

    # The proof.

    def _prove(self, faults: Faults) -> None:
        """Everything healed: it serves, agrees, and the history holds."""
        network = self.cluster.network
        assert network is None or network.is_whole, "something is still cut"
        deadline = time.monotonic() + HEALED_SECONDS
        for node in self.cluster.members:

            def ready(node: Node = node) -> bool:
                faults.look()
                return node.alive and node.ready()

            until(ready, f"node {node.number} serves", deadline - time.monotonic())
        self._read_all()
        self._agree()
        check(self.history)

    def _each(self, work: Callable[[Node], None]) -> None:
        """For every member at the same time."""
        failures: list[BaseException] = []

        def guarded(node: Node) -> None:
            try:
                work(node)
            except BaseException as error:
                failures.append(error)

        threads = [
            threading.Thread(target=guarded, args=(node,), daemon=True)
            for node in self.cluster.members
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]

    def _keys(self) -> list[str]:
        return sorted({operation.key for operation in self.history})

    def _read_all(self) -> None:
        """Every member serves a linearizable read of every key."""
        keys = self._keys()

        def read(node: Node) -> None:
            caller = Caller(self.surprises)
            for key in keys:
                deadline = time.monotonic() + FINAL_SECONDS
                while self._read(caller, node, key).result not in (
                    Result.DONE,
                    Result.ABSENT,
                ):
                    if time.monotonic() > deadline:
                        raise Failed(f"node {node.number} does not serve {key}")
                    time.sleep(0.2)
            caller.close()

        self._each(read)

    def _read(
        self, caller: Caller, node: Node, key: str, *, stale: bool = False
    ) -> Told:
        client = CLIENTS + node.number
        operation = Operation(client, Kind.GET, key, self._now(), stale=stale)
        self.history.begin(operation)
        told = caller.ask(node, operation)
        operation.value = told.value
        operation.end(self._now(), told.result, told.revision)
        return told

    def _agree(self) -> None:
        """All members have applied the same, and hold the same."""

        def applied() -> bool:
            found = {n.status()["applied_index"] for n in self.cluster.members}
            return len(found) == 1

        until(applied, "all members have applied the same", HEALED_SECONDS)
        held: dict[int, list[Told]] = {}
        keys = self._keys()

        def read(node: Node) -> None:
            caller = Caller(self.surprises)
            held[node.number] = [
                self._read(caller, node, key, stale=True) for key in keys
            ]
            caller.close()

        self._each(read)
        for place, key in enumerate(keys):
            values = {number: told[place] for number, told in held.items()}
            first = next(iter(values.values()))
            if any(told != first for told in values.values()):
                raise Failed(f"members differ at {key}: {values}")

    # The outcome.

    def _silence(self) -> tuple[float, float]:
        """The longest time in which nothing was acknowledged, and its begin."""
        ends = sorted(
            o.returned
            for o in self.history
            if o.is_definite and o.result is not Result.REFUSED and not o.stale
        )
        times = [0.0, *(end for end in ends if end <= self.seconds), self.seconds]
        return max((b - a, a) for a, b in itertools.pairwise(times))

    def _table(self, faults: Faults, watch: LeaderWatch) -> None:
        results = Counter(o.result.value for o in self.history)
        print(f"\nseed {self.seed}, {self.seconds:g} s, {self.cluster.size} nodes")
        print(f"  {len(self.history)} operations on {len(self._keys())} keys")
        rows = [("operations", results), ("faults", faults.counts)]
        for title, counts in rows:
            print(f"  {title}:")
            for kind, count in counts.most_common():
                begun = faults.tried.get(kind)
                of = f" of {begun} tried" if title == "faults" and begun else ""
                print(f"    {count:8d}  {kind}{of}")
        longest = max(Counter(o.key for o in self.history).values())
        print(f"  longest history of a key: {longest} operations")
        print(f"  leader changes: {watch.changes}")
        silent, since = self._silence()
        print(f"  longest time without an answer: {silent:.1f} s, from {since:.1f} s")
        print(f"  processes that ended on a full disk: {faults.full_disk_ends}")

    def _judge(self, faults: Faults, watch: LeaderWatch) -> None:
        problems = [*faults.incidents, *self.surprises]
        problems += [f"{c.name}: {c.failure!r}" for c in self.clients if c.failure]
        if watch.failure:
            problems.append(watch.failure)
        problems += self._tracebacks()
        minutes = self.seconds / 60
        rate = sum(c.done for c in self.clients) / self.seconds
        per_minute = sum(faults.counts.values()) / minutes
        print(f"  {per_minute:.1f} faults a minute, at least {self.least_faults:g}")
        print(f"  {rate:.0f} acknowledged a second, at least {self.least_rate:g}")
        if per_minute < self.least_faults:
            problems.append("too few faults took hold: the run says little")
        if rate < self.least_rate:
            problems.append("too few operations: the run says little")
        problems += [
            f"of the kind {kind!r} none took hold, in {tried} tries"
            for kind, tried in faults.tried.items()
            if tried > 5 and kind != "member replaced" and not faults.counts[kind]
        ]
        if problems:
            raise Failed("\n".join(problems))

    def _tracebacks(self) -> list[str]:
        """What the nodes logged as failed: each kind once, but for full disks."""
        found: dict[str, tuple[Counter[int], str]] = {}
        for node in self.cluster.all_nodes:
            for logged in _TRACEBACK.finditer(node.log):
                kind = _ADDRESS.sub("0x", logged["error"])
                if not FULL.search(kind):
                    counts, _ = found.setdefault(kind, (Counter(), logged[0]))
                    counts[node.number] += 1
        return [
            f"logged by nodes (times) {dict(counts)}:\n{text}"
            for counts, text in found.values()
        ]

    def write(self, directory: Path) -> None:
        """All operations, for L{History.read}, and the faults."""
        with (directory / "history.jsonl").open("w") as file:
            self.history.write(file)
        (directory / "faults.txt").write_text("\n".join(self.timeline) + "\n")
