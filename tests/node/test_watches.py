"""Watches: each change once, in order, to whoever asked for it."""

from __future__ import annotations

import random
from typing import Any

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvdb.interfaces import (
    Change,
    CompactedRevision,
    DatabaseError,
    Selection,
    Unavailable,
)
from kvdb.node import watches as module
from kvdb.node.watches import State, Watch, Watches
from kvdb.raft.messages import Entry
from kvdb.store.commands import Command, Compact, Delete, Member, Put
from kvdb.store.encoding import encode_command, join_commands
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Store


@define(eq=False)
class Heard:
    """Who watches, and all it was told."""

    watch: Watch = field(init=False)
    changes: list[Change] = field(factory=list)
    progresses: list[int] = field(factory=list)
    end: DatabaseError | None = None
    room: int | None = None

    def changed(self, change: Change) -> None:
        assert self.end is None, "told after the end"
        self.changes.append(change)
        if self.room is not None:
            self.room -= 1
            if self.room <= 0:
                self.watch.pause()

    def progress(self, revision: int) -> None:
        self.progresses.append(revision)

    def ended(self, error: DatabaseError) -> None:
        assert self.end is None, "ended twice"
        self.end = error

    @property
    def revisions(self) -> list[int]:
        return [change.revision for change in self.changes]


