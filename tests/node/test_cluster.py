"""Whole nodes in virtual time: writes, reads, faults, membership."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvdb.interfaces import (
    MembershipRefused,
    OutcomeUnknown,
    Unavailable,
    UnknownMember,
)
from kvdb.node import changes, gathering, proposals, pump
from kvdb.node.node import Node
from kvdb.peer.handshake import Refusal, RefusalCode
from kvdb.raft.confchange import encode_conf_change
from kvdb.raft.messages import (
    ConfChangeV2,
    Entry,
    EntryType,
    Message,
    MessageType,
    Role,
    Snapshot,
)
from kvdb.raft.progress import ProgressState
from kvdb.storage.filesystem import DiskFull
from kvdb.store.backup import BackupReader
from kvdb.store.commands import Outcome, OutcomeStatus, Put
from kvdb.store.encoding import encode_command, join_commands
from kvdb.store.engine import Engine
from kvdb.store.memory import MemoryEngine, MemoryEngines
from kvdb.store.store import Settled, Store
from kvdb.times import MAX_TIME_MS
from tests.node.cluster import Cluster, url


class WritesAndReads(SynchronousTestCase):
    """What a client sees of a cluster that is well."""

    def test_every_member_takes_writes_and_reads_them_back(self) -> None:
        cluster = Cluster(3)
        cluster.leader()
        for node in cluster.nodes():
            key = b"k%d" % node.pump.node_id
            self.assertIs(cluster.put(node, key, b"v").status, OutcomeStatus.DONE)
            for reader in cluster.nodes():
                self.assertEqual(cluster.read(reader, key), b"v")

    def test_one_node_is_a_cluster(self) -> None:
        cluster = Cluster(1)
        cluster.put(cluster.leader(), b"k", b"v")
        self.assertEqual(cluster.read(cluster.node(1), b"k"), b"v")

    def test_a_write_before_there_is_a_leader_waits_for_one(self) -> None:
        cluster = Cluster(3)
        cluster.put(cluster.node(1), b"k", b"v")

    def test_revisions_are_the_same_everywhere(self) -> None:
        cluster = Cluster(3)
        for number in range(30):
            cluster.put(
                cluster.node(1 + number % 3), b"k%d" % (number % 7), b"%d" % number
            )
        cluster.settle()
        digests = {node.replica.store.digest() for node in cluster.nodes()}
        self.assertEqual(len(digests), 1)
        self.assertEqual(cluster.node(1).replica.store.revision, 30)

    def test_a_batch_of_writes_shares_syncs(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        cluster.run(1)
        disk = cluster.machines[leader.pump.node_id].disk
        before = disk.syncs
        writes = [leader.write(Put(b"k%d" % n, b"v")) for n in range(500)]
        for write in writes:
            cluster.result(write)
        self.assertLess(disk.syncs - before, 5)

    def test_what_is_committed_is_applied_a_slice_at_a_time(self) -> None:
        sizes: list[int] = []
        apply = Store.apply

        def noted(store: Store, entries: Sequence[Entry]) -> list[Settled]:
            sizes.append(sum(entry.size for entry in entries))
            return apply(store, entries)

        self.patch(Store, "apply", noted)
        cluster = Cluster(3)
        leader = cluster.leader()
        writes = [leader.write(Put(b"k", bytes(1000))) for _ in range(500)]
        for write in writes:
            cluster.result(write)
        most = pump.APPLY_SLICE_BYTES + 2 * proposals.MAX_ENTRY_BYTES
        self.assertGreater(sum(sizes), 10 * most)
        self.assertLess(max(sizes), most)

    def test_a_member_that_passes_writes_on_keeps_no_count_of_them(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        follower = next(n for n in cluster.nodes() if n is not leader)
        for number in range(20):
            cluster.put(follower, b"k", b"%d" % number)
            self.assertEqual(len(follower.pump.gathering), 0)
            self.assertLessEqual(len(leader.pump.gathering), 2)

    def test_while_two_batches_are_under_way_the_next_gathers(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        cluster.run(1)
        cluster.isolate(leader.pump.node_id)
        log = leader.pump.raft.core.log
        last = log.last_index()

        def grown_after(value: bytes, seconds: float) -> int:
            leader.write(Put(b"k", value)).addErrback(lambda _: None)
            cluster.run(seconds)
            return log.last_index() - last

        brief, long = gathering.GATHER_SECONDS / 4, gathering.GATHER_SECONDS
        self.assertEqual(grown_after(b"1", brief), 1)
        self.assertEqual(grown_after(b"2", brief), 2)
        self.assertEqual(grown_after(b"3", brief), 2)
        self.assertEqual(grown_after(b"4", brief), 2)
        cluster.run(long)
        self.assertEqual(log.last_index() - last, 3, "those two, in one entry")
        self.assertEqual(grown_after(b"5", brief), 4)
        self.assertEqual(grown_after(b"6", brief), 4)
        self.assertEqual(grown_after(bytes(gathering.GATHER_BYTES), brief), 6)


def note(_: Outcome, acknowledged: dict[bytes, int], key: bytes, round_: int) -> None:
    """A write was acknowledged."""
    acknowledged[key] = round_


class PassedOn(SynchronousTestCase):
    """Writes that a follower passes to its leader, a window of bytes at a time."""

    def setUp(self) -> None:
        self.patch(proposals, "MAX_PASSED_BYTES", 4 << 10)

    def follower(self, cluster: Cluster) -> Node:
        """One that follows, once all is quiet."""
        leader = cluster.leader()
        cluster.settle()
        cluster.run(0.5)
        return next(n for n in cluster.nodes() if n is not leader)

    def many(self, node: Node, count: int = 50) -> list[Deferred[Outcome]]:
        """Writes of 1 KiB, all at once."""
        return [node.write(Put(b"k%d" % n, bytes(1 << 10))) for n in range(count)]

    def test_no_more_than_the_window_is_under_way_and_all_of_it_comes_through(
        self,
    ) -> None:
        cluster = Cluster(3)
        node = self.follower(cluster)
        leader = cluster.leader()
        seen: list[int] = []
        receive = leader.messages_received

        def look(sender: int, messages: Sequence[Message]) -> None:
            if any(m.type is MessageType.PROP for m in messages):
                seen.append(node.pump.proposals.passed_bytes)
                self.assertLessEqual(leader.pump.forwarded.size_bytes, 5 << 10)
            receive(sender, messages)

        self.patch(Node, "messages_received", receive_of(leader, look))
        for write in self.many(node):
            cluster.result(write)
        self.assertGreater(len(seen), 10)
        self.assertLessEqual(max(seen), 4 << 10)
        self.assertEqual(node.pump.proposals.passed_bytes, 0)

    def test_what_the_connection_does_not_take_never_is_unknown(self) -> None:
        cluster = Cluster(3)
        node = self.follower(cluster)
        asked: list[Message] = []

        def full(message: Message) -> bool:
            asked.append(message)
            return False

        with_room = node.network.send_now
        node.network.send_now = full  # type: ignore[method-assign]
        writes = self.many(node)
        cluster.run(1.0)
        later = node.write(Put(b"later", b"v"))
        cluster.run(node.settings.request_timeout - 0.5)
        self.assertTrue(asked)
        for write in writes:
            self.failureResultOf(write, Unavailable)
        self.assertNoResult(later)
        node.network.send_now = with_room  # type: ignore[method-assign]
        node.has_room(cluster.leader().pump.node_id)
        cluster.result(later, 0.05)
        for written in range(50):
            self.assertIsNone(node.get(b"k%d" % written))

    def test_room_for_more_is_made_use_of_at_once(self) -> None:
        cluster = Cluster(3)
        node = self.follower(cluster)
        with_room = node.network.send_now
        node.network.send_now = lambda message: False  # type: ignore[method-assign]
        write = node.write(Put(b"k", b"v"))
        cluster.clock.advance(0)
        node.network.send_now = with_room  # type: ignore[method-assign]
        node.has_room(cluster.leader().pump.node_id)
        cluster.clock.advance(0)
        self.assertGreater(node.pump.proposals.passed_bytes, 0)
        cluster.result(write)

    def test_what_is_lost_with_a_connection_holds_up_nothing_behind_it(self) -> None:
        cluster = Cluster(3)
        node = self.follower(cluster)
        leader = cluster.leader().pump.node_id
        way = (node.pump.node_id, leader)
        writes = self.many(node)
        cluster.clock.advance(0)
        cluster.cut.add(way)
        cluster.run(0.01)
        cluster.cut.clear()
        cluster.run(1.0)
        for write in writes:
            self.assertNoResult(write)
        node.connected(leader)
        window = (4 << 10) // (1 << 10) - 1  # what surrounds them counts, too
        for write in writes[window:]:
            cluster.result(write, 1.0)
        cluster.run(node.settings.request_timeout)
        for write in writes[:window]:
            self.failureResultOf(write, OutcomeUnknown)

    def test_the_rest_is_carried_to_the_next_leader_once(self) -> None:
        for seed in range(5):
            with self.subTest(seed=seed):
                cluster = Cluster(3, seed)
                node = self.follower(cluster)
                old = cluster.leader().pump.node_id
                writes = self.many(node)
                cluster.run(0.002 * seed)
                cluster.machines[old].crash()
                for write in writes:
                    self.assertIs(cluster.result(write).status, OutcomeStatus.DONE)
                cluster.machines[old].start()
                cluster.settle()
                for number in range(50):
                    record = cluster.leader().get(b"k%d" % number)
                    self.assertEqual(record and record.version, 1)


def receive_of(
    one: Node, receive: Callable[[int, Sequence[Message]], None]
) -> Callable[[Node, int, Sequence[Message]], None]:
    """What takes C{one}'s messages to C{receive}, and the others' where they go."""
    before = Node.messages_received

    def received(node: Node, sender: int, messages: Sequence[Message]) -> None:
        if node is one:
            receive(sender, messages)
        else:
            before(node, sender, messages)

    return received


class Faults(SynchronousTestCase):
    """What is acknowledged stays, whatever stops."""

    def test_a_follower_that_stops_is_caught_up_when_it_is_back(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        follower = next(n for n in cluster.nodes() if n is not leader).pump.node_id
        cluster.machines[follower].stop()
        cluster.put(leader, b"k", b"new")
        cluster.machines[follower].start()
        cluster.settle()
        self.assertEqual(cluster.read(cluster.node(follower), b"k"), b"new")

    def test_a_leader_that_stops_is_replaced(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        cluster.put(leader, b"k", b"1")
        cluster.machines[leader.pump.node_id].crash()
        cluster.put(cluster.leader(), b"k", b"2")
        self.assertEqual(cluster.read(cluster.leader(), b"k"), b"2")

    def test_nothing_acknowledged_is_lost_when_all_lose_power_at_once(self) -> None:
        for seed in range(15):
            with self.subTest(seed=seed):
                cluster = Cluster(3, seed, snapshot_count=20, catch_up_entries=5)
                acknowledged: dict[bytes, int] = {}
                for round_ in range(4):
                    leader = cluster.leader()
                    for number in range(25):
                        key = b"k%d" % number
                        write = leader.write(Put(key, b"%d" % round_))
                        write.addCallback(note, acknowledged, key, round_)
                        write.addErrback(
                            lambda failure: failure.trap(OutcomeUnknown, Unavailable)
                        )
                        if number % 5 == 0:
                            cluster.run(cluster.random.random() * 0.01)
                    for machine in cluster.machines.values():
                        machine.crash()
                    for machine in cluster.machines.values():
                        machine.start()
                    leader = cluster.leader()
                    for key, least in acknowledged.items():
                        value = cluster.read(leader, key)
                        self.assertGreaterEqual(int(value or b"-1"), least)
                        self.assertLessEqual(int(value or b"-1"), round_)
                self.assertGreater(len(acknowledged), 10)
                cluster.settle()
                digests = {n.replica.store.digest() for n in cluster.nodes()}
                self.assertEqual(len(digests), 1)

    def test_what_a_dead_leader_took_is_carried_out_once_by_the_next(self) -> None:
        for seed in range(10):
            with self.subTest(seed=seed):
                cluster = Cluster(3, seed)
                old = cluster.leader()
                cluster.run(0.5)
                others = [n for n in cluster.nodes() if n is not old]
                writes = []
                for number in range(60):
                    node = others[number % 2]
                    writes.append(node.write(Put(b"k%d" % number, b"v")))
                    if number == 30:
                        cluster.machines[old.pump.node_id].crash()
                    if number % 3 == 0:
                        cluster.run(0.001)
                for write in writes:
                    cluster.result(write)
                cluster.machines[old.pump.node_id].start()
                cluster.settle()
                for number in range(60):
                    record = cluster.leader().get(b"k%d" % number)
                    self.assertEqual(record and record.version, 1)
                self.assertEqual(cluster.leader().replica.store.revision, 60)

    def test_a_restarted_follower_forgets_neither_term_nor_vote(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        cluster.settle()
        cluster.run(0.5)
        one, other = (n.pump.node_id for n in cluster.nodes() if n is not leader)
        machine = cluster.machines[one]
        log = cluster.node(one).replica.log
        before = log.hard_state
        self.assertGreater(before.term, 1)
        machine.stop()
        cluster.machines[other].stop()
        # The same leader, the same term, and entries that nobody commits yet:
        # nothing but entries is to be written.
        cluster.cut.add((one, leader.pump.node_id))
        write = leader.write(Put(b"k", b"v"))
        last = leader.pump.raft.core.log.last_index
        cluster.run(0.01)
        machine.start()
        log = cluster.node(one).replica.log
        cluster.cut.clear()
        cluster.until(lambda: log.last_index() == last())
        after = log.hard_state
        self.assertEqual((after.term, after.vote), (before.term, before.vote))
        cluster.result(write)

    def test_one_alone_reads_nothing_before_it_knows_what_it_has_committed(
        self,
    ) -> None:
        # Found by simulation, seed 1202: a commit index is written now and
        # then only, and what was answered may lie behind the one on the disk.
        cluster = Cluster(1)
        cluster.put(cluster.leader(), b"k", b"v")
        machine = cluster.machines[1]
        machine.crash()
        machine.disk.sync_delay = 0.5
        node = machine.start()
        self.assertEqual(cluster.read(node, b"k"), b"v")

    def test_a_proposal_is_for_the_leader_of_its_term_alone(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        cluster.settle()
        core = leader.pump.raft.core
        other = leader.pump.node_id % 3 + 1
        data = join_commands([encode_command(1, 1, 0, Put(b"k", b"v"))])
        for term, taken in ((core.term - 1, False), (core.term, True)):
            sent = Message(
                MessageType.PROP,
                leader.pump.node_id,
                other,
                term=term,
                entries=[Entry(0, 0, data=data)],
            )
            leader.messages_received(other, [sent])
            cluster.run(0.5)
            self.assertEqual(cluster.read(leader, b"k"), b"v" if taken else None)

    def test_what_a_snapshot_brought_is_not_proposed_again(self) -> None:
        cluster = Cluster(
            3, snapshot_count=10, catch_up_entries=0, request_timeout=20.0
        )
        leader = cluster.leader()
        cluster.settle()
        one = next(n for n in cluster.nodes() if n is not leader)
        name = one.pump.node_id
        cluster.cut.update((other, name) for other in cluster.machines)
        write = one.write(Put(b"once", b"1"))
        outcomes: list[object] = []
        write.addBoth(outcomes.append)
        cluster.run(0.2)
        self.assertEqual(cluster.read(leader, b"once"), b"1")
        for number in range(60):
            cluster.put(leader, b"k", b"%d" % number)
        cluster.run(1.0)
        self.assertGreater(leader.replica.log.first_index(), 40)
        cluster.cut.clear()
        cluster.until(lambda: cluster.snapshots > 0)
        cluster.result(leader.transfer_leadership(None))
        cluster.put(cluster.leader(), b"k", b"of a later term")
        cluster.settle()
        cluster.until(lambda: bool(outcomes), 60.0)
        cluster.settle()
        for node in cluster.nodes():
            record = node.get(b"once")
            self.assertEqual(record and record.version, 1)

    def test_without_a_quorum_nothing_is_promised(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        cluster.isolate(leader.pump.node_id)
        with self.assertRaises(OutcomeUnknown):
            cluster.put(leader, b"k", b"v")
        with self.assertRaises(Unavailable):
            cluster.read(leader, b"k")

    def test_an_old_leader_that_was_cut_off_answers_no_stale_read(self) -> None:
        cluster = Cluster(3)
        old = cluster.leader()
        cluster.put(old, b"k", b"1")
        cluster.isolate(old.pump.node_id)
        cluster.run(0.05)
        read = old.read_barrier()
        cluster.until(
            lambda: any(n.pump.leading for n in cluster.nodes() if n is not old)
        )
        new = next(n for n in cluster.nodes() if n is not old and n.pump.leading)
        cluster.put(new, b"k", b"2")
        self.assertNoResult(read)
        cluster.cut.clear()
        cluster.result(read)
        record = old.get(b"k")
        self.assertEqual(record and record.value, b"2")

    def test_the_log_is_not_cut_before_the_store_has_it(self) -> None:
        cluster = Cluster(1, snapshot_count=10, catch_up_entries=0)
        machine = cluster.machines[1]
        machine.engines.current.flush_polls = 2  # and so two ticks to flush
        node = cluster.leader()
        first, number = node.replica.log.first_index(), 0
        while node.replica.log.first_index() == first:
            number += 1
            cluster.put(node, b"k", b"%8192d" % number)  # eight fill a file of it
        self.assertGreater(number, 30, "it flushed while it was written to")
        machine.crash()
        node = machine.start()
        cluster.leader()
        self.assertEqual(cluster.read(node, b"k"), b"%8192d" % number)

    def test_writes_are_carried_out_whatever_the_clock_says(self) -> None:
        cluster = Cluster(3)
        node = cluster.leader()
        for number, (seconds, expected) in enumerate(
            [
                (-2e9, 0),
                (-0.0001, 0),
                (1.5, 1500),
                (3e11, MAX_TIME_MS),
                (math.inf, MAX_TIME_MS),
                (math.nan, 0),
            ]
        ):
            clock = partial(float, seconds)
            node.pump.time_of_day = node.backups.time_of_day = clock
            cluster.put(node, b"k", b"%d" % number)
            cluster.result(node.add_member(10 + number, f"http://h:{10 + number}"))
            [(_, event)] = node.replica.store.events(node.replica.store.revision - 1)
            self.assertEqual(event.time_ms, expected)
            backup = node.open_backup()
            reader = BackupReader()
            list(reader.feed(next(backup.pieces)))
            backup.close()
            assert reader.header is not None
            self.assertEqual(reader.header.time_ms, expected)
        cluster.settle()
        self.assertEqual(cluster.read(node, b"k"), b"5")

    def test_the_tail_of_the_log_is_bounded_in_bytes(self) -> None:
        cluster = Cluster(1, snapshot_bytes=200 << 10, catch_up_bytes=100 << 10)
        node = cluster.leader()
        longest = 0
        for number in range(150):
            cluster.put(node, b"k", b"%8192d" % number)
            cluster.run(0.2)  # two ticks
            longest = max(longest, node.replica.log.size_bytes)
        self.assertGreater(node.replica.log.first_index(), 50)
        # What was cut is kept to the end of its segment, which has 64 KiB.
        self.assertLess(longest, (200 + 100 + 2 * 64) << 10)
        self.assertGreater(node.replica.log.size_bytes, 100 << 10)

    def test_history_is_bounded_in_bytes(self) -> None:
        cluster = Cluster(3, history_bytes=4 << 20)
        node = cluster.leader()
        for number in range(12):
            cluster.put(node, b"k", b"%1048576d" % number)
            cluster.run(0.5)
        cluster.settle()
        for one in cluster.nodes():
            store = one.replica.store
            self.assertTrue(3 << 20 < store.history_bytes() <= 5 << 20)
            self.assertEqual(store.revision, 12)
            self.assertTrue(6 <= store.compacted_revision <= 8)
            kept = len(list(store.engine.scan(b"v", b"w")))
            self.assertEqual(kept, 12 - store.compacted_revision)

    def test_a_follower_far_behind_gets_a_snapshot_while_writes_go_on(self) -> None:
        cluster = Cluster(3, snapshot_count=50, catch_up_entries=10)
        leader = cluster.leader()
        behind = next(n for n in cluster.nodes() if n is not leader).pump.node_id
        cluster.machines[behind].stop()
        for number in range(300):
            cluster.put(leader, b"k%d" % (number % 40), b"%d" % number)
        self.assertGreater(leader.replica.log.first_index(), 100)
        cluster.machines[behind].start()
        for number in range(50):
            cluster.put(leader, b"more%d" % number, b"x")
        cluster.settle()
        self.assertEqual(cluster.snapshots, 1)
        counts = [
            (
                n.snapshots.count_sent,
                n.snapshots.count_failed,
                n.snapshots.count_installed,
            )
            for n in cluster.nodes()
        ]
        self.assertEqual(sorted(counts), [(0, 0, 0), (0, 0, 1), (1, 0, 0)])
        self.assertEqual(
            cluster.node(behind).replica.store.digest(), leader.replica.store.digest()
        )

    def test_no_older_membership_is_applied_behind_a_snapshots(self) -> None:
        # A full disk keeps the snapshot from its place, and what was committed
        # before it, the addition of a learner, is still to be applied.
        cluster = Cluster(3)
        leader = cluster.leader()
        cluster.settle()
        behind = next(n for n in cluster.nodes() if n is not leader)
        own = behind.pump.node_id
        cluster.isolate(own)
        first = behind.pump.raft.core.log.last_index() + 1
        for _ in range(4):
            cluster.put(leader, b"k", b"v" * 10_000)
        cluster.add(4)
        cluster.result(leader.add_member(4, url(4)))
        learner_at = leader.replica.store.applied_index
        cluster.machines[4].start()
        cluster.until(lambda: 4 in leader.replica.store.conf_state.voters)
        for _ in range(20):
            cluster.put(leader, b"k", b"v" * 10_000)
        snapshot = leader.replica.snapshot()

        log = leader.replica.log

        def message(kind: MessageType, **fields: Any) -> Message:
            term = leader.pump.raft.core.term
            plain = Message(kind, to=own, from_=leader.pump.node_id, term=term)
            return evolve(plain, commit=learner_at, **fields)

        def append(low: int, high: int) -> None:
            appended = message(
                MessageType.APP,
                index=low - 1,
                log_term=log.term(low - 1),
                entries=log.entries(low, high + 1, 1 << 30),
            )
            behind.messages_received(leader.pump.node_id, [appended])

        disk = cluster.machines[own].disk
        applied: list[int] = []

        def apply(store: Store, entries: Sequence[Entry]) -> list[Settled]:
            if store is behind.replica.store:
                if not applied:
                    cluster.clock.callLater(0, fill_the_disk)
                applied.append(entries[-1].index)
            return original(store, entries)

        def fill_the_disk() -> None:
            disk.space = 0
            append(learner_at + 1, snapshot.index - 1)
            disk.space = 0  # the reserve goes, too
            sink = behind.begin_snapshot(message(MessageType.SNAP, snapshot=snapshot))
            for chunk in leader.replica.store.open_snapshot().chunks():
                sink.chunk(chunk)
            sink.finish()

        original = Store.apply
        self.patch(Store, "apply", apply)
        append(first, learner_at)
        cluster.run(0.2)
        self.assertIsNotNone(behind.pump.writer.full)
        self.assertLess(applied[0], learner_at)
        disk.space = 1 << 30
        cluster.run(0.2)
        self.assertEqual(behind.replica.store.applied_index, snapshot.index)
        configuration = behind.pump.raft.core.tracker.configuration
        self.assertEqual(configuration.conf_state(), snapshot.conf_state)

    def test_a_snapshot_that_a_full_disk_keeps_from_the_log_cuts_nothing(self) -> None:
        # Its state is in place, and the log still ends far behind it, when a flush of
        # the state before seems to be done.
        cluster = Cluster(3, snapshot_count=20, catch_up_entries=2)
        leader = cluster.leader()
        cluster.settle()
        behind = next(n for n in cluster.nodes() if n is not leader)
        machine = cluster.machines[behind.pump.node_id]
        machine.engines.current.flush_polls = 1000
        for number in range(30):
            cluster.put(leader, b"k%d" % number, b"v")
        cluster.settle()
        self.assertTrue(behind.replica.store.flushing)
        cluster.isolate(behind.pump.node_id)
        for number in range(60):
            cluster.put(leader, b"k%d" % number, b"v")
        machine.disk.space = 0
        cluster.cut.clear()
        cluster.until(lambda: cluster.snapshots > 0)
        for _ in range(5):
            machine.disk.space = 0  # the reserve goes, too
            cluster.run(0.1)
        self.assertIsNotNone(behind.pump.writer.full)
        self.assertFalse(behind.replica.store.flushing)
        self.assertEqual(machine.stopped, [])
        machine.disk.space = 1 << 30
        cluster.settle()

    def test_a_snapshot_that_finds_no_space_is_put_in_place_once_there_is(self) -> None:
        cluster = Cluster(3, snapshot_count=20, catch_up_entries=2)
        leader = cluster.leader()
        cluster.settle()
        behind = next(n for n in cluster.nodes() if n is not leader)
        machine = cluster.machines[behind.pump.node_id]
        cluster.isolate(behind.pump.node_id)
        for number in range(60):
            cluster.put(leader, b"k%d" % number, b"v")
        switch = MemoryEngines.switch
        is_full = True

        def switch_if_it_fits(engines: MemoryEngines, staged: Engine) -> None:
            if is_full:
                raise DiskFull("no space on the disk for the engine's name")
            switch(engines, staged)

        self.patch(MemoryEngines, "switch", switch_if_it_fits)
        cluster.cut.clear()
        cluster.until(lambda: behind.pump.writer.full is not None)
        cluster.run(0.5)
        self.assertEqual(machine.stopped, [])
        self.assertEqual(behind.get(b"k1"), None)
        is_full = False
        cluster.settle()
        self.assertEqual(cluster.read(behind, b"k1"), b"v")

    def test_a_snapshot_that_does_not_become_durable_is_thrown_away(self) -> None:
        cluster = Cluster(1)
        node = cluster.leader()
        discarded: list[Engine] = []

        def full(engine: MemoryEngine) -> None:
            raise DiskFull("no space for the engine")

        self.patch(MemoryEngine, "flush", full)
        self.patch(MemoryEngines, "discard", lambda _, staged: discarded.append(staged))
        message = Message(MessageType.SNAP, snapshot=node.replica.snapshot())
        for _ in range(2):
            sink = node.begin_snapshot(message)
            for chunk in node.replica.store.open_snapshot().chunks():
                sink.chunk(chunk)
            self.assertRaises(DiskFull, sink.finish)
        self.assertEqual(len(discarded), 2)

    def test_a_snapshot_that_comes_twice_does_not_keep_out_the_next(self) -> None:
        # The connection broke before the sender heard that the first had arrived,
        # and the receiver's disk has yet to sync what came of it.
        cluster = Cluster(3, snapshot_count=20, catch_up_entries=2)
        leader = cluster.leader()
        behind = next(n for n in cluster.nodes() if n is not leader)
        cluster.isolate(behind.pump.node_id)
        disk = cluster.machines[behind.pump.node_id].disk

        def fall_behind() -> Snapshot:
            for number in range(60):
                cluster.put(leader, b"k%d" % number, b"v")
            return leader.replica.snapshot()

        def receive(snapshot: Snapshot) -> None:
            message = Message(
                MessageType.SNAP,
                to=behind.pump.node_id,
                from_=leader.pump.node_id,
                term=leader.pump.raft.core.term,
                snapshot=evolve(snapshot),
            )
            sink = behind.begin_snapshot(message)
            for chunk in leader.replica.store.open_snapshot().chunks():
                sink.chunk(chunk)
            sink.finish()

        first = fall_behind()
        disk.hung = True
        receive(first)
        receive(first)
        disk.hung = False
        cluster.run(0.1)
        second = fall_behind()
        receive(second)
        cluster.run(0.1)
        self.assertEqual(behind.replica.store.applied_index, second.index)
        self.assertEqual(behind.snapshots.count_installed, 2)

    def test_a_restart_after_compaction_serves_what_was_there(self) -> None:
        cluster = Cluster(3, snapshot_count=20, catch_up_entries=2)
        for number in range(200):
            cluster.put(cluster.leader(), b"k%d" % (number % 9), b"%d" % number)
        cluster.settle()
        before = cluster.node(1).replica.store.digest()
        for machine in cluster.machines.values():
            machine.stop()
        for machine in cluster.machines.values():
            machine.start()
        cluster.settle()
        self.assertEqual(cluster.node(1).replica.store.digest(), before)
        self.assertEqual(cluster.read(cluster.leader(), b"k1"), b"199")


class Disks(SynchronousTestCase):
    """Disks that hang, fill up, or fail."""

    def test_a_leader_whose_disk_hangs_steps_down_and_does_not_stand(self) -> None:
        cluster = Cluster(3)
        old = cluster.leader()
        disk = cluster.machines[old.pump.node_id].disk
        disk.hung = True
        write = old.write(Put(b"k", b"v"))
        cluster.until(lambda: not old.pump.leading, 10)
        [alarm] = old.status().alarms
        self.assertIn("/data", alarm)
        new = cluster.leader()
        self.assertIsNot(new, old)
        cluster.put(new, b"l", b"w")
        cluster.machines[new.pump.node_id].stop()
        cluster.run(10)
        self.assertFalse(old.pump.leading)
        disk.hung = False
        cluster.put(cluster.leader(), b"m", b"x")
        self.assertEqual(old.status().alarms, [])
        write.addErrback(lambda failure: failure.trap(OutcomeUnknown))

    def test_a_full_disk_refuses_writes_serves_reads_and_recovers(self) -> None:
        cluster = Cluster(1, low_space_bytes=0)
        node = cluster.leader()
        cluster.put(node, b"k", b"v")
        disk = cluster.machines[1].disk
        disk.space = 0
        acknowledged = []
        for number in range(2_000):
            write = node.write(Put(b"k%d" % number, b"x" * 100))
            write.addCallbacks(
                lambda _, n=number: acknowledged.append(n), lambda _: None
            )
            cluster.run(0.001)
            if node.status().alarms:
                break
        self.assertIn("no space", node.status().alarms[0])
        self.failureResultOf(node.write(Put(b"z", b"z")))
        self.assertEqual(cluster.read(node, b"k"), b"v")
        disk.space = 1 << 30
        cluster.run(1)
        self.assertEqual(node.status().alarms, [])
        cluster.put(node, b"after", b"v")
        for number in acknowledged:
            self.assertEqual(cluster.read(node, b"k%d" % number), b"x" * 100)

    def test_a_node_whose_disk_is_full_can_stop_and_start(self) -> None:
        cluster = Cluster(1)
        cluster.put(cluster.leader(), b"k", b"v")
        disk = cluster.machines[1].disk
        disk.space = 0
        cluster.machines[1].stop()
        cluster.machines[1].start()
        self.assertEqual(cluster.read(cluster.leader(), b"k"), b"v")

    def test_a_sync_that_fails_stops_the_node_at_once(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        machine = cluster.machines[leader.pump.node_id]
        machine.disk.sync_fails = True
        write = leader.write(Put(b"k", b"v"))
        cluster.until(lambda: machine.node is None, 5)
        [(why, status)] = machine.stopped
        self.assertEqual(status, 1)
        self.assertIn("sync", why)
        self.failureResultOf(write)
        self.flushLoggedErrors()


class Membership(SynchronousTestCase):
    """Members come and go."""

    def test_a_new_member_is_a_learner_then_a_voter_and_serves(self) -> None:
        cluster = Cluster(3)
        cluster.put(cluster.leader(), b"k", b"v")
        cluster.add(4)
        cluster.result(cluster.node(1).add_member(4, url(4)))
        self.assertEqual(cluster.leader().replica.store.conf_state.learners, (4,))
        cluster.machines[4].start()
        cluster.until(lambda: 4 in cluster.leader().replica.store.conf_state.voters)
        cluster.settle()
        self.assertEqual(cluster.read(cluster.node(4), b"k"), b"v")
        cluster.put(cluster.node(4), b"l", b"w")

    def test_a_second_member_costs_the_first_nothing(self) -> None:
        cluster = Cluster(1)
        cluster.add(2)
        cluster.result(cluster.leader().add_member(2, url(2)))
        cluster.put(cluster.node(1), b"k", b"v")
        cluster.machines[2].start()
        cluster.settle()
        cluster.until(lambda: cluster.node(1).replica.store.conf_state.voters == (1, 2))
        self.assertEqual(cluster.read(cluster.node(2), b"k"), b"v")

    def test_a_removed_member_stops_with_status_0(self) -> None:
        for removed in ("leader", "follower"):
            with self.subTest(removed):
                cluster = Cluster(3)
                leader = cluster.leader()
                other = next(n for n in cluster.nodes() if n is not leader)
                gone = leader if removed == "leader" else other
                via = other if removed == "leader" else leader
                node_id = gone.pump.node_id
                cluster.result(via.remove_member(node_id))
                machine = cluster.machines[node_id]
                cluster.until(machine.is_down)
                self.assertEqual(machine.stopped[0][1], 0)
                cluster.put(cluster.leader(), b"k", b"v")
                self.assertNotIn(node_id, cluster.leader().replica.store.members)

    def test_a_removal_is_not_forgotten_when_the_power_goes(self) -> None:
        # Found by simulation: those who stayed went by the membership before,
        # and waited for the votes of members that were gone.
        for size in (2, 4):
            cluster = Cluster(size)
            leader = cluster.leader()
            cluster.settle()
            gone = next(n.pump.node_id for n in cluster.nodes() if n is not leader)
            cluster.run(1.0)  # until nothing else is written
            cluster.result(leader.remove_member(gone))
            index = leader.replica.store.applied_index
            cluster.until(cluster.machines[gone].is_down)
            cluster.settle()
            cluster.run(0.5)
            stay = [m for m in cluster.machines.values() if m.node_id != gone]
            for machine in stay:
                machine.crash()
            # Of three, one does not come back.
            for machine in stay[: size // 2]:
                node = machine.start()
                self.assertGreaterEqual(node.replica.log.hard_state.commit, index)
            cluster.put(cluster.leader(), b"k", b"v")

    def test_a_leader_can_remove_itself(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        cluster.result(leader.remove_member(leader.pump.node_id))
        machine = cluster.machines[leader.pump.node_id]
        cluster.until(lambda: machine.node is None)
        self.assertEqual([status for _, status in machine.stopped], [0])

    def test_who_asks_a_member_for_its_own_removal_is_answered(self) -> None:
        # It is refused by the others before it hears that its removal is committed,
        # and a stop leaves those who wait two seconds only.
        cluster = Cluster(3)
        leader = cluster.leader()
        gone = next(n for n in cluster.nodes() if n is not leader)
        stopped: list[int] = []
        gone.stop = lambda _, status: stopped.append(status)
        number = gone.pump.node_id
        removal = gone.remove_member(number)
        cluster.until(lambda: number in leader.replica.store.removed)
        cluster.isolate(number)
        self.assertNoResult(removal)
        write = gone.write(Put(b"k", b"v"))
        cluster.run(0.05)
        gone.refused(
            leader.pump.node_id, Refusal(RefusalCode.REMOVED_MEMBER, "it was removed")
        )
        self.successResultOf(removal)
        self.failureResultOf(write, Unavailable, OutcomeUnknown)
        self.assertEqual(stopped, [0])

    def test_a_member_removed_while_down_learns_of_it_and_stops(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        down = next(n for n in cluster.nodes() if n is not leader).pump.node_id
        cluster.machines[down].stop()
        cluster.result(leader.remove_member(down))
        machine = cluster.machines[down]
        machine.start()
        cluster.until(lambda: machine.node is None)
        self.assertEqual(machine.stopped[0][1], 0)
        term = cluster.leader().pump.raft.core.term
        cluster.run(5)
        self.assertEqual(cluster.leader().pump.raft.core.term, term)

    def test_a_learner_votes_once_it_has_caught_up_and_not_before(self) -> None:
        self.patch(changes, "CAUGHT_UP_ENTRIES", 5)
        self.patch(pump, "MAX_MESSAGE_BYTES", 2000)
        self.patch(proposals, "MAX_ENTRY_BYTES", 1)
        self.patch(pump, "MAX_INFLIGHT_MESSAGES", 1)
        cluster = Cluster(1)
        leader = cluster.leader()
        cluster.put(leader, b"k", b"v")
        machine = cluster.add(2)
        machine.disk.sync_delay = 0.15
        node = machine.start()
        cluster.result(leader.add_member(2, url(2)))
        cluster.until(lambda: cluster.snapshots == 1)
        for number in range(100):
            leader.write(Put(b"%d" % number, bytes(400)))
        cluster.run(0.01)
        behind = False
        conf_state = leader.replica.store.conf_state
        while conf_state.learners:
            progress = leader.pump.raft.core.tracker.progress[2]
            missing = leader.replica.log.last_index() - progress.match
            replicates = progress.state is ProgressState.REPLICATE
            behind = behind or (replicates and missing > 20)
            before = missing
            cluster.run(0.05)
            self.assertLess(cluster.clock.seconds(), 60.0)
            conf_state = leader.replica.store.conf_state
        self.assertTrue(behind, "it was never behind for longer than a tick")
        self.assertLessEqual(before, 5 + 3)
        self.assertIn(2, conf_state.voters)
        self.assertGreater(node.replica.log.last_index(), 95)

    def test_a_url_that_nobody_could_dial_is_refused(self) -> None:
        cluster = Cluster(1)
        leader = cluster.leader()
        nobody = ("http://0.0.0.0:1", "http://[::]:1", "http://a..b:1", "http://h:0")
        for bad in (f"http://{'a' * 1100}:1", "http://\ud800:1", "http://h", *nobody):
            with self.assertRaises(MembershipRefused):
                cluster.result(leader.add_member(4, bad))
        cluster.result(leader.add_member(4, url(4)))

    def test_a_proposal_that_nobody_can_read_is_dropped(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        other = leader.pump.node_id % 3 + 1
        change = EntryType.CONF_CHANGE_V2
        for entry in (
            Entry(0, 0, data=b"junk"),
            Entry(0, 0, change, b"\x09\0\0"),
            Entry(0, 0, change, encode_conf_change(ConfChangeV2((), context=b"no"))),
        ):
            sent = Message(
                MessageType.PROP,
                leader.pump.node_id,
                other,
                term=leader.pump.raft.core.term,
                entries=[entry],
            )
            leader.messages_received(other, [sent])
        cluster.put(leader, b"k", b"v")
        cluster.settle()
        self.assertEqual(len(cluster.nodes()), 3)

    def test_a_member_that_lost_its_disk_may_not_vote_again(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        cluster.run(2)
        lost = next(n for n in cluster.nodes() if n is not leader).pump.node_id
        cluster.machines[lost].stop()
        machine = cluster.add(lost)
        machine.start(members=cluster.first)
        cluster.until(lambda: machine.node is None)
        why, status = machine.stopped[0]
        self.assertEqual(status, 1)
        self.assertIn(f"DELETE /{lost}", why)
        self.assertIn(
            RefusalCode.WRONG_INSTANCE,
            [refusal.code for _, refusal in cluster.refusals],
        )

    def test_what_does_not_fit_is_refused_with_the_reason(self) -> None:
        cluster = Cluster(3)
        node = cluster.leader()
        cluster.result(node.remove_member(3 if node.pump.node_id != 3 else 2))
        gone = 3 if node.pump.node_id != 3 else 2
        node = cluster.leader()
        for node_id, address, words in (
            (1, url(9), "already"),
            (gone, url(9), "removed"),
            (7, url(1), "URL of member 1"),
            (7, "not a url", "http://host:port"),
            (0, url(9), "number"),
        ):
            with self.assertRaises(MembershipRefused) as caught:
                cluster.result(node.add_member(node_id, address))
            self.assertIn(words, str(caught.exception))
        with self.assertRaises(UnknownMember):
            cluster.result(node.remove_member(9))
        cluster.put(node, b"k", b"v")

    def test_the_last_member_stays(self) -> None:
        cluster = Cluster(1)
        with self.assertRaises(MembershipRefused):
            cluster.result(cluster.leader().remove_member(1))

    def test_a_removal_that_would_lose_the_quorum_is_refused(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        others = [n.pump.node_id for n in cluster.nodes() if n is not leader]
        cluster.machines[others[0]].stop()
        for token in (b"", b"a key"):
            with self.assertRaises(MembershipRefused):
                cluster.result(leader.remove_member(others[1], token))

    def test_a_removal_that_is_tried_again_gets_the_first_outcome(self) -> None:
        cluster = Cluster(3)
        leader = cluster.leader()
        gone = next(n for n in cluster.nodes() if n is not leader).pump.node_id
        for _ in range(2):
            cluster.result(leader.remove_member(gone, b"a key"))
        with self.assertRaises(UnknownMember):
            cluster.result(leader.remove_member(gone))

    def test_changes_asked_for_at_once_are_all_carried_out(self) -> None:
        cluster = Cluster(3)
        cluster.leader()
        asked = [
            cluster.node(1 + n % 3).add_member(10 + n, url(10 + n)) for n in range(6)
        ]
        for one in asked:
            cluster.result(one)
        self.assertEqual(
            cluster.leader().replica.store.conf_state.learners, tuple(range(10, 16))
        )

    def test_leadership_is_handed_over(self) -> None:
        cluster = Cluster(3)
        old = cluster.leader()
        to = next(n for n in cluster.nodes() if n is not old).pump.node_id
        self.assertEqual(cluster.result(old.transfer_leadership(to)), to)
        self.assertEqual(cluster.leader().pump.node_id, to)

    def test_no_write_fails_while_leadership_is_handed_over(self) -> None:
        cluster = Cluster(3)
        old = cluster.leader()
        writes = []
        for number in range(40):
            node = cluster.nodes()[number % 3]
            writes.append(node.write(Put(b"k%d" % number, b"v")))
            if number == 20:
                handed_over = old.hand_over()
            cluster.run(0.001)
        cluster.result(handed_over)
        for write in writes:
            cluster.result(write)
        self.assertIs(old.pump.raft.core.role, Role.FOLLOWER)
