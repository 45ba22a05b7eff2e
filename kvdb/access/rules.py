"""
The access file: roles, who has them, and what follows.

::

    [roles.app]
    read = ["/app/", "/shared/"]      # keys that begin so
    write = ["/app/"]

    [roles.operator]
    admin = true                      # membership, leadership, backup
    metrics = true

    [users.ann]
    secret = "$scrypt$ln=14,r=8,p=1$...$..."     # python -m kvdb.access hash
    roles = ["app", "operator"]

    [anonymous]                       # who gives no name
    roles = []

Rules: what is not granted is refused; a name or a field that is not known is
an error, for a slip of the pen must not open a door or close one.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Mapping
from typing import Any, Final

from attrs import frozen

from kvdb.access.secrets import Hashed, parse_hashed

MAX_USERS: Final = 10_000
MAX_PREFIXES: Final = 256
"""In all roles of one user, for each of reading and writing."""

NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A user's or a role's; without the dot and the colon that end one."""

_ROLE_FIELDS: Final = frozenset({"read", "write", "admin", "metrics"})


@frozen(slots=True)
class Principal:
    """
    Somebody, and what they may do.

    @ivar name: None for whoever gives none.
    @ivar read, write: what the keys begin with that they may read, and write.
    @ivar admin: may change the membership, move leadership, take backups.
    @ivar metrics: may read C{/metrics}.
    """

    name: str | None
    read: tuple[bytes, ...] = ()
    write: tuple[bytes, ...] = ()
    admin: bool = False
    metrics: bool = False

    @property
    def is_known(self) -> bool:
        """Whether they have any role with something in it."""
        granted = self.read or self.write or self.admin or self.metrics
        return self.name is not None or bool(granted)

    def __str__(self) -> str:
        return "anonymous" if self.name is None else f"user {self.name!r}"


@frozen(slots=True)
class User:
    """Somebody with a secret."""

    hashed: Hashed
    principal: Principal


@frozen(slots=True)
class Access:
    """
    What an access file says.

    @ivar users: by name.
    @ivar anonymous: whoever gives no name.
    """

    users: Mapping[str, User]
    anonymous: Principal


def parse_access(data: bytes) -> Access:
    """
    Read TOML, or JSON of the same shape.

    @raise ValueError: with the reason, in one line.
    """
    whole = _parse(data)
    _only(whole, ("roles", "users", "anonymous"), "the file")
    roles = {
        _name(name, "role"): _role(_table(body, f"roles.{name}"), f"roles.{name}")
        for name, body in _table(whole.get("roles", {}), "roles").items()
    }
    raw_users = _table(whole.get("users", {}), "users")
    if len(raw_users) > MAX_USERS:
        raise ValueError(f"there are {len(raw_users)} users; {MAX_USERS} may be")
    users = {
        _name(name, "user"): _user(name, _table(body, f"users.{name}"), roles)
        for name, body in raw_users.items()
    }
    anonymous = _table(whole.get("anonymous", {}), "anonymous")
    _only(anonymous, ("roles",), "anonymous")
    return Access(users, _principal(None, anonymous, roles, "anonymous"))


def _parse(data: bytes) -> dict[str, Any]:
    is_json = data.lstrip().startswith(b"{")
    try:
        text = data.decode()
        whole = json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        form = "JSON" if is_json else "TOML"
        raise ValueError(f"is not {form} ({error})") from None
    return _table(whole, "the file")


def _role(body: dict[str, Any], where: str) -> Principal:
    _only(body, _ROLE_FIELDS, where)
    return Principal(
        None,
        _prefixes(body.get("read", []), f"{where}.read"),
        _prefixes(body.get("write", []), f"{where}.write"),
        _flag(body.get("admin", False), f"{where}.admin"),
        _flag(body.get("metrics", False), f"{where}.metrics"),
    )


def _user(name: str, body: dict[str, Any], roles: Mapping[str, Principal]) -> User:
    where = f"users.{name}"
    _only(body, ("secret", "roles"), where)
    secret = body.get("secret")
    if not isinstance(secret, str):
        raise ValueError(f"{where} has no secret: python -m kvdb.access hash makes one")
    try:
        hashed = parse_hashed(secret)
    except ValueError as error:
        raise ValueError(f"{where}.secret {error}") from None
    return User(hashed, _principal(name, body, roles, where))


def _principal(
    name: str | None, body: dict[str, Any], roles: Mapping[str, Principal], where: str
) -> Principal:
    names = body.get("roles", [])
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{where}.roles is not a list of roles' names")
    for one in names:
        if one not in roles:
            known = ", ".join(sorted(roles)) or "none"
            raise ValueError(f"{where}.roles has {one!r}; the roles are: {known}")
    mine = [roles[one] for one in names]
    read = tuple(dict.fromkeys(p for role in mine for p in role.read))
    write = tuple(dict.fromkeys(p for role in mine for p in role.write))
    if max(len(read), len(write)) > MAX_PREFIXES:
        raise ValueError(f"{where} has more than {MAX_PREFIXES} prefixes")
    admin, metrics = any(r.admin for r in mine), any(r.metrics for r in mine)
    return Principal(name, read, write, admin, metrics)


def _prefixes(value: Any, where: str) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not all(isinstance(p, str) for p in value):
        raise ValueError(f"{where} is not a list of prefixes")
    for prefix in value:
        if not prefix.startswith("/"):
            raise ValueError(f"{where} has {prefix!r}; a prefix begins with a slash")
    return tuple(prefix.encode() for prefix in value)


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{where} is not true or false")
    return value


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is not a table")
    return value


def _name(name: str, what: str) -> str:
    if NAME.fullmatch(name) is None:
        raise ValueError(
            f"{name!r} is no {what}'s name: 1 to 64 of letters, digits, - and _"
        )
    return name


def _only(body: dict[str, Any], known: Collection[str], where: str) -> None:
    for name in body:
        if name not in known:
            fields = ", ".join(sorted(known))
            raise ValueError(f"{where} has {name!r}; known there: {fields}")
