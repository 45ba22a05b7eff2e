"""
The machine, and what of it was measured in which version.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

PACKAGES: Final = ("kvdb", "Twisted", "rocksdict", "klein", "attrs", "pysyncobj")
PROGRAMS: Final = {"etcd": ["--version"], "wrk": ["-v"], "go": ["version"]}
PROGRAM_SECONDS: Final = 10.0
BUSY_LOAD: Final = 0.5
"""Processes that want a processor, for each there is, beyond which figures say
little."""


def machine(data_directory: Path) -> dict[str, str]:
    """What there is, by name."""
    return {
        "processor": _line(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "processors": str(os.cpu_count()),
        "memory": _line(Path("/proc/meminfo"), "MemTotal") or "unknown",
        "kernel": platform.release(),
        "system": _line(Path("/etc/os-release"), "PRETTY_NAME", "=") or "unknown",
        "file system": file_system(data_directory),
        "load when begun": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "Python": sys.version.split()[0],
        **dict(_versions()),
    }


def warnings(data_directory: Path) -> Iterator[str]:
    """What makes figures of this machine worth less."""
    load = os.getloadavg()[0]
    if load > BUSY_LOAD * (os.cpu_count() or 1):
        yield f"the machine is busy (load {load:.1f}): figures say little"
    if file_system(data_directory) in ("tmpfs", "ramfs"):
        yield f"{data_directory} is in memory, not on a disk: say --data-dir"


def _line(path: Path, name: str, separator: str = ":") -> str | None:
    """The value of the first line C{name: value} of a file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip().strip('"')
    return None


def file_system(directory: Path) -> str:
    """The type of that on which a directory is."""
    place = str(directory.resolve())
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted, its_kind, *_ = line.split()
        inside = mounted == "/" or f"{place}/".startswith(f"{mounted}/")
        if inside and len(mounted) >= len(best):
            best, kind = mounted, its_kind
    return kind


def _versions() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            pass
    for program, arguments in PROGRAMS.items():
        if shutil.which(program) is None:
            continue
        try:
            done = subprocess.run(
                [program, *arguments],
                capture_output=True,
                text=True,
                check=False,  # wrk tells its version with an exit status of 1
                timeout=PROGRAM_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        said = re.search(r"\d+\.\d+(\.\d+)?", done.stdout + done.stderr)
        yield program, said[0] if said else "unknown"
