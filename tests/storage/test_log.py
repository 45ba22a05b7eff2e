"""What the log holds, through appends, cuts, reopening and full disks."""

from __future__ import annotations

import struct
from random import Random
from typing import Final

from twisted.internet.defer import Deferred, fail

from kvdb.raft.messages import ENTRY_OVERHEAD, Entry, HardState
from kvdb.raft.storage import Compacted, Unavailable
from kvdb.simulation.filesystem import SimulatedFile, SimulatedFileSystem
from kvdb.storage import log as log_module
from kvdb.storage.filesystem import DirectoryInUse, DiskFull, SyncFailed
from kvdb.storage.journal import RESERVE_BYTES, LogClosed
from kvdb.storage.log import Identity, UnknownFormat
from kvdb.storage.records import RecordType, encode_entry, encode_record
from kvdb.storage.segment import BATCH_BYTES, CorruptLog, Segment
from kvdb.storage.starts import PeerStart, Start, Starts
from tests.storage.disk import DIRECTORY, ENOUGH, LogTestCase, content, make_entries

STATE: Final = HardState(3, 2, 0)


class TailTests(LogTestCase):
    """Where the log is cut for a tail of so many bytes to be left."""

    overhead_bytes = 200
    """Of a batch's head and a segment's, for each entry at most."""

    def test_the_tail_is_as_long_as_its_bytes_allow(self) -> None:
        for seed in range(40):
            random = Random(seed)
            self.make_disk(seed)
            log = self.open()
            last = random.randrange(1, 60)
            for index in range(1, last + 1):
                size = random.choice([10, 300, 3000])
                self.write(log, make_entries(index, index + 1, size=size))
            log.compact(random.randrange(last))
            upto = random.randrange(log.first_index(), last + 1)
            max_bytes = random.choice([0, 500, 4_000, 20_000])
            first = log.first_within(upto, max_bytes)
            self.assertTrue(log.first_index() <= first <= upto + 1)
            sizes = [len(encode_entry(one)) for one in content(log)]
            start = first - log.first_index()
            end = upto + 1 - log.first_index()
            self.assertLessEqual(sum(sizes[start:end]), max_bytes)
            if start:
                longer = sizes[start - 1 : end]
                room = self.overhead_bytes * len(longer)
                self.assertGreater(sum(longer) + room, max_bytes)
            log.close()


class AppendTests(LogTestCase):
    """What is appended, and where."""

    def test_a_new_log_is_empty(self) -> None:
        log = self.open()
        self.assertEqual((log.first_index(), log.last_index()), (1, 0))
        self.assertEqual((log.hard_state, log.identity), (HardState(), None))
        self.assertEqual(log.term(0), 0)

    def test_what_was_appended_is_there_after_reopening(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 8), STATE)
        log = self.reopen(log)
        self.assertEqual(content(log), make_entries(1, 8))
        self.assertEqual(log.hard_state, STATE)

    def test_appending_goes_on_after_reopening(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 4))
        log = self.reopen(log)
        self.write(log, make_entries(4, 6))
        log = self.reopen(log)
        self.assertEqual(content(log), make_entries(1, 6))

    def test_an_entry_at_a_taken_place_replaces_all_behind_it(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 9))
        self.write(log, make_entries(4, 6, term=2))
        expected = make_entries(1, 4) + make_entries(4, 6, term=2)
        self.assertEqual(content(log), expected)
        log = self.reopen(log)
        self.assertEqual(content(log), expected)

    def test_a_gap_is_refused(self) -> None:
        log = self.open()
        with self.assertRaisesRegex(AssertionError, "entry 3 appended"):
            log.append(make_entries(3, 4), None)
        self.assertEqual(content(log), [])

    def test_a_hard_state_that_is_known_is_not_written_again(self) -> None:
        log = self.open()
        self.write(log, [], STATE)
        before = log.size_bytes
        self.write(log, [], STATE)
        self.assertEqual(log.size_bytes, before)

    def test_segments_roll_and_are_read_in_order(self) -> None:
        log = self.open()
        for index in range(1, 200):
            log.append(make_entries(index, index + 1, size=100), None)
        self.assertGreater(len(self.segments()), 5)
        self.sync(log)
        log = self.reopen(log)
        self.assertEqual(content(log), make_entries(1, 200, size=100))

    def test_a_batch_longer_than_a_segment_has_its_own(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 3, size=3 * self.segment_bytes))
        self.write(log, make_entries(3, 4))
        expected = make_entries(1, 3, size=3 * self.segment_bytes) + make_entries(3, 4)
        log = self.reopen(log)
        self.assertEqual(content(log), expected)


