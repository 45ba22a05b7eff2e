"""
What a cluster answers, as values with types.

Read from JSON with care for what later releases add: what is not known is
passed over, what is missing is None where it may be.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from kvdb.client.errors import UnexpectedAnswer

MAX_ID: Final = 2**63 - 1


@frozen(slots=True)
class Value:
    """
    @ivar revision: at which the key was last changed.
    """

    value: bytes
    revision: int


@frozen(slots=True)
class Entry:
    """
    A key in a list.

    @ivar value: None where only keys were asked for.
    @ivar mod_revision: at which it was last changed.
    @ivar version: how often it was changed since it came to be, from 1.
    """

    key: bytes
    value: bytes | None
    create_revision: int
    mod_revision: int
    version: int


@frozen(slots=True)
class Page:
    """
    @ivar revision: the one that all of the page is of.
    @ivar next: where the next page starts; None on the last.
    """

    revision: int
    entries: Sequence[Entry]
    next: bytes | None


@frozen(slots=True)
class Put:
    """
    A key got a value.

    @ivar previous_revision: 0 for a key that was absent.
    @ivar previous_value: what it had before, for a watch with C{previous}; None for
        a key that was absent.
    @ivar time: the proposer's clock, in seconds since 1970.
    """

    key: bytes
    value: bytes
    revision: int
    create_revision: int
    version: int
    previous_revision: int
    time: float
    previous_value: bytes | None = None


@frozen(slots=True)
class Delete:
    """A key was removed; see L{Put}."""

    key: bytes
    revision: int
    previous_revision: int
    time: float
    previous_value: bytes | None = None


Event = Put | Delete


@frozen(slots=True)
class Member:
    """
    A member, as the one that answered sees it.

    @ivar role: C{leader}, C{follower}, C{candidate}, C{learner} or C{unknown}.
    @ivar match_index: how much of the log it holds; the leader alone knows.
    @ivar lag: entries it is behind the leader; likewise.
    @ivar connected: whether a connection to it is up; None for itself.

    What follows is what the member last said of itself, C{age_seconds} ago; None
    where nothing was heard of late.

    @ivar client_url: where its clients find it.
    @ivar last_index: of its log.
    @ivar store_bytes: of its store on disk.
    @ivar links: ids of the members that it is connected to.
    """

    id: int
    url: str
    role: str
    match_index: int | None = None
    lag: int | None = None
    connected: bool | None = None
    client_url: str | None = None
    term: int | None = None
    last_index: int | None = None
    applied_index: int | None = None
    revision: int | None = None
    version: str | None = None
    store_bytes: int | None = None
    links: Sequence[int] | None = None
    age_seconds: float | None = None


@frozen(slots=True)
class Status:
    """
    A member's own view (C{GET /_/status}).

    @ivar leader: its id, or None while none is known.
    @ivar alarms: what is wrong, each a sentence that says what to do.
    @ivar warnings: what may surprise, likewise.
    """

    id: int
    cluster_id: str
    role: str
    leader: int | None
    term: int
    commit_index: int
    applied_index: int
    revision: int
    compacted_revision: int
    log_bytes: int
    store_bytes: int
    version: str
    members: Sequence[Member]
    alarms: Sequence[str]
    warnings: Sequence[str]


@frozen(slots=True)
class Health:
    """
    @ivar healthy: whether a linearizable read works there.
    @ivar reason: why not.
    """

    healthy: bool
    reason: str


class _Fields:
    """A JSON object, read field by field."""

    def __init__(self, value: Any, what: str, endpoint: str) -> None:
        self._what, self._endpoint = what, endpoint
        if not isinstance(value, dict):
            raise self._wrong("no JSON object")
        self._value: Mapping[str, Any] = value

    def _wrong(self, why: str) -> UnexpectedAnswer:
        return UnexpectedAnswer(
            f"the answer about {self._what} is not as kvdb gives it: {why}",
            endpoint=self._endpoint,
            hint="Look whether the endpoint is a kvdb member.",
        )

    def number(self, name: str) -> int:
        found = self._value.get(name)
        if type(found) is not int:
            raise self._wrong(f"{name} is no number")
        return found

    def maybe_number(self, name: str) -> int | None:
        return None if self._value.get(name) is None else self.number(name)

    def seconds(self, name: str) -> float:
        found = self._value.get(name, 0)
        try:
            if isinstance(found, int | float):
                return float(found)
        except OverflowError:
            pass
        raise self._wrong(f"{name} is no number")

    def text(self, name: str) -> str:
        found = self._value.get(name)
        if not isinstance(found, str):
            raise self._wrong(f"{name} is no text")
        return found

    def maybe_text(self, name: str) -> str | None:
        return None if self._value.get(name) is None else self.text(name)

    def maybe_flag(self, name: str) -> bool | None:
        found = self._value.get(name)
        return found if isinstance(found, bool) else None

    def anything(self, name: str) -> Any:
        return self._value.get(name)

    def many(self, name: str) -> list[Any]:
        found = self._value.get(name)
        if not isinstance(found, list):
            raise self._wrong(f"{name} is no list")
        return found

    def maybe_bytes(self, name: str) -> bytes | None:
        """Text, or what stands in Base64 because it is none."""
        encoded = self._value.get(name + "_base64")
        if encoded is None:
            text = self.maybe_text(name)
            try:
                return None if text is None else text.encode()
            except UnicodeEncodeError:  # half of a surrogate pair
                raise self._wrong(f"{name} is no text") from None
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise self._wrong(f"{name}_base64 is no Base64") from None

    def bytes_(self, name: str) -> bytes:
        found = self.maybe_bytes(name)
        if found is None:
            raise self._wrong(f"there is no {name}")
        return found


def json_of(body: bytes, what: str, endpoint: str) -> Any:
    """@raise UnexpectedAnswer: it is no JSON."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise UnexpectedAnswer(
            f"the answer about {what} is no JSON",
            endpoint=endpoint,
            hint="Look whether the endpoint is a kvdb member.",
        ) from None


