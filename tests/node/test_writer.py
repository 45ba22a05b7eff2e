"""In which order what is asked for becomes durable, and who is told when."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from kvdb.node.writer import LOOK_BYTES, LogWriter
from kvdb.raft.messages import Entry, HardState, Message, MessageType, Snapshot
from kvdb.storage.filesystem import DiskFull, SyncFailed


class Disk:
    """A log whose syncs end when the test says so."""

    def __init__(self) -> None:
        self.hard_state = HardState(7, 3, 5)
        self.done: list[str] = []
        self.syncs: list[Deferred[None]] = []
        self.full = False

    def append(self, entries: Sequence[Entry], hard_state: HardState | None) -> None:
        if self.full:
            raise DiskFull("no space")
        self.done.append(f"append {[entry.index for entry in entries]}")
        self.hard_state = hard_state or self.hard_state

    def sync(self) -> Deferred[None]:
        self.syncs.append(Deferred())
        return self.syncs[-1]

    def begin_install(self) -> None:
        self.done.append("begin install")

    def reset(self, index: int, term: int, hard_state: HardState) -> None:
        if self.full:
            raise DiskFull("no space")
        self.done.append(f"reset {index}")
        self.hard_state = hard_state


def answer(number: int) -> Message:
    """A response that can be told from others."""
    return Message(MessageType.APP_RESP, to=2, index=number)


class WriterTests(SynchronousTestCase):
    """Jobs, syncs, responses."""

    def setUp(self) -> None:
        self.disk = Disk()
        self.clock = Clock()
        self.told: list[int] = []
        self.failures: list[Failure] = []
        self.writer = LogWriter(
            self.disk,
            lambda messages: self.told.extend(m.index for m in messages),
            lambda snapshot: self.disk.done.append(f"install {snapshot.index}"),
            self.failures.append,
            self.clock,
            slow_seconds=0.5,
        )

    def submit(
        self, number: int, *, entries: bool = True, snapshot: Snapshot | None = None
    ) -> None:
        message = Message(
            MessageType.STORAGE_APPEND,
            term=1 if entries else 0,
            entries=[Entry(1, number)] if entries else [],
            snapshot=snapshot,
            responses=[answer(number)],
        )
        self.writer.submit(message, entries)

    def test_nobody_is_told_before_it_is_durable(self) -> None:
        self.submit(1)
        self.assertEqual((self.disk.done, self.told), (["append [1]"], []))
        self.assertFalse(self.writer.idle)
        self.disk.syncs[0].callback(None)
        self.assertEqual(self.told, [1])
        self.assertTrue(self.writer.idle)

    def test_entries_wait_until_the_disk_has_room_for_what_the_store_will_write(
        self,
    ) -> None:
        space: list[int] = []

        def room() -> int:
            if not space:
                raise DiskFull("no room")
            return space.pop()

        def submit(index: int, data: bytes) -> None:
            entries = [Entry(1, index, data=data)]
            message = Message(MessageType.STORAGE_APPEND, entries=entries)
            self.writer.submit(message, must_sync=False)

        self.writer.room = room
        submit(0, b"")  # a leader's first, which takes nothing of the store
        self.assertEqual(self.disk.done.pop(), "append [0]")
        submit(1, b"x")
        submit(2, b"x")
        self.assertEqual(self.disk.done, [])
        self.assertEqual(str(self.writer.full), "no room")
        self.writer.write()
        self.assertEqual(self.disk.done, [])
        space.append(2 * LOOK_BYTES)
        self.writer.write()
        self.assertEqual(self.disk.done, ["append [1]", "append [2]"])
        self.assertIsNone(self.writer.full)
        # It looks again after so many bytes, and not for each entry.
        submit(3, b"x" * LOOK_BYTES)
        self.assertEqual(str(self.writer.full), "no room")
        self.assertEqual(len(self.disk.done), 2)

    def test_with_an_interval_entries_are_synced_within_it(self) -> None:
        self.writer.sync_interval = 0.05
        self.submit(1)  # of another term than the one remembered
        self.assertEqual((self.told, len(self.disk.syncs)), ([], 1))
        self.submit(2)
        self.assertEqual(self.told, [], "none before those asked for earlier")
        self.disk.syncs[0].callback(None)
        self.assertEqual(self.told, [1, 2])
        self.submit(3)
        self.assertEqual((self.told, len(self.disk.syncs)), ([1, 2, 3], 1))
        self.assertFalse(self.writer.idle)
        self.clock.advance(0.025)
        self.assertEqual(len(self.disk.syncs), 2)
        self.disk.syncs[1].errback(Failure(SyncFailed("it is broken")))
        self.assertEqual(len(self.failures), 1)

    def test_with_an_interval_a_disk_that_hangs_is_waited_for(self) -> None:
        self.writer.sync_interval = 0.05
        self.submit(1)
        self.disk.syncs.pop().callback(None)
        for number in range(2, 12):
            self.submit(number)
            self.clock.advance(0.01)
        # Synced from 0.02 or 0.03 s on, and the oldest is of 0: five or six of ten.
        self.assertEqual(self.told, [1, *range(2, 7)])
        self.assertEqual(len(self.disk.syncs), 1 + 5)
        self.assertFalse(self.writer.idle)
        for sync in list(self.disk.syncs):
            sync.callback(None)
        self.assertEqual(self.told, [*range(1, 12)])
        self.clock.advance(1)
        for sync in self.disk.syncs[6:]:
            sync.callback(None)
        self.assertTrue(self.writer.idle)
        self.submit(12)
        self.assertEqual(self.told[-1], 12)

    def test_with_an_interval_no_sync_is_asked_for_after_a_stop(self) -> None:
        self.writer.sync_interval = 0.05
        self.submit(1)
        self.disk.syncs.pop().callback(None)
        self.submit(2)
        self.clock.advance(0.025)
        self.submit(3)
        self.writer.stop()
        self.disk.syncs.pop().callback(None)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_with_an_interval_votes_and_memberships_are_synced_first(self) -> None:
        self.writer.sync_interval = 0.05
        vote = Message(
            MessageType.STORAGE_APPEND, term=8, vote=2, responses=[answer(1)]
        )
        self.writer.submit(vote, must_sync=True)
        self.assertEqual((self.told, len(self.disk.syncs)), ([], 1))
        self.disk.syncs[0].callback(None)
        self.writer.remember()
        self.assertEqual(len(self.disk.syncs), 2)

    def test_an_answer_waits_for_what_was_asked_before_it(self) -> None:
        self.submit(1)
        self.submit(2, entries=False)
        self.assertEqual(self.told, [])
        self.disk.syncs[0].callback(None)
        self.assertEqual(self.told, [1, 2])
        self.submit(3, entries=False)
        self.assertEqual(self.told, [1, 2, 3])

    def test_answers_keep_their_order_whatever_sync_ends_first(self) -> None:
        for number in (1, 2, 3):
            self.submit(number)
        self.disk.syncs[1].callback(None)
        self.assertEqual(self.told, [1, 2])
        self.disk.syncs[0].callback(None)
        self.assertEqual(self.told, [1, 2])
        self.disk.syncs[2].callback(None)
        self.assertEqual(self.told, [1, 2, 3])

    def test_what_was_remembered_stays_until_it_changes(self) -> None:
        # As after a restart: the leader and the term are those of before.
        message = Message(MessageType.STORAGE_APPEND, entries=[Entry(7, 6)])
        self.writer.submit(message, must_sync=True)
        self.assertEqual(self.disk.hard_state, HardState(7, 3, 5))
        message = Message(MessageType.STORAGE_APPEND, snapshot=Snapshot(8, 7))
        self.writer.submit(message, must_sync=False)
        self.assertEqual(self.disk.hard_state, HardState(7, 3, 5))

    def test_a_full_disk_holds_everything_up_and_loses_nothing(self) -> None:
        self.disk.full = True
        self.submit(1)
        self.submit(2)
        self.assertIsNotNone(self.writer.full)
        self.assertEqual((self.disk.done, self.disk.syncs), ([], []))
        self.disk.full = False
        self.writer.write()
        self.assertIsNone(self.writer.full)
        self.assertEqual(self.disk.done, ["append [1]", "append [2]"])

    def test_what_follows_from_an_answer_is_written_behind_it(self) -> None:
        self.submit(1)  # of another term, so synced
        self.disk.syncs[0].callback(None)
        self.writer.sync_interval = 0.05
        self.disk.full = True
        for number in (2, 3):
            self.submit(number)

        def deliver(messages: Sequence[Message]) -> None:
            self.told.extend(m.index for m in messages)
            if self.told[-1] < 4:
                self.submit(self.told[-1] + 2)

        self.writer.deliver = deliver
        self.disk.full = False
        self.writer.write()
        self.assertEqual(self.disk.done, [f"append [{n}]" for n in (1, 2, 3, 4, 5)])
        self.assertEqual(self.told, [1, 2, 3, 4, 5])

    def test_a_snapshots_state_is_in_place_before_the_log_forgets(self) -> None:
        self.submit(9, snapshot=Snapshot(8, 1))
        self.assertEqual(
            self.disk.done, ["begin install", "install 8", "reset 8", "append [9]"]
        )

    def test_a_snapshot_is_installed_once_though_the_disk_is_full(self) -> None:
        self.disk.full = True
        self.submit(9, snapshot=Snapshot(8, 1))
        self.disk.full = False
        self.writer.write()
        self.assertEqual(
            self.disk.done, ["begin install", "install 8", "reset 8", "append [9]"]
        )

    def test_a_sync_that_fails_is_the_end(self) -> None:
        self.submit(1)
        self.disk.syncs[0].errback(Failure(SyncFailed("gone")))
        self.assertEqual([f.type for f in self.failures], [SyncFailed])
        self.assertEqual(self.told, [])

    def test_a_slow_sync_is_mentioned(self) -> None:
        said: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event["log_level"] is LogLevel.warn:
                said.append(str(event["log_format"]))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        for seconds in (0.4, 0.6):
            self.submit(1)
            self.clock.advance(seconds)
            self.disk.syncs[-1].callback(None)
        self.assertEqual(len(said), 1)
