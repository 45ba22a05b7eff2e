"""
Clients of a simulated cluster, over HTTP, each with a machine of its own.

A client asks one thing at a time, of some member, and notes what it was told.
What it was not told in time it counts as unknown, and hangs up.  A write with
an idempotency key is tried again, of any member, until its outcome is known.

What an answer means is read as docs/http-api.md says: 503 and 507 promise that
nothing was done, 504 and a broken connection promise nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from attrs import define, field, frozen
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from kvdb.simulation.history import History, Kind, Operation, Result
from kvdb.simulation.machine import CLIENT_PORT, address
from kvdb.simulation.network import SimulatedReactor

MAX_TRIES: Final = 8
"""How often an operation with an idempotency key is tried."""

RESULTS: Final = {
    200: Result.DONE,
    204: Result.DONE,
    404: Result.ABSENT,
    412: Result.CONDITION_FAILED,
    503: Result.REFUSED,
    504: Result.UNKNOWN,
    507: Result.REFUSED,
}
"""What became of an operation, by the status of its answer; no other may come."""


@frozen(slots=True)
class Reply:
    """An answer to one request."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


def read_answer(operation: Operation, reply: Reply) -> tuple[Result, int | None]:
    """
    What became of C{operation}, and at which revision; what was read is noted
    in it.
    """
    result = RESULTS.get(reply.status)
    assert result is not None, f"answer {reply.status} {reply.body!r}: {operation}"
    tag = reply.headers.get(b"etag")
    revision = int(tag.strip(b'"')) if tag else None
    if result is Result.DONE:
        assert revision is not None, f"an answer without a revision: {operation}"
        if operation.kind is Kind.GET:
            operation.value = reply.body.decode()
    if result is Result.CONDITION_FAILED:
        revision = revision or 0
    return result, revision


