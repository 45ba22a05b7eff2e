"""
What each address asks of whoever uses it, and the refusals.

======================================  ========================================
address                                 asks for
======================================  ========================================
``/_/live /_/ready /health /version``   nothing
``GET /_/ui...``                        nothing: files, without data
``GET KEY``                             ``read`` on the key
``PUT KEY``, ``DELETE KEY``             ``write`` on the key
``GET /_/kv``, ``GET /_/watch``         ``read`` on the whole prefix, or the key
``GET /_/status``, ``/_/members``       any role
``GET /metrics``                        ``metrics``
all others                              ``admin``
======================================  ========================================

Rules: what does not stand here asks for ``admin``, so that a new address is
closed until somebody opens it; keys are compared as they are stored, not as
they were sent.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from typing import Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred, inlineCallbacks

from kvdb.access.guard import Guard, Refused, TooBusy, TooManyFailures
from kvdb.access.rules import Principal
from kvdb.rest.call import Call
from kvdb.rest.parsing import KV_PREFIX, is_reserved, key_of
from kvdb.rest.problems import Problem

CHALLENGE: Final = b'Basic realm="kvdb", charset="UTF-8", Bearer realm="kvdb"'

_PUBLIC: Final = frozenset({b"/_/live", b"/_/ready", b"/health", b"/version"})
_SELECTIONS: Final = frozenset({b"/_/kv", b"/_/watch"})
_STATUS: Final = frozenset({b"/_/status", b"/_/members"})
_READING: Final = frozenset({b"GET", b"HEAD"})
_NO_LIMIT: Final = 1 << 30
"""Keys that are too long are refused by whoever looks for them."""


class Right(enum.Enum):
    """What can be asked for; the values are those of the access file."""

    NOTHING = "nothing"
    ANY_ROLE = "any role"
    READ = "read"
    WRITE = "write"
    METRICS = "metrics"
    ADMIN = "admin"


@frozen(slots=True)
class Need:
    """
    @ivar on: what keys begin with, for reading and writing.
    """

    right: Right
    on: bytes = b""

    def is_met_by(self, principal: Principal) -> bool:
        """Whether C{principal} may."""
        match self.right:
            case Right.NOTHING:
                return True
            case Right.ANY_ROLE:
                return principal.is_known
            case Right.READ:
                return self.on.startswith(principal.read)
            case Right.WRITE:
                return self.on.startswith(principal.write)
            case Right.METRICS:
                return principal.metrics
            case Right.ADMIN:
                return principal.admin

    def __str__(self) -> str:
        if self.right in (Right.READ, Right.WRITE):
            return f'"{self.right.value}" on {self.on.decode("utf-8", "replace")}'
        return f'"{self.right.value}"'


def need_of(call: Call) -> Need:
    """
    What a request asks for.

    @raise Problem: it is none that could be answered.
    """
    path, reads = call.path, call.method in _READING
    if path in _PUBLIC:
        return Need(Right.NOTHING)
    if path == b"/_/ui" or path.startswith(b"/_/ui/"):
        return Need(Right.NOTHING if reads else Right.ADMIN)
    if path in _SELECTIONS and reads:
        chosen = [*call.args.get(b"prefix", ()), *call.args.get(b"key", ())]
        # Two are refused later; until then they must both be met.
        return Need(Right.READ, _common(chosen) if chosen else b"/")
    if path in _STATUS and reads:
        return Need(Right.ANY_ROLE)
    if path == b"/metrics" and reads:
        return Need(Right.METRICS)
    if is_reserved(path) and not path.startswith(KV_PREFIX):
        return Need(Right.ADMIN)
    if reads:
        return Need(Right.READ, key_of(path, _NO_LIMIT))
    is_member = not path.startswith(KV_PREFIX) and path[1:].isdigit()
    if call.method == b"PUT" or (call.method == b"DELETE" and not is_member):
        return Need(Right.WRITE, key_of(path, _NO_LIMIT))
    return Need(Right.ADMIN)


def _common(keys: list[bytes]) -> bytes:
    """What they all begin with."""
    first, last = min(keys), max(keys)
    length = next(
        (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b),
        len(first),
    )
    return first[:length]


@inlineCallbacks
def check_access(
    guard: Guard, call: Call, address: str
) -> Generator[Deferred[Any], Any, Principal]:
    """
    Who asks, if they may.

    @param address: whence the request comes.
    @raise Problem: they may not.
    """
    need = need_of(call)
    header = call.header("authorization")
    if need.right is Right.NOTHING:
        return guard.anonymous
    try:
        shown = None if header is None else header.encode("latin-1")
        principal = yield guard.identify(shown, address)
    except TooManyFailures as error:
        raise Problem(
            429,
            str(error),
            "Wait, and look at the name and the secret.",
            {b"retry-after": b"%d" % error.seconds},
        ) from error
    except Refused as error:
        raise _unauthorized(str(error)) from error
    except TooBusy as error:
        raise Problem(503, str(error), "", {b"retry-after": b"1"}) from error
    if not need.is_met_by(principal):
        if principal.name is None:
            raise _unauthorized(f"this needs a role with {need}")
        raise Problem(
            403,
            f"{principal} has no role with {need}",
            "Roles stand in the server's --access-file.",
        )
    return principal  # type: ignore[no-any-return]


def _unauthorized(detail: str) -> Problem:
    return Problem(
        401,
        detail,
        "Authorization: Basic with a name and a secret, or Bearer NAME.SECRET.",
        {b"www-authenticate": CHALLENGE},
    )
