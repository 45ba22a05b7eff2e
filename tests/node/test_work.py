"""
How much work a write and a read are: counted, for times say little on machines
that others share.

The bounds are what was counted, and a sixth; whoever makes the work less lowers
them, and whoever makes it more knows why.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kvdb.node.node import Node
from kvdb.rest.site import RestSettings, make_site
from kvdb.simulation.filesystem import SimulatedFile
from tests.node import cluster as cluster_module
from tests.node.cluster import Cluster

BATCH = 64


class Clients:
    """Connections to one node."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        site = make_site(node, cluster.clock, RestSettings())
        self.cluster = cluster
        self.connections: list[tuple[Any, StringTransport]] = []
        for _ in range(BATCH):
            channel, transport = site.buildProtocol(None), StringTransport()
            channel.makeConnection(transport)
            self.connections.append((channel, transport))

    def ask(self, count: int, request: Callable[[int], bytes]) -> None:
        """Have so many ask at once, and wait for all answers."""
        asking = self.connections[:count]
        for number, (channel, transport) in enumerate(asking):
            transport.clear()
            channel.dataReceived(request(number))
        self.cluster.until(lambda: all(t.value() for _, t in asking))
        self.cluster.run(0.01)  # the followers apply it
        for _, transport in asking:
            assert transport.value().startswith(b"HTTP/1.1 20"), transport.value()


def put(number: int) -> bytes:
    head = b"PUT /key/%d HTTP/1.1\r\nHost: n\r\nContent-Length: 64\r\n\r\n" % number
    return head + bytes(64)


def get(number: int) -> bytes:
    return b"GET /key/%d HTTP/1.1\r\nHost: n\r\n\r\n" % number


def stale(number: int) -> bytes:
    return b"GET /key/%d?consistency=stale HTTP/1.1\r\nHost: n\r\n\r\n" % number


class Work(SynchronousTestCase):
    """Of three members together."""

    def setUp(self) -> None:
        self.cluster = Cluster(3)
        self.clients = Clients(self.cluster, self.cluster.leader())
        for _ in range(3):
            self.clients.ask(BATCH, put)
        self.cluster.run(0.5)

    def calls(self, count: int, request: Callable[[int], bytes]) -> float:
        """Function calls for each of so many requests that come together, not
        counting those of the test's own network and disk."""
        found: Counter[str] = Counter()

        def note(frame: FrameType, event: str, argument: object) -> None:
            if event in ("call", "c_call"):
                found[frame.f_globals.get("__name__", "")] += 1

        sys.setprofile(note)
        try:
            self.clients.ask(count, request)
        finally:
            sys.setprofile(None)
        ours = (n for name, n in found.items() if name.startswith("kvdb."))
        theirs = sum(n for name, n in found.items() if "simulation" in name)
        return (sum(ours) - theirs) / count

    def test_a_write_of_many(self) -> None:
        self.assertLess(self.calls(BATCH, put), 170)

    def test_a_write_alone(self) -> None:
        self.assertLess(self.calls(1, put), 2480)

    def test_a_read_of_many(self) -> None:
        self.assertLess(self.calls(BATCH, get), 53)

    def test_a_stale_read(self) -> None:
        self.assertLess(self.calls(BATCH, stale), 33)

    def test_a_batch_is_one_write_and_one_sync_and_one_frame_each(self) -> None:
        done: Counter[str] = Counter()

        def counted(where: Any, name: str) -> None:
            before = getattr(where, name)

            def count(*args: Any, **kwargs: Any) -> Any:
                done[name] += 1
                return before(*args, **kwargs)

            self.patch(where, name, count)

        counted(SimulatedFile, "write")
        counted(SimulatedFile, "sync_later")
        counted(cluster_module.Wire, "_deliver")
        self.clients.ask(BATCH, put)
        # An append and its answer for each follower, and the news of the commit.
        self.assertEqual(done, {"write": 3, "sync_later": 3, "_deliver": 8})
