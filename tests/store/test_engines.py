"""What lies in the directory of engines."""

from __future__ import annotations

import os
import time
from pathlib import Path

from rocksdict import Options, Rdict
from twisted.trial.unittest import SynchronousTestCase

from kvdb.storage.filesystem import DiskFull, OneThread, RealFileSystem
from kvdb.store import rocks
from kvdb.store.commands import (
    Put,
    Record,
)
from kvdb.store.engine import Engine, EngineError
from kvdb.store.memory import MemoryEngine, MemoryEngines
from kvdb.store.rocks import RocksEngine, RocksEngines
from tests.store.suite import OnRocks


class RocksDirectoryTests(OnRocks):
    """What lies in the directory of engines."""

    engines: RocksEngines

    def names(self) -> list[str]:
        return sorted(path.name for path in Path(self.engines.directory).iterdir())

    def test_an_install_removes_the_engine_before(self) -> None:
        self.assertEqual(self.names(), ["CURRENT", "engine-00000001"])
        receiver = self.store.receive_snapshot()
        self.assertEqual(
            self.names(), ["CURRENT", "engine-00000001", "engine-00000002"]
        )
        taken = self.store.open_snapshot()
        for chunk in taken.chunks():
            receiver.write(chunk)
        taken.close()
        receiver.finish()
        self.store.install(receiver)
        self.assertEqual(self.names(), ["CURRENT", "engine-00000002"])

    def test_an_engine_that_is_thrown_away_needs_no_space(self) -> None:
        """RocksDB flushes what it closes; a second try would remove the new one."""
        old = self.store.engine
        close = RocksEngine.close

        def close_if_it_fits(engine: RocksEngine) -> None:
            close(engine)
            if engine is old:
                raise DiskFull("no space for the last flush")

        self.patch(RocksEngine, "close", close_if_it_fits)
        self.do(Put(b"k", b"v"))
        receiver = self.store.receive_snapshot()
        taken = self.store.open_snapshot()
        for chunk in taken.chunks():
            receiver.write(chunk)
        taken.close()
        receiver.finish()
        self.store.install(receiver)
        self.assertEqual(self.names(), ["CURRENT", "engine-00000002"])
        self.assertEqual(self.store.get(b"k"), Record(b"v", 1, 1, 1))

    def test_an_aborted_snapshot_leaves_nothing(self) -> None:
        self.store.receive_snapshot().abort()
        self.assertEqual(self.names(), ["CURRENT", "engine-00000001"])

    def test_what_a_crash_left_is_removed_at_the_next_start(self) -> None:
        self.do(Put(b"k", b"v"))
        self.store.engine.flush()
        staged = self.engines.stage()
        staged.write({b"x": b"y"})
        staged.close()
        Path(self.engines.directory, "CURRENT.new").write_bytes(b"engine-0")
        self.reopen()
        self.assertEqual(self.names(), ["CURRENT", "engine-00000001"])
        self.assertEqual(self.store.get(b"k"), Record(b"v", 1, 1, 1))

    def test_an_engine_is_durable_before_it_is_named(self) -> None:
        done: list[str] = []

        class Noting(RealFileSystem):
            def make_directory(self, path: str) -> None:
                super().make_directory(path)
                done.append(f"make {path.rpartition('/')[2]}")

            def rename(self, old: str, new: str) -> None:
                done.append(f"name {new.rpartition('/')[2]}")
                super().rename(old, new)

        engines = RocksEngines(Noting(OneThread(None)), f"{self.mktemp()}/store")
        engines.open().close()
        self.assertEqual(done[-2:], ["make engine-00000001", "name CURRENT"])

    def test_a_damaged_current_removes_nothing(self) -> None:
        self.do(Put(b"k", b"v"))
        self.store.engine.flush()
        current = Path(self.engines.directory, "CURRENT")
        for damage in (b"", b"engine-00000009\n", b"..\n", None):
            if damage is None:
                current.unlink()
                Path(self.engines.directory, "engine-00000002").mkdir()
            else:
                current.write_bytes(damage)
            with self.assertRaisesRegex(EngineError, "CURRENT"):
                RocksEngines(self.engines.filesystem, self.engines.directory).open()
        current.write_bytes(b"engine-00000001\n")
        self.reopen()
        self.assertEqual(self.store.get(b"k"), Record(b"v", 1, 1, 1))

    def test_rocksdb_writes_no_log_of_its_own(self) -> None:
        for number in range(20):
            self.do(Put(b"%d" % number, bytes(1000)))
        logs = list(Path(self.engines.directory, "engine-00000001").glob("*.log"))
        self.assertEqual([path.stat().st_size for path in logs], [0] * len(logs))
        self.assertEqual(len(logs), 1)

    def test_what_rocksdb_cannot_do_says_where_and_what_to_do(self) -> None:
        path = self.mktemp()
        Path(path).write_text("not a directory")
        with self.assertRaisesRegex(EngineError, f"{path}.*restore a backup"):
            RocksEngine(path)

    def test_a_bad_block_is_no_end(self) -> None:
        path = self.mktemp()
        engine = RocksEngine(path)
        engine.write({b"%05d" % number: os.urandom(200) for number in range(2000)})
        engine.flush()
        engine.close()
        [table] = Path(path).glob("*.sst")
        content = bytearray(table.read_bytes())
        content[len(content) // 2] ^= 1
        table.write_bytes(content)
        engine = RocksEngine(path)
        self.addCleanup(engine.close)
        for read in (
            lambda: list(engine.scan(b"", b"\xff")),
            lambda: list(engine.open_view().scan(b"", b"\xff")),
            lambda: [engine.get(b"%05d" % number) for number in range(2000)],
        ):
            self.assertRaisesRegex(EngineError, f"{path}.*checksum", read)

    def test_a_full_disk_is_a_full_disk(self) -> None:
        for text in ("No space left on device", "Disk quota exceeded"):
            error = Exception(f"IO error: {text}: 000012.sst")
            self.assertIsInstance(rocks._engine_error("/d", error), DiskFull)

    def test_a_file_of_another_user_is_no_bad_disk(self) -> None:
        """As after a restore that another user ran."""
        error = Exception("IO error: While open a file: 000012.sst: Permission denied")
        told = str(rocks._engine_error("/d", error))
        self.assertRegex(told, "000012.sst.*the user whose files they are")
        self.assertNotIn("remove", told)

    def test_an_engine_that_fails_is_an_engine_error(self) -> None:
        def fail(*args: object) -> None:
            raise ValueError("Corruption: block checksum mismatch")

        class Broken:
            write = flush = staticmethod(fail)

        engine = RocksEngine(self.mktemp())
        real, engine._db = engine._db, Broken()  # type: ignore[assignment]
        self.assertRaisesRegex(EngineError, "checksum", engine.write, {b"a": b"b"})
        self.assertRaisesRegex(EngineError, "checksum", engine.flush)
        real.close()


class SettingsTests(SynchronousTestCase):
    """RocksDB's settings are those of the running release."""

    def test_they_hold_for_a_directory_that_is_there_already(self) -> None:
        path = self.mktemp()
        other = Options(raw_mode=True)
        other.create_if_missing(True)
        Rdict(path, options=other).close()
        for _ in range(2):
            engine = RocksEngine(path)
            capacity = engine._db.property_int_value("rocksdb.block-cache-capacity")
            engine.write({b"k": b"v"})
            engine.close()
            self.assertEqual(capacity, rocks.CACHE_BYTES)
            newest = max(Path(path).glob("OPTIONS-*")).read_text()
            self.assertIn("index_type=kTwoLevelIndexSearch", newest)
            self.assertIn("partition_filters=true", newest)
            self.assertIn(f"write_buffer_size={rocks.WRITE_BUFFER_BYTES}", newest)


class TombstonesTests(SynchronousTestCase):
    """What was deleted costs those who read elsewhere nothing."""

    count = 60_000

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.engine = RocksEngine(self.path)
        self.addCleanup(self.engine.close)
        keys = [b"m%08d" % number for number in range(self.count)]
        self.engine.write(dict.fromkeys(keys, b"v"))
        self.engine.write({b"a": b"first", b"z": b"last"})
        self.engine.flush()
        self.engine.write(dict.fromkeys(keys))

    def seconds(self, low: bytes, high: bytes, found: list[bytes]) -> float:
        """The shortest of some scans."""
        took = []
        for _ in range(5):
            began = time.perf_counter()
            keys = [key for key, _ in self.engine.scan(low, high)]
            took.append(time.perf_counter() - began)
            self.assertEqual(keys, found)
        return min(took)

    def test_a_scan_ends_before_its_neighbours_tombstones(self) -> None:
        across = self.seconds(b"a", b"zz", [b"a", b"z"])  # through all of them
        for low, high, found in (
            (b"a", b"m", [b"a"]),
            (b"b", b"m", []),
            (b"n", b"o", []),
        ):
            self.assertLess(20 * self.seconds(low, high, found), across)

    def test_files_full_of_them_are_compacted(self) -> None:
        self.engine.flush()
        end = time.monotonic() + 60
        while any(file["num_deletions"] for file in self.engine._db.live_files()):
            self.assertLess(time.monotonic(), end, "nothing compacts them")
            time.sleep(0.01)
        self.assertEqual(len(list(self.engine.scan(b"", b"zz"))), 2)


class MemoryEngineTests(SynchronousTestCase):
    """What only the simulated engine does."""

    def test_a_staged_engine_is_lost_in_a_crash(self) -> None:
        engines = MemoryEngines()
        engines.stage().write({b"a": b"b"})
        engines.crash()
        self.assertIsNone(engines.open().get(b"a"))


class ViewTests(SynchronousTestCase):
    """A point in time."""

    def make_engine(self) -> Engine:
        return MemoryEngine()

    def test_a_view_does_not_change(self) -> None:
        engine = self.make_engine()
        engine.write({b"%d" % number: b"old" for number in range(6)})
        expected = list(engine.scan(b"", b"z"))
        view = engine.open_view()
        engine.write({b"1": None, b"2": b"new", b"7": b"new"})
        seen = []
        for number, pair in enumerate(view.scan(b"", b"z")):
            seen.append(pair)
            engine.write({b"%d" % (5 - number): None, b"3x": b"new"})
            engine.flush()
        self.assertEqual(seen, expected)
        self.assertEqual(list(view.scan(b"2", b"4")), expected[2:4])
        view.close()
        self.assertEqual(list(engine.scan(b"", b"7")), [(b"3x", b"new")])
        engine.close()


class ViewOnRocksTests(ViewTests):
    def make_engine(self) -> Engine:
        return RocksEngine(self.mktemp())
