"""
Peer URLs, and the endpoints they stand for.

A member's peer URL is C{http://host:port}, as the original of kvdb wrote it,
or C{tcp://host:port}: the same thing under its true name.  Whoever makes the
L{Peers<kvdb.peer.peers.Peers>} says how a URL becomes an endpoint; here is the
plain way.  Another L{Dial} brings encryption or a simulated network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import urlsplit

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.interfaces import IReactorTCP, IStreamClientEndpoint

Dial = Callable[[str], IStreamClientEndpoint]
"""What makes of a peer URL the endpoint that reaches it."""

CONNECT_SECONDS: Final = 3.0
"""How long to wait for a TCP connection."""

MAX_URL_BYTES: Final = 1024

_SCHEMES: Final = ("http", "tcp")


def parse_peer_url(url: str) -> tuple[str, int]:
    """
    The host and the port of a peer URL.

    @raise ValueError: it is not C{http://host:port} or C{tcp://host:port}.
    """
    if len(url.encode("utf-8", "surrogateescape")) > MAX_URL_BYTES:
        raise ValueError(f"a peer URL is at most {MAX_URL_BYTES} bytes long")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{url!r} is not http://host:port: {error}") from None
    odd = not url.isascii() or not url.isprintable() or " " in url
    if odd or parts.scheme not in _SCHEMES or not host or not port:
        raise ValueError(f"{url!r} is not http://host:port")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is not http://host:port")
    if parts.path not in ("", "/"):
        raise ValueError(f"{url!r} has a path; a peer URL is http://host:port")
    return host, port


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
