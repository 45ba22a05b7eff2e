"""What docs/operations.md shows, typed from the backup to the recovery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT, Shell, Step, steps_of
from tests.end_to_end.cluster import free_ports

PAGE = "docs/operations.md"

SECTIONS = (
    "Backups",
    "Restoring a backup",
    "Recovering from one survivor",
    "Looking into a data directory",
)

PORTS = [f"{member}{kind}" for member in range(1, 4) for kind in (2379, 2380)]


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell where the page's addresses are free ones; its nodes are ended."""
    here = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    replaced = {f"127.0.0.1:{page}": f"127.0.0.1:{port}" for page, port in here.items()}
    replaced |= {f"--port {page}": f"--port {port}" for page, port in here.items()}
    shell = Shell(tmp_path, replaced)
    try:
        yield shell
    except BaseException:
        for path in sorted(tmp_path.glob("*.log")):
            print(f"--- {path.name}\n{path.read_text()[-3000:]}")
        raise
    finally:
        shell.end()


def test_each_procedure_does_what_the_page_says(shell: Shell) -> None:
    exports = steps_of("docs/procedures.md", "Starting a cluster")
    exports = [step for step in exports if step.command.startswith("export")]
    shell.type(exports)
    start = [
        Step(
            f"twistd --pidfile={n}.pid --logfile={n}.log kvdb --id {n}"
            f" --cluster $CLUSTER --port {n}2380"
        )
        for n in range(1, 4)
    ]
    ready = Step("until kvdbctl health >/dev/null 2>&1; do sleep 0.2; done")
    shell.type([*exports, *start, ready])
    for section in SECTIONS:
        shell.type([*exports, *steps_of(PAGE, section)])


def test_the_page_has_no_procedure_that_is_not_typed() -> None:
    sections = (ROOT / PAGE).read_text().split("\n## ")[1:]
    typed = [one.partition("\n")[0] for one in sections if "```console" in one]
    assert tuple(typed) == SECTIONS
