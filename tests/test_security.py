"""What a node says of doors that it leaves open, and of files it cannot use."""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet import reactor as default_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.python.usage import UsageError
from zope.interface import provider

from kvdb.host import RealHost
from kvdb.preflight import Refused, allow_open_files, check
from kvdb.security import (
    EXPIRY_SECONDS,
    Security,
    is_loopback,
    is_unspecified,
    load_tls,
)
from kvdb.service import Kvdb
from kvdb.tls.settings import TLSFiles
from tests.end_to_end.cluster import free_ports
from tests.test_options import settings
from tests.test_service import Nodes, with_nodes
from tests.timed import timed
from tests.tls.certificates import DAY, NOW, Authority
from tests.tls.test_files import Files


class Machine(RealHost):
    """A host with files and a clock of the test's own."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.files = self.held = Files()
        self.now = NOW.timestamp()

    def time_of_day(self) -> float:
        return self.now

    def on_hangup(self, work: Callable[[], None]) -> None:
        self.hang_up = work


def security(machine: Machine, *words: str, **more: Any) -> Security:
    found = Security(machine, evolve(settings(*words), **more))
    found.startService()
    return found


@pytest.fixture
def machine() -> Iterator[Machine]:
    found = Machine()
    yield found
    found.close()


OUTSIDE = ["--cluster", "http://10.0.0.1:1", "--port", "2"]


def test_which_addresses_stand_for_all() -> None:
    for host in ("0.0.0.0", "::"):
        assert is_unspecified(host)
    for host in ("127.0.0.1", "::1", "localhost", "10.0.0.1", ""):
        assert not is_unspecified(host)


def test_which_addresses_are_this_machines_alone() -> None:
    for host in ("127.0.0.1", "127.1.2.3", "::1", "localhost"):
        assert is_loopback(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", ""):
        assert not is_loopback(host)


def test_open_doors_are_named(machine: Machine) -> None:
    assert list(security(machine).warnings()) == []
    assert list(security(machine, *OUTSIDE).warnings()) == [
        "whoever reaches 10.0.0.1:2 may read and change everything: see"
        " --access-file, or listen on the loopback (--host 127.0.0.1)",
        "what clients send to 10.0.0.1:2 can be read on its way: see --cert-file",
        "whoever reaches http://10.0.0.1:1 may take part as a member: see"
        " --peer-cert-file, and write https:// in peer URLs",
    ]
    machine.held.put("access", b"")
    found = security(machine, "--host", "0.0.0.0", access_file="access")
    assert list(found.warnings()) == [
        "what clients send to port 12380 at any address of this machine can be read on"
        " its way, secrets too: see --cert-file"
    ]
    found.stopService()
    found = security(machine, "--host", "2001:db8::1", access_file="access")
    [warning] = found.warnings()
    assert "to [2001:db8::1]:12380 can be read" in warning
    found.stopService()


def test_what_keeps_pages_from_elsewhere_out(machine: Machine, tmp_path: Path) -> None:
    """Certificates and secrets do; the loopback alone does not."""
    machine.held.put("access", b"")
    tls = put(machine, Authority(tmp_path))
    for words, more, trusts in (
        ([], {}, True),
        (["--host", "localhost"], {}, True),
        (["--host", "10.0.0.1"], {}, False),
        ([], {"access_file": "access"}, False),
        ([], {"tls": tls}, False),
    ):
        found = security(machine, *words, **more)
        assert found.trusts_its_machine is trusts, (words, more)
        found.stopService()


def test_a_peer_url_that_is_every_machines_is_told_of(machine: Machine) -> None:
    for url, warned in (
        ("http://0.0.0.0:1", 1),
        ("http://[::]:1", 1),
        ("http://a:1", 0),
    ):
        found = security(machine, "--host", "127.0.0.1")
        found.peer_url = url  # of a membership that an earlier release wrote
        told = [w for w in found.warnings() if f"this member at {url}" in w]
        assert len(told) == warned, url
        found.stopService()


def test_warnings_go_by_the_address_that_is_listened_at(machine: Machine) -> None:
    """A name may be this machine's alone: Debian has its own name at 127.0.1.1."""
    named = ["--cluster", "http://box:1", "--port", "2"]
    found = security(machine, *named)
    assert len(list(found.warnings())) == 3
    found.client_address = found.peer_address = "127.0.1.1"
    assert list(found.warnings()) == []
    found.other_urls = lambda: ["http://box:3", "http://127.0.0.1:4"]
    assert list(found.warnings()) == []
    found.other_urls = lambda: ["http://box:3", "http://10.0.0.2:1"]
    [warning] = found.warnings()
    assert "(http://box:3, http://10.0.0.2:1) cannot reach this member at" in warning
    assert "it listens at 127.0.1.1" in warning
    found.stopService()


