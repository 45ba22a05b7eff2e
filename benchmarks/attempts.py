"""
Writes that are tried again and again, each on a connection of its own.

A new attempt is begun every C{ATTEMPT_INTERVAL_SECONDS}, whatever became of those
before it: so it is seen to within that time when a cluster serves again.
"""

from __future__ import annotations

import errno
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

from attrs import define, field

from benchmarks.answers import Answers, BadAnswer
from benchmarks.dialect import Dialect
from benchmarks.process import Failed

ATTEMPT_INTERVAL_SECONDS: Final = 0.005
PATIENCE_SECONDS: Final = 60.0
"""For what an attempt is to bring about."""

MAX_ATTEMPTS: Final = 100_000
"""Of one writer: far more than it comes to within its patience."""

KEYS: Final = 64
READ_BYTES: Final = 1 << 14


@define(slots=True, eq=False)
class Attempt:
    """
    One write, in seconds of the monotonic clock.

    @ivar ended: None as long as it is under way.
    @ivar status: None where there was no answer.
    """

    begun: float
    ended: float | None = None
    status: int | None = None

    @property
    def acknowledged(self) -> bool:
        """Whether it was done."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def failed(self) -> bool:
        """Whether it ended without being done by a server."""
        return self.ended is not None and (self.status is None or self.status >= 500)


@define(slots=True, eq=False)
class _Open:
    attempt: Attempt
    socket: socket.socket
    unsent: bytes
    answers: Answers = field(factory=Answers)


@define(slots=True, eq=False)
class Writer:
    """
    @ivar addresses: to whom attempts go, in turn.
    @ivar attempt_seconds: how long an answer is waited for.
    @ivar attempts: all of them, in the order of their beginnings.
    """

    addresses: list[str]
    dialect: Dialect
    attempt_seconds: float
    attempts: list[Attempt] = field(factory=list)
    _open: dict[int, _Open] = field(factory=dict)
    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)
    _next: float = field(factory=time.monotonic)

    def write_until(self, condition: Callable[[], bool], what: str) -> None:
        """
        Begin attempts until C{condition} holds.

        @raise Failed: it did not come to.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        self._next = time.monotonic()
        while not condition():
            now = time.monotonic()
            if now > deadline or len(self.attempts) >= MAX_ATTEMPTS:
                raise Failed(f"{what}: not within {PATIENCE_SECONDS:g} s")
            if now >= self._next:
                self._next = max(self._next + ATTEMPT_INTERVAL_SECONDS, now)
                self._begin(now)
            self._turn(max(0.0, self._next - now))

    def drain(self) -> None:
        """Wait for the answers to what was begun."""
        while self._open:
            self._turn(ATTEMPT_INTERVAL_SECONDS)

    def close(self) -> None:
        """Give up what is under way."""
        for one in list(self._open.values()):
            self._end(one, None)
        self._selector.close()

    def acknowledged_since(self, begun: float) -> Attempt | None:
        """The first to be acknowledged of those begun after that time."""
        found = [a for a in self.attempts if a.begun >= begun and a.acknowledged]
        return min(found, key=lambda a: a.ended or 0.0, default=None)

    def _begin(self, now: float) -> None:
        number = len(self.attempts)
        address = self.addresses[number % len(self.addresses)]
        host, _, port = address.partition(":")
        one = socket.socket()
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = self.dialect.put(f"attempt-{number % KEYS}", b"%d" % number)
        attempt = Attempt(now)
        self.attempts.append(attempt)
        opened = _Open(attempt, one, request.encode(address))
        self._open[one.fileno()] = opened
        self._selector.register(one, selectors.EVENT_WRITE, opened)
        if one.connect_ex((host, int(port))) not in (0, errno.EINPROGRESS):
            self._end(opened, None)

    def _turn(self, seconds: float) -> None:
        for selected, _ in self._selector.select(seconds):
            opened: _Open = selected.data
            try:
                self._go_on(opened)
            except (OSError, BadAnswer):
                self._end(opened, None)
        oldest = time.monotonic() - self.attempt_seconds
        for opened in list(self._open.values()):
            if opened.attempt.begun > oldest:
                break  # they are in the order of their beginnings
            self._end(opened, None)

    def _go_on(self, opened: _Open) -> None:
        if opened.unsent:
            opened.unsent = opened.unsent[opened.socket.send(opened.unsent) :]
            if not opened.unsent:
                self._selector.modify(opened.socket, selectors.EVENT_READ, opened)
            return
        data = opened.socket.recv(READ_BYTES)
        if not data:
            self._end(opened, None)
            return
        for status in opened.answers.take(data):
            self._end(opened, status)

    def _end(self, opened: _Open, status: int | None) -> None:
        opened.attempt.ended = time.monotonic()
        opened.attempt.status = status
        self._selector.unregister(opened.socket)
        del self._open[opened.socket.fileno()]
        opened.socket.close()
