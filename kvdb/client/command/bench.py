"""
C{bench}: how many writes and reads a second this cluster does, from here.

A quick look, with figures while it runs.  For a comparison there is C{make
bench} (docs/benchmarks.md): one client in Python is busy long before a cluster
is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine
from typing import Any, Final

import click
from attrs import define, field
from rich.live import Live
from rich.text import Text
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from kvdb.client.calls import MAX_REQUESTS
from kvdb.client.client import Client
from kvdb.client.command.options import Amount, Command, Count, key_argument
from kvdb.client.command.session import DONE, UNAVAILABLE, Job, Session, table
from kvdb.client.errors import ClientError, NotFound, OutcomeUnknown

STEP: Final = 1.02
"""The ratio of a latency's class to the next one: figures are right to 2 %."""

TELL_SECONDS: Final = 0.5
"""How often live figures change."""

MAX_BYTES: Final = 1 << 20
"""How many bytes a value may have."""

MAX_KEYS: Final = 100_000
"""How many keys it may write to."""


@define(slots=True)
class Latencies:
    """How long requests took, in classes."""

    count: int = 0
    failed: int = 0
    longest: float = 0.0
    _classes: dict[int, int] = field(factory=dict)

    def add(self, seconds: float) -> None:
        """One more."""
        number = math.floor(math.log(max(seconds, 1e-6), STEP))
        self._classes[number] = self._classes.get(number, 0) + 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def at(self, share: float) -> float | None:
        """Within how many seconds so large a share of them was done."""
        wanted = math.ceil(share * self.count)
        seen = 0
        for number in sorted(self._classes):
            seen += self._classes[number]
            if seen >= wanted:
                return min(STEP ** (number + 1), self.longest)
        return None


@define(slots=True, eq=False)
class Written:
    """
    What it wrote, to be removed: each key that it wrote or may have written, and
    no other one.
    """

    _client: Client
    _value: bytes
    _there: dict[bytes, None] = field(factory=dict)
    _unknown: dict[str, bytes] = field(factory=dict)

    async def put(self, name: bytes) -> None:
        """Write a key."""
        token = self._client.new_idempotency_key()
        self._unknown[token] = name
        try:
            await self._client.put(name, self._value, idempotency_key=token)
        except OutcomeUnknown:
            raise
        except ClientError:
            del self._unknown[token]  # nothing was done
            raise
        del self._unknown[token]
        self._there[name] = None

    @property
    def keys(self) -> list[bytes]:
        """Those that are there, or may be."""
        return list(self._there | dict.fromkeys(self._unknown.values()))

    async def remove(self, concurrency: int) -> None:
        """
        @raise ClientError: L{keys} may be there still.
        """
        tokens: dict[bytes, list[str]] = {}
        for token, name in self._unknown.items():
            tokens.setdefault(name, []).append(token)
        names = self.keys

        async def line(first: int) -> None:
            for name in names[first::concurrency]:
                for token in tokens.get(name, ()):
                    # What may yet be carried out would come after its removal.
                    await self._client.put(name, self._value, idempotency_key=token)
                    self._there[name] = None
                    del self._unknown[token]
                try:
                    await self._client.delete(name)
                except NotFound:
                    pass  # somebody else has removed it
                del self._there[name]

        await _all(line(number) for number in range(concurrency))


@click.command("bench", cls=Command)
@click.option("--seconds", type=Amount(0.1, 3600), default=5.0, help="Each.")
@click.option(
    "--concurrency",
    type=Count(1, MAX_REQUESTS),
    default=16,
    help="Requests under way at once.",
)
@click.option(
    "--value-bytes", type=Count(0, MAX_BYTES), default=100, help="Of each value."
)
@click.option("--keys", type=Count(1, MAX_KEYS), default=1000, help="To how many keys.")
@click.option("--prefix", default="/bench/", help="Where it writes.")
@click.option("--stale", is_flag=True, help="Read without asking a quorum.")
@click.option("--keep", is_flag=True, help="Leave the keys there.")
def bench(
    seconds: float,
    concurrency: int,
    value_bytes: int,
    keys: int,
    prefix: str,
    stale: bool,
    keep: bool,
) -> Job:
    """
    Load the cluster: first puts, then gets, for --seconds each.

    It writes keys under --prefix, and removes them at the end.
    """
    start = key_argument(prefix)
    value = b"v" * value_bytes

    async def job(session: Session) -> int:
        client, clock = session.client, session.reactor
        names = [start + b"%d" % number for number in range(keys)]
        written = Written(client, value)
        puts, gets = Latencies(), Latencies()
        taken = {"put": seconds, "get": seconds}

        async def get(name: bytes) -> None:
            try:
                await client.get(name, stale=stale)
            except NotFound:
                pass  # there was no time to write it

        loads = (("put", written.put, puts), ("get", get, gets))
        try:
            with _Figures(session, puts, gets) as figures:
                for kind, one, told in loads:
                    began = clock.seconds()
                    figures.begin(kind, began)
                    ends = began + seconds
                    await _load(clock, one, names, told, concurrency, ends)
                    taken[kind] = clock.seconds() - began
        finally:
            if not keep:
                try:
                    await _to_its_end(written.remove(concurrency))
                except ClientError:
                    left = len(written.keys)
                    session.note(f"{left} keys that begin with {prefix} may be left")
                    raise
        rows = [
            _row("put", puts, taken["put"]),
            _row("get", gets, taken["get"]),
        ]
        if session.as_json:
            for row in rows:
                session.json(row)
        else:
            for line in table(_HEADS, [list(row.values()) for row in rows], _HEADS[1:]):
                session.line(line)
        return DONE if puts.count and gets.count else UNAVAILABLE

    return job


