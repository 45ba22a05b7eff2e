"""
Those who watch, in a process of their own: C{python -m benchmarks.watching}.

Each has a connection, and one key that it watches.  The process says C{ready} once
all have begun; then, for each line on its standard input, it tells in a line of
JSON what was heard so far.  It ends with its input.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from typing import Final

from attrs import define, field

from benchmarks.latency import Histogram
from benchmarks.load import key_name

CONNECT_TOGETHER: Final = 100
"""Connections made at a time: a server's queue of new ones is bounded."""


@define(slots=True)
class Heard:
    """
    @ivar disorder: events that came out of order, or twice.
    @ivar ended: streams that are gone.
    @ivar took: from a write's proposal to its arrival here, in milliseconds.
    """

    events: int = 0
    disorder: int = 0
    ended: int = 0
    revisions: set[int] = field(factory=set)
    took: Histogram = field(factory=Histogram)

    def told(self) -> dict[str, object]:
        """For a line of JSON."""
        return {
            "events": self.events,
            "distinct": len(self.revisions),
            "disorder": self.disorder,
            "ended": self.ended,
            "p50": self.took.percentile(50),
            "p99": self.took.percentile(99),
        }


class Watcher(asyncio.Protocol):
    """One of them."""

    def __init__(self, path: str, heard: Heard) -> None:
        self._path = path
        self._heard = heard
        self._rest = b""
        self._last = -1
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask."""
        assert isinstance(transport, asyncio.Transport)
        head = f"GET {self._path} HTTP/1.1\r\nHost: localhost"
        transport.write(f"{head}\r\n\r\n".encode())

    def data_received(self, data: bytes) -> None:
        """Note what comes."""
        # An event is never cut by the chunked coding, and holds no empty line.
        *parts, self._rest = (self._rest + data).split(b"\n\n")
        for part in parts:
            name = part.rpartition(b"event: ")[2]
            kind, _, rest = name.partition(b"\n")
            if kind == b"ready":
                self.begun.set_result(None)
            if kind == b"put":
                place, _, text = rest.partition(b"\n")
                self._put(int(place[4:]), json.loads(text[6:])["time"])

    def _put(self, revision: int, proposed: float) -> None:
        heard = self._heard
        heard.events += 1
        heard.disorder += revision <= self._last
        self._last = revision
        heard.revisions.add(revision)
        heard.took.add(round(1000 * (time.time() - proposed)))

    def connection_lost(self, exc: Exception | None) -> None:
        """It should have gone on."""
        self._heard.ended += 1
        if not self.begun.done():
            self.begun.set_exception(exc or ConnectionError("closed"))


async def watch(address: str, count: int, prefix: str) -> None:
    """Have them watch until the input ends."""
    loop = asyncio.get_running_loop()
    host, _, port = address.partition(":")
    heard = Heard()
    for first in range(0, count, CONNECT_TOGETHER):
        together = range(first, min(count, first + CONNECT_TOGETHER))

        async def begin(number: int) -> None:
            path = f"/_/watch?key=/{prefix}{key_name(number)}"
            _, watcher = await loop.create_connection(
                lambda: Watcher(path, heard), host, int(port)
            )
            await watcher.begun

        await asyncio.gather(*(begin(number) for number in together))
    _say("ready")
    while await loop.run_in_executor(None, sys.stdin.readline):
        _say(json.dumps(heard.told()))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read what is to be watched, and watch it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watching")
    parser.add_argument("address")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefix", default="", help="of the keys' names")
    arguments = parser.parse_args()
    asyncio.run(watch(arguments.address, arguments.count, arguments.prefix))


if __name__ == "__main__":
    main()
