"""
Looks for bytes that a target was not ready for::

    python -m tests.fuzz [--target NAME] [--runs N] [--seconds S]
    python -m tests.fuzz --target NAME --input FILE
    python -m tests.fuzz --merge

The first runs each target in a process of its own, with atheris where it is
installed, which follows what each input does in the code; else with blind
changes to what is known.  The second runs one input, the third keeps of the
corpus what it needs for the same coverage.  Ends with 1 after a finding.

Rules: atheris is no dependency; nothing but the corpus is written in the tree.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from hashlib import sha1
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"

MAX_BYTES: Final = 4096
"""The longest input that is tried."""

RUN_SECONDS: Final = 10
"""A run that takes longer is a finding."""

MOST_FILES: Final = 200
MOST_BYTES: Final = 200_000
"""What is kept of the corpus of each target."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--target", help="only this one")
    parser.add_argument("--runs", type=int, default=-1, help="of each target")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--input", type=Path, help="run this file, and no other")
    parser.add_argument("--merge", action="store_true", help="make the corpus small")
    parser.add_argument(
        "--corpus", type=Path, default=CORPUS, help="where new inputs are kept"
    )
    parser.add_argument("--inside", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser.parse_args()


def _inside(name: str, arguments: Sequence[str]) -> None:
    """In the process of one target: libFuzzer takes over, and does not return."""
    import atheris  # type: ignore

    with atheris.instrument_imports(include=["kvdb"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([_stub(name), *arguments], TARGETS[name])
    atheris.Fuzz()


def _stub(name: str) -> str:
    """A program that is this one again: libFuzzer starts it to merge."""
    path = Path(tempfile.gettempdir()) / f"kvdb-fuzz-{name}-{os.getuid()}"
    line = f'exec {sys.executable} -m tests.fuzz --inside {name} "$@"'
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return str(path)


def _has_atheris() -> bool:
    return find_spec("atheris") is not None


def _child(name: str, arguments: Sequence[object]) -> str:
    """Run libFuzzer on a target; returns what it wrote."""
    command = [sys.executable, "-m", "tests.fuzz", "--inside", name]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    return done.stdout


def _plant(name: str, directory: Path) -> None:
    """See that a corpus has its seeds."""
    from tests.fuzz.seeds import SEEDS

    directory.mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[name]:
        _keep(directory, seed)


def _keep(directory: Path, data: bytes) -> None:
    (directory / sha1(data).hexdigest()).write_bytes(data)


def _words(name: str, directory: Path) -> list[str]:
    """The option that names a file of the language's words, if there are any."""
    from tests.fuzz.seeds import WORDS

    if name not in WORDS:
        return []
    path = directory / "words"
    quoted = ["".join(f"\\x{byte:02x}" for byte in word) for word in WORDS[name]]
    path.write_text("".join(f'"{word}"\n' for word in quoted))
    return [f"-dict={path}"]


def _fuzz(name: str, options: argparse.Namespace, found: Path) -> bool:
    """Fuzz one target; whether there was no finding."""
    work = options.corpus / name
    _plant(name, work)
    before = len(list(work.iterdir()))
    if not _has_atheris():
        runs, finding = _blind(name, options, found)
    else:
        output = _child(
            name,
            [
                f"-runs={options.runs}",
                f"-max_total_time={options.seconds}",
                f"-max_len={MAX_BYTES}",
                f"-timeout={RUN_SECONDS}",
                f"-artifact_prefix={found}/{name}-",
                "-print_final_stats=1",
                "-verbosity=0",
                *_words(name, found),
                work,
                *([CORPUS / name] if (CORPUS / name).is_dir() else []),
            ],
        )
        count = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
        runs = int(count[1]) if count else 0
        artifact = re.search(r"written to (\S+)", output)
        finding = Path(artifact[1]) if artifact else None
        if finding is not None or count is None:
            lines = output.splitlines(keepends=True)
            said = [line for line in lines if not line.startswith("INFO: Instrum")]
            print("".join(said)[-4000:])
    new = len(list(work.iterdir())) - before
    print(f"{name:14} {runs:10} runs {new:6} new {finding or 'nothing found'}")
    if finding is not None:
        print(f"  python -m tests.fuzz --target {name} --input {finding}")
    sys.stdout.flush()
    return finding is None and runs > 0


def changed(random: Random, data: bytes, other: bytes) -> bytes:
    """C{data} with a few blind changes, some of them parts of C{other}."""
    made = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randint(0, len(made))
        match random.randrange(5):
            case 0 if at < len(made):
                made[at] ^= 1 << random.randrange(8)
            case 1:
                made[at : at + 1] = bytes([random.choice((0, 1, 127, 128, 255))])
            case 2:
                del made[at : at + random.randint(1, 9)]
            case 3:
                made[at:at] = random.randbytes(random.randint(1, 9))
            case _:
                start = random.randint(0, len(other))
                made[at:at] = other[start : start + random.randint(1, 40)]
    return bytes(made[:MAX_BYTES])


def _blind(
    name: str, options: argparse.Namespace, found: Path
) -> tuple[int, Path | None]:
    """Without atheris: how many runs, and the first finding."""
    from tests.fuzz.targets import TARGETS

    random, end, runs = Random(), time.monotonic() + options.seconds, 0
    known = [path.read_bytes() for path in sorted((options.corpus / name).iterdir())]
    while runs != options.runs and time.monotonic() < end:
        data = changed(random, random.choice(known), random.choice(known))
        runs += 1
        try:
            TARGETS[name](data)
        except Exception as error:
            path = found / f"{name}-{sha1(data).hexdigest()}"
            path.write_bytes(data)
            print(f"{type(error).__name__}: {error}")
            return runs, path
    return runs, None


def _merge(name: str, options: argparse.Namespace) -> None:
    """Keep what gives the same coverage, the shortest of it first."""
    kept = CORPUS / name
    _plant(name, kept)
    with tempfile.TemporaryDirectory() as scratch:
        _child(name, ["-merge=1", scratch, kept, options.corpus / name])
        found = [path.read_bytes() for path in Path(scratch).iterdir()]
    assert found, f"nothing is left of the corpus of {name}"
    for path in kept.iterdir():
        path.unlink()
    _plant(name, kept)
    size = count = 0
    for data in sorted(found, key=lambda data: (len(data), data)):
        size, count = size + len(data), count + 1
        if size <= MOST_BYTES and count <= MOST_FILES:
            _keep(kept, data)
    print(f"{name:14} {len(found):6} needed, {len(list(kept.iterdir())):6} kept")


def main() -> int:
    """As the head of this module says."""
    options = _options()
    if options.inside:
        name, *arguments = options.inside
        _inside(name, arguments)
    from tests.fuzz.targets import TARGETS

    if options.target is not None and options.target not in TARGETS:
        sys.exit(f"there are only {', '.join(TARGETS)}")
    if options.input is not None:
        TARGETS[options.target](options.input.read_bytes())
        return 0
    names = [options.target] if options.target else list(TARGETS)
    if options.merge:
        for name in names:
            _merge(name, options)
        return 0
    found = Path(tempfile.mkdtemp(prefix="kvdb-fuzz-"))
    good = True
    for name in names:
        good = _fuzz(name, options, found) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
