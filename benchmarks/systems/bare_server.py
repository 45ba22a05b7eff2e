"""
Servers on Twisted's reactor that do nothing but answer.

    python -m benchmarks.systems.bare_server protocol|site PORT

The protocol finds where a request ends, and answers; the site is twisted.web's own
way, with a resource that answers at once.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.web.resource import Resource
from twisted.web.server import Site

VALUE: Final = b"x" * 64
WRITTEN: Final = b'HTTP/1.1 204 No Content\r\nETag: "1"\r\n\r\n'
READ: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Length: %d\r\n\r\n%b"
) % (len(VALUE), VALUE)
MAX_REQUEST_BYTES: Final = 1 << 22
"""A connection that sends more without an end is closed."""

_LENGTH: Final = re.compile(rb"\r\nContent-Length: (\d+)\r\n")


class Bare(Protocol):
    """One connection."""

    _rest = b""

    def dataReceived(self, data: bytes) -> None:
        """Answer each whole request."""
        data = self._rest + data
        begin = 0
        answers: list[bytes] = []
        while True:
            head_end = data.find(b"\r\n\r\n", begin)
            if head_end < 0:
                break
            length = _LENGTH.search(data, begin, head_end + 2)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(data) < end:
                break
            answers.append(READ if data.startswith(b"GET", begin) else WRITTEN)
            begin = end
        self._rest = data[begin:]
        transport: Any = self.transport
        if answers:
            transport.write(b"".join(answers))
        if len(self._rest) > MAX_REQUEST_BYTES:
            transport.abortConnection()


class Empty(Resource):
    """Whatever is asked for."""

    isLeaf = True

    def render_PUT(self, request: Any) -> bytes:
        """A write."""
        request.setResponseCode(204)
        request.setHeader(b"ETag", b'"1"')
        return b""

    def render_GET(self, request: Any) -> bytes:
        """A read."""
        request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
        return VALUE


def main(kind: str, port: int) -> None:
    """Serve until killed."""
    loop: Any = reactor
    site: Any = Site  # untyped, as resources are
    resource: Any = Empty
    factory = site(resource()) if kind == "site" else Factory.forProtocol(Bare)
    loop.listenTCP(port, factory, backlog=1024, interface="127.0.0.1")
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
