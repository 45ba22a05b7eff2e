"""What a node writes to its log, in which form, and what it never writes there."""

from __future__ import annotations

import io
import json
import math
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.application.service import Application
from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, formatEvent
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from kvdb import logs
from kvdb.options import Options
from tests.end_to_end.cluster import (
    PATIENCE,
    TWISTD,
    Process,
    ask,
    free_ports,
    local_cluster,
    until,
)

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def written(form: str, level: str, *levels: str, **fields: Any) -> list[str]:
    """The lines of events of so many levels, with these fields."""
    file = io.StringIO()
    publisher = LogPublisher(logs.observer_to(file, form, level))
    log = Logger(namespace="test", observer=publisher)
    for name in levels or ("info",):
        log.emit(LogLevel.levelWithName(name), "{what} happens", **fields)
    return file.getvalue().splitlines()


def event(text: str, level: Any) -> dict[str, Any]:
    """As an observer is given it."""
    return {"log_format": text, "log_level": level, "log_namespace": "test"}


class LinesTests(SynchronousTestCase):
    """Events as lines."""

    def test_a_line_is_written_whatever_the_clock_says(self) -> None:
        times = (-2e9, -1e11, 3e11, 1e18, math.nan, math.inf, "soon")
        for form in logs.FORMATS:
            for moment in times:
                self.assertIn("much happens", self.at(form, moment))
        self.assertTrue(self.at("text", -2e9).startswith("1906-"))
        self.assertTrue(self.at("text", 3e11).startswith("- [test#info]"))

    def at(self, form: str, moment: object) -> str:
        """The line of an event of that time."""
        file = io.StringIO()
        observer = logs.observer_to(file, form, "info")
        observer(event("much happens", LogLevel.info) | {"log_time": moment})
        [line] = file.getvalue().splitlines()
        return line

    def test_an_event_with_its_plain_fields(self) -> None:
        [line] = written("json", "info", what="much", count=3, ok=True, none=None)
        event = json.loads(line)
        self.assertTrue(RFC_3339.fullmatch(event.pop("time")))
        self.assertEqual(
            event,
            {
                "level": "info",
                "namespace": "test",
                "message": "much happens",
                "what": "much",
                "count": 3,
                "ok": True,
                "none": None,
            },
        )

    def test_what_is_not_plain_is_left_out(self) -> None:
        [line] = written("json", "info", what="x", a=b"b", b=object(), c=float("nan"))
        self.assertEqual(
            set(json.loads(line)), {"time", "level", "namespace", "message", "what"}
        )

    def test_a_field_takes_the_place_of_none(self) -> None:
        [line] = written("json", "info", what="x", time="t", message="m")
        event = json.loads(line)
        self.assertEqual((event["message"], event["level"]), ("x happens", "info"))
        self.assertTrue(RFC_3339.fullmatch(event["time"]))

    def test_a_failure_is_one_line_too(self) -> None:
        try:
            raise ValueError("for a reason")
        except ValueError:
            event = {"log_failure": Failure(), "log_time": 0.0, "log_format": "it fell"}
        line = logs.json_line(event)
        self.assertEqual(line.count("\n"), 1)
        found = json.loads(line)
        self.assertEqual(found["error"], "ValueError")
        self.assertEqual(found["time"], "1970-01-01T00:00:00.000Z")
        self.assertIn("for a reason", found["traceback"])
        found = json.loads(logs.json_line({"log_failure": "no failure at all"}))
        self.assertIn("cannot be shown", found["error"])

    def test_nothing_in_an_event_makes_it_fail(self) -> None:
        class Hostile(str):
            __slots__ = ()

            def __ne__(self, other: object) -> bool:
                raise RuntimeError("is not to be compared")

            __hash__ = str.__hash__

        for name, value in (
            ("field", Hostile("x")),
            ("field", 10**5000),
            ("log_namespace", b"x"),
            ("log_namespace", object()),
            ("log_level", "info"),
            ("log_format", b"\xff"),
            ("log_format", "{field"),
            ("log_time", "now"),
        ):
            found = json.loads(logs.json_line({"log_format": "x", name: value}))
            self.assertEqual(found["level"], "info")
            self.assertLessEqual(
                {"time", "level", "namespace", "message"}, set(found), name
            )

    @given(
        st.dictionaries(
            st.one_of(
                st.text(),
                st.sampled_from(["log_time", "log_format", "log_namespace", "time"]),
            ),
            st.one_of(
                st.text(st.characters()), st.integers(), st.floats(), st.binary()
            ),
        )
    )
    def test_any_event_is_one_line(self, event: dict[str, Any]) -> None:
        line = logs.json_line(event)
        self.assertEqual(line.count("\n"), 1)
        self.assertTrue(line.isascii())
        self.assertEqual(json.loads(line)["message"], formatEvent(event))

    def test_levels(self) -> None:
        for form in logs.FORMATS:
            for position, level in enumerate(logs.LEVELS):
                lines = written(form, level, *logs.LEVELS, what="x")
                self.assertEqual(len(lines), len(logs.LEVELS) - position)

    def test_text_is_as_twisted_has_it(self) -> None:
        [line] = written("text", "info", what="much")
        self.assertTrue(line.endswith(" [test#info] much happens"), line)


