"""What a crash may take, and what it may not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import define, evolve, field, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from kvdb.raft.messages import Entry, HardState
from kvdb.simulation.filesystem import Crashed
from kvdb.storage.journal import LogClosed
from kvdb.storage.log import Identity, Log
from kvdb.storage.records import RecordType, encode_record
from kvdb.storage.segment import BATCH, CorruptLog
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
                self.assertEqual(log.hard_state, HardState(1, 1, 0))
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
        claim = encode_record(RecordType.BATCH, BATCH.pack(1 << 40, 0))
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


@frozen(slots=True)
class Moment:
    """
    What a log held once.

    @ivar cut: up to where it may have let go.
    """

    entries: list[Entry]
    state: HardState
    cut: int = 0

    def is_in(self, log: Log) -> bool:
        """Whether C{log} is as it was then."""
        first = log.first_index()
        last = self.entries[-1].index if self.entries else self.cut
        return (
            first <= self.cut + 1
            and (log.last_index(), log.hard_state) == (last, self.state)
            and content(log) == [e for e in self.entries if e.index >= first]
        )


@define(slots=True)
class Promises:
    """
    What a log must hold after a crash.

    @ivar moments: what it held after each call that wrote to it.
    @ivar synced: the moment that a sync last vouched for.
    """

    moments: list[Moment] = field(factory=lambda: [Moment([], HardState())])
    synced: int = 0

    @property
    def state(self) -> HardState:
        return self.moments[-1].state

    def append(self, new: list[Entry], state: HardState) -> None:
        before = self.moments[-1]
        entries = before.entries
        if new:
            entries = [e for e in entries if e.index < new[0].index] + new
        if new or state != before.state:
            self.moments.append(Moment(entries, state, before.cut))

    def reset(self, index: int, state: HardState) -> None:
        self.moments.append(Moment([], state, index))

    def compact(self, index: int) -> None:
        """Once all is synced."""
        assert self.synced == len(self.moments) - 1
        before = self.moments[-1]
        self.moments[-1] = evolve(before, cut=max(before.cut, index))

    def keep(self, log: Log) -> None:
        """
        After a crash: C{log} must be what it was at some moment that no sync
        has left behind, and this is what is durable now.
        """
        kept = [m for m in self.moments[self.synced :] if m.is_in(log)]
        assert kept, (content(log), log.hard_state, self.moments[self.synced :])
        self.moments = [kept[-1]]
        self.synced = 0

    def ask(self, done: Deferred[None]) -> Deferred[Any]:
        """C{done} vouches for all that was written when it was asked for."""
        moment = len(self.moments) - 1

        def note(_: None) -> None:
            self.synced = max(self.synced, moment)

        return done.addCallbacks(note, lambda lost: lost.trap(Crashed, LogClosed))


class EveryOperationTests(LogTestCase):
    """A sequence of writes, always the same; a crash at each operation of it."""

    def run_workload(self, promises: Promises) -> None:
        random = Random(11)
        log = self.open()
        log.set_identity(Identity(1, 2, 3))
        for step in range(70):
            term = 1 + step // 12
            state = promises.state
            low = log.last_index() + 1
            if random.random() < 0.15 and low - log.first_index() > 4:
                low -= random.randrange(1, 4)
            new = make_entries(low, low + random.randrange(3), term, 400)
            if random.random() < 0.3 or term > state.term:
                # Committed together with the entries, as a follower does.
                commit = low + len(new) - 1 if step % 5 == 0 else state.commit
                state = HardState(term, 1, max(commit, state.commit))
            if new and new[0].index <= promises.state.commit:
                continue
            promises.append(new, state)
            log.append(new, state)
            if random.random() < 0.6:
                promises.ask(log.sync())
            if random.random() < 0.7:
                self.clock.advance(self.disk.sync_delay)
            if step == 40:
                index = log.last_index() + 10
                state = HardState(term, 1, index)
                promises.reset(index, state)
                log.reset(index, term, state)
            if step % 17 == 16:
                done = promises.ask(log.sync())
                self.clock.pump([self.disk.sync_delay] * 3)
                self.successResultOf(done)
                if promises.synced < len(promises.moments) - 1:
                    break  # the power went during the sync
                cut = max(log.first_index() - 1, log.last_index() - 6)
                promises.compact(cut)
                log.compact(cut)
        log.close()

    def check(self, promises: Promises) -> None:
        log = self.open()
        if promises.synced:
            self.assertEqual(log.identity, Identity(1, 2, 3))
        promises.keep(log)
        self.assertLessEqual(log.hard_state.commit, log.last_index())
        # It goes on from there.
        behind = log.last_index() + 1
        found = content(log)
        self.write(log, make_entries(behind, behind + 2, term=99))
        log = self.restart()
        self.assertEqual(content(log), found + make_entries(behind, behind + 2, 99))
        log.close()

    def test_what_was_synced_is_there_and_nothing_is_invented(self) -> None:
        self.make_disk(0)
        self.disk.sync_delay = 0.01
        promises = Promises()
        self.run_workload(promises)
        self.assertGreater(len(promises.moments), 40)
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
            state = promises.state
            if action == "append":
                kept_from = max(log.first_index() - 1, state.commit)
                low = max(kept_from + 1, log.last_index() + 1 - max(0, one - 6))
                new = make_entries(low, low + two, term, size=20 + 50 * one)
                promises.append(new, state)
                log.append(new, None)
            elif action == "vote":
                commit = max(state.commit, log.last_index() - two)
                state = HardState(term, one, commit)
                promises.append([], state)
                log.append([], state)
            elif action == "sync":
                promises.ask(log.sync())
            elif action == "wait":
                self.clock.advance(0.01)
            elif action == "compact":
                # As the node does: only what is durable.
                done = promises.ask(log.sync())
                self.clock.pump([0.01] * 3)
                self.successResultOf(done)
                index = max(log.first_index() - 1, log.last_index() - 3 * one)
                promises.compact(index)
                log.compact(index)
            elif action == "reset":
                index = max(1, log.last_index() + 1 + one - 4)
                state = HardState(term, 0, index)
                promises.reset(index, state)
                log.reset(index, term, state)
            elif action == "reopen":
                log = self.reopen(log)
                promises.synced = len(promises.moments) - 1
                promises.keep(log)
            else:
                log = self.restart()
                promises.keep(log)
                self.assertLessEqual(log.hard_state.commit, log.last_index())
                self.assertEqual(
                    log.term(log.first_index() - 1) > 0, log.first_index() > 1
                )
            assert promises.moments[-1].is_in(log)
