"""What each request is answered."""

from __future__ import annotations

import json
from urllib.parse import quote_from_bytes

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.interfaces import MembershipRefused, NoSpace, OutcomeUnknown, Unavailable
from kvdb.rest.site import DRAIN_BYTES, RestSettings
from kvdb.store.commands import Compact
from tests.rest.local import Server, the_long_way


class Keys(SynchronousTestCase):
    """Reading and writing."""

    def setUp(self) -> None:
        self.server = Server()
        self.ask = self.server.ask

    def test_a_value_is_read_back_as_it_was_written(self) -> None:
        put = self.ask("PUT", "/k", b"value")
        self.assertEqual((put.status, put.headers["etag"], put.body), (204, '"1"', b""))
        got = self.ask("GET", "/k")
        self.assertEqual((got.status, got.body), (200, b"value"))
        self.assertEqual(got.headers["etag"], '"1"')
        self.assertEqual(got.headers["content-length"], "5")
        self.assertEqual(got.headers["x-content-type-options"], "nosniff")

    def test_text_is_shown_as_text_and_nothing_is_run(self) -> None:
        for value, kind in (
            (b"<script>", "text/plain; charset=utf-8"),
            ("é".encode(), "text/plain; charset=utf-8"),
            (b"\xff\xfe", "application/octet-stream"),
            (b"a\0b", "application/octet-stream"),
        ):
            self.ask("PUT", "/k", value)
            self.assertEqual(self.ask("GET", "/k").headers["content-type"], kind)

    def test_head_is_get_without_the_body(self) -> None:
        self.ask("PUT", "/k", b"value")
        head = self.ask("HEAD", "/k")
        self.assertEqual((head.status, head.body), (200, b""))
        self.assertEqual(head.headers["content-length"], "5")
        self.assertEqual(self.ask("HEAD", "/absent").status, 404)

    def test_a_key_can_be_deleted(self) -> None:
        self.ask("PUT", "/k", b"value")
        self.assertEqual(self.ask("DELETE", "/k").status, 204)
        self.assertEqual(self.ask("GET", "/k").status, 404)
        self.assertEqual(self.ask("DELETE", "/k").status, 404)

    def test_digits_are_keys_but_for_post_and_delete_at_the_root(self) -> None:
        self.ask("PUT", "/7", b"seven")
        self.assertEqual(self.ask("GET", "/7").body, b"seven")
        missing = self.ask("DELETE", "/99")
        self.assertEqual(missing.status, 404)
        self.assertIn("/_/kv/99", json.loads(missing.body)["hint"])
        self.assertEqual(self.ask("DELETE", "/_/kv/7").status, 204)
        self.assertEqual(self.ask("GET", "/7").status, 404)

    def test_compare_and_set(self) -> None:
        ask = self.ask
        self.assertEqual(ask("PUT", "/k", b"1", If_None_Match="*").status, 204)
        lost = ask("PUT", "/k", b"2", If_None_Match="*")
        self.assertEqual((lost.status, lost.headers["etag"]), (412, '"1"'))
        self.assertEqual(ask("PUT", "/k", b"2", If_Match='"1"').status, 204)
        self.assertEqual(ask("PUT", "/k", b"3", If_Match='"1"').status, 412)
        self.assertEqual(ask("PUT", "/k", b"3", If_Match='"other"').status, 412)
        self.assertEqual(ask("PUT", "/k", b"3", If_Match="*").status, 204)
        self.assertEqual(ask("PUT", "/new", b"3", If_Match="*").status, 412)
        self.assertEqual(ask("DELETE", "/k", If_Match='"1"').status, 412)
        self.assertEqual(ask("DELETE", "/k", If_Match='"3"').status, 204)

    def test_conditions_that_make_no_sense_are_refused(self) -> None:
        for headers in (
            {"If_Match": "1"},
            {"If_Match": '"1", "2"'},
            {"If_None_Match": '"1"'},
            {"If_Match": "*", "If_None_Match": "*"},
        ):
            self.assertEqual(self.ask("PUT", "/k", b"v", **headers).status, 400)
        self.ask("PUT", "/k", b"v")
        self.assertEqual(self.ask("GET", "/k", If_None_Match="x").status, 400)

    def test_a_reader_who_has_it_is_told_so(self) -> None:
        self.ask("PUT", "/k", b"v")
        for tags in ('"1"', 'W/"1"', '"9", "1"', "*"):
            same = self.ask("GET", "/k", If_None_Match=tags)
            self.assertEqual((same.status, same.body), (304, b""))
        self.assertEqual(self.ask("GET", "/k", If_None_Match='"2"').status, 200)

    def test_a_retry_gets_the_first_answer(self) -> None:
        first = self.ask("PUT", "/k", b"1", Idempotency_Key="a")
        self.ask("PUT", "/k", b"2")
        again = self.ask("PUT", "/k", b"1", Idempotency_Key='"a"')
        self.assertEqual(again.headers["etag"], first.headers["etag"])
        self.assertEqual(self.ask("GET", "/k").body, b"2")
        self.assertEqual(self.ask("PUT", "/k", b"3", Idempotency_Key="a").status, 422)
        self.assertEqual(self.ask("PUT", "/k", b"3", Idempotency_Key="").status, 400)
        long = "x" * 257
        self.assertEqual(self.ask("PUT", "/k", b"3", Idempotency_Key=long).status, 400)

    def test_reads_of_the_past_and_of_this_member_alone(self) -> None:
        for value in (b"1", b"2", b"3"):
            self.ask("PUT", "/k", value)
        self.assertEqual(self.ask("GET", "/k?revision=2").body, b"2")
        self.assertEqual(self.ask("GET", "/k?revision=9").status, 400)
        self.assertEqual(self.ask("GET", "/k?revision=x").status, 400)
        self.server.database.write(Compact(2))
        self.assertEqual(self.ask("GET", "/k?revision=1").status, 410)
        before = self.server.database.barriers
        self.assertEqual(self.ask("GET", "/k?consistency=stale").body, b"3")
        self.assertEqual(self.server.database.barriers, before)
        self.assertEqual(self.ask("GET", "/k?consistency=linearizable").body, b"3")
        self.assertEqual(self.server.database.barriers, before + 1)
        self.assertEqual(self.ask("GET", "/k?consistency=maybe").status, 400)

    def test_parameters_that_would_be_ignored_are_refused_by_name(self) -> None:
        for method, target in (
            ("GET", "/k?x=1"),
            ("PUT", "/k?x"),
            ("DELETE", "/k?x=1"),
        ):
            refused = self.ask(method, target)
            if refused.status == 400:
                self.assertIn("'x'", json.loads(refused.body)["detail"])
            else:
                # Twisted drops a parameter without a value.
                self.assertEqual(target, "/k?x")
        self.assertEqual(self.ask("GET", "/k?revision=1&revision=2").status, 400)

    @settings(
        deadline=None,
        max_examples=60,
        suppress_health_check=[HealthCheck.differing_executors],
    )
    @given(st.binary(min_size=1, max_size=200), st.binary(max_size=300))
    def test_any_key_and_any_value(self, key: bytes, value: bytes) -> None:
        path = "/" + quote_from_bytes(key, safe="")
        explicit = "/_/kv" + path
        self.assertEqual(self.ask("PUT", explicit, value).status, 204)
        self.assertEqual(self.ask("GET", explicit).body, value)
        if not key.startswith(b"_") and not key.startswith((b"health", b"v3")):
            self.assertEqual(self.ask("GET", path).body, value)

    def test_slashes_and_nothing_are_part_of_a_key(self) -> None:
        paths = ["/", "//", "//a", "/a//b", "/a/../b", "/ts/", "/_/kv//x"]
        for number, path in enumerate(paths):
            self.assertEqual(self.ask("PUT", path, b"%d" % number).status, 204, path)
        for number, path in enumerate(paths):
            self.assertEqual(self.ask("GET", path).body, b"%d" % number, path)


