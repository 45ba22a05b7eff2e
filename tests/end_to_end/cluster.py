"""
Real nodes: twistd processes, real sockets on the loopback, real disks.

Everything here waits for conditions, never for a time, and every process is
ended by its own id.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import define, field

TWISTD = str(Path(sys.executable).parent / "twistd")
PATIENCE = 30.0
"""Seconds within which a condition must come to hold."""


@define
class Answer:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: dict[str, str]

    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


def ask(
    method: str,
    url: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 10,
) -> Answer:
    """One request; an error status is an answer too."""
    request = urllib.request.Request(
        url, data=body, method=method, headers=headers or {}
    )
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return Answer(answer.status, answer.read(), dict(answer.headers))
    except urllib.error.HTTPError as error:
        return Answer(error.code, error.read(), dict(error.headers))


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """What C{condition} gives once it is true."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


_HELD: list[socket.socket] = []
"""Bound, and listening to nothing: nobody else is given their ports."""


def free_ports(count: int) -> list[int]:
    """Ports for the processes of this test: until this one ends, the system gives
    them to no other socket, for a connection neither."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        # As whoever listens there will say, too: then it may, beside this one.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("127.0.0.1", 0))
    _HELD.extend(sockets)
    return [one.getsockname()[1] for one in sockets]


@define
class Process:
    """
    One node.

    @ivar tree: where its code is, if not the code under test.
    """

    number: int
    port: int
    peer_url: str
    directory: Path
    options: list[str]
    process: subprocess.Popen[bytes] | None = None
    tree: Path | None = None

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it said, over all its lives."""
        path = self.directory / f"{self.number}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start it, without waiting for it to serve."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KVDB_")}
        if self.tree is not None:
            environment["PYTHONPATH"] = str(self.tree)
        with (self.directory / f"{self.number}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [TWISTD, "-n", "--pidfile=", "kvdb", *self.options],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    def ready(self) -> bool:
        """Whether it serves and has caught up."""
        assert self.process is not None, "it was never started"
        if self.process.poll() is not None:
            raise AssertionError(f"node {self.number} has ended:\n{self.log[-3000:]}")
        with contextlib.suppress(OSError):
            return ask("GET", self.url + "/_/ready", timeout=2).status == 200
        return False

    def wait_ready(self) -> None:
        """Until it serves."""
        until(self.ready, f"node {self.number} serves")

    def status(self) -> Any:
        """Its own view."""
        return ask("GET", self.url + "/_/status").json()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None, "it was never started"
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status, once it has ended."""
        assert self.process is not None, "it was never started"
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        """Stop it in peace."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)
        self.wait()

    def put(self, key: str, value: bytes) -> Answer:
        """Write."""
        return ask("PUT", f"{self.url}/{key}", value)

    def get(self, key: str) -> bytes | None:
        """Read linearizably."""
        answer = ask("GET", f"{self.url}/{key}")
        assert answer.status in (200, 404), answer
        return answer.body if answer.status == 200 else None


@define
class LocalCluster:
    """
    @ivar nodes: by number, from 1.
    """

    directory: Path
    extra: list[str] = field(factory=list)
    nodes: dict[int, Process] = field(factory=dict)

    def prepare(self, size: int) -> None:
        """Choose ports for the first members."""
        ports = free_ports(2 * size)
        urls = [f"http://127.0.0.1:{port}" for port in ports[:size]]
        for number, port in enumerate(ports[size:], 1):
            self._add(number, port, urls, [])

    def _add(self, number: int, port: int, urls: list[str], more: list[str]) -> Process:
        options = ["--id", str(number), "--cluster", ",".join(urls)]
        options += ["--port", str(port), *more, *self.extra]
        url = urls[number - 1]
        node = Process(number, port, url, self.directory, options)
        self.nodes[number] = node
        return node

    def join(self, number: int) -> Process:
        """Prepare another member, to be started once it is added."""
        peer_port, port = free_ports(2)
        urls = [self.nodes[n].peer_url for n in range(1, number)]
        urls.append(f"http://127.0.0.1:{peer_port}")
        return self._add(number, port, urls, ["--join"])

    def start(self) -> None:
        """Start all, and wait until all serve."""
        for node in self.nodes.values():
            node.start()
        for node in self.nodes.values():
            node.wait_ready()

    def leader(self) -> Process:
        """Who leads."""

        def found() -> Process | None:
            for node in self.nodes.values():
                if node.process is None or node.process.poll() is not None:
                    continue
                with contextlib.suppress(OSError, ValueError):
                    if node.status()["role"] == "leader":
                        return node
            return None

        leader = until(found, "somebody leads")
        assert isinstance(leader, Process)
        return leader

    def end(self) -> None:
        """End every process that is left."""
        for node in self.nodes.values():
            if node.process is not None and node.process.poll() is None:
                node.process.kill()
                node.process.wait(PATIENCE)


@contextlib.contextmanager
def local_cluster(directory: Path, size: int, *extra: str) -> Iterator[LocalCluster]:
    """A cluster that serves; ended at the end, with its logs where a test fails."""
    cluster = LocalCluster(directory, list(extra))
    cluster.prepare(size)
    try:
        cluster.start()
        yield cluster
    except BaseException:
        for node in cluster.nodes.values():
            print(f"--- node {node.number}\n{node.log[-4000:]}")
        raise
    finally:
        cluster.end()
