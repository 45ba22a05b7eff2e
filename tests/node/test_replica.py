"""Log and store are put in step at a start."""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvdb.node.replica import open_replica
from kvdb.raft.messages import Entry, HardState, Snapshot
from kvdb.raft.storage import SnapshotTemporarilyUnavailable
from kvdb.simulation.filesystem import SimulatedFileSystem
from kvdb.storage.instance import PartsDiffer
from kvdb.storage.log import Identity, Log
from kvdb.store.commands import Member, RegisterInstance
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Store
from tests.store.entries import entry


class ReplicaTests(SynchronousTestCase):
    """A store ahead of its log, behind it, or of another history."""

    def setUp(self) -> None:
        clock = Clock()
        disk = SimulatedFileSystem(clock, Random(1))
        self.log = Log.open(disk, "/log", clock)
        self.log.set_identity(Identity(1, 1, 1))
        self.store = Store.open(MemoryEngines())

    def fill(self, log_terms: list[int], store_terms: list[int], commit: int) -> None:
        """Entries from index 2 on, behind a bootstrap."""
        self.store.bootstrap(1, [Member(1, "http://h:1")])
        open_replica(self.log, self.store)
        entries = [Entry(term, 2 + n) for n, term in enumerate(log_terms)]
        self.log.append(entries, HardState(max(log_terms), 1, commit))
        for number, term in enumerate(store_terms):
            self.store.apply([Entry(term, 2 + number)])

    def test_a_bootstrapped_store_gives_the_log_its_beginning(self) -> None:
        self.store.bootstrap(1, [Member(1, "http://h:1")])
        replica = open_replica(self.log, self.store)
        self.assertEqual((replica.first_index(), replica.last_index()), (2, 1))
        self.assertEqual(replica.snapshot(), Snapshot(1, 1, self.store.conf_state))

    def test_an_empty_store_has_no_snapshot(self) -> None:
        replica = open_replica(self.log, self.store)
        self.assertRaises(SnapshotTemporarilyUnavailable, replica.snapshot)

    def test_what_is_applied_is_committed(self) -> None:
        self.fill([2, 2, 2], [2, 2], commit=1)
        hard_state, _ = open_replica(self.log, self.store).initial_state()
        self.assertEqual(hard_state.commit, 3)

    def test_an_install_that_a_crash_interrupted_is_completed(self) -> None:
        self.fill([2], [2, 3, 4], commit=2)
        self.log.begin_install()
        replica = open_replica(self.log, self.store)
        self.assertEqual((replica.last_index(), replica.term(4)), (4, 4))
        self.assertEqual(self.log.hard_state, HardState(4, 0, 4))

    def test_once_it_is_completed_a_log_that_ends_before_its_store_is_refused(
        self,
    ) -> None:
        self.fill([2], [2, 3, 4], commit=2)
        self.log.begin_install()
        open_replica(self.log, self.store)
        self.store.apply([Entry(4, 5)])
        self.assertRaises(PartsDiffer, open_replica, self.log, self.store)

    def test_an_install_that_a_crash_prevented_is_forgotten(self) -> None:
        self.fill([2], [2], commit=2)
        self.log.begin_install()
        open_replica(self.log, self.store)
        self.store.apply([Entry(2, 3)])
        self.assertRaises(PartsDiffer, open_replica, self.log, self.store)

    def test_a_store_ahead_of_its_log_for_no_known_reason_is_refused(self) -> None:
        for terms in ([2, 3, 4], [3]):
            self.setUp()
            self.fill([2], terms, commit=2)
            error = self.assertRaises(PartsDiffer, open_replica, self.log, self.store)
            self.assertIn("/log", str(error))
            self.assertIn("Mount the volume", str(error))

    def test_a_store_of_another_cluster_or_instance_is_refused(self) -> None:
        self.fill([2], [2], commit=2)
        for other in (Identity(2, 1, 1), Identity(0, 1, 1)):
            self.log.set_identity(other)
            self.assertRaises(PartsDiffer, open_replica, self.log, self.store)
        self.store.apply([entry(3, RegisterInstance(1, 7))])
        self.log.append([entry(3, RegisterInstance(1, 7))], None)
        self.log.set_identity(Identity(1, 1, 1))
        self.assertRaises(PartsDiffer, open_replica, self.log, self.store)
        self.log.set_identity(Identity(1, 1, 7))
        open_replica(self.log, self.store)

    def test_a_log_of_another_history_begins_anew_behind_the_store(self) -> None:
        self.fill([2, 2, 2, 2, 2], [2, 3], commit=5)
        self.log.begin_install()
        replica = open_replica(self.log, self.store)
        self.assertEqual((replica.last_index(), replica.term(3)), (3, 3))
        hard_state, _ = replica.initial_state()
        self.assertEqual(hard_state.commit, 3)

    def test_entries_that_are_missing_are_not_made_up(self) -> None:
        self.log.reset(10, 2, HardState(2, 0, 10))
        self.assertRaises(PartsDiffer, open_replica, self.log, self.store)
