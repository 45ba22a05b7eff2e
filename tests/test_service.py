"""Whole nodes in this process: real sockets on the loopback, real disks, treq."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import pytest
import treq
from twisted.internet import defer, reactor, task
from twisted.logger import Logger
from twisted.web.client import HTTPConnectionPool
from twisted.web.http_headers import Headers

from kvdb.host import RealHost
from kvdb.options import Options
from kvdb.service import Kvdb, makeService
from tests.end_to_end.cluster import free_ports
from tests.timed import timed


class Loop:
    """The reactor, but that stopping it is only noted."""

    def __init__(self) -> None:
        self.stops = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def stop(self) -> None:
        """Note it."""
        self.stops += 1


class Nodes:
    """
    Nodes of one cluster.

    @ivar running: by id.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self.directory = directory
        self.urls = [f"http://127.0.0.1:{port}" for port in free_ports(size)]
        self.running: dict[int, Kvdb] = {}
        self.loops: dict[int, Loop] = {}
        self.pool = HTTPConnectionPool(reactor, persistent=False)

    def options(self, number: int, *more: str) -> Options:
        """As typed."""
        options = Options()
        options.parseOptions(
            [
                f"--id={number}",
                f"--cluster={','.join(self.urls)}",
                f"--data-dir={self.directory / str(number)}",
                "--port=0",
                "--tick=20",
                *more,
            ]
        )
        return options

    def start(self, number: int, *more: str) -> Kvdb:
        """Start a node."""
        loop = self.loops[number] = Loop()
        service = makeService(self.options(number, *more), loop)
        service.privilegedStartService()
        service.startService()
        self.running[number] = service
        return service

    async def stop(self, number: int) -> None:
        """Stop it."""
        await self.running.pop(number).stopService()

    async def end(self) -> None:
        """Stop all that run."""
        for number in list(self.running):
            await self.stop(number)
        await self.pool.closeCachedConnections()

    def url(self, number: int, path: str) -> str:
        """An address on a node."""
        port: Any = self.running[number].http.port
        return f"http://127.0.0.1:{port.getHost().port}{path}"

    async def ask(
        self, method: str, number: int, path: str, body: bytes = b"", **headers: str
    ) -> tuple[int, bytes, Any]:
        """One request: status, body, headers."""
        answer = await treq.request(
            method,
            self.url(number, path),
            data=body,
            headers=Headers({n.replace("_", "-"): [v] for n, v in headers.items()}),
            pool=self.pool,
        )
        return answer.code, await answer.content(), answer.headers

    async def until(self, condition: Callable[[], Any]) -> None:
        """Until it holds; the test's own time bounds it."""
        while not condition():
            await task.deferLater(reactor, 0.01)

    async def ready(self, *numbers: int) -> None:
        """Until these serve."""
        for number in numbers:
            node = self.running[number].node_service.node
            assert node is not None
            await self.until(node.is_ready)


def with_nodes(
    size: int, seconds: float = 40
) -> Callable[[Callable[[Nodes], Awaitable[None]]], Callable[..., Any]]:
    """A test that is given nodes, which are stopped in the end."""

    def decorate(test: Callable[[Nodes], Awaitable[None]]) -> Callable[..., Any]:
        @timed(seconds)
        async def run(tmp_path: Path) -> None:
            nodes = Nodes(tmp_path, size)
            try:
                for number in range(1, size + 1):
                    nodes.start(number)
                await nodes.ready(*range(1, size + 1))
                await test(nodes)
            finally:
                await nodes.end()

        return run

    return decorate


ALL_BYTES = bytes(range(256))


@with_nodes(1)
async def test_keys_and_values_of_any_bytes(nodes: Nodes) -> None:
    """Every byte, nothing, a mebibyte, %2F, //, %00."""
    every = "/" + "".join(f"%{byte:02X}" for byte in ALL_BYTES)
    values = {
        every: ALL_BYTES,
        "/empty": b"",
        "/large": bytes(1 << 20),
        "/a%2Fb": b"slash",
        "//double": b"two",
        "/nul%00": b"\0",
        "/": b"root",
        "/%C3%A9": "é".encode(),
    }
    for path, value in values.items():
        # From Python 3.12.6 on treq writes two slashes before these two.
        there = "/_/kv" + path if path.startswith("//") else path
        status, _, headers = await nodes.ask("PUT", 1, there, value)
        assert status == 204
        assert headers.hasHeader(b"etag")
    for path, value in values.items():
        there = "/_/kv" + path if path.startswith("//") else path
        assert (await nodes.ask("GET", 1, there))[:2] == (200, value)
        assert (await nodes.ask("GET", 1, "/_/kv" + path))[:2] == (200, value)
    assert (await nodes.ask("GET", 1, "/a/b"))[1] == b"slash"
    assert (await nodes.ask("GET", 1, "/double"))[0] == 404
    status, body, headers = await nodes.ask("HEAD", 1, "/large")
    assert (status, body) == (200, b"")
    assert headers.getRawHeaders(b"content-length") == [b"1048576"]


