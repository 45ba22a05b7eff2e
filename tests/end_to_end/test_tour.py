"""The README's tour, with real processes."""

from __future__ import annotations

from pathlib import Path

from tests.end_to_end.cluster import ask, local_cluster, until


def test_the_tour(tmp_path: Path) -> None:
    """Write, read, stop, start, add, remove."""
    with local_cluster(tmp_path, 3) as cluster:
        one, two, three = (cluster.nodes[n] for n in (1, 2, 3))
        assert one.put("my-key", b"hello").status == 204
        for node in (one, two, three):
            assert node.get("my-key") == b"hello"

        assert two.stop() == -15
        assert one.put("my-key", b"bar").status == 204
        assert three.get("my-key") == b"bar"
        two.start()
        two.wait_ready()
        assert two.get("my-key") == b"bar"

        four = cluster.join(4)
        added = ask("POST", one.url + "/4", four.peer_url.encode())
        assert added.status == 204
        four.start()
        four.wait_ready()
        assert four.get("my-key") == b"bar"
        assert four.put("my-key", b"via 4").status == 204
        assert three.get("my-key") == b"via 4"
        until(lambda: four.status()["role"] == "follower", "4 is made a voter")

        assert ask("DELETE", one.url + "/3").status == 204
        assert three.wait() == 0
        three.start()
        assert three.wait() == 0
        assert "was removed" in three.log
        assert one.put("my-key", b"without 3").status == 204
        assert four.get("my-key") == b"without 3"

        # Who is a member does not depend on --cluster: a restart of all.
        for node in (one, two, four):
            node.stop()
        for node in (one, two, four):
            node.start()
        for node in (one, two, four):
            node.wait_ready()
            assert node.get("my-key") == b"without 3"


def test_a_leader_removes_itself(tmp_path: Path) -> None:
    """By its own address; it stops with status 0, the others go on."""
    with local_cluster(tmp_path, 3) as cluster:
        leader = cluster.leader()
        gone = ask("DELETE", f"{leader.url}/{leader.number}")
        assert gone.status == 204
        assert leader.wait() == 0
        other = next(n for n in cluster.nodes.values() if n is not leader)
        assert other.put("k", b"v").status == 204


def test_a_graceful_stop_of_the_leader_hands_over(tmp_path: Path) -> None:
    """The next write need not wait for an election timeout."""
    with local_cluster(tmp_path, 3, "--tick", "1000") as cluster:
        leader = cluster.leader()
        other = next(n for n in cluster.nodes.values() if n is not leader)
        leader.stop()
        # An election without a hand-over takes 10 to 20 seconds here, and the
        # write would have timed out.
        assert other.put("k", b"v").status == 204