class ReadTests(LogTestCase):
    """What is read back, from memory or from disk."""

    recent_bytes = 200

    def test_what_is_no_longer_in_memory_is_read_back(self) -> None:
        log = self.open()
        for index in range(1, 100):
            self.write(log, make_entries(index, index + 1, size=50))
        self.assertEqual(content(log), make_entries(1, 100, size=50))
        self.assertEqual(log.entries(40, 43, ENOUGH), make_entries(40, 43, size=50))

    def test_what_was_replaced_is_not_read_back(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 30, size=50))
        self.write(log, make_entries(10, 20, term=2, size=50))
        expected = make_entries(1, 10, size=50) + make_entries(10, 20, 2, 50)
        self.assertEqual(content(log), expected)
        log = self.reopen(log)
        self.assertEqual(content(log), expected)

    def test_more_than_one_read_is_needed(self) -> None:
        self.patch(log_module, "READ_BYTES", 130)
        log = self.open()
        entries = make_entries(1, 40, size=50)
        entries[7] = Entry(1, 8, data=bytes(1000))
        self.write(log, entries)
        self.assertEqual(content(log), entries)

    def test_sizes_are_limited_but_one_entry_always_comes(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 30, size=50))
        size = 50 + ENTRY_OVERHEAD
        for low in (1, 28):  # on disk, in memory
            for limit, count in ((0, 1), (size, 1), (2 * size, 2), (2 * size - 1, 1)):
                found = log.entries(low, 30, limit)
                self.assertEqual([e.index for e in found], [low, low + 1][:count])

    def test_what_lies_outside_is_refused(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 10))
        log.compact(4)
        self.assertEqual(log.term(4), 1)
        for index, error in ((3, Compacted), (10, Unavailable)):
            self.assertRaises(error, log.term, index)
        self.assertRaises(Compacted, log.entries, 4, 6, ENOUGH)
        self.assertRaises(Unavailable, log.entries, 6, 11, ENOUGH)

    def test_what_changed_on_disk_is_not_handed_out(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 30, size=50))
        self.disk.flip_bit(f"{DIRECTORY}/{self.segments()[0]}", 500, 3)
        with self.assertRaises(CorruptLog) as caught:
            log.entries(1, 30, ENOUGH)
        self.assertIn(self.segments()[0], str(caught.exception))

    def test_another_entrys_record_is_not_handed_out(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 30, size=50))
        path = f"{DIRECTORY}/{self.segments()[0]}"
        file = self.disk.open(path)
        data = file.read(0, file.size())
        one, two = (data.index(b"1/%d " % i) for i in (1, 2))
        file.write(one - 26, data[two - 26 : two + 50])
        with self.assertRaisesRegex(CorruptLog, "another entry's record"):
            log.entries(1, 30, ENOUGH)


