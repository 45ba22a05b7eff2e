"""
Backups of clusters that serve, and clusters made of what is left: real processes.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from kvdb.store.backup import BackupHeader, BackupReader
from kvdb.store.encoding import decode_record
from kvdb.store.snapshot import SnapshotReader
from tests.end_to_end.cluster import (
    PATIENCE,
    LocalCluster,
    Process,
    ask,
    local_cluster,
    until,
)

KVDBCTL = str(Path(sys.executable).parent / "kvdbctl")
CHAINS = 3
BACKUPS = 6
STEP = 10**9


def kvdbctl(*arguments: str | Path, status: int = 0) -> dict[str, Any]:
    """What a command answers, in JSON."""
    words = [KVDBCTL, *map(str, arguments), "--json"]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == status, (words, done)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def read(data: bytes) -> tuple[BackupHeader, dict[bytes, Any]]:
    """A backup's header, and its keys with their records."""
    reader, snapshot = BackupReader(), SnapshotReader()
    keys: dict[bytes, Any] = {}
    for chunk in reader.feed(data):
        for key, value in snapshot.take(chunk):
            if key.startswith(b"k"):
                keys[key[1:]] = decode_record(value)
    assert snapshot.whole
    return reader.finish(), keys


def take(node: Process, query: str = "") -> bytes:
    answer = ask("GET", f"{node.url}/_/snapshot{query}", timeout=60)
    assert answer.status == 200, answer
    return answer.body


class Chain(threading.Thread):
    """
    Writes link N once link N-1 is acknowledged.

    @ivar acknowledged: how many are.
    """

    def __init__(self, number: int, node: Process) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.node = node
        self.acknowledged = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            link = self.acknowledged
            answer = self.node.put(f"chain-{self.number}/{link:06}", b"x" * 500)
            assert answer.status == 204, answer
            self.acknowledged = link + 1


def all_have(chains: list[Chain], links: int) -> bool:
    return all(chain.acknowledged >= links for chain in chains)


def test_a_backup_under_load_is_of_one_revision(tmp_path: Path) -> None:
    """Of each chain of writes it has a beginning, with all that was acknowledged
    before it was asked for; and as many keys as its revision says."""
    with local_cluster(tmp_path, 3) as cluster:
        nodes = list(cluster.nodes.values())
        chains = [Chain(n, nodes[n % 3]) for n in range(CHAINS)]
        for chain in chains:
            chain.start()
        try:
            for number in range(BACKUPS):
                goal = 40 * (number + 1)
                until(partial(all_have, chains, goal), "load")
                known = [chain.acknowledged for chain in chains]
                header, keys = read(take(nodes[number % 3]))
                assert header.revision == len(keys)
                assert {r.mod_revision for r in keys.values()} == {
                    *range(1, header.revision + 1)
                }
                for chain, least in zip(chains, known, strict=True):
                    prefix = b"/chain-%d/" % chain.number
                    found = sorted(key for key in keys if key.startswith(prefix))
                    assert len(found) >= least, "an acknowledged write is missing"
                    wanted = [prefix + b"%06d" % n for n in range(len(found))]
                    assert found == wanted, "not the beginning of the chain"
        finally:
            for chain in chains:
                chain.ended.set()
            for chain in chains:
                chain.join(PATIENCE)


def test_a_reader_that_goes_away_is_forgotten(tmp_path: Path) -> None:
    """Slow ones hold a place; gone ones do not."""
    with local_cluster(tmp_path, 1) as cluster:
        node = cluster.nodes[1]
        for number in range(24):
            node.put(f"big-{number}", bytes(1 << 20))
        slow = [begin_slowly(node) for _ in range(2)]
        refused = ask("GET", node.url + "/_/snapshot")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        assert node.put("meanwhile", b"").status == 204
        slow[0].close()
        header, keys = until(lambda: try_to_take(node), "there is a place again")
        assert len(keys) == 25
        assert header.revision == 25
        slow[1].close()