class Limits(SynchronousTestCase):
    """What is too much."""

    def setUp(self) -> None:
        self.server = Server(RestSettings(max_key_bytes=20, max_value_bytes=1000))

    def test_a_key(self) -> None:
        self.assertEqual(self.server.ask("PUT", "/" + "k" * 19, b"").status, 204)
        refused = self.server.ask("PUT", "/" + "k" * 20, b"")
        self.assertEqual(refused.status, 414)
        self.assertIn("21 bytes, the limit is 20", json.loads(refused.body)["detail"])

    def test_a_value(self) -> None:
        self.assertEqual(self.server.ask("PUT", "/k", bytes(1000)).status, 204)
        refused = self.server.ask("PUT", "/k", bytes(1001))
        self.assertEqual(refused.status, 413)
        self.assertIn(
            "1001 bytes, the limit is 1000", json.loads(refused.body)["detail"]
        )
        self.assertEqual(len(self.server.ask("GET", "/k").body), 1000)

    def test_a_value_in_chunks(self) -> None:
        talk = self.server.connect()
        talk.say(b"PUT /k HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            talk.say(b"190\r\n" + bytes(400) + b"\r\n")
        talk.say(b"0\r\n\r\n")
        self.assertEqual([reply.status for reply in talk.replies()], [413])

    def test_far_too_much_is_cut_off(self) -> None:
        talk = self.server.connect()
        length = 2 * DRAIN_BYTES
        talk.say(b"PUT /k HTTP/1.1\r\nHost: n\r\nContent-Length: %d\r\n\r\n" % length)
        piece = bytes(1 << 20)
        while not talk.transport.disconnecting and not talk.transport.disconnected:
            talk.say(piece)
            length -= len(piece)
            self.assertGreater(length, 0)


class Errors(SynchronousTestCase):
    """What the node cannot do, in HTTP's words."""

    def test_each_failure_has_its_status(self) -> None:
        server = Server()
        for failure, status in (
            (Unavailable("no leader", "wait"), 503),
            (OutcomeUnknown("late"), 504),
            (NoSpace("full"), 507),
        ):
            server.database.failure = failure
            reply = server.ask("PUT", "/k", b"v")
            self.assertEqual(reply.status, status)
            self.assertEqual(reply.headers["content-type"], "application/problem+json")
            problem = json.loads(reply.body)
            self.assertEqual(problem["status"], status)
            self.assertEqual(problem["detail"], str(failure))
            self.assertEqual("retry-after" in reply.headers, status == 503)

    def test_what_nobody_foresaw_is_logged_and_not_shown(self) -> None:
        server = Server()
        server.database.failure = RuntimeError("secret")
        reply = server.ask("GET", "/k")
        self.assertEqual(reply.status, 500)
        self.assertNotIn(b"secret", reply.body)
        self.assertNotIn(b"Traceback", reply.body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_client_that_hangs_up_leaves_no_trace(self) -> None:
        server = Server()
        server.database.hold = True
        talk = server.connect()
        talk.say(b"PUT /k HTTP/1.1\r\nHost: n\r\nContent-Length: 1\r\n\r\nv")
        [held] = server.database.held
        talk.hang_up()
        if not held.called:  # cancelled, the long way
            held.callback(server.database.outcomes[0])
        self.assertEqual(talk.replies(), [])
        record = server.database.get(b"/k")
        self.assertEqual(record and record.value, b"v")

    def test_another_sites_page_may_read_and_not_write(self) -> None:
        server = Server()
        for origin in ("http://elsewhere", "null", "http://node:1", "http://["):
            self.assertEqual(server.ask("PUT", "/k", b"v", Origin=origin).status, 403)
            self.assertEqual(server.ask("GET", "/k", Origin=origin).status, 404)
        self.assertEqual(
            server.ask("PUT", "/k", b"v", Origin="http://node").status, 204
        )


class Members(SynchronousTestCase):
    """Who is a member, and who leads."""

    def setUp(self) -> None:
        self.server = Server()
        self.ask = self.server.ask
        self.asked = self.server.database.asked

    def test_as_in_the_original(self) -> None:
        added = self.ask("POST", "/4", b"http://h:4\n", Idempotency_Key="t")
        self.assertEqual((added.status, added.body), (204, b""))
        self.assertEqual(self.ask("DELETE", "/3").status, 204)
        self.assertEqual(
            self.asked, [("add", 4, "http://h:4", b"t"), ("remove", 3, b"")]
        )

    def test_the_explicit_addresses(self) -> None:
        added = self.ask("POST", "/_/members", b'{"id": 4, "url": "http://h:4"}')
        self.assertEqual(added.status, 201)
        self.assertEqual(json.loads(added.body), {"id": 4, "url": "http://h:4"})
        self.assertEqual(self.ask("DELETE", "/_/members/3").status, 204)
        self.assertEqual(self.ask("DELETE", "/_/members/x").status, 400)
        listed = json.loads(self.ask("GET", "/_/members").body)
        self.assertEqual([member["id"] for member in listed["members"]], [1])

    def test_bad_requests_are_refused_with_the_reason(self) -> None:
        for target, body in (
            ("/abc", b"http://h:4"),
            ("/-1", b"http://h:4"),
            ("/0", b"http://h:4"),
            ("/18446744073709551616", b"http://h:4"),
            ("/4", b""),
            ("/4", b"\xff"),
            ("/4", b"ftp://h:4"),
            ("/4", b"http://h"),
            ("/_/members", b"not JSON"),
            ("/_/members", b"[]"),
            ("/_/members", b'{"id": "4", "url": "http://h:4"}'),
            ("/_/leader", b"{"),
            ("/_/leader", b'{"id": "x"}'),
        ):
            refused = self.ask("POST", target, body)
            self.assertEqual(refused.status, 400, (target, body))
            self.assertTrue(json.loads(refused.body)["detail"])
        self.assertEqual(self.asked, [])

    def test_a_url_that_nobody_can_dial_is_refused(self) -> None:
        for url in (
            "http://0.0.0.0:1",
            "http://[::]:1",
            "http://[ff02::1]:1",
            "http://224.0.0.1:1",
            "http://h:0",
            "http://a..b:1",
            "http://256.1.1.1:1",
            "http://-x:1",
            "http://[fe80::1%25eth0]:1",
        ):
            for refused in (
                self.ask("POST", "/4", url.encode()),
                self.ask(
                    "POST", "/_/members", json.dumps({"id": 4, "url": url}).encode()
                ),
            ):
                self.assertEqual(refused.status, 400, url)
                detail = json.loads(refused.body)["detail"]
                self.assertIn(f'"{url}" is no peer URL: ', detail)
        self.assertEqual(self.asked, [])

    def test_what_the_membership_refuses_is_a_conflict(self) -> None:
        self.server.database.failure = MembershipRefused("it exists", "take another")
        refused = self.ask("POST", "/4", b"http://h:4")
        self.assertEqual(refused.status, 409)
        self.assertEqual(json.loads(refused.body)["hint"], "take another")

    def test_leadership(self) -> None:
        handed = self.ask("POST", "/_/leader")
        self.assertEqual(json.loads(handed.body), {"leader": 2})
        self.assertEqual(self.ask("POST", "/_/leader", b'{"id": 3}').status, 200)
        self.assertEqual(self.asked, [("lead", None), ("lead", 3)])

    def test_status(self) -> None:
        reply = self.ask("GET", "/_/status")
        self.assertEqual(reply.headers["x-kvdb-leader"], "1")
        status = json.loads(reply.body)
        for field in (
            "id", "cluster_id", "role", "leader", "term", "commit_index",
            "applied_index", "revision", "version", "members",
        ):  # fmt: skip
            self.assertIn(field, status)

    def test_probes(self) -> None:
        self.assertEqual(self.ask("GET", "/_/live").status, 200)
        self.assertEqual(self.ask("GET", "/_/ready").status, 200)
        self.server.database.ready = False
        self.assertEqual(self.ask("GET", "/_/ready").status, 503)
        self.assertEqual(self.ask("GET", "/health").status, 200)
        self.server.database.failure = Unavailable("no leader")
        self.assertEqual(self.ask("GET", "/health").status, 503)
        self.assertIn("kvdb", json.loads(self.ask("GET", "/version").body))

    def test_a_health_check_does_not_wait_for_long(self) -> None:
        self.server.database.hold = True
        talk = self.server.connect()
        talk.say(b"GET /health HTTP/1.1\r\nHost: n\r\n\r\n")
        self.assertEqual(talk.replies(), [])
        self.server.clock.advance(2.5)
        [reply] = talk.replies()
        self.assertEqual(reply.status, 503)
        self.assertIn("in time", json.loads(reply.body)["reason"])


class Addresses(SynchronousTestCase):
    """What is kvdb's own, and what is not there."""

    def test_own_addresses_are_no_keys(self) -> None:
        server = Server()
        for path in ("/health", "/metrics", "/version", "/_/x", "/_/status", "/v3/kv"):
            refused = server.ask("PUT", path, b"v")
            self.assertEqual(refused.status, 409, path)
            self.assertIn("/_/kv/", json.loads(refused.body)["hint"])
        self.assertEqual(server.ask("GET", "/_/nothing").status, 404)
        self.assertEqual(server.ask("GET", "/metrics").status, 404)
        self.assertEqual(server.ask("POST", "/v3/kv/put", b"{}").status, 409)

    def test_with_another_slash_in_front_they_are_keys(self) -> None:
        server = Server()
        for path in ("//health", "//_/ui", "//_/members/9", "///_/status", "//9"):
            self.assertEqual(server.ask("PUT", path, b"v").status, 204, path)
            self.assertEqual(server.ask("GET", path).body, b"v", path)
            self.assertEqual(server.ask("DELETE", path).status, 204, path)
        self.assertEqual(server.database.asked, [], "no member was touched")

    def test_all_spellings_of_an_address_are_one(self) -> None:
        """As libraries and proxies decode what others encode, and the other way."""
        server = Server()
        for method, plain, spellings in (
            ("DELETE", "/3", ("/%33", "http://n/%33")),
            ("DELETE", "/34", ("/%334", "/3%34", "/%33%34")),
            ("DELETE", "/_/members/3", ("/%5F/members/%33", "/_%2Fmembers%2f3")),
            ("POST", "/4", ("/%34",)),
            ("GET", "/_/status", ("/%5F/status", "/%5f/%73tatus", "/_%2Fstatus")),
            ("GET", "/health", ("/%68ealth",)),
            ("PUT", "/health", ("/%68ealth",)),
            ("POST", "/health", ("/%68ealth",)),
            ("GET", "/_/kv?limit=1", ("/%5F/kv?limit=1",)),
            ("PUT", "/_/kv/x", ("/%5F/kv/x", "/_%2Fkv/%78")),
            ("PUT", "/v3/kv", ("/v%33/kv",)),
            ("BREW", "/_/members/3", ("/%5F/members/3",)),
        ):
            body = b"http://127.0.0.1:1" if method in ("PUT", "POST") else None
            expected = server.ask(method, plain, body)
            asked = server.database.asked[-1:]
            for spelling in spellings:
                server.database.asked.clear()
                reply = server.ask(method, spelling, body)
                self.assertEqual(reply.status, expected.status, (method, spelling))
                self.assertEqual(
                    reply.headers.get("allow"), expected.headers.get("allow")
                )
                if asked and method in ("DELETE", "POST"):
                    self.assertEqual(server.database.asked, asked, spelling)
            server.database.asked.clear()

    def test_all_spellings_of_a_key_are_one(self) -> None:
        server = Server()
        for number, spellings in enumerate(
            (
                ("/3", "/%33", "/_/kv/3", "/_/kv/%33", "/%5F/kv/3"),
                ("//..", "/%2F..", "/%2f%2E%2E", "/_/kv/%2F.."),
                ("//3", "/%2F3", "/%2f%33"),
                ("/_/kv/_/status", "/_/kv/%5F/status", "/_%2Fkv%2F_%2Fstatus"),
                ("/_/kv/%2533", "/%2533", "/_%2Fkv/%2533"),
                ("/_/kv/%0A", "/%0A", "/_%2Fkv%2F%0A"),
            )
        ):
            for spelling in spellings:
                value = b"%d %b" % (number, spelling.encode())
                self.assertEqual(server.ask("PUT", spelling, value).status, 204)
                for other in spellings:
                    self.assertEqual(server.ask("GET", other).body, value, other)
        self.assertEqual(server.database.asked, [])

    def test_where_there_is_a_key_of_digits_no_member_is_removed(self) -> None:
        server = Server()
        server.ask("PUT", "/3", b"value")
        for spelling in ("/3", "/%33"):
            refused = server.ask("DELETE", spelling)
            self.assertEqual(refused.status, 409)
            problem = json.loads(refused.body)
            self.assertIn("nothing was done", problem["detail"])
            self.assertIn("/_/kv/3", problem["hint"])
            self.assertIn("/_/members/3", problem["hint"])
        self.assertEqual(server.database.asked, [])
        self.assertEqual(server.ask("GET", "/3").body, b"value")
        self.assertEqual(server.ask("DELETE", "/_/kv/3").status, 204)
        self.assertEqual(server.ask("DELETE", "/%33").status, 204)
        self.assertEqual(server.database.asked, [("remove", 3, b"")])
        server.database.failure = Unavailable("no leader")
        self.assertEqual(server.ask("DELETE", "/3").status, 503)

    def test_methods_that_are_not_for_an_address(self) -> None:
        server = Server()
        every = "delete, get, head, post, put"
        for method in ("PATCH", "OPTIONS", "TRACE", "BREW", "get"):
            reply = server.ask(method, "/k")
            self.assertEqual((reply.status, reply.headers["allow"]), (405, every))
        for method, path, allowed in (
            ("POST", "/_/status", "get, head"),
            ("DELETE", "/_/leader", "post"),
            ("GET", "/_/leader", "post"),
            ("POST", "/health", "get, head"),
            ("PATCH", "/_/members", "get, head, post"),
            ("POST", "/_/members/3", "delete"),
            ("POST", "/_/kv/k", "delete, get, head, put"),
        ):
            reply = server.ask(method, path)
            self.assertEqual(
                (reply.status, reply.headers.get("allow")),
                (405, allowed),
                (method, path),
            )


class AnyBytes(SynchronousTestCase):
    """Nothing that is sent makes the server fail."""

    @settings(
        deadline=None,
        max_examples=150,
        suppress_health_check=[HealthCheck.differing_executors],
    )
    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=60),
                st.sampled_from(
                    [
                        b"GET /k HTTP/1.1\r\n",
                        b"PUT /k HTTP/1.1\r\n",
                        b"Host: n\r\n",
                        b"\r\n",
                        b"Content-Length: 3\r\n",
                        b"Transfer-Encoding: chunked\r\n",
                        b"5\r\nhello\r\n",
                        b"0\r\n\r\n",
                        b"POST /4 HTTP/1.1\r\n",
                        b"If-Match: x\r\n",
                        b"GET http://a/b?c=d HTTP/1.0\r\n",
                        b"%",
                        b"* ",
                    ]
                ),
            ),
            max_size=8,
        )
    )
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        talk = Server().connect()
        for piece in pieces:
            if not talk.transport.disconnecting:
                talk.say(piece)
        talk.hang_up()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_pieces_of_any_size(self) -> None:
        request = b"PUT /k HTTP/1.1\r\nHost: n\r\nContent-Length: 5\r\n\r\nhello"
        talk = Server().connect()
        for byte in request + request:
            talk.say(bytes([byte]))
        self.assertEqual([reply.status for reply in talk.replies()], [204, 204])


KeysTheLongWay = the_long_way(Keys)
LimitsTheLongWay = the_long_way(Limits)
ErrorsTheLongWay = the_long_way(Errors)
MembersTheLongWay = the_long_way(Members)
AddressesTheLongWay = the_long_way(Addresses)
AnyBytesTheLongWay = the_long_way(AnyBytes)
