"""
The Go program that kvdb re-creates, request by request.

A row is a request, what the original answered, and what is answered here.
Where the two differ on purpose, the row says why.
"""

from __future__ import annotations

from attrs import frozen
from twisted.trial.unittest import SynchronousTestCase

from tests.rest.local import Conversation, Server, the_long_way

AFTER_COMMIT = "read back at once: an answer comes after commit"
DECODED = "a key is the percent-decoded path"
PARAMETERS = "the query holds parameters"
HEAD = "HEAD works"
PROBLEM = "the method is refused in JSON"
DELETES = "a key that is no number is deleted"
SPELLINGS = "all spellings of a path are one: this is DELETE /9"
NO_STAR = "a target is a path or a URL"


@frozen
class Row:
    """
    @ivar theirs: the original's status.
    @ivar ours: the status here, and the body where it tells something.
    @ivar why: the reason, where they differ.
    """

    name: str
    method: str
    target: str
    body: bytes | None
    theirs: int
    ours: int
    answer: bytes | None = None
    why: str = ""


def get(
    name: str, target: str, theirs: int, ours: int, answer: bytes | None = None,
    why: str = "",
) -> Row:  # fmt: skip
    return Row(name, "GET", target, None, theirs, ours, answer, why)


def put(
    name: str, target: str, body: bytes, theirs: int, ours: int, why: str = ""
) -> Row:
    return Row(name, "PUT", target, body, theirs, ours, None, why)


