"""What docs/client.md and docs/kvdbctl.md show is what happens."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from typing import Any

import click
import pytest
from twisted.internet import reactor

from kvdb import __version__
from kvdb.client import Client
from kvdb.client.command import session
from kvdb.client.command.main import STATUSES
from kvdb.client.command.tree import tree
from kvdb.client.testing import FakeCluster
from tests.client.test_command import Shell

DOCS = Path(__file__).parents[2] / "docs"


def procfile_cluster() -> FakeCluster:
    """Members at the addresses of the Procfile."""
    cluster = FakeCluster()
    for node, member in cluster.members.items():
        member.url = f"http://127.0.0.1:{node}2380"
        member.peer_url = f"http://127.0.0.1:{node}2379"
    return cluster


def test_the_examples_of_the_library_run(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = procfile_cluster()
    text = (DOCS / "client.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 8
    names: dict[str, Any] = {}

    async def run(block: str) -> None:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        result = eval(compile(block, "client.md", "exec", flags), names)
        if inspect.iscoroutine(result):
            await result

    def in_memory(given: Any, endpoints: Any, **more: Any) -> Client:
        assert given is reactor
        return cluster.client(endpoints.split(","), **more)

    monkeypatch.setattr("kvdb.client.Client", in_memory)
    for block in blocks:
        cluster.run(run(block))
    assert names["found"].value == b"1"
    assert cluster.store.revision > 10, "the examples did something"


def test_the_examples_of_the_command_are_its_output() -> None:
    shell = Shell(procfile_cluster())
    text = (DOCS / "kvdbctl.md").read_text()
    shown = re.findall(r"^    \$ kvdbctl (.*)\n((?:    [^$].*\n)*)", text, re.MULTILINE)
    assert len(shown) > 15
    for line, expected in shown:
        _, out = shell.run(*line.split())
        if out and not out.endswith(b"\n"):
            out += b"\n"  # as on a terminal
        found = shell.error + out.decode()
        wanted = "".join(part[4:] for part in expected.splitlines(keepends=True))
        wanted = wanted.replace("0.1.0", __version__)
        assert sorted(found.splitlines()) == sorted(wanted.splitlines()), line


def commands(
    group: click.Group, words: tuple[str, ...] = ()
) -> list[tuple[str, click.Command]]:
    """All there are, by their words."""
    found = []
    for name, one in group.commands.items():
        if isinstance(one, click.Group):
            found += commands(one, (*words, name))
        else:
            found.append((" ".join((*words, name)), one))
    return found


def test_each_command_and_each_option_stands_on_the_page() -> None:
    text = (DOCS / "kvdbctl.md").read_text()
    found = commands(tree)
    assert len(found) > 12
    for words, command in found:
        assert f"kvdbctl {words}" in text, words
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                long = [name for name in parameter.opts if name.startswith("--")]
                assert long[0] in text or "-0" in parameter.opts, (words, long)


def test_each_exit_status_stands_on_the_page() -> None:
    text = (DOCS / "kvdbctl.md").read_text().partition("## Exit statuses")[2]
    rows = re.findall(r"^\| ([0-9, ]+) \|", text, re.MULTILINE)
    told = {int(number) for row in rows for number in row.split(",")}
    there = {status for _, status in STATUSES} | {session.DONE, session.USAGE}
    there |= {session.INTERRUPTED, session.TERMINATED, session.PIPE_CLOSED}
    there.add(session.NOT_WRITTEN)
    assert told == there
