"""Who may do what, at every address, by the lane and by the long way."""

from __future__ import annotations

import base64
import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kvdb.access.guard import FAILURES
from kvdb.access.rules import parse_access
from kvdb.rest.app import API
from tests.access.files import Guarded, access
from tests.rest.local import Reply, Server, the_long_way

ROLES = ("anonymous", "nobody", "reader", "writer", "metrics", "admin", "wrong")

# A letter for each of ROLES: + allowed, 1 answered 401, 3 answered 403.  A user
# without roles is "nobody", one with a wrong secret "wrong".
MATRIX = """
GET     /_/live                 +++++++
GET     /_/ready                +++++++
GET     /health                 +++++++
GET     /version                +++++++
HEAD    /version                +++++++
GET     /_/ui/                  +++++++
GET     /_/ui/app.js            +++++++
POST    /_/ui/anything          13333+1
GET     /_/status               1+++++1
GET     /_/members              1+++++1
POST    /_/members              13333+1
DELETE  /_/members/9            13333+1
POST    /_/leader               13333+1
POST    /9                      13333+1
DELETE  /9                      13333+1
DELETE  /%39                    13333+1
DELETE  /_/members/%39          13333+1
DELETE  /%5F%2fmembers/9        13333+1
POST    /%39                    13333+1
HEAD    /%5F/snapshot           13333+1
PUT     /%5F/status             13333+1
GET     /%5f/kv/%61pp/k         13+3331
POST    /app/k                  13333+1
GET     /metrics                1333+31
POST    /metrics                13333+1
GET     /app/k                  13+3331
HEAD    /app/k                  13+3331
GET     /app/k?consistency=stale 13+3331
GET     /app/k?revision=1       13+3331
PUT     /app/k                  133+331
DELETE  /app/k                  133+331
GET     /_/kv/app/k             13+3331
PUT     /_/kv/app/k             133+331
DELETE  /_/kv/app/k             133+331
GET     /%61pp/k                13+3331
GET     /app%2fk                13+3331
GET     /app/../x               13+3331
GET     /app                    1333331
GET     /other                  1333331
PUT     /other                  1333331
DELETE  /other                  1333331
DELETE  /_/kv/9                 1333331
GET     //app/k                 1333331
GET     /APP/k                  1333331
GET     /x/app/k                1333331
GET     /_/kv                   1333331
GET     /_/kv?prefix=/app/      13+3331
GET     /_/kv?prefix=/app/x     13+3331
GET     /_/kv?prefix=%2Fapp%2F  13+3331
GET     /_/kv?prefix=/app       1333331
GET     /_/kv?prefix=/          1333331
GET     /_/kv?prefix=/other/    1333331
GET     /_/kv?start=/app/       1333331
GET     /_/kv?prefix=/app/&prefix=/other/ 1333331
HEAD    /_/watch?prefix=/app/   13+3331
HEAD    /_/watch?prefix=/ap     1333331
HEAD    /_/watch                1333331
HEAD    /_/watch?key=/app/k     13+3331
HEAD    /_/watch?key=/other     1333331
HEAD    /_/watch?key=/app/k&prefix=/ 1333331
HEAD    /_/snapshot             13333+1
GET     /_/anything-new         13333+1
PUT     /_/status               13333+1
POST    /v3/kv/range            13333+1
GET     /_/                     13333+1
"""


