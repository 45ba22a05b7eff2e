"""
How a system is spoken to over HTTP: kvdb, and etcd's JSON gateway.
"""

from __future__ import annotations

import base64
import http.client
import json
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final

from attrs import define, frozen

ASK_SECONDS: Final = 2.0
"""How long a single answer is waited for."""


@frozen(slots=True)
class Request:
    """One request."""

    method: str
    path: str
    body: bytes = b""

    def encode(self, address: str) -> bytes:
        """As bytes, for the server at C{address}."""
        head = (
            f"{self.method} {self.path} HTTP/1.1\r\nHost: {address}\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


@frozen(slots=True)
class Answer:
    """One answer."""

    status: int
    body: bytes

    @property
    def done(self) -> bool:
        """Whether what was asked was done."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """
        The body, read.

        @raise ValueError: it is no JSON.
        """
        return json.loads(self.body)


def ask(address: str, request: Request, seconds: float = ASK_SECONDS) -> Answer | None:
    """One request over a new connection; None where there is no answer."""
    connection = http.client.HTTPConnection(address, timeout=seconds)
    try:
        connection.request(request.method, request.path, request.body or None)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read())
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


class Dialect(ABC):
    """
    @cvar name: what C{load.lua} and C{goload} know it as.
    """

    name: ClassVar[str]

    @abstractmethod
    def put(self, key: str, value: bytes) -> Request:
        """Write."""

    @abstractmethod
    def get(self, key: str, *, stale: bool = False) -> Request:
        """Read."""

    @abstractmethod
    def value(self, answer: Answer) -> bytes | None:
        """What a read has found."""


@define(slots=True)
class Kvdb(Dialect):
    """kvdb's own."""

    name: ClassVar[str] = "kvdb"

    def put(self, key: str, value: bytes) -> Request:
        """Write."""
        return Request("PUT", f"/{key}", value)

    def get(self, key: str, *, stale: bool = False) -> Request:
        """Read."""
        return Request("GET", f"/{key}" + ("?consistency=stale" if stale else ""))

    def value(self, answer: Answer) -> bytes | None:
        """What a read has found."""
        return answer.body if answer.done else None


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@define(slots=True)
class EtcdGateway(Dialect):
    """etcd's, of version 3.4."""

    name: ClassVar[str] = "etcd"

    def put(self, key: str, value: bytes) -> Request:
        """Write."""
        body = f'{{"key":"{_base64(key.encode())}","value":"{_base64(value)}"}}'
        return Request("POST", "/v3/kv/put", body.encode())

    def get(self, key: str, *, stale: bool = False) -> Request:
        """Read."""
        more = ',"serializable":true' if stale else ""
        body = f'{{"key":"{_base64(key.encode())}"{more}}}'
        return Request("POST", "/v3/kv/range", body.encode())

    def value(self, answer: Answer) -> bytes | None:
        """What a read has found."""
        try:
            found = answer.json().get("kvs") if answer.done else None
        except ValueError:
            return None
        return base64.b64decode(found[0]["value"]) if found else None