@with_nodes(1)
async def test_answers_that_are_not_200(nodes: Nodes) -> None:
    """Each by its reason."""
    ask = nodes.ask
    assert (await ask("GET", 1, "/nothing"))[0] == 404
    assert (await ask("DELETE", 1, "/nothing"))[0] == 404
    status, _, headers = await ask("PATCH", 1, "/k")
    assert status == 405
    assert headers.getRawHeaders(b"allow") == [b"DELETE, GET, HEAD, POST, PUT"]
    assert (await ask("PUT", 1, "/k", b"1", If_None_Match="*"))[0] == 204
    status, _, headers = await ask("PUT", 1, "/k", b"2", If_None_Match="*")
    assert (status, headers.getRawHeaders(b"etag")) == (412, [b'"1"'])
    assert (await ask("PUT", 1, "/k", b"2", If_Match='"7"'))[0] == 412
    assert (await ask("PUT", 1, "/k", b"2", If_Match='"1"'))[0] == 204
    assert (await ask("GET", 1, "/k", If_None_Match='"2"'))[0] == 304
    assert (await ask("PUT", 1, "/k", bytes((1 << 20) + 1)))[0] == 413
    assert (await ask("PUT", 1, "/" + "k" * 4096))[0] == 414
    assert (await ask("GET", 1, "/k?revision=1"))[:2] == (200, b"1")
    assert (await ask("GET", 1, "/k?unknown=1"))[0] == 400
    assert (await ask("PUT", 1, "/k", Origin="http://elsewhere"))[0] == 403
    assert (await ask("GET", 1, "/k", Host="elsewhere"))[0] == 421
    assert (await ask("GET", 1, "/health"))[0] == 200


@with_nodes(1)
async def test_a_retry_with_an_idempotency_key_gets_the_first_answer(
    nodes: Nodes,
) -> None:
    """Whatever happened in between."""
    first = await nodes.ask("PUT", 1, "/k", b"a", Idempotency_Key="t")
    await nodes.ask("PUT", 1, "/k", b"b")
    again = await nodes.ask("PUT", 1, "/k", b"a", Idempotency_Key="t")
    assert first[0] == again[0] == 204
    assert first[2].getRawHeaders(b"etag") == again[2].getRawHeaders(b"etag")
    assert (await nodes.ask("GET", 1, "/k"))[1] == b"b"
    other = await nodes.ask("PUT", 1, "/k", b"c", Idempotency_Key="t")
    assert other[0] == 422


@with_nodes(3)
async def test_three_nodes_a_fourth_and_one_less(nodes: Nodes) -> None:
    """Over the members' own protocol."""
    assert (await nodes.ask("PUT", 1, "/k", b"v"))[0] == 204
    for number in (1, 2, 3):
        assert (await nodes.ask("GET", number, "/k"))[1] == b"v"

    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    nodes.urls.append(url)
    assert (await nodes.ask("POST", 2, "/4", url.encode()))[0] == 204
    nodes.start(4, "--join")
    await nodes.ready(4)
    assert (await nodes.ask("GET", 4, "/k"))[1] == b"v"
    assert (await nodes.ask("PUT", 4, "/k", b"w"))[0] == 204

    assert (await nodes.ask("DELETE", 1, "/3"))[0] == 204
    loop = nodes.loops[3]
    await nodes.until(lambda: loop.stops)
    await nodes.stop(3)
    assert (await nodes.ask("GET", 2, "/k"))[1] == b"w"

    again = nodes.start(3)
    loop = nodes.loops[3]
    await nodes.until(lambda: loop.stops)
    assert again.http.port is None
    await nodes.stop(3)


@with_nodes(1)
async def test_only_a_founder_begins_a_cluster(nodes: Nodes) -> None:
    """A joiner that was told its cluster's id, and nothing more, waits on."""
    [port] = free_ports(1)
    nodes.urls.append(f"http://127.0.0.1:{port}")
    joiner = nodes.start(2, "--join")
    node = joiner.node_service.node
    assert node is not None
    founder = nodes.running[1].node_service.node
    assert founder is not None
    node.cluster_learned(founder.identity.cluster_id)
    await nodes.stop(2)
    again = nodes.start(2)
    node = again.node_service.node
    assert node is not None
    assert node.replica.store.applied_index == 0
    assert not node.pump.raft.core.tracker.configuration.voters