def basic(name: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def authorization(role: str) -> dict[str, str]:
    if role == "anonymous":
        return {}
    if role == "wrong":
        return {"Authorization": basic("admin", "guess")}
    return {"Authorization": basic(role, role)}


class Matrix(SynchronousTestCase):
    def setUp(self) -> None:
        self.guarded = Guarded()
        self.server = Server(guard=self.guarded.guard)
        for key in ("/app/k", "/other", "/9", "//app/k", "/APP/k"):
            Server.ask(self._open(), "PUT", "/_/kv" + key, b"v")

    def _open(self) -> Server:
        """A way past the guard, to the same keys."""
        server = Server(self.server.settings, self.server.clock)
        server.database = self.server.database
        return server

    def ask(self, method: str, target: str, role: str, body: bytes = b"v") -> Reply:
        sent = None if method in ("GET", "HEAD") else body
        self.guarded.clock.advance(60)  # failures are forgotten
        return self.server.ask(method, target, sent, **authorization(role))

    def test_each_address_with_each_role(self) -> None:
        for line in MATRIX.strip().splitlines():
            method, target, expected = line.split()
            for role, sign in zip(ROLES, expected, strict=True):
                before = self.server.database.store.revision, self.server.database.asked
                before = before[0], list(before[1])
                reply = self.ask(method, target, role)
                found = {401: "1", 403: "3"}.get(reply.status, "+")
                self.assertEqual(found, sign, (line, role, reply))
                self.assertLess(reply.status, 500, (line, role, reply))
                if sign != "+":
                    after = (
                        self.server.database.store.revision,
                        self.server.database.asked,
                    )
                    self.assertEqual(after, before, (line, role))

    def test_the_matrix_leaves_out_no_address(self) -> None:
        """Whoever adds an address adds it here."""
        asked = {
            line.split()[1].partition("?")[0] for line in MATRIX.split("\n") if line
        }
        for rule in API.app.url_map.iter_rules():
            path = rule.rule.replace("<node>", "9").replace("<path:rest>", "app/k")
            path = path.replace("<name>", "app.js")
            tried = any(one == path or one.startswith(path + "/") for one in asked)
            self.assertTrue(tried, rule.rule)

    def test_what_is_refused_says_what_is_missing(self) -> None:
        for role, method, target, missing in (
            ("reader", "GET", "/other", '"read" on /other'),
            ("reader", "PUT", "/app/%C3%A9", '"write" on /app/é'),
            ("writer", "GET", "/_/kv?prefix=/app", '"read" on /app'),
            ("writer", "POST", "/_/leader", '"admin"'),
            ("admin", "GET", "/metrics", '"metrics"'),
        ):
            reply = self.ask(method, target, role)
            problem = json.loads(reply.body)
            self.assertEqual(problem["status"], 403)
            self.assertEqual(
                problem["detail"], f"user '{role}' has no role with {missing}"
            )
            self.assertNotIn("www-authenticate", reply.headers)

    def test_who_shows_nothing_is_asked_for_it(self) -> None:
        for role in ("anonymous", "wrong"):
            reply = self.ask("GET", "/app/k", role)
            self.assertEqual(reply.status, 401)
            self.assertIn("basic realm=", reply.headers["www-authenticate"])
            self.assertIn("bearer", reply.headers["www-authenticate"])

    def test_who_may_write_all_keys_may_do_nothing_else(self) -> None:
        everything = '[roles.all]\nread = ["/"]\nwrite = ["/"]\n'
        anybody = f'{everything}[anonymous]\nroles = ["all"]\n'
        self.guarded.guard.replace(parse_access(anybody.encode()))
        for slashes, statuses in (("", {401}), ("/", {204, 404}), ("//", {204, 404})):
            for method, target in (
                ("GET", "/_/snapshot"),
                ("GET", "/metrics"),
                ("DELETE", "/_/members/9"),
                ("DELETE", "/9"),
            ):
                reply = self.ask(method, slashes + target, "anonymous")
                self.assertIn(reply.status, statuses, slashes + target)
        self.assertEqual(self.server.database.asked, [])

    def test_anonymous_may_be_given_a_role(self) -> None:
        self.guarded.guard.replace(access('"reader", "metrics"'))
        self.assertEqual(self.ask("GET", "/app/k", "anonymous").body, b"v")
        self.assertEqual(self.ask("GET", "/_/status", "anonymous").status, 200)
        self.assertEqual(self.ask("GET", "/metrics", "anonymous").status, 404)
        self.assertEqual(self.ask("PUT", "/app/k", "anonymous").status, 401)
        self.assertEqual(self.ask("GET", "/app/k", "writer").status, 403)
        self.assertEqual(self.ask("GET", "/app/k", "wrong").status, 401)

    def test_who_fails_often_is_told_to_wait(self) -> None:
        for number in range(FAILURES):
            guess = {"Authorization": basic("admin", f"{number}")}
            self.assertEqual(
                self.server.ask("GET", "/app/k", None, **guess).status, 401
            )
        reply = self.server.ask("GET", "/app/k", None, **authorization("reader"))
        self.assertEqual(reply.status, 429)
        self.assertIn(int(reply.headers["retry-after"]), range(1, 8))
        self.assertEqual(self.server.ask("GET", "/_/live").status, 200)

    def test_when_too_many_wait(self) -> None:
        self.guarded.beside.at_once = False
        talks = []
        for number in range(FAILURES + 1):
            talk = self.server.connect()
            header = basic("reader", f"{number}")
            head = f"GET /app/k HTTP/1.1\r\nHost: n\r\nAuthorization: {header}"
            talk.say(f"{head}\r\n\r\n".encode())
            talks.append(talk)
        [reply] = talks[FAILURES].replies()
        self.assertEqual((reply.status, reply.headers["retry-after"]), (503, "1"))
        talks[0].hang_up()
        self.guarded.beside.work()
        self.assertEqual(talks[0].replies(), [])
        self.assertEqual([r.status for r in talks[1].replies()], [401])

    def test_a_bad_target_is_a_bad_request(self) -> None:
        self.assertEqual(self.ask("GET", "/%zz", "reader").status, 400)
        self.assertEqual(self.ask("GET", "/app/" + "k" * 5000, "reader").status, 414)


MatrixTheLongWay = the_long_way(Matrix)


class OnOneConnection(SynchronousTestCase):
    """What the lane has learned of a client."""

    def setUp(self) -> None:
        self.guarded = Guarded()
        self.server = Server(guard=self.guarded.guard)
        self.talk = self.server.connect()
        self.lane: Any = self.talk.protocol.lane

    def say(self, line: str, *more: str, body: str = "") -> int:
        length = [f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([f"{line} HTTP/1.1", "Host: n", *more, *length])
        self.talk.say(f"{head}\r\n\r\n{body}".encode())
        [reply] = self.talk.replies()
        return reply.status

    def test_who_is_known_takes_the_lane(self) -> None:
        reader = "Authorization: " + basic("reader", "reader")
        writer = "authorization: " + basic("writer", "writer")
        self.assertEqual(self.say("PUT /app/k", writer, body="v"), 204)
        self.assertEqual(self.lane.learned, 0)  # the long way found out
        self.assertEqual(self.say("PUT /app/k", writer, body="v"), 204)
        self.assertEqual(self.lane.learned, 1)
        for _ in range(3):
            self.assertEqual(self.say("GET /app/k", reader), 200)
        self.assertEqual(self.lane.learned, 2)
        taken = self.talk.protocol._answered
        self.assertEqual(taken, 3)
        # By the lane's own head, but beyond what it grants.
        self.assertEqual(self.say("GET /other", reader), 403)
        self.assertEqual(self.say("PUT /app/k", reader, body="v"), 403)
        self.assertEqual(self.say("GET /app/k", writer), 403)
        self.assertEqual(self.talk.protocol._answered, taken)

    def test_heads_that_mean_something_else(self) -> None:
        reader = "Authorization: " + basic("reader", "reader")
        for _ in range(2):
            self.assertEqual(self.say("GET /app/k", reader), 404)
        for more in (
            ["X-Authorization: x"],
            ["Authorization:"],
            ["Authorization: " + basic("reader", "other")],
            ["Authorization: " + basic("reader", "reader") + "x"],
        ):
            for _ in range(2):
                self.assertEqual(self.say("GET /app/k", *more), 401, more)

    def test_two_of_what_there_is_one_of(self) -> None:
        """Whatever stands before the server may have looked at the other one."""
        reader = "Authorization: " + basic("reader", "reader")
        for more in (
            [reader, "Authorization: " + basic("wrong", "x")],
            ["authorization: " + basic("wrong", "x"), reader],
            [reader, reader],
            [reader, "Host: n"],
            [reader, "Origin: http://evil", "Origin: http://n"],
            [reader, 'If-Match: "1"', 'If-Match: "2"'],
            [reader, "Idempotency-Key: 1", "Idempotency-Key: 2"],
        ):
            for line in ("GET /app/k", "GET /_/status"):
                self.assertEqual(self.say(line, *more), 400, more)
        more = ["Accept: */*", "Accept: text/plain", reader]
        self.assertEqual(self.say("GET /app/k", *more), 404)

    def test_who_is_anonymous_may_take_it_too(self) -> None:
        for _ in range(2):
            self.assertEqual(self.say("GET /app/k"), 401)
        self.guarded.guard.replace(access('"reader"'))
        self.assertEqual(self.say("GET /app/k"), 404)
        self.assertEqual(self.talk.protocol._answered, 1)
        self.assertEqual(self.say("PUT /app/k", body="v"), 401)

    def test_a_new_access_file_counts_at_once(self) -> None:
        reader = "Authorization: " + basic("reader", "reader")
        for _ in range(2):
            self.assertEqual(self.say("GET /app/k", reader), 404)
        self.guarded.guard.replace(parse_access(b""))
        self.assertEqual(self.lane.learned, 0)
        self.assertEqual(self.say("GET /app/k", reader), 401)

    def test_what_is_learned_is_bounded(self) -> None:
        reader = "Authorization: " + basic("reader", "reader")
        self.say("GET /app/k", reader)
        for number in range(1100):
            self.say("GET /app/k", reader, f"User-Agent: {number}")
            self.assertLessEqual(self.lane.learned, 512)
            self.assertEqual(len(self.lane._principals), self.lane.learned)
