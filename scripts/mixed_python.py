"""
Applies the history on record with every Python at hand, and compares what becomes of
it: with one another, and with the digest on record (tests/store/recorded.py).

Pythons are looked for on PATH and with pyenv; one that is not there is named, and
left out.  Each gets an environment below C{.venv/mixed}, made once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENTS: Final = ROOT / ".venv" / "mixed"
DIGEST: Final = ROOT / "tests" / "store" / "history.digest"

WANTED: Final = ("3.11", "3.12", "3.13", "3.14")
"""Releases of Python that kvdb runs on."""

NEEDED: Final = ("attrs", "google-crc32c", "sortedcontainers")
"""What applying imports; of the versions that run here."""

SECONDS: Final = 600
"""How long one step may take."""

VERSION: Final = "import sys; print('.'.join(map(str, sys.version_info[:3])))"


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program in the project's root."""
    return subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def candidates() -> Iterator[str]:
    """Programs that may be a Python."""
    yield sys.executable
    folders = os.environ.get("PATH", "").split(os.pathsep)
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    folders += [str(folder) for folder in sorted(pyenv.glob("*/bin"))]
    for folder in folders:
        for release in WANTED:
            found = shutil.which(f"python{release}", path=folder)
            if found is not None:
                yield found


def pythons() -> dict[str, str]:
    """Programs by full version, each version once."""
    found: dict[str, str] = {}
    for program in candidates():
        answer = run(program, "-c", VERSION)  # pyenv's shims may have none
        version = answer.stdout.strip()
        if answer.returncode == 0 and version.rpartition(".")[0] in WANTED:
            found.setdefault(version, program)
    return dict(sorted(found.items(), key=lambda item: _numbers(item[0])))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def environment(version: str, program: str) -> Path:
    """
    The Python of an environment with what is needed.

    @raise RuntimeError: it could not be made.
    """
    folder = ENVIRONMENTS / version
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        shutil.rmtree(folder, ignore_errors=True)
        for words in (
            (program, "-m", "venv", folder),
            (python, "-m", "pip", "install", "--quiet", *NEEDED),
        ):
            made = run(*words)
            if made.returncode != 0:
                raise RuntimeError(made.stderr.strip() or made.stdout.strip())
        (folder / "made").touch()
    return python


def main() -> int:
    """Say what each Python makes of it; 1 if any differs."""
    found = pythons()
    for release in WANTED:
        if not any(version.startswith(f"{release}.") for version in found):
            print(f"Python {release}: not found, left out")
    on_record = DIGEST.read_text(encoding="ascii")
    wrong = 0
    for version, program in found.items():
        try:
            python = environment(version, program)
        except (RuntimeError, OSError) as error:
            print(f"Python {version}: no environment could be made: {error}")
            wrong += 1
            continue
        answer = run(python, "-m", "tests.store.recorded")
        alike = answer.returncode == 0 and answer.stdout == on_record
        wrong += not alike
        print(f"Python {version} ({program}): {'the same' if alike else 'DIFFERS'}")
        if not alike:
            print(answer.stdout + answer.stderr[-2000:])
    if len(found) < 2:
        print("only one Python was compared, with the digest on record")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
