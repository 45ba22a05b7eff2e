"""
What trial gives every test, and pytest-twisted does not: a test that leaves
something behind in the reactor, or an error in the log, has failed.
"""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from zope.interface import provider


def pytest_configure() -> None:
    """
    Ctrl-C as in a terminal, in the processes of tests too: C{nohup make test &}
    begins with the signal ignored, and whoever is started inherits that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long an example takes is the machine's pace, and no property.
    settings.register_profile("any pace", deadline=None)
    settings.load_profile("any pace")


def pytest_collection_finish() -> None:
    """What is there before the first test is not looked through after each."""
    gc.collect()
    gc.freeze()


def _sockets(loop: Any) -> set[Any]:
    return {reader for reader in loop.getReaders() if hasattr(reader, "getHost")}


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Delayed calls, sockets and logged errors fail the test."""
    if request.instance is not None and hasattr(request.instance, "flushLoggedErrors"):
        yield  # a trial test case, which looks after itself
        return
    loop: Any = reactor
    before = _sockets(loop)
    errors: list[str] = []

    @provider(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event["log_level"] >= LogLevel.error:
            errors.append(str(event.get("log_failure") or event.get("log_format")))

    globalLogPublisher.addObserver(observe)
    yield
    gc.collect()
    globalLogPublisher.removeObserver(observe)
    calls = [call for call in loop.getDelayedCalls() if call.active()]
    sockets = _sockets(loop) - before
    for call in calls:
        call.cancel()
    for left in sockets:
        loop.removeReader(left)
    if request.node.get_closest_marker("logs_errors") is None:
        assert not errors, f"errors were logged: {errors}"
    assert not calls, f"delayed calls are left: {calls}"
    assert not sockets, f"sockets are left: {sockets}"
