"""What docs/operations.md shows, typed from the backup to the recovery."""

from __future__ import annotations

from tests.documents import ROOT, Shell, Step, steps_of

PAGE = "docs/operations.md"

SECTIONS = (
    "Backups",
    "Restoring a backup",
    "Recovering from one survivor",
    "Looking into a data directory",
)


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
