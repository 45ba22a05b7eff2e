"""Addresses, events, answers: what needs no connection."""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
)
from twisted.internet.error import TimeoutError as ConnectionTimeout
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived

from kvdb import client
from kvdb.client import errors, model
from kvdb.client.addresses import endpoint_url, endpoint_urls, key_path, query
from kvdb.client.client import Client
from kvdb.client.events import EventReader, EventTooLong, Message
from kvdb.client.testing import FakeCluster
from kvdb.client.transport import HIGH_BYTES, Body, _no_answer


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("/a", "/a"),
        (b"/a", "/a"),
        ("/", "/"),
        ("/a//b/", "/a//b/"),
        ("//a//b/", "/_/kv//a//b/"),
        ("/a b?c#d%e", "/a%20b%3Fc%23d%25e"),
        ("/ä", "/%C3%A4"),
        (b"/\xff\x00", "/%FF%00"),
        ("/12", "/_/kv/12"),
        ("/_/status", "/_/kv/_/status"),
        ("/health", "/_/kv/health"),
        ("/healthy", "/healthy"),
        ("/v3/kv", "/_/kv/v3/kv"),
    ],
)
def test_a_key_has_one_address(key: str | bytes, path: str) -> None:
    assert key_path(key) == path


@pytest.mark.parametrize("key", ["", "a", b"", b"a/", "a/b"])
def test_a_key_begins_with_a_slash(key: str | bytes) -> None:
    with pytest.raises(ValueError, match="begins with a slash"):
        key_path(key)


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=30)), max_size=5))
def test_any_bytes_of_a_key_arrive(pairs: list[tuple[bytes, bytes]]) -> None:
    cluster = FakeCluster(1)
    user = cluster.client()
    wanted = {}
    for name, value in pairs:
        cluster.run(user.put(b"/" + name, value))
        wanted[b"/" + name] = value

    async def entries() -> dict[bytes, bytes | None]:
        return {entry.key: entry.value async for entry in user.list()}

    async def changed() -> list[bytes]:
        watch = user.watch(prefix=b"/", since=0)
        return [(await anext(watch)).key for _ in pairs]

    assert cluster.run(entries()) == wanted
    assert cluster.run(changed()) == [b"/" + name for name, _ in pairs]
    for key, value in wanted.items():
        assert cluster.run(user.get(key)).value == value
        cluster.run(user.delete(key))
    assert cluster.run(entries()) == {}


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://h:1", "http://h:1"),
        ("http://h:1/", "http://h:1"),
        ("h:1", "http://h:1"),
        (" h ", "http://h"),
        ("https://h", "https://h"),
        ("http://[::1]:12380", "http://[::1]:12380"),
    ],
)
def test_an_endpoint_is_read(text: str, url: str) -> None:
    assert endpoint_url(text) == url


def test_with_tls_an_endpoint_without_a_scheme_is_https() -> None:
    assert endpoint_url("h:1", secure=True) == "https://h:1"
    assert endpoint_url("http://h:1", secure=True) == "http://h:1"


@pytest.mark.parametrize(
    "text",
    [
        *("", "ftp://h:1", "http://", "http://h:x", "http://h:99999", "http://h/p"),
        *("http://h?q", "http://h#f", "h h", "http://ä:1"),
        "http://[::1",
    ],
)
def test_what_is_no_endpoint_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not an endpoint"):
        endpoint_url(text)


@pytest.mark.parametrize("text", ["http://u:h1dden@h:1", "u:h1d,den@h:1"])
def test_an_endpoint_has_no_password_in_it_and_none_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="give those beside it") as caught:
        endpoint_urls(text)
    assert not re.search("h1d|den@", str(caught.value))


def test_endpoints_stand_between_commas_each_once() -> None:
    assert endpoint_urls("a:1,b:2,http://a:1") == ["http://a:1", "http://b:2"]
    with pytest.raises(ValueError, match="at least one"):
        endpoint_urls([])
    with pytest.raises(ValueError, match="65 endpoints"):
        endpoint_urls([f"h:{port}" for port in range(1, 66)])