class SetUpTests(SynchronousTestCase):
    """Where events go, by the runner's options."""

    def test_without_a_runner_nothing_is_touched(self) -> None:
        self.assertIsNone(logs.set_up(None, "json", "debug", None))

    def test_twist_is_told(self) -> None:
        own = object()
        runner: Any = {"fileLogObserverFactory": own, "logLevel": own}
        self.assertIsNone(logs.set_up(runner, None, None, None))
        self.assertEqual(runner, {"fileLogObserverFactory": own, "logLevel": own})
        self.assertIsNone(logs.set_up(runner, "json", "warn", None))
        self.assertIs(runner["fileLogObserverFactory"], logs.json_log_observer)
        self.assertIs(runner["logLevel"], LogLevel.warn)

    def test_an_observer_of_the_callers_own_comes_first(self) -> None:
        for name in ("logger", "syslog"):
            runner: Any = {name: "x"}
            self.assertIsNone(logs.set_up(runner, None, None, None))
            error = self.assertRaises(
                SystemExit, logs.set_up, runner, "json", None, None
            )
            self.assertIn(f"twistd's --{name}", str(error))

    def test_twistd_in_the_foreground(self) -> None:
        file = io.StringIO()
        self.patch(sys, "stdout", file)
        for name in (None, "", "-"):
            runner: Any = {"nodaemon": 1, "logfile": name}
            observer = logs.set_up(runner, "json", None, None)
            assert observer is not None
            observer(event("x", LogLevel.info))
            observer(event("x", LogLevel.debug))
        self.assertEqual(file.getvalue().count('"message": "x"'), 3)

    def test_a_daemon_and_its_file(self) -> None:
        before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        directory = Path(self.mktemp())
        directory.mkdir()
        asked: list[Any] = []

        class Reactor:
            def callFromThread(self, work: Any) -> None:
                asked.append(work)

        path = directory / "own.log"
        runner: Any = {"nodaemon": 0, "logfile": str(path)}
        observer = logs.set_up(runner, None, None, Reactor())
        assert observer is not None
        observer(event("x", LogLevel.info))
        self.assertIn("[test#info] x", path.read_text())
        signal.raise_signal(signal.SIGUSR1)
        [rotate] = asked
        self.assertIsInstance(rotate.__self__, LogFile)
        rotate.__self__.close()
        for name, text in (("-", "standard output"), (f"{path}/x", "cannot be")):
            runner = {"nodaemon": 0, "logfile": name}
            error = self.assertRaises(
                SystemExit, logs.set_up, runner, None, None, Reactor()
            )
            self.assertIn(text, str(error))

    def test_an_application_is_given_it(self) -> None:
        application: Any = Application("kvdb")
        observer = logs.observer_to(io.StringIO(), "text", "info")
        logs.put_on_application(application, None)
        self.assertIsNone(application.getComponent(ILogObserver, None))
        logs.put_on_application(object(), observer)
        logs.put_on_application(application, observer)
        self.assertIs(application.getComponent(ILogObserver), observer)

    def test_what_is_wrong_is_named(self) -> None:
        for words, text in (
            (["--log-format", "xml"], "--log-format: 'xml' is none of text, json"),
            (["--log-level", "loud"], "--log-level: 'loud' is none of debug, info"),
        ):
            error = self.assertRaises(UsageError, Options().parseOptions, words)
            self.assertIn(text, str(error))


