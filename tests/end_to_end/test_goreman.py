"""The Procfile under goreman, where there is one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.end_to_end.cluster import PATIENCE, ask, free_ports, until

GOREMAN = shutil.which("goreman")
ROOT = Path(__file__).resolve().parent.parent.parent


def serves(port: int) -> bool:
    """Whether a node answers there."""
    try:
        return ask("GET", f"http://127.0.0.1:{port}/_/ready").status == 200
    except OSError:
        return False


def down(port: int) -> bool:
    """Whether nobody answers there."""
    return not serves(port)


@pytest.mark.skipif(GOREMAN is None, reason="goreman is not installed")
def test_the_procfile(tmp_path: Path) -> None:
    assert GOREMAN is not None
    text = (ROOT / "Procfile").read_text()
    ports = free_ports(7)
    for fixed, free in zip(
        (12379, 22379, 32379, 12380, 22380, 32380), ports, strict=False
    ):
        text = text.replace(str(fixed), str(free))
    (tmp_path / "Procfile").write_text(text)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    command = [GOREMAN, "-p", str(ports[6])]
    running = subprocess.Popen(
        [*command, "start"], cwd=tmp_path, env={"PATH": path, "HOME": str(tmp_path)}
    )
    try:
        for port in ports[3:6]:
            until(partial(serves, port), "the nodes serve")
        stop = [*command, "run", "stop", "kvdb2"]
        subprocess.run(stop, cwd=tmp_path, check=True, timeout=PATIENCE)
        until(lambda: down(ports[4]), "kvdb2 stops")
        assert ask("PUT", f"http://127.0.0.1:{ports[3]}/k", b"v").status == 204
    finally:
        running.terminate()
        running.wait(PATIENCE)
