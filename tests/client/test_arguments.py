"""
Every argument of every call is looked at before anything is sent.

The table below has an entry for each parameter there is: a new one without an entry
fails the test.
"""

from __future__ import annotations

import inspect
import io
import math
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from kvdb.client import Client
from kvdb.client.arguments import key_of, value_bytes
from kvdb.client.testing import FakeCluster
from kvdb.client.transport import Transport

NO_KEYS: Final = (5, 5.0, True, [47, 97], {"/a": 1}, "", b"", "a", b"a/", "/\ud800")
NO_FLAGS: Final[tuple[Any, ...]] = (0, 1, "true", "", [])
NO_NUMBERS: Final = (-1, 2**63, True, 1.0, math.nan, "1", b"1")
NO_TEXTS: Final = (5, b"text", ["text"])
NO_SECONDS: Final = (0, -1, math.nan, math.inf, -math.inf, True, "1", None)

WRONG: Final[dict[str, tuple[Any, ...]]] = {
    "key": (*NO_KEYS, None),
    "value": (5, 0, None, "text", True, 5.0, [1, 2], {}, (1,), range(3)),
    "prefix": NO_KEYS,
    "start": NO_KEYS,
    "stale": (*NO_FLAGS, None),
    "keys_only": (*NO_FLAGS, None),
    "if_present": (*NO_FLAGS, None),
    "previous": (*NO_FLAGS, None),
    "of_leader": (*NO_FLAGS, None),
    "revision": NO_NUMBERS,
    "if_revision": NO_NUMBERS,
    "since": NO_NUMBERS,
    "page_keys": (*NO_NUMBERS, 0, 1001, None),
    "node": (*NO_NUMBERS, 0, None),
    "to": (*NO_NUMBERS, 0),
    "url": (*NO_TEXTS, None),
    "idempotency_key": (*NO_TEXTS, "", "é", "a\n", "k" * 255),
    "endpoint": (*NO_TEXTS, "ftp://a:1", "http://", "http://u:p@a:1", "a b"),
    "file": (None, 5, "path", b""),
    "progress": (None, 5, "text"),
    # The constructor's.
    "endpoints": (5, b"http://a:1", [], [b"http://a:1"], [5], "", None, "ftp://a:1"),
    "tls": (True, "ca.pem", 5),
    "timeout": NO_SECONDS,
    "attempt_timeout": NO_SECONDS,
    "token": (*NO_TEXTS, "", "a b", "é", "a\n"),
    "user": (*NO_TEXTS, "a:b", "a"),
    "password": (*NO_TEXTS, "secret"),
    "entropy": (None, 5, b"random"),
}

RIGHT: Final[dict[str, Any]] = {
    "key": "/k",
    "value": b"v",
    "revision": 1,
    "node": 4,
    "url": "http://10.0.0.4:1",
    "file": io.BytesIO(),
    "endpoints": "http://a:1",
    "reactor": Clock(),
}
"""Of parameters that must be given."""

ABOUT_OTHERS: Final = {"reactor", "agent", "self"}
"""Handed on as they are, to Twisted, which looks at them."""

METHODS: Final[dict[str, Callable[..., Any]]] = {
    name: method
    for name, method in vars(Client).items()
    if inspect.isfunction(method) and not name.startswith("_")
}


def cases(method: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Each parameter with each of its wrong values; None where it may be left out."""
    return [
        (name, value)
        for name, parameter in inspect.signature(method).parameters.items()
        if name not in ABOUT_OTHERS
        for value in WRONG[name]
        if value is not None or parameter.default is not None
    ]


def given_rightly(method: Callable[..., Any]) -> dict[str, Any]:
    """What must be given."""
    return {
        name: RIGHT[name]
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.default is inspect.Parameter.empty and name != "self"
    }


@pytest.mark.parametrize("name", sorted(METHODS))
def test_no_wrong_argument_is_sent(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster()
    client = cluster.client()
    asked: list[Any] = []

    async def ask(*words: Any) -> Any:
        asked.append(words)
        raise AssertionError(f"{name} was sent")

    monkeypatch.setattr(Transport, "ask", ask)
    monkeypatch.setattr(Transport, "open", ask)

    async def call(**words: Any) -> None:
        found = getattr(client, name)(**words)
        if inspect.isasyncgen(found):
            async for _ in found:
                pass
        elif inspect.isawaitable(found):
            await found

    method = METHODS[name]
    for parameter, value in cases(method):
        words = {**given_rightly(method), parameter: value}
        with pytest.raises((TypeError, ValueError)):
            cluster.run(call(**words))
    assert asked == []


@pytest.mark.parametrize(("name", "value"), cases(Client.__init__))
def test_no_client_is_made_of_wrong_arguments(name: str, value: Any) -> None:
    words = {**given_rightly(Client.__init__), name: value}
    with pytest.raises((TypeError, ValueError)):
        Client(**words)


def test_every_parameter_has_wrong_values() -> None:
    methods: list[Callable[..., Any]] = [*METHODS.values(), Client.__init__]
    names = {n for m in methods for n in inspect.signature(m).parameters}
    assert names - ABOUT_OTHERS == set(WRONG)


@given(st.binary(max_size=20))
def test_bytes_like_values_are_taken_as_they_are(data: bytes) -> None:
    for value in (data, bytearray(data), memoryview(data)):
        assert value_bytes(value) == data
        assert key_of("key", b"/" + bytes(value)) == b"/" + data


@given(st.integers() | st.floats() | st.text() | st.lists(st.integers(0, 255)))
def test_no_other_value_is(value: Any) -> None:
    with pytest.raises(TypeError, match="value: requires bytes, bytearray or memory"):
        value_bytes(value)


def test_a_key_that_is_text_is_utf_8() -> None:
    assert key_of("key", "/schlüssel") == "/schlüssel".encode()
