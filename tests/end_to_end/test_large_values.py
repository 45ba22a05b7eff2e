"""Many large values at once through a follower: real processes."""

from __future__ import annotations

import http.client
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.end_to_end.cluster import Process, local_cluster

WRITERS = 150
VALUE_BYTES = 1 << 20
MOST_MEMORY_MIB = 300


def put(node: Process, number: int) -> int:
    """The status of a write of a large value."""
    value = number.to_bytes(4, "big") * (VALUE_BYTES // 4)
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=60)
    try:
        connection.request("PUT", f"/large-{number}", value)
        return connection.getresponse().status
    finally:
        connection.close()


def peak_mib(node: Process) -> int:
    """The most memory that it ever had."""
    assert node.process is not None, "it was never started"
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    [line] = [one for one in status.splitlines() if one.startswith("VmHWM:")]
    return int(line.split()[1]) >> 10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_many_large_values_through_a_follower(tmp_path: Path) -> None:
    """Each is done or refused, none is unknown; no member is overrun or deposed."""
    with local_cluster(tmp_path, 3) as cluster:
        leader = cluster.leader()
        term = leader.status()["term"]
        follower = next(n for n in cluster.nodes.values() if n is not leader)
        with ThreadPoolExecutor(WRITERS) as pool:
            statuses = list(pool.map(lambda n: put(follower, n), range(WRITERS)))
        found = Counter(statuses)
        assert set(found) <= {204, 503}, found
        assert found[204] >= WRITERS // 10, found
        for number, status in enumerate(statuses):
            value = follower.get(f"large-{number}")
            if status == 204:
                assert value == number.to_bytes(4, "big") * (VALUE_BYTES // 4)
            else:
                assert value is None
        for node in cluster.nodes.values():
            assert peak_mib(node) < MOST_MEMORY_MIB, (node.number, peak_mib(node))
        assert leader.status()["term"] == term
