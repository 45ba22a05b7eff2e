"""What a crash may take, and what it may not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, evolve, field
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from kvdb.raft.messages import Entry, HardState
from kvdb.simulation.filesystem import Crashed
from kvdb.storage.log import Identity, LogClosed
from kvdb.storage.segment import CorruptLog
from tests.storage.disk import DIRECTORY, LogTestCase, content, make_entries

SEEDS = range(3)


class TornTailTests(LogTestCase):
    """The end of the log, which no sync has seen."""

    def written(self) -> tuple[str, int, int]:
        """The segment's path, where its last batch begins, and where it ends."""
        log = self.open()
        self.write(log, make_entries(1, 4), HardState(1, 1, 0))
        self.write(log, make_entries(4, 6))
        start = log.size_bytes
        self.write(log, make_entries(6, 7, size=40), HardState(2, 1, 3))
        end = log.size_bytes
        log.close()
        return f"{DIRECTORY}/{self.segments()[0]}", start, end

    def damage(self, harm: Callable[[bytes, int], bytes]) -> None:
        """Do C{harm} to the last batch at each of its bytes, and open the log."""
        path, start, end = self.written()
        file = self.disk.open(path)
        whole = file.read(0, file.size())
        for offset in range(end - start):
            file.write(0, whole)
            harmed = harm(whole[start:end], offset)
            file.write(start, harmed)
            log = self.open()
            expected = make_entries(1, 6)
            self.assertEqual(content(log)[:5], expected)
            if harmed != whole[start:end]:
                self.assertEqual(content(log)[5:], [])
            # Whole records of a torn batch may stay: nobody was told of them.
            self.assertIn(log.hard_state, [HardState(1, 1, 0), HardState(2, 1, 3)])
            self.write(log, make_entries(6, 8, term=3))
            log = self.reopen(log)
            self.assertEqual(content(log), expected + make_entries(6, 8, term=3))
            log.close()

    def test_a_tail_torn_at_any_byte_is_repaired(self) -> None:
        def cut(batch: bytes, at: int) -> bytes:
            # A batch ends in dots, so each cut takes something.
            return batch[:at] + bytes(len(batch) - at)

        self.damage(cut)

    def test_a_tail_whose_beginning_is_missing_is_repaired(self) -> None:
        self.damage(lambda batch, at: bytes(at + 1) + batch[at + 1 :])

    def test_what_stood_behind_a_tear_does_not_come_back(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 2))
        start = log.size_bytes
        log.append(make_entries(2, 3), None)
        end = log.size_bytes
        log.append(make_entries(3, 4), None)
        log.close()
        file = self.disk.open(f"{DIRECTORY}/{self.segments()[0]}")
        file.write(start, bytes(end - start))
        log = self.open()
        self.assertEqual(content(log), make_entries(1, 2))
        self.write(log, make_entries(2, 3, term=2))
        log = self.reopen(log)
        self.assertEqual(content(log), [*make_entries(1, 2), *make_entries(2, 3, 2)])

    def test_a_value_that_looks_like_a_batch_does_not_mislead(self) -> None:
        log = self.open()
        self.write(log, make_entries(1, 2))
        start = log.size_bytes
        other = log._segments[0]
        claim = evolve(other, durable=1 << 40).encode_batch([])
        self.write(log, [Entry(1, 2, data=b"." * 600 + claim)])
        log.close()
        file = self.disk.open(f"{DIRECTORY}/{self.segments()[0]}")
        file.write(start, bytes(100))
        self.assertEqual(content(self.open()), make_entries(1, 2))


