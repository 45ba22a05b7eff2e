"""Records that are remembered are those of the engine, and bounded."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.store.commands import Command, Delete, Put
from kvdb.store.encoding import decode_record
from kvdb.store.memory import MemoryEngines
from kvdb.store.recent import OVERHEAD_BYTES, RecentRecords
from kvdb.store.store import Store
from tests.store.entries import bootstrap, do

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", b"e"])
COMMANDS = st.one_of(
    st.builds(Put, KEYS, st.binary(max_size=9)), st.builds(Delete, KEYS)
)


class RecentTests(SynchronousTestCase):
    """L{RecentRecords}, alone and in a store."""

    def test_what_is_used_stays_and_the_rest_goes(self) -> None:
        recent = RecentRecords(max_bytes=8 * (OVERHEAD_BYTES + 2))
        recent.put(b"x", b"1")
        for number in range(100):
            recent.put(b"%c" % number, b"v")
            self.assertEqual(recent.get(b"x"), b"1")
            self.assertLessEqual(len(recent), 9)
        self.assertIsNone(recent.get(b"\0"))

    def test_what_was_deleted_is_not_known_in_either_generation(self) -> None:
        recent = RecentRecords(max_bytes=4 * (OVERHEAD_BYTES + 2))
        for number in range(9):
            recent.put(b"x", b"1")
            recent.put(b"%d" % number, b"v")
            recent.discard(b"x")
            self.assertIsNone(recent.get(b"x"))

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.lists(COMMANDS, max_size=6), max_size=12), st.integers(0, 2000))
    def test_a_store_answers_as_its_engine_does(
        self, batches: list[list[Command]], max_bytes: int
    ) -> None:
        store = Store.open(MemoryEngines())
        store.recent.max_bytes = max_bytes
        bootstrap(store)
        for batch in batches:
            do(store, *batch)
            for key in (b"a", b"b", b"c", b"d", b"e"):
                data = store.engine.get(b"k" + key)
                record = None if data is None else decode_record(data)
                self.assertEqual(store.get(key), record)
