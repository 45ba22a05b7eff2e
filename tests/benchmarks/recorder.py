"""A server that answers everything alike, and keeps what it was asked."""

from __future__ import annotations

import contextlib
import re
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

WRITTEN = b"HTTP/1.1 204 No Content\r\n\r\n"
LENGTH = re.compile(rb"Content-Length: (\d+)\r\n")


class Recorder(socketserver.StreamRequestHandler):
    """Answers everything, and keeps what was asked."""

    def handle(self) -> None:
        server: Any = self.server
        with contextlib.suppress(OSError):
            while line := self.rfile.readline():
                head = b""
                while (more := self.rfile.readline()) not in (b"\r\n", b""):
                    head += more
                length = LENGTH.search(head)
                body = self.rfile.read(int(length[1])) if length else b""
                server.asked.append((line.decode().rpartition(" ")[0], body))
                self.wfile.write(server.answer)


class Server(socketserver.ThreadingTCPServer):
    asked: list[tuple[str, bytes]]
    answer: bytes
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


@contextlib.contextmanager
def recording(
    answer: bytes = WRITTEN,
) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """Its address, and what it is asked: lines and bodies."""
    asked: list[tuple[str, bytes]] = []
    with Server(("127.0.0.1", 0), Recorder) as server:
        server.asked, server.answer = asked, answer
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
        thread.join()