def test_a_query_leaves_out_what_is_none() -> None:
    assert query({"a": None}) == ""
    assert query({"a": b"/\xff&", "b": 2, "c": "x y"}) == "?a=/%FF%26&b=2&c=x%20y"


# Server-Sent Events.

STREAM = (
    b"\n: a comment\nevent: put\nid: 7\ndata: {1}\n\n"
    b"data:two\r\ndata: lines\r\n\r\n"
    b"event: none\n\n"
    b"retry: 5\rdata\rdata: end\r\r"
)
MESSAGES = [
    Message("put", b"{1}"),
    Message("message", b"two\nlines"),
    Message("message", b"\nend"),
]


@settings(deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_events_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    reader = EventReader()
    places = [0, *sorted(cuts), len(STREAM)]
    found: list[Message] = []
    for begin, end in itertools.pairwise(places):
        found += reader.feed(STREAM[begin:end])
    found += reader.feed(b"\n")  # behind a CR at the end, which may be half
    assert found == MESSAGES


@pytest.mark.parametrize("data", [b"data: " + b"x" * 20, b"data: xxxxxxxx\n" * 3])
def test_an_event_that_is_too_long_is_not_gathered(data: bytes) -> None:
    reader = EventReader(max_bytes=20)
    with pytest.raises(EventTooLong):
        list(reader.feed(data))


# Errors and answers.


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, errors.BadRequest),
        (401, errors.Unauthorized),
        (403, errors.Forbidden),
        (404, errors.NotFound),
        (409, errors.Refused),
        (410, errors.Compacted),
        (412, errors.Conflict),
        (413, errors.BadRequest),
        (422, errors.BadRequest),
        (503, errors.Unavailable),
        (504, errors.OutcomeUnknown),
        (507, errors.NoSpace),
        (302, errors.UnexpectedAnswer),
        (418, errors.UnexpectedAnswer),
    ],
)
def test_a_status_is_an_error_of_its_kind(status: int, kind: type[Exception]) -> None:
    body = b'{"detail": "so it\\n is", "hint": "do that"}'
    error = errors.error_of(status, {"etag": '"5"'}, body, "http://h:1")
    assert type(error) is kind
    assert (str(error), error.status) == ("so it is", status)
    assert error.endpoint == "http://h:1"
    if isinstance(error, errors.Conflict):
        assert error.revision == 5


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"[" * 100_000, b"\xff"])
def test_what_is_no_problem_is_told_by_its_status(body: bytes) -> None:
    assert str(errors.error_of(404, {}, body, "")) == "answered 404"


@pytest.mark.parametrize(
    ("etag", "revision"),
    [('"7"', 7), ('W/"7"', 7), (None, 0), ('"x"', 0), ("", 0), ("1" * 5000, 0)],
)
def test_a_revision_is_read_from_its_etag(etag: str | None, revision: int) -> None:
    assert errors.revision_of_etag(etag) == revision


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"revision": "7", "keys": []},
        {"revision": 7, "keys": {}},
        {"revision": 7, "keys": [3]},
        {"revision": 7, "keys": [{"key": "/a"}]},
        {"revision": 7, "keys": [{"key": 3}]},
        {"revision": 7, "keys": [{"key_base64": "%"}]},
        {"revision": 7, "keys": [], "next": 3},
        {"revision": True, "keys": []},
        {"revision": 7, "keys": [{"key": "/\ud800"}]},
    ],
)
def test_a_page_that_is_none_is_said_to_be_none(value: object) -> None:
    with pytest.raises(errors.UnexpectedAnswer, match="not as kvdb gives it"):
        model.page_of(value, "http://h:1")


def test_an_event_without_its_value_is_none() -> None:
    with pytest.raises(errors.UnexpectedAnswer, match="no value"):
        model.put_of({"key": "/a"}, "http://h:1")
    with pytest.raises(errors.UnexpectedAnswer, match="time"):
        value = {"key": "/a", "revision": 1, "previous_revision": 0, "time": "x"}
        model.delete_of(value, "http://h:1")
    with pytest.raises(errors.UnexpectedAnswer, match="time"):
        model.delete_of(value | {"time": 10**400}, "http://h:1")


