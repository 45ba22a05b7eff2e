"""
What a service manager is told: a datagram when the node serves, one when it stops.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvdb.host import RealHost
from kvdb.notify import (
    ALIVE,
    READY,
    STOPPING,
    Telling,
    is_managed,
    notify,
    status_line,
    summary,
    watchdog_seconds,
)
from tests.end_to_end.cluster import (
    PATIENCE,
    Process,
    ask,
    free_ports,
    local_cluster,
    until,
)
from tests.rest.local import LocalDatabase


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


def lines(told: socket.socket) -> set[str]:
    """What is told next, but for signs of life."""
    while True:
        found = set(told.recv(65536).decode().split("\n")) - {ALIVE}
        if found:
            return found


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
            # How it fares is told by the last of the services, and then that it serves.
            assert lines(told) == {"STATUS=member 1 knows no leader"}
            assert lines(told) == {READY}
            assert ask("GET", node.url + "/_/live").status == 200
            node.wait_ready()
            assert lines(told) == {"STATUS=member 1 leads, term 2"}
            assert node.stop() == -15
            assert lines(told) == {STOPPING}
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
        heard = lines(told)
        assert READY not in heard
        assert any("holds the data of member 1" in line for line in heard)
        assert lines(told) == {STOPPING}


def test_a_member_that_was_removed_has_been_ready_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be taken for one that has failed, and started for ever."""
    with local_cluster(tmp_path, 3) as cluster:
        node = cluster.nodes[3]
        removed = ask("DELETE", cluster.leader().url + "/_/members/3")
        assert removed.status == 204
        assert node.wait() == 0
        with a_path() as path, listening(path) as told:
            monkeypatch.setenv("NOTIFY_SOCKET", path)
            node.start()
            heard = lines(told)
            assert {READY, STOPPING} < heard
            assert any("member 3 was removed" in line for line in heard)
            assert node.wait() == 0


def test_a_real_node_gives_signs_of_life_for_as_long_as_it_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, peer = free_ports(2)
    url = f"http://127.0.0.1:{peer}"
    node = Process(1, port, url, tmp_path, ["--cluster", url, "--port", str(port)])
    with a_path() as path, listening(path) as told:
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        node.start()
        try:
            until(lambda: told.recv(65536) == ALIVE.encode(), "a sign of life")
            node.signal(signal.SIGSTOP)
            told.settimeout(1)
            with pytest.raises(TimeoutError):
                while True:
                    told.recv(65536)
            node.signal(signal.SIGCONT)
            told.settimeout(PATIENCE)
            assert ALIVE in told.recv(65536).decode().split("\n")
        finally:
            node.signal(signal.SIGCONT)
            assert node.stop() == -15


# On a clock.


class TellingTests(SynchronousTestCase):
    """When what is told."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.status = LocalDatabase().status()
        self.told: list[str] = []

    def start(self, watchdog: float) -> Telling:
        telling = Telling(self.clock, self.told.append, lambda: self.status, watchdog)
        telling.startService()
        return telling

    def test_how_it_fares_when_that_changes(self) -> None:
        telling = self.start(0)
        self.clock.pump([1] * 5)
        self.status = evolve(self.status, leader=None)
        self.clock.pump([1] * 5)
        telling.stopService()
        self.status = evolve(self.status, leader=1)
        self.clock.pump([1] * 5)
        self.assertEqual(
            self.told,
            ["STATUS=member 1 leads, term 2", "STATUS=member 1 knows no leader"],
        )

    def test_signs_of_life_come_twice_as_often_as_is_asked_for(self) -> None:
        for seconds, count in ((0.5, 4), (60, 1)):
            telling = self.start(seconds)
            self.told.clear()
            self.clock.pump([0.25] * 4)
            self.assertEqual(self.told, [ALIVE] * count)
            telling.stopService()

    def test_none_from_a_node_that_cannot_be_looked_at(self) -> None:
        telling = self.start(1)
        self.told.clear()
        self.status = None  # type: ignore[assignment]
        self.clock.pump([1] * 3)
        self.assertEqual(self.told, [])
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        telling.stopService()

    def test_a_node_in_a_line(self) -> None:
        follower = evolve(self.status, role="learner", leader=2, alarms=["a", "b"])
        self.assertEqual(
            summary(follower), "member 1 (learner) follows member 2, term 2; a; b"
        )
        self.assertEqual(status_line("two\nlines"), "STATUS=two lines")

    def test_why_a_node_ends_by_itself(self) -> None:
        class Reactor:
            def callWhenRunning(self, work: Any) -> None:
                """It never does."""

        host = RealHost(Reactor())
        self.patch(host, "notify", self.told.append)
        host.stop("it was removed", 0)
        self.assertEqual(self.told, ["READY=1\nSTOPPING=1\nSTATUS=it was removed"])

    def test_who_wants_to_be_told(self) -> None:
        for address, managed in (("", False), ("/a", True), ("@a", True), ("a", False)):
            self.assertEqual(is_managed({"NOTIFY_SOCKET": address}), managed)
        self.assertFalse(is_managed({}))

    def test_how_often_signs_of_life_are_wanted(self) -> None:
        own, every = {"WATCHDOG_PID": str(os.getpid())}, {"WATCHDOG_USEC": "2500000"}
        for environment, seconds in (
            ({}, 0),
            (own, 0),
            (every, 2.5),
            ({**every, **own}, 2.5),
            ({**every, "WATCHDOG_PID": "1"}, 0),
            ({"WATCHDOG_USEC": "soon"}, 0),
            ({"WATCHDOG_USEC": "-1"}, 0),
        ):
            self.assertEqual(watchdog_seconds(environment), seconds, environment)
