"""
From what a request shows (C{Authorization}) to who asks.

A secret is checked with scrypt, in a thread, the first time it is shown; then
it is known by a keyed hash of it, so that requests cost no more than that
(etcd burns CPU on each: etcd-io/etcd#3223).

Rules:

* Who fails often must wait: by address, in a bounded table.  A secret that was
  right before is taken at once, whoever fails beside.
* An unknown name costs as much as a wrong secret.
* No secret is kept, none is logged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kvdb.access.rules import Access, Principal
from kvdb.access.secrets import (
    BLOCK,
    HASH_BYTES,
    LOG_N,
    MAX_SECRET_BYTES,
    PARALLEL,
    SALT_BYTES,
    Hashed,
)
from kvdb.complaints import Complaints

log = Logger(namespace="kvdb.access")

MAX_REMEMBERED: Final = 4096
"""Secrets that were right, and as many that were wrong."""

MAX_CHECKS: Final = 64
"""Secrets that wait to be checked."""

MAX_ADDRESSES: Final = 4096
"""Of how many addresses failures are counted."""

FAILURES: Final = 10
"""How often an address may fail at once."""

FAILURE_SECONDS: Final = 6.0
"""After how long one failure is forgotten."""

InThread = Callable[[Callable[[], Any]], Deferred[Any]]


class Refused(Exception):
    """Nobody is known by what was shown."""


class TooManyFailures(Refused):
    """
    This address must wait.

    @ivar seconds: so long.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__("too many wrong secrets from this address")
        self.seconds = seconds


class TooBusy(Exception):
    """Too many secrets wait to be checked."""


@define(slots=True, eq=False)
class Guard:
    """
    See the head of this module.

    @ivar access: what the access file says.
    @param in_thread: does work that takes long.
    @param entropy: gives bytes that nobody can foretell.
    @ivar forgotten: called when all that was remembered is forgotten.
    """

    access: Access
    clock: IReactorTime
    in_thread: InThread
    entropy: Callable[[int], bytes]
    forgotten: Callable[[], None] = lambda: None
    _complaints: Complaints = field(init=False)
    _key: bytes = field(init=False)
    _generation: int = 0
    _right: OrderedDict[bytes, Principal] = field(factory=OrderedDict)
    _wrong: OrderedDict[bytes, None] = field(factory=OrderedDict)
    _checking: dict[bytes, list[Deferred[bool]]] = field(factory=dict)
    _failures: OrderedDict[str, float] = field(factory=OrderedDict)

    def __attrs_post_init__(self) -> None:
        self._key = self.entropy(32)
        self._complaints = Complaints(self.clock, log)

    @property
    def anonymous(self) -> Principal:
        """Whoever gives no name."""
        return self.access.anonymous

    def replace(self, access: Access) -> None:
        """The access file has changed."""
        self.access = access
        self._generation += 1
        self._right.clear()
        self._wrong.clear()
        self.forgotten()

    def known(self, header: bytes) -> Principal | None:
        """Who shows this C{Authorization}, if that was found out before."""
        return self._right.get(self._digest(header))

    def identify(self, header: bytes | None, address: str) -> Deferred[Principal]:
        """
        Who asks.

        @param header: what follows C{Authorization:}.
        @raise Refused, TooManyFailures, TooBusy: through the Deferred or not.
        """
        if header is None:
            return succeed(self.anonymous)
        digest = self._digest(header)
        principal = self._right.get(digest)
        if principal is not None:
            self._right.move_to_end(digest)
            return succeed(principal)
        place = _place(address)
        self._check_failures(place)
        shown = credentials_of(header)
        if shown is None or digest in self._wrong:
            raise self._failed(place, None if shown is None else shown[0])
        return self._check(digest, *shown, place)

    def _check(
        self, digest: bytes, name: str, secret: bytes, place: str
    ) -> Deferred[Principal]:
        waiting = self._checking.get(digest)
        done: Deferred[Any] = Deferred()
        user = self.access.users.get(name)
        generation = self._generation
        if waiting is not None:
            waiting.append(done)
        elif len(self._checking) >= MAX_CHECKS:
            raise TooBusy("too many secrets wait to be checked")
        else:
            self._checking[digest] = [done]
            hashed = _NOBODY if user is None else user.hashed
            checking = self.in_thread(lambda: hashed.matches(secret))
            checking.addBoth(self._checked, digest)

        def judge(matches: bool) -> Principal:
            if generation != self._generation:
                raise TooBusy("the access file has just changed")
            if user is None or not matches:
                _remember(self._wrong, digest, None)
                raise self._failed(place, name)
            _remember(self._right, digest, user.principal)
            return user.principal

        return done.addCallback(judge)

    def _checked(self, result: Any, digest: bytes) -> None:
        for done in self._checking.pop(digest):
            done.callback(result)  # an errback, where it is a Failure

    def _digest(self, header: bytes) -> bytes:
        return hmac.digest(self._key, header, hashlib.sha256)

    # Failures: for each address, when the last of them will be forgotten.

    def _check_failures(self, place: str) -> None:
        wait = self._failures.get(place, 0.0) - self.clock.seconds()
        over = wait - (FAILURES - 1) * FAILURE_SECONDS
        if over > 0:
            raise TooManyFailures(int(over) + 1)

    def _failed(self, place: str, name: str | None) -> Refused:
        now = self.clock.seconds()
        until = max(now, self._failures.pop(place, now)) + FAILURE_SECONDS
        self._failures[place] = until
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        who = "a malformed name" if name is None else f"the name {name[:64]!r}"
        self._complaints.say("failed", f"{place} has shown a wrong secret for {who}")
        return Refused("the name or the secret is wrong")


def credentials_of(header: bytes) -> tuple[str, bytes] | None:
    """
    The name and the secret in an C{Authorization}: Basic (RFC 7617), or Bearer
    (RFC 6750) with C{NAME.SECRET}; None where it holds none.
    """
    scheme, _, rest = header.strip().partition(b" ")
    rest = rest.strip()
    if scheme.lower() == b"basic":
        try:
            rest = base64.b64decode(rest, validate=True)
        except binascii.Error:
            return None
        name, colon, secret = rest.partition(b":")
    elif scheme.lower() == b"bearer":
        name, colon, secret = rest.partition(b".")
    else:
        return None
    if not colon or not name.isascii() or not 0 < len(secret) <= MAX_SECRET_BYTES:
        return None
    return name.decode(), secret


def _remember(table: OrderedDict[bytes, Any], digest: bytes, value: Any) -> None:
    table[digest] = value
    if len(table) > MAX_REMEMBERED:
        table.popitem(last=False)


def _place(address: str) -> str:
    """What counts as one address: of IPv6 the first 64 bits, which are one
    customer's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if parsed.version == 6:
        mapped = parsed.ipv4_mapped
        if mapped is not None:
            return str(mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


_NOBODY: Final = Hashed(LOG_N, BLOCK, PARALLEL, bytes(SALT_BYTES), bytes(HASH_BYTES))
"""What the secrets of unknown names are held against."""
