"""
What can go wrong, named for what it means to the caller.

The one thing that a caller of a write must know is what became of it:
L{OutcomeUnknown} alone says that nobody knows; every other error says that
nothing was done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

RETRY_STATUSES: Final = frozenset({408, 429, 503})
"""Nothing was done, and another endpoint may do it."""

UNKNOWN_STATUSES: Final = frozenset({500, 502, 504})
"""A write that got one of these may yet be carried out.  502 is a proxy's."""

DECIDED_STATUSES: Final = frozenset({200, 201, 204, 304, 404, 410, 412, 422})
"""What only the replicated log decides.  After an attempt whose outcome is
unknown, these answers to a retry with its Idempotency-Key are the outcome; any
other refusal is this endpoint's alone, and says nothing of that attempt."""


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


_KINDS: Final[Mapping[int, type[ClientError]]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    405: BadRequest,
    408: Unavailable,
    409: Refused,
    410: Compacted,
    413: BadRequest,
    414: BadRequest,
    417: BadRequest,
    422: BadRequest,
    429: Unavailable,
    500: UnexpectedAnswer,
    502: Unavailable,
    503: Unavailable,
    504: OutcomeUnknown,
    507: NoSpace,
}


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
    kind = _KINDS.get(status, UnexpectedAnswer)
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
