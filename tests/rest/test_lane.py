"""The fast lane answers as the long way does, and only what it knows."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from twisted.web import http

from kvdb.interfaces import NoSpace, OutcomeUnknown, Unavailable
from kvdb.rest.channel import MAX_HELD_BYTES
from kvdb.rest.lane import MAX_HEAD_BYTES, MAX_LEARNED, NOT_PLAIN, Lane, body_length
from kvdb.rest.site import RestSettings
from kvdb.store.commands import Outcome, OutcomeStatus, Reason
from tests.rest.local import LocalDatabase, Server

HOST = "Host: n"
PUT = b"PUT /k HTTP/1.1\r\nHost: n\r\nContent-Length: 1\r\n\r\nv"
GET = b"GET /k HTTP/1.1\r\nHost: n\r\n\r\n"
STALE = b"GET /k?consistency=stale HTTP/1.1\r\nHost: n\r\n\r\n"
DELETE = b"DELETE /k HTTP/1.1\r\nHost: n\r\n\r\n"

PLAIN_LINES = ["Accept: */*", "User-Agent: curl/8", "content-type:text/plain"]
ODD_LINES = [
    'If-None-Match: "1"',
    "If-Match: *",
    "Idempotency-Key: one",
    "Origin: http://evil",
    "Expect: 100-continue",
    "Host: b:ad host",
    "Connection: keep-alive",
    "X-Any: thing",
    "Content-Type:",
    "Accept: a\tb",
    "no header",
    " folded",
]
TARGETS = [
    "/k",
    "/a/b",
    "/a//b",
    "/k%20x",
    "/k?consistency=stale",
    "/k?consistency=linearizable",
    "/k?what=ever",
    "/7",
    "/",
    "/_/kv/k",
    "/_/status",
    "//_/status",
    "//health",
    "/_x",
    "/health",
    "/v3/kv",
    "/longer-than-a-key-may-be",
    "http://n/k",
    "/k#f",
    '/"k"',
]


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request, often plain, sometimes hardly a request."""
    method = draw(
        st.sampled_from(["GET", "PUT", "GET", "PUT", "DELETE", "HEAD", "get"])
    )
    target = draw(st.sampled_from(["/k", *TARGETS]))
    version = draw(st.sampled_from(["HTTP/1.1"] * 9 + ["HTTP/1.0"]))
    lines = draw(st.lists(st.sampled_from(PLAIN_LINES), max_size=2, unique=True))
    if draw(st.integers(0, 3)) == 0:
        lines.append(draw(st.sampled_from(ODD_LINES)))
    if draw(st.integers(0, 9)):
        lines.insert(0, HOST)
    body = b""
    if method == "PUT" or draw(st.integers(0, 9)) == 0:
        body = draw(st.binary(max_size=12))
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([f"{method} {target} {version}", *lines, "", ""])
    return head.encode() + body


def answers(fast_lane: bool, pieces: list[bytes]) -> tuple[bytes, bool]:
    """All that one connection answers, undated, and whether it was closed."""
    limits = RestSettings(max_key_bytes=16, max_value_bytes=8, fast_lane=fast_lane)
    talk = Server(limits).connect()
    for piece in pieces:
        if not talk.transport.disconnecting:
            talk.say(piece)
    said = re.sub(rb"\r\nDate: [^\r]*", b"", talk.transport.value())
    closed = bool(talk.transport.disconnecting)
    talk.hang_up()
    return said, closed


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """C{data} in pieces."""
    ends = sorted({place % (len(data) + 1) for place in places})
    starts = [0, *ends]
    pieces = [data[a:b] for a, b in zip(starts, [*ends, len(data)], strict=True)]
    return [piece for piece in pieces if piece]


class AsTheLongWay(SynchronousTestCase):
    """Bytes in, the same bytes out."""

    @settings(max_examples=400, deadline=None)
    @given(st.lists(requests(), min_size=1, max_size=6), st.lists(st.integers(0, 4096)))
    def test_whatever_is_asked_in_whatever_pieces(
        self, asked: list[bytes], places: list[int]
    ) -> None:
        pieces = cut(b"".join(asked), places)
        self.assertEqual(answers(True, pieces), answers(False, pieces))

    def test_what_fails_fails_alike(self) -> None:
        for error in (
            Unavailable("no leader", "Try again."),
            OutcomeUnknown("late"),
            NoSpace("full"),
            RuntimeError("secret"),
        ):
            said = []
            for fast_lane in (True, False):
                server = Server(RestSettings(fast_lane=fast_lane))
                server.database.failure = error
                talk = server.connect()
                talk.say(PUT + GET)
                value = talk.transport.value()
                said.append(re.sub(rb"\r\nDate: [^\r]*", b"", value))
            self.assertEqual(said[0], said[1])
            self.assertEqual(said[0].count(b"HTTP/1.1 "), 2)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 4)

    def test_every_outcome_is_told_alike(self) -> None:
        # Only a command with a condition or a token has most of them.
        server = Server()
        lane = Lane(server.database, server.clock, 16, 16)
        for outcome in (
            Outcome(OutcomeStatus.DONE, 7),
            Outcome(OutcomeStatus.NOT_FOUND),
            Outcome(OutcomeStatus.CONDITION_FAILED, 7),
            Outcome(OutcomeStatus.CONDITION_FAILED),
            Outcome(OutcomeStatus.REFUSED, reason=Reason.OTHER_REQUEST),
        ):
            long_way = Server(RestSettings(fast_lane=False))
            long_way.database.hold = True
            talk = long_way.connect()
            talk.say(PUT)
            long_way.database.held[0].callback(outcome)
            self.assertEqual(
                re.sub(rb"\r\nDate: [^\r]*", b"", lane.written(outcome)),
                re.sub(rb"\r\nDate: [^\r]*", b"", talk.transport.value()),
            )


