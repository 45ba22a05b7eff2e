"""kvdbctl: what it prints, and how it ends, on a cluster in memory."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import re
import stat
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater

from kvdb import __version__
from kvdb.client.backups import EndCheck
from kvdb.client.client import Client
from kvdb.client.command import tree
from kvdb.client.command.bench import Latencies
from kvdb.client.command.main import Asked, Streams, line_of, perform, read
from kvdb.client.command.options import make_client
from kvdb.client.command.session import escaped, size_text, table
from kvdb.client.errors import (
    OutcomeUnknown,
    Unauthorized,
    Unavailable,
    UnexpectedAnswer,
)
from kvdb.client.model import Health, Status
from kvdb.client.testing import FakeCluster
from kvdb.interfaces import OutcomeUnknown as UnknownInside
from tests.client.scripted import answer, backup, put_script, stream, then_cut


class Terminal(io.StringIO):
    """A standard error that is one."""

    def isatty(self) -> bool:
        return True


@define
class Shell:
    """Runs the command."""

    cluster: FakeCluster = field(factory=FakeCluster)
    on_terminal: bool = False
    error: str = ""

    def run(
        self, *arguments: str, input: bytes = b"", output: Any = None
    ) -> tuple[int, bytes]:
        """Its exit status, and what it printed; C{error} is what it complained."""
        out = output or io.BytesIO()
        errors = Terminal() if self.on_terminal else io.StringIO()
        streams = Streams(io.BytesIO(input), out, errors, self.on_terminal)

        def make(kept: dict[str, Any], reactor: Any) -> Client:
            endpoints = kept.get("endpoints")
            timeout = kept.get("timeout", 5.0)
            urls = None if endpoints is None else endpoints.split(",")
            return self.cluster.client(urls, timeout=timeout)

        asked = read(arguments, streams)
        status = asked
        if isinstance(asked, Asked):
            work = perform(asked, self.cluster.reactor, streams, make)
            status = self.cluster.run(work)
        self.error = errors.getvalue()
        assert isinstance(status, int)
        return status, out.getvalue() if output is None else b""

    def json(self, *arguments: str) -> Any:
        """Its one line of JSON."""
        status, out = self.run(*arguments, "--json")
        assert status == 0, self.error
        [line] = out.splitlines()
        return json.loads(line)


@pytest.fixture(autouse=True)
def _of_no_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the shell has in which the tests are run."""
    for name in list(os.environ):
        if name.startswith("KVDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def shell() -> Shell:
    return Shell()


# Keys.


def test_a_value_goes_in_and_out_unchanged(shell: Shell, tmp_path: Path) -> None:
    value = b"\xff\x00\n text"
    assert shell.run("put", "/k", "-", input=value) == (0, b"revision 1\n")
    assert shell.run("get", "/k") == (0, value)
    (tmp_path / "v").write_bytes(value[::-1])
    assert shell.run("put", "/k", "--file", str(tmp_path / "v"))[0] == 0
    assert shell.run("get", "/k") == (0, value[::-1])
    assert shell.run("put", "/k", "--", "-5")[0] == 0
    assert shell.run("get", "/k") == (0, b"-5")
    assert shell.run("get", "/k", "--revision", "1") == (0, value)
    assert shell.run("get", "/k", "--stale") == (0, b"-5")
    assert shell.run("put", "/k", "") == (0, b"revision 4\n")
    assert shell.run("get", "/k") == (0, b"")


def test_on_a_terminal_a_line_is_ended(shell: Shell) -> None:
    shell.run("put", "/k", "v")
    shell.run("put", "/l", "v\n")
    shell.on_terminal = True
    assert shell.run("get", "/k") == (0, b"v\n")
    assert shell.run("get", "/l") == (0, b"v\n")


def test_a_key_of_any_bytes_can_be_typed(shell: Shell) -> None:
    key = os.fsdecode(b"/\xff\n?#")
    assert shell.run("put", key, "v")[0] == 0
    assert shell.run("get", key) == (0, b"v")
    assert shell.run("list") == (0, b"/\xff\n?#\n")
    assert shell.run("list", "-0") == (0, b"/\xff\n?#\0")
    shell.on_terminal = True
    assert shell.run("list", "--values") == (0, b"/\\xff\\x0a?#\tv\n")
    shell.on_terminal = False
    found = shell.json("list", "--values")
    assert found["key_base64"] == "L/8KPyM="


def test_a_value_is_the_bytes_that_were_typed(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.run("put", "/k", os.fsdecode(b"\xe9\xff"))[0] == 0
    assert shell.run("get", "/k") == (0, b"\xe9\xff")
    # Where a terminal speaks Latin-1, its bytes are other ones.
    monkeypatch.setattr(os, "fsencode", lambda text: text.encode("latin-1"))
    assert shell.run("put", "/k", "\xe9")[0] == 0
    assert shell.run("get", "/k") == (0, b"\xe9")


def test_keys_are_answered_in_json(shell: Shell) -> None:
    assert shell.json("put", "/k", "v") == {"revision": 1}
    assert shell.json("get", "/k") == {"key": "/k", "value": "v", "revision": 1}
    shell.run("put", "/k", "-", input=b"\xff")
    found = shell.json("get", "/k")
    assert found == {"key": "/k", "value_base64": "/w==", "revision": 2}
    numbers = {"create_revision": 1, "mod_revision": 2, "version": 2}
    assert shell.json("list") == {"key": "/k", **numbers}
    assert shell.json("delete", "/k") == {"revision": 3}


def test_a_list_begins_and_ends_where_it_is_told_to(shell: Shell) -> None:
    for key in ("/a/1", "/a/2", "/a/3", "/b/1"):
        shell.run("put", key, "v")
    assert shell.run("list")[1] == b"/a/1\n/a/2\n/a/3\n/b/1\n"
    assert shell.run("list", "/a/")[1] == b"/a/1\n/a/2\n/a/3\n"
    assert shell.run("list", "/a/", "--start", "/a/2")[1] == b"/a/2\n/a/3\n"
    assert shell.run("list", "--limit", "2", "--stale")[1] == b"/a/1\n/a/2\n"


def test_conditions(shell: Shell) -> None:
    assert shell.run("put", "/k", "1", "--if-present") == (3, b"")
    assert shell.run("put", "/k", "1", "--if-absent")[0] == 0
    assert shell.run("put", "/k", "2", "--if-absent") == (3, b"")
    assert "at revision 1" in shell.error
    assert shell.run("put", "/k", "2", "--if-revision", "1")[0] == 0
    assert shell.run("delete", "/k", "--if-revision", "1") == (3, b"")
    assert shell.run("delete", "/k") == (0, b"revision 3\n")
    assert shell.run("delete", "/k") == (1, b"")
    assert shell.run("put", "/k", "1", "--if-absent", "--if-present")[0] == 2
    assert "exclude" in shell.error


def test_an_idempotency_key_is_carried_out_once(shell: Shell) -> None:
    more = ("--idempotency-key", "x")
    assert shell.run("put", "/k", "1", *more) == (0, b"revision 1\n")
    assert shell.run("put", "/k", "1", *more) == (0, b"revision 1\n")
    assert shell.run("put", "/k", "2", *more) == (4, b"")


def test_changes_are_watched(shell: Shell) -> None:
    shell.run("put", "/k", "-", input=b"a\\\n\xff")
    shell.run("put", "/k2", "v")
    shell.run("delete", "/k")
    shell.run("put", "/l", "  v  ")
    shell.run("put", "/l", "")
    assert shell.run("watch", "--since", "0", "--count", "5") == (
        0,
        b"1  put     /k  a\\x5c\\x0a\\xff\n2  put     /k2  v\n3  delete  /k\n"
        b"4  put     /l    v  \n5  put     /l\n",
    )
    out = shell.run("watch", "/k2", "--since=0", "--count=1", "--json")[1]
    more = {"previous_revision": 0, "time": 0.0}
    assert json.loads(out) == {
        "event": "put",
        "key": "/k2",
        "value": "v",
        "revision": 2,
        "create_revision": 2,
        "version": 1,
        **more,
    }
    out = shell.run("watch", "/k", "--exact", "--since=1", "--count=1", "--json")[1]
    more = {"previous_revision": 1, "time": 0.0}
    assert json.loads(out) == {"event": "delete", "key": "/k", "revision": 3, **more}
    out = shell.run("watch", "/k", "--exact", "--since=1", "--count=1", "--previous")[1]
    assert out == b"3  delete  /k  (before: a\\x5c\\x0a\\xff)\n"
    assert shell.run("watch", "--since", "9", "--count", "1")[0] == 4


# The cluster.


def lines(out: bytes) -> list[list[str]]:
    return [re.split(r"  +", line.strip()) for line in out.decode().splitlines()]


def test_members_are_listed_added_and_removed(shell: Shell) -> None:
    status, out = shell.run("member", "add", "4", "http://h:4")
    assert (status, out) == (0, b"member 4 is added, as a learner\n")
    assert "--id 4 --join" in shell.error
    found = lines(shell.run("member", "list")[1])
    assert found[0] == ["ID", "ROLE", "PEERS", "CLIENTS", "LAG", "CONNECTED"]
    assert found[1][1:3] == ["leader", "http://member1.test:12379"]
    assert found[4][:3] == ["4", "learner", "http://h:4"]
    assert found[1][-1] == "-"
    assert found[2][-2:] == ["0", "yes"]
    assert shell.run("member", "remove", "4") == (0, b"member 4 is removed\n")
    assert shell.run("member", "remove", "4") == (1, b"")
    assert shell.run("member", "add", "4", "http://h:4") == (4, b"")
    assert "was removed" in shell.error
    added = shell.json("member", "add", "5", "http://h:5")
    assert added == {"id": 5, "url": "http://h:5"}
    assert shell.json("member", "remove", "5") == {"id": 5}
    members = shell.json("member", "list")["members"]
    assert [member["id"] for member in members] == [1, 2, 3]


def members_answer(role: str, lag: int | None) -> bytes:
    learner = {"id": 4, "url": "http://h:4", "role": role, "lag": lag, "match_index": 5}
    return answer(200, json.dumps({"members": [learner]}).encode())


@pytest.mark.parametrize("on_terminal", [False, True])
def test_a_promotion_is_waited_for(shell: Shell, on_terminal: bool) -> None:
    shell.on_terminal = on_terminal
    put_script(
        shell.cluster,
        1,
        *(members_answer("learner", lag) for lag in (900, 400, 400, None)),
        members_answer("follower", 0),
    )
    assert shell.run("member", "promote", "4") == (0, b"member 4 is a voter\n")
    assert shell.cluster.reactor.seconds() == pytest.approx(2)
    if not on_terminal:
        assert shell.error == (
            "kvdbctl: catching up: 900 entries behind\n"
            "kvdbctl: catching up: 400 entries behind\n"
        )


def test_a_promotion_that_does_not_come_is_given_up(shell: Shell) -> None:
    put_script(shell.cluster, 1, members_answer("learner", 7))
    assert shell.run("member", "promote", "4", "--wait", "3") == (1, b"")
    assert "7 entries behind: look whether it runs" in shell.error
    assert shell.run("member", "promote", "9") == (1, b"")
    assert "not in the cluster" in shell.error
    put_script(shell.cluster, 1, members_answer("follower", 7))
    shell.cluster.members[1].cut()
    assert shell.json("member", "promote", "4") == {"id": 4, "role": "follower"}


def test_leadership_is_transferred(shell: Shell) -> None:
    assert shell.run("leader", "transfer", "3") == (0, b"member 3 leads\n")
    assert shell.json("leader", "transfer") == {"leader": 1}
    assert shell.run("leader", "transfer", "9") == (1, b"")


def test_status_has_a_line_for_each_member(shell: Shell) -> None:
    shell.run("put", "/k", "v")
    shell.cluster.members[3].stop()
    status, out = shell.run("status")
    assert status == 0
    head, *rows = lines(out)
    assert head[:6] == ["ID", "ROLE", "CLIENTS", "TERM", "INDEX", "LAG"]
    assert rows[0][:3] == ["1", "leader", "http://member1.test:12380"]
    assert rows[1][:6] == ["2", "follower", "http://member2.test:12380", "1", "2", "0"]
    assert rows[1][-1] == __version__
    assert rows[2][:4] == ["3", "unreachable", "-", "-"]
    found = shell.json("status")
    assert [one["id"] for one in found["members"]] == [1, 2, 3]
    assert [one["id"] for one in found["status"]] == [1, 2]


def test_status_tells_what_is_wrong(shell: Shell) -> None:
    status: dict[str, Any] = {
        "id": 1,
        "cluster_id": "c",
        "role": "follower",
        "leader": None,
        "term": 1,
        "commit_index": 1,
        "applied_index": 1,
        "revision": 1,
        "compacted_revision": 0,
        "log_bytes": 0,
        "store_bytes": 0,
        "version": "1",
        "members": [],
        "alarms": ["it burns"],
        "warnings": ["even"],
    }
    members = [
        {"id": 1, "url": "http://h:1", "role": "follower", "applied_index": 5}
        | {"last_index": 9, "store_bytes": 2048},
        {"id": 2, "url": "http://h:2", "role": "unknown", "applied_index": 7},
    ]
    put_script(
        shell.cluster,
        1,
        *[answer(200, json.dumps({"members": members}).encode())] * 2,
        answer(200, json.dumps(status).encode()),
    )
    one = ("--endpoints", shell.cluster.endpoints[0])
    code, out = shell.run("status", *one)
    assert code == 1
    assert b"alarm, member 1: it burns\nwarning, member 1: even\n" in out
    assert [row[5] for row in lines(out)[1:3]] == ["-", "-"], "nobody knows the lag"
    assert "2.0 KiB" in out.decode()
    assert "nobody leads" in shell.error


def test_health_is_asked_of_each_endpoint(shell: Shell) -> None:
    assert shell.run("health")[0] == 0
    shell.cluster.members[2].stop()
    status, out = shell.run("health")
    assert status == 1
    assert out == (
        b"http://member1.test:12380 is healthy\n"
        b"http://member2.test:12380 is not healthy: connection refused\n"
        b"http://member3.test:12380 is healthy\n"
    )
    status, out = shell.run("health", "--json")
    assert [json.loads(line)["healthy"] for line in out.splitlines()] == [
        *(True, False, True),
    ]


# Snapshots.


@pytest.mark.parametrize("on_terminal", [False, True])
def test_a_snapshot_is_whole(shell: Shell, tmp_path: Path, on_terminal: bool) -> None:
    shell.on_terminal = on_terminal
    whole = backup(b"x" * 3000)
    put_script(shell.cluster, 1, stream(whole))
    file = tmp_path / "s.snap"
    file.write_bytes(b"the one before")
    status, out = shell.run("snapshot", "save", str(file))
    assert (status, out) == (0, f"{file}: 3.0 KiB\n".encode())
    assert file.read_bytes() == whole
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]
    found = shell.json("snapshot", "save", str(file))
    assert found == {"file": str(file), "bytes": 3036}


def test_a_snapshot_on_the_standard_output(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shell.cluster.run(shell.cluster.client().put("/k", b"v"))
    status, out = shell.run("snapshot", "save", "-")
    assert status == 0
    check = EndCheck()
    check.feed(out)
    assert check.is_whole()
    assert shell.error == f"kvdbctl: standard output: {size_text(len(out))}\n"
    status, again = shell.run("--json", "snapshot", "save", "-")
    assert (status, again) == (0, out)
    assert json.loads(shell.error.partition("output: ")[2]) == {"bytes": len(out)}
    shell.on_terminal = True
    assert shell.run("snapshot", "save", "-") == (2, b"")
    assert "the standard output is a terminal" in shell.error
    assert list(tmp_path.iterdir()) == []


def test_half_a_snapshot_on_the_standard_output_is_told_of(shell: Shell) -> None:
    put_script(shell.cluster, 1, then_cut(stream(b"not all", whole=False)))
    one = ("--endpoints", shell.cluster.endpoints[0], "--timeout", "1")
    status, _ = shell.run("snapshot", "save", "-", *one)
    assert status == 6
    assert "broke off" in shell.error


def test_half_a_snapshot_leaves_no_file(shell: Shell, tmp_path: Path) -> None:
    put_script(shell.cluster, 1, then_cut(stream(b"half", whole=False)))
    file = tmp_path / "s.snap"
    file.write_bytes(b"the one before")
    assert shell.run("snapshot", "save", str(file))[0] == 6
    assert "broke off after 4 bytes" in shell.error
    assert file.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_snapshot_that_cannot_be_written_says_why(
    shell: Shell, tmp_path: Path
) -> None:
    assert shell.run("snapshot", "save", str(tmp_path))[0] == 2
    assert "is a directory" in shell.error
    assert shell.run("snapshot", "save", str(tmp_path / "no" / "file"))[0] == 2
    assert "No such file or directory" in shell.error


def test_two_runs_do_not_write_one_snapshot(shell: Shell, tmp_path: Path) -> None:
    put_script(shell.cluster, 1, stream(backup(b"x" * 3000)))
    part = tmp_path / "s.snap.part"
    with part.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"of another run")
        other.flush()
        assert shell.run("snapshot", "save", str(tmp_path / "s.snap"))[0] == 2
        assert "being written by another process" in shell.error
        assert part.read_bytes() == b"of another run"
    assert shell.run("snapshot", "save", str(tmp_path / "s.snap"))[0] == 0
    assert [one.name for one in tmp_path.iterdir()] == ["s.snap"]


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_run_that_ends_just_before_this_one_locks(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    """Its backup has its name by then, and is written to no more; a third run may
    have begun in its place."""
    put_script(shell.cluster, 1, stream(backup(b"x" * 3000)))
    file, part = tmp_path / "s.snap", tmp_path / "s.snap.part"
    part.write_bytes(b"of another run")
    real = fcntl.flock

    def lock(out: Any, how: int) -> None:
        part.rename(file)
        if goes_on:
            part.write_bytes(b"of a third")
        real(out, how)

    monkeypatch.setattr(fcntl, "flock", lock)
    assert shell.run("snapshot", "save", str(file))[0] == 2
    assert f"{part} is being written by another process" in shell.error
    assert file.read_bytes() == b"of another run"
    assert part.exists() == goes_on


def fifo(part: Path, victim: Path) -> None:
    os.mkfifo(part)


def read_fifo(part: Path, victim: Path) -> None:
    os.mkfifo(part)
    os.open(part, os.O_RDONLY | os.O_NONBLOCK)  # for as long as this process lasts


def directory(part: Path, victim: Path) -> None:
    part.mkdir()


def link(part: Path, victim: Path) -> None:
    part.symlink_to(victim)


def name(part: Path, victim: Path) -> None:
    part.hardlink_to(victim)


@pytest.mark.parametrize("put", [fifo, read_fifo, directory, link, name])
def test_a_snapshot_is_written_to_nothing_but_a_file_of_its_own(
    shell: Shell, tmp_path: Path, put: Callable[[Path, Path], None]
) -> None:
    put_script(shell.cluster, 1, stream(backup(b"x" * 3000)))
    victim, part = tmp_path / "victim", tmp_path / "s.snap.part"
    victim.write_bytes(b"precious")
    put(part, victim)
    mode = part.lstat().st_mode
    assert shell.run("snapshot", "save", str(tmp_path / "s.snap"))[0] == 2
    assert f"{part} is in the way, and nothing that" in shell.error
    assert victim.read_bytes() == b"precious"
    assert part.lstat().st_mode == mode
    assert not (tmp_path / "s.snap").exists()


def test_another_user_cannot_read_a_snapshot_in_the_making(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose file it is has it open maybe."""
    part = tmp_path / "s.snap.part"
    part.write_bytes(b"")
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    assert shell.run("snapshot", "save", str(tmp_path / "s.snap"))[0] == 2
    assert f"{part} is in the way" in shell.error


def test_a_snapshot_takes_the_place_of_no_device(shell: Shell, tmp_path: Path) -> None:
    """As one of /dev/stdout would."""
    put_script(shell.cluster, 1, stream(backup(b"x" * 3000)))
    device = tmp_path / "device"
    os.mkfifo(device)
    assert shell.run("snapshot", "save", str(device))[0] == 2
    assert f"{device} is no regular file: name one, or -" in shell.error
    assert [one.name for one in tmp_path.iterdir()] == ["device"]


def test_a_snapshot_comes_to_be_where_a_link_leads(
    shell: Shell, tmp_path: Path
) -> None:
    put_script(shell.cluster, 1, stream(backup(b"x" * 3000)))
    link, file = tmp_path / "newest", tmp_path / "s.snap"
    link.symlink_to(file)
    assert shell.run("snapshot", "save", str(link))[0] == 0
    assert link.is_symlink()
    assert file.read_bytes() == backup(b"x" * 3000)


# The bench.


@pytest.mark.parametrize("on_terminal", [False, True])
def test_the_bench_loads_the_cluster(on_terminal: bool) -> None:
    shell = Shell(on_terminal=on_terminal)
    slow_down(shell.cluster)
    arguments = ("bench", "--seconds", "2", "--concurrency", "4", "--keys", "10")
    status, out = shell.run(*arguments)
    assert status == 0
    head, puts, gets = lines(out)
    assert head == ["what", "per_second", "p50_ms", "p99_ms", "max_ms", "failed"]
    assert (puts[0], gets[0]) == ("put", "get")
    for row in (puts, gets):
        assert int(row[1]) == pytest.approx(400, rel=0.05)
        assert float(row[2]) == pytest.approx(10, rel=0.03)
        assert row[5] == "0"
    if on_terminal:
        assert "put  400/s  p50 10" in shell.error
    assert shell.run("list") == (0, b""), "it cleans up"


def slow_down(cluster: FakeCluster) -> None:
    """Each request takes ten milliseconds."""
    for member in cluster.members.values():
        member.latency = 0.005


STEERING = "\x1b[2J\nalarm\u202e\ud800"


@pytest.mark.parametrize("on_terminal", [False, True])
def test_what_a_server_says_steers_no_terminal(
    on_terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell = Shell(on_terminal=on_terminal)
    plain = FakeCluster.client

    def client(cluster: FakeCluster, *words: Any, **more: Any) -> Client:
        made = plain(cluster, *words, **more)
        honest, well = made.status, made.health

        async def status(endpoint: str | None = None) -> Status:
            found = await honest(endpoint)
            [one, *others] = found.members
            return evolve(
                found,
                alarms=[STEERING],
                members=[evolve(one, version=STEERING), *others],
            )

        async def health(endpoint: str | None = None) -> Health:
            return evolve(await well(endpoint), healthy=False, reason=STEERING)

        monkeypatch.setattr(made, "status", status, raising=False)
        monkeypatch.setattr(made, "health", health, raising=False)
        return made

    monkeypatch.setattr(FakeCluster, "client", client)
    for words in (["status"], ["health"], ["status", "--json"], ["health", "--json"]):
        said = shell.run(*words)[1].decode()
        if "--json" in words:
            assert repr(STEERING)[1:-1] in str(json.loads(said.split("\n")[0]))
        if on_terminal or "--json" not in words:
            assert all(line.isprintable() for line in said.split("\n")), said
            assert "[2J" in said
    shell.error = ""
    error = UnexpectedAnswer(STEERING, endpoint="http://h:1")
    Streams(io.BytesIO(), io.BytesIO(), errors := io.StringIO(), False).complain(
        line_of(error)
    )
    assert errors.getvalue()[:-1].isprintable()


def test_a_missing_secret_is_told_of_in_the_commands_words() -> None:
    error = Unauthorized("this needs a role", hint="Authorization: Basic ...")
    assert "--user and KVDB_PASSWORD" in line_of(error)


def test_the_bench_keeps_what_it_is_told_to(shell: Shell) -> None:
    slow_down(shell.cluster)
    arguments = ("--seconds", "0.1", "--keys", "3", "--keep", "--json", "--stale")
    out = shell.run("bench", "--prefix", "/b/", *arguments)[1]
    assert [json.loads(line)["what"] for line in out.splitlines()] == ["put", "get"]
    assert shell.run("list") == (0, b"/b/0\n/b/1\n/b/2\n")


def test_the_bench_is_interrupted(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It removes what it wrote, and nothing else, also where one request hangs."""
    cluster = shell.cluster
    slow_down(cluster)
    plain = Client.put
    hanging: list[bytes] = []

    async def put(client: Client, key: bytes, value: bytes, **more: Any) -> Any:
        if key == b"/bench/0" and not hanging:
            hanging.append(key)
            await Deferred()
        return await plain(client, key, value, **more)

    monkeypatch.setattr(Client, "put", put)
    assert shell.run("put", "/bench/999", "theirs")[0] == 0
    streams = Streams(io.BytesIO(), io.BytesIO(), io.StringIO(), on_terminal=False)
    asked = read(("bench", "--concurrency", "4"), streams)
    assert isinstance(asked, Asked)
    work = perform(
        asked, cluster.reactor, streams, lambda kept, reactor: cluster.client()
    )
    doing = Deferred.fromCoroutine(work)
    cluster.advance(0.5)
    assert b"/bench/101" in shell.run("list", "--limit", "1000")[1].splitlines()
    doing.cancel()

    async def ended() -> None:
        with pytest.raises(CancelledError):
            await doing

    cluster.run(ended())
    assert shell.run("list") == (0, b"/bench/999\n")


def test_the_bench_says_what_it_leaves(shell: Shell) -> None:
    slow_down(shell.cluster)
    for member in shell.cluster.members.values():
        shell.cluster.reactor.callLater(0.5, member.stop)
    assert shell.run("bench", "--timeout", "1")[0] == 6
    said = r"kvdbctl: (\d+) keys that begin with /bench/ may be left\n"
    found = re.search(said, shell.error)
    assert found is not None, shell.error
    left = list(shell.cluster.store.range(b"/bench/", b"/bench0", 1000))
    assert len(left) == int(found[1]) > 100


def test_a_bench_that_is_interrupted_while_it_removes_keys_removes_them_all(
    shell: Shell,
) -> None:
    slow_down(shell.cluster)
    streams = Streams(io.BytesIO(), io.BytesIO(), io.StringIO(), on_terminal=False)
    asked = read(("bench", "--seconds", "0.2"), streams)
    assert isinstance(asked, Asked)
    work = perform(
        asked, shell.cluster.reactor, streams, lambda *_: shell.cluster.client()
    )
    doing = Deferred.fromCoroutine(work)
    shell.cluster.advance(0.5)
    left = len(list(shell.cluster.store.range(b"/bench/", b"/bench0", 1000)))
    assert 0 < left < 300, "it is amid their removal"
    doing.cancel()

    async def ended() -> None:
        with pytest.raises(CancelledError):
            await doing

    shell.cluster.run(ended())
    assert shell.run("list") == (0, b"")
    assert streams.errors.getvalue() == ""  # type: ignore[attr-defined]


def test_a_put_of_the_bench_that_is_carried_out_late_leaves_nothing(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = shell.cluster
    slow_down(cluster)
    plain, other = Client.put, cluster.client()
    late: list[Deferred[Any]] = []

    async def put(client: Client, key: bytes, value: bytes, **more: Any) -> int:
        if key == b"/bench/3" and not late:
            late.append(deferLater(cluster.reactor, 20))
            late[0].addCallback(
                lambda _: Deferred.fromCoroutine(plain(other, key, value, **more))
            )
            raise OutcomeUnknown("nobody knows", more.get("idempotency_key", ""))
        return await plain(client, key, value, **more)

    monkeypatch.setattr(Client, "put", put)
    assert shell.run("bench", "--seconds", "0.1")[0] == 0
    cluster.run(late[0])
    assert shell.run("list") == (0, b"")


def test_the_bench_names_no_option_that_it_has_not(shell: Shell) -> None:
    slow_down(shell.cluster)
    for member in shell.cluster.members.values():
        failure = UnknownInside("it was not in time")
        shell.cluster.reactor.callLater(0.3, setattr, member, "failure", failure)
    assert shell.run("bench", "--seconds", "0.2", "--timeout", "1")[0] == 7
    assert "may be left" in shell.error
    assert "nobody knows" in shell.error
    assert "idempotency" not in shell.error


def test_the_bench_ends_when_nobody_is_there(shell: Shell) -> None:
    for member in shell.cluster.members.values():
        member.stop()
    assert shell.run("bench", "--timeout", "0.5")[0] == 6
    assert shell.error.count("\n") == 1, "nothing was written, and nothing is left"
    assert "connection refused" in shell.error


def test_latencies_are_told_within_two_percent() -> None:
    told = Latencies()
    assert told.at(0.5) is None
    for number in range(1, 1001):
        told.add(number / 1000)
    assert told.at(0.5) == pytest.approx(0.5, rel=0.02)
    assert told.at(0.99) == pytest.approx(0.99, rel=0.02)
    assert told.at(1) == told.longest == 1
    told.add(0)
    assert told.at(0.0001) == pytest.approx(0, abs=1e-5)


# What goes wrong.


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("get",), "Missing argument 'KEY'; see kvdbctl get --help"),
        (("get", "k"), "a key begins with a slash: /k; see kvdbctl get --help"),
        (("put", "/k"), "the value stands behind the key"),
        (("put", "/k", "v", "--file", "f"), "the value stands behind the key"),
        (("put", "/k", "--file", "/no/file"), "cannot be read: No such file"),
        (("member", "add", "x", "http://h:1"), "'x' is not a whole number from 1 to 9"),
        (("member", "add", "4", "nonsense"), "peer URL is http://HOST:PORT or"),
        (("member", "add", "4", "h:1"), "peer URL is http://HOST:PORT or"),
        (("member", "add", "4", "http://h"), "peer URL is http://HOST:PORT or"),
        (("member", "add", "4", "http://u:pw@h:1"), "URL is http://HOST:PORT or"),
        (("member", "remove", "0"), "'0' is not a whole number from 1 to 9"),
        (("member", "promote", "1", "--wait", "nan"), "is not a number from 0 on"),
        (("get", "/k", "--timeout", "x"), "'x' is not a number; see"),
        (("nothing",), "No such command 'nothing'"),
        (("get", "/k", "--nothing"), "No such option"),
        (("watch", "--count", "0"), "'0' is not a whole number from 1 on"),
        (("completion", "tcsh"), "'tcsh' is not one of"),
    ],
)
def test_wrong_usage_is_one_line(
    shell: Shell, arguments: tuple[str, ...], why: str
) -> None:
    assert shell.run(*arguments) == (2, b"")
    assert why in shell.error
    assert shell.error.startswith("kvdbctl: ")
    assert shell.error.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("member",), ("snapshot",)])