class CompactTests(LogTestCase):
    """The beginning is let go of."""

    def fill(self) -> list[Entry]:
        self.log = self.open()
        entries = make_entries(1, 201, size=100)
        for entry in entries:
            self.log.append([entry], None)
        self.sync(self.log)
        return entries

    def test_old_segments_are_removed(self) -> None:
        entries = self.fill()
        before = self.segments()
        size = self.log.size_bytes
        self.log.compact(100)
        self.assertEqual(content(self.log), entries[100:])
        kept = self.segments()
        self.assertLess(len(kept), len(before))
        self.assertEqual(kept, before[-len(kept) :])
        self.assertLess(self.log.size_bytes, size)

    def test_the_rest_is_there_after_reopening(self) -> None:
        entries = self.fill()
        self.log.compact(150)
        log = self.reopen(self.log)
        first = log.first_index()
        self.assertTrue(50 < first <= 151, first)
        self.assertEqual(content(log), entries[first - 1 :])
        self.assertEqual(log.term(first - 1), 1)

    def test_identity_and_hard_state_outlive_their_segment(self) -> None:
        log = self.open()
        log.set_identity(Identity(1, 2, 3))
        log.append([], STATE)
        log.close()
        self.fill()
        self.log.compact(200)
        self.assertEqual(len(self.segments()), 1)
        log = self.reopen(self.log)
        self.assertEqual((log.identity, log.hard_state), (Identity(1, 2, 3), STATE))

    def test_compacting_twice_or_backwards_changes_nothing(self) -> None:
        self.fill()
        self.log.compact(100)
        kept = self.segments()
        self.log.compact(100)
        self.log.compact(50)
        self.assertEqual(self.log.first_index(), 101)
        self.assertEqual(self.segments(), kept)

    def test_what_is_not_there_cannot_be_compacted(self) -> None:
        self.fill()
        with self.assertRaisesRegex(AssertionError, "compaction to 201"):
            self.log.compact(201)

    def test_entries_rewritten_before_the_cut_are_not_invented_again(self) -> None:
        log = self.open()
        for index in range(1, 30):
            self.write(log, make_entries(index, index + 1, size=200))
        last = len(self.segments())
        while len(self.segments()) == last:
            self.write(log, [], HardState(log.hard_state.term + 1))
        self.write(log, make_entries(25, 35, term=2, size=20))
        log.compact(29)
        self.assertEqual(len(self.segments()), 1)
        log = self.reopen(log)
        self.assertEqual((log.first_index(), log.last_index()), (30, 34))
        self.assertEqual(log.term(29), 2)
        self.assertEqual(content(log), make_entries(30, 35, term=2, size=20))

    def test_a_reset_begins_anew_behind_a_snapshot(self) -> None:
        self.fill()
        self.log.reset(1000, 7, STATE)
        for log in (self.log, self.reopen(self.log)):
            self.assertEqual((log.first_index(), log.last_index()), (1001, 1000))
            self.assertEqual((log.term(1000), log.hard_state), (7, STATE))
        self.assertEqual(len(self.segments()), 1)  # removed by opening
        self.write(log, make_entries(1001, 1004, term=8))
        log = self.reopen(log)
        self.assertEqual(content(log), make_entries(1001, 1004, term=8))

    def test_a_reset_may_lie_below_what_is_there(self) -> None:
        self.fill()
        self.log.reset(50, 1, STATE)
        log = self.reopen(self.log)
        self.assertEqual((log.first_index(), log.last_index()), (51, 50))