# Real ones.


def events(text: str) -> list[dict[str, Any]]:
    """A log, each line of which must be an event."""
    return [json.loads(line) for line in text.splitlines()]


def test_in_the_foreground_each_line_is_json(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 1, "--log-format=json") as cluster:
        [node] = cluster.nodes.values()
        assert node.stop() == -signal.SIGTERM
        found = events(node.log)
    assert all(RFC_3339.fullmatch(event["time"]) for event in found)
    assert {event["level"] for event in found} <= {"info", "warn"}
    [serves] = [event for event in found if "serves clients" in event["message"]]
    assert serves["namespace"] == "kvdb.service"
    assert serves["port"] == node.port
    assert any("Server Shut Down" in event["message"] for event in found)


def test_what_ends_a_node_is_in_its_log(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 1, "--log-format=json") as cluster:
        [node] = cluster.nodes.values()
        node.stop()
        node.options += ["--id=2", f"--cluster=2={node.peer_url}"]
        node.options += [f"--data-dir={tmp_path / 'data/kvdb-1'}"]
        node.start()
        assert node.wait() == 1
        last = events(node.log)[-1]
        assert last["level"] == "critical"
        assert "holds the data of member 1" in last["message"]


def single(directory: Path) -> Process:
    """A node that is not started."""
    peer, port = free_ports(2)
    url = f"http://127.0.0.1:{peer}"
    options = ["--cluster", url, "--port", str(port)]
    return Process(1, port, url, directory, options)


def serves(node: Process) -> bool:
    """Whether it is ready, however it was started."""
    try:
        return ask("GET", node.url + "/_/ready", timeout=2).status == 200
    except OSError:
        return False


def test_a_daemon_logs_to_its_file_and_begins_another(tmp_path: Path) -> None:
    node = single(tmp_path)
    log, pid = tmp_path / "node.log", tmp_path / "node.pid"
    command = [TWISTD, f"--pidfile={pid}", f"--logfile={log}", "kvdb"]
    command += ["--log-format=json", *node.options]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=PATIENCE)
    number = int(pid.read_text())
    try:
        until(lambda: serves(node), "it serves")
        found = events(log.read_text())
        assert any("serves clients" in event["message"] for event in found)
        rotate = Path(f"/proc/{number}")
        subprocess.run(["kill", "-USR1", str(number)], check=True)
        until((tmp_path / "node.log.1").exists, "another file is begun")
        assert rotate.exists()
    finally:
        subprocess.run(["kill", str(number)], check=True)
        until(lambda: not pid.exists(), "it ends")
    assert "Server Shut Down" in log.read_text()


@pytest.mark.parametrize("form", [None, "json"])
def test_twist_logs_as_it_is_told_to(tmp_path: Path, form: str | None) -> None:
    node = single(tmp_path)
    command = [str(Path(TWISTD).with_name("twist")), "--log-format=text", "kvdb"]
    command += [*node.options, *([f"--log-format={form}"] if form else [])]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        until(lambda: serves(node), "it serves")
    finally:
        process.terminate()
        process.wait(PATIENCE)
    text = (tmp_path / "log").read_text()
    if form is None:
        assert "[kvdb.service#info] member 1 serves clients" in text
    else:
        assert any("serves clients" in event["message"] for event in events(text))


# What is never written.

MARK = "Zq7mark"
"""Stands in every key, value, token and piece of nonsense that is sent."""

