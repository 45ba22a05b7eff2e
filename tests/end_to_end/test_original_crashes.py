"""
What the Go program that kvdb re-creates crashed, hung or lost data on, by the
same steps: each is refused with a reason, recovered from, or harmless here.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import signal
import socket
import time
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.cluster import (
    LocalCluster,
    Process,
    ask,
    free_ports,
    local_cluster,
    until,
)

QUICK = ("--tick", "20")


def alive(cluster: LocalCluster, key: str) -> None:
    """All that run take a write and read it everywhere."""
    nodes = cluster.nodes.values()
    running = [n for n in nodes if n.process and n.process.poll() is None]
    for node in running:
        assert node.put(key, b"%d" % node.number).status == 204
        for reader in running:
            assert reader.get(key) == b"%d" % node.number


def restart(*nodes: Process) -> None:
    """Stop all in peace, then start all."""
    for node in nodes:
        node.stop()
    for node in nodes:
        node.start()
    for node in nodes:
        node.wait_ready()


def test_membership_requests_that_were_poison(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 3, *QUICK) as cluster:
        one, two, three = (cluster.nodes[n] for n in (1, 2, 3))
        for bad in (
            b"not a url",
            b"http://127.0.0.1",
            b"http://h:1/x",
            b"ftp://h:1",
            b"http://h:1,http://h:2",
            b"http://h:1\x01",
            b"",
            b"http://h:99999",
        ):
            answer = ask("POST", one.url + "/4", bad)
            assert answer.status == 400, bad
            assert answer.json()["detail"]
        assert ask("POST", one.url + "/2", b"garbage").status == 400
        assert ask("POST", one.url + "/2", b"http://127.0.0.1:9").status == 409
        for absent, status in (("9", 404), ("0", 400), ("4", 404)):
            assert ask("DELETE", f"{one.url}/{absent}").status == status
        alive(cluster, "a")
        restart(one, two, three)
        alive(cluster, "b")

        [port] = free_ports(1)
        url = b"http://127.0.0.1:%d" % port
        assert ask("POST", one.url + "/4", url + b"\n").status == 204
        assert ask("DELETE", one.url + "/4").status == 204
        assert ask("DELETE", one.url + "/4").status == 404
        assert ask("POST", one.url + "/4", url).status == 409  # never given again
        alive(cluster, "c")

        # DELETE /3, then 1 and 2 with a --cluster that no longer lists it.
        assert ask("DELETE", one.url + "/3").status == 204
        assert three.wait() == 0
        urls = f"{one.peer_url},{two.peer_url}"
        for node in (one, two):
            node.options[node.options.index("--cluster") + 1] = urls
        restart(one, two)
        alive(cluster, "d")

        # The removed one, started again, disturbs nobody.
        term = one.status()["term"]
        three.start()
        assert three.wait() == 0
        assert one.status()["term"] == term


def test_the_only_member_stays(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 1, *QUICK) as cluster:
        [one] = cluster.nodes.values()
        assert ask("DELETE", one.url + "/1").status == 409
        # A second one that never comes costs nothing.
        [port] = free_ports(1)
        url = b"http://127.0.0.1:%d" % port
        assert ask("POST", one.url + "/2", url).status == 204
        alive(cluster, "a")
        restart(one)
        alive(cluster, "b")


def test_snapshots_restarts_joins_and_bytes(tmp_path: Path) -> None:
    more = (*QUICK, "--snapshot-count", "100")
    with local_cluster(tmp_path, 3, *more) as cluster:
        one, two, three = (cluster.nodes[n] for n in (1, 2, 3))
        raw = b"\xff\xfe\x00 not UTF-8 \x80"
        assert one.put("raw", raw).status == 204
        connection = http.client.HTTPConnection("127.0.0.1", one.port)
        for number in range(6_000):
            connection.request("PUT", f"/k{number % 50}", b"%d" % number)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 204
        connection.close()
        assert "the log was cut" in one.log
        restart(one)
        assert one.get("k1") == b"5951"
        restart(one, two, three)
        for node in (one, two, three):
            assert node.get("k1") == b"5951"

        four = cluster.join(4)
        assert ask("POST", one.url + "/4", four.peer_url.encode()).status == 204
        four.start()
        four.wait_ready()
        assert "installed the snapshot" in four.log
        assert four.get("k49") == b"5999"
        assert ask("GET", four.url + "/raw?consistency=stale").body == raw


def test_values_that_are_too_large(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 3, *QUICK) as cluster:
        one = cluster.nodes[1]
        assert one.put("k", b"before").status == 204
        assert one.put("k", bytes(9 << 20)).status == 413
        with contextlib.suppress(OSError):
            assert one.put("k", bytes(12 << 20)).status == 413
        with socket.create_connection(("127.0.0.1", one.port)) as raw:
            raw.sendall(
                b"PUT /k HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
                % (520 << 20)
            )
            with contextlib.suppress(OSError):
                for _ in range(520):
                    raw.sendall(bytes(1 << 20))
        assert one.get("k") == b"before"
        restart(*cluster.nodes.values())
        alive(cluster, "a")
        assert one.get("k") == b"before"


def test_killed_right_after_the_answer(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 1, *QUICK) as cluster:
        [one] = cluster.nodes.values()
        for number in range(20):
            assert one.put("k", b"%d" % number).status == 204
            one.kill()
            one.start()
            one.wait_ready()
            assert one.get("k") == b"%d" % number


@pytest.mark.parametrize("how", ["killed", "removed"])
def test_writes_while_the_leader_goes(tmp_path: Path, how: str) -> None:
    with local_cluster(tmp_path, 3, *QUICK) as cluster:
        leader = cluster.leader()
        others = [n for n in cluster.nodes.values() if n is not leader]
        if how == "killed":
            leader.kill()
        else:
            gone = ask("DELETE", f"{others[0].url}/{leader.number}")
            assert gone.status == 204
        acknowledged: list[str] = []
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            key = f"k{len(acknowledged)}"
            if others[0].put(key, b"v").status == 204:
                acknowledged.append(key)
        assert acknowledged
        restart(*others)
        for key in acknowledged:
            assert others[1].get(key) == b"v"


def test_without_a_quorum_nothing_is_acknowledged_or_hangs(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 3, *QUICK, "--request-timeout", "1") as cluster:
        leader = cluster.leader()
        others = [n for n in cluster.nodes.values() if n is not leader]
        for node in others:
            node.kill()
        for number in range(3):
            begin = time.monotonic()
            answer = leader.put(f"lost{number}", b"v")
            assert answer.status in (503, 504)
            assert time.monotonic() - begin < 5
        assert ask("GET", leader.url + "/lost0").status == 503
        assert ask("POST", leader.url + "/9", b"http://127.0.0.1:9").status in (
            503,
            504,
        )
        leader.kill()
        for node in others:
            node.start()
        for node in others:
            node.wait_ready()
        alive(cluster, "a")
        leader.start()
        leader.wait_ready()
        alive(cluster, "b")


def test_a_member_that_lost_its_data_is_kept_out(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 3, *QUICK) as cluster:
        one, three = cluster.nodes[1], cluster.nodes[3]
        one.put("k", b"v")
        until(lambda: three.get("k") == b"v", "all have it")
        for more in ([], ["--join"]):
            three.kill()
            shutil.rmtree(tmp_path / "data" / "kvdb-3")
            three.options += more
            three.start()
            assert three.wait() == 1
            assert "DELETE /3" in three.log
            assert "Traceback" not in three.log
            three.start()
            three.wait()
        assert one.put("k", b"w").status == 204


@pytest.mark.parametrize("harm", ["cut", "zeros", "changed"])
def test_a_damaged_log(tmp_path: Path, harm: str) -> None:
    with local_cluster(tmp_path, 1, *QUICK) as cluster:
        [one] = cluster.nodes.values()
        for number in range(30):
            assert one.put(f"k{number}", b"v" * 50).status == 204
        one.kill()
        [segment] = (tmp_path / "data/kvdb-1/log").glob("log-*")
        content = bytearray(segment.read_bytes())
        end = len(content.rstrip(b"\0"))
        if harm == "changed":
            content[end // 2] ^= 0x40
        elif harm == "cut":
            del content[end - 30 :]
        else:
            content[end - 60 : end] = bytes(60)
        segment.write_bytes(content)
        one.start()
        if harm == "changed":
            assert one.wait() == 1
            assert "is corrupt at offset" in one.log
            assert "Traceback" not in one.log
        else:
            # The end of a log is what a crash may tear: it is repaired, and
            # what stood before it is there.
            one.wait_ready()
            assert one.get("k28") == b"v" * 50
            assert one.put("after", b"v").status == 204


def takes(node: Process, value: bytes) -> bool:
    """Whether a write is acknowledged."""
    return node.put("k", value).status == 204


def test_an_old_leader_that_was_stopped_answers_nothing_old(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 3, *QUICK) as cluster:
        for number in range(5):
            leader = cluster.leader()
            other = next(n for n in cluster.nodes.values() if n is not leader)
            assert leader.put("k", b"old").status == 204
            leader.signal(signal.SIGSTOP)
            new = b"new %d" % number
            until(partial(takes, other, new), "another leads")
            leader.signal(signal.SIGCONT)
            assert leader.get("k") == new
            leader.wait_ready()


def test_what_a_connection_wrote_it_reads(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 3, *QUICK) as cluster:
        for node in cluster.nodes.values():
            connection = http.client.HTTPConnection("127.0.0.1", node.port)
            for number in range(300):
                value = b"%d" % number
                connection.request("PUT", "/own", value)
                connection.getresponse().read()
                connection.request("GET", "/own")
                assert connection.getresponse().read() == value
            connection.close()
