"""A store, on each of its engines."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvdb.storage.filesystem import RealFileSystem
from kvdb.store.commands import (
    Command,
    Outcome,
    OutcomeStatus,
)
from kvdb.store.engine import Engines
from kvdb.store.memory import MemoryEngines
from kvdb.store.rocks import RocksEngines
from kvdb.store.store import Store
from tests.storage.disk import AtOnce
from tests.store.entries import bootstrap, do


class StoreTestCase(SynchronousTestCase):
    """A store that holds one bootstrapped member."""

    def setUp(self) -> None:
        self.engines = self.make_engines()
        self.store = Store.open(self.engines)
        self.addCleanup(self.close)
        bootstrap(self.store)

    def close(self) -> None:
        self.store.close()

    def make_engines(self) -> Engines:
        """A new directory of engines; those of tests and simulations."""
        return MemoryEngines()

    def do(self, *commands: Command) -> list[Outcome]:
        return do(self.store, *commands)

    def one(self, command: Command) -> tuple[OutcomeStatus, int]:
        [outcome] = self.do(command)
        return outcome.status, outcome.revision

    def keys(self, prefix: bytes) -> list[bytes]:
        high = prefix[:-1] + bytes([prefix[-1] + 1])
        return [key for key, _ in self.store.engine.scan(prefix, high)]

    def reopen(self) -> None:
        self.store.close()
        self.store = Store.open(self.engines)


class OnRocks(StoreTestCase):
    """The same on the engine of real members; to be named before the suite."""

    def make_engines(self) -> Engines:
        return RocksEngines(RealFileSystem(AtOnce()), self.mktemp())

    def reopen(self) -> None:
        # Its own log is off, so what is not flushed is the Raft log's to keep.
        self.store.engine.flush()
        super().reopen()
