"""Asynchronous tests that end."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest_twisted
from twisted.internet import defer, reactor


def timed(
    seconds: float,
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., Any]]:
    """A test that runs in the reactor, for so long at most."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., Any]:
        @functools.wraps(test)
        async def bounded(*args: Any, **kwargs: Any) -> None:
            running = defer.ensureDeferred(test(*args, **kwargs))  # type: ignore[arg-type]
            running.addTimeout(seconds, reactor)  # type: ignore[arg-type]
            await running

        decorated: Callable[..., Any] = pytest_twisted.ensureDeferred(bounded)
        return decorated

    return decorate
