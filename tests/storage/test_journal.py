"""Segments: how they follow each other, and what may be missing of them."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail

from kvdb.raft.messages import HardState
from kvdb.simulation.filesystem import SimulatedFile, SimulatedFileSystem
from kvdb.storage.filesystem import DiskFull, SyncFailed
from kvdb.storage.journal import RESERVE_BYTES, SMALL_SEGMENT_BYTES, LogClosed
from kvdb.storage.log import Identity, Log
from kvdb.storage.records import RecordType, encode_entry, encode_record
from kvdb.storage.segment import BATCH, CorruptLog
from tests.storage.disk import DIRECTORY, LogTestCase, content, make_entries


def refuse(*args: object) -> None:
    """What nothing may call here."""
    raise AssertionError("this waits for the disk")


class SegmentsTestCase(LogTestCase):
    """Logs of several segments."""

    segment_bytes = 16 << 10

    def append_until(self, log: Log, segments: int) -> int:
        """Append until there are so many segments; the last index."""
        while len(self.segments()) < segments:
            index = log.last_index() + 1
            log.append(make_entries(index, index + 1, size=1000), HardState(1, 1, 0))
        return log.last_index()

    def path(self, position: int) -> str:
        return f"{DIRECTORY}/{self.segments()[position]}"

    def zero(self, path: str, offset: int, length: int) -> None:
        """What is there is lost, as by a crash."""
        self.disk.open(path).write(offset, bytes(length))


class RollTests(SegmentsTestCase):
    """The next segment begins."""

    def test_nothing_waits_for_the_disk(self) -> None:
        log = self.open()
        self.disk.hung = True
        for name in ("sync", "sync_directory"):
            for owner in (SimulatedFile, SimulatedFileSystem):
                if hasattr(owner, name):
                    self.patch(owner, name, refuse)
        self.append_until(log, 3)
        done = self.start_sync(log)
        log.compact(5)
        log.reset(1000, 2, HardState(2, 0, 1000))
        self.clock.advance(7.0)
        self.assertEqual(log.pending_sync_seconds(), 7.0)
        self.disk.hung = False
        self.clock.advance(1.0)
        self.successResultOf(done)

    def test_the_next_file_is_made_ahead_of_need(self) -> None:
        log = self.open()
        self.append_until(log, 1)
        while f"{DIRECTORY}/spare.new" not in self.disk._files:
            index = log.last_index() + 1
            log.append(make_entries(index, index + 1, size=1000), None)
        self.assertLess(log.size_bytes, 12 << 10)
        self.clock.advance(0)
        self.disk.space = 0  # so that no other could be made
        last = self.append_until(log, 2)
        self.sync(log)
        self.assertEqual(content(self.restart()), make_entries(1, last + 1, size=1000))

    def test_a_file_that_is_not_there_in_time_is_not_waited_for(self) -> None:
        log = self.open()
        self.disk.hung = True
        self.append_until(log, 2)
        self.disk.hung = False
        self.clock.advance(1.0)
        last = self.append_until(log, 4)
        log = self.reopen(log)
        self.assertEqual(log.last_index(), last)
        self.assertNotIn("spare.new", self.disk.list(DIRECTORY))

    def test_a_full_disk_makes_none_ahead(self) -> None:
        log = self.open()
        self.disk.space = 0
        index = 1
        with self.assertRaises(DiskFull):
            while True:
                log.append(make_entries(index, index + 1, size=1000), None)
                self.clock.advance(0)
                index += 1
        self.assertNotIn("spare.new", self.disk.list(DIRECTORY))
        self.disk.space = None
        self.append_until(log, 3)

    def test_no_name_left_on_the_disk_is_a_full_disk_too(self) -> None:
        log = self.open()
        real = SimulatedFileSystem.open

        def full(disk: SimulatedFileSystem, path: str) -> object:
            if path.endswith(".new"):
                raise DiskFull("no space for a name")
            return real(disk, path)

        patch = self.patch(SimulatedFileSystem, "open", full)
        self.assertRaises(DiskFull, self.append_until, log, 2)
        last = log.last_index()
        patch.restore()
        self.append_until(log, 2)
        self.assertEqual(log.last_index(), last + 1)

    def test_a_disk_that_fails_to_make_one_ends_the_log(self) -> None:
        log = self.open()

        def broken(file: SimulatedFile, length: int) -> Deferred[None]:
            return fail(OSError(5, "Input/output error"))

        self.patch(SimulatedFile, "allocate_later", broken)
        with self.assertRaisesRegex(LogClosed, "Input/output"):
            self.append_until(log, 2)

    def test_a_log_closed_meanwhile_leaves_the_file(self) -> None:
        for full in (False, True):
            self.make_disk(0)
            log = self.open()
            while f"{DIRECTORY}/spare.new" not in self.disk._files:
                index = log.last_index() + 1
                log.append(make_entries(index, index + 1, size=1000), None)
            self.disk.space = 0 if full else None
            log.close()
            self.clock.advance(0)
            self.disk.space = None
            self.assertEqual(self.open().last_index(), index)

    def test_a_segment_that_cannot_be_named_ends_the_log(self) -> None:
        log = self.open()

        def broken(disk: SimulatedFileSystem, old: str, new: str) -> None:
            raise OSError(5, "Input/output error")

        self.patch(SimulatedFileSystem, "rename", broken)
        self.assertRaises(OSError, self.append_until, log, 2)
        self.assertRaises(LogClosed, log.append, [], HardState(9))

    def test_a_member_votes_on_as_long_as_the_reserve_lasts(self) -> None:
        log = self.open()
        self.disk.space = 0
        votes = 2 * SMALL_SEGMENT_BYTES // 50
        for term in range(1, votes):
            self.write(log, [], HardState(term, 1, 0))
        self.assertLess(self.disk.space or 0, RESERVE_BYTES)
        self.assertEqual(self.restart().hard_state, HardState(votes - 1, 1, 0))

    def test_a_sync_in_between_serves_those_who_wait(self) -> None:
        log = self.open()
        self.disk.sync_delay = 1.0
        log.append(make_entries(1, 2), None)
        first = self.start_sync(log)
        log.append(make_entries(2, 3), None)
        second = self.start_sync(log)
        log.set_identity(Identity(1, 2, 3))
        self.clock.advance(1.0)
        self.successResultOf(first)
        self.successResultOf(second)


class RecoverTests(SegmentsTestCase):
    """What a crash may take of several segments, and what it may not."""

    def test_what_follows_a_torn_end_goes_with_it(self) -> None:
        """A later segment reached the disk, and the end before it did not."""
        for lost in (1500, 10):  # with the last batches, or a part of the last
            self.make_disk(0)
            log = self.open()
            self.write(log, make_entries(1, 3, size=1000))
            self.append_until(log, 2)
            end = log._journal.segments[0].length
            log.close()
            self.zero(self.path(0), end - lost, lost)
            log = self.open()
            self.assertEqual(len(self.segments()), 1)
            last = log.last_index()
            self.assertEqual(content(log), make_entries(1, last + 1, size=1000))
            self.assertGreater(last, 2)
            self.write(log, make_entries(last + 1, last + 2, term=7))
            log = self.restart()
            self.assertEqual(log.term(last + 1), 7)
            log.close()

    def test_an_end_that_was_synced_may_not_be_missing(self) -> None:
        for lost in (1500, 10):
            self.make_disk(0)
            log = self.open()
            last = self.append_until(log, 2)
            self.sync(log)
            self.write(log, make_entries(last + 1, last + 2))
            end = log._journal.segments[0].length
            log.close()
            path = self.path(0)
            self.zero(path, end - lost, lost)
            with self.assertRaisesRegex(CorruptLog, path):
                self.open()

    def test_an_end_of_whole_batches_may_not_be_missing_either(self) -> None:
        log = self.open()
        last = self.append_until(log, 2)
        self.sync(log)
        self.write(log, make_entries(last + 1, last + 2))
        segment = log._journal.segments[0]
        *_, batch = segment.batches()
        log.close()
        path = self.path(0)
        self.zero(path, batch.offset, batch.end - batch.offset)
        with self.assertRaisesRegex(CorruptLog, f"{path}.*its end is missing"):
            self.open()

    def test_what_was_synced_is_missed_wherever_it_is_claimed(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 3, size=1000))
        start = log.size_bytes
        self.write(log, make_entries(3, 4, size=1000))
        last = self.append_until(log, 2)
        log.append(make_entries(last + 1, last + 2), None)  # the only claim left
        end = log._journal.segments[0].length
        log.close()
        self.zero(self.path(0), start, end - start)
        self.zero(self.path(1), 0, 30)
        with self.assertRaisesRegex(CorruptLog, self.path(1)):
            self.open()

    def test_a_beginning_that_never_came_ends_the_log_before_it(self) -> None:
        log = self.open()
        last = self.append_until(log, 2)
        log.close()
        self.zero(self.path(1), 0, 30)
        log = self.open()
        self.assertEqual((log.last_index(), len(self.segments())), (last - 1, 1))

    def test_a_beginning_that_was_synced_may_not_be_missing(self) -> None:
        log = self.open()
        last = self.append_until(log, 2)
        self.sync(log)
        self.write(log, make_entries(last + 1, last + 2))
        log.close()
        path = self.path(1)
        self.zero(path, 0, 30)
        with self.assertRaisesRegex(CorruptLog, f"{path}.*offset 0"):
            self.open()

    def test_the_beginning_of_what_was_compacted_may_not_be_missing(self) -> None:
        log = self.open()
        last = self.append_until(log, 2)
        self.sync(log)
        log.compact(last)
        log.close()
        (name,) = self.segments()
        for length in (30, 4000):
            self.zero(f"{DIRECTORY}/{name}", 0, length)
            with self.assertRaisesRegex(CorruptLog, name):
                self.open()

    def test_a_log_whose_first_write_never_came_is_new(self) -> None:
        self.open().close()
        self.zero(self.path(0), 0, 4000)
        log = self.open()
        self.assertEqual(log.last_index(), 0)
        self.assertIsNone(log.identity)

    def test_a_missing_segment_is_missed(self) -> None:
        log = self.open()
        self.append_until(log, 3)
        self.sync(log)
        log.close()
        path = self.path(1)
        self.disk.remove(path)
        with self.assertRaisesRegex(CorruptLog, f"{path}.*missing"):
            self.open()

    def test_another_segments_content_is_refused(self) -> None:
        log = self.open()
        self.append_until(log, 2)
        self.sync(log)
        log.close()
        first, second = (self.disk.open(self.path(position)) for position in (0, 1))
        second.write(0, first.read(0, first.size()))
        with self.assertRaisesRegex(CorruptLog, "another segment's content"):
            self.open()

    def test_segments_are_kept_until_what_replaces_them_is_durable(self) -> None:
        log = self.open()
        last = self.append_until(log, 3)
        log.compact(last - 1)
        self.assertEqual(len(self.segments()), 3)
        self.sync(log)
        self.assertEqual(len(self.segments()), 1)
        log.reset(1000, 2, HardState(2, 0, 1000))
        self.assertEqual(len(self.segments()), 2)
        self.sync(log)
        self.assertEqual(len(self.segments()), 1)

    def test_no_entry_goes_but_those_compacted(self) -> None:
        for back in range(4):
            self.make_disk(0)
            log = self.open()
            last = self.append_until(log, 2)
            self.sync(log)
            log.compact(last - back)
            log = self.reopen(log)
            self.assertLessEqual(log.first_index(), last - back + 1)
            self.assertEqual(log.last_index(), last)
            log.close()

    def test_a_batch_whose_records_do_not_fill_it_is_none(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 2))
        end = log.size_bytes
        log.close()
        record = encode_entry(make_entries(2, 3)[0])
        for length in (len(record) - 1, len(record) + 1, 1 << 30):
            head = encode_record(RecordType.BATCH, BATCH.pack(0, length))
            self.disk.open(self.path(0)).write(end, head + record)
            log = self.open()
            self.assertEqual(log.last_index(), 1)
            log.close()

    def test_a_torn_end_is_erased_on_a_full_disk(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 3))
        start = log.size_bytes
        log.append(make_entries(3, 5), None)
        log.close()
        self.zero(self.path(0), start, 5)
        self.disk.space = 0
        self.assertEqual(content(self.open()), make_entries(1, 3))

    def test_commit_and_entries_stand_or_fall_together(self) -> None:
        """As a follower hears both in one message."""
        for seed in range(100):
            self.make_disk(seed)
            log = self.open()
            self.write(log, make_entries(1, 2), HardState(1, 1, 0))
            log.append(make_entries(2, 6, size=400), HardState(1, 1, 5))
            log = self.restart()
            self.assertLessEqual(log.hard_state.commit, log.last_index())

    def test_what_is_committed_is_not_replaced(self) -> None:
        log = self.open()
        log.append(make_entries(1, 6), HardState(1, 1, 0))
        log.append([], HardState(1, 1, 3))
        with self.assertRaisesRegex(AssertionError, "committed to 3"):
            log.append(make_entries(3, 4, term=2), None)
        log.append(make_entries(4, 5, term=2), None)

    def test_a_directory_that_cannot_be_synced_ends_the_log(self) -> None:
        log = self.open()
        self.append_until(log, 2)
        self.disk.sync_fails = True
        done = self.start_sync(log)
        self.clock.advance(0)
        self.failureResultOf(done, SyncFailed)
        self.assertRaises(LogClosed, log.append, [], HardState(9))
