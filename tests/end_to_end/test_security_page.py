"""What docs/security.md shows, typed from its start to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT, Shell, steps_of
from tests.end_to_end.cluster import free_ports

PAGE = "docs/security.md"
SECTIONS = (
    "Certificates",
    "Users and roles",
    "A node with all of it",
    "New certificates, new users",
)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell where the page's addresses are free ones; its node is ended."""
    peers, clients = free_ports(2)
    replaced = {
        "scripts/certificates.sh": str(ROOT / "scripts" / "certificates.sh"),
        "127.0.0.1:12379": f"127.0.0.1:{peers}",
        "127.0.0.1:12380": f"127.0.0.1:{clients}",
        "--port 12380": f"--port {clients}",
    }
    shell = Shell(tmp_path, replaced)
    try:
        yield shell
    except BaseException:
        for path in sorted(tmp_path.glob("*.log")):
            print(f"--- {path.name}\n{path.read_text()[-3000:]}")
        raise
    finally:
        shell.end()


def test_each_section_does_what_the_page_says(shell: Shell) -> None:
    for section in SECTIONS:
        shell.type(steps_of(PAGE, section))


def test_the_page_has_no_section_that_is_not_typed() -> None:
    sections = (ROOT / PAGE).read_text().split("\n## ")[1:]
    typed = [text.split("\n", 1)[0] for text in sections if "```console" in text]
    assert tuple(typed) == SECTIONS
