"""Peer URLs: which there are, and that nothing but their text decides."""

from __future__ import annotations

import ipaddress

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.store.urls import MAX_URL_BYTES, read_url, url_problem

GOOD = (
    "http://a:1",
    "tcp://a:1/",
    "https://a:1",
    "HTTP://DB_1-x.Example.ORG:65535",
    "http://db1.example.org.:1",
    "http://xn--4ca:1",
    "http://1a:1",
    "http://1.2.3.4:5",
    "http://240.1.1.1:5",
    "http://[::1]:65535",
    "http://[FD00::A]:1",
    "http://[1:2:3:4:5:6:7::]:1",
    "http://[1:2:3:4:5:6:7:8]:1",
    "http://[::ffff:10.1.2.3]:1",
    "http://" + "a" * 63 + ":1",
    "http://" + ".".join(["a" * 62] * 4) + "a:1",
)

NO_URLS = (
    "",
    "nonsense",
    "a:1",
    "//a:1",
    "http://a",
    "http://a:",
    "http://:1",
    "http:///:1",
    "ftp://a:1",
    "http://a:1/path",
    "http://a:1//",
    "http://a:1?q",
    "http://a:1?",
    "http://a:1#f",
    "http://a:1#",
    "http://u@a:1",
    "http://[::1:1",
    "http://::1:1",
    "http://[::1]foo:81",
    "http://foo[::1]:81",
    "http://[::1]]:81",
    "http://[a]:1",
    "http://[1.2.3.4]:1",
    "http://[v1.a]:1",
    "http://a,b:1",
    "http://a b:1",
    "http://a%20b:1",
    "http://\u00e4:1",
    "http://\udcff:1",
    "http://\uff11.2.3.4:1",
    "http://a:\uff11",
    "http://a\n:1",
    "http://a:1\n",
    " http://a:1",
    "http://a\\b:1",
)

PORTS = ("0", "00", "01", "+1", "-1", "1_0", "x", "65536", "99999999999999999999")

NOBODY = (
    "0.0.0.0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.255",
    "255.255.255.255",
    "[::]",
    "[0:0:0:0:0:0:0:0]",
    "[::0.0.0.0]",
    "[::ffff:0.0.0.0]",
    "[::ffff:0.0.0.1]",
    "[::FFFF:224.0.0.1]",
    "[::ffff:ffff:ffff]",
    "[ff02::1]",
    "[fe80::1]",
    "[febf::1]",
    "[fe80::1%eth0]",
    "[fd00::1%25eth0]",
)

NO_HOSTS = (
    "a..b",
    ".a",
    ".",
    "..",
    "a..",
    "-x",
    "x-",
    "a.-b.c",
    "256.1.1.1",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.4.",
    "01.2.3.4",
    "127.1",
    "42",
    "a.42",
    "0x7f000001",
    "127.0.0.0x1",
    "a" * 64,
    ".".join(["a" * 62] * 4) + "ab",
    "a!b",
    "a*",
    "[:::1]",
    "[1::2::3]",
    "[12345::]",
    "[1:2:3:4:5:6:7]",
    "[1:2:3:4:5:6:7:8:9]",
    "[1:2:3:4:5:6:7:8::]",
    "[::1.2.3]",
    "[1.2.3.4::]",
)


class URLTests(SynchronousTestCase):
    """See kvdb.store.urls."""

    def test_what_there_is(self) -> None:
        for url in GOOD:
            self.assertIsNone(url_problem(url), url)

    def test_what_is_no_url_at_all(self) -> None:
        for url in (*NO_URLS, "http://" + "a" * MAX_URL_BYTES + ":1"):
            self.assertIsNotNone(url_problem(url), url)

    def test_ports(self) -> None:
        for port in PORTS:
            self.assertIn("65535", str(url_problem(f"http://a:{port}")), port)

    def test_what_nobody_can_dial(self) -> None:
        for host in NOBODY:
            problem = str(url_problem(f"http://{host}:1"))
            self.assertRegex(problem, "nobody can dial|a zone|within one link", host)

    def test_what_is_neither_name_nor_address(self) -> None:
        for host in NO_HOSTS:
            problem = str(url_problem(f"http://{host}:1"))
            self.assertRegex(problem, "is no|has letters|at most", host)

    def test_a_problem_can_be_shown_anywhere(self) -> None:
        for url in (*NO_URLS, "http://a\x1b[31m:1"):
            problem = str(url_problem(url))
            self.assertTrue(problem.isascii() and problem.isprintable(), problem)

    @settings(deadline=None, max_examples=500)
    @given(
        st.lists(
            st.sampled_from(["0", "1", "f", "ab", ":", "::", "1.2.3.4", ".", "g"]),
            max_size=12,
        ).map("".join)
        | st.builds(str, st.ip_addresses(v=6))
    )
    def test_an_ipv6_address_is_one_for_others_too(self, text: str) -> None:
        problem = url_problem(f"http://[{text}]:1")
        try:
            address = ipaddress.IPv6Address(text)
        except ValueError:
            self.assertIsNotNone(problem)
            return
        plain = address.ipv4_mapped or address
        low = int(address) < 1 << 32
        if not (
            plain.is_multicast or plain.is_link_local or low or address.ipv4_mapped
        ):
            self.assertIsNone(problem)

    @given(st.text(st.sampled_from("htp:/[]@?#1a.%\u00e4\n "), max_size=30))
    def test_whatever_it_is_it_is_read(self, url: str) -> None:
        scheme, host, port = read_url(url)
        if url_problem(url) is None:
            shown = f"[{host}]" if ":" in host else host
            self.assertEqual(url.rstrip("/"), f"{scheme}://{shown}:{port}")

    def test_earlier_releases_are_read_as_they_read_themselves(self) -> None:
        for url, read in (
            ("http://[::1]foo:81", ("http", "::1", "81")),
            ("HTTP://foo[FE80::1%Eth0]:81/", ("http", "fe80::1%eth0", "81")),
            ("tcp://A:0081?", ("tcp", "a", "0081")),
        ):
            self.assertEqual(read_url(url), read)