def test_without_a_command_it_tells_which_there_are(
    shell: Shell, arguments: tuple[str, ...]
) -> None:
    assert shell.run(*arguments) == (2, b"")
    assert "Commands:" in shell.error


def test_nobody_there(shell: Shell) -> None:
    for member in shell.cluster.members.values():
        member.stop()
    assert shell.run("get", "/k", "--timeout", "1") == (6, b"")
    assert shell.error == (
        "kvdbctl: http://member1.test:12380: connection refused;"
        " http://member2.test:12380: connection refused;"
        " http://member3.test:12380: connection refused."
        " Look whether a majority of the members runs and can be reached.\n"
    )


def test_nobody_knows(shell: Shell) -> None:
    for member in shell.cluster.members.values():
        member.failure = UnknownInside("it was not in time")
    assert shell.run("put", "/k", "v", "--timeout", "1") == (7, b"")
    match = re.search(r"--idempotency-key ([0-9a-f]{32})\]", shell.error)
    assert match is not None, shell.error
    for member in shell.cluster.members.values():
        member.failure = None
    assert shell.run("put", "/k", "v", "--idempotency-key", match[1])[0] == 0


def test_what_nobody_knows_of_a_member_can_be_asked_again(shell: Shell) -> None:
    for member in shell.cluster.members.values():
        member.failure = UnknownInside("it was not in time")
    words = ("member", "add", "4", "http://h:4")
    assert shell.run(*words, "--timeout", "1") == (7, b"")
    match = re.search(r"--idempotency-key ([0-9a-f]{32})\]", shell.error)
    assert match is not None, shell.error
    for member in shell.cluster.members.values():
        member.failure = None
    for _ in range(2):
        assert shell.run(*words, "--idempotency-key", match[1])[0] == 0