class IdentityTests(LogTestCase):
    """Whose directory it is."""

    def test_identity_is_kept(self) -> None:
        log = self.open()
        log.set_identity(Identity(0, 2, 3))
        log.set_identity(Identity(1, 2, 3))
        log = self.restart()
        self.assertEqual(log.identity, Identity(1, 2, 3))

    def test_a_removed_node_knows_it(self) -> None:
        log = self.open()
        log.set_identity(Identity(1, 2, 3, removed=True))
        log = self.restart()
        assert log.identity is not None
        self.assertTrue(log.identity.removed)

    def test_starts_are_kept(self) -> None:
        log = self.open()
        starts = Starts().begin(7).begin(8)
        log.set_identity(Identity(1, 2, 3, starts=starts))
        log = self.restart()
        self.assertEqual(log.identity, Identity(1, 2, 3, starts=starts))

    def test_peers_starts_are_kept_across_segments_and_a_reset(self) -> None:
        log = self.open()
        known = {1: PeerStart(101, Start(3, 33)), 3: PeerStart(103, Start(1, 11))}
        log.note_peer_starts(known)
        first = self.segments()[0]
        for entry in make_entries(1, 200, size=100):
            log.append([entry], STATE)
        self.sync(log)
        log.compact(150)
        self.write(log, make_entries(200, 201))
        self.assertNotIn(first, self.segments())
        log = self.reopen(log)
        self.assertEqual(log.peer_starts, known)
        log.reset(500, 5, HardState(5, 1, 500))
        self.sync(log)
        log = self.reopen(log)
        self.assertEqual((log.first_index(), log.peer_starts), (501, known))

    def test_format_1_is_read_and_goes_on(self) -> None:
        log = self.open()
        end = log.size_bytes
        log.close()
        file = self.disk.open(f"{DIRECTORY}/{self.segments()[0]}")
        body = struct.pack(">QQQHB", 1, 2, 3, 1, 0)
        old = encode_record(RecordType.IDENTITY, body)
        Segment(1, file, 1 << 20, end).write(0, [old])
        log = self.open()
        self.assertEqual(log.identity, Identity(1, 2, 3))
        starts = Starts().begin(9)
        log.set_identity(Identity(1, 2, 3, starts=starts))
        log = self.reopen(log)
        self.assertEqual(log.identity, Identity(1, 2, 3, starts=starts))

    def test_an_identity_of_another_length_is_corrupt(self) -> None:
        for version, rest in ((1, bytes(9)), (2, b""), (2, bytes(10))):
            self.make_disk(0)
            log = self.open()
            end = log.size_bytes
            log.close()
            file = self.disk.open(f"{DIRECTORY}/{self.segments()[0]}")
            body = struct.pack(">QQQHB", 1, 2, 3, version, 0) + rest
            bad = encode_record(RecordType.IDENTITY, body)
            Segment(1, file, 1 << 20, end).write(0, [bad])
            with self.assertRaisesRegex(CorruptLog, "another length"):
                self.open()

    def test_a_newer_format_is_refused(self) -> None:
        log = self.open()
        self.patch(log_module, "FORMAT_VERSION", 9)
        log.set_identity(Identity(1, 2, 3))
        log.close()
        self.patch(log_module, "FORMAT_VERSION", 2)
        with self.assertRaisesRegex(UnknownFormat, "format 9.*reads 2"):
            self.open()
        self.assertEqual(self.disk.locks, set())

    def test_a_record_of_unknown_type_is_refused(self) -> None:
        log = self.open()
        end = log.size_bytes
        log.close()
        file = self.disk.open(f"{DIRECTORY}/{self.segments()[0]}")
        unknown = encode_record(9, b"")  # type: ignore[arg-type]
        Segment(1, file, 1 << 20, end).write(0, [unknown])
        place = end + BATCH_BYTES
        with self.assertRaisesRegex(CorruptLog, f"offset {place}.*unknown record"):
            self.open()

    def test_entries_that_do_not_follow_are_refused(self) -> None:
        log = self.open()
        end = log.size_bytes
        log.close()
        file = self.disk.open(f"{DIRECTORY}/{self.segments()[0]}")
        Segment(1, file, 1 << 20, end).write(0, [encode_entry(make_entries(5, 6)[0])])
        with self.assertRaisesRegex(CorruptLog, "entry 5 follows entry 0"):
            self.open()

    def test_a_second_opener_is_refused(self) -> None:
        log = self.open()
        with self.assertRaisesRegex(DirectoryInUse, "in use by another process"):
            self.open()
        log.append(make_entries(1, 2), None)
        log.close()
        self.open()

    def test_a_segment_that_was_not_finished_is_no_segment(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 3))
        self.disk.open(f"{DIRECTORY}/log-0000000000000002.new").write(0, b"half")
        log = self.reopen(log)
        self.assertEqual(content(log), make_entries(1, 3))
        self.assertEqual(len(self.segments()), 1)


