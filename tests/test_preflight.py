"""What is found wrong before twistd comes to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvdb.preflight import Refused, check_runner


def runner(place: Path, **more: Any) -> dict[str, Any]:
    """twistd's options in C{place}."""
    plain = {"chroot": None, "nodaemon": True, "logfile": None}
    return {**plain, "rundir": str(place), "pidfile": "twistd.pid", **more}


@contextlib.contextmanager
def process(*words: str) -> Iterator[int]:
    """One that runs, with C{words} on its command line: its id."""
    command = [sys.executable, "-c", "print(flush=True); input()", *words]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        other.stdout.readline()
        yield other.pid
        other.communicate(b"\n")


def test_without_a_pidfile_all_is_well(tmp_path: Path) -> None:
    assert check_runner(runner(tmp_path)) is None
    assert check_runner(runner(tmp_path, pidfile="")) is None


def test_a_pidfile_with_this_process_s_id_is_stale(tmp_path: Path) -> None:
    # As in a container that was started again: each time its process is number 1.
    pidfile = tmp_path / "twistd.pid"
    pidfile.write_text(str(os.getpid()))
    line = check_runner(runner(tmp_path))
    assert line is not None
    assert "is this one), and was removed" in line
    assert not pidfile.exists()


def test_a_pidfile_with_the_id_of_another_program_is_stale(tmp_path: Path) -> None:
    pidfile = tmp_path / "twistd.pid"
    with process() as other:
        pidfile.write_text(str(other))
        line = check_runner(runner(tmp_path))
    assert line is not None
    assert "is none of twistd's), and was removed" in line


def test_a_pidfile_of_a_twistd_that_runs_is_respected(tmp_path: Path) -> None:
    pidfile = tmp_path / "twistd.pid"
    with process("twistd") as other:
        pidfile.write_text(str(other))
        with pytest.raises(Refused, match=f"names process {other}, which runs"):
            check_runner(runner(tmp_path))
    assert pidfile.exists()


def test_what_is_no_pidfile_is_left_to_twistd(tmp_path: Path) -> None:
    pidfile = tmp_path / "twistd.pid"
    pidfile.write_text("never")
    assert check_runner(runner(tmp_path)) is None
    assert pidfile.exists()


@pytest.mark.parametrize("name", ["pidfile", "logfile"])
def test_files_that_cannot_be_written_are_one_line(tmp_path: Path, name: str) -> None:
    for path in ("nowhere/file", "."):
        with pytest.raises(Refused, match=f"--{name}: {path} cannot be written"):
            check_runner(runner(tmp_path, **{name: path}))


def test_a_daemon_needs_a_place_for_its_log(tmp_path: Path) -> None:
    (tmp_path / "twistd.log").mkdir()
    assert check_runner(runner(tmp_path)) is None
    with pytest.raises(Refused, match=r"--logfile: twistd\.log cannot be written"):
        check_runner(runner(tmp_path, nodaemon=False))


def test_standard_output_is_no_file(tmp_path: Path) -> None:
    assert check_runner(runner(tmp_path, logfile="-")) is None