@pytest.mark.parametrize(
    ("status", "code"), [(401, 5), (403, 5), (400, 4), (409, 4), (302, 8)]
)
def test_a_refusal_has_its_exit_status(shell: Shell, status: int, code: int) -> None:
    put_script(shell.cluster, 1, answer(status, b'{"detail": "why", "hint": "Do."}'))
    assert shell.run("get", "/k") == (code, b"")
    assert shell.error.startswith("kvdbctl: why (http://member1.test:12380). ")


def test_full_disks_have_their_exit_status(shell: Shell) -> None:
    for member in shell.cluster.members.values():
        member.is_full = True
    assert shell.run("put", "/k", "v") == (6, b"")
    assert "no space on the disk" in shell.error
    assert "Free some space on the disks of these members." in shell.error


def test_a_wrong_value_is_a_wrong_usage(shell: Shell) -> None:
    assert shell.run("put", "/k", "v", "--idempotency-key", "ä")[0] == 2
    assert "printable ASCII" in shell.error


def test_an_output_that_takes_nothing_is_one_line(shell: Shell) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    shell.run("put", "/k", "v")
    for words in (
        *(["get", "/k"], ["list"], ["status"], ["health"], ["put", "/k", "v"]),
        *(["watch", "--since", "0"], ["member", "list"]),
        *(["bench", "--seconds", "0.1"], ["leader", "transfer"], ["delete", "/k"]),
    ):
        if words[0] == "bench":
            slow_down(shell.cluster)
        assert shell.run(*words, output=Full())[0] == 9, words
        assert (
            shell.error
            == "kvdbctl: the output cannot be written: No space left on device\n"
        )


