"""Clients that are slow, many, or never done, and what bounds them."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from kvdb.rest.site import (
    ARRIVE_BYTES,
    ARRIVE_SECONDS,
    CROWDED_SECONDS,
    DRAIN_BYTES,
    IDLE_SECONDS,
    LINGER_SECONDS,
    SWEEP_SECONDS,
    RestSettings,
    Site,
    TurnedAway,
)
from tests.rest.local import Conversation, Server, the_long_way

HEAD = b"PUT /k HTTP/1.1\r\nHost: n\r\nContent-Length: %d\r\n\r\n"


class Slow(SynchronousTestCase):
    """Requests that come byte after byte."""

    def setUp(self) -> None:
        self.server = Server()

    def drip(self, first: bytes, piece: bytes, every: float) -> tuple[float, Any]:
        """When it was cut, in seconds, and what was said then."""
        talk = self.server.connect()
        begun = self.server.clock.seconds()
        talk.say(first)
        while not talk.transport.disconnecting and self.server.clock.seconds() < 1e4:
            self.server.clock.advance(every)
            if not talk.transport.disconnecting:
                talk.say(piece)
        took = self.server.clock.seconds() - begun
        replies = talk.replies()
        talk.hang_up()
        return took, replies

    def test_a_request_line_a_head_and_a_body(self) -> None:
        for first, piece in (
            (b"G", b"E"),
            (b"GET /", b"x"),
            (b"GET /k HTTP/1.1\r\nX-A: ", b"b"),
            (b"GET /k HTTP/1.1\r\nHost: n\r\n", b"A: b\r\n"),
            (HEAD % 1000, b"v"),
            (b"PUT /k HTTP/1.1\r\nX: y\r\nContent-Length: 1000\r\n\r\n", b"v"),
            (b"PUT /k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nv\r\n"),
            (b"PUT /k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;", b"x"),
        ):
            took, replies = self.drip(first, piece, 1.0)
            self.assertTrue(ARRIVE_SECONDS <= took <= ARRIVE_SECONDS + 2, (first, took))
            [reply] = replies
            self.assertEqual(reply.status, 408, first)
            self.assertEqual(reply.headers["connection"], "close")
            self.assertIn("too long to arrive", json.loads(reply.body)["detail"])
        self.assertEqual(self.server.database.outcomes, [])

    def test_silence_within_a_request_is_cut_too(self) -> None:
        talk = self.server.connect()
        talk.say(HEAD % 10)
        for _ in range(int(ARRIVE_SECONDS) + 2):
            self.server.clock.advance(1)
        self.assertTrue(talk.transport.disconnecting)

    def test_a_long_body_may_take_longer(self) -> None:
        """While it comes as fast as a poor line brings it."""
        size = 60 * ARRIVE_BYTES
        talk = self.server.connect()
        talk.say(HEAD % size)
        for _ in range(60):
            self.assertFalse(talk.transport.disconnecting)
            talk.say(bytes(ARRIVE_BYTES))
            self.server.clock.advance(1)
        self.assertEqual([reply.status for reply in talk.replies()], [204])

    def test_one_beyond_the_limit_is_bounded_in_time(self) -> None:
        """However much is read of it."""
        longest = ARRIVE_SECONDS + (1 << 20) / ARRIVE_BYTES
        took, _ = self.drip(HEAD % DRAIN_BYTES, bytes(2 * ARRIVE_BYTES), 1.0)
        self.assertTrue(longest <= took < longest + 2, took)

    def test_pauses_between_requests_are_not_counted(self) -> None:
        talk = self.server.connect()
        for _ in range(10):
            for piece in (b"GET /k HT", b"TP/1.1\r\n", b"Host: n\r\n\r\n"):
                talk.say(piece)
                self.server.clock.advance(5)
            self.server.clock.advance(ARRIVE_SECONDS)
        self.assertEqual([reply.status for reply in talk.replies()], [404] * 10)
        self.assertFalse(talk.transport.disconnecting)

    def test_requests_that_wait_for_an_answer_are_not_cut(self) -> None:
        self.server.database.hold = True
        talks = [self.server.connect() for _ in range(2)]
        talks[0].say((HEAD % 1) + b"v")
        talks[1].say(b"DELETE /k HTTP/1.1\r\nHost: n\r\n\r\n")
        for _ in range(300):
            self.server.clock.advance(1)
        for talk in talks:
            self.assertFalse(talk.transport.disconnecting)

    def test_half_of_the_next_one_sent_ahead(self) -> None:
        """Its time begins when the one before is answered."""
        self.server.database.hold = True
        talk = self.server.connect()
        talk.say(b"DELETE /k HTTP/1.1\r\nHost: n\r\n\r\nGET /k HT")
        for _ in range(100):
            self.server.clock.advance(1)
        self.assertFalse(talk.transport.disconnecting)
        for held in self.server.database.held:
            held.callback(self.server.database.outcomes[0])
        for _ in range(int(ARRIVE_SECONDS) + 2):
            self.server.clock.advance(1)
        self.assertEqual([reply.status for reply in talk.replies()], [404, 408])

    def test_watching_goes_on(self) -> None:
        talk = self.server.connect()
        talk.say(b"GET /_/watch HTTP/1.1\r\nHost: n\r\n\r\n")
        for _ in range(300):
            self.server.clock.advance(1)
        self.assertFalse(talk.transport.disconnecting)
        talk.hang_up()

    def test_who_never_reads_the_last_answer(self) -> None:
        talk = self.server.connect()
        talk.say(b"GET /k HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n")
        self.assertTrue(talk.transport.disconnecting)
        self.assertEqual([reply.status for reply in talk.replies()], [404])
        for _ in range(int(LINGER_SECONDS) + 1):
            self.assertFalse(talk.transport.disconnected)
            self.server.clock.advance(1)
        self.assertTrue(talk.transport.disconnected)
        self.assertEqual(talk.replies(), [])


SlowTheLongWay = the_long_way(Slow)


class Many(SynchronousTestCase):
    """Connections without end."""

    def setUp(self) -> None:
        self.server = Server(RestSettings(max_connections=10))
        self.site: Site = self.server.site()

    def connect(self, count: int) -> list[Conversation]:
        return [Conversation(self.site) for _ in range(count)]

    def test_one_too_many_is_told_so(self) -> None:
        talks = self.connect(11)
        self.assertIsInstance(talks[10].protocol, TurnedAway)
        [reply] = talks[10].replies()
        self.assertEqual((reply.status, reply.headers["retry-after"]), (503, "5"))
        self.assertIn("too many connections", json.loads(reply.body)["detail"])
        self.assertTrue(talks[10].transport.disconnecting)
        talks[0].hang_up()
        [talk] = self.connect(1)
        talk.say(b"GET /k HTTP/1.1\r\nHost: n\r\n\r\n")
        self.assertEqual([reply.status for reply in talk.replies()], [404])

    def test_when_it_is_crowded_idle_ones_go_early(self) -> None:
        idle, busy, used, watching, late = self.connect(5)
        late.say(b"GET /k HTTP/1.1\r\nHost: n\r\n\r\n")
        busy.say(HEAD % 1000)
        watching.say(b"GET /_/watch HTTP/1.1\r\nHost: n\r\n\r\n")
        for second in range(20):
            used.say(b"GET /k HTTP/1.1\r\nHost: n\r\n\r\n")
            if second == 10:  # not before
                self.assertFalse(idle.transport.disconnecting)
                late.say(b"GET /k HTTP/1.1\r\nHost: n\r\n\r\n")
                new = self.connect(5)
            self.server.clock.advance(SWEEP_SECONDS)
        self.assertTrue(idle.transport.disconnecting)
        for talk in (busy, used, watching, late, *new):
            self.assertFalse(talk.transport.disconnecting)
        self.assertLess(CROWDED_SECONDS, 10)

    def test_else_after_a_minute(self) -> None:
        [idle] = self.connect(1)
        self.server.clock.pump([1.0] * (IDLE_SECONDS - 1))
        self.assertFalse(idle.transport.disconnecting)
        self.server.clock.advance(1)
        self.assertTrue(idle.transport.disconnecting)

    def test_nothing_is_left_when_all_are_gone(self) -> None:
        for talk in self.connect(5):
            talk.hang_up()
        self.assertEqual(self.server.clock.getDelayedCalls(), [])


class Floods(SynchronousTestCase):
    """More than is held."""

    def test_heads_without_end(self) -> None:
        """A line, lines, and a name: the connection is closed, at 16 KiB."""
        server = Server()
        for first, piece in (
            (b"GET /", b"x" * 1000),
            (b"GET / HTTP/1.1\r\nHost: n\r\n", b"A: " + b"b" * 995 + b"\r\n"),
            (b"GET / HTTP/1.1\r\nHost: n\r\nA: ", b"b" * 1000),
            (b"GET / HTTP/1.1\r\nHost: n\r\n", b"A: b\r\n" * 150),
            (b"GET / HTTP/1.1\r\nHost: n\r\nA: b", b"\r\n c" * 200),
        ):
            talk = server.connect()
            talk.say(first)
            sent = 0
            while not talk.transport.disconnecting:
                self.assertLess(sent, 33_000, first)
                talk.say(piece)
                sent += len(piece)
            self.assertLessEqual(len(talk.replies()), 1)
            talk.hang_up()

    def test_requests_sent_ahead(self) -> None:
        """They wait in TCP, not in memory."""
        server = Server()
        server.database.hold = True
        talk = server.connect()
        request = b"GET /k HTTP/1.1\r\nHost: n\r\n\r\n"
        while talk.transport.producerState == "producing":
            talk.say(request * 100)
            self.assertLess(talk.protocol.held_bytes, 1 << 17)

    def test_tls_to_a_port_without_it(self) -> None:
        said: list[str] = []
        server = Server()
        site = server.site()
        site._complaints.log = type(
            "Log", (), {"warn": lambda self, form, text: said.append(text)}
        )()
        for _ in range(3):
            talk = Conversation(site)
            talk.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            talk.say(b"more of it\r\n\r\n")
            self.assertEqual(talk.transport.value().count(b"HTTP/1.1 400 "), 1)
            self.assertTrue(talk.transport.disconnecting)
        [text] = said
        self.assertIn("192.168.1.1 speaks TLS to the clients' port", text)
        self.assertIn("--cert-file", text)
        self.assertIsInstance(talk.transport, StringTransport)


class OtherNames(SynchronousTestCase):
    """
    A page whose site's name was pointed at this machine (DNS rebinding): its
    browser takes the server for that site's own, and sends its name as C{Host}.
    """

    def setUp(self) -> None:
        self.server = Server(RestSettings(local_only=True))

    def ask(self, method: str, host: str | None, *more: str) -> int:
        lines = [f"{method} /k HTTP/1.1", *more]
        if host is not None:
            lines.insert(1, f"Host: {host}")
        talk = self.server.connect()
        body = "v" if method == "PUT" else ""
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}"])
        talk.say(f"{head}\r\n\r\n{body}".encode())
        [reply] = talk.replies()
        return reply.status

    def test_the_name_of_another_site_gets_nothing(self) -> None:
        for host in (
            "evil.example",
            "evil.example:12380",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "evillocalhost",
            "127.1",
            "2130706433",
            "[evil]",
            "[::1].evil.example",
        ):
            for _ in range(2):  # before and after the lane has learned
                self.assertEqual(self.ask("PUT", host), 421, host)
                self.assertEqual(self.ask("GET", host), 421, host)
            origin = f"Origin: http://{host}"
            self.assertEqual(self.ask("DELETE", host, origin), 421, host)
        self.assertEqual(self.server.database.outcomes, [])
        reply = self.server.ask("GET", "/_/status")
        self.assertIn("--access-file", json.loads(reply.body)["hint"])

    def test_this_machine_by_any_name_of_its_own(self) -> None:
        for host in (
            "127.0.0.1:12380",
            "127.0.0.2",
            "[::1]:12380",
            "localhost",
            "LocalHost:12380",
            "localhost.",
            "node1.localhost:1",
            "192.0.2.7",
            "",
            None,
        ):
            for _ in range(2):
                self.assertEqual(self.ask("PUT", host), 204, host)
                self.assertEqual(self.ask("GET", host), 200, host)

    def test_where_it_is_asked_who_one_is_any_name_will_do(self) -> None:
        self.server = Server()
        self.assertEqual(self.ask("GET", "db1.example.org"), 404)


OtherNamesTheLongWay = the_long_way(OtherNames)