class CorruptionTests(LogTestCase):
    """What a sync has seen must be there."""

    def written(self) -> tuple[str, int]:
        """The path of the segment, and up to where it is vouched for."""
        log = self.open()
        log.set_identity(Identity(1, 2, 3))
        self.write(log, make_entries(1, 4), HardState(1, 1, 0))
        self.write(log, make_entries(4, 6))
        synced = log.size_bytes
        self.write(log, make_entries(6, 7))
        log.close()
        return f"{DIRECTORY}/{self.segments()[0]}", synced

    def test_a_flipped_bit_anywhere_in_what_was_synced_is_corruption(self) -> None:
        path, synced = self.written()
        random = Random(5)
        for offset in range(synced):
            bit = random.randrange(8)
            self.disk.flip_bit(path, offset, bit)
            with self.assertRaises(CorruptLog) as caught:
                self.open()
            self.assertEqual(caught.exception.path, path)
            self.assertLessEqual(caught.exception.offset, offset)
            self.assertLess(offset - caught.exception.offset, 60)
            self.assertIn(f"offset {caught.exception.offset} ", str(caught.exception))
            self.assertIn(path, str(caught.exception))
            self.disk.flip_bit(path, offset, bit)
        self.assertEqual(len(content(self.open())), 6)

    def test_a_refused_log_is_left_as_it_was(self) -> None:
        path, _ = self.written()
        self.disk.flip_bit(path, 100, 1)
        file = self.disk.open(path)
        before = file.read(0, file.size())
        self.assertRaises(CorruptLog, self.open)
        self.assertEqual(file.read(0, file.size()), before)

    def test_a_segment_that_is_not_the_last_has_no_torn_end(self) -> None:
        log = self.open()
        while len(self.segments()) < 2:
            start = log.size_bytes
            self.write(log, make_entries(log.last_index() + 1, log.last_index() + 2))
        log.close()
        path = f"{DIRECTORY}/{self.segments()[0]}"
        # In the last batch, that nothing in its own segment vouches for.
        self.disk.flip_bit(path, start - 5, 0)
        with self.assertRaisesRegex(CorruptLog, path):
            self.open()


Moment = tuple[list[Entry], HardState]


@define(slots=True)
class Promises:
    """
    What a log must hold after a crash.

    @ivar moments: what it held after each record that was ever written.
    @ivar synced: the moment that a sync last vouched for.
    @ivar cut: up to where it was told to let go.
    """

    moments: list[Moment] = field(factory=lambda: [([], HardState())])
    synced: int = 0
    cut: int = 0

    def entries(self) -> list[Entry]:
        return self.moments[-1][0]

    def append(self, new: list[Entry], state: HardState) -> None:
        entries, before = self.moments[-1]
        if state != before:
            self.moments.append((entries, state))
        for entry in new:
            entries = [e for e in entries if e.index < entry.index] + [entry]
            self.moments.append((entries, state))

    def ask(self, done: Deferred[None]) -> Deferred[Any]:
        """C{done} vouches for all that was written when it was asked for."""
        moment = len(self.moments) - 1

        def note(_: None) -> None:
            self.synced = max(self.synced, moment)

        return done.addCallbacks(note, lambda lost: lost.trap(Crashed, LogClosed))


class Workload(LogTestCase):
    """A sequence of writes, always the same, that a crash cuts anywhere."""

    def run_workload(self, promises: Promises) -> None:
        random = Random(11)
        log = self.open()
        log.set_identity(Identity(1, 2, 3))
        state = HardState()
        for step in range(60):
            term = 1 + step // 12
            low = log.last_index() + 1
            if random.random() < 0.15 and low - log.first_index() > 4:
                low -= random.randrange(1, 4)
            new = make_entries(low, low + random.randrange(3), term, 300)
            if random.random() < 0.3 or term > state.term:
                state = HardState(term, 1, step)
            promises.append(new, state)
            log.append(new, state)
            if random.random() < 0.6:
                promises.ask(log.sync())
            if random.random() < 0.7:
                self.clock.advance(self.disk.sync_delay)
            if step % 17 == 16:
                done = promises.ask(log.sync())
                self.clock.pump([self.disk.sync_delay] * 3)
                self.successResultOf(done)
                promises.cut = log.last_index() - 6
                log.compact(promises.cut)
        log.close()

    def check(self, promises: Promises) -> None:
        log = self.open()
        found, first = content(log), log.first_index()
        self.assertLessEqual(first, promises.cut + 1)
        possible = [
            ([entry for entry in entries if entry.index >= first], state)
            for entries, state in promises.moments[promises.synced :]
        ]
        self.assertIn((found, log.hard_state), possible)
        if promises.synced:
            self.assertEqual(log.identity, Identity(1, 2, 3))
        # It goes on from there.
        behind = log.last_index() + 1
        self.write(log, make_entries(behind, behind + 2, term=99))
        log = self.restart()
        self.assertEqual(content(log), found + make_entries(behind, behind + 2, 99))
        log.close()


