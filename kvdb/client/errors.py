"""
What can go wrong, named for what it means to the caller.

The one thing that a caller of a write must know is what became of it:
L{OutcomeUnknown} alone says that nobody knows; every other error says that
nothing was done.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from typing import Any, Final


class ClientError(Exception):
    """
    A call that did not do what was asked.  Its text is one line.

    @ivar endpoint: who said so; empty where nobody in particular did.
    @ivar hint: what the caller can do, a sentence; may be empty.
    @ivar status: the HTTP status it came with; 0 where there was none.
    """

    def __init__(
        self, detail: str, *, endpoint: str = "", hint: str = "", status: int = 0
    ) -> None:
        super().__init__(" ".join(detail.split()))
        self.endpoint = endpoint
        self.hint = " ".join(hint.split())
        self.status = status


class NotFound(ClientError):
    """There is no such key, or no such member."""


class Conflict(ClientError):
    """
    The condition of a write does not hold; nothing was done.

    @ivar revision: at which the key was last changed; 0 where it is absent.
    """

    def __init__(self, detail: str, revision: int, **more: Any) -> None:
        super().__init__(detail, **more)
        self.revision = revision


class Unavailable(ClientError):
    """Nothing was done: nobody who could do it answered in time."""


class NoSpace(Unavailable):
    """Nothing was done: a disk is full, there or on the leader."""


class NotTrusted(Unavailable):
    """Nothing was done: whoever answered showed a certificate that is not trusted, or
    is for another name."""


class OutcomeUnknown(ClientError):
    """
    The write was sent, and nobody said what became of it: it may have been
    carried out, or may yet be.

    @ivar idempotency_key: with which the same write can be tried again, and is
        carried out once; empty where there is none.
    """

    def __init__(self, detail: str, idempotency_key: str = "", **more: Any) -> None:
        super().__init__(detail, **more)
        self.idempotency_key = idempotency_key


class Compacted(ClientError):
    """The history that was asked for is no longer kept."""


class BadRequest(ClientError):
    """The request is wrong in itself: too long, or not understood."""


class Refused(ClientError):
    """The request does not fit the cluster as it is; the text says why."""


class Unauthorized(ClientError):
    """The credentials are missing or wrong."""


class Forbidden(ClientError):
    """These credentials may not do this."""


class UnexpectedAnswer(ClientError):
    """Whatever answered, it did not answer as kvdb does."""


class Fate(enum.Enum):
    """What an answer says of the request."""

    FINAL = enum.auto()
    """That is the answer; another member would say the same, or is not to be asked."""
    NOT_DONE = enum.auto()
    """Nothing was done, and another member may do it."""
    UNKNOWN = enum.auto()
    """A write may have been carried out, or may yet be."""
    DECIDED = enum.auto()
    """What only the replicated log decides.  After an attempt whose outcome is
    unknown, such an answer to a retry with its Idempotency-Key is the outcome; any
    other refusal is this endpoint's alone, and says nothing of that attempt."""


_MEANINGS: Final[Mapping[int, tuple[type[ClientError], Fate]]] = {
    400: (BadRequest, Fate.FINAL),
    401: (Unauthorized, Fate.FINAL),
    403: (Forbidden, Fate.FINAL),
    404: (NotFound, Fate.DECIDED),
    405: (BadRequest, Fate.FINAL),
    408: (Unavailable, Fate.NOT_DONE),
    409: (Refused, Fate.FINAL),
    410: (Compacted, Fate.DECIDED),
    412: (Conflict, Fate.DECIDED),
    413: (BadRequest, Fate.FINAL),
    414: (BadRequest, Fate.FINAL),
    417: (BadRequest, Fate.FINAL),
    421: (Unavailable, Fate.NOT_DONE),  # that member is not asked by this name
    422: (BadRequest, Fate.DECIDED),
    429: (Unavailable, Fate.NOT_DONE),
    500: (UnexpectedAnswer, Fate.UNKNOWN),
    502: (Unavailable, Fate.UNKNOWN),  # a proxy's
    503: (Unavailable, Fate.NOT_DONE),
    504: (OutcomeUnknown, Fate.UNKNOWN),
    507: (NoSpace, Fate.NOT_DONE),
}
"""What each status of a refusal means, and what it says of the request."""


def _statuses(fate: Fate) -> frozenset[int]:
    return frozenset(s for s, (_, said) in _MEANINGS.items() if said is fate)


RETRY_STATUSES: Final = _statuses(Fate.NOT_DONE)
UNKNOWN_STATUSES: Final = _statuses(Fate.UNKNOWN)
DECIDED_STATUSES: Final = _statuses(Fate.DECIDED) | {200, 201, 204, 304}
"""See L{Fate}."""


_ETAG: Final = re.compile(r'(?:W/)?"?([0-9]{1,19})"?')
"""A revision has 63 bits."""


def revision_of_etag(etag: str | None) -> int:
    """The revision in an entity tag; 0 where there is none."""
    found = _ETAG.fullmatch((etag or "").strip())
    return int(found[1]) if found is not None else 0


def error_of(
    status: int, headers: Mapping[str, str], body: bytes, endpoint: str
) -> ClientError:
    """The error that an answer is (RFC 9457, where it is a problem)."""
    detail, hint = _problem(body)
    if status == 412:
        return Conflict(
            detail or "the condition does not hold",
            revision_of_etag(headers.get("etag")),
            endpoint=endpoint,
            hint=hint,
            status=status,
        )
    kind, _ = _MEANINGS.get(status, (UnexpectedAnswer, Fate.FINAL))
    if status == 404 and not detail:
        # Any server answers so for what it does not know; kvdb says more.
        kind, hint = UnexpectedAnswer, "Is this the address of a kvdb member?"
    if not detail:
        detail = f"answered {status}"
    if kind is UnexpectedAnswer and 300 <= status < 400:
        hint = "Redirects are not followed: name the members themselves."
    return kind(detail, endpoint=endpoint, hint=hint, status=status)


def error_of_read(
    status: int, headers: Mapping[str, str], body: bytes, endpoint: str
) -> ClientError:
    """As L{error_of}, for what changes nothing, and has no outcome."""
    error = error_of(status, headers, body, endpoint)
    if isinstance(error, OutcomeUnknown):
        return Unavailable(
            str(error), endpoint=endpoint, hint=error.hint, status=status
        )
    return error


def _problem(body: bytes) -> tuple[str, str]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(value, dict):
        return "", ""
    detail = value.get("detail") or value.get("reason") or value.get("title") or ""
    return str(detail), str(value.get("hint") or "")
