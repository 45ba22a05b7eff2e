"""The configuration file: what it may say, and what comes before it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from kvdb.config import MAX_CONFIG_BYTES, BadConfig, read_config
from kvdb.options import Options
from tests.end_to_end.cluster import ask, free_ports, local_cluster
from tests.end_to_end.test_command_line import run

URLS = ("http://a:1", "http://b:2", "http://c:3")


class Case(SynchronousTestCase):
    """Has a file, and an environment of its own."""

    def setUp(self) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("KVDB_")}
        self.patch(os, "environ", clean)
        directory = Path(self.mktemp())
        directory.mkdir()
        self.path = directory / "kvdb.toml"

    def options(self, content: str | bytes, *words: str) -> Options:
        """As told by the file, then typed."""
        data = content if isinstance(content, bytes) else content.encode()
        self.path.write_bytes(data)
        options = Options()
        options.parseOptions(["--config", str(self.path), *words])
        return options


class ConfigTests(Case):
    """Files that are well."""

    def test_an_empty_file_changes_nothing(self) -> None:
        plain = Options()
        plain.parseOptions([])
        told = self.options("# nothing\n")
        self.assertEqual(told.settings(), plain.settings())

    def test_every_option_can_stand_there(self) -> None:
        """With - and with _, as a text and, where it is one, as a number."""
        values = {
            "id": 2,
            "cluster": ",".join(URLS),
            "host": "h",
            "data-dir": "/d",
            "request-timeout": 1.5,
            "log-format": "json",
            "log-level": "warn",
            "election-ticks": 7,
        }
        for row in Options.optParameters:
            name = str(row[0])
            if name == "config":
                continue
            value = values.get(name, row[2])
            if value is None:
                continue  # files that must be there: theirs to test
            if str(value).isdigit():
                value = int(str(value))
            for key in {name, name.replace("-", "_")}:
                content = "" if name == "cluster" else f"cluster = '{','.join(URLS)}'\n"
                told = self.options(f"{content}{key} = {value!r}\n")
                self.assertEqual(told[name], row[4](str(value)), name)

    def test_flags_are_true_or_false(self) -> None:
        self.assertTrue(self.options("join = true").settings().join)
        self.assertFalse(self.options("join = false").settings().join)

    def test_a_cluster_in_three_forms(self) -> None:
        by_position = dict(enumerate(URLS, 1))
        array = ", ".join(f'"{url}"' for url in URLS)
        table = "\n".join(f'{4 + n} = "{url}"' for n, url in enumerate(URLS))
        by_id = {4 + n: url for n, url in enumerate(URLS)}
        for content, cluster in (
            (f'cluster = "{",".join(URLS)}"', by_position),
            (f"cluster = [{array}]", by_position),
            (f"id = 4\n[cluster]\n{table}", by_id),
        ):
            self.assertEqual(self.options(content)["cluster"], cluster)

    def test_what_comes_first(self) -> None:
        content = "port = 1\ntick = 20\nhistory = 7\njoin = true"
        self.patch(
            os, "environ", {"KVDB_TICK": "30", "KVDB_HISTORY": "8", "KVDB_JOIN": "no"}
        )
        told = self.options(content, "--history=9")
        self.assertEqual((told["port"], told["tick"], told["history"]), (1, 30, 9))
        self.assertEqual(told["snapshot-count"], 10_000)
        self.assertFalse(told["join"])

    def test_the_environment_can_name_the_file(self) -> None:
        self.path.write_text("port = 7")
        other = self.path.with_name("other.toml")
        other.write_text("port = 8")
        self.patch(os, "environ", {"KVDB_CONFIG": str(self.path)})
        for words, port in ([], 7), ([f"--config={other}"], 8), (["--port=9"], 9):
            options = Options()
            options.parseOptions(words)
            self.assertEqual(options["port"], port)


class BadConfigTests(Case):
    """Files that are not, and what is said of them: place, name, fault."""

    def test_what_is_wrong_is_named(self) -> None:
        for content, place, text in (
            ("id = 0", ", line 1", "id: '0' is not a number from 1 to"),
            ("\n\nport = 'x'", ", line 3", "port: 'x' is not a number from 0 to 65535"),
            ("data_dir = 1\nmax_key_bytes = 0", ", line 2", "max_key_bytes: '0' is"),
            ("# colour\ncolour = 1", ", line 2", "colour: is no option"),
            ("'colour' = 1", ", line 1", "colour: is no option"),
            ("a.b = 1", ", line 1", "a: is no option"),
            ("\n[table]\nx = 1", ", line 2", "table: is no option"),
            ('config = "x"', ", line 1", "config: is no option"),
            ("data-dir = 'a'\ndata_dir = 'b'", ", line 2", "data_dir: stands there"),
            ("join = 1", ", line 1", "join: is true or false"),
            ("port = true", ", line 1", "port: is a text or a number"),
            ("port = [1]", ", line 1", "port: is a text or a number"),
            ("tick = 1.5", ", line 1", "tick: '1.5' is not a number"),
            ("id = 1979-05-27", ", line 1", "id: is a text or a number"),
            ("cluster = [1]", ", line 1", "cluster: is a text, an array of"),
            ("[cluster]\n1 = 2", ", line 1", "cluster: is a text, an array of"),
            ("cluster = []", ", line 1", "cluster: there is an empty item"),
            ("[cluster]\nx = 'http://a:1'", ", line 1", "cluster: 'x' is not a number"),
            ('log-format = "xml"', ", line 1", "log-format: 'xml' is none of"),
            (
                "id = 1\nid = 2\n",
                "",
                "is not TOML: Cannot overwrite a value (at line 2",
            ),
            ("id = ", "", "is not TOML: Invalid value (at "),
            ('"a\\nb" = 1', "", r"'a\nb': is no option"),
            (b"host = '\n\xff'", ", line 2", "is not UTF-8"),
            (b"#" * (MAX_CONFIG_BYTES + 1), "", "is longer than 1048576 bytes"),
            ("id = " + "[" * 100_000, "", "is not TOML: "),
            ("id = " + "9" * 5000, "", "is not TOML: "),
            ("data-dir = ''", ", line 1", "data-dir: is empty"),
            (r'data-dir = "a\u0000"', ", line 1", r"data-dir: 'a\x00' has a NUL"),
        ):
            error = self.assertRaises(UsageError, self.options, content)
            self.assertIn(f"--config: {self.path}{place}: {text}", str(error))
            self.assertNotIn("\n", str(error))

    def test_a_file_that_is_not_there(self) -> None:
        for path in ("nowhere.toml", "."):
            error = self.assertRaises(
                UsageError, Options().parseOptions, ["--config", path]
            )
            self.assertIn(f"--config: {path}: cannot be read (", str(error))

    def test_what_options_say_of_each_other_counts_here_too(self) -> None:
        error = self.assertRaises(UsageError, self.options, "id = 2")
        self.assertIn("--id: 2 is not in --cluster, which has 1", str(error))

    def test_a_wrong_command_line_is_said_as_ever(self) -> None:
        error = self.assertRaises(UsageError, self.options, "id = 1", "--wrong")
        self.assertIn("option --wrong not recognized", str(error))

    @given(
        st.one_of(
            st.binary(max_size=200),
            st.text("\"'=.#[]{},\\n \n\tajoinhst_-1\0é", max_size=50).map(str.encode),
        )
    )
    def test_any_bytes_are_read_or_refused_in_a_line(self, data: bytes) -> None:
        self.path.write_bytes(data)
        try:
            told = read_config(str(self.path), {"host": str}, {"join"})
        except BadConfig as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertLessEqual(set(told), {"host", "join"})


def test_a_real_node_goes_by_its_file(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 1) as cluster:
        [node] = cluster.nodes.values()
        node.stop()
        [port] = free_ports(1)
        lines: dict[str, Any] = {
            "cluster": [node.peer_url],
            "port": port,
            "max_value_bytes": 10,
            "log-format": "json",
        }
        path = tmp_path / "kvdb.toml"
        path.write_text("".join(f"{k} = {v!r}\n" for k, v in lines.items()))
        node.options, node.port = ["--config", str(path)], port
        node.start()
        node.wait_ready()
        assert ask("PUT", node.url + "/k", b"v" * 11).status == 413
        assert ask("PUT", node.url + "/k", b"v" * 10).status == 204


def test_a_wrong_file_is_one_line_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "kvdb.toml").write_text("port = 'x'\n")
    status, output = run(tmp_path, "--config", "kvdb.toml")
    assert status == 1
    assert "--config: kvdb.toml, line 1: port: 'x'" in output.splitlines()[-1]
    assert "Traceback" not in output