class World:
    """A store, and those who watch it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = Store.open(MemoryEngines())
        self.store.bootstrap(7, [Member(1, "http://h:1")])
        self.watches = Watches(self.store, self.clock)

    def carry_out(self, *commands: Command, told: bool = True) -> None:
        """One entry with C{commands}."""
        index = self.store.applied_index + 1
        data = join_commands(
            encode_command(1, number, 5000, command)
            for number, command in enumerate(commands)
        )
        self.store.apply([Entry(1, index, data=data)])
        if told:
            self.watches.applied()

    def put(self, *keys: bytes) -> None:
        self.carry_out(*(Put(key, b"of " + key) for key in keys))

    def listen(self, since: int | None = None, **selection: Any) -> Heard:
        heard = Heard()
        heard.watch = self.watches.watch(Selection(**selection), since, heard)
        return heard

    def turn(self) -> None:
        """What is due, and not what that asks for, as a reactor does."""
        calls: Any = self.clock.getDelayedCalls()
        for call in [call for call in calls if call.getTime() <= self.now]:
            self.clock.calls.remove(call)
            call.called = 1
            call.func(*call.args, **call.kw)

    @property
    def now(self) -> float:
        return float(self.clock.seconds())

    def turns(self, number: int = 20) -> None:
        for _ in range(number):
            self.turn()


class WatchesTests(SynchronousTestCase):
    """See the head of kvdb.node.watches."""

    def setUp(self) -> None:
        self.world = World()

    def test_changes_are_told_to_those_who_select_them(self) -> None:
        world = self.world
        world.put(b"/a/1")
        key = world.listen(key=b"/a/1")
        prefix = world.listen(prefix=b"/a")
        everything = world.listen()
        other = world.listen(prefix=b"/b")
        world.put(b"/a/1", b"/a/2", b"/c")
        world.carry_out(Delete(b"/a/1"))
        self.assertEqual(key.revisions, [2, 5])
        self.assertEqual(prefix.revisions, [2, 3, 5])
        self.assertEqual(everything.revisions, [2, 3, 4, 5])
        self.assertEqual(other.revisions, [])
        put, deletion = key.changes
        assert put.record is not None
        self.assertEqual(
            (put.key, put.record.value, put.record.version, put.previous, put.time_ms),
            (b"/a/1", b"of /a/1", 2, 1, 5000),
        )
        self.assertIsNone(deletion.record)
        self.assertEqual(deletion.previous, 2)

    def test_the_past_is_read_from_history_and_the_present_follows(self) -> None:
        world = self.world
        for _ in range(3):
            world.put(b"/a", b"/b")
        heard = world.listen(since=2, key=b"/a")
        self.assertEqual(heard.revisions, [])
        world.turns()
        world.put(b"/a")
        self.assertEqual(heard.revisions, [3, 5, 7])
        self.assertIs(heard.watch.state, State.LIVE)

    def test_a_value_of_the_past_is_that_of_its_revision(self) -> None:
        world = self.world
        world.carry_out(Put(b"/a", b"one"), Put(b"/a", b"two"), Delete(b"/a"))
        heard = world.listen(since=0)
        world.turns()
        values = [change.record and change.record.value for change in heard.changes]
        self.assertEqual(values, [b"one", b"two", None])

    def test_a_forgotten_past_is_refused(self) -> None:
        world = self.world
        world.put(b"/a", b"/a", b"/a")
        world.carry_out(Compact(2))
        with self.assertRaises(CompactedRevision) as caught:
            world.listen(since=1)
        self.assertIn("begins at 2", str(caught.exception))
        world.listen(since=2)

    def test_the_future_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            self.world.listen(since=1)

    def test_one_that_pauses_misses_nothing(self) -> None:
        world = self.world
        heard = world.listen()
        heard.room = 2
        for _ in range(3):
            world.put(b"/a", b"/b")
        self.assertEqual(heard.revisions, [1, 2])
        self.assertEqual(world.watches.paused, 1)
        heard.room = 3
        heard.watch.resume()
        world.turns()
        self.assertEqual(heard.revisions, [1, 2, 3, 4, 5])
        heard.room = None
        heard.watch.resume()
        world.turns()
        self.assertEqual(heard.revisions, [1, 2, 3, 4, 5, 6])

    def test_one_that_pauses_holds_up_no_other(self) -> None:
        world = self.world
        slow, fast = world.listen(), world.listen()
        slow.room = 1
        world.put(b"/a", b"/b", b"/c")
        self.assertEqual(slow.revisions, [1])
        self.assertEqual(fast.revisions, [1, 2, 3])

    def test_one_that_takes_nothing_is_cut_off_and_told_why(self) -> None:
        world = self.world
        heard = world.listen()
        heard.room = 1
        world.put(b"/a")
        world.clock.advance(module.STALL_SECONDS - 1)
        world.watches.ticked(True, 3)
        self.assertIsNone(heard.end)
        world.clock.advance(1)
        world.watches.ticked(True, 3)
        self.assertIsInstance(heard.end, Unavailable)
        self.assertIn("stood full", str(heard.end))
        self.assertEqual(len(world.watches), 0)
        self.assertEqual(world.watches.ended_slow, 1)

    def test_one_whose_history_is_cut_is_told_so(self) -> None:
        world = self.world
        heard = world.listen()
        heard.room = 1
        world.put(b"/a", b"/b", b"/c")
        world.carry_out(Compact(3))
        heard.watch.resume()
        world.turns()
        self.assertEqual(heard.revisions, [1])
        self.assertIsInstance(heard.end, CompactedRevision)

    def test_history_cut_while_it_is_read_ends_only_those_who_need_it(self) -> None:
        world = self.world
        for _ in range(3):
            world.put(*[b"/a"] * module.SLICE_EVENTS)
        early = world.listen(since=0, key=b"/other")
        late = world.listen(since=2 * module.SLICE_EVENTS + 1, key=b"/a")
        world.turn()  # the first slice
        world.carry_out(Compact(2 * module.SLICE_EVENTS + 1))
        world.turns()
        self.assertIsInstance(early.end, CompactedRevision)
        self.assertIsNone(late.end)
        first = 2 * module.SLICE_EVENTS + 2
        self.assertEqual(
            late.revisions, list(range(first, 3 * module.SLICE_EVENTS + 1))
        )

    def test_progress_is_told_to_those_who_hear_nothing_else(self) -> None:
        world = self.world
        heard = world.listen(key=b"/quiet")
        world.put(b"/a", b"/b")
        world.clock.advance(module.PROGRESS_SECONDS)
        world.watches.ticked(True, 3)
        world.watches.ticked(True, 3)
        self.assertEqual(heard.progresses, [2])

    def test_progress_is_spread_over_ticks(self) -> None:
        world = self.world
        all_heard = [world.listen() for _ in range(module.MAX_PROGRESS_PER_TICK + 5)]
        world.clock.advance(module.PROGRESS_SECONDS)
        world.watches.ticked(True, 3)
        told = sum(len(heard.progresses) for heard in all_heard)
        self.assertEqual(told, module.MAX_PROGRESS_PER_TICK)
        world.watches.ticked(True, 3)
        self.assertEqual(
            [heard.progresses for heard in all_heard], [[0]] * len(all_heard)
        )

    def test_without_a_leader_watches_end_after_a_while(self) -> None:
        world = self.world
        heard = world.listen()
        world.watches.ticked(False, 3)
        world.clock.advance(2.9)
        world.watches.ticked(False, 3)
        world.watches.ticked(True, 3)
        world.watches.ticked(False, 3)
        world.clock.advance(2.9)
        world.watches.ticked(False, 3)
        self.assertIsNone(heard.end)
        world.clock.advance(0.2)
        world.watches.ticked(False, 3)
        self.assertIn("knows no leader", str(heard.end))

    def test_one_that_is_cancelled_hears_no_more(self) -> None:
        world = self.world
        heard = world.listen()
        heard.watch.cancel()
        heard.watch.cancel()
        heard.watch.resume()
        world.put(b"/a")
        world.watches.end_all(Unavailable("stopping"))
        self.assertEqual((heard.revisions, heard.end), ([], None))

    def test_there_is_a_bound(self) -> None:
        self.patch(module, "MAX_WATCHES", 2)
        self.world.listen()
        heard = self.world.listen()
        with self.assertRaises(Unavailable):
            self.world.listen()
        heard.watch.cancel()
        self.world.listen()

    def test_a_turn_tells_so_many_and_no_more(self) -> None:
        world = self.world
        self.patch(module, "MAX_TOLD_PER_TURN", 10)
        all_heard = [world.listen() for _ in range(6)]
        world.put(*[b"/a"] * 20)
        self.assertEqual([len(heard.changes) for heard in all_heard], [2] * 6)
        world.turn()
        self.assertEqual([len(heard.changes) for heard in all_heard], [4] * 6)
        world.turns()
        for heard in all_heard:
            self.assertEqual(heard.revisions, list(range(1, 21)))
            self.assertIs(heard.watch.state, State.LIVE)

    def test_a_turn_tells_so_many_bytes_and_one_change(self) -> None:
        """However many watch a change, and however many changes there are."""
        world = self.world
        self.patch(module, "MAX_TOLD_BYTES_PER_TURN", 20)
        all_heard = [world.listen() for _ in range(3)]
        world.put(*[b"/aaaa"] * 4)  # 13 bytes each, with its value
        turns = 0
        while any(heard.watch.state is not State.LIVE for heard in all_heard):
            told = sum(len(heard.changes) for heard in all_heard)
            self.assertLessEqual(told, 2 * (turns + 1))
            world.turn()
            turns += 1
        self.assertGreaterEqual(turns, 5)
        for heard in all_heard:
            self.assertEqual(heard.revisions, [1, 2, 3, 4])

    def test_the_value_before_counts_as_told(self) -> None:
        world = self.world
        self.patch(module, "MAX_TOLD_BYTES_PER_TURN", 1000)
        world.carry_out(Put(b"/a", bytes(2000)))
        heard = world.listen(replaced=True)
        world.put(b"/a", b"/b")
        self.assertEqual(heard.revisions, [2])
        world.turns()
        self.assertEqual(heard.revisions, [2, 3])

    def test_who_comes_late_does_not_wait_for_those_who_never_catch_up(self) -> None:
        world = self.world
        self.patch(module, "MAX_TOLD_PER_TURN", 10)
        many = [world.listen(prefix=b"/a") for _ in range(10)]
        world.put(b"/b", *[b"/a"] * 20)
        world.turn()  # they begin without it
        late = world.listen(since=0, key=b"/b")
        for _ in range(40):
            world.put(*[b"/a"] * 5)  # more than a turn can tell
            world.turn()
        self.assertEqual(late.revisions, [1])
        for heard in many:
            self.assertIs(heard.watch.state, State.BEHIND)
            self.assertEqual(heard.revisions, list(range(2, 2 + len(heard.changes))))

    def test_one_may_end_another_while_it_is_told(self) -> None:
        world = self.world
        second = Heard()

        class Ends(Heard):
            def changed(self, change: Change) -> None:
                second.watch.cancel()

        first = Ends()
        for heard in (first, second):
            heard.watch = world.watches.watch(Selection(), None, heard)
        world.put(b"/a")
        self.assertEqual(second.revisions, [])

    def test_a_store_that_was_replaced_is_gone_through_again(self) -> None:
        world = self.world
        ahead = World()
        for _ in range(4):
            ahead.put(b"/a")
        heard = world.listen()
        world.put(b"/a")
        receiver = world.store.receive_snapshot()
        taken = ahead.store.open_snapshot()
        for chunk in taken.chunks():
            receiver.write(chunk)
        receiver.finish()
        world.store.install(receiver)
        world.watches.ticked(True, 3)
        world.turns()
        self.assertEqual(heard.revisions, [1, 2, 3, 4])

    def test_what_a_snapshot_brought_is_read_without_waiting_for_more(self) -> None:
        world = self.world
        world.carry_out(Put(b"/a", b"v"), told=False)
        heard = world.listen(since=0)
        world.turns(3)
        self.assertEqual(heard.revisions, [1])
        self.assertIs(heard.watch.state, State.LIVE)
        self.assertEqual(list(world.clock.getDelayedCalls()), [])

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 2**32))
    def test_whatever_happens_each_hears_all_of_its_own_in_order(
        self, seed: int
    ) -> None:
        source = random.Random(seed)
        world = World()
        self.patch(module, "SLICE_EVENTS", 3)
        self.patch(module, "MAX_TOLD_PER_TURN", 4)
        self.patch(module, "MAX_TOLD_BYTES_PER_TURN", source.choice([20, 200]))
        log: list[tuple[int, bytes]] = []
        begun: list[tuple[int, Heard]] = []
        keys = [b"/a", b"/a/b", b"/a/c", b"/b", b"/\xff"]
        for _ in range(60):
            step = source.randrange(10)
            if step < 4:
                chosen = [source.choice(keys) for _ in range(source.randrange(1, 5))]
                for key in chosen:
                    log.append((len(log) + 1, key))
                world.put(*chosen)
            elif step < 6:
                since = source.choice([None, source.randint(0, len(log))])
                selection = source.choice(
                    [{"key": source.choice(keys)}, {"prefix": source.choice(keys)}, {}]
                )
                heard = world.listen(since, **selection)
                heard.room = source.choice([None, 1, 2])
                begun.append((len(log) if since is None else since, heard))
            elif step < 8:
                world.turn()
            elif begun:
                _, heard = source.choice(begun)
                heard.room = source.choice([None, 1, 3])
                heard.watch.resume()
        for _ in range(600):
            for _, heard in begun:
                heard.room = None
                heard.watch.resume()
            world.turn()
        for since, heard in begun:
            selected = heard.watch.selection
            expected = [
                revision
                for revision, key in log
                if revision > since
                and (
                    key == selected.key
                    if selected.key is not None
                    else key.startswith(selected.prefix)
                )
            ]
            self.assertEqual(heard.revisions, expected)