def test_a_loopback_among_others_addresses_is_told_of(machine: Machine) -> None:
    found = security(machine, "--cluster", "http://127.0.0.1:1")
    found.other_urls = lambda: ["http://10.0.0.2:1"]
    [warning] = found.warnings()
    assert "cannot reach this member at http://127.0.0.1:1" in warning
    found.stopService()
    found = security(machine, "--cluster", "http://10.0.0.1:1", "--host", "127.0.0.1")
    found.other_urls = lambda: ["http://10.0.0.2:1", "http://[::1]:1"]
    [warning] = [w for w in found.warnings() if "[::1]" in w]
    assert warning.startswith("http://[::1]:1 in the membership is an address of each")
    found.stopService()


def put(machine: Machine, authority: Authority, **dates: Any) -> TLSFiles:
    """Files for TLS, in memory."""
    pair = authority.issue("10.0.0.1", **dates)
    for name, path in (("c", pair.cert), ("k", pair.key), ("ca", authority.path)):
        machine.held.put(name, Path(path).read_bytes())
    return TLSFiles(prefix="", cert="c", key="k", ca="ca", client_cert_auth=True)


def test_closed_doors_are_not(machine: Machine, tmp_path: Path) -> None:
    tls = put(machine, Authority(tmp_path))
    peer = evolve(tls, prefix="peer-")
    outside = ["--host", "10.0.0.1"]
    found = security(machine, *outside, tls=tls, peer_tls=peer)
    assert list(found.warnings()) == []
    found.for_members("https://10.0.0.1:1", found)  # type: ignore[arg-type]
    assert list(found.warnings()) == []
    found.stopService()
    trusting = evolve(peer, client_cert_auth=False)
    found = security(machine, *outside, tls=tls, peer_tls=trusting)
    found.for_members("https://10.0.0.1:1", found)  # type: ignore[arg-type]
    [warning] = found.warnings()
    assert "see --peer-client-cert-auth" in warning
    found.stopService()


def test_a_certificate_for_another_peer_url_is_told_of(
    machine: Machine, tmp_path: Path
) -> None:
    """Of which the member itself would hear nothing: it is the others who refuse."""
    peer = evolve(put(machine, Authority(tmp_path)), prefix="peer-")
    found = security(machine, peer_tls=peer)
    assert list(found.warnings()) == []  # its URL is plain, and nobody is shown it
    found.for_members("https://127.0.0.1:1", found)  # type: ignore[arg-type]
    [warning] = found.warnings()
    assert "is valid for 10.0.0.1, and not for 127.0.0.1" in warning
    found.stopService()


