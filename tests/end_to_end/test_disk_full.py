"""A member whose disk is full, on a small file system of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.cluster import LocalCluster, ask, until

SIZE = "96m"
VALUE = os.urandom(500_000)
"""Nothing that the engine could compress: all of it needs its space."""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of that size."""
    with mounted(tmp_path / "small") as path:
        yield path


@contextlib.contextmanager
def mounted(path: Path) -> Iterator[Path]:
    """A file system of that size there."""
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "kvdb-test", str(path)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_refuses_writes_and_goes_on_by_itself(
    small: Path, tmp_path: Path
) -> None:
    """507 and an alarm; reads go on; space is all that it takes."""
    filler = small / "filler"
    with filler.open("wb") as file:
        file.write(b"x" * 20_000_000)
    cluster = LocalCluster(
        tmp_path, ["--data-dir", str(small / "data"), "--low-space", "0"]
    )
    cluster.prepare(1)
    try:
        cluster.start()
        [node] = cluster.nodes.values()
        written = 0
        while (answer := node.put(f"k{written}", VALUE)).status == 204:
            written += 1
            assert written < 1000, "the disk is never full"
        # The one that found it full waits for space, and may yet be carried out.
        assert answer.status in (504, 507), answer
        answer = node.put("refused", VALUE)
        assert answer.status == 507, answer
        assert b"no space on the disk" in answer.body
        assert written >= 10
        assert node.get("k0") == VALUE
        assert node.get(f"k{written - 1}") == VALUE
        assert "writes are refused until there is space" in node.status()["alarms"][0]
        status = ask("GET", node.url + "/metrics").body.decode()
        assert "kvdb_server_alarms 1.0" in status
        filler.unlink()
        until(lambda: node.put("after", b"v").status == 204, "it goes on")
        assert node.status()["alarms"] == []
        assert node.get("refused") is None
        for number in range(written):
            assert node.get(f"k{number}") == VALUE
    finally:
        cluster.end()


def test_members_whose_disks_are_all_full_stay_up_and_go_on(tmp_path: Path) -> None:
    """Values small and large: the log and the engine come to the end of the space."""
    with contextlib.ExitStack() as disks:
        places = {n: disks.enter_context(mounted(tmp_path / str(n))) for n in (1, 2, 3)}
        cluster = LocalCluster(tmp_path, ["--low-space", "0"])
        cluster.prepare(3)
        for number, place in places.items():
            (place / "filler").write_bytes(b"x" * 8_000_000)
            cluster.nodes[number].options += ["--data-dir", str(place / "data")]
        try:
            cluster.start()
            written: dict[str, bytes] = {}
            refused = 0
            while refused < 6:  # each member in turn, and more than once
                node = cluster.nodes[(len(written) + refused) % 3 + 1]
                name = f"k{len(written)}"
                value = os.urandom(30_000 if len(written) % 2 else 700_000)
                status = node.put(name, value).status
                assert status in (204, 503, 504, 507), status
                if status == 204:
                    written[name] = value
                else:
                    refused += 1
                assert len(written) < 1000, "the disks are never full"
            for node in cluster.nodes.values():
                assert node.process is not None
                assert node.process.poll() is None, node.log[-3000:]
            for place in places.values():
                (place / "filler").unlink()
            node = cluster.nodes[1]
            until(lambda: node.put("after", b"v").status == 204, "they go on")
            for name, value in written.items():
                assert node.get(name) == value
        finally:
            cluster.end()


def test_a_new_data_directory_needs_some_space(small: Path, tmp_path: Path) -> None:
    (small / "filler").write_bytes(b"x" * 60_000_000)
    cluster = LocalCluster(tmp_path, ["--data-dir", str(small / "data")])
    cluster.prepare(1)
    node = cluster.nodes[1]
    try:
        node.start()
        assert node.wait() == 1
    finally:
        cluster.end()
    assert "MiB left of 96: a new one takes 64 at the least" in node.log
    assert "Traceback" not in node.log
    assert len(node.log.strip().splitlines()) == 1, node.log
