"""
What is wrong, where, and what to do.

An I{error} keeps the member from starting, or makes it wrong; a I{warning} is what
its next start puts in order by itself, or what may surprise.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field, frozen

MAX_FINDINGS: Final = 100
"""More are only counted."""

REPLACE: Final = (
    "check the disk; if the other members are well, remove this one and add it under a"
    " new id with an empty data directory; else restore a backup"
)

LATER: Final = "a later release wrote it: start that release"

START: Final = "start the node; it makes one"


@frozen(slots=True)
class Finding:
    """
    One of them.

    @ivar offset: in bytes; None where the file as a whole is meant.
    """

    is_error: bool
    path: str
    offset: int | None
    what: str
    remedy: str

    def text(self) -> str:
        """For people."""
        kind = "error" if self.is_error else "warning"
        at = "" if self.offset is None else f", offset {self.offset}"
        return f"{kind}: {self.path}{at}: {self.what}. What to do: {self.remedy}"


@define(slots=True, eq=False)
class Findings:
    """
    @ivar found: in the order in which they were found, up to L{MAX_FINDINGS}.
    @ivar more: how many there were beyond.
    @ivar errors: how many of all are errors.
    """

    found: list[Finding] = field(factory=list)
    more: int = 0
    errors: int = 0

    def error(
        self, path: str, offset: int | None, what: str, remedy: str = REPLACE
    ) -> None:
        """Note an error."""
        self._add(Finding(True, path, offset, what, remedy))

    def warning(self, path: str, offset: int | None, what: str, remedy: str) -> None:
        """Note a warning."""
        self._add(Finding(False, path, offset, what, remedy))

    def knows(self, path: str, offset: int | None) -> bool:
        """Whether one is of this place."""
        return any((one.path, one.offset) == (path, offset) for one in self.found)

    def _add(self, finding: Finding) -> None:
        if finding.offset is not None and self.knows(finding.path, finding.offset):
            return
        self.errors += finding.is_error
        if len(self.found) < MAX_FINDINGS:
            self.found.append(finding)
        else:
            self.more += 1