def begin_slowly(node: Process) -> socket.socket:
    """A reader that reads the head and no more."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", node.port))
    reader.settimeout(PATIENCE)
    reader.sendall(b"GET /_/snapshot HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert reader.recv(12) == b"HTTP/1.1 200"
    return reader


def try_to_take(node: Process) -> tuple[BackupHeader, dict[bytes, Any]] | None:
    answer = ask("GET", node.url + "/_/snapshot", timeout=60)
    return read(answer.body) if answer.status == 200 else None


def write_some(node: Process) -> None:
    for number in range(50):
        node.put(f"key-{number % 20}", b"value %d" % number)
    ask("PUT", node.url + "/once", b"first", {"Idempotency-Key": "once"})
    ask("DELETE", node.url + "/key-7")


def cluster_option(cluster: LocalCluster) -> str:
    return ",".join(f"{n}={one.peer_url}" for n, one in cluster.nodes.items())


def test_a_restored_cluster(tmp_path: Path) -> None:
    """Three members of a backup elect a leader, hold what it held, and go on far
    above its revisions; they and the old cluster refuse each other."""
    old_directory, directory = tmp_path / "old", tmp_path / "new"
    old_directory.mkdir()
    directory.mkdir()
    file = tmp_path / "backup"
    with local_cluster(old_directory, 3) as old:
        write_some(old.nodes[1])
        file.write_bytes(take(old.nodes[2]))
        old_id = old.nodes[1].status()["cluster_id"]
        for node in old.nodes.values():
            node.stop()
        verified = kvdbctl("snapshot", "verify", file)
        assert (verified["revision"], verified["keys"]) == (52, 20)

        new = LocalCluster(directory)
        new.prepare(3)
        for number in new.nodes:
            made = restore(file, new, number, cluster_option(new))
            assert made["digest"] == verified["digest"]
        try:
            new.start()
            check_restored(new, made, old_id)
            # A watcher of the old cluster hears that it missed something.
            url = new.nodes[3].url
            assert ask("GET", f"{url}/_/watch?since=52").status == 410
            assert ask("GET", f"{url}/key-1?revision=52").status == 410
            # The same keys, by a backup of the new cluster, before any write.
            again = directory / "backup"
            again.write_bytes(take(new.nodes[1]))
            assert kvdbctl("snapshot", "verify", again)["digest"] == verified["digest"]
            # A retry of what was done in the old cluster is not done again.
            retry = ask("PUT", url + "/once", b"first", {"Idempotency-Key": "once"})
            assert (retry.status, retry.headers["ETag"]) == (204, '"51"')
            written = new.nodes[2].put("key-1", b"new")
            assert int(written.headers["ETag"].strip('"')) > 52 + STEP
            assert new.nodes[3].get("key-1") == b"new"
        finally:
            new.end()


def restore(
    file: Path, cluster: LocalCluster, number: int, members: str
) -> dict[str, Any]:
    target = cluster.directory / "data" / f"kvdb-{number}"
    return kvdbctl(
        *("snapshot", "restore", file, "--data-dir", target),
        *("--id", str(number), "--cluster", members),
    )


def check_restored(new: LocalCluster, made: dict[str, Any], old_id: str) -> None:
    for node in new.nodes.values():
        status = node.status()
        assert status["cluster_id"] == made["cluster_id"] != old_id
        assert status["revision"] == made["revision"] == 52 + STEP
        assert [one["id"] for one in status["members"]] == [1, 2, 3]
        assert node.get("key-9") == b"value 49"
        assert node.get("key-7") is None
        answer = ask("GET", f"{node.url}/key-9?consistency=stale")
        assert answer.headers["ETag"] == '"50"', "a record keeps its revisions"


def test_the_old_cluster_and_the_restored_one_refuse_each_other(
    tmp_path: Path,
) -> None:
    """Though they have the same ids and URLs."""
    new_directory = tmp_path / "new"
    new_directory.mkdir()
    with local_cluster(tmp_path, 3) as old:
        write_some(old.nodes[1])
        file = tmp_path / "backup"
        file.write_bytes(take(old.nodes[1]))
        for node in old.nodes.values():
            node.stop()
        for number in (2, 3):
            restore_in_place(old, number, file)
        for node in old.nodes.values():
            node.start()
        for number in (2, 3):
            old.nodes[number].wait_ready()
        assert old.nodes[2].put("new", b"").status == 204
        until(
            lambda: "of cluster" in old.nodes[1].log + old.nodes[2].log,
            "they say that they are of two clusters",
        )
        assert not old.nodes[1].ready()
        members = old.nodes[2].status()["members"]
        assert [one["connected"] for one in members][:1] == [False]
        stale = ask("GET", old.nodes[1].url + "/new?consistency=stale")
        assert stale.status == 404


def restore_in_place(cluster: LocalCluster, number: int, file: Path) -> None:
    """In place of what the member has."""
    target = cluster.directory / "data" / f"kvdb-{number}"
    target.rename(cluster.directory / f"unused-{number}")
    restore(file, cluster, number, cluster_option(cluster))


def test_a_cluster_recovered_from_one_survivor(tmp_path: Path) -> None:
    """Nothing that was acknowledged is lost where the survivor had it."""
    with local_cluster(tmp_path, 3) as old:
        write_some(old.nodes[1])
        leader = old.leader()
        survivor = next(n for n in old.nodes.values() if n is not leader)
        acknowledged = 0
        for key in range(200):
            assert leader.put(f"more-{key}", b"%d" % key).status == 204
            acknowledged += 1
        until(lambda: survivor.status()["revision"] == 252, "the survivor has it")
        for node in old.nodes.values():
            node.kill()
        for node in old.nodes.values():
            if node is not survivor:
                shutil.rmtree(tmp_path / "data" / f"kvdb-{node.number}")
        source = tmp_path / "data" / f"kvdb-{survivor.number}"
        number = str(survivor.number)
        words: list[str | Path] = [
            *("recover", "--data-dir", source, "--id", number),
            *("--cluster", f"{number}={survivor.peer_url}"),
        ]
        asked = subprocess.run(
            [KVDBCTL, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert asked.returncode == 1
        assert "are given up" in asked.stderr
        assert "say --yes" in asked.stderr
        made = kvdbctl(*words, "--yes")
        assert made["keys"] == 220
        again = kvdbctl("fsck", made["data_dir"])
        assert (again["errors"], again["digest"]) == (0, made["digest"])

        source.rename(tmp_path / "kept")
        Path(made["data_dir"]).rename(source)
        survivor.start()
        survivor.wait_ready()
        status = survivor.status()
        assert status["cluster_id"] == made["cluster_id"]
        assert [one["id"] for one in status["members"]] == [survivor.number]
        for key in range(acknowledged):
            assert survivor.get(f"more-{key}") == b"%d" % key
        assert ask("GET", f"{survivor.url}/_/watch?since=252").status == 410
        written = survivor.put("after", b"")
        assert int(written.headers["ETag"].strip('"')) > 252 + STEP
        # And it grows again.
        joiner = old.join(4)
        joiner.options[joiner.options.index("--cluster") + 1] = (
            f"{number}={survivor.peer_url},4={joiner.peer_url}"
        )
        answer = ask("POST", survivor.url + "/4", joiner.peer_url.encode())
        assert answer.status == 204, answer
        joiner.start()
        joiner.wait_ready()
        assert joiner.get("more-199") == b"199"