@with_nodes(3)
async def test_a_stopped_member_is_caught_up(nodes: Nodes) -> None:
    """By the log, or by a snapshot where the log was cut."""
    await nodes.stop(2)
    for number in range(20):
        assert (await nodes.ask("PUT", 1, f"/k{number}", b"v"))[0] == 204
    nodes.start(2)
    await nodes.ready(2)
    assert (await nodes.ask("GET", 2, "/k19"))[1] == b"v"


@with_nodes(2)
async def test_without_a_quorum(nodes: Nodes) -> None:
    """Reads and writes say that nothing was done; stale reads go on."""
    await nodes.ask("PUT", 1, "/k", b"v")
    await nodes.stop(2)
    node = nodes.running[1].node_service.node
    assert node is not None
    await nodes.until(lambda: not node.pump.leading)
    write = defer.ensureDeferred(nodes.ask("PUT", 1, "/k", b"w"))
    read = defer.ensureDeferred(nodes.ask("GET", 1, "/k"))
    assert (await write)[0] == 503
    status, _, headers = await read
    assert status == 503
    assert headers.hasHeader(b"retry-after")
    assert (await nodes.ask("GET", 1, "/k?consistency=stale"))[1] == b"v"
    assert (await nodes.ask("GET", 1, "/health"))[0] == 503
    assert (await nodes.ask("GET", 1, "/_/live"))[0] == 200


@with_nodes(1)
async def test_what_is_in_use_is_refused_before_anything_starts(nodes: Nodes) -> None:
    """With the reason, and without a traceback."""
    port: Any = nodes.running[1].http.port
    with pytest.raises(SystemExit, match="is in use by another process"):
        makeService(nodes.options(1), Loop())
    taken = nodes.options(1, f"--port={port.getHost().port}")
    taken["data-dir"] = str(nodes.directory / "other")
    with pytest.raises(SystemExit, match=r"cannot listen there .* ss -ltnp tells who"):
        makeService(taken, Loop())


@with_nodes(1)
async def test_a_port_that_was_taken_since_it_was_tried_is_one_line(
    nodes: Nodes,
) -> None:
    port: Any = nodes.running[1].http.port
    taken = nodes.options(1, f"--port={port.getHost().port}")
    taken["data-dir"] = str(nodes.directory / "other")
    taken["cluster"] = {1: f"http://127.0.0.1:{free_ports(1)[0]}"}
    ends: list[tuple[str, int]] = []
    with (
        patch("kvdb.service.check"),
        patch("kvdb.host.RealHost.stop", lambda _, why, end: ends.append((why, end))),
    ):
        service = makeService(taken, Loop())
        service.startService()
        await service.stopService()
    [(why, status)] = ends
    assert status == 1
    assert why.startswith(f"--port {port.getHost().port} of --host 127.0.0.1: cannot")


def test_a_status_other_than_0_is_left_for_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reactor stops in peace, then the process ends with it."""
    registered: list[Any] = []
    monkeypatch.setattr("atexit.register", registered.append)
    said: list[Any] = []
    monkeypatch.setattr(
        "kvdb.host.log", Logger("kvdb", observer=cast(Any, said.append))
    )

    class Stopping:
        def callWhenRunning(self, work: Callable[..., None], *args: Any) -> None:
            work(*args)

        stopped = 0

        def stop(self) -> None:
            self.stopped += 1

    loop = Stopping()
    RealHost(loop).stop("it is enough", 0)
    assert registered == []
    RealHost(loop).stop("it has failed", 3)
    assert loop.stopped == 2
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)
    registered[0]()
    assert left == [3]
    assert [event["why"] for event in said] == ["it is enough", "it has failed"]


def test_timers_do_not_go_by_the_time_of_day(tmp_path: Path) -> None:
    """When that is set back, a node's timers would all stand still."""
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    script = f"""
import time
from kvdb.options import Options
from kvdb.service import makeService
options = Options()
options.parseOptions(["--data-dir={tmp_path}", "--cluster={url}", "--port=0"])
makeService(options)
from twisted.internet import reactor
fired = []
reactor.callLater(0.01, fired.append, True)
assert abs(reactor.getDelayedCalls()[0].getTime() - time.monotonic()) < 5
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
