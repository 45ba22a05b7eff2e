"""
What pages show, typed in a shell: its output must be what they show.

A block C{```console} of a page holds commands, each behind C{$ } and with C{> } where
it goes on, and what they print.  In what is expected C{...} stands for anything within
a line, and alone in a line for any lines.  Addresses of a page are replaced by those of
the test.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import define, field

ROOT: Final = Path(__file__).parents[1]
SECONDS: Final = 60.0
"""For all that one section types."""

_MARK: Final = "kvdb-test-status-of-the-command"


@define
class Step:
    """A command, and the lines that it is to print."""

    command: str
    expected: list[str] = field(factory=list)


def steps_of(page: str, heading: str) -> list[Step]:
    """The commands in one section of a page of docs/, down to the next heading."""
    text = (ROOT / page).read_text()
    match = re.search(
        rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert match is not None, f"{page} has no section {heading!r}"
    steps: list[Step] = []
    for block in re.findall(r"^```console\n(.*?)^```", match[2], re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append(Step(line[2:]))
            elif steps and line.startswith("> "):
                steps[-1].command += "\n" + line[2:]
            else:
                assert steps, f"{page}, {heading}: output before a command"
                steps[-1].expected.append(line)
    assert steps, f"{page}, {heading}: no commands"
    return steps


def matches(expected: list[str], lines: list[str]) -> bool:
    """Whether C{lines} are what is expected."""
    parts = []
    for line in expected:
        if line.strip() == "...":
            parts.append("(?:.*\n)*?")
        else:
            words = " ".join(line.split())
            parts.append(re.escape(words).replace(re.escape("..."), ".*?") + "\n")
    said = "".join(" ".join(line.split()) + "\n" for line in lines)
    return re.fullmatch("".join(parts), said) is not None


@define
class Shell:
    """
    A shell in a directory of its own.

    @ivar replaced: what the page says, and what it is here.
    """

    directory: Path
    replaced: Mapping[str, str]

    def type(self, steps: list[Step], *, status: int = 0) -> str:
        """
        Type commands, one after the other; all that was printed.

        @raise AssertionError: a command fails, or prints something else.
        """
        script = "".join(
            f"{self._here(step.command)}\nprintf '\\n{_MARK} %s\\n' $?\n"
            for step in steps
        )
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KVDB_")}
        programs = str(Path(sys.executable).parent)
        environment["PATH"] = programs + os.pathsep + environment["PATH"]
        environment["COLUMNS"] = "120"
        process = subprocess.Popen(
            ["bash", "-s"],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(script, SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            raise AssertionError(f"not done within {SECONDS:g} s:\n{output}") from None
        parts = re.split(rf"\n{_MARK} (\d+)\n", output)
        for number, step in enumerate(steps):
            said = self._there(parts[2 * number])
            code = int(parts[2 * number + 1])
            assert code == status, f"$ {step.command}\n{said}\n(status {code})"
            lines = said.split("\n") if said else []
            if lines and not lines[-1]:
                lines.pop()
            assert matches(step.expected, lines), (
                f"$ {step.command}\nexpected:\n"
                + "\n".join(step.expected)
                + f"\nprinted:\n{said}"
            )
        return self._there(output)

    def _here(self, text: str) -> str:
        for page, here in self.replaced.items():
            text = text.replace(page, here)
        return text

    def _there(self, text: str) -> str:
        for page, here in self.replaced.items():
            text = text.replace(here, page)
        return text

    def end(self) -> None:
        """End every node that was started with a pid file here."""
        for path in self.directory.glob("*.pid"):
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(path.read_text()), signal.SIGKILL)
