"""A follower that was down for 50,000 writes is brought back by a snapshot."""

from __future__ import annotations

import http.client
import socket
import threading
from pathlib import Path
from typing import Any

from tests.end_to_end.cluster import Process, ask, local_cluster, until

WRITES = 50_000
WRITERS = 8
AHEAD = 4
"""Writes sent at once: so there is an entry for 32 of them, at least."""

KEYS = 5_000


def write_many(node: Process, first: int, count: int) -> None:
    """C{count} writes over one connection."""
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as connection:
        for low in range(first, first + count, AHEAD):
            numbers = range(low, min(low + AHEAD, first + count))
            connection.sendall(b"".join(map(write_of, numbers)))
            answers = b""
            while answers.count(b"\r\n\r\n") < len(numbers):
                more = connection.recv(1 << 16)
                assert more, "the connection was closed"
                answers += more
            assert answers.count(b"HTTP/1.1 204 ") == len(numbers), answers


def write_of(number: int) -> bytes:
    """A request whose answer is a head alone."""
    value = b"value %d" % number
    return (
        b"PUT /key-%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
        % (number % KEYS, len(value), value)
    )


def everything(node: Process) -> dict[int, tuple[Any, ...]]:
    """Each key's answer and revision, read from this member alone."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
    found = {}
    for number in range(KEYS):
        connection.request("GET", f"/key-{number}?consistency=stale")
        answer = connection.getresponse()
        found[number] = answer.status, answer.read(), answer.headers["ETag"]
    connection.close()
    return found


def test_a_follower_far_behind(tmp_path: Path) -> None:
    """Its data is equal, key by key and revision by revision."""
    with local_cluster(tmp_path, 3, "--snapshot-count", "500") as cluster:
        leader = cluster.leader()
        behind = next(n for n in cluster.nodes.values() if n is not leader)
        behind.stop()
        share = WRITES // WRITERS
        threads = [
            threading.Thread(target=write_many, args=(leader, n * share, share))
            for n in range(WRITERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert leader.status()["revision"] == WRITES

        until(lambda: "the log was cut" in leader.log, "the log is cut")

        behind.start()
        write_many(leader, WRITES, 500)  # the cluster serves meanwhile
        behind.wait_ready()

        def caught_up() -> bool:
            states = [node.status() for node in (leader, behind)]
            return bool(states[0]["applied_index"] == states[1]["applied_index"])

        until(caught_up, "the follower has caught up")
        assert "installed the snapshot" in behind.log
        assert everything(behind) == everything(leader)
        assert ask("GET", behind.url + "/key-1").status == 200