def test_an_input_without_end_is_not_read_whole(shell: Shell) -> None:
    assert shell.run("put", "/k", "--file", "/dev/zero") == (2, b"")
    assert "/dev/zero has more than 8388608 bytes" in shell.error
    assert shell.run("put", "/k", "-", input=bytes((8 << 20) + 1)) == (2, b"")
    assert "the standard input has more than 8388608 bytes" in shell.error
    assert shell.run("put", "/k", "-", input=bytes(1 << 20))[0] == 0


def test_what_is_no_kvdb_has_no_keys_either(shell: Shell) -> None:
    """Any web server answers 404."""
    for words in (("get", "/k"), ("put", "/k", "v"), ("status",)):
        put_script(shell.cluster, 1, answer(404, b"<p>not found</p>"))
        assert shell.run(*words)[0] == 8, words
        assert "Is this the address of a kvdb member?" in shell.error
    put_script(shell.cluster, 1, answer(404, b"<p>not found</p>"))
    status, out = shell.run("health")
    assert status == 1
    assert b"http://member1.test:12380 is not healthy: " in out


def test_a_closed_pipe_ends_it_quietly(shell: Shell) -> None:
    class Closed(io.BytesIO):
        def write(self, data: Any) -> int:
            raise BrokenPipeError

    shell.run("put", "/k", "v")
    assert shell.run("get", "/k", output=Closed())[0] == 141
    assert shell.error == ""


