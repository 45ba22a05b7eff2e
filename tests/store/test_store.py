"""What commands do to keys, what was, and the same request twice."""

from __future__ import annotations

from kvdb.raft.messages import ConfChangeType
from kvdb.store import outcomes
from kvdb.store import store as store_module
from kvdb.store.commands import (
    Compact,
    Condition,
    ConditionKind,
    Delete,
    Outcome,
    OutcomeStatus,
    Put,
    Reason,
    Record,
    RegisterInstance,
)
from kvdb.store.encoding import Event, Operation, UnknownCommand
from kvdb.store.history import MARK_BYTES
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Compacted, Store, UnknownFormat
from tests.store.entries import TIME_MS, Changer, bootstrap, do, entry, together
from tests.store.suite import OnRocks, StoreTestCase

DONE, NOT_FOUND = OutcomeStatus.DONE, OutcomeStatus.NOT_FOUND
FAILED, REFUSED = OutcomeStatus.CONDITION_FAILED, OutcomeStatus.REFUSED

LEARN = ConfChangeType.ADD_LEARNER_NODE


class WritesTests(StoreTestCase):
    """What commands do to keys."""

    def test_a_key_has_the_value_put_last(self) -> None:
        self.assertIsNone(self.store.get(b"k"))
        self.do(Put(b"k", b"one"), Put(b"k", b"two", lease=4), Put(b"l", b""))
        self.assertEqual(self.store.get(b"k"), Record(b"two", 1, 2, 2, 4))
        self.assertEqual(self.store.get(b"l"), Record(b"", 3, 3, 1))
        self.assertIsNone(self.store.get(b""))

    def test_each_change_takes_a_revision(self) -> None:
        outcomes = self.do(Put(b"a", b""), Put(b"b", b""), Delete(b"a"))
        self.assertEqual([outcome.revision for outcome in outcomes], [1, 2, 3])
        self.assertEqual(self.store.revision, 3)

    def test_a_deleted_key_begins_anew(self) -> None:
        self.do(Put(b"k", b"1"), Put(b"k", b"2"), Delete(b"k"))
        self.assertIsNone(self.store.get(b"k"))
        self.assertEqual(self.one(Put(b"k", b"3")), (DONE, 4))
        self.assertEqual(self.store.get(b"k"), Record(b"3", 4, 4, 1))

    def test_deleting_what_is_not_there_takes_no_revision(self) -> None:
        self.assertEqual(self.one(Delete(b"k")), (NOT_FOUND, 0))
        self.assertEqual(self.store.revision, 0)

    def test_conditions(self) -> None:
        for write in (
            lambda condition: Put(b"k", b"new", condition),
            lambda condition: Delete(b"k", condition),
        ):
            exists = Condition(ConditionKind.EXISTS)
            absent = Condition(ConditionKind.ABSENT)
            self.do(Delete(b"k"))
            before = self.store.revision
            for condition in (
                exists,
                Condition(ConditionKind.REVISION, 1),
                Condition(ConditionKind.REVISION, 0),
            ):
                self.assertEqual(self.one(write(condition)), (FAILED, 0))
            self.do(Put(b"k", b"old"))
            now = before + 1
            for condition in (absent, Condition(ConditionKind.REVISION, now + 1)):
                self.assertEqual(self.one(write(condition)), (FAILED, now))
            self.assertEqual(self.store.revision, now)
            self.assertEqual(self.store.get(b"k"), Record(b"old", now, now, 1))
            right = Condition(ConditionKind.REVISION, now)
            self.assertEqual(self.one(write(right)), (DONE, now + 1))
            self.do(Put(b"k", b"old"))
            self.assertEqual(self.one(write(exists)), (DONE, now + 3))
        self.assertEqual(self.one(Put(b"k", b"", absent)), (DONE, now + 4))
        self.assertEqual(self.one(Delete(b"x", absent)), (NOT_FOUND, 0))

    def test_a_batch_sees_what_it_did_itself(self) -> None:
        at_2 = Condition(ConditionKind.REVISION, 2)
        outcomes = self.do(
            Put(b"k", b"1"), Put(b"k", b"2"), Put(b"k", b"3", at_2), Delete(b"k", at_2)
        )
        self.assertEqual([o.status for o in outcomes], [DONE, DONE, DONE, FAILED])

    def test_an_entry_that_asks_for_nothing_counts(self) -> None:
        self.assertEqual(self.store.apply([entry(2, None)]), [])
        self.assertEqual((self.store.applied_index, self.store.applied_term), (2, 1))

    def test_the_commands_of_an_entry_are_carried_out_in_order(self) -> None:
        at_2 = Condition(ConditionKind.REVISION, 2)
        settled = self.store.apply(
            [
                together(
                    2,
                    Put(b"k", b"1"),
                    Put(b"k", b"2"),
                    Put(b"k", b"3", at_2),
                    Delete(b"other"),
                    Put(b"last", b"4"),
                )
            ]
        )
        self.assertEqual(
            [sequence for _, sequence, _ in settled], list(range(200, 205))
        )
        self.assertEqual(
            [(o.status, o.revision) for _, _, o in settled],
            [(DONE, 1), (DONE, 2), (DONE, 3), (OutcomeStatus.NOT_FOUND, 0), (DONE, 4)],
        )
        self.assertEqual(self.store.applied_index, 2)
        self.assertEqual(
            [(r, e.key) for r, e in self.store.events(0)],
            [(1, b"k"), (2, b"k"), (3, b"k"), (4, b"last")],
        )
        self.assertEqual([r for r, _ in self.store.events(2)], [3, 4])

    def test_an_entrys_history_goes_once_all_of_it_is_forgotten(self) -> None:
        self.store.apply([together(2, *(Put(b"k", b"%d" % n) for n in range(5)))])
        self.store.apply([together(3, Put(b"k", b"5"), Delete(b"k"))])
        self.one(Compact(3))
        self.assertFalse(self.store.compact_slice(100))
        self.assertEqual([r for r, _ in self.store.events(3)], [4, 5, 6, 7])
        for revision in (3, 4, 5, 6):
            record = self.store.get(b"k", revision)
            self.assertEqual(record and record.value, b"%d" % (revision - 1))
        self.one(Compact(5))
        self.assertFalse(self.store.compact_slice(100))
        self.assertEqual([r for r, _ in self.store.events(5)], [6, 7])
        self.one(Compact(7))
        self.assertFalse(self.store.compact_slice(100))
        left = [key for key, _ in self.store.engine.scan(b"h", b"i")]
        left += [key for key, _ in self.store.engine.scan(b"v", b"w")]
        self.assertEqual(left, [])

    def test_entries_come_in_order(self) -> None:
        with self.assertRaisesRegex(AssertionError, "entry 4 applied as 2"):
            self.store.apply([entry(4, None)])

    def test_a_later_releases_command_is_not_passed_over(self) -> None:
        strange = entry(2, Compact(1))
        strange.data = strange.data[:28] + b"\x63" + strange.data[29:]
        self.assertRaises(UnknownCommand, self.store.apply, [strange])

    def test_a_range_is_in_order_and_limited(self) -> None:
        self.do(*[Put(key, key) for key in (b"b", b"a\0", b"c", b"a", b"\xff", b"")])
        found = list(self.store.range(b"a", b"c", 10))
        self.assertEqual([key for key, _ in found], [b"a", b"a\0", b"b"])
        self.assertEqual(found[1][1], Record(b"a\0", 2, 2, 1))
        self.assertEqual(
            [key for key, _ in self.store.range(b"", b"\xff\xff", 2)], [b"", b"a"]
        )
        self.assertEqual(list(self.store.range(b"a", b"c", 0)), [])

    def test_all_is_there_after_reopening(self) -> None:
        self.do(Put(b"k", b"1"), Put(b"k", b"2"), Put(b"t", b"", idempotency_key=b"t"))
        self.do(RegisterInstance(1, 9), Compact(1))
        Changer(self.store).change(LEARN, 2, "http://b:1")
        before, digest = self.state(), self.store.digest()
        self.reopen()
        self.assertEqual(self.state(), before)
        self.assertEqual(self.store.digest(), digest)
        [again] = self.do(Put(b"t", b"", idempotency_key=b"t"))
        self.assertEqual(again, Outcome(DONE, 3))

    def state(self) -> tuple[object, ...]:
        store = self.store
        return (
            store.applied_index,
            store.applied_term,
            store.cluster_id,
            store.revision,
            store.compacted_revision,
            store.members,
            store.removed,
            store.conf_state,
            store.get(b"k"),
        )

    def test_a_store_of_a_later_release_is_refused(self) -> None:
        self.patch(store_module, "FORMAT_VERSION", 7)
        self.do(Put(b"k", b""))
        self.patch(store_module, "FORMAT_VERSION", 1)
        with self.assertRaisesRegex(UnknownFormat, "format 7.*reads 1"):
            self.store._load(self.store.engine)

    def test_size(self) -> None:
        self.do(Put(b"k", bytes(1000)))
        self.assertGreater(self.store.size_bytes, 1000)


