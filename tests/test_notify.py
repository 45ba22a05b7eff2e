"""
What a service manager is told: a datagram when the node serves, one when it stops.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from kvdb.notify import READY, STOPPING, notify
from tests.end_to_end.cluster import PATIENCE, Process, ask, free_ports


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """As systemd would."""
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as told:
        told.bind(address)
        told.settimeout(PATIENCE)
        yield told


@contextmanager
def a_path() -> Iterator[str]:
    """Of a socket: they must be short."""
    with tempfile.TemporaryDirectory() as directory:
        yield f"{directory}/notify"


def test_a_path() -> None:
    with a_path() as path, listening(path) as told:
        assert notify(READY, {"NOTIFY_SOCKET": path})
        assert told.recv(100) == b"READY=1"
        assert notify(STOPPING, {"NOTIFY_SOCKET": path})
        assert told.recv(100) == b"STOPPING=1"


def test_an_abstract_name() -> None:
    name = f"kvdb-test-{os.getpid()}"
    with listening("\0" + name) as told:
        assert notify(READY, {"NOTIFY_SOCKET": "@" + name})
        assert told.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": "vsock:2:1"},  # not one of ours
        {"NOTIFY_SOCKET": "/nobody/listens"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"NOTIFY_SOCKET": "/\0"},
    ],
)
def test_nobody_to_tell(environment: dict[str, str]) -> None:
    assert not notify(READY, environment)


def test_one_that_does_not_read_is_not_waited_for() -> None:
    with a_path() as path, listening(path):
        told = [notify(READY, {"NOTIFY_SOCKET": path}) for _ in range(10_000)]
    assert told[0]
    assert not told[-1]


def test_a_real_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It serves when it says so, and says so before it stops serving."""
    port, peer = free_ports(2)
    url = f"http://127.0.0.1:{peer}"
    node = Process(1, port, url, tmp_path, ["--cluster", url, "--port", str(port)])
    with a_path() as path, listening(path) as told:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        node.start()
        try:
            assert told.recv(100) == b"READY=1"
            assert ask("GET", node.url + "/_/live").status == 200
            node.wait_ready()
            assert node.stop() == -15
            assert told.recv(100) == b"STOPPING=1"
        finally:
            if node.process is not None and node.process.poll() is None:
                node.kill()


def test_a_node_that_cannot_start_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, peer = free_ports(2)
    url = f"http://127.0.0.1:{peer}"
    options = ["--cluster", url, "--port", str(port), f"--data-dir={tmp_path}/data"]
    node = Process(1, port, url, tmp_path, options)
    node.start()
    try:
        node.wait_ready()
    finally:
        node.kill()
    # Another member's data: found out once it is opened.
    options = ["--id=2", *options, f"--cluster=1=http://127.0.0.1:1,2={url}"]
    node = Process(2, port, url, tmp_path, options)
    with a_path() as path, listening(path) as told:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        node.start()
        try:
            assert node.wait() == 1, node.log
            assert "holds the data of member 1" in node.log
        finally:
            if node.process is not None and node.process.poll() is None:
                node.kill()
        told.setblocking(False)
        heard = []
        while True:
            try:
                heard.append(told.recv(100))
            except BlockingIOError:
                break
        assert b"READY=1" not in heard