def page_of(value: Any, endpoint: str) -> Page:
    """A page of C{GET /_/kv}."""
    fields = _Fields(value, "keys", endpoint)
    entries = [_entry_of(item, endpoint) for item in fields.many("keys")]
    return Page(fields.number("revision"), entries, fields.maybe_bytes("next"))


def _entry_of(value: Any, endpoint: str) -> Entry:
    fields = _Fields(value, "keys", endpoint)
    return Entry(
        key=fields.bytes_("key"),
        value=fields.maybe_bytes("value"),
        create_revision=fields.number("create_revision"),
        mod_revision=fields.number("mod_revision"),
        version=fields.number("version"),
    )


def put_of(value: Any, endpoint: str) -> Put:
    """The data of a C{put} event."""
    fields = _Fields(value, "a change", endpoint)
    return Put(
        key=fields.bytes_("key"),
        value=fields.bytes_("value"),
        revision=fields.number("revision"),
        create_revision=fields.number("create_revision"),
        version=fields.number("version"),
        previous_revision=fields.number("previous_revision"),
        time=fields.seconds("time"),
        previous_value=fields.maybe_bytes("previous_value"),
    )


def delete_of(value: Any, endpoint: str) -> Delete:
    """The data of a C{delete} event."""
    fields = _Fields(value, "a change", endpoint)
    return Delete(
        key=fields.bytes_("key"),
        revision=fields.number("revision"),
        previous_revision=fields.number("previous_revision"),
        time=fields.seconds("time"),
        previous_value=fields.maybe_bytes("previous_value"),
    )


def position_of(value: Any, endpoint: str) -> int:
    """The revision in a C{ready} or C{progress} event."""
    return _Fields(value, "changes", endpoint).number("revision")


def members_of(value: Any, endpoint: str) -> list[Member]:
    """The members in an answer that has them."""
    found = _Fields(value, "members", endpoint).many("members")
    return [_member_of(item, endpoint) for item in found]


def _member_of(value: Any, endpoint: str) -> Member:
    fields = _Fields(value, "members", endpoint)
    links, age = fields.anything("links"), fields.anything("age_seconds")
    return Member(
        id=fields.number("id"),
        url=fields.text("url"),
        role=fields.text("role"),
        match_index=fields.maybe_number("match_index"),
        lag=fields.maybe_number("lag"),
        connected=fields.maybe_flag("connected"),
        client_url=fields.maybe_text("client_url"),
        term=fields.maybe_number("term"),
        last_index=fields.maybe_number("last_index"),
        applied_index=fields.maybe_number("applied_index"),
        revision=fields.maybe_number("revision"),
        version=fields.maybe_text("version"),
        store_bytes=fields.maybe_number("store_bytes"),
        links=links if isinstance(links, list) else None,
        age_seconds=None if age is None else fields.seconds("age_seconds"),
    )


def status_of(value: Any, endpoint: str) -> Status:
    """The answer of C{GET /_/status}."""
    fields = _Fields(value, "status", endpoint)
    return Status(
        id=fields.number("id"),
        cluster_id=fields.text("cluster_id"),
        role=fields.text("role"),
        leader=fields.maybe_number("leader"),
        term=fields.number("term"),
        commit_index=fields.number("commit_index"),
        applied_index=fields.number("applied_index"),
        revision=fields.number("revision"),
        compacted_revision=fields.number("compacted_revision"),
        log_bytes=fields.number("log_bytes"),
        store_bytes=fields.number("store_bytes"),
        version=fields.text("version"),
        members=members_of(value, endpoint),
        alarms=[str(alarm) for alarm in fields.many("alarms")],
        warnings=[str(warning) for warning in fields.many("warnings")],
    )


def leader_of(value: Any, endpoint: str) -> int:
    """The answer of C{POST /_/leader}."""
    return _Fields(value, "the leader", endpoint).number("leader")


def health_of(value: Any, endpoint: str) -> Health:
    """The answer of C{GET /health}."""
    fields = _Fields(value, "health", endpoint)
    return Health(
        fields.anything("health") in ("true", True), fields.maybe_text("reason") or ""
    )
