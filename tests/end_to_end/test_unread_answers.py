"""Clients that ask for much and read nothing: one real process."""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path

import pytest

from tests.end_to_end.cluster import Process, ask, local_cluster
from tests.end_to_end.test_large_values import peak_mib

VALUE_BYTES = 1 << 20
ASKED_BYTES = 128 << 10
"""What each connection sends ahead."""

MOST_MEMORY_MIB = 150
CONNECTIONS = 250
"""Which would hold as many mebibytes."""

MOST_TOGETHER_MIB = 220
LIVE_SECONDS = 1.0
"""Within which a node is to answer beside all that; far more than it needs, for
other tests run on the same machine."""

ASKED = (
    b"GET /v",
    b"GET /v?consistency=stale",
    b"GET /v?consistency=stale&revision=1",
    b"GET /_/kv?prefix=/v",
    b"GET /metrics",
    b"GET /" + b"k" * 4000,
    b"GET /_/watch?since=0",
    b"GET /_/snapshot",
)


def greedy(node: Process, line: bytes, asked_bytes: int = ASKED_BYTES) -> socket.socket:
    """A client that has sent all that is taken of it."""
    client = socket.create_connection(("127.0.0.1", node.port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(0.2)
    request = line + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with contextlib.suppress(TimeoutError):
        client.sendall(request * max(1, asked_bytes // len(request)))
    return client


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_is_bounded_and_the_node_answers(tmp_path: Path) -> None:
    """With two connections for each thing that can be asked for."""
    with local_cluster(tmp_path, 1) as cluster, contextlib.ExitStack() as clients:
        node = cluster.leader()
        for _ in range(3):
            assert node.put("v", bytes(VALUE_BYTES)).status == 204
        before = node.status()["term"]
        for line in ASKED * 2:
            clients.enter_context(contextlib.closing(greedy(node, line)))
            begun = time.monotonic()
            assert ask("GET", node.url + "/_/live").status == 200
            assert time.monotonic() - begun < LIVE_SECONDS
        half = greedy(node, ASKED[1])
        clients.enter_context(contextlib.closing(half))
        half.shutdown(socket.SHUT_WR)
        assert node.put("w", b"value").status == 204
        assert node.get("w") == b"value"
        assert peak_mib(node) < MOST_MEMORY_MIB
        assert node.status()["term"] == before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_memory_is_bounded_for_all_connections_together(tmp_path: Path) -> None:
    """Those that were not read for longest are cut, and what they held is free."""
    with local_cluster(tmp_path, 1) as cluster, contextlib.ExitStack() as clients:
        node = cluster.leader()
        assert node.put("v", bytes(VALUE_BYTES)).status == 204
        for _ in range(CONNECTIONS):
            clients.enter_context(contextlib.closing(greedy(node, ASKED[1], 4096)))
        assert node.get("v") == bytes(VALUE_BYTES)
        assert "has not been read for longest was cut" in node.log
        assert peak_mib(node) < MOST_TOGETHER_MIB
