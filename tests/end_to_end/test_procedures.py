"""What docs/procedures.md shows, typed on one cluster, from its start to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents import ROOT, Shell, Step, matches, steps_of

PAGE = "docs/procedures.md"
TEN_MINUTES = "docs/secured-cluster.md"

SECTIONS = (
    "Starting a cluster",
    "Looking at it",
    "Stopping and starting a member",
    "Upgrading, member by member",
    "Adding a member",
    "Taking a member out",
    "Replacing a dead member",
    "Handing leadership over",
    "A lost majority",
)


def test_each_procedure_does_what_the_page_says(shell: Shell) -> None:
    first = steps_of(PAGE, SECTIONS[0])
    exports = [step for step in first if step.command.startswith("export")]
    shell.type(first)
    for section in SECTIONS[1:]:
        shell.type([*exports, *steps_of(PAGE, section)])


def test_a_secured_cluster_in_ten_minutes(shell: Shell) -> None:
    """docs/secured-cluster.md, but for the environment, which is there."""
    steps = [
        step
        for section in ("The cluster", "A watch, and a write")
        for step in steps_of(TEN_MINUTES, section)
        if not step.command.startswith("make env")
    ]
    shell.type(steps)


def test_the_page_has_no_procedure_that_is_not_typed() -> None:
    text = (ROOT / PAGE).read_text()
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    typed = [
        heading
        for heading, section in zip(headings, text.split("\n## ")[1:], strict=True)
        if "```console" in section
    ]
    assert tuple(typed) == SECTIONS


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (["a ... c"], ["a b c"], True),
        (["a"], ["b"], False),
        (["a"], ["a", "b"], False),
        (["...", "c"], ["a", "b", "c"], True),
        (["...", "c"], ["c"], True),
        ([], ["a"], False),
        (["a.c"], ["abc"], False),
        (["a   b"], ["a b"], True),
    ],
)
def test_what_is_printed_must_be_what_is_shown(
    expected: list[str], printed: list[str], same: bool
) -> None:
    assert matches(expected, printed) is same


def test_a_command_that_fails_is_noticed(tmp_path: Path) -> None:
    shell = Shell(tmp_path, {})
    shell.type([Step("echo yes", ["yes"])])
    with pytest.raises(AssertionError, match="status 1"):
        shell.type([Step("false")])
    with pytest.raises(AssertionError, match="expected"):
        shell.type([Step("echo yes", ["no"])])
