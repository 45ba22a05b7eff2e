"""Three real nodes with TLS and an access file, spoken to with curl."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from kvdb.access.__main__ import entry
from tests.end_to_end.cluster import LocalCluster, Process, free_ports, until
from tests.tls.certificates import Authority, Pair

ACCESS = """
[roles.app]
read = ["/app/"]
write = ["/app/"]

[roles.all]
read = ["/"]
write = ["/"]
admin = true
metrics = true

"""


def access_file(**secrets: str) -> str:
    """One in which ann has the role app, and root the role all."""
    users = [
        entry(name, secret.encode(), ["all" if name == "root" else "app"], bytes)
        for name, secret in secrets.items()
    ]
    return ACCESS + "\n".join(users)


@define
class Secured:
    """The cluster, and what its clients need."""

    cluster: LocalCluster
    authority: Authority
    pair: Pair
    access: Path

    def is_ready(self, node: Process) -> bool:
        """Whether it serves."""
        return bool(self.curl(node, "/_/ready")[0] == 200)

    def curl(self, node: Process, path: str, *more: str, ca: str | None = None) -> Any:
        """Status, or 0 and what curl says; and the body."""
        done = subprocess.run(
            [
                *("curl", "-sS", "-m", "10", "-w", "\n%{http_code}"),
                *("--cacert", ca or self.authority.path),
                *more,
                f"https://127.0.0.1:{node.port}{path}",
            ],
            capture_output=True,
            check=False,
        )
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body if int(status) else done.stderr


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[Secured]:
    """It, serving."""
    authority = Authority(tmp_path / "ca")
    pair = authority.issue("127.0.0.1", "localhost")
    access = tmp_path / "access.toml"
    access.write_text(access_file(ann="apple", root="secret"))
    cluster = LocalCluster(tmp_path)
    ports = free_ports(6)
    urls = ",".join(f"https://127.0.0.1:{port}" for port in ports[:3])
    for number in (1, 2, 3):
        own = authority.issue("127.0.0.1")
        options = [
            *("--id", str(number), "--cluster", urls, "--port", str(ports[2 + number])),
            *("--cert-file", pair.cert, "--key-file", pair.key),
            *("--peer-cert-file", own.cert, "--peer-key-file", own.key),
            *("--peer-trusted-ca-file", authority.path, "--peer-client-cert-auth"),
            *("--access-file", str(access)),
        ]
        cluster.nodes[number] = Process(
            number, ports[2 + number], urls, tmp_path, options
        )
    found = Secured(cluster, authority, pair, access)
    try:
        for node in cluster.nodes.values():
            node.start()
        for node in cluster.nodes.values():
            until(partial(found.is_ready, node), "it serves")
        yield found
    except BaseException:
        for node in cluster.nodes.values():
            print(f"--- node {node.number}\n{node.log[-4000:]}")
        raise
    finally:
        cluster.end()


def test_a_cluster_with_everything_locked(secured: Secured) -> None:
    """Who may, may; who may not, is told why; files are changed meanwhile."""
    curl, nodes = secured.curl, secured.cluster.nodes
    ann, root = ("-u", "ann:apple"), ("-u", "root:secret")
    bearer = ("-H", "Authorization: Bearer ann.apple")
    assert curl(nodes[1], "/app/k", "-XPUT", "-d", "v", *ann)[0] == 204
    for node in nodes.values():
        for _ in range(3):  # the long way, then the lane
            assert curl(node, "/app/k", *bearer) == (200, b"v")
    # Refusals, each with its reason.
    status, body = curl(nodes[1], "/app/k")
    assert (status, json.loads(body)["detail"]) == (
        401,
        'this needs a role with "read" on /app/k',
    )
    status, body = curl(nodes[2], "/other", *ann)
    assert (status, json.loads(body)["detail"]) == (
        403,
        "user 'ann' has no role with \"read\" on /other",
    )
    assert curl(nodes[2], "/_/kv?prefix=/app/", *ann)[0] == 200
    assert curl(nodes[2], "/_/kv?prefix=/ap", *ann)[0] == 403
    assert curl(nodes[2], "/app/k", "-u", "ann:pear")[0] == 401
    assert curl(nodes[3], "/_/leader", "-XPOST", *ann)[0] == 403
    assert curl(nodes[3], "/_/leader", "-XPOST", *root)[0] == 200
    # Nobody says a secret in the log.
    logs = "".join(node.log for node in nodes.values())
    assert "apple" not in logs
    assert "secret" not in logs.replace("wrong secret", "")
    # A CA that is not known, and plain text.
    other = Authority(secured.authority.directory / "other", "another CA")
    status, said = curl(nodes[1], "/version", ca=other.path)
    assert status == 0
    assert b"certificate" in said
    plain = subprocess.run(
        ["curl", "-sS", "-m", "10", f"http://127.0.0.1:{nodes[1].port}/version"],
        capture_output=True,
        check=True,
    )
    assert json.loads(plain.stdout)["detail"] == (
        "this port speaks TLS, and got plain HTTP"
    )
    until(lambda: "it speaks plain text" in nodes[1].log, "node 1 says so")
    # Another CA, other users: taken up by SIGHUP, without a restart.
    secured.pair.take(other.issue("127.0.0.1"))
    secured.access.write_text(access_file(ann="cherry", root="secret"))
    nodes[1].signal(signal.SIGHUP)
    until(
        lambda: curl(nodes[1], "/app/k", "-u", "ann:cherry", ca=other.path)[0] == 200,
        "node 1 has the new files",
    )
    assert curl(nodes[1], "/app/k", *ann, ca=other.path)[0] == 401
    # By itself, after a while.
    until(
        lambda: curl(nodes[2], "/app/k", "-u", "ann:cherry", ca=other.path)[0] == 200,
        "node 2 has the new files",
    )
    for node in nodes.values():
        assert node.stop() == -signal.SIGTERM
        assert "Traceback" not in node.log