class WritesOnRocksTests(OnRocks, WritesTests):
    """On the engine of real members."""


class HistoryTests(StoreTestCase):
    """What was."""

    def setUp(self) -> None:
        super().setUp()
        self.do(
            Put(b"k", b"1"),
            Put(b"k\0", b"2"),
            Put(b"k", b"3"),
            Delete(b"k"),
            Put(b"other", b"5"),
            Put(b"k", b"6"),
        )

    def values(self, key: bytes, low: int = 0) -> list[bytes | None]:
        found = []
        for revision in range(low, self.store.revision + 1):
            record = self.store.get(key, revision)
            found.append(None if record is None else record.value)
        return found

    def test_a_key_is_read_as_of_each_revision(self) -> None:
        self.assertEqual(self.values(b"k"), [None, b"1", b"1", b"3", None, None, b"6"])
        self.assertEqual(self.values(b"k\0"), [None, None] + 5 * [b"2"])
        self.assertEqual(self.store.get(b"k", 3), Record(b"3", 1, 3, 2))

    def test_the_future_is_not_known(self) -> None:
        with self.assertRaisesRegex(ValueError, "7 is in the future"):
            self.store.get(b"k", 7)

    def test_events_come_in_order(self) -> None:
        # Index 2 is that of the first command, as 1 is the bootstrap's.
        expected = [
            (1, Event(Operation.PUT, 0, TIME_MS + 2, b"k")),
            (2, Event(Operation.PUT, 0, TIME_MS + 3, b"k\0")),
            (3, Event(Operation.PUT, 1, TIME_MS + 4, b"k")),
            (4, Event(Operation.DELETE, 3, TIME_MS + 5, b"k")),
            (5, Event(Operation.PUT, 0, TIME_MS + 6, b"other")),
            (6, Event(Operation.PUT, 0, TIME_MS + 7, b"k")),
        ]
        self.assertEqual(list(self.store.events(0)), expected)
        self.assertEqual(list(self.store.events(4)), expected[4:])
        self.assertEqual(list(self.store.events(6)), [])

    def test_what_lies_below_a_compaction_is_refused(self) -> None:
        self.assertEqual(self.one(Compact(4)), (DONE, 4))
        for _ in range(2):
            self.assertRaisesRegex(Compacted, "begins at 4", self.store.get, b"k", 3)
            with self.assertRaisesRegex(Compacted, "begins at 4"):
                list(self.store.events(3))
            self.assertEqual(self.values(b"k", 4), [None, None, b"6"])
            self.assertEqual(self.values(b"k\0", 4), 3 * [b"2"])
            self.assertEqual([r for r, _ in self.store.events(4)], [5, 6])
            while self.store.compact_slice(1):
                pass

    def test_a_compaction_never_goes_back_or_beyond_the_newest(self) -> None:
        self.assertEqual(self.one(Compact(5)), (DONE, 5))
        self.assertEqual(self.one(Compact(2)), (DONE, 5))
        self.assertEqual(self.one(Compact(900)), (DONE, 6))
        self.assertEqual(self.store.revision, 6)

    def test_a_sweep_frees_what_cannot_be_read(self) -> None:
        self.do(Compact(6))
        slices = 1
        before = len(self.keys(b"v")) + len(self.keys(b"h"))
        while self.store.compact_slice(1):
            slices += 1
            now = len(self.keys(b"v")) + len(self.keys(b"h"))
            self.assertLess(now, before)
            before = now
        self.assertEqual(slices, 6)
        self.assertEqual((self.keys(b"v"), self.keys(b"h")), ([], []))
        self.assertFalse(self.store.compact_slice(1))
        self.assertEqual(self.store.get(b"k"), Record(b"6", 6, 6, 1))
        self.assertEqual(len(self.keys(b"k")), 3)

    def test_a_sweep_keeps_what_is_above(self) -> None:
        self.do(Compact(3))
        self.assertFalse(self.store.compact_slice(100))
        self.assertEqual(len(self.keys(b"h")), 3)
        self.assertEqual(self.values(b"k", 3), [b"3", None, None, b"6"])

    def test_a_sweep_goes_on_after_reopening(self) -> None:
        self.do(Compact(6))
        self.assertTrue(self.store.compact_slice(2))
        self.reopen()
        self.assertTrue(self.store.compact_slice(3))
        self.assertFalse(self.store.compact_slice(3))
        self.assertEqual(self.keys(b"h"), [])


