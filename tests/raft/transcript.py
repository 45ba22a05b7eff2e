"""
What a command of the interaction language prints: its own words, and the log
lines of the core, in the order in which they come.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from attrs import define, field

from tests.raft.casefile import CommandFailed
from tests.raft.descriptions import INDENT, describe_list

LEVELS: Final = ("DEBUG", "INFO", "WARN", "ERROR", "FATAL", "NONE")


@define
class Transcript:
    """
    What the current command has printed, and the core's logger.

    @ivar level: an index of C{LEVELS}: log lines below it are left out; at the
        highest, everything is.
    """

    level: int = 0
    _text: list[str] = field(factory=list)

    @property
    def quiet(self) -> bool:
        """Whether nothing at all is printed."""
        return LEVELS[self.level] == "NONE"

    def set_level(self, name: str) -> None:
        """Take the level with C{name}, in any case."""
        if name.upper() not in LEVELS:
            raise CommandFailed(f"log levels must be either of {describe_list(LEVELS)}")
        self.level = LEVELS.index(name.upper())

    def write(self, text: str) -> None:
        """Print C{text}, with whatever newlines it has."""
        if not self.quiet:
            self._text.append(text)

    def take(self) -> str:
        """What was printed since the last time."""
        text = "".join(self._text)
        self._text = []
        return text

    @contextmanager
    def indented(self) -> Iterator[None]:
        """What is printed meanwhile is indented, line by line."""
        outer, self._text = self._text, []
        try:
            yield
        finally:
            inner = self.take()
            self._text = outer
            if inner:
                lines = inner.removesuffix("\n").split("\n")
                self._text.append("".join(f"{INDENT}{line}\n" for line in lines))

    def _log(self, level: str, text: str) -> None:
        if self.level <= LEVELS.index(level):
            self.write(f"{level} {text}\n")

    def debug(self, text: str) -> None:
        """See L{RaftLogger<kvdb.raft.logger.RaftLogger>}, as for all below."""
        self._log("DEBUG", text)

    def info(self, text: str) -> None:
        """What happened."""
        self._log("INFO", text)

    routine = info

    def warning(self, text: str) -> None:
        """What should not happen often."""
        self._log("WARN", text)

    def error(self, text: str) -> None:
        """What should not happen."""
        self._log("ERROR", text)