@pytest.mark.logs_errors
def test_what_is_wrong_with_files_is_a_warning(
    machine: Machine, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    machine.held.put("access", b"")
    tls = put(machine, authority, ends=20 * DAY)
    found = security(machine, tls=tls, access_file="access")
    told: list[str] = []
    found.when_access_changes = told.append
    assert list(found.warnings()) == []
    machine.now += (6 * DAY).total_seconds() + 60
    [warning] = found.warnings()
    assert f"expires on {NOW + 20 * DAY:%Y-%m-%d}" in warning
    put(machine, authority)
    machine.held.put("k", b"x")
    machine.held.put("access", b"[users]\nann = 1")
    machine.reactor.advance(5)
    warnings = list(found.warnings())
    assert warnings[0].startswith("--key-file: k holds no private key")
    assert warnings[-1].startswith("--access-file: access: users.ann is not a table")
    assert told == []
    machine.held.put("access", b"")
    machine.hang_up()
    assert told == ["the access file has changed"]
    assert "users.ann" not in str(list(found.warnings()))
    assert EXPIRY_SECONDS == 14 * 86400
    found.stopService()


def test_packages_that_are_missing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tls = put(machine, Authority(tmp_path))
    monkeypatch.setitem(sys.modules, "kvdb.tls.files", None)
    with pytest.raises(Exception, match=r"pip install 'kvdb\[tls\]'"):
        load_tls(machine.files, tls)


def test_options(tmp_path: Path) -> None:
    told = settings("--cert-file", "c", "--key-file", "k")
    assert told.tls == TLSFiles(
        prefix="",
        cert=str(Path("c").absolute()),
        key=str(Path("k").absolute()),
        ca=None,
        client_cert_auth=False,
    )
    told = settings(
        *("--cluster", "https://a:1", "--peer-cert-file", "c"),
        *("--peer-key-file", "k", "--peer-trusted-ca-file", "ca"),
        *("--peer-client-cert-auth", "--access-file", "x", "--max-connections", "7"),
    )
    assert told.peer_tls is not None
    assert told.peer_tls.paths == [
        str(Path(name).absolute()) for name in ("c", "k", "ca")
    ]
    assert told.peer_tls.client_cert_auth
    assert told.access_file == str(Path("x").absolute())
    assert told.max_connections == 7
    for words, reason in (
        (["--cert-file", "c"], "--cert-file and --key-file: one is of no use alone"),
        (["--peer-key-file", "k"], "--peer-cert-file and --peer-key-file"),
        (["--trusted-ca-file", "c"], "--trusted-ca-file: is of no use without"),
        (["--client-cert-auth"], "--client-cert-auth: is of no use without"),
        (["--peer-client-cert-auth"], "is of no use without --peer-cert-file"),
        (["--cluster", "https://a:1"], "--peer-cert-file: is needed, for https://a:1"),
        (
            ["--peer-cert-file", "c", "--peer-key-file", "k"],
            "--peer-trusted-ca-file: is needed",
        ),
        (
            ["--cert-file", "c", "--key-file", "k", "--client-cert-auth"],
            "--client-cert-auth: is of no use without --trusted-ca-file",
        ),
        (
            ["--cert-file", "c", "--key-file", "k", "--trusted-ca-file", "ca"],
            "--trusted-ca-file: is of no use without --client-cert-auth",
        ),
        (["--max-connections", "0"], "--max-connections: '0'"),
    ):
        with pytest.raises(UsageError) as caught:
            settings(*words)
        assert reason in str(caught.value)


def test_flags_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("PEER_CLIENT_CERT_AUTH", "true"),
        ("PEER_CERT_FILE", "c"),
        ("PEER_KEY_FILE", "k"),
        ("PEER_TRUSTED_CA_FILE", "ca"),
    ):
        monkeypatch.setenv("KVDB_" + name, value)
    told = settings()
    assert told.peer_tls is not None
    assert told.peer_tls.client_cert_auth
    assert not told.join


def test_what_is_of_no_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    ports = free_ports(2)
    told = settings(
        *("--cluster", f"http://127.0.0.1:{ports[0]}", "--port", str(ports[1])),
        *("--data-dir", str(tmp_path / "data")),
    )
    access = tmp_path / "access"
    access.write_text("[users.ann]")
    tls = TLSFiles(prefix="", cert="/c", key="/k", ca=None, client_cert_auth=False)
    for more, reason in (
        ({"access_file": str(access)}, "users.ann has no secret"),
        ({"tls": tls}, "--cert-file: /c cannot be read"),
        ({"peer_tls": evolve(tls, prefix="peer-")}, "--peer-cert-file: /c cannot"),
    ):
        with pytest.raises(Refused, match=reason):
            check(evolve(told, **more))
    assert not (tmp_path / "data").exists()


