"""A member whose disk is full, on a small file system of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.cluster import LocalCluster, ask, until

SIZE = "96m"
VALUE = b"x" * 500_000


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of that size."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "kvdb-test", str(path)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode()}")
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