_HEADS: Final = ("what", "per_second", "p50_ms", "p99_ms", "max_ms", "failed")


def _row(kind: str, told: Latencies, seconds: float) -> dict[str, Any]:
    values = (
        kind,
        round(told.count / max(seconds, 1e-9)),
        *(_ms(told.at(share)) for share in (0.5, 0.99)),
        _ms(told.longest if told.count else None),
        told.failed,
    )
    return dict(zip(_HEADS, values, strict=True))


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


async def _load(
    clock: Any,
    one: Callable[[bytes], Coroutine[Any, Any, None]],
    names: list[bytes],
    told: Latencies,
    concurrency: int,
    ends: float,
) -> None:
    """Requests, one behind the other in each of so many lines."""

    async def line(first: int) -> None:
        number = first
        while (began := clock.seconds()) < ends:
            try:
                await one(names[number % len(names)])
            except ClientError:
                told.failed += 1
                if told.failed > concurrency and not told.count:
                    raise  # nobody is there
            else:
                told.add(clock.seconds() - began)
            number += concurrency

    await _all(line(number) for number in range(concurrency))


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Do it whole; what is cancelled meanwhile is so behind it."""
    ended: list[Any] = []
    is_cancelled = False
    waiting: Deferred[None] = Deferred()

    def tell(result: Any) -> None:
        ended.append(result)
        waiting.callback(None)

    Deferred.fromCoroutine(work).addBoth(tell)
    while not ended:
        try:
            await waiting
        except CancelledError:
            is_cancelled = True
            waiting = Deferred()
    if isinstance(ended[0], Failure):
        ended[0].raiseException()
    if is_cancelled:
        raise CancelledError


async def _all(lines: Any) -> None:
    """Wait for all, also where one fails: so that the outcome of each is known."""
    running = [Deferred.fromCoroutine(line) for line in lines]
    for _, result in await DeferredList(running, consumeErrors=True):
        if isinstance(result, Failure):
            error = result.value
            if isinstance(error, OutcomeUnknown):
                # Its idempotency key is of one of many writes, and no option of bench.
                raise OutcomeUnknown(str(error), endpoint=error.endpoint)
            result.raiseException()


class _Figures:
    """What was done so far, on a terminal."""

    def __init__(self, session: Session, puts: Latencies, gets: Latencies) -> None:
        self._told = {"put": puts, "get": gets}
        self._clock = session.reactor
        self._kind, self._began, self._before = "", 0.0, 0
        console = session.console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._moves = console.is_terminal
        self._call = LoopingCall(self._tell)
        self._call.clock = self._clock

    def begin(self, kind: str, now: float) -> None:
        """What is being done."""
        self._kind, self._began = kind, now
        self._before = self._told[kind].count

    def __enter__(self) -> _Figures:
        if self._moves:
            self._live.start()
            self._call.start(TELL_SECONDS, now=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._moves:
            self._call.stop()
            self._live.stop()

    def _tell(self) -> None:
        told = self._told[self._kind]
        rate = (told.count - self._before) / TELL_SECONDS
        self._before = told.count
        p50, p99 = _ms(told.at(0.5)), _ms(told.at(0.99))
        text = f"{self._kind}  {rate:.0f}/s  p50 {p50} ms  p99 {p99} ms"
        if told.failed:
            text += f"  {told.failed} failed"
        self._live.update(Text(text), refresh=True)