class SyncTests(LogTestCase):
    """When what was appended counts."""

    def setUp(self) -> None:
        super().setUp()
        self.disk.sync_delay = 1.0
        self.log = self.open()

    def test_appends_made_during_a_sync_share_the_next_one(self) -> None:
        self.log.append(make_entries(1, 2), None)
        first = self.start_sync(self.log)
        before = self.disk.syncs
        others = []
        for index in range(2, 12):
            self.log.append(make_entries(index, index + 1), None)
            others.append(self.start_sync(self.log))
        self.clock.advance(1.0)
        self.successResultOf(first)
        for other in others:
            self.assertNoResult(other)
        self.clock.advance(1.0)
        for other in others:
            self.successResultOf(other)
        self.assertEqual(self.disk.syncs - before, 1)

    def test_where_all_is_durable_a_sync_fires_at_once(self) -> None:
        self.successResultOf(self.log.sync())

    def test_what_is_appended_during_a_sync_is_not_yet_durable(self) -> None:
        self.log.append(make_entries(1, 2), None)
        first = self.start_sync(self.log)
        self.log.append(make_entries(2, 3), None)
        self.clock.advance(1.0)
        self.successResultOf(first)
        again = self.start_sync(self.log)
        self.clock.advance(1.0)
        self.successResultOf(again)

    def test_a_segment_may_end_while_it_is_synced(self) -> None:
        self.log.append(make_entries(1, 2, size=2500), None)
        first = self.start_sync(self.log)
        self.assertEqual(len(self.segments()), 1)
        self.log.append(make_entries(2, 3, size=2500), None)
        self.assertEqual(len(self.segments()), 2)
        second = self.start_sync(self.log)
        self.clock.pump([1.0, 1.0])
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(content(self.restart()), make_entries(1, 3, size=2500))

    def test_a_hung_sync_shows(self) -> None:
        self.assertEqual(self.log.pending_sync_seconds(), 0.0)
        self.disk.hung = True
        self.log.append(make_entries(1, 2), None)
        done = self.start_sync(self.log)
        self.clock.pump([1.0] * 9)
        self.assertEqual(self.log.pending_sync_seconds(), 9.0)
        self.assertNoResult(done)
        self.disk.hung = False
        self.clock.advance(1.0)
        self.successResultOf(done)
        self.assertEqual(self.log.pending_sync_seconds(), 0.0)

    def test_a_failed_sync_ends_the_log(self) -> None:
        self.log.append(make_entries(1, 2), None)
        self.disk.sync_fails = True
        first = self.start_sync(self.log)
        self.log.append(make_entries(2, 3), None)
        second = self.start_sync(self.log)
        self.clock.advance(1.0)
        told = str(self.failureResultOf(first, SyncFailed).value)
        self.assertIn("then start this member again", told)
        self.failureResultOf(second, SyncFailed)
        self.disk.sync_fails = False  # the kernel says so only once
        self.failureResultOf(self.log.sync(), SyncFailed)
        for refused in (
            lambda: self.log.append(make_entries(3, 4), None),
            lambda: self.log.compact(1),
            lambda: self.log.set_identity(Identity(1, 2, 3)),
            lambda: self.log.reset(5, 1, STATE),
        ):
            self.assertRaisesRegex(LogClosed, "could not sync", refused)

    def test_what_a_failed_sync_left_in_the_cache_is_written_again(self) -> None:
        self.write(self.log, make_entries(1, 3))
        self.log.append(make_entries(3, 5), None)
        self.disk.sync_fails = True
        failed = self.start_sync(self.log)
        self.clock.advance(1.0)
        self.failureResultOf(failed, SyncFailed)
        self.disk.sync_fails = False
        log = self.reopen(self.log)
        self.assertEqual(log.last_index(), 4)
        self.successResultOf(log.sync())
        log.close()
        self.disk.crash()
        self.assertEqual(content(self.open()), make_entries(1, 5))

    def test_no_sync_counts_once_another_has_failed(self) -> None:
        self.log.append(make_entries(1, 2, size=2000), None)
        first = self.start_sync(self.log)
        self.log.append(make_entries(2, 3), None)
        second = self.start_sync(self.log)
        self.disk.sync_fails = True
        with self.assertRaises(SyncFailed):
            self.log.set_identity(Identity(1, 2, 3))
        self.disk.sync_fails = False
        self.clock.pump([1.0, 1.0, 1.0])
        self.failureResultOf(first, SyncFailed)
        self.failureResultOf(second, SyncFailed)

    def test_a_segment_that_cannot_be_synced_ends_the_log(self) -> None:
        self.log.append(make_entries(1, 2, size=2000), None)
        self.log.append(make_entries(2, 3, size=3000), None)
        self.assertEqual(len(self.segments()), 2)

        def broken(disk: SimulatedFileSystem, path: str) -> Deferred[None]:
            return fail(SyncFailed(f"could not sync {path}"))

        self.patch(SimulatedFileSystem, "sync_directory_later", broken)
        self.failureResultOf(self.log.sync(), SyncFailed)
        self.clock.advance(1.0)
        self.assertRaises(LogClosed, self.log.append, make_entries(3, 4), None)

    def test_those_who_wait_hear_that_the_log_was_closed(self) -> None:
        self.log.append(make_entries(1, 2), None)
        first = self.start_sync(self.log)
        self.log.append(make_entries(2, 3), None)
        second = self.start_sync(self.log)
        self.log.close()
        self.clock.pump([1.0, 1.0])
        self.failureResultOf(first, LogClosed)
        self.failureResultOf(second, LogClosed)

    def test_a_closed_log_takes_nothing(self) -> None:
        self.log.close()
        self.assertRaises(LogClosed, self.log.append, make_entries(1, 2), None)
        self.failureResultOf(self.log.sync(), LogClosed)