class HistoryBytesTests(StoreTestCase):
    """How many bytes of history there are, and where it is cut for fewer."""

    def test_what_is_replaced_and_deleted_counts(self) -> None:
        mebibyte = bytes(MARK_BYTES)
        self.do(*[Put(b"k", mebibyte)] * 5)
        self.assertEqual(self.store.history_bytes() // MARK_BYTES, 3)
        self.do(Delete(b"k"))
        self.assertEqual(self.store.history_bytes() // MARK_BYTES, 4)
        self.do(*[Put(b"other %d" % number, mebibyte) for number in range(3)])
        self.assertEqual(self.store.history_bytes() // MARK_BYTES, 4)

    def test_it_is_cut_to_what_fits(self) -> None:
        self.do(*[Put(b"k", bytes(MARK_BYTES // 8))] * 101)
        for mebibytes in (10, 5, 1, 0):
            target = self.store.history_within(mebibytes * MARK_BYTES)
            kept = (self.store.revision - target) / 8
            self.assertTrue(mebibytes - 1 <= kept <= max(mebibytes, 1), kept)
            self.do(Compact(target))
            self.assertLessEqual(self.store.history_bytes(), mebibytes * MARK_BYTES)

    def test_a_sweep_removes_marks(self) -> None:
        self.do(*[Put(b"k", bytes(MARK_BYTES))] * 10)
        self.assertEqual(len(self.keys(b"b")), 9)
        self.do(Compact(7))
        while self.store.compact_slice(2):
            pass
        self.assertEqual(len(self.keys(b"b")), 3)

    def test_it_is_known_after_reopening_and_however_entries_come(self) -> None:
        commands = [Put(b"k", bytes(MARK_BYTES // 3))] * 20
        self.do(*commands)
        counted = self.store.history_bytes()
        digest = self.store.digest()
        self.reopen()
        self.assertEqual(self.store.history_bytes(), counted)
        other = Store.open(MemoryEngines())
        bootstrap(other)
        for command in commands:
            do(other, command)
        self.assertEqual(other.history_bytes(), counted)
        self.assertEqual(other.digest(), digest)

    def test_history_that_was_not_counted_is_left_out(self) -> None:
        """As it was written by the release before."""
        self.do(*[Put(b"k", bytes(MARK_BYTES))] * 5)
        state = self.store.engine.get(b"ms")
        assert state is not None
        changes: dict[bytes, bytes | None] = dict.fromkeys(self.keys(b"b"))
        self.store.engine.write({**changes, b"ms": state[:-8] + bytes(8)})
        self.reopen()
        self.assertEqual(self.store.history_bytes(), 0)
        self.assertEqual(self.store.history_within(0), 0)
        self.do(*[Put(b"k", bytes(MARK_BYTES))] * 3)
        self.assertEqual(self.store.history_bytes() // MARK_BYTES, 2)


class HistoryBytesOnRocksTests(OnRocks, HistoryBytesTests):
    """The same."""


class HistoryOnRocksTests(OnRocks, HistoryTests):
    """On the engine of real members."""


class RetriesTests(StoreTestCase):
    """The same request twice."""

    def test_a_retry_gets_the_first_outcome_and_changes_nothing(self) -> None:
        put = Put(b"k", b"1", idempotency_key=b"t")
        self.assertEqual(self.do(put, Put(b"k", b"2"), put)[2], Outcome(DONE, 1))
        self.assertEqual(self.do(put), [Outcome(DONE, 1)])
        self.assertEqual(self.store.get(b"k"), Record(b"2", 1, 2, 2))
        self.assertEqual(self.store.revision, 2)

    def test_failures_are_outcomes_too(self) -> None:
        failing = Put(b"k", b"", Condition(ConditionKind.EXISTS), b"a")
        absent = Delete(b"k", idempotency_key=b"b")
        first = self.do(failing, absent)
        self.do(Put(b"k", b"now there"))
        self.assertEqual(self.do(failing, absent), first)
        self.assertEqual([o.status for o in first], [FAILED, NOT_FOUND])

    def test_another_request_with_the_same_key_is_refused(self) -> None:
        self.do(Put(b"k", b"1", idempotency_key=b"t"))
        for other in (
            Put(b"k", b"2", idempotency_key=b"t"),
            Put(b"l", b"1", idempotency_key=b"t"),
            Delete(b"k", idempotency_key=b"t"),
        ):
            [outcome] = self.do(other)
            self.assertEqual((outcome.status, outcome.revision), (REFUSED, 0))
            self.assertEqual(outcome.reason, Reason.OTHER_REQUEST)
        self.assertEqual(self.store.revision, 1)

    def test_the_oldest_is_forgotten_first(self) -> None:
        self.patch(outcomes, "MAX_IDEMPOTENCY_KEYS", 3)
        puts = [Put(b"k", b"", idempotency_key=b"%d" % n) for n in range(5)]
        self.do(*puts[:4])
        self.do(puts[4])
        self.assertEqual(self.keys(b"i"), [b"i2", b"i3", b"i4"])
        self.assertEqual(len(self.keys(b"j")), 3)
        self.assertEqual([o.revision for o in self.do(*puts[2:])], [3, 4, 5])
        self.assertEqual(self.one(puts[0]), (DONE, 6))
        self.assertEqual(self.keys(b"i"), [b"i0", b"i3", b"i4"])

    def test_the_bound_holds_after_reopening(self) -> None:
        self.patch(outcomes, "MAX_IDEMPOTENCY_KEYS", 2)
        for number in range(6):
            self.do(Put(b"k", b"", idempotency_key=b"%d" % number))
            self.reopen()
        self.assertEqual(self.keys(b"i"), [b"i4", b"i5"])


class RetriesOnRocksTests(OnRocks, RetriesTests):
    """On the engine of real members."""
