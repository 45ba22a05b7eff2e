"""
Keys put in over HTTP, as fast as a server takes them.

A number of connections, each with several writes sent ahead of their answers.
All keys have to arrive: the first answer that is not 2xx ends it.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Iterator
from typing import Final

from attrs import define, field

from benchmarks.answers import Answers, BadAnswer
from benchmarks.dialect import Dialect
from benchmarks.load import Values, key_name
from benchmarks.process import Failed

CONNECTIONS: Final = 128
AHEAD: Final = 16
"""Writes sent ahead of their answers, per connection."""

AHEAD_BYTES: Final = 1 << 16
"""No further write is sent ahead beyond so many."""

SILENCE_SECONDS: Final = 30.0
"""Without any answer, after which the server is given up."""

READ_BYTES: Final = 1 << 16
TELL_KEYS: Final = 1000
"""Progress is told after so many."""


@define(slots=True, eq=False)
class _Connection:
    """
    @ivar sizes: of the writes that were not answered yet.
    @ivar unsent: what the socket did not take yet.
    """

    socket: socket.socket
    answers: Answers = field(factory=Answers)
    sizes: list[int] = field(factory=list)
    unsent: bytes = b""

    @property
    def has_room(self) -> bool:
        return not self.sizes or (
            len(self.sizes) < AHEAD and sum(self.sizes) < AHEAD_BYTES
        )


@define(slots=True, eq=False)
class _Filling:
    address: str
    requests: Iterator[bytes]
    total: int
    tell: Callable[[int], None]
    done: int = 0
    selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)

    def run(self) -> None:
        host, _, port = self.address.partition(":")
        told = 0
        try:
            for _ in range(min(CONNECTIONS, self.total)):
                one = socket.create_connection((host, int(port)), SILENCE_SECONDS)
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = _Connection(one)
                self.selector.register(one, selectors.EVENT_READ, connection)
                self._send(connection)
            while self.done < self.total:
                ready = self.selector.select(SILENCE_SECONDS)
                if not ready:
                    raise Failed(f"{self.address} answers no write any more")
                for selected, events in ready:
                    if events & selectors.EVENT_READ:
                        self._receive(selected.data)
                    self._send(selected.data)
                if self.done - told >= TELL_KEYS:
                    self.tell(self.done - told)
                    told = self.done
            self.tell(self.done - told)
        except (OSError, BadAnswer) as error:
            raise Failed(f"filling {self.address}: {error}") from error
        finally:
            for selected in list(self.selector.get_map().values()):
                selected.data.socket.close()
            self.selector.close()

    def _receive(self, connection: _Connection) -> None:
        data = connection.socket.recv(READ_BYTES)
        if not data:
            raise Failed(f"{self.address} has closed a connection")
        for status in connection.answers.take(data):
            if not 200 <= status < 300:
                raise Failed(f"filling {self.address}: a write was answered {status}")
            connection.sizes.pop(0)
            self.done += 1

    def _send(self, connection: _Connection) -> None:
        parts = [connection.unsent] if connection.unsent else []
        while connection.has_room:
            request = next(self.requests, None)
            if request is None:
                break
            connection.sizes.append(len(request))
            parts.append(request)
        if parts:
            data = b"".join(parts)
            try:
                sent = connection.socket.send(data)
            except BlockingIOError:
                sent = 0
            connection.unsent = data[sent:]
        events = selectors.EVENT_READ
        if connection.unsent:
            events |= selectors.EVENT_WRITE
        if self.selector.get_key(connection.socket).events != events:
            self.selector.modify(connection.socket, events, connection)


def fill(
    address: str,
    dialect: Dialect,
    keys: range,
    value_bytes: int,
    tell: Callable[[int], None] = lambda _: None,
) -> None:
    """
    Put C{keys} in, each once.

    @param tell: told how many more are in.
    @raise Failed: not all of them could be.
    """
    values = Values(value_bytes)
    requests = (
        dialect.put(key_name(key), values.of(key)).encode(address) for key in keys
    )
    _Filling(address, requests, len(keys), tell).run()
