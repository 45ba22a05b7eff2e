"""
What a node stands on: reactor, disk, chance, time of day, and its own end.

The services take all of it from a L{Host}, so that the same node runs on this
machine and in a simulated one.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import ILogObserver, Logger, LogLevel

from kvdb import logs
from kvdb.notify import READY, STOPPING, notify, status_line
from kvdb.reloading import Files, RealFiles
from kvdb.rest.eager import BACKLOG, EagerPort
from kvdb.storage.filesystem import FileSystem, OneThread, RealFileSystem
from kvdb.storage.unsynced import this_boot
from kvdb.store.engine import Engines
from kvdb.store.rocks import RocksEngines

log = Logger(namespace="kvdb.service")


class Host(Protocol):
    """See the head of this module."""

    @property
    def reactor(self) -> Any:
        """Provides C{IReactorTime}, C{IReactorTCP} and C{IReactorCore}; its
        time never jumps."""

    @property
    def filesystem(self) -> FileSystem:
        """The disk, but for the engine's part of it."""

    @property
    def files(self) -> Files:
        """Files that the operator changes."""

    def engines(self, directory: str) -> Engines:
        """The engines in a directory."""

    def listen(self, port: int, factory: IProtocolFactory, address: str) -> Any:
        """Begin to listen for clients; provides C{IListeningPort}."""

    def entropy(self, length: int) -> bytes:
        """So many bytes that nobody can foretell."""

    def boot_id(self) -> str:
        """
        What tells this boot of the machine from all others; the same for as long
        as its kernel keeps what was written and not synced.  Empty where the
        machine does not say.
        """

    def time_of_day(self) -> float:
        """Seconds since the epoch, as far as this machine knows: may jump."""

    def in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        """Do what takes long beside the reactor, one after the other; fires
        with what it gives."""

    def on_hangup(self, work: Callable[[], None]) -> None:
        """Have it done on SIGHUP, which else ends a process."""

    def stop(self, why: str, status: int) -> None:
        """Say why the node stops by itself, and end the process with C{status}."""

    def notify(self, state: str) -> None:
        """Tell who started the node how far it is, see L{kvdb.notify}."""

    def close(self) -> None:
        """The node is done with it."""


class RealHost:
    """
    This process, on this machine.

    @ivar reactor: the one that runs it.
    @ivar log_observer: where the log goes; None where the runner says so alone.
    @ivar logs_json: whether it is JSON, and whatever is said beside it.
    """

    log_observer: ILogObserver | None = None
    logs_json: bool = False

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._thread = OneThread(reactor)
        self.filesystem: FileSystem = RealFileSystem(self._thread)
        self.files: Files = RealFiles()
        # Of its own: no sync of the log waits for what is done in it.
        self._beside = OneThread(reactor)
        self._hangup: Any = None

    def engines(self, directory: str) -> Engines:
        """See L{Host}, as for all below."""
        return RocksEngines(self.filesystem, directory)

    def listen(self, port: int, factory: IProtocolFactory, address: str) -> Any:
        """See there."""
        listening = EagerPort(port, factory, BACKLOG, address, self.reactor)
        listening.startListening()
        return listening

    def entropy(self, length: int) -> bytes:
        """See there."""
        return os.urandom(length)

    def boot_id(self) -> str:
        """See there."""
        return this_boot()

    def time_of_day(self) -> float:
        """See there."""
        return time.time()

    def in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        """See there."""
        found: list[Any] = []
        done: Deferred[Any] = self._beside.run(lambda: found.append(work()))
        return done.addCallback(lambda _: found[0])

    def on_hangup(self, work: Callable[[], None]) -> None:
        """See there."""

        def install() -> None:
            def hang_up(*_: object) -> None:
                self.reactor.callFromThread(work)

            self._hangup = signal.signal(signal.SIGHUP, hang_up)

        self.reactor.callWhenRunning(install)

    def stop(self, why: str, status: int) -> None:
        """
        Stop as SIGTERM would, and have the process exit with C{status}: neither
        twistd nor twist has a way to ask for that.
        """
        # One that ends as it should, and never served, would else be taken for one
        # that has failed, and started again.
        first = [] if status else [READY]
        self.notify("\n".join([*first, STOPPING, status_line(why)]))
        if status:
            log.critical("{why}", why=why)

            @atexit.register
            def leave() -> None:
                self._say_last(why)
                os._exit(status)

        else:
            log.info("this process stops: {why}", why=why)
        self.reactor.callWhenRunning(self._stop)

    def _say_last(self, why: str) -> None:
        """Behind all that the runner says of its own end."""
        # The runner has stopped logging: say it where it did.
        if self.log_observer is not None:
            last = Logger(namespace="kvdb.service", observer=self.log_observer)
            last.critical("{why}", why=why)
        with suppress(OSError, ValueError):  # closed, or full
            sys.stdout.flush()
        # Not sys.stderr, which the runner has made a part of its log.
        errors = sys.__stderr__
        with suppress(OSError, ValueError):
            if errors is not None:
                errors.write(self._last_line(why))
                errors.flush()

    def _last_line(self, why: str) -> str:
        if not self.logs_json:
            return f"kvdb: {why}\n"
        return logs.json_line(
            {
                "log_time": self.time_of_day(),
                "log_level": LogLevel.critical,
                "log_namespace": log.namespace,
                "log_format": "{why}",
                "why": why,
            }
        )

    def _stop(self) -> None:
        try:
            self.reactor.stop()
        except ReactorNotRunning:
            pass  # on its way out already

    def notify(self, state: str) -> None:
        """See there."""
        notify(state)

    def close(self) -> None:
        """See there."""
        self._thread.stop()
        self._beside.stop()
        if self._hangup is not None:
            signal.signal(signal.SIGHUP, self._hangup)
            self._hangup = None