def test_an_endpoint_is_named_once() -> None:
    first = Unavailable("http://h:1: gone", endpoint="http://h:1", hint="Look.")
    assert line_of(first) == "http://h:1: gone. Look."
    assert line_of(Unavailable("gone.", endpoint="http://h:1")) == "gone. (http://h:1)"
    assert line_of(OutcomeUnknown("?", "k")) == "? [--idempotency-key k]"


# What holds for all commands.


def options(*arguments: str, **environment: str) -> Any:
    """The client that is made of them."""
    asked = read(arguments, Streams(io.BytesIO(), io.BytesIO(), io.StringIO(), False))
    assert isinstance(asked, Asked)
    return make_client(asked.kept, Clock(), environment.get)


def headers(client: Any) -> dict[str, str]:
    found: dict[str, str] = client._calls.transport.headers
    return found


def test_options_stand_before_or_behind_and_the_nearer_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    default = options("get", "/k")
    assert list(default.endpoints) == ["http://127.0.0.1:12380"]
    assert default._calls.timeout == 5
    monkeypatch.setenv("KVDB_ENDPOINTS", "a:1,b:2")
    assert list(options("get", "/k").endpoints) == ["http://a:1", "http://b:2"]
    before = options("--endpoints", "c:1", "get", "/k")
    assert list(before.endpoints) == ["http://c:1"]
    both = options("--endpoints", "c:1", "member", "list", "--endpoints", "d:1")
    assert list(both.endpoints) == ["http://d:1"]
    assert options("get", "/k", "--timeout", "7")._calls.timeout == 7


