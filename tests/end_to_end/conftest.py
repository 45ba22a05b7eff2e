"""A shell in which pages are typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documents import ROOT, Shell
from tests.end_to_end.cluster import free_ports

MEMBERS = range(1, 6)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """
    In a directory where the repository's scripts are; the pages' addresses are free
    ones, and nodes that are left are ended.
    """
    pages = [f"{member}{kind}" for member in MEMBERS for kind in (2379, 2380)]
    ports = dict(zip(pages, free_ports(len(pages)), strict=True))
    replaced = {
        f"127.0.0.1:{page}": f"127.0.0.1:{here}" for page, here in ports.items()
    }
    replaced |= {f"--port {page}": f"--port {here}" for page, here in ports.items()}
    # As a loop over members makes them.
    own = " ".join(f"[{member}]={ports[f'{member}2380']}" for member in MEMBERS)
    replaced["${N}2380"] = "${CLIENTS[$N]}"
    replaced["for N in"] = f"declare -A CLIENTS=({own}); for N in"
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    shell = Shell(tmp_path, replaced)
    try:
        yield shell
    except BaseException:
        for path in sorted(tmp_path.glob("*.log")):
            print(f"--- {path.name}\n{path.read_text()[-3000:]}")
        raise
    finally:
        shell.end()