# What a client is made with.


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"timeout": 0}, "above 0"),
        ({"attempt_timeout": -1}, "above 0"),
        ({"timeout": float("nan")}, "above 0"),
        ({"token": "a b"}, "printable"),
        ({"token": ""}, "printable"),
        ({"token": "t", "user": "u"}, "a token, or a user"),
        ({"user": "u"}, "go together"),
        ({"password": "p"}, "go together"),
        ({"user": "a:b", "password": "p"}, "without colons"),
        ({"endpoints": "x y"}, "not an endpoint"),
    ],
)
def test_a_wrong_argument_is_named(more: dict[str, object], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        FakeCluster(1).client(**more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.put("/k", b"", if_revision=1, if_present=True),
        lambda client: client.put("/k", b"", if_revision=-1),
        lambda client: client.put("/k", b"", idempotency_key=""),
        lambda client: client.put("/k", b"", idempotency_key="ä"),
        lambda client: client.put("/k", b"", idempotency_key="x" * 255),
        lambda client: client.delete("/k", if_revision=0),
        lambda client: client.add_member(0, "http://h:1"),
        lambda client: client.remove_member(2**63),
        lambda client: client.transfer_leadership(-1),
        lambda client: anext(client.pages(page_keys=0)),
        lambda client: anext(client.pages(page_keys=1001)),
        lambda client: anext(client.pages("a")),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_sent(call: object) -> None:
    cluster = FakeCluster(1)
    client: Client = cluster.client()
    cluster.members[1].stop()
    with pytest.raises(ValueError, match=r"\w"):
        cluster.run(call(client))  # type: ignore[operator]
    assert cluster.reactor.seconds() == 0


def test_a_watch_is_of_one_thing_and_from_a_revision() -> None:
    client = FakeCluster(1).client()
    with pytest.raises(ValueError, match="not of both"):
        client.watch(key="/a", prefix="/b")
    with pytest.raises(ValueError, match="since: -1 is not a number from 0"):
        client.watch(since=-1)


@pytest.mark.parametrize(
    ("error", "sent", "why"),
    [
        (ConnectionRefusedError(), False, "connection refused"),
        (DNSLookupError(), False, "no such host"),
        (ConnectionTimeout(), False, "no connection within 2 s"),
        (NoRouteError(), False, "no route there"),
        (ConnectionLost(), True, "the connection was lost"),
        (ResponseNeverReceived([]), True, "the connection was closed before an"),
        (ResponseNeverReceived([Failure(ConnectionLost())]), True, "was lost"),
        (ValueError("odd\nthings"), True, "odd things"),
        (ValueError(), True, "ValueError"),
    ],
)
def test_whether_a_request_was_sent_is_known(
    error: Exception, sent: bool, why: str
) -> None:
    found = _no_answer(error)
    assert found.sent is sent
    assert why in str(found)


def test_who_reads_slowly_makes_the_sender_wait() -> None:
    body, transport = Body(Clock()), StringTransport()
    body.makeConnection(transport)
    piece = b"x" * (HIGH_BYTES // 2)
    for expected in ("producing", "producing", "paused", "paused"):
        body.dataReceived(piece)
        assert transport.producerState == expected
    read: list[bytes] = []
    for _ in range(2):
        Deferred.fromCoroutine(body.read()).addCallback(read.append)
        assert transport.producerState == "producing"
    assert read == [4 * piece]
    body.dataReceived(b"more")
    assert read == [4 * piece, b"more"]


# What it stands on.


def test_the_client_imports_nothing_of_a_member() -> None:
    room = Path(client.__file__).parent
    modules = [path for path in room.rglob("*.py") if path.name != "testing.py"]
    assert len(modules) > 15
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                is_own = name == "kvdb.__version__" or name.startswith("kvdb.client.")
                assert is_own or not name.startswith("kvdb"), (path, name)