def test_as_many_open_files_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    set_: list[Any] = []
    for limits, expected in (
        ((1024, 1 << 20), (1 << 20) - 1024),
        ((100, 1000), 64),
        ((1024, resource.RLIM_INFINITY), 1_000_000),
    ):
        monkeypatch.setattr(
            "kvdb.preflight.resource.getrlimit", lambda _, found=limits: found
        )
        monkeypatch.setattr(
            "kvdb.preflight.resource.setrlimit", lambda _, limit: set_.append(limit)
        )
        assert allow_open_files() == expected
        assert set_.pop() == (limits[1], limits[1])

    def refuse(_: int, limit: Any) -> None:
        raise OSError("may not")

    monkeypatch.setattr("kvdb.preflight.resource.getrlimit", lambda _: (3000, 9000))
    monkeypatch.setattr("kvdb.preflight.resource.setrlimit", refuse)
    assert allow_open_files() == 3000 - 1024


@timed(20)
async def test_a_hangup_and_work_beside_the_reactor() -> None:
    reactor: Any = default_reactor
    before = signal.getsignal(signal.SIGHUP)
    host = RealHost(reactor)
    told: Deferred[None] = Deferred()
    host.on_hangup(lambda: told.callback(None))
    signal.raise_signal(signal.SIGHUP)
    await told
    assert await host.in_thread(lambda: 6 * 7) == 42
    with pytest.raises(ZeroDivisionError):
        await host.in_thread(lambda: 1 / 0)
    host.close()
    assert signal.getsignal(signal.SIGHUP) is before


@with_nodes(1)
async def test_a_new_access_file_ends_watches(nodes: Nodes) -> None:
    """Who may watch may have changed."""
    await nodes.stop(1)
    access = nodes.directory / "access"
    access.write_text("[roles.a]\nread=['/']\n[anonymous]\nroles=['a']\n")
    nodes.start(1, "--access-file", str(access))
    await nodes.ready(1)
    assert (await nodes.ask("GET", 1, "/k"))[0] == 404
    status, body, _ = await nodes.ask("PUT", 1, "/k", b"v")
    assert status == 401
    assert b'\\"write\\" on /k' in body
    node: Any = nodes.running[1].node_service.node
    ended: list[Any] = []

    class Listener:
        def changed(self, change: Any) -> None: ...

        def progress(self, revision: int) -> None: ...

        def ended(self, error: Exception) -> None:
            ended.append(str(error))

    from kvdb.interfaces import Selection

    node.watch(Selection(None, b"/"), None, Listener())
    access.write_text("")
    signal.raise_signal(signal.SIGHUP)
    await nodes.until(lambda: ended)
    assert ended == ["the access file has changed"]
    assert (await nodes.ask("GET", 1, "/k"))[0] == 401


@with_nodes(1)
async def test_a_node_that_anybody_reaches_says_so(nodes: Nodes) -> None:
    """In its status, and in its log at the start; and goes on."""
    status = json.loads((await nodes.ask("GET", 1, "/_/status"))[1])
    assert status["warnings"] == []
    await nodes.stop(1)
    said: list[str] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event["log_level"] is LogLevel.warn:
            said.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    try:
        nodes.start(1, "--host", "0.0.0.0")
    finally:
        globalLogPublisher.removeObserver(observe)
    await nodes.ready(1)
    status = json.loads((await nodes.ask("GET", 1, "/_/status"))[1])
    assert len(status["warnings"]) == 2
    assert "may read and change everything" in status["warnings"][0]
    assert said == [f"WARNING: {warning}" for warning in status["warnings"]]


@with_nodes(1)
async def test_fewer_connections_than_were_asked_for(nodes: Nodes) -> None:
    """The limit of open files leaves no room for them: status says so."""
    await nodes.stop(1)
    told = nodes.options(1, "--max-connections", "100").settings()
    for room, warned in ((100, False), (99, True)):
        kvdb = Kvdb(evolve(told, room_for_connections=room), RealHost(nodes.loops[1]))
        nodes.running[1] = kvdb
        kvdb.startService()
        status = kvdb.status()
        assert [w.partition(" (")[0] for w in status.warnings] == [
            "99 connections of clients are allowed at a time, and not 100"
        ] * warned
        assert kvdb.http.site is not None
        assert kvdb.http.site._max_connections == room
        await nodes.stop(1)
