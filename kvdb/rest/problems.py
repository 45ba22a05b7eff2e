"""
What a request that comes to nothing is told (RFC 9457).

Every error is C{application/problem+json}: C{type}, C{title}, C{status},
C{detail}, and C{hint} where there is something the caller can do.  The status
says what became of a write: below 500 nothing was done, 503 and 507 likewise,
504 that nobody knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvdb.interfaces import (
    CompactedRevision,
    DatabaseError,
    MembershipRefused,
    NoSpace,
    OutcomeUnknown,
    Unavailable,
    UnknownMember,
)

log = Logger(namespace="kvdb.rest")

PROBLEM_TYPE = b"application/problem+json"
JSON_TYPE = b"application/json"

_TITLES = {status.value: status.phrase for status in HTTPStatus} | {
    # As RFC 9110 has them, whatever the Python.
    413: "Content Too Large",
    414: "URI Too Long",
}

REASONS = {status: title.encode() for status, title in _TITLES.items()}
"""What stands behind a status in an answer's first line."""


@frozen(slots=True)
class Answer:
    """
    What is sent back.

    @ivar headers: beside Content-Length, which is set from C{body}.
    """

    status: int
    body: bytes = b""
    headers: Mapping[bytes, bytes] = field(factory=dict)


def json_answer(
    status: int, value: Any, headers: Mapping[bytes, bytes] | None = None
) -> Answer:
    """An answer for programs and people."""
    body = json.dumps(value, ensure_ascii=False).encode() + b"\n"
    return Answer(status, body, {b"content-type": JSON_TYPE, **(headers or {})})


class Problem(Exception):
    """A request that comes to nothing, and why."""

    def __init__(
        self,
        status: int,
        detail: str,
        hint: str = "",
        headers: Mapping[bytes, bytes] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.hint = hint
        self.headers = dict(headers or {})

    def answer(self) -> Answer:
        """As it is sent."""
        value = {
            "type": "about:blank",
            "title": _TITLES[self.status],
            "status": self.status,
            "detail": str(self),
        }
        if self.hint:
            value["hint"] = self.hint
        body = json.dumps(value, ensure_ascii=False).encode() + b"\n"
        return Answer(
            self.status, body, {b"content-type": PROBLEM_TYPE, **self.headers}
        )


_STATUSES: list[tuple[type[DatabaseError], int]] = [
    (UnknownMember, 404),
    (MembershipRefused, 409),
    (CompactedRevision, 410),
    (Unavailable, 503),
    (OutcomeUnknown, 504),
    (NoSpace, 507),
]


def problem_of(error: DatabaseError) -> Problem:
    """What the node's refusal is over HTTP."""
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    headers = {b"retry-after": b"1"} if status == 503 else {}
    return Problem(status, str(error), error.hint, headers)


def answer_to(failure: Failure) -> Answer:
    """What is sent back for a request that has failed."""
    error = failure.value
    if isinstance(error, Problem):
        return error.answer()
    if isinstance(error, DatabaseError):
        return problem_of(error).answer()
    if isinstance(error, CancelledError):
        return Answer(499)  # the client hung up; nobody will read it
    log.failure("a request has failed", failure)
    return Problem(500, "the server has failed; its log says how").answer()