class EveryOperationTests(Workload):
    """A crash at each operation of the disk."""

    def test_what_was_synced_is_there_and_nothing_is_invented(self) -> None:
        self.make_disk(0)
        self.disk.sync_delay = 0.01
        self.run_workload(Promises())
        total = self.disk.operations
        self.assertGreater(len(self.segments()), 1)
        self.assertGreater(total, 100)
        for seed in SEEDS:
            for operation in range(1, total + 1):
                self.make_disk(seed * 100_000 + operation)
                self.disk.sync_delay = 0.01
                self.disk.crash_at = operation
                promises = Promises()
                with contextlib.suppress(Crashed, LogClosed):
                    self.run_workload(promises)
                self.disk.crash()
                self.check(promises)


class ModelTests(LogTestCase):
    """Any sequence of calls, against a list."""

    segment_bytes = 1 << 10
    recent_bytes = 300

    @settings(deadline=None, max_examples=300, suppress_health_check=list(HealthCheck))
    @given(
        seed=st.integers(0, 2**32),
        steps=st.lists(
            st.tuples(
                st.sampled_from(
                    ["append"] * 4
                    + ["sync", "wait", "vote", "compact", "reset", "crash", "reopen"]
                ),
                st.integers(0, 9),
                st.integers(0, 9),
            ),
            min_size=10,
            max_size=60,
        ),
    )
    def test_the_log_is_a_list_that_crashes_cut_behind_what_was_synced(
        self, seed: int, steps: list[tuple[str, int, int]]
    ) -> None:
        self.make_disk(seed)
        self.disk.sync_delay = 0.01
        log = self.open()
        promises = Promises()
        for term, (action, one, two) in enumerate(steps, 1):
            state = promises.moments[-1][1]
            if action == "append":
                low = max(log.first_index(), log.last_index() + 1 - max(0, one - 6))
                new = make_entries(low, low + two, term, size=20 + 50 * one)
                promises.append(new, state)
                log.append(new, None)
            elif action == "vote":
                state = HardState(term, one, two)
                promises.append([], state)
                log.append([], state)
            elif action == "sync":
                promises.ask(log.sync())
            elif action == "wait":
                self.clock.advance(0.01)
            elif action == "compact":
                # As the node does: only what is durable.
                done = promises.ask(log.sync())
                self.clock.pump([0.01, 0.01])
                self.successResultOf(done)
                index = max(log.first_index() - 1, log.last_index() - 3 * one)
                promises.cut = max(promises.cut, index)
                log.compact(index)
            elif action == "reset":
                index = log.last_index() + 1 + one - min(4, log.last_index())
                log.reset(index, term, state)
                promises = Promises([([], state)], cut=index)
            elif action == "reopen":
                log = self.reopen(log)
                self.assertEqual(log.hard_state, state)
                promises.synced = len(promises.moments) - 1
            else:
                log = self.restart()
            first = log.first_index()
            found = (content(log), log.hard_state)
            self.assertLessEqual(first, promises.cut + 1)
            possible = [
                ([entry for entry in entries if entry.index >= first], kept)
                for entries, kept in promises.moments
            ]
            if action == "crash":
                self.assertIn(found, possible[promises.synced :])
                self.assertEqual(log.term(first - 1) > 0, first > 1)
                # What came back is durable, and all that there is.
                at = possible.index(found, promises.synced)
                promises.moments = [promises.moments[at]]
                promises.synced = 0
            else:
                self.assertEqual(found, possible[-1])