class Recognised(SynchronousTestCase):
    """Which requests are the lane's."""

    def test_plain_requests_make_no_request_object(self) -> None:
        talk = Server().connect()
        made: list[object] = []
        talk.protocol.requestFactory = lambda *args: made.append(args)
        talk.say(PUT + GET + STALE)
        self.assertEqual([r.status for r in talk.replies()], [204, 200, 200])
        self.assertEqual(made, [])

    def test_header_sections(self) -> None:
        for section, length in (
            (b"", 0),
            (b"\r\nHost: n\r\nContent-Length: 12", 12),
            (b"\r\nhost: n\r\nConnection: Keep-Alive", 0),
            (b"\r\nConnection: close", NOT_PLAIN),
            (b"\r\nConnection: upgrade, keep-alive", NOT_PLAIN),
            (b"\r\nTransfer-Encoding: chunked", NOT_PLAIN),
            (b"\r\nContent-Length: 1\r\nContent-Length: 1", NOT_PLAIN),
            (b"\r\nContent-Length: +1", NOT_PLAIN),
            (b"\r\nContent-Length: 1234567890", NOT_PLAIN),
            (b"\r\nHost: n\r\n folded", NOT_PLAIN),
            (b"\r\nHost : n", NOT_PLAIN),
            (b"\r\nAuthorization: secret", NOT_PLAIN),
            (b"\r\nAccept: " + b"a" * MAX_HEAD_BYTES, NOT_PLAIN),
        ):
            self.assertEqual(body_length(section), length, section)

    def test_what_is_remembered_is_bounded(self) -> None:
        lane = Lane(LocalDatabase(), Server().clock, 16, 16)
        for number in range(2 * MAX_LEARNED + 10):
            lane.recognise(b"GET /k HTTP/1.1\r\nUser-Agent: %d\r\n\r\n" % number)
            lane.recognise(b"GET /k HTTP/1.1\r\nX-Odd: %d\r\n\r\n" % number)
        self.assertEqual(lane.learned, 10)


class OneAtATime(SynchronousTestCase):
    """A connection's requests are answered in order, and bounded."""

    def setUp(self) -> None:
        self.server = Server()
        self.database = self.server.database
        self.talk = self.server.connect()

    def test_what_is_sent_ahead_waits(self) -> None:
        self.database.hold = True
        self.talk.say(PUT + GET)
        self.talk.say(DELETE + STALE)
        self.assertEqual(len(self.database.held), 1)
        self.assertEqual(self.talk.replies(), [])
        self.database.hold = False
        self.database.held[0].callback(self.database.outcomes[0])
        statuses = [reply.status for reply in self.talk.replies()]
        self.assertEqual(statuses, [204, 200, 204, 404])

    def test_answers_that_go_out_together_keep_their_order(self) -> None:
        status = b"GET /_/status HTTP/1.1\r\nHost: n\r\n\r\n"
        other = self.server.connect()
        for ahead in (status, STALE, STALE + status, status + STALE):
            self.database.hold = True
            self.talk.say(PUT + ahead)
            other.say(PUT)
            self.database.hold = False
            for audience in self.database.audiences:
                audience.begin()
            for held in self.database.held:
                held.callback(self.database.outcomes[-1])
            self.assertEqual(other.replies(), [], "all have to be made first")
            for audience in self.database.audiences:
                audience.end()
            self.database.held.clear()
            self.assertEqual([reply.status for reply in other.replies()], [204])
            bodies = [reply.body[:1] for reply in self.talk.replies()]
            expected = {status: [b"", b"{"], STALE: [b"", b"v"]}
            expected[STALE + status] = [b"", b"v", b"{"]
            expected[status + STALE] = [b"", b"{", b"v"]
            self.assertEqual(bodies, expected[ahead])

    def test_who_sends_too_much_ahead_is_left_in_tcp(self) -> None:
        self.database.hold = True
        self.talk.say(GET)
        while self.talk.transport.producerState == "producing":
            self.talk.say(STALE * 100)
        sent = self.talk.protocol.held_bytes
        self.assertLess(sent, MAX_HELD_BYTES + 2 * len(STALE) * 100)
        self.database.hold = False
        self.database.held[0].callback(None)
        self.assertEqual(self.talk.transport.producerState, "producing")
        self.assertEqual(len(self.talk.replies()), 1 + sent // len(STALE))

    def test_a_body_in_pieces_is_gathered(self) -> None:
        self.talk.say(b"PUT /k HTTP/1.1\r\nHost: n\r\nContent-Length: 3\r\n\r\n")
        for byte in (b"a", b"b"):
            self.talk.say(byte)
            self.assertEqual(self.talk.replies(), [])
        self.talk.say(b"c" + STALE)
        [put, got] = self.talk.replies()
        self.assertEqual((put.status, got.body), (204, b"abc"))

    def test_a_quiet_client_is_sent_away_and_a_busy_one_is_not(self) -> None:
        idle = RestSettings().idle_seconds
        for _ in range(5):
            self.talk.say(STALE)
            self.server.clock.advance(idle - 1)
            self.assertFalse(self.talk.transport.disconnecting)
        for _ in range(2):
            self.server.clock.advance(idle)
        self.assertTrue(self.talk.transport.disconnecting)

    def test_the_date_goes_on(self) -> None:
        dates = iter([b"one", b"two"])
        self.patch(http, "datetimeToString", lambda: next(dates))
        seen = []
        for _ in range(3):
            self.talk.say(STALE)
            seen.append(self.talk.replies()[0].headers["date"])
            self.server.clock.advance(0.6)
        self.assertEqual(seen, ["one", "one", "two"])
