"""
From what a request shows (C{Authorization}) to who asks.

A secret is checked with scrypt, in a thread, the first time it is shown; then
it is known by a keyed hash of it, so that requests cost no more than that
(etcd burns CPU on each: etcd-io/etcd#3223).

Rules:

* Who fails often must wait: by address, in a bounded table.  A secret that was
  right before is taken at once, whoever fails beside.  A wrong one counts when it
  was checked, whether or not anybody waits to hear, and once: to say it again is
  no guess.
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
from itertools import islice
from typing import Any, Final

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvdb.access.rules import Access, Principal, User
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


@frozen(slots=True, eq=False)
class _Check:
    """
    A secret that is being checked.

    @ivar user: whose; None if there is nobody of that name.
    @ivar place: what counts as the address that showed it first.
    @ivar waiting: who wait to hear.
    """

    name: str
    user: User | None
    place: str
    waiting: list[Deferred[Principal]] = field(factory=list)


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
    _key: bytes = field(init=False, repr=False)
    _generation: int = 0
    _right: OrderedDict[bytes, Principal] = field(factory=OrderedDict, repr=False)
    _wrong: OrderedDict[bytes, None] = field(factory=OrderedDict, repr=False)
    _checking: dict[tuple[int, bytes], _Check] = field(factory=dict, repr=False)
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

    @property
    def generation(self) -> int:
        """How often the access file has changed."""
        return self._generation

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
        shown = credentials_of(header)
        name = None if shown is None else shown[0]
        if digest in self._wrong:
            raise self._refused(place, name)
        # Of this file only: by the one before, what is wrong now may be right.
        checking = self._checking.get((self._generation, digest))
        if checking is not None:
            done: Deferred[Principal] = Deferred()
            checking.waiting.append(done)
            return done
        self._check_failures(place)
        if shown is None:
            raise self._failed(digest, place, name)
        return self._check(digest, *shown, place)

    def _check(
        self, digest: bytes, name: str, secret: bytes, place: str
    ) -> Deferred[Principal]:
        if len(self._checking) >= MAX_CHECKS:
            raise TooBusy("too many secrets wait to be checked")
        user = self.access.users.get(name)
        hashed = self._decoy(name) if user is None else user.hashed
        done: Deferred[Principal] = Deferred()
        key = self._generation, digest
        self._checking[key] = _Check(name, user, place, [done])
        checking = self.in_thread(lambda: hashed.matches(secret))
        checking.addBoth(self._checked, key)
        return done

    def _checked(self, matches: bool | Failure, key: tuple[int, bytes]) -> None:
        generation, digest = key
        check = self._checking.pop(key)
        error: Exception | Failure
        if isinstance(matches, Failure):
            error = matches
        elif generation != self._generation:
            error = TooBusy("the access file has just changed")
        elif check.user is None or not matches:
            error = self._failed(digest, check.place, check.name)
        else:
            _remember(self._right, digest, check.user.principal)
            for done in check.waiting:
                done.callback(check.user.principal)
            return
        for done in check.waiting:
            done.errback(error)

    def _decoy(self, name: str) -> Hashed:
        """
        What the secret of somebody unknown is held against: as dear to check as
        a user's, and for a name always the same one's.
        """
        users = self.access.users
        if not users:
            return _NOBODY
        number = int.from_bytes(self._digest(name.encode()), "big") % len(users)
        [user] = islice(users.values(), number, number + 1)
        return evolve(user.hashed, hash=bytes(HASH_BYTES))

    def _digest(self, header: bytes) -> bytes:
        return hmac.digest(self._key, header, hashlib.sha256)

    # Failures: for each address, when the last of them will be forgotten.

    def _check_failures(self, place: str) -> None:
        wait = self._failures.get(place, 0.0) - self.clock.seconds()
        over = wait - (FAILURES - 1) * FAILURE_SECONDS
        if over > 0:
            raise TooManyFailures(int(over) + 1)
        checking = sum(check.place == place for check in self._checking.values())
        if over + checking * FAILURE_SECONDS > 0:  # if they are all wrong
            raise TooBusy("too many secrets from this address wait to be checked")

    def _failed(self, digest: bytes, place: str, name: str | None) -> Refused:
        _remember(self._wrong, digest, None)
        now = self.clock.seconds()
        until = max(now, self._failures.pop(place, now)) + FAILURE_SECONDS
        self._failures[place] = until
        if len(self._failures) > MAX_ADDRESSES:
            self._failures.popitem(last=False)
        return self._refused(place, name)

    def _refused(self, place: str, name: str | None) -> Refused:
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
"""What the secrets of unknown names are held against where there are no users."""
