"""
The release before and this one in one cluster, as in a rolling upgrade.

The earlier code is taken from this repository's history.
"""

from __future__ import annotations

import itertools
import subprocess
import threading
from pathlib import Path

import pytest

from tests.end_to_end.cluster import (
    LocalCluster,
    Process,
    ask,
    until,
)
from tests.end_to_end.test_catch_up import write_many

ROOT = Path(__file__).parents[2]

PROTOCOL_1 = "adcae34"
"""The last commit that spoke version 1 alone; tagged C{protocol-1}."""

PROTOCOL_2 = "0988f76"
"""One that spoke no later version than 2."""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of a release before version 2."""
    return code_of(PROTOCOL_1, tmp_path_factory.mktemp("protocol-1"))


@pytest.fixture(scope="module")
def before_3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of a release before version 3."""
    return code_of(PROTOCOL_2, tmp_path_factory.mktemp("protocol-2"))


def code_of(commit: str, tree: Path) -> Path:
    """Put the code of C{commit} into C{tree}."""
    archive = subprocess.run(
        ["git", "archive", commit, "kvdb", "twisted"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archive.returncode:
        pytest.skip(f"the history does not hold {commit}: {archive.stderr!r}")
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    return tree


class Writer(threading.Thread):
    """Writes all the time, to whoever answers, and notes what was acknowledged."""

    def __init__(self, cluster: LocalCluster) -> None:
        super().__init__()
        self.cluster = cluster
        self.acknowledged = 0
        self.refused = 0
        self.done = threading.Event()

    def run(self) -> None:
        nodes = itertools.cycle(list(self.cluster.nodes.values()))
        while not self.done.is_set():
            node, value = next(nodes), b"%d" % (self.acknowledged + 1)
            headers = {"Idempotency-Key": value.decode()}
            try:
                answer = ask("PUT", node.url + "/counter", value, headers)
            except OSError:
                continue  # it is being upgraded
            if answer.status == 204:
                self.acknowledged += 1
            else:
                self.refused += 1


def versions(node: Process) -> dict[int, int | None]:
    """What a member knows of the others: who reports of itself."""
    members = node.status()["members"]
    return {member["id"]: member.get("applied_index") for member in members}


def test_a_rolling_upgrade_loses_nothing(earlier: Path, tmp_path: Path) -> None:
    cluster = LocalCluster(tmp_path)
    cluster.prepare(3)
    for node in cluster.nodes.values():
        node.tree = earlier
    try:
        cluster.start()
        old = cluster.nodes[1].status()
        assert "links" not in old["members"][0], "that is not the release before"
        writer = Writer(cluster)
        writer.start()
        try:
            for node in cluster.nodes.values():
                before = writer.acknowledged
                until(lambda b=before: writer.acknowledged > b + 50, "writes go on")  # type: ignore[misc]
                node.stop()
                node.tree = None
                node.start()
                node.wait_ready()
                check_mixed(cluster)
        finally:
            writer.done.set()
            writer.join()
        final = b"%d" % writer.acknowledged
        for node in cluster.nodes.values():
            value = node.get("counter")
            assert value is not None
            # One more may have been carried out and not acknowledged.
            assert int(value) in (writer.acknowledged, writer.acknowledged + 1), final
        one = cluster.nodes[1]
        until(lambda: None not in versions(one).values(), "all report of themselves")
        assert one.status()["alarms"] == []
    finally:
        cluster.end()


def check_mixed(cluster: LocalCluster) -> None:
    """Each member, of either release, reads what each other one writes."""
    for writer in cluster.nodes.values():
        key = f"from-{writer.number}"
        for _ in range(100):
            if writer.put(key, b"v").status == 204:
                break
        for reader in cluster.nodes.values():
            assert reader.get(key) == b"v", (writer.number, reader.number)


def test_a_member_of_the_release_before_is_caught_up_by_snapshot(
    earlier: Path, tmp_path: Path
) -> None:
    cluster = LocalCluster(tmp_path, ["--snapshot-count", "500"])
    cluster.prepare(3)
    # From its first start: that release does not read a later one's log.
    behind = cluster.nodes[3]
    behind.tree = earlier
    try:
        cluster.start()
        if cluster.leader() is behind:
            assert ask("POST", f"{behind.url}/_/leader").status == 200
        leader = cluster.leader()
        behind.kill()
        threads = [
            threading.Thread(target=write_many, args=(leader, n * 5_000, 5_000))
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: "the log was cut" in leader.log, "the log is cut")
        behind.start()
        behind.wait_ready()
        assert behind.get("key-7") == leader.get("key-7")
        assert "installed the snapshot" in behind.log
    finally:
        cluster.end()


def test_refusals_and_membership_changes_are_applied_alike(
    before_3: Path, tmp_path: Path
) -> None:
    cluster = LocalCluster(tmp_path)
    cluster.prepare(3)
    for number in (2, 3):
        cluster.nodes[number].tree = before_3
    try:
        cluster.start()
        check_changes(cluster, 10)
        cluster.nodes[2].stop()
        cluster.nodes[2].tree = None
        cluster.nodes[2].start()
        cluster.nodes[2].wait_ready()
        check_changes(cluster, 20)
        cluster.nodes[3].stop()
        cluster.nodes[3].tree = None
        cluster.nodes[3].start()
        cluster.nodes[3].wait_ready()
        check_changes(cluster, 30)
    finally:
        cluster.end()


def check_changes(cluster: LocalCluster, first: int) -> None:
    """Through each member: changes that are made, and that are refused, twice."""
    for node in cluster.nodes.values():
        number = first + node.number
        address = b"http://127.0.0.9:%d" % (10_000 + number)
        key = {"Idempotency-Key": f"change {number}"}
        refused = {"Idempotency-Key": f"refused {number}"}
        for _ in range(2):
            assert ask("POST", f"{node.url}/{number}", address, key).status == 204
            assert ask("POST", f"{node.url}/1", address, refused).status == 409
        assert ask("DELETE", f"{node.url}/{number}").status == 204
    # Enough for two windows of hashes, and the time to compare them.
    leader = cluster.leader()
    for number in range(600):
        assert leader.put(f"k{number}", b"v").status == 204
    applied = leader.status()["applied_index"]
    for node in cluster.nodes.values():
        until(lambda n=node: n.status()["applied_index"] >= applied, "it applies")  # type: ignore[misc]
    until(
        lambda: all(
            member["age_seconds"] is not None and member["applied_index"] >= applied
            for node in cluster.nodes.values()
            for member in node.status()["members"]
            if member["id"] != node.number
        ),
        "each has heard of each since",
    )
    for node in cluster.nodes.values():
        status = node.status()
        assert [member["id"] for member in status["members"]] == [1, 2, 3]
        assert status["alarms"] == []
