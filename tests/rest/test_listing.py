"""Pages of keys over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.interfaces import Unavailable
from kvdb.rest import listing
from kvdb.rest.listing import prefix_end
from kvdb.store.commands import Put
from kvdb.store.store import Store
from tests.rest.local import Server


class ListingTests(SynchronousTestCase):
    """C{GET /_/kv}."""

    def setUp(self) -> None:
        self.server = Server()

    def put(self, *keys: bytes, value: bytes = b"v") -> None:
        for key in keys:
            self.server.database.write(Put(key, value))

    def page(self, query: str = "") -> Any:
        reply = self.server.ask("GET", "/_/kv" + query)
        self.assertEqual(reply.status, 200, reply.body)
        self.assertEqual(reply.headers["content-type"], "application/json")
        return json.loads(reply.body)

    def test_all_keys_in_order_with_their_revisions(self) -> None:
        self.put(b"/b", b"/a", b"/a")
        self.assertEqual(
            self.page(),
            {
                "revision": 3,
                "keys": [
                    {
                        "key": "/a",
                        "value": "v",
                        "create_revision": 2,
                        "mod_revision": 3,
                        "version": 2,
                    },
                    {
                        "key": "/b",
                        "value": "v",
                        "create_revision": 1,
                        "mod_revision": 1,
                        "version": 1,
                    },
                ],
                "next": None,
            },
        )

    def test_pages_follow_one_another(self) -> None:
        keys = [b"/k%02d" % number for number in range(25)]
        self.put(*keys)
        found, query, pages = [], "?limit=10", 0
        while True:
            page = self.page(query)
            pages += 1
            found += [entry["key"] for entry in page["keys"]]
            if page["next"] is None:
                break
            query = "?limit=10&start=" + quote(page["next"])
        self.assertEqual(found, [key.decode() for key in keys])
        self.assertEqual(pages, 3)

    def test_only_what_begins_with_the_prefix(self) -> None:
        self.put(b"/a", b"/a/1", b"/a/\xff", b"/a0", b"/b")
        keys = self.page("?prefix=/a/")["keys"]
        self.assertEqual([entry.get("key") for entry in keys], ["/a/1", None])
        self.assertEqual(keys[1]["key_base64"], "L2Ev/w==")

    def test_a_start_before_the_prefix_does_not_widen_it(self) -> None:
        self.put(b"/a", b"/b", b"/c")
        keys = self.page("?prefix=/b&start=/a")["keys"]
        self.assertEqual([entry["key"] for entry in keys], ["/b"])

    def test_what_is_not_text_stands_in_base64(self) -> None:
        self.put(b"/a", value=b"\xff\x00")
        self.put(b"/\xff")
        page = self.page("?limit=1")
        self.assertEqual(page["keys"][0]["value_base64"], "/wA=")
        self.assertEqual(page["next_base64"], "L/8=")
        self.assertNotIn("next", page)
        rest = self.page("?start=/%FF")
        self.assertEqual(rest["keys"][0]["key_base64"], "L/8=")

    def test_without_values(self) -> None:
        self.put(b"/a")
        [entry] = self.page("?keys_only=true")["keys"]
        self.assertEqual(
            sorted(entry), ["create_revision", "key", "mod_revision", "version"]
        )

    def test_a_page_is_bounded_in_bytes(self) -> None:
        self.patch(listing, "MAX_PAGE_BYTES", 1000)
        self.put(b"/a", b"/b", b"/c", value=b"x" * 400)
        self.put(b"/d", b"/e", value=b"x" * 2000)
        first = self.page()
        self.assertEqual([e["key"] for e in first["keys"]], ["/a", "/b"])
        second = self.page("?start=" + first["next"])
        self.assertEqual([e["key"] for e in second["keys"]], ["/c"])
        third = self.page("?start=" + second["next"])
        self.assertEqual([e["key"] for e in third["keys"]], ["/d"])
        self.assertEqual(len(self.page("?keys_only=true")["keys"]), 5)

    def test_so_much_is_read_for_a_page_and_no_more(self) -> None:
        """Also where only keys are asked for: values stand beside them."""
        self.patch(listing, "MAX_READ_BYTES", 1000)
        self.put(*[b"/%02d" % number for number in range(20)], value=b"x" * 400)
        read: list[bytes] = []
        plain = Store.range

        def counted(store: Store, *bounds: Any) -> Iterator[Any]:
            for key, record in plain(store, *bounds):
                read.append(key)
                yield key, record

        self.patch(Store, "range", counted)
        page = self.page("?keys_only=true")
        self.assertEqual([e["key"] for e in page["keys"]], ["/00", "/01"])
        self.assertEqual(page["next"], "/02")
        self.assertEqual(read, [b"/00", b"/01", b"/02"])

    def test_an_empty_store(self) -> None:
        self.assertEqual(self.page(), {"revision": 0, "keys": [], "next": None})

    def test_linearizable_unless_asked_otherwise(self) -> None:
        self.page("?consistency=stale")
        self.assertEqual(self.server.database.barriers, 0)
        self.page()
        self.assertEqual(self.server.database.barriers, 1)
        self.server.database.failure = Unavailable("no leader")
        self.assertEqual(self.server.ask("GET", "/_/kv").status, 503)

    def test_what_is_wrong_is_said(self) -> None:
        for query, detail in (
            ("?limit=0", "limit is a number from 1 to 1000"),
            ("?limit=x", "limit is a number from 1 to 1000"),
            ("?prefix=a", "prefix begins with a slash, as every key does"),
            ("?prefix=", "prefix begins with a slash, as every key does"),
            ("?keys_only=yes", "keys_only is true or false"),
            ("?bogus=1", "unknown query parameter 'bogus'"),
            ("?limit=1&limit=2", "query parameter 'limit' stands there twice"),
            ("?consistency=x", "consistency is linearizable or stale"),
        ):
            reply = self.server.ask("GET", "/_/kv" + query)
            self.assertEqual(
                (reply.status, json.loads(reply.body)["detail"]), (400, detail)
            )
        long = self.server.ask("GET", "/_/kv?prefix=/" + "x" * 5000)
        self.assertEqual(long.status, 414)

    def test_other_methods_are_refused(self) -> None:
        for method in ("POST", "DELETE", "PATCH"):
            reply = self.server.ask(method, "/_/kv")
            self.assertEqual((reply.status, reply.headers["allow"]), (405, "get, head"))
        self.assertEqual(self.server.ask("PUT", "/_/kv").status, 409)
        self.assertEqual(self.server.ask("HEAD", "/_/kv").status, 200)

    @settings(max_examples=200)
    @given(
        st.binary(max_size=4).map(lambda tail: b"/" + tail),
        st.binary(max_size=6).map(lambda tail: b"/" + tail),
    )
    def test_the_end_of_a_prefix_divides_keys(self, prefix: bytes, key: bytes) -> None:
        self.assertEqual(
            prefix <= key < prefix_end(prefix), key.startswith(prefix), (prefix, key)
        )