class FullDiskTests(LogTestCase):
    """No space: nothing is half done, and all goes on once there is some."""

    def fill(self) -> int:
        """Append until the disk refuses; the first index that it refused."""
        self.log = self.open()
        self.disk.space = 0
        index = 1
        try:
            while True:
                self.write(self.log, make_entries(index, index + 1, size=100))
                index += 1
        except DiskFull:
            return index

    def test_a_refused_append_changes_nothing(self) -> None:
        index = self.fill()
        before = (content(self.log), self.log.hard_state, self.log.size_bytes)
        self.disk.space = 0
        with self.assertRaises(DiskFull):
            self.log.append(make_entries(index - 1, index + 5, 2, 500), STATE)
        self.assertEqual(
            (content(self.log), self.log.hard_state, self.log.size_bytes), before
        )
        log = self.reopen(self.log)
        self.assertEqual(content(log), make_entries(1, index, size=100))
        self.assertEqual(log.hard_state, HardState())

    def test_appending_goes_on_once_there_is_space(self) -> None:
        index = self.fill()
        self.disk.space = None
        self.write(self.log, make_entries(index, index + 50, size=100))
        log = self.reopen(self.log)
        self.assertEqual(content(log), make_entries(1, index + 50, size=100))

    def test_a_member_can_still_vote(self) -> None:
        self.segment_bytes = 16 << 10
        self.fill()
        self.disk.space = 0
        self.write(self.log, [], STATE)
        self.log.set_identity(Identity(1, 2, 3, removed=True))
        log = self.restart()
        self.assertEqual(log.hard_state, STATE)
        self.assertEqual(log.identity, Identity(1, 2, 3, removed=True))

    def test_the_reserve_is_freed_and_made_again(self) -> None:
        reserve = f"{DIRECTORY}/reserve"
        index = self.fill()
        self.assertFalse(self.disk.exists(reserve))
        self.assertEqual(self.disk.space, RESERVE_BYTES)
        self.log.compact(index - 1)
        self.assertEqual(self.disk.space, 0)
        self.assertTrue(self.disk.exists(reserve))

    def test_a_reserve_that_does_not_fit_is_not_left_half_made(self) -> None:
        index = self.fill()
        self.disk.space = RESERVE_BYTES - 1
        self.log.compact(index - 1)
        self.assertFalse(self.disk.exists(f"{DIRECTORY}/reserve"))
        self.assertEqual(self.disk.space, RESERVE_BYTES - 1)

    def test_a_reset_needs_space(self) -> None:
        index = self.fill()
        self.disk.space = 0
        with self.assertRaises(DiskFull):
            self.log.reset(1000, 2, STATE)
        self.assertEqual(self.log.hard_state, HardState())
        self.assertEqual(self.log.last_index(), index - 1)
        self.disk.space = None
        self.log.reset(1000, 2, STATE)
        self.assertEqual(self.reopen(self.log).last_index(), 1000)

    def test_a_member_starts_on_a_full_disk(self) -> None:
        index = self.fill()
        self.log.close()
        self.disk.space = 0
        log = self.open()
        self.assertEqual(content(log), make_entries(1, index, size=100))
        self.assertEqual(self.disk.list(DIRECTORY).count("reserve"), 0)

    def test_no_log_is_made_on_a_full_disk(self) -> None:
        self.disk.space = 0
        with self.assertRaises(DiskFull):
            self.open()
        self.assertEqual(self.segments(), [])
        self.disk.space = None
        self.assertEqual(content(self.open()), [])

    def test_a_write_refused_halfway_ends_the_log(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 3))
        real = SimulatedFile.write

        def write(file: SimulatedFile, offset: int, data: bytes) -> None:
            real(file, offset, data[: len(data) // 2])
            raise DiskFull("no space on the disk")

        self.patch(SimulatedFile, "write", write)
        with self.assertRaises(DiskFull):
            log.append(make_entries(3, 5), None)
        self.assertRaises(LogClosed, log.append, make_entries(3, 5), None)
