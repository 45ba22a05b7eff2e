"""A data directory that was put back to an older copy of itself."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from tests.end_to_end.cluster import Process, ask, local_cluster, until

KEYS = [f"k{number}" for number in range(20)]


def data(node: Process) -> Path:
    return node.directory / f"data/kvdb-{node.number}"


def kill(node: Process) -> None:
    node.signal(signal.SIGKILL)
    node.wait()


def put_back(node: Process, copy: Path) -> None:
    """Have a node that does not run find its directory as it was."""
    shutil.rmtree(data(node))
    shutil.copytree(copy, data(node))


def connected(node: Process, other: Process) -> bool:
    """Whether C{node} is in touch with C{other}, which both have met then."""
    members = {member["id"]: member for member in node.status()["members"]}
    return other.number in members[node.number]["links"]


def write(node: Process) -> None:
    for key in KEYS:
        assert ask("PUT", f"{node.url}/{key}", b"acknowledged").status == 204


def test_a_peer_that_met_it_since_refuses_it(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 3) as cluster:
        one, two, three = cluster.nodes.values()
        kill(three)
        shutil.copytree(data(three), tmp_path / "copy")
        three.start()
        three.wait_ready()
        until(lambda: connected(two, three), "2 has met 3")
        kill(two)
        write(one)
        kill(three)
        kill(one)
        put_back(three, tmp_path / "copy")
        two.start()
        three.start()
        assert three.wait() == 1
        assert "member 3 is an older copy of itself: member 2 has met" in three.log
        assert "Traceback" not in three.log
        one.start()
        one.wait_ready()
        for key in KEYS:
            assert ask("GET", f"{two.url}/{key}").body == b"acknowledged"


def test_who_holds_what_was_committed_stops_when_it_is_contradicted(
    tmp_path: Path,
) -> None:
    with local_cluster(tmp_path, 3) as cluster:
        one, two, three = cluster.nodes.values()
        kill(three)
        shutil.copytree(data(three), tmp_path / "copy")
        kill(two)  # and so 2 never meets the start that the copy does not remember
        three.start()
        three.wait_ready()
        write(one)
        kill(three)
        kill(one)
        put_back(three, tmp_path / "copy")
        two.start()
        three.start()
        for node in (two, three):
            node.wait_ready()
        # Terms that 1 knows may be led again: go on to one that it does not know.
        for node in (three, two):
            body = b'{"id": %d}' % node.number
            assert ask("POST", f"{two.url}/_/leader", body).status == 200
            assert ask("PUT", f"{two.url}/other", b"1").status == 204
        one.start()
        assert one.wait() == 1
        assert "the node stops: the leader's log has" in one.log
        assert "docs/procedures.md" in one.log
        assert "Traceback" not in one.log
        # It is not the one to be overwritten: it stops again, and holds what it held.
        one.start()
        assert one.wait() == 1
