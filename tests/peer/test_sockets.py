"""Members on real sockets of the loopback interface."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
import treq
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater

from kvdb.peer.addresses import tcp_dial
from kvdb.peer.connection import PeerSettings
from kvdb.peer.handshake import NOT_A_PEER_TEXT, Hello, Identity, Refusal
from kvdb.peer.peers import Peers
from kvdb.peer.report import Report
from kvdb.peer.snapshots import SnapshotSink
from kvdb.raft.messages import Entry, EntryType, Message, MessageType, Snapshot
from tests.peer.network import REPORT, Sink, heartbeat
from tests.timed import timed

reactor: Any = default_reactor


class Node:
    """A member on a port that the system chose."""

    def __init__(self, node: int, settings: PeerSettings | None = None) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.identity = Identity(node, 1, 1, self.url)
        self.received: list[Message] = []
        self.reports: list[tuple[int, Report]] = []
        self.events: list[tuple[str, int]] = []
        self.sink = Sink()
        self.peers = Peers(
            reactor, Random(node), self, self._listen, tcp_dial(reactor), settings
        )

    def _listen(self, factory: Any) -> Any:
        with self.socket:
            return reactor.adoptStreamPort(
                self.socket.fileno(), socket.AF_INET, factory
            )

    def judge(self, hello: Hello) -> Refusal | None:
        return None

    def messages_received(self, sender: int, messages: Sequence[Message]) -> None:
        self.received += messages

    def report(self) -> Report:
        return REPORT

    def report_received(self, sender: int, report: Report) -> None:
        self.reports.append((sender, report))

    def connected(self, node_id: int) -> None:
        self.events.append(("connected", node_id))

    def has_room(self, node_id: int) -> None:
        pass

    def disconnected(self, node_id: int) -> None:
        self.events.append(("disconnected", node_id))

    def process_gone(self, node_id: int) -> None:
        self.events.append(("process gone", node_id))

    def unreachable(self, node_id: int) -> None:
        self.events.append(("unreachable", node_id))

    def refused(self, node_id: int, refusal: Refusal) -> None:
        raise AssertionError(refusal)

    def cluster_learned(self, cluster_id: int) -> None:
        raise AssertionError(cluster_id)

    def begin_snapshot(self, message: Message) -> SnapshotSink:
        return self.sink


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the reactor to bring it about; the test's time-out bounds it."""
    while not condition():
        await deferLater(reactor, 0.002, lambda: None)


@asynccontextmanager
async def pair(
    settings: PeerSettings | None = None,
) -> AsyncIterator[tuple[Node, Node]]:
    """Two members, connected both ways."""
    nodes = a, b = Node(1, settings), Node(2, settings)
    urls = {1: a.url, 2: b.url}
    try:
        for node in nodes:
            node.peers.startService()
            node.peers.set_members(urls)
        await until(lambda: a.peers.connected() == [2] and b.peers.connected() == [1])
        yield nodes
    finally:
        for node in nodes:
            if node.peers.running:
                await node.peers.stopService()


@timed(10)
async def test_messages_are_exchanged() -> None:
    async with pair() as (a, b):
        there = [heartbeat(1, 2, commit) for commit in range(100)]
        a.peers.send(2, there)
        b.peers.send(1, [heartbeat(2, 1, 7)])
        await until(lambda: len(b.received) == 100 and len(a.received) == 1)
        assert b.received == there


@timed(20)
async def test_a_burst_of_large_entries_is_queued_and_arrives() -> None:
    async with pair() as (a, b):
        entry = Entry(1, 1, EntryType.NORMAL, bytes(4 << 20))
        burst = [Message(MessageType.APP, 2, 1, entries=[entry]) for _ in range(8)]
        a.peers.send(2, burst)
        assert a.peers.status()[2].queued_bytes > 4 << 20
        await until(lambda: len(b.received) == 8)
        assert b.received == burst
        assert a.peers.status()[2].queued_bytes == 0


@timed(20)
async def test_a_snapshot_arrives_while_messages_go_on() -> None:
    async with pair() as (a, b):
        waiting: list[Deferred[None]] = []

        def taking() -> Deferred[None]:
            waiting.append(deferLater(reactor, 0.001, lambda: None))
            return waiting[-1]

        b.sink.taking = taking
        chunks = [bytes([n]) * (256 << 10) for n in range(80)]
        message = Message(MessageType.SNAP, 2, 1, snapshot=Snapshot(1, 1))
        sent = a.peers.send_snapshot(2, message, iter(chunks))
        await until(lambda: b.sink.chunks > 3)
        a.peers.send(2, [heartbeat(1, 2)])
        await until(lambda: len(b.received) == 1)
        assert not b.sink.finished
        await sent
        assert b.sink.data == b"".join(chunks)


@timed(10)
async def test_a_peer_that_stops_is_noticed_at_once() -> None:
    async with pair() as (a, b):
        await b.peers.stopService()
        await until(lambda: ("disconnected", 2) in a.events)
        assert a.peers.connected() == []


@timed(10)
async def test_a_curl_at_the_peers_port_is_told_where_it_is() -> None:
    async with pair() as (a, _):
        for method in ("GET", "PUT"):
            response = await treq.request(
                method, f"{a.url}/my-key", data=b"hello", persistent=False
            )
            assert response.code == 400
            assert await response.content() == NOT_A_PEER_TEXT


@timed(10)
async def test_a_peer_dialled_at_a_silent_port_is_given_up_and_stops() -> None:
    quick = PeerSettings(ping_seconds=0.05, handshake_seconds=0.1, close_seconds=0.2)
    silent = socket.create_server(("127.0.0.1", 0))
    a = Node(1, quick)
    with silent:
        a.peers.startService()
        a.peers.set_members({2: f"http://127.0.0.1:{silent.getsockname()[1]}"})
        await until(lambda: "no handshake" in str(a.peers._complaints))
        assert a.peers.connected() == []
        await a.peers.stopService()


@timed(10)
async def test_a_port_in_use_is_an_error_at_start() -> None:
    async with pair() as (a, _):
        other = Node(3)
        other.socket.close()
        other.peers._listen = lambda factory: reactor.listenTCP(
            a.port, factory, interface="127.0.0.1"
        )
        with pytest.raises(CannotListenError):
            other.peers.startService()
        assert not other.peers.running