REQUESTS: list[tuple[str, str, dict[str, str]]] = [
    ("PUT", f"/{MARK}", {}),
    ("GET", f"/{MARK}", {}),
    ("GET", f"/_/kv/{MARK}", {}),
    ("PUT", f"/%01{MARK}%ff", {}),
    ("GET", f"/{MARK}?consistency=stale", {}),
    ("GET", f"/{MARK}?revision=99", {}),
    ("GET", f"/{MARK}?{MARK}={MARK}", {}),
    ("PUT", f"/{MARK}%", {}),
    ("PUT", f"/{MARK}", {"If-Match": f'"{MARK}"'}),
    ("PUT", f"/{MARK}", {"If-None-Match": "*"}),
    ("PUT", f"/{MARK}", {"Idempotency-Key": MARK}),
    ("DELETE", f"/{MARK}", {"Idempotency-Key": MARK}),
    ("PUT", f"/{MARK}", {"Origin": f"http://{MARK}"}),
    ("PUT", f"/{MARK}", {"Expect": MARK}),
    ("PUT", f"/{MARK}", {"Authorization": f"Bearer {MARK}"}),
    ("PUT", f"/{MARK}{'k' * 4096}", {}),
    ("PATCH", f"/{MARK}", {}),
    (f"{MARK}", f"/{MARK}", {}),
    ("POST", f"/{MARK}", {}),
    ("POST", "/7", {}),
    ("POST", "/_/members", {}),
    ("POST", "/_/leader", {}),
    ("DELETE", f"/_/members/{MARK}", {}),
    ("GET", f"/_/{MARK}", {}),
    ("GET", f"/v3/{MARK}", {}),
    ("PUT", f"/_/{MARK}", {}),
    ("GET", f"/_/kv?prefix=/{MARK}", {}),
    ("GET", f"/_/kv?start=/{MARK}&limit={MARK}", {}),
    ("GET", f"/_/watch?since={MARK}", {}),
    ("GET", "/metrics", {}),
    ("GET", "/_/status", {}),
    ("DELETE", f"/{MARK}", {}),
]

RAW = [
    f"PUT /{MARK} HTTP/1.1\r\nHost: [::1]\r\nContent-Length: {MARK}\r\n\r\n",
    f"PUT /{MARK} HTTP/1.1\r\nHost: {MARK}\0\r\nContent-Length: 1\r\n\r\n{MARK}",
    f"PUT /{MARK} HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: {MARK}\r\n\r\n{MARK}",
    f"PUT /{MARK} HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n"
    f"{MARK}\r\n",
    f"GET {MARK} HTTP/1.1\r\nHost: [::1]\r\n\r\n",
    f"{MARK} {MARK} {MARK} {MARK}\r\n\r\n",
    f"GET /{MARK} {MARK}/9.9\r\n\r\n",
    f"GET /{MARK} HTTP/1.1\r\n{MARK}\r\n\r\n",
    f"\x16\x03\x01{MARK}" * 50,
    MARK * 10_000,
]


def send_raw(port: int, data: str) -> None:
    """Send bytes, and hang up once the other side has or says nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.1) as connection:
        try:
            connection.sendall(data.encode("latin-1"))
            while connection.recv(65536):
                pass
        except OSError:
            pass


def test_no_key_and_no_value_is_ever_in_the_log(tmp_path: Path) -> None:
    extra = ("--log-format=json", "--log-level=debug", "--request-timeout=1")
    with local_cluster(tmp_path, 3, *extra) as cluster:
        leader = cluster.leader()
        follower = next(n for n in cluster.nodes.values() if n is not leader)
        statuses = set()
        for node in (leader, follower):
            for method, path, headers in REQUESTS:
                has_body = method not in ("GET", "DELETE")
                body = f"{MARK} value".encode() if has_body else None
                statuses.add(ask(method, node.url + path, body, headers).status)
            large = ask("PUT", f"{node.url}/{MARK}", MARK.encode() * 200_000)
            statuses.add(large.status)
        for data in RAW:
            send_raw(leader.port, data)
            send_raw(int(leader.peer_url.rpartition(":")[2]), data)
        # A member that knows no leader refuses, and one that stops hands over.
        leader.stop()
        until(lambda: follower.put(MARK, b"v").status == 204, "somebody leads")
        for node in cluster.nodes.values():
            if node not in (leader, follower):
                node.stop()
        statuses.add(follower.put(MARK, MARK.encode()).status)
        follower.stop()
        expected = {200, 204, 400, 403, 404, 405, 409, 412, 413, 414, 417}
        assert expected <= statuses
        assert statuses & {503, 504}
        found = [e for node in cluster.nodes.values() for e in events(node.log)]
        assert any(e["level"] == "debug" for e in found)
        assert [e for e in found if MARK in json.dumps(e)] == []
        assert not [n for n in cluster.nodes.values() if MARK in n.log]
