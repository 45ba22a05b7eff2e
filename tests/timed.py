"""Asynchronous tests that end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest_twisted
from twisted.internet import defer, reactor


def timed(
    seconds: float,
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[..., Any]]:
    """A test that runs in the reactor, for so long at most."""

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
        @functools.wraps(test)
        async def bounded(*args: Any, **kwargs: Any) -> None:
            running: Any = defer.ensureDeferred(test(*args, **kwargs))
            running.addTimeout(seconds, reactor)
            await running

        decorated: Callable[..., Any] = pytest_twisted.ensureDeferred(bounded)
        return decorated

    return decorate
