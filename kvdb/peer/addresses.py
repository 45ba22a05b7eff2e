"""
Peer URLs, and the endpoints they stand for.

A member's peer URL is C{http://host:port}, as the original of kvdb wrote it,
or C{tcp://host:port}: the same thing under its true name; or
C{https://host:port}, which is the same over TLS.  Whoever makes the
L{Peers<kvdb.peer.peers.Peers>} says how a URL becomes an endpoint; here is the
plain way.  Another L{Dial} brings encryption or a simulated network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.interfaces import IReactorTCP, IStreamClientEndpoint

from kvdb.store.urls import MAX_URL_BYTES, SCHEMES, read_url

__all__ = [
    "MAX_URL_BYTES",
    "Dial",
    "is_secured",
    "parse_peer_url",
    "tcp_dial",
    "url_of",
]

Dial = Callable[[str], IStreamClientEndpoint]
"""What makes of a peer URL the endpoint that reaches it."""

MAX_PORT_DIGITS: Final = 8
"""Digits of a port, in what earlier releases let in: they read leading zeros."""

CONNECT_SECONDS: Final = 3.0
"""How long to wait for a TCP connection."""


def parse_peer_url(url: str) -> tuple[str, int]:
    """
    The host and the port of a member's URL.

    What may become a member's URL is judged before, and stricter
    (L{url_problem<kvdb.store.urls.url_problem>}): earlier releases let in more, and
    such members are dialled as before.

    @raise ValueError: it cannot be dialled.
    """
    scheme, host, port = read_url(url)
    if (
        scheme in SCHEMES
        and host
        and 0 < len(port) <= MAX_PORT_DIGITS
        and port.isascii()
        and port.isdigit()
        and url.isascii()
        and url.isprintable()
        and len(url) <= MAX_URL_BYTES
        and 0 < int(port) < 1 << 16
    ):
        return host, int(port)
    raise ValueError(f"{url!a} cannot be dialled")


def url_of(scheme: str, host: str, port: int) -> str:
    """A URL; an IPv6 address in it has brackets (RFC 3986, section 3.2.2)."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def is_secured(url: str) -> bool:
    """Whether members speak TLS there."""
    return read_url(url)[0] == "https"


def tcp_dial(reactor: IReactorTCP, timeout: float = CONNECT_SECONDS) -> Dial:
    """
    Plain TCP.

    @param timeout: for one attempt to connect, in seconds.
    """

    def dial(url: str) -> IStreamClientEndpoint:
        host, port = parse_peer_url(url)
        endpoint: Any
        if isIPAddress(host):
            endpoint = TCP4ClientEndpoint(reactor, host, port, timeout=timeout)
        elif isIPv6Address(host):
            endpoint = TCP6ClientEndpoint(reactor, host, port, timeout=timeout)
        else:
            endpoint = HostnameEndpoint(reactor, host.encode("ascii"), port, timeout)
        return cast(IStreamClientEndpoint, endpoint)

    return dial
