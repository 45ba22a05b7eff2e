"""
What clients asked and were told, with times: what the checkers go by.

Every write carries a value of its own, so that a value that is read names the
write it comes from.  An operation that was retried under an idempotency key is
one operation, from its first try to its last answer.

It is pure data: nothing here knows of clusters, simulated or real.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterable, Iterator
from typing import Final, TextIO

from attrs import asdict, define, field

NEVER: Final = math.inf
"""When an operation without a definite answer returned."""


class Kind(enum.Enum):
    """What was asked."""

    GET = "get"
    PUT = "put"
    DELETE = "delete"


class Result(enum.Enum):
    """What was answered."""

    PENDING = "pending"
    """Nothing yet: as good as L{UNKNOWN}."""
    DONE = "done"
    ABSENT = "absent"
    """There is no such key."""
    CONDITION_FAILED = "condition failed"
    REFUSED = "refused"
    """Nothing was done, and never will be."""
    UNKNOWN = "unknown"
    """It may have been done, or may yet be."""


@define(slots=True, eq=False)
class Operation:
    """
    @ivar client: who asked; one asks one thing at a time.
    @ivar node: the member that was asked, the last one of several tries.
    @ivar value: what was to be written, or what was read.
    @ivar expected: the revision that was to be the key's for the write to be
        done, 0 for no such key; None for no condition.
    @ivar revision: the one answered: of the record written, deleted or read;
        where a condition failed the key's own, 0 for no such key.
    @ivar stale: a read that need not be of the present.
    @ivar life: which run of the member answered; only stale reads tell it.
    """

    client: int
    kind: Kind
    key: str
    invoked: float
    value: str | None = None
    expected: int | None = None
    stale: bool = False
    returned: float = NEVER
    result: Result = Result.PENDING
    revision: int | None = None
    node: int = 0
    life: int = 0

    def end(self, now: float, result: Result, revision: int | None = None) -> None:
        """Note the answer."""
        self.result = result
        self.revision = revision
        if result is not Result.UNKNOWN:
            self.returned = now

    @property
    def is_definite(self) -> bool:
        """Whether it is known what became of it."""
        return self.result not in (Result.PENDING, Result.UNKNOWN)

    def __str__(self) -> str:
        asked = f"{self.kind.value} {self.key}"
        if self.kind is Kind.PUT:
            asked += f"={self.value}"
        if self.expected is not None:
            asked += f" if at {self.expected}"
        if self.stale:
            asked += " (stale)"
        answer = self.result.value
        if self.kind is Kind.GET and self.value is not None:
            answer += f" {self.value}"
        if self.revision is not None:
            answer += f" at {self.revision}"
        until = "      ..." if self.returned == NEVER else f"{self.returned:9.4f}"
        who = f"client {self.client} of node {self.node}"
        return f"{self.invoked:9.4f} -{until}  {who}: {asked}: {answer}"


@define(slots=True, eq=False)
class History:
    """Operations, in the order in which they were begun."""

    operations: list[Operation] = field(factory=list)

    def begin(self, operation: Operation) -> Operation:
        """Note that something is asked."""
        self.operations.append(operation)
        return operation

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    def by_key(self) -> dict[str, list[Operation]]:
        """Its operations apart by key."""
        found: dict[str, list[Operation]] = {}
        for operation in self.operations:
            found.setdefault(operation.key, []).append(operation)
        return found

    def write(self, file: TextIO) -> None:
        """One line of JSON an operation."""
        for operation in self.operations:
            row = asdict(operation)
            row["kind"], row["result"] = operation.kind.value, operation.result.value
            if operation.returned == NEVER:
                row["returned"] = None
            file.write(json.dumps(row) + "\n")

    @classmethod
    def read(cls, lines: Iterable[str]) -> History:
        """What L{write} wrote."""
        history = cls()
        for line in lines:
            row = json.loads(line)
            row["kind"], row["result"] = Kind(row["kind"]), Result(row["result"])
            if row["returned"] is None:
                row["returned"] = NEVER
            history.begin(Operation(**row))
        return history
