"""
Clients, each a thread that asks one thing at a time and notes what it was told.

What an answer means for the history: 200 and 204 done, 404 absent, 412
condition failed, 503 and 507 refused, and so is a request whose connection was
never made.  All else leaves it unknown.
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from typing import Final

from attrs import define, field

from kvdb.simulation.clients import RESULTS
from kvdb.simulation.history import History, Kind, Operation, Result
from tests.chaos.cluster import Cluster, Node

KEYS: Final = 12
GENERATION: Final = 12.0
"""Seconds after which other keys take their place: a key's history stays short."""

CONNECT_TIMEOUT: Final = 1.0
ANSWER_TIMEOUT: Final = 3.0
"""Longer than a node's own C{--request-timeout}."""

RETRY_SECONDS: Final = 15.0
"""How long a write with an idempotency key is tried."""

SHUN_SECONDS: Final = 1.5
"""How long a member that did not serve is left alone."""


@define
class Told:
    """What became of one request."""

    result: Result
    revision: int | None = None
    value: str | None = None


def _revision(tag: str | None) -> int | None:
    return int(tag.strip('"')) if tag else None


@define
class Caller:
    """
    Asks members, over one kept connection to each.

    @ivar surprises: answers that no rule allows.
    """

    surprises: list[str]
    _connections: dict[int, http.client.HTTPConnection] = field(factory=dict)

    def ask(
        self, node: Node, operation: Operation, headers: dict[str, str] | None = None
    ) -> Told:
        """Ask C{operation} of C{node}, once."""
        operation.node, operation.life = node.number, node.lives
        path = "/" + operation.key + ("?consistency=stale" if operation.stale else "")
        connection = self._connections.get(node.number)
        if connection is None:
            connection = http.client.HTTPConnection(
                node.host, node.port, timeout=CONNECT_TIMEOUT
            )
            try:
                connection.connect()
            except OSError:
                return Told(Result.REFUSED)  # nothing was sent
            opened: socket.socket = connection.sock
            opened.settimeout(ANSWER_TIMEOUT)
            self._connections[node.number] = connection
        body = (operation.value or "").encode() if operation.kind is Kind.PUT else None
        try:
            connection.request(operation.kind.name, path, body, headers or {})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException):
            self._drop(node)
            return Told(Result.UNKNOWN)
        if answer.will_close:
            self._drop(node)
        revision = _revision(answer.headers.get("ETag"))
        result = RESULTS.get(answer.status)
        if result is None or (result is Result.DONE and revision is None):
            said = f"{answer.status} {dict(answer.headers)} {text[:300]!r}"
            self.surprises.append(f"{operation}\n    was answered {said}")
            return Told(Result.UNKNOWN)
        if result is Result.CONDITION_FAILED and revision is None:
            revision = 0
        if result is Result.DONE and operation.kind is Kind.GET:
            return Told(result, revision, text.decode())
        return Told(result, revision)

    def _drop(self, node: Node) -> None:
        connection = self._connections.pop(node.number, None)
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


class Client(threading.Thread):
    """
    One client.

    @ivar done: how many of its operations had a definite answer.
    @ivar unknown: how many none.
    @ivar started: when the run began.
    """

    def __init__(
        self,
        number: int,
        seed: int,
        cluster: Cluster,
        history: History,
        surprises: list[str],
        started: float,
    ) -> None:
        super().__init__(daemon=True, name=f"client {number}")
        self.number = number
        self.cluster = cluster
        self.history = history
        self.started = started
        self.ended = threading.Event()
        self.done = 0
        self.unknown = 0
        self.failure: BaseException | None = None
        self._random = random.Random(f"{seed} client {number}")
        self._caller = Caller(surprises)
        self._shunned: dict[int, float] = {}
        self._revisions: dict[str, int] = {}
        self._written = 0

    def run(self) -> None:
        """Until it is ended."""
        try:
            while not self.ended.is_set():
                self._one()
        except BaseException as error:
            self.failure = error
        finally:
            self._caller.close()

    def _now(self) -> float:
        return time.monotonic() - self.started

    def _choose(self) -> Node:
        nodes = self.cluster.members
        now = self._now()
        served = [n for n in nodes if self._shunned.get(n.number, 0) < now]
        return self._random.choice(served or nodes)

    def _one(self) -> None:
        source = self._random
        generation = int(self._now() / GENERATION)
        key = f"g{generation}-{source.randrange(KEYS)}"
        draw = source.random()
        operation = Operation(self.number, Kind.GET, key, 0)
        headers: dict[str, str] = {}
        if draw < 0.45:
            operation.stale = draw < 0.1
        else:
            self._write(operation, headers, draw)
        operation.invoked = self._now()
        self.history.begin(operation)
        told = self._ask(operation, headers)
        if told.value is not None:
            operation.value = told.value
        operation.end(self._now(), told.result, told.revision)
        if told.result is Result.UNKNOWN:
            self.unknown += 1
        elif told.result is Result.REFUSED:
            self.ended.wait(0.02)
        else:
            self.done += 1
        if told.revision:
            self._revisions[key] = told.revision

    def _write(
        self, operation: Operation, headers: dict[str, str], draw: float
    ) -> None:
        source = self._random
        operation.kind = Kind.DELETE if draw < 0.55 else Kind.PUT
        self._written += 1
        if operation.kind is Kind.PUT:
            operation.value = f"{self.number}.{self._written}"
        if source.random() < 0.4:
            operation.expected = self._revisions.get(operation.key, 0)
            if operation.expected:
                headers["If-Match"] = f'"{operation.expected}"'
            else:
                headers["If-None-Match"] = "*"
        if source.random() < 0.3:
            headers["Idempotency-Key"] = f"{self.number}.{self._written}"

    def _ask(self, operation: Operation, headers: dict[str, str]) -> Told:
        """The answer; under an idempotency key, the first definite one."""
        deadline = self._now() + RETRY_SECONDS
        left_open = False
        while True:
            node = self._choose()
            told = self._caller.ask(node, operation, headers)
            if told.result not in (Result.UNKNOWN, Result.REFUSED):
                return told
            self._shunned[node.number] = self._now() + SHUN_SECONDS
            left_open |= told.result is Result.UNKNOWN
            if "Idempotency-Key" not in headers or self._now() > deadline:
                return Told(Result.UNKNOWN) if left_open else told
            self.ended.wait(0.05)
