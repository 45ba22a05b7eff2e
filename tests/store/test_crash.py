"""What engines lose in a crash: the newest batches, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from kvdb.store import rocks
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Store
from tests.store.entries import bootstrap
from tests.store.writer import made_entry, open_store

ROOT: Final = Path(__file__).parents[2]
KILLS: Final = 15
# How much is to be written between the kills, in entries.
ENTRIES: Final = 1000


class PrefixTestCase(SynchronousTestCase):
    """A store that grows beside the one that crashes."""

    def setUp(self) -> None:
        self.model = Store.open(MemoryEngines())
        bootstrap(self.model)

    def assert_prefix(self, store: Store) -> None:
        """It holds what the entries up to its applied index make."""
        first, behind = self.model.applied_index + 1, store.applied_index + 1
        self.model.apply([made_entry(index) for index in range(first, behind)])
        self.assertEqual(store.applied_index, self.model.applied_index)
        self.assertEqual(store.digest(), self.model.digest())
        self.assertEqual(store.members, self.model.members)


class MemoryCrashTests(PrefixTestCase):
    """The engine of simulations loses what real ones may."""

    def test_a_crash_leaves_what_was_flushed(self) -> None:
        random = Random(3)
        engines = MemoryEngines()
        store = Store.open(engines)
        bootstrap(store)
        flushed, lost = 1, 0
        for _ in range(300):
            chance = random.random()
            if chance < 0.7:
                first = store.applied_index + 1
                behind = first + random.randrange(1, 5)
                store.apply([made_entry(index) for index in range(first, behind)])
            elif chance < 0.85:
                store.begin_flush()
                flushed = store.poll_flush()
                self.assertEqual(flushed, store.applied_index)
            else:
                lost += store.applied_index - flushed
                engines.crash()
                store = Store.open(engines)
                self.assertEqual(store.applied_index, flushed)
                self.assert_prefix(store)
        self.assertGreater(lost, 50)

    def test_nothing_applied_means_an_empty_store(self) -> None:
        engines = MemoryEngines()
        store = Store.open(engines)
        store.apply([made_entry(1)])
        engines.crash()
        store = Store.open(engines)
        self.assertEqual((store.applied_index, store.revision), (0, 0))
        self.assertEqual(store.size_bytes, 0)


class KilledProcessTests(PrefixTestCase):
    """A real process, killed at any moment."""

    def kill_after(self, lines: int, directory: str) -> int:
        """The highest index that the process said to be durable."""
        with subprocess.Popen(
            [sys.executable, "-m", "tests.store.writer", directory],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(lines)]
            process.kill()
            said += process.stdout.readlines()
        self.assertEqual(process.returncode, -9)
        return max(int(line) for line in said if line.endswith(b"\n"))

    def test_it_holds_a_prefix_with_all_that_was_flushed(self) -> None:
        self.patch(rocks, "WRITE_BUFFER_BYTES", rocks.WRITE_BUFFER_BYTES)
        directory = str(Path(self.mktemp()).absolute())
        random = Random(8)
        reached = said = 1
        kills = 0
        # How much is flushed between two kills is up to the disk.
        while kills < KILLS or said < ENTRIES:
            kills += 1
            self.assertLess(kills, 10 * KILLS)
            durable = said = self.kill_after(random.randrange(1, 80), directory)
            logs = list(Path(directory).glob("engine-*/*.log"))
            self.assertEqual({path.stat().st_size for path in logs}, {0})
            store = open_store(directory)
            self.assertGreaterEqual(store.applied_index, durable)
            self.assertGreaterEqual(store.applied_index, reached)
            reached = store.applied_index
            self.assert_prefix(store)
            store.close()
