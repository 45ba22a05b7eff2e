"""A follower that was down for 50,000 writes is brought back by a snapshot."""

from __future__ import annotations

import http.client
import threading
from pathlib import Path
from typing import Any

from tests.end_to_end.cluster import Process, ask, local_cluster, until

WRITES = 50_000
WRITERS = 8  # so at least an eighth as many entries as writes
KEYS = 5_000


def write_many(node: Process, first: int, count: int) -> None:
    """C{count} writes over one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=20)
    for number in range(first, first + count):
        connection.request("PUT", f"/key-{number % KEYS}", b"value %d" % number)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 204, answer.status
    connection.close()


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