ROWS = [
    get("right after start", "/my-key", 404, 404),
    put("put", "/my-key", b"hello", 204, 204),
    get("immediately", "/my-key", 404, 200, b"hello", AFTER_COMMIT),
    put("again", "/my-key", b"hello2", 204, 204),
    get("immediately", "/my-key", 200, 200, b"hello2"),
    get("missing", "/nope", 404, 404),
    get("the root", "/", 404, 404),
    put("the root", "/", b"rootval", 204, 204),
    get("the root again", "/", 200, 200, b"rootval"),
    put("an empty value", "/empty", b"", 204, 204),
    get("an empty value", "/empty", 200, 200, b""),
    Row("no body at all", "PUT", "/nobody", None, 204, 204),
    get("no body at all", "/nobody", 200, 200, b""),
    put("a query", "/k?x=1&y=2", b"q1", 204, 400, PARAMETERS),
    get("the same query", "/k?x=1&y=2", 200, 400, why=PARAMETERS),
    get("without the query", "/k", 404, 404),
    get("the other order", "/k?y=2&x=1", 404, 400, why=PARAMETERS),
    get("an empty query", "/k?", 404, 404),
    put("percent", "/a%20b", b"pct", 204, 204),
    get("percent", "/a%20b", 200, 200, b"pct"),
    put("%41", "/%41", b"A-esc", 204, 204),
    get("%41", "/%41", 200, 200, b"A-esc"),
    get("A", "/A", 404, 200, b"A-esc", DECODED),
    put("%2f", "/x%2fy", b"slash-lower", 204, 204),
    get("%2f", "/x%2fy", 200, 200, b"slash-lower"),
    get("%2F", "/x%2Fy", 404, 200, b"slash-lower", DECODED),
    get("a slash", "/x/y", 404, 200, b"slash-lower", DECODED),
    put("a bad percent", "/bad%zz", b"bad", 400, 400),
    get("a bad percent", "/bad%zz", 400, 400),
    put("raw, not ASCII", "/é", b"na", 204, 400, "RFC 9112: a target is ASCII"),
    get("%C3%A9", "/%C3%A9", 404, 404),
    put("two slashes", "//dbl", b"dbl", 204, 204),
    get("two slashes", "//dbl", 200, 200, b"dbl"),
    get("one slash", "/dbl", 404, 404),
    put("dots", "/a/../b", b"dd", 204, 204),
    get("dots", "/a/../b", 200, 200, b"dd"),
    get("no dots", "/b", 404, 404),
    put("a trailing slash", "/ts/", b"ts", 204, 204),
    get("no trailing slash", "/ts", 404, 404),
    get("a trailing slash", "/ts/", 200, 200, b"ts"),
    put("absolute form", "http://node/abs", b"abs", 204, 204),
    get("absolute form", "http://node/abs", 200, 200, b"abs"),
    get("its path", "/abs", 404, 200, b"abs", "RFC 9112: both name one thing"),
    put("a star", "*", b"star", 204, 405, NO_STAR),
    get("a star", "*", 200, 405, why=NO_STAR),
    put("a fragment", "/f#x", b"fr", 204, 204),
    get("without it", "/f", 404, 404),
    get("a fragment", "/f#x", 200, 200, b"fr"),
    Row("PATCH", "PATCH", "/k", b"x", 405, 405),
    Row("HEAD", "HEAD", "/my-key", None, 405, 200, b"", HEAD),
    Row("OPTIONS", "OPTIONS", "/k", None, 405, 405),
    Row("OPTIONS *", "OPTIONS", "*", None, 200, 200),
    Row("BREW", "BREW", "/k", None, 405, 405),
    Row("lower case", "get", "/my-key", None, 405, 405),
    Row("TRACE", "TRACE", "/k", None, 405, 405),
    Row("DELETE of a key", "DELETE", "/my-key", None, 400, 204, None, DELETES),
    get("it is gone", "/my-key", 200, 404, why=DELETES),
    Row("DELETE /", "DELETE", "/", None, 400, 204, None, DELETES),
    Row("POST /", "POST", "/", b"x", 400, 400),
    Row("POST of no id", "POST", "/abc", b"http://127.0.0.1:42379", 400, 400),
    Row("POST -1", "POST", "/-1", b"http://127.0.0.1:42379", 400, 400),
    Row("too large an id", "POST", "/18446744073709551616", b"http://h:1", 400, 400),
    Row("DELETE, a query", "DELETE", "/9?x=1", None, 400, 400),
    Row("DELETE 9/", "DELETE", "/9/", None, 400, 404, None, DELETES),
    Row("DELETE 1.0", "DELETE", "/1.0", None, 400, 404, None, DELETES),
    Row("DELETE %39", "DELETE", "/%39", None, 400, 204, None, SPELLINGS),
    Row("DELETE 0x", "DELETE", "/0x", None, 400, 404, None, DELETES),
    Row("DELETE +9", "DELETE", "/+9", None, 400, 404, None, DELETES),
    put("bytes", "/bin", bytes(range(256)), 204, 204),
    get("bytes", "/bin", 200, 200, bytes(range(256))),
    put("HTML", "/html", b"<html><body>x</body></html>", 204, 204),
    get("HTML", "/html", 200, 200, b"<html><body>x</body></html>"),
    put("JSON", "/json", b'{"a":1}', 204, 204),
    get("JSON", "/json", 200, 200, b'{"a":1}'),
    put("3,000 bytes", "/b3000", b"y" * 3000, 204, 204),
    get("3,000 bytes", "/b3000", 200, 200, b"y" * 3000),
    put("5 MB", "/big", bytes(5_000_000), 204, 413, "values have a limit"),
]  # fmt: skip


class Original(SynchronousTestCase):
    """Row by row, on one server, in this order."""

    def test_each_request(self) -> None:
        server = Server()
        for number, row in enumerate(ROWS):
            name = f"row {number}, {row.name}: {row.method} {row.target[:40]}"
            reply = server.ask(row.method, row.target.encode(), row.body)
            self.assertEqual(reply.status, row.ours, name)
            if row.answer is not None:
                self.assertEqual(reply.body, row.answer, name)
            if row.ours >= 400 and row.method != "HEAD" and reply.body:
                kind = reply.headers["content-type"]
                self.assertEqual(kind, "application/problem+json", name)
            differs = row.theirs != row.ours
            self.assertEqual(bool(row.why), differs, f"{name}: say why, or do alike")

    def test_html_is_not_run(self) -> None:
        server = Server()
        server.ask("PUT", "/html", b"<html><body>x</body></html>")
        kind = server.ask("GET", "/html").headers["content-type"]
        self.assertEqual(kind, "text/plain; charset=utf-8")

    def test_headers_that_change_nothing(self) -> None:
        server = Server()
        server.ask("PUT", "/k", b"hello2")
        ranged = server.ask("GET", "/k", Range="bytes=0-1")
        zipped = server.ask("GET", "/k", Accept_Encoding="gzip")
        self.assertEqual([ranged.body, zipped.body], [b"hello2", b"hello2"])


