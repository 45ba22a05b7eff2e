"""The client and kvdbctl on real members, whose processes are killed."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from kvdb.client import Client, Conflict, NotFound, Put
from tests.end_to_end.cluster import LocalCluster, local_cluster
from tests.timed import timed

KVDBCTL = str(Path(sys.executable).parent / "kvdbctl")
PATIENCE = 60.0

WRITERS = 4
COUNTERS = 2


def urls(cluster: LocalCluster) -> list[str]:
    return [node.url for node in cluster.nodes.values()]


async def in_thread(function: Callable[..., Any], *arguments: Any) -> Any:
    return await deferToThread(function, *arguments)


@timed(120)
async def test_nothing_is_lost_and_nothing_done_twice_when_leaders_die(
    tmp_path: Path,
) -> None:
    """
    Writers put keys, counters increment one by compare-and-set, a watch looks on,
    and members are killed in the middle of it: leaders, and whom the watch is at.
    """
    with local_cluster(tmp_path, 3) as cluster:
        writers = [Client(reactor, urls(cluster), timeout=30) for _ in range(WRITERS)]
        counters = [Client(reactor, urls(cluster), timeout=30) for _ in range(COUNTERS)]
        reader = Client(reactor, urls(cluster), timeout=30)
        going = True
        written: dict[bytes, int] = {}
        increments: list[int] = []
        events: list[Any] = []

        async def write(client: Client, number: int) -> None:
            turn = 0
            while going:
                key = b"/w/%d/%d" % (number, turn)
                written[key] = await client.put(key, key)
                turn += 1

        async def increment(client: Client) -> None:
            while going:
                try:
                    found = await client.get("/counter")
                    value, revision = int(found.value), found.revision
                except NotFound:
                    value, revision = 0, 0
                try:
                    done = await client.compare_and_set(
                        "/counter", b"%d" % (value + 1), revision
                    )
                except Conflict:
                    continue
                increments.append(done)

        watch = reader.watch(prefix="/", since=0)

        async def look_on() -> None:
            async for event in watch:
                events.append(event)
                if event.key == b"/end":
                    return

        looking = Deferred.fromCoroutine(look_on())
        working = [
            *(Deferred.fromCoroutine(write(c, n)) for n, c in enumerate(writers)),
            *(Deferred.fromCoroutine(increment(c)) for c in counters),
        ]
        ports = {node.url: node for node in cluster.nodes.values()}
        for whose in ("leader", "leader", "watch"):
            wanted = len(written) + 30, len(increments) + 10
            while len(written) < wanted[0] or len(increments) < wanted[1]:
                await deferLater(reactor, 0.01, lambda: None)
            member = ports[watch.endpoint]
            if whose == "leader":
                member = await in_thread(cluster.leader)
            await in_thread(member.kill)
            await in_thread(member.start)
            await in_thread(member.wait_ready)
        going = False
        await gatherResults(working)
        end = await writers[0].put("/end", b"")
        await looking

        # Nothing is lost.
        for key, revision in written.items():
            found = await reader.get(key)
            assert (found.value, found.revision) == (key, revision)
        # Nothing is done twice.
        assert int((await reader.get("/counter")).value) == len(increments)
        total = len(written) + len(increments) + 1
        assert end == total, "there are other revisions than those of our writes"
        # The watch saw each change once, in order.
        assert [event.revision for event in events] == list(range(1, total + 1))
        told = {event.key: event.revision for event in events}
        assert told.items() >= written.items()
        assert watch.connections > 1, "its member was killed"
        await watch.close()
        for client in (*writers, *counters, reader):
            await client.close()


@timed(60)
async def test_a_watch_outlives_its_member(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 3) as cluster:
        node = {url: number for number, url in enumerate(urls(cluster), 1)}
        async with Client(reactor, urls(cluster), timeout=30) as client:
            seen: list[bytes] = []
            async with client.watch(prefix="/w/") as watch:
                for turn, end in enumerate((signal.SIGKILL, signal.SIGTERM, None)):
                    await client.put("/w/k", b"%d" % turn)
                    event = await anext(watch)
                    assert isinstance(event, Put)
                    seen.append(event.value)
                    if end is None:
                        break
                    member = cluster.nodes[node[watch.endpoint]]
                    member.signal(end)
                    await in_thread(member.wait)
                    await client.put("/w/k", b"while it was gone")
                    event = await anext(watch)
                    assert isinstance(event, Put)
                    seen.append(event.value)
                    assert watch.connections == turn + 2
                    await in_thread(member.start)
                    await in_thread(member.wait_ready)
            assert seen == [
                *(b"0", b"while it was gone", b"1", b"while it was gone", b"2"),
            ]


# The command.


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with local_cluster(tmp_path_factory.mktemp("kvdbctl"), 3) as cluster:
        yield cluster


def environment(cluster: LocalCluster) -> dict[str, str]:
    """Of users, whose Python buffers what it writes."""
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return {**plain, "KVDB_ENDPOINTS": ",".join(urls(cluster))}


def kvdbctl(
    cluster: LocalCluster, *arguments: str | bytes, input: bytes = b""
) -> tuple[int, bytes, bytes]:
    """Exit status, output, complaints."""
    done = subprocess.run(
        [KVDBCTL, *arguments],
        input=input,
        capture_output=True,
        env=environment(cluster),
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_writes_and_reads(cluster: LocalCluster) -> None:
    value = bytes(range(256))
    assert kvdbctl(cluster, "put", "/k", "-", input=value)[0] == 0
    assert kvdbctl(cluster, "get", "/k") == (0, value, b"")
    assert kvdbctl(cluster, "put", b"/\xff", b"\xe9\xff\n")[0] == 0
    assert kvdbctl(cluster, "get", b"/\xff") == (0, b"\xe9\xff\n", b"")
    status, out, complaint = kvdbctl(cluster, "get", "/nothing")
    assert (status, out) == (1, b"")
    assert complaint.startswith(b"kvdbctl: there is no such key (http://127.0.0.1:")
    assert kvdbctl(cluster, "get", "k")[0] == 2


def test_the_command_tells_how_the_cluster_is(cluster: LocalCluster) -> None:
    status, out, _ = kvdbctl(cluster, "status")
    assert status == 0
    assert len(out.splitlines()) >= 4
    assert all(node.url.encode() in out for node in cluster.nodes.values())
    assert kvdbctl(cluster, "health")[0] == 0
    status, out, _ = kvdbctl(cluster, "member", "list", "--json")
    assert [one["id"] for one in json.loads(out)["members"]] == [1, 2, 3]


def test_a_learner_is_waited_for(cluster: LocalCluster) -> None:
    joiner = cluster.join(4)
    assert kvdbctl(cluster, "member", "add", "4", joiner.peer_url)[0] == 0
    joiner.start()
    status, out, complaint = kvdbctl(cluster, "member", "promote", "4")
    assert (status, out) == (0, b"member 4 is a voter\n"), complaint
    assert kvdbctl(cluster, "member", "remove", "4")[0] == 0
    assert joiner.wait() == 0
    del cluster.nodes[4]


def test_an_interrupt_ends_it_cleanly(cluster: LocalCluster) -> None:
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        watching = subprocess.Popen(
            [KVDBCTL, "watch", "--since", "0"],
            env=environment(cluster),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert watching.stdout is not None
        kvdbctl(cluster, "put", "/k", "v")
        ready, _, _ = select.select([watching.stdout], [], [], PATIENCE)
        assert ready, "nothing was told"
        watching.send_signal(number)
        _, complaint = watching.communicate(timeout=PATIENCE)
        assert (watching.returncode, complaint) == (status, b"")


def test_a_reader_that_goes_is_no_trouble(cluster: LocalCluster) -> None:
    kvdbctl(cluster, "put", "/k", "v")
    watching = subprocess.Popen(
        [KVDBCTL, "watch", "--since", "0"],
        env=environment(cluster),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert watching.stdout is not None
    assert watching.stderr is not None
    watching.stdout.readline()
    watching.stdout.close()
    deadline = time.monotonic() + PATIENCE
    while watching.poll() is None and time.monotonic() < deadline:
        kvdbctl(cluster, "put", "/k", "v")
    assert watching.wait(PATIENCE) == 141
    assert watching.stderr.read() == b""
    watching.stderr.close()


@pytest.mark.parametrize(
    ("line", "status", "complaint"),
    [
        ("get /full > /dev/full", 9, "the output cannot be written: No space left"),
        ("--help > /dev/full", 9, "the output cannot be written: No space left"),
        ("get /full >&-", 9, "the output cannot be written: Bad file descriptor"),
        ("put /full - <&-", 2, "the standard input cannot be read: Bad file"),
        ("get /full <&- > /dev/null", 0, ""),
        ("get /nothing 2>&-", 1, ""),
        ("member 2> /dev/full", 2, ""),
    ],
)
def test_standard_streams_that_are_of_no_use(
    cluster: LocalCluster, line: str, status: int, complaint: str
) -> None:
    kvdbctl(cluster, "put", "/full", "v")
    done = subprocess.run(
        ["bash", "-c", f"{KVDBCTL} {line}"],
        env=environment(cluster),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    said = done.stderr.decode()
    assert (done.returncode, said.count("\n")) == (status, bool(complaint)), said
    assert complaint in said


@pytest.mark.parametrize("words", ["--help", "put /full v", "completion zsh"])
def test_a_pipe_without_a_reader(cluster: LocalCluster, words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as output:
        done = subprocess.run(
            [KVDBCTL, *words.split()],
            env=environment(cluster),
            stdout=output,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_shell_is_given_the_words(cluster: LocalCluster) -> None:
    words = {"COMP_WORDS": "kvdbctl member ", "COMP_CWORD": "2"}
    done = subprocess.run(
        [KVDBCTL],
        env={**os.environ, **words, "_KVDBCTL_COMPLETE": "bash_complete"},
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    words_there = [line.partition(b",")[2] for line in done.stdout.split()]
    assert words_there == [b"add", b"list", b"promote", b"remove"]
