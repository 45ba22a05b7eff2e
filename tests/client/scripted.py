"""
A member that answers by a script, in bytes: for what a real one never says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.protocol import Factory, Protocol

from kvdb.client.testing import FakeCluster

Answer = bytes | None | Callable[[Any], None]
"""What is sent; None: nothing, ever; or what is done with the transport."""


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An HTTP answer."""
    lines = [f"HTTP/1.1 {status} Words", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def stream(*pieces: bytes, whole: bool = True) -> bytes:
    """A chunked answer; one that is not whole has no last chunk."""
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunks + (b"0\r\n\r\n" if whole else b"")


def backup(data: bytes) -> bytes:
    """C{data} with the end that a backup has."""
    return data + bytes(4) + hashlib.sha256(data).digest()


def cut(transport: Any) -> None:
    """Cut the connection."""
    transport.abortConnection()


def then_cut(data: bytes) -> Callable[[Any], None]:
    """Send, and cut the connection once that has arrived."""

    def act(transport: Any) -> None:
        transport.write(data)
        transport.loseConnection()

    return act


class Script(Factory):
    """
    Answers for one member, one for each request; the last for all further ones.

    @ivar requests: what was asked, in bytes.
    """

    noisy = False

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []

    def buildProtocol(self, addr: Any) -> Any:
        return Scripted(self)

    def next(self) -> Answer:
        if len(self.answers) > 1:
            return self.answers.pop(0)
        return self.answers[0]


class Scripted(Protocol):
    """One connection."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, rest = self.data.partition(b"\r\n\r\n")
            length = 0
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if len(rest) < length:
                return
            self.data = rest[length:]
            self.script.requests.append(head + b"\r\n\r\n" + rest[:length])
            todo = self.script.next()
            transport: Any = self.transport
            if callable(todo):
                todo(transport)
            elif todo is not None:
                transport.write(todo)


def put_script(cluster: FakeCluster, node: int, *answers: Answer) -> Script:
    """Have C{node} answer by a script."""
    script = Script(answers)
    cluster.members[node].site = script  # type: ignore[assignment]
    return script