def test_secrets_come_from_files_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("from-file\n")
    file = str(tmp_path / "t")
    assert "Authorization" not in headers(options("health"))
    found = headers(options("health", KVDB_TOKEN="t"))
    assert found["Authorization"] == "Bearer t"
    found = headers(options("health", "--token-file", file, KVDB_TOKEN="t"))
    assert found["Authorization"] == "Bearer from-file"
    found = headers(options("health", "--user", "u", KVDB_PASSWORD="p", KVDB_TOKEN="t"))
    assert found["Authorization"] == "Basic dTpw"
    found = headers(options("health", "--user", "u", "--password-file", file))
    assert found["Authorization"] == "Basic dTpmcm9tLWZpbGU="


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--timeout", "0"), "above 0"),
        (("--endpoints", "x y"), "not an endpoint"),
        (("--token-file", "/no/file"), "--token-file: /no/file cannot be read"),
        (("--user", "u"), "--password-file or KVDB_PASSWORD"),
        (("--password-file", __file__), "a password, and no --user"),
        (("--token-file", __file__, "--password-file", __file__), "and no --user"),
        (("--endpoints", "http://u:h1d,den@h:1"), "with --user, and --password-file"),
        (("--cacert", "/no/file"), "/no/file cannot be read"),
        (("--cacert", __file__), "no certificate in PEM"),
        (("--cert", __file__), "with its private key"),
        (("--key", __file__), "without its certificate"),
    ],
)
def test_a_wrong_option_is_named(arguments: tuple[str, ...], why: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        options("health", *arguments)
    assert why in caught.value.message
    assert not re.search("h1d|den@", caught.value.message)


def test_a_wrong_option_is_one_line(shell: Shell) -> None:
    errors = io.StringIO()
    streams = Streams(io.BytesIO(), io.BytesIO(), errors, False)
    asked = read(("health", "--timeout", "-1"), streams)
    assert isinstance(asked, Asked)

    def make(kept: dict[str, Any], reactor: Any) -> Client:
        return make_client(kept, reactor, lambda name: None)

    work = perform(asked, shell.cluster.reactor, streams, make)
    assert shell.cluster.run(work) == 2
    assert errors.getvalue().count("\n") == 1


def test_version_and_help_are_answers(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.run("--version") == (0, b"")
    assert capsys.readouterr().out == f"kvdbctl {__version__}\n"
    assert shell.run("get", "-h") == (0, b"")
    assert "--stale" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_shells_complete_it(
    shell: Shell,
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KVDB_ENDPOINTS", "no endpoint")
    monkeypatch.setenv("KVDB_CACERT", "/no/file")
    streams = Streams(io.BytesIO(), io.BytesIO(), io.StringIO(), on_terminal=False)
    assert read(("completion", name), streams) == 0, "it asks no cluster"
    assert "_KVDBCTL_COMPLETE" in capsys.readouterr().out


# Commands of other rooms.


def test_commands_of_other_rooms_have_their_place(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    @click.argument("file")
    def verify(file: str) -> int:
        """Look whether a backup is whole."""
        return 0 if file == "good" else 1

    module = types.ModuleType("offline_commands")
    module.verify = verify  # type: ignore[attr-defined]
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "offline_commands", module)
    elsewhere = {
        "snapshot verify": "offline_commands:verify",
        "fsck": "offline_commands:verify",
        "restore": "not_installed_at_all:restore",
        "dump": "not_installed.at_all:dump",
    }
    for group in (tree.tree, tree.snapshot):
        monkeypatch.setattr(group, "elsewhere", elsewhere)
    assert shell.run("snapshot", "verify", "good")[0] == 0
    assert shell.run("snapshot", "verify", "bad")[0] == 1
    assert shell.run("fsck", "good")[0] == 0
    assert shell.run("restore", "good")[0] == 2
    shell.run("snapshot", "--help")
    assert "verify" in capsys.readouterr().out
    shell.run("--help")
    out = capsys.readouterr().out
    assert "fsck" in out
    assert "restore" not in out
    assert "dump" not in out


def test_each_command_of_another_room_is_there() -> None:
    pytest.importorskip("kvdb.offline.command.backups")
    for words in tree.ELSEWHERE:
        group = tree.snapshot if words.startswith("snapshot ") else tree.tree
        context = click.Context(group)
        name = words.rpartition(" ")[2]
        assert name in group.list_commands(context)
        assert isinstance(group.get_command(context, name), click.Command)


# How it is written.


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain text", "plain text"),
        ("ä €".encode(), "ä €"),
        (b"a\x1b[31m", "a\\x1b[31m"),
        (b"back\\slash", "back\\x5cslash"),
        (b"\xff\n", "\\xff\\x0a"),
        ("\u202e\u00a0".encode(), "\\xe2\\x80\\xae\\xc2\\xa0"),
    ],
)
def test_what_steers_a_terminal_is_escaped(data: bytes, text: str) -> None:
    assert escaped(data) == text


def test_sizes_and_tables() -> None:
    texts = [size_text(count) for count in (None, 0, 1023, 1024, 1536, 5 << 30)]
    assert texts == [None, "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]
    assert size_text(3 << 50) == "3072.0 TiB"
    rows = [(1, "x"), (10, None)]
    assert table(("ID", "NAME"), rows, ("ID",)) == ["ID  NAME", " 1  x", "10  -"]
