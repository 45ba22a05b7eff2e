"""Hashes of what was applied: alike on replicas, and unlike where they differ."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from kvdb.raft.messages import ConfChangeType, ConfState
from kvdb.store import windows
from kvdb.store.commands import Compact, Delete, OutcomeStatus, Put, Reason
from kvdb.store.encoding import decode_outcome
from kvdb.store.store import Store
from tests.store.entries import Changer, bootstrap, do, entry, together
from tests.store.suite import StoreTestCase


class WindowTests(StoreTestCase):
    """See kvdb.store.windows."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(windows, "WINDOW_ENTRIES", 4)

    def fresh(self) -> Store:
        store = Store.open(self.make_engines())
        bootstrap(store)
        return store

    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.binary(max_size=3)), min_size=9),
        st.data(),
    )
    def test_however_entries_come_the_hashes_are_the_same(
        self, writes: list[tuple[str, bytes]], data: st.DataObject
    ) -> None:
        commands = [
            Put(key.encode(), value) if value else Delete(key.encode())
            for key, value in writes
        ]
        whole, split = self.fresh(), self.fresh()
        do(whole, *commands)
        rest = list(commands)
        while rest:
            count = data.draw(st.integers(1, len(rest)))
            do(split, *rest[:count])
            rest = rest[count:]
        self.assertGreaterEqual(len(whole.windows.hashes), 1)
        self.assertEqual(split.windows.hashes, whole.windows.hashes)

    def test_they_are_of_whole_windows_only(self) -> None:
        store = self.fresh()
        do(store, *[Put(b"k", b"v")] * 13)  # behind the first entry, to 14
        self.assertEqual(list(store.windows.hashes), [8, 12])

    def test_a_restart_begins_with_the_next_window(self) -> None:
        engines = self.make_engines()
        store = Store.open(engines)
        bootstrap(store)
        do(store, *[Put(b"k", b"v")] * 5)
        store.engine.flush()
        again = Store.open(engines)
        other = self.fresh()
        do(other, *[Put(b"k", b"v")] * 5)
        for one in (again, other):
            do(one, *[Put(b"k", b"v")] * 6)
        self.assertEqual(list(again.windows.hashes), [12])
        self.assertEqual(again.windows.hashes[12], other.windows.hashes[12])

    def differ(self, spoil: object) -> bool:
        """Whether the hashes tell a store that C{spoil} was done to."""
        well, ill = self.fresh(), self.fresh()
        for store in (well, ill):
            do(store, Put(b"/k", b"v"), Put(b"/k", b"w"), Put(b"/other", b"x"))
        assert callable(spoil)
        spoil(ill)
        ill.recent.clear()
        for store in (well, ill):
            store.apply([together(5, Put(b"/other", b"1"), Delete(b"/none"))])
            do(store, Put(b"/k", b"y"), Delete(b"/k"), *[Put(b"/z", b"z")] * 4)
        assert well.windows.hashes, "no window was whole"
        return well.windows.hashes != ill.windows.hashes

    def test_a_record_that_is_wrong_is_found_when_it_is_touched(self) -> None:
        def spoil(store: Store) -> None:
            data = store.engine.get(b"k/k")
            assert data is not None
            flipped = bytes([*data[:23], data[23] ^ 1, *data[24:]])  # its version
            store.engine.write({b"k/k": flipped})

        self.assertTrue(self.differ(spoil))

    def test_a_record_that_is_lost_is_found(self) -> None:
        self.assertTrue(self.differ(lambda store: store.engine.write({b"k/k": None})))

    def test_nothing_is_found_where_nothing_is(self) -> None:
        self.assertFalse(self.differ(lambda store: None))

    def test_every_kind_of_command_counts(self) -> None:
        for other in (Put(b"/a", b"2"), Delete(b"/k"), Compact(1)):
            one, two = self.fresh(), self.fresh()
            for store in (one, two):
                do(store, Put(b"/k", b"v"), Put(b"/k", b"v"), Put(b"/k", b"v"))
            do(one, *[Put(b"/a", b"1")] * 4)
            do(two, other, *[Put(b"/a", b"1")] * 3)
            self.assertNotEqual(one.windows.hashes, two.windows.hashes)

    def test_they_are_bounded(self) -> None:
        self.patch(windows, "MAX_WINDOWS", 2)
        store = self.fresh()
        do(store, *[Put(b"k", b"v")] * 30)
        self.assertEqual(list(store.windows.hashes), [24, 28])

    def test_a_snapshot_begins_anew(self) -> None:
        sender, receiver = self.fresh(), self.fresh()
        do(sender, *[Put(b"k", b"v")] * 8)
        do(receiver, *[Put(b"k", b"v")] * 8)
        taken = sender.open_snapshot()
        incoming = receiver.receive_snapshot()
        for chunk in taken.chunks():
            incoming.write(chunk)
        taken.close()
        incoming.finish()
        receiver.install(incoming)
        self.assertEqual(receiver.windows.hashes, {})
        self.assertEqual(receiver.conf_state, ConfState((1,)))
        receiver.apply([entry(10, None)])

    def test_why_something_was_refused_does_not_count(self) -> None:
        # A directory that an earlier release wrote knows only that it was.
        learn = ConfChangeType.ADD_LEARNER_NODE
        one, two = self.fresh(), self.fresh()
        for store, other in ((one, False), (two, True)):
            changer = Changer(store)
            changer.change(learn, 1, "http://x:1", b"t")
            if other:
                mark = decode_outcome(store.engine.get(b"it") or b"")[1]
                earlier = struct.pack(">BQ8s", OutcomeStatus.REFUSED, 0, mark) + b"text"
                store.engine.write({b"it": earlier})
            outcome = changer.change(learn, 1, "http://x:1", b"t")
            why = Reason.NOT_KEPT if other else Reason.IS_MEMBER
            self.assertEqual(outcome.reason, why)
            do(store, *[Put(b"/k", b"v")] * 6)
        self.assertEqual(one.windows.hashes, two.windows.hashes)
        self.assertEqual(list(one.windows.hashes), [8])
