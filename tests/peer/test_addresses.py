"""Peer URLs."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from kvdb.peer.addresses import MAX_URL_BYTES, parse_peer_url, tcp_dial, url_of

GOOD = {
    "http://127.0.0.1:12379": ("127.0.0.1", 12379),
    "tcp://127.0.0.1:12379": ("127.0.0.1", 12379),
    "http://db1.example.org:1/": ("db1.example.org", 1),
    "http://[::1]:9021": ("::1", 9021),
    "https://[::1]:9021": ("::1", 9021),
    "http://DB1:9021": ("db1", 9021),
    # What earlier releases let in, and no release does any more.
    "http://[::1]foo:81": ("::1", 81),
    "http://0.0.0.0:0081/?": ("0.0.0.0", 81),
}

BAD = [
    "",
    "127.0.0.1:12379",
    "http://127.0.0.1",
    "http://127.0.0.1:0",
    "http://127.0.0.1:65536",
    "http://127.0.0.1:-1",
    "http://:12379",
    "gopher://127.0.0.1:12379",
    "http://127.0.0.1:12379\n",
    "http://127.0.0.1:12379 ",
    "http://127.0.0.1:1,http://127.0.0.1:2",
    "http://dé:9021",
    "http://\udcff:9021",
    "http://" + "a" * MAX_URL_BYTES + ":1",
]


class PeerURLs(SynchronousTestCase):
    def test_a_url_is_made_of_what_it_is_parsed_to(self) -> None:
        for url in ("http://127.0.0.1:12379", "https://[::1]:9021", "http://db1:1"):
            scheme = url.partition(":")[0]
            self.assertEqual(url_of(scheme, *parse_peer_url(url)), url)

    def test_host_and_port_are_read(self) -> None:
        for url, address in GOOD.items():
            self.assertEqual(parse_peer_url(url), address, url)

    def test_what_cannot_be_dialled_is_refused(self) -> None:
        for url in BAD:
            with self.assertRaises(ValueError, msg=repr(url)):
                parse_peer_url(url)

    def test_the_endpoint_fits_the_kind_of_address(self) -> None:
        reactor: Any = MemoryReactorClock()
        dial = tcp_dial(reactor)
        self.assertIsInstance(dial("http://127.0.0.1:1"), TCP4ClientEndpoint)
        self.assertIsInstance(dial("http://[::1]:1"), TCP6ClientEndpoint)
        self.assertIsInstance(dial("http://localhost:1"), HostnameEndpoint)

    def test_dialling_goes_to_that_host_and_port_with_a_time_out(self) -> None:
        reactor: Any = MemoryReactorClock()
        factory = Factory.forProtocol(Protocol)
        tcp_dial(reactor, timeout=1.5)("http://10.1.2.3:77").connect(factory)
        host, port, _, timeout, _ = reactor.tcpClients[0]
        self.assertEqual((host, port, timeout), ("10.1.2.3", 77, 1.5))
