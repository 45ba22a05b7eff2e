"""What can be typed, and what it means."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from kvdb.options import Options, ignored_variables, parse_cluster
from kvdb.settings import Settings

THREE = "http://127.0.0.1:1,http://127.0.0.1:2,http://127.0.0.1:3"


def settings(*words: str) -> Settings:
    """As typed."""
    options = Options()
    options.parseOptions(list(words))
    return options.settings()


class OptionsTests(SynchronousTestCase):
    """Options, environment, defaults."""

    def test_without_any_it_is_one_node(self) -> None:
        told = settings()
        self.assertEqual(told.cluster, {1: "http://127.0.0.1:12379"})
        self.assertEqual((told.host, told.port, told.join), ("127.0.0.1", 12380, False))
        self.assertEqual(told.data_dir, str(Path("data/kvdb-1").absolute()))
        self.assertEqual(told.node.snapshot_count, 10_000)
        self.assertEqual(told.node.election_timeout, 1.0)

    def test_as_in_the_procfile(self) -> None:
        told = settings("--id", "2", "--cluster", THREE, "--port", "22380", "--join")
        self.assertEqual(told.peer_url, "http://127.0.0.1:2")
        self.assertEqual((told.node_id, told.port, told.join), (2, 22380, True))

    def test_ticks_are_milliseconds(self) -> None:
        told = settings("--tick", "50", "--election-ticks", "6")
        self.assertEqual(told.node.tick, 0.05)
        self.assertAlmostEqual(told.node.election_timeout, 0.3)

    def test_members_by_id(self) -> None:
        self.assertEqual(
            parse_cluster("5=http://a:1, 7=tcp://[::1]:2/"),
            {5: "http://a:1", 7: "tcp://[::1]:2"},
        )

    def test_the_environment_stands_behind_the_command_line(self) -> None:
        environment = {"KVDB_CLUSTER": THREE, "KVDB_ID": "3", "KVDB_JOIN": "1"}
        for name, value in environment.items():
            self.addCleanup(self._set, name, self._set(name, value))
        told = settings()
        self.assertEqual((told.node_id, told.join), (3, True))
        self.assertEqual(settings("--id", "2").node_id, 2)

    def test_what_is_wrong_in_the_environment_is_named(self) -> None:
        for name, value, text in (
            ("KVDB_PORT", "x", "KVDB_PORT: 'x' is not a number"),
            ("KVDB_PORT", "", "KVDB_PORT: '' is not a number"),
            ("KVDB_CLUSTER", "a", 'KVDB_CLUSTER: "a" is not http://host:port'),
            ("KVDB_ACCESS_FILE", "", "KVDB_ACCESS_FILE: is empty"),
            ("KVDB_JOIN", "maybe", "KVDB_JOIN: 'maybe' is not true or false"),
        ):
            before = self._set(name, value)
            error = self.assertRaises(UsageError, settings)
            self._set(name, before)
            self.assertTrue(str(error).startswith(text), str(error))

    def test_what_a_platform_sets_for_a_service_is_ignored(self) -> None:
        # All that Kubernetes sets where Services kvdb and kvdb-peers stand.
        environment = {
            "KVDB_SERVICE_HOST": "10.0.0.1",
            "KVDB_SERVICE_PORT": "12380",
            "KVDB_SERVICE_PORT_CLIENTS": "12380",
            "KVDB_PORT": "tcp://10.0.0.1:12380",
            "KVDB_PORT_12380_TCP": "tcp://10.0.0.1:12380",
            "KVDB_PORT_12380_TCP_PROTO": "tcp",
            "KVDB_PORT_12380_TCP_PORT": "12380",
            "KVDB_PORT_12380_TCP_ADDR": "10.0.0.1",
            "KVDB_PEERS_SERVICE_HOST": "10.0.0.2",
            "KVDB_PEERS_PORT": "tcp://10.0.0.2:12379",
        }
        for name, value in environment.items():
            self.addCleanup(self._set, name, self._set(name, value))
        self.assertEqual(settings().port, 12380)
        self.assertEqual(settings("--port", "7").port, 7)
        for value in ("udp://[fd00::1]:53", "TCP://10.0.0.1:1", "tcp://"):
            self._set("KVDB_PORT", value)
            self.assertEqual(settings().port, 12380)
            [line] = ignored_variables()
            self.assertTrue(line.startswith(f"KVDB_PORT={value} is ignored"), line)
        self._set("KVDB_PORT", "7")
        self.assertEqual((settings().port, ignored_variables()), (7, []))
        for value in ("://", "tcp:/a", "7://", "10.0.0.1:12380"):
            self._set("KVDB_PORT", value)
            self.assertRaises(UsageError, settings, "--port", "7")
            self.assertEqual(ignored_variables(), [])

    def test_the_environment_turns_flags_on_and_off(self) -> None:
        self.addCleanup(self._set, "KVDB_JOIN", self._set("KVDB_JOIN", None))
        for words, join in (
            (("1", "true", "Yes", "on"), True),
            (("", "0", "FALSE", "no", "off"), False),
        ):
            for word in words:
                self._set("KVDB_JOIN", word)
                self.assertIs(settings().join, join, word)

    @staticmethod
    def _set(name: str, value: str | None) -> str | None:
        before = os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
        return before

    def test_what_is_wrong_is_named(self) -> None:
        for words, text in (
            (["--id", "0"], "--id: '0'"),
            (["--id", "9223372036854775808"], "--id: "),
            (["--id", "2"], "--id: 2 is not in --cluster, which has 1"),
            (["--cluster", ""], "empty item"),
            (["--cluster", "http://a:1,,http://b:1"], "empty item"),
            (["--cluster", "http://a"], '"http://a" is not http://host:port'),
            (["--cluster", "ftp://a:1"], "is not http://host:port"),
            (["--cluster", "http://a:1/path"], "is not http://host:port"),
            (["--cluster", "http://a:b"], "a port is a number from 1 to 65535"),
            (["--cluster", "http://0.0.0.0:1"], "nobody can dial 0.0.0.0"),
            (["--cluster", "http://[::]:1"], "nobody can dial ::"),
            (["--cluster", "http://a..b:1"], "a..b is no host name"),
            (["--cluster", "http://u@a:1"], "is not http://host:port"),
            (["--cluster", "1=http://a:1,1=http://b:1"], "member 1 stands there twice"),
            (["--cluster", "x=http://a:1"], "'x' is not a number"),
            (["--cluster", "http://a:1,tcp://a:1"], "members 1 and 2 have one URL"),
            (["--port", "65536"], "--port: '65536'"),
            (["--tick", "1.5"], "--tick: '1.5'"),
            (["--heartbeat-ticks", "10"], "--heartbeat-ticks"),
            (["--request-timeout", "soon"], "--request-timeout: 'soon'"),
            (["--request-timeout", "0"], "--request-timeout: '0'"),
            (["--max-value-bytes", "999999999"], "--max-value-bytes"),
            (["--data-dir", ""], "--data-dir: is empty"),
            (["--host="], "--host: is empty"),
            (["--access-file="], "--access-file: is empty"),
            (["--unknown"], "--unknown"),
            (["--join", "true"], "'true' belongs to no option"),
        ):
            error = self.assertRaises(UsageError, settings, *words)
            self.assertIn(text, str(error))

    def test_the_version_is_kvdbs_own(self) -> None:
        self.assertRaises(SystemExit, settings, "--version")
