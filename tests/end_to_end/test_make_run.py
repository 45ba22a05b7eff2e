"""What make run, start, stop and status do: the first commands of the README."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from tests.end_to_end.cluster import ask, free_ports, until

ROOT = Path(__file__).resolve().parent.parent.parent


@frozen
class Checkout:
    """A directory with a Procfile of its own ports."""

    path: Path
    ports: list[int]

    def say(self, *words: str, status: int = 0) -> list[str]:
        """What the script prints, line by line."""
        done = subprocess.run(
            [sys.executable, "scripts/cluster.py", *words],
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert (done.returncode, done.stderr) == (status, ""), done.stdout
        return done.stdout.splitlines()


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    text = (ROOT / "Procfile").read_text()
    ports = free_ports(6)
    fixed = (12380, 22380, 32380, 12379, 22379, 32379)
    for written, free in zip(fixed, ports, strict=True):
        text = text.replace(str(written), str(free))
    (tmp_path / "Procfile").write_text(text)
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "cluster.py", tmp_path / "scripts")
    found = Checkout(tmp_path, ports)
    try:
        yield found
    finally:
        found.say("stop")


def test_the_cluster_of_the_procfile(checkout: Checkout) -> None:
    urls = [f"http://127.0.0.1:{port}" for port in checkout.ports[:3]]
    said = checkout.say("start")
    assert said[:3] == [
        f"kvdb{number}: waiting for {url} - ready"
        for number, url in enumerate(urls, start=1)
    ]
    assert f"  curl -L {urls[0]}/my-key -XPUT -d hello" in said
    assert ask("PUT", f"{urls[0]}/my-key", b"hello").status == 204
    assert ask("GET", f"{urls[2]}/my-key").body == b"hello"
    roles = [line.split()[2] for line in checkout.say("status")]
    assert sorted(roles) == ["follower", "follower", "leader"]
    assert checkout.say("stop", "2") == ["kvdb2 stopped"]
    assert checkout.say("status", "2") == [f"kvdb2  {urls[1]}  stopped"]
    assert ask("PUT", f"{urls[0]}/my-key", b"bar").status == 204
    assert checkout.say("start", "2") == [f"kvdb2: waiting for {urls[1]} - ready"]
    assert ask("GET", f"{urls[1]}/my-key").body == b"bar"
    assert ask("POST", f"{urls[0]}/4", b"http://127.0.0.1:1").status == 204
    assert checkout.say("status")[3:] == [
        "member 4, which is not in the Procfile: nothing is heard of it"
    ]
    assert ask("DELETE", f"{urls[0]}/3").status == 204
    third = checkout.path / "run" / "kvdb3.pid"
    until(lambda: not third.exists(), "member 3 ends")
    said = checkout.say("start", status=1)
    assert said[:2] == ["kvdb1 runs already", "kvdb2 runs already"]
    assert "it does not serve" in said[4]
    assert any("member 3 was removed from the cluster" in line for line in said[5:])
    assert said[-1] == "running nevertheless: kvdb1, kvdb2; make stop stops all"
    assert "there is no member 9" in checkout.say("stop", "9", status=2)[0]
    assert checkout.say("stop") == [
        "kvdb3 does not run",
        "kvdb2 stopped",
        "kvdb1 stopped",
    ]


def test_a_port_that_somebody_has(checkout: Checkout) -> None:
    """Who runs nevertheless is said."""
    with socket.create_server(("127.0.0.1", checkout.ports[1])):
        said = checkout.say("start", status=1)
    assert said[0] == "kvdb2 did not start:"
    assert "cannot listen there (address already in use)" in said[1]
    assert said[2] == "running nevertheless: kvdb1, kvdb3; make stop stops all"
