"""What a job is to its process: signals, failures, exit statuses."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from kvdb import kvdbctl
from kvdb.client.command.main import Input, Run


class Reactor:
    """Runs what it is given to run, until it is stopped."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.stopped = False

    def callWhenRunning(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.calls.append((function, arguments))

    callFromThread = callWhenRunning

    def run(self, installSignalHandlers: bool) -> None:
        assert not installSignalHandlers, "they are the command's"
        while not self.stopped:
            function, arguments = self.calls.pop(0)
            function(*arguments)

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """What they were before is what they are after."""
    kept = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_job_gives_the_exit_status() -> None:
    async def work() -> int:
        return 3

    assert Run(Reactor(), Input(io.BytesIO())).run(work) == 3


def test_what_a_job_raises_is_raised() -> None:
    async def work() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Run(Reactor(), Input(io.BytesIO())).run(work)


def test_a_signal_before_a_job_begins_ends_it() -> None:
    async def work() -> int:
        await Deferred()
        return 0

    running = Run(Reactor(), Input(io.BytesIO()))
    running._signal(signal.SIGTERM, None)
    assert running.run(work) == 143


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_ends_a_job_which_cleans_up(number: int, status: int) -> None:
    cleaned = []

    async def work() -> int:
        os.kill(os.getpid(), number)
        try:
            await Deferred()
        finally:
            cleaned.append(True)
        return 0

    assert Run(Reactor(), Input(io.BytesIO())).run(work) == status
    assert cleaned


def test_a_signal_that_is_ignored_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    async def work() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return 3

    assert Run(Reactor(), Input(io.BytesIO())).run(work) == 3
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_job_that_cancels_itself_was_interrupted() -> None:
    async def work() -> int:
        waiting: Deferred[None] = Deferred()
        waiting.cancel()
        await waiting
        return 0

    assert Run(Reactor(), Input(io.BytesIO())).run(work) == 130


def test_a_second_signal_ends_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr("kvdb.client.command.main.os._exit", left.append)
    running = Run(Reactor(), Input(io.BytesIO()))
    running._signal(signal.SIGINT, None)
    assert left == []
    running._signal(signal.SIGINT, None)
    running._signal(signal.SIGTERM, None)
    assert left == [130, 143]


INTERRUPTED_WHILE_LOADING = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, *more):
        if name == "kvdb.client":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from kvdb.kvdbctl import main
main()
"""


def test_ctrl_c_while_the_command_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_WHILE_LOADING],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_ctrl_c_is_heard_once_it_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> None:
        found.append(signal.getsignal(signal.SIGINT))

    found: list[Any] = []
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("kvdb.client.command.main.main", run)
    kvdbctl.main()
    assert found == [before]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_ends_a_job_that_waits_for_its_input(number: int, status: int) -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            os.kill(os.getpid(), number)
            return super().read(size)

    given = Input(Slow())
    went_on = []

    async def work() -> int:
        went_on.append(given.read())
        return 0

    assert Run(Reactor(), given).run(work) == status
    assert went_on == []
    assert not given.is_waited_for
