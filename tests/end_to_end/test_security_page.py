"""What docs/security.md shows, typed from its start to its end."""

from __future__ import annotations

from tests.documents import ROOT, Shell, steps_of

PAGE = "docs/security.md"
SECTIONS = (
    "Certificates",
    "Users and roles",
    "A node with all of it",
    "New certificates, new users",
)


def test_each_section_does_what_the_page_says(shell: Shell) -> None:
    for section in SECTIONS:
        shell.type(steps_of(PAGE, section))


def test_the_page_has_no_section_that_is_not_typed() -> None:
    sections = (ROOT / PAGE).read_text().split("\n## ")[1:]
    typed = [text.split("\n", 1)[0] for text in sections if "```console" in text]
    assert tuple(typed) == SECTIONS