@define(slots=True, eq=False)
class Conversation(Protocol):
    """
    A connection on which one request at a time is made.

    @ivar told: given the answer, or None when the connection is gone.
    """

    told: Callable[[Reply | None], None]
    _data: bytearray = field(factory=bytearray)
    is_open: bool = True

    def ask(self, method: str, path: str, body: bytes, headers: Any) -> None:
        """Send a request."""
        lines = [f"{method} {path} HTTP/1.1", "Host: kvdb"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if method in ("PUT", "POST"):
            lines.append(f"Content-Length: {len(body)}")
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Read an answer, once it is whole."""
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        first, *lines = bytes(self._data[:end]).split(b"\r\n")
        headers = dict(line.lower().split(b": ", 1) for line in lines)
        length = int(headers.get(b"content-length", b"0"))
        if len(self._data) < end + 4 + length:
            return
        body = bytes(self._data[end + 4 : end + 4 + length])
        del self._data[: end + 4 + length]
        assert not self._data, "more was answered than asked"
        self.told(Reply(int(first.split()[1]), headers, body))

    def connectionLost(self, reason: Failure | None = None) -> None:
        """No answer will come."""
        self.is_open = False
        self.told(None)


class Conversations(Factory):
    """Makes them, for one who is told."""

    noisy = False

    def __init__(self, told: Callable[[Reply | None], None]) -> None:
        self._told = told

    def buildProtocol(self, addr: object) -> Conversation:
        """One more."""
        return Conversation(self._told)


@frozen(slots=True, kw_only=True)
class Workload:
    """
    What clients do, in seconds and in shares of one.

    @ivar pause: the longest time between two operations of a client.
    @ivar patience: how long it waits for an answer.
    @ivar keys: how many there are at a time.
    @ivar operations_per_key: after about so many another takes its place.
    @ivar tokens: how many writes have an idempotency key.
    """

    clients: int = 4
    watchers: int = 0
    pause: float = 0.4
    patience: float = 7.0
    keys: int = 4
    operations_per_key: int = 80
    gets: float = 0.35
    stale_gets: float = 0.1
    deletes: float = 0.07
    conditions: float = 0.3
    tokens: float = 0.3
    big_values: float = 0.02


@define(slots=True, eq=False, kw_only=True)
class Keyspace:
    """The keys in use, and what clients last saw of them."""

    workload: Workload
    _used: dict[int, int] = field(factory=dict)
    _generation: dict[int, int] = field(factory=dict)
    known: dict[str, int] = field(factory=dict)
    _written: int = 0

    def draw(self, random: Random) -> str:
        """A key; a new one takes the place of one that was used enough."""
        slot = random.randrange(self.workload.keys)
        used = self._used.get(slot, 0) + 1
        if used > self.workload.operations_per_key:
            used = 1
            self._generation[slot] = self._generation.get(slot, 0) + 1
        self._used[slot] = used
        return f"key{slot}-{self._generation.get(slot, 0)}"

    def value(self) -> str:
        """One that nobody has written."""
        self._written += 1
        return f"v{self._written}"


@define(slots=True, eq=False, kw_only=True)
class Client:
    """
    One client.

    @ivar members: the ids of those that may be asked.
    @ivar life_of: how often a member was started.
    @ivar running: it goes on asking.
    """

    number: int
    reactor: SimulatedReactor
    random: Random
    workload: Workload
    keyspace: Keyspace
    history: History
    members: Callable[[], Sequence[int]]
    life_of: Callable[[int], int]
    counts: Any
    running: bool = False
    operation: Operation | None = None
    _token: str = ""
    _tries: int = 0
    _asking: int = 0
    _is_waiting: bool = False
    _to: int = 0
    _conversation: Conversation | None = None
    _timer: Any = None

    def start(self) -> None:
        """Begin."""
        self.running = True
        self.reactor.power_on()
        self._rest()

    def stop(self) -> None:
        """Ask nothing more; what was asked is still waited for."""
        self.running = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is waited for."""
        return self.operation is None

    def _rest(self) -> None:
        self.reactor.callLater(self.random.random() * self.workload.pause, self._begin)

    # One operation.

    def _begin(self) -> None:
        if self.running:
            self.do(self._draw())

    def _draw(self) -> Operation:
        random, work = self.random, self.workload
        key = self.keyspace.draw(random)
        now = self.reactor.timeline.now
        dice = random.random()
        if dice < work.gets + work.stale_gets:
            stale = dice >= work.gets
            return Operation(self.number, Kind.GET, key, now, stale=stale)
        share = work.deletes / (1 - work.gets - work.stale_gets)  # of the writes
        kind = Kind.DELETE if random.random() < share else Kind.PUT
        operation = Operation(self.number, kind, key, now)
        if kind is Kind.PUT:
            operation.value = self.keyspace.value()
            if random.random() < work.big_values:
                operation.value += "-" + "x" * random.randrange(40_000)
        if random.random() < work.conditions:
            known = self.keyspace.known.get(key, 0)
            operation.expected = known if random.random() < 0.9 else known + 1
            if kind is Kind.DELETE and not operation.expected:
                operation.expected = None
        return operation

    def do(self, operation: Operation, node: int = 0) -> None:
        """
        Carry out an operation.

        @param node: the member to ask; else one is drawn.
        """
        self.operation = self.history.begin(operation)
        self.counts["operations"] += 1
        self._tries = 0
        self._token = ""
        if (
            operation.kind is not Kind.GET
            and self.random.random() < self.workload.tokens
        ):
            self._token = f"{self.number}-{len(self.history)}"
        self._try(node)

    def _try(self, node: int = 0) -> None:
        self._tries += 1
        self._is_waiting = True
        members = self.members()
        to = node or (self._to if self._to in members else 0)
        if not to or (not node and self.random.random() < 0.3):
            to = self.random.choice(members)
        if to != self._to:
            self.hang_up()
        self._to = to
        self._asking += 1
        assert self.operation is not None
        self.operation.node = to
        self.operation.life = self.life_of(to)
        self._timer = self.reactor.callLater(
            self.workload.patience, self._late, self._asking
        )
        if self._conversation is not None and self._conversation.is_open:
            self._send()
        else:
            self._connect(self._asking)

    def _connect(self, asking: int) -> None:
        endpoint = TCP4ClientEndpoint(
            self.reactor, address(self._to), CLIENT_PORT, self.workload.patience / 2
        )

        def connected(conversation: Any) -> None:
            if asking == self._asking and self.operation is not None:
                self._conversation = conversation
                self._send()
            else:
                conversation.transport.abortConnection()

        def failed(_: Failure) -> None:
            if asking == self._asking and self.operation is not None:
                self._answered(Result.REFUSED)

        endpoint.connect(Conversations(self._told)).addCallbacks(connected, failed)

    def _send(self) -> None:
        operation = self.operation
        assert operation is not None and self._conversation is not None
        headers: dict[str, str] = {}
        if operation.expected == 0:
            headers["If-None-Match"] = "*"
        elif operation.expected is not None:
            headers["If-Match"] = f'"{operation.expected}"'
        if self._token:
            headers["Idempotency-Key"] = self._token
        path = f"/{operation.key}" + ("?consistency=stale" if operation.stale else "")
        body = operation.value or "" if operation.kind is Kind.PUT else ""
        self._conversation.ask(
            operation.kind.value.upper(), path, body.encode(), headers
        )

    def hang_up(self) -> None:
        """Have the next request made on a connection of its own."""
        conversation, self._conversation = self._conversation, None
        if conversation is not None and conversation.is_open:
            conversation.told = lambda _: None
            conversation.transport.abortConnection()  # type: ignore[union-attr]

    def _late(self, asking: int) -> None:
        if asking == self._asking and self.operation is not None:
            self.hang_up()
            self._answered(Result.UNKNOWN)

    def _told(self, reply: Reply | None) -> None:
        if reply is None:
            self._conversation = None
        if self.operation is None or not self._is_waiting:
            return
        if reply is None:
            self._answered(Result.UNKNOWN)
            return
        operation = self.operation
        self.counts[f"answers {reply.status}"] += 1
        result, revision = read_answer(operation, reply)
        if result is Result.CONDITION_FAILED:
            self.keyspace.known[operation.key] = revision or 0
        elif result is Result.DONE and not operation.stale:
            seen = 0 if operation.kind is Kind.DELETE else revision or 0
            self.keyspace.known[operation.key] = seen
        self._answered(result, revision)

    def _answered(self, result: Result, revision: int | None = None) -> None:
        operation = self.operation
        assert operation is not None
        self._asking += 1
        self._is_waiting = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        definite = result not in (Result.UNKNOWN, Result.REFUSED)
        if not definite and self._token and self._tries < MAX_TRIES and self.running:
            # Once a try may have been carried out, a refusal says nothing of it.
            if result is Result.UNKNOWN:
                operation.result = Result.UNKNOWN
                self.counts["retries with an idempotency key"] += 1
            self.reactor.callLater(0.05 + self.random.random(), self._try)
            return
        if result is Result.REFUSED and operation.result is Result.UNKNOWN:
            result = Result.UNKNOWN
        if operation.kind is Kind.GET and result is Result.UNKNOWN:
            result = Result.REFUSED
        self.counts[f"operations {result.value}"] += 1
        operation.end(self.reactor.timeline.now, result, revision)
        self.operation = None
        if self.running:
            self._rest()
