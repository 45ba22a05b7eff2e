"""Requests that are judged by their heads, before a body is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kvdb.access.rules import parse_access
from kvdb.interfaces import Unavailable
from kvdb.rest import intake
from kvdb.rest.intake import SHORT_BODY_BYTES
from kvdb.rest.site import DRAIN_BYTES, LINGER_SECONDS, ROOM_SECONDS, RestSettings
from kvdb.store.commands import Put
from tests.access.files import Guarded
from tests.rest.local import Conversation, Server, the_long_way
from tests.rest.test_access import authorization
from tests.tls.test_clients import Talk

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

REFUSED = (
    ("PUT /k?x=1", "", 400),
    ("PUT /%zz", "", 400),
    ("PUT /k", "If-Match: none", 400),
    ("PUT /k", 'If-Match: "1"\r\nIf-None-Match: *', 400),
    ("PUT /k", "Idempotency-Key: " + "t" * 300, 400),
    ("PUT /k", "If-Match: *\r\nIf-Match: *", 400),
    ("PUT k", "", 400),
    ("POST /k", "", 400),
    ("POST /0", "", 400),
    ("POST /4?x=1", "", 400),
    ("POST /4", "Idempotency-Key: " + "t" * 300, 400),
    ("POST /_/members?x=1", "", 400),
    ("POST /_/members", "Idempotency-Key: " + "t" * 300, 400),
    ("POST /_/leader?x=1", "", 400),
    ("PUT /k", "Origin: http://evil", 403),
    ("POST /_/nothing", "", 404),
    ("POST /_/kv/k", "", 405),
    ("POST /_/status", "", 405),
    ("POST /health", "", 405),
    ("PUT /_/ui/", "", 405),
    ("BREW /k", "", 405),
    ("put /k", "", 405),
    ("PUT /_/status", "", 409),
    ("PUT /%5F/status", "", 409),
    ("PUT /health", "", 409),
    ("PUT /k", "Content-Length: 1001", 413),
    ("PUT /k", "Content-Length: 99999999999999", 413),
    ("POST /4", "Content-Length: 1001", 413),
    ("PUT /" + "k" * 30, "", 414),
    ("PUT /_/kv/" + "k" * 30, "", 414),
)

ACCEPTED = (
    ("PUT /k", "", b"value", 204),
    ("PUT /_/kv/health", "", b"value", 204),
    ("PUT /k", "If-None-Match: *\r\nIdempotency-Key: t", b"value", 204),
    ("POST /4", "", b"http://127.0.0.1:1", 204),
    ("POST /_/members", "", b'{"id": 4, "url": "http://127.0.0.1:1"}', 201),
    ("POST /_/members", "", b"[]", 400),
    ("POST /_/leader", "", b'{"id": 2}', 200),
)


def head(line: str, headers: str, length: int | None) -> bytes:
    lines = [line + " HTTP/1.1", "Host: n", "Expect: 100-continue"]
    if length is not None and "Content-Length" not in headers:
        lines.append(f"Content-Length: {length}")
    if length is None:
        lines.append("Transfer-Encoding: chunked")
    lines += [headers] if headers else []
    return "\r\n".join([*lines, "", ""]).encode()


class Heads(SynchronousTestCase):
    """See the head of kvdb.rest.site."""

    def setUp(self) -> None:
        self.server = Server(RestSettings(max_key_bytes=20, max_value_bytes=1000))

    def test_what_the_head_shows_to_be_wrong_is_refused_without_the_body(self) -> None:
        for line, headers, status in REFUSED:
            talk = self.server.connect()
            talk.say(head(line, headers, 5))
            [reply] = talk.replies()
            self.assertEqual(reply.status, status, (line, headers))
            self.assertEqual(reply.headers["connection"], "close")
            self.assertTrue(talk.transport.disconnecting)
            for piece in (b"va", b"lue", b"GET /k HTTP/1.1\r\nHost: n\r\n\r\n"):
                talk.say(piece)
            self.assertEqual(talk.replies(), [])
        self.assertEqual(self.server.database.outcomes, [])
        self.assertEqual(self.server.database.asked, [])

    def test_the_same_in_chunks(self) -> None:
        for line, headers, status in REFUSED:
            if "Content-Length" not in headers:
                talk = self.server.connect()
                talk.say(head(line, headers, None))
                self.assertEqual([r.status for r in talk.replies()], [status], line)
                talk.say(b"5\r\nvalue\r\n0\r\n\r\n")
                self.assertEqual(talk.replies(), [])

    def test_what_may_be_right_is_asked_for(self) -> None:
        for line, headers, body, status in ACCEPTED:
            for length in (len(body), None):
                server = Server(RestSettings(max_key_bytes=20, max_value_bytes=1000))
                talk = server.connect()
                talk.say(head(line, headers, length))
                self.assertEqual(talk.transport.value(), CONTINUE, line)
                talk.transport.clear()
                chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                for byte in body if length is not None else chunks:
                    self.assertEqual(talk.replies(), [])
                    talk.say(bytes([byte]))
                talk.say(b"GET /version HTTP/1.1\r\nHost: n\r\n\r\n")
                statuses = [reply.status for reply in talk.replies()]
                self.assertEqual(statuses, [status, 200], (line, length))

    def test_the_body_need_not_be_waited_for(self) -> None:
        talk = self.server.connect()
        put = head("PUT /k", "", 5) + b"value"
        talk.say(put + put + b"GET /k HTTP/1.1\r\nHost: n\r\n\r\n")
        statuses = [reply.status for reply in talk.replies()]
        self.assertEqual(statuses, [100, 204, 100, 204, 200])

    def test_a_method_without_use_for_a_body_asks_for_none(self) -> None:
        self.server.database.write(Put(b"/k", b"v"))
        for method, status in (("GET", 200), ("DELETE", 204), ("HEAD", 404)):
            talk = self.server.connect()
            talk.say(head(f"{method} /k", "", 5))
            replies = talk.replies(head=method == "HEAD")
            self.assertEqual([reply.status for reply in replies], [status])
            self.assertTrue(talk.transport.disconnecting)

    def test_without_a_body_nothing_is_waited_for(self) -> None:
        talk = self.server.connect()
        talk.say(head("PUT /k", "", 0))
        self.assertEqual([reply.status for reply in talk.replies()], [204])
        self.assertFalse(talk.transport.disconnecting)

    def test_chunks_that_become_too_large_are_refused_then(self) -> None:
        talk = self.server.connect()
        talk.say(head("PUT /k", "", None))
        self.assertEqual(talk.transport.value(), CONTINUE)
        talk.transport.clear()
        talk.say(b"190\r\n" + bytes(400) + b"\r\n")
        talk.say(b"190\r\n" + bytes(400) + b"\r\n")
        self.assertEqual(talk.replies(), [])
        talk.say(b"190\r\n" + bytes(400) + b"\r\n")
        [reply] = talk.replies()
        self.assertEqual((reply.status, reply.headers["connection"]), (413, "close"))

    def test_who_hangs_up_before_the_body_changes_nothing(self) -> None:
        talk = self.server.connect()
        talk.say(head("PUT /k", "", 5) + b"val")
        talk.hang_up()
        self.assertEqual(self.server.database.outcomes, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_no_room_for_the_body_is_said_once_it_has_come(self) -> None:
        self.patch(intake, "MAX_BODIES_BYTES", 1)
        server = Server()
        site = server.site()
        size = 2 * SHORT_BODY_BYTES
        first, second = Conversation(site), Conversation(site)
        for talk in (first, second):
            talk.say(head("PUT /k", "", size))
            talk.transport.clear()
        self.assertEqual(second.transport.producerState, "paused")
        for _ in range(int(ROOM_SECONDS) + 2):
            server.clock.advance(1)
            first.say(bytes(4000))
        second.say(bytes(size))
        self.assertEqual([reply.status for reply in second.replies()], [503])
        self.assertFalse(second.transport.disconnecting)

    def test_an_upload_that_is_far_too_large_hears_so(self) -> None:
        """While it is sent, however long that goes on."""
        for chunked in (False, True):
            server = Server()
            talk = Conversation(server.site(), Halves())
            length = 20 * DRAIN_BYTES
            if chunked:
                talk.say(b"PUT /k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
                talk.say(b"%x\r\n" % length)
            else:
                talk.say(b"PUT /k HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % length)
            piece = bytes(1 << 20)
            for _ in range(2 * DRAIN_BYTES // len(piece)):
                talk.say(piece)
            [reply] = talk.replies()
            self.assertEqual(
                (reply.status, reply.headers["connection"]), (413, "close")
            )
            self.assertTrue(talk.transport.half_closed)
            self.assertFalse(talk.transport.disconnecting)
            self.assertFalse(talk.transport.disconnected)
            for _ in range(int(LINGER_SECONDS) + 2):
                server.clock.advance(1)
                talk.say(piece)
            self.assertTrue(talk.transport.disconnected, "it goes on for ever")


class Halves(StringTransport):
    """A transport of which one half can be closed."""

    half_closed = False

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    def unregisterProducer(self) -> None:
        if self.producer is not None:  # real ones forgive a second
            super().unregisterProducer()


HeadsTheLongWay = the_long_way(Heads)


class Rights(SynchronousTestCase):
    """They are looked at before a body is asked for, and again behind it."""

    def setUp(self) -> None:
        self.guard = Guarded().guard
        self.server = Server(guard=self.guard)

    def say(self, line: str, role: str) -> Conversation:
        value = authorization(role).get("Authorization", "")
        talk = self.server.connect()
        talk.say(head(line, f"Authorization: {value}" if value else "", 5))
        return talk

    def test_of_a_write(self) -> None:
        for role, status in (("anonymous", 401), ("wrong", 401), ("reader", 403)):
            talk = self.say("PUT /app/k", role)
            self.assertEqual([reply.status for reply in talk.replies()], [status])
            self.assertTrue(talk.transport.disconnecting)
        talk = self.say("PUT /app/k", "writer")
        self.assertEqual(talk.transport.value(), CONTINUE)

    def test_of_a_write_whose_body_comes_late(self) -> None:
        talk = self.say("PUT /app/k", "writer")
        talk.transport.clear()
        self.guard.replace(parse_access(b""))
        talk.say(b"value")
        self.assertEqual([reply.status for reply in talk.replies()], [401])
        self.assertEqual(self.server.database.outcomes, [])


@pytest.mark.parametrize("fast", [True, False])
def test_over_tls(fast: bool, tmp_path: Path) -> None:
    """An upload hears why it is refused, also while it goes on."""
    server = Server(RestSettings(fast_lane=fast))
    talk = Talk(server, tmp_path)
    for line, headers, status in (
        ("PUT /_/status", "", 409),
        ("PUT /k", "Content-Length: 99999999999", 413),
    ):
        talk.connect()
        said = talk.say(head(line, headers, 5))
        assert said.startswith(b"HTTP/1.1 %d " % status)
    talk.connect()
    assert talk.say(head("PUT /k", "", 5)) == CONTINUE
    assert talk.say(b"value").startswith(b"HTTP/1.1 204 ")


class Streams(SynchronousTestCase):
    """What a HEAD says of a stream, and who may begin one."""

    def test_a_head_is_as_the_get(self) -> None:
        server = Server()
        server.database.write(Put(b"/k", b"v"))
        for path in ("/_/snapshot", "/_/watch", "/_/watch?since=0"):
            got = server.connect()
            got.say(f"GET {path} HTTP/1.1\r\nHost: n\r\n\r\n".encode())
            server.clock.advance(0)
            first, _, _ = got.transport.value().partition(b"\r\n\r\n")
            got.hang_up()
            asked = server.connect()
            asked.say(f"HEAD {path} HTTP/1.1\r\nHost: n\r\n\r\n".encode())
            said = asked.transport.value()
            expected = set(first.split(b"\r\n")) - {b"Transfer-Encoding: chunked"}
            self.assertEqual(set(said[:-4].split(b"\r\n")), expected)
            self.assertNotIn(b"Content-Length", said)
            self.assertTrue(asked.transport.disconnecting)
        self.assertEqual(len(server.database.watches), 0)
        for _ in range(5):
            self.assertEqual(server.ask("HEAD", "/_/snapshot").status, 200)
        self.assertEqual(server.ask("HEAD", "/_/watch?since=9").status, 400)

    def test_rights_that_are_lost_while_the_leader_is_asked(self) -> None:
        for path, role in (
            ("/_/watch?prefix=/app/", "reader"),
            ("/_/snapshot", "admin"),
        ):
            guard = Guarded().guard
            server = Server(guard=guard)
            server.database.hold = True
            talk = server.connect()
            value = authorization(role)["Authorization"]
            talk.say(
                f"GET {path} HTTP/1.1\r\nHost: n\r\n"
                f"Authorization: {value}\r\n\r\n".encode()
            )
            guard.replace(parse_access(b""))
            for held in server.database.held:
                held.callback(None)
            [reply] = talk.replies()
            self.assertEqual(reply.status, 401)
            self.assertEqual(len(server.database.watches), 0)
            self.assertNotIn("transfer-encoding", reply.headers)
            json.loads(reply.body)

    def test_without_a_leader(self) -> None:
        server = Server()
        server.database.failure = Unavailable("no leader")
        for method in ("GET", "HEAD"):
            self.assertEqual(server.ask(method, "/_/snapshot").status, 503)