class RawSockets(SynchronousTestCase):
    """What is said in bytes that no client would say; Twisted decides most."""

    def talk(self, data: bytes) -> Conversation:
        self.server = Server()
        talk = self.server.connect()
        talk.say(data)
        return talk

    def statuses(self, data: bytes) -> list[int]:
        return [reply.status for reply in self.talk(data).replies()]

    def test_a_body_that_ends_early_is_not_stored(self) -> None:
        talk = self.talk(b"PUT /k HTTP/1.1\r\nHost: n\r\nContent-Length: 9\r\n\r\nabc")
        talk.hang_up()
        self.assertIsNone(self.server.database.get(b"/k"))

    def test_a_bad_chunk(self) -> None:
        chunked = b"PUT /k HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.assertEqual(self.statuses(chunked + b"zz\r\nx\r\n"), [400])
        self.assertIsNone(self.server.database.get(b"/k"))

    def test_chunks(self) -> None:
        chunked = b"PUT /k HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.assertEqual(self.statuses(chunked + b"6\r\nchunky\r\n0\r\n\r\n"), [204])
        record = self.server.database.get(b"/k")
        self.assertEqual(record and record.value, b"chunky")

    def test_framing_that_could_be_read_in_two_ways(self) -> None:
        put = b"PUT /k HTTP/1.1\r\nHost: n\r\n"
        for headers in (
            b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"Content-Length: -1\r\n\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        ):
            self.assertEqual(self.statuses(put + headers), [400])

    def test_a_target_with_a_space(self) -> None:
        self.assertEqual(self.statuses(b"GET /a b HTTP/1.1\r\nHost: n\r\n\r\n"), [400])

    def test_a_target_without_a_slash(self) -> None:
        self.assertEqual(self.statuses(b"GET k HTTP/1.1\r\nHost: n\r\n\r\n"), [400])

    def test_http_1_0(self) -> None:
        self.assertEqual(self.statuses(b"GET /k HTTP/1.0\r\n\r\n"), [404])

    def test_expectations(self) -> None:
        put = b"PUT /k HTTP/1.1\r\nHost: n\r\nContent-Length: 1\r\nExpect: %b\r\n\r\n"
        talk = self.talk(put % b"100-continue")
        self.assertTrue(talk.transport.value().startswith(b"HTTP/1.1 100 Continue"))
        talk.say(b"x")
        self.assertEqual([reply.status for reply in talk.replies()], [100, 204])
        self.assertEqual(self.statuses(put % b"more" + b"x"), [417])

    def test_connect(self) -> None:
        self.assertIn(
            self.statuses(b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n"), ([400], [405])
        )

    def test_many_requests_in_one_go(self) -> None:
        put = b"PUT /k HTTP/1.1\r\nHost: n\r\nContent-Length: 1\r\n\r\nx"
        get = b"GET /k HTTP/1.1\r\nHost: n\r\n\r\n"
        replies = self.talk(put + get + get).replies()
        self.assertEqual([reply.status for reply in replies], [204, 200, 200])
        self.assertEqual(replies[2].body, b"x")

    def test_headers_without_end(self) -> None:
        for headers in (b"X: " + b"x" * (1 << 20), b"X: x\r\n" * 100_000):
            talk = self.talk(b"GET /k HTTP/1.1\r\n" + headers)
            self.assertTrue(talk.transport.disconnecting)
            self.assertIn([r.status for r in talk.replies()], ([], [400]))


OriginalTheLongWay = the_long_way(Original)
RawSocketsTheLongWay = the_long_way(RawSockets)
