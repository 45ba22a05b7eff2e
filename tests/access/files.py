"""An access file for tests, whose secrets cost next to nothing to check."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kvdb.access.guard import Guard
from kvdb.access.rules import Access, parse_access
from kvdb.access.secrets import Hashed


def cheap(secret: bytes, log_n: int = 10) -> str:
    """C{secret}, hashed with the smallest parameters that are taken."""
    salt = b"a salt, no more"
    hashed = hashlib.scrypt(secret, salt=salt, n=1 << log_n, r=1, p=1, dklen=32)
    return str(Hashed(log_n, 1, 1, salt, hashed))


ROLES = """
[roles.reader]
read = ["/app/"]

[roles.writer]
write = ["/app/"]

[roles.admin]
admin = true

[roles.metrics]
metrics = true
"""


SECRETS = {name: name for name in ("reader", "writer", "admin", "metrics", "nobody")}


def access(
    anonymous: str = "", secret_of: Mapping[str, str] = SECRETS, log_n: int = 10
) -> Access:
    """A user for each role, by its name and with its name as secret, and one
    without roles."""
    users = "".join(
        f'[users.{name}]\nsecret = "{cheap(secret.encode(), log_n)}"\n'
        + (f'roles = ["{name}"]\n' if f"[roles.{name}]" in ROLES else "")
        for name, secret in secret_of.items()
    )
    granted = f"[anonymous]\nroles = [{anonymous}]\n"
    return parse_access((ROLES + users + granted).encode())


@define
class Beside:
    """A thread that works when it is told to."""

    waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = field(factory=list)
    at_once: bool = True
    done: int = 0

    def run(self, work: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.waiting.append((work, done))
        if self.at_once:
            self.work()
        return done

    def work(self) -> None:
        waiting, self.waiting = self.waiting, []
        for work, done in waiting:
            self.done += 1
            try:
                result = work()
            except Exception:
                done.errback(Failure())
            else:
                done.callback(result)


@define
class Guarded:
    """A guard, and what it stands on."""

    access: Access = field(factory=access)
    clock: Clock = field(factory=Clock)
    beside: Beside = field(factory=Beside)
    guard: Guard = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.guard = Guard(self.access, self.clock, self.beside.run, bytes)
