"""A store sent whole, and what is durable without the log."""

from __future__ import annotations

from collections.abc import Iterator

from kvdb.peer.snapshots import MAX_CHUNK_BYTES
from kvdb.raft.messages import ConfState
from kvdb.storage.records import MAX_ENTRY_BYTES
from kvdb.store import snapshot
from kvdb.store.commands import (
    Compact,
    Delete,
    Put,
    Record,
)
from kvdb.store.snapshot import BadSnapshot
from kvdb.store.store import Store
from tests.store.entries import bootstrap, do
from tests.store.suite import OnRocks, StoreTestCase


class FlushesTests(StoreTestCase):
    """What is durable without the log."""

    def test_a_flush_covers_what_was_applied_when_it_began(self) -> None:
        self.assertEqual(self.store.poll_flush(), 1)
        self.do(Put(b"k", bytes(10_000)))
        self.assertEqual(self.store.poll_flush(), 1)
        self.store.begin_flush()
        self.do(Put(b"k", b""))
        for _ in range(100_000):
            if self.store.poll_flush() != 1:
                break
        self.assertEqual(self.store.poll_flush(), 2)
        self.assertFalse(self.store.flushing)


class FlushesOnRocksTests(OnRocks, FlushesTests):
    """On the engine of real members."""


class LongValuesTests(StoreTestCase):
    """Chunks hold whole pairs, and a value may be longer than most chunks."""

    def test_the_longest_value_fits_into_what_peers_carry(self) -> None:
        key, value = b"/" + bytes(4095), bytes(MAX_ENTRY_BYTES - 8192)
        almost = bytes(snapshot.CHUNK_BYTES - 200)
        self.do(Put(b"/", almost), Put(key, value), Put(key, b""))
        chunks = self.store.open_snapshot().chunks()
        longest = max(map(len, chunks))
        self.assertGreater(longest, len(value))
        self.assertLessEqual(longest, MAX_CHUNK_BYTES)


class SnapshotsTests(StoreTestCase):
    """A store sent whole."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(snapshot, "CHUNK_BYTES", 2000)
        for number in range(50):
            self.do(Put(b"key %d" % (number % 30), bytes([number]) * 300))
        self.do(Delete(b"key 3"), Put(b"t", b"", idempotency_key=b"t"), Compact(20))
        self.store.compact_slice(1000)

    def chunks(self) -> Iterator[bytes]:
        taken = self.store.open_snapshot()
        yield from taken.chunks()
        taken.close()

    def other(self) -> Store:
        """A member that holds something else."""
        other = Store.open(self.make_engines())
        self.addCleanup(other.close)
        bootstrap(other)
        do(other, Put(b"mine", b"old"))
        return other

    def test_what_is_received_is_what_was_sent(self) -> None:
        other = self.other()
        receiver = other.receive_snapshot()
        sent = list(self.chunks())
        self.assertGreater(len(sent), 5)
        self.assertLess(max(map(len, sent)), 2500)
        for chunk in sent:
            receiver.write(chunk)
        self.assertEqual(other.get(b"mine"), Record(b"old", 1, 1, 1))
        receiver.finish()
        other.install(receiver)
        self.assertEqual(other.digest(), self.store.digest())
        self.assertIsNone(other.get(b"mine"))
        for name in (
            "applied_index",
            "revision",
            "members",
            "conf_state",
            "cluster_id",
        ):
            self.assertEqual(getattr(other, name), getattr(self.store, name))
        self.assertEqual(other.poll_flush(), self.store.applied_index)
        more = [Put(b"key 1", b"new"), Put(b"t", b"", idempotency_key=b"t")]
        self.assertEqual(do(other, *more), self.do(*more))
        self.assertEqual(other.digest(), self.store.digest())

    def test_what_was_installed_is_there_after_reopening(self) -> None:
        sent, digest = list(self.chunks()), self.store.digest()
        engines = self.make_engines()
        other = Store.open(engines)
        receiver = other.receive_snapshot()
        for chunk in sent:
            receiver.write(chunk)
        receiver.finish()
        other.install(receiver)
        other.close()
        again = Store.open(engines)
        self.assertEqual(again.digest(), digest)
        again.close()

    def test_writes_go_on_while_it_is_sent(self) -> None:
        digest = self.store.digest()
        index, revision = self.store.applied_index, self.store.revision
        taken = self.store.open_snapshot()
        self.assertEqual(
            (taken.index, taken.term, taken.conf_state), (index, 1, ConfState((1,)))
        )
        other = self.other()
        receiver = other.receive_snapshot()
        for number, chunk in enumerate(taken.chunks()):
            receiver.write(chunk)
            self.do(Put(b"key %d" % number, b"later"), Delete(b"key 20"))
        taken.close()
        receiver.finish()
        other.install(receiver)
        self.assertEqual(other.digest(), digest)
        self.assertEqual((other.applied_index, other.revision), (index, revision))

    def test_it_goes_on_when_the_store_is_replaced(self) -> None:
        """As a member's is that gives a backup, and is sent a snapshot itself."""
        expected = list(self.chunks())
        taken = self.store.open_snapshot()
        chunks = taken.chunks()
        begun = [next(chunks), next(chunks)]
        other = self.other()
        self.do(Put(b"later", b""))
        receiver = self.store.receive_snapshot()
        for chunk in other.open_snapshot().chunks():
            receiver.write(chunk)
        receiver.finish()
        self.store.install(receiver)
        self.assertEqual([*begun, *chunks], expected)
        taken.close()
        self.assertEqual(self.store.digest(), other.digest())

    def broken(self, chunks: list[bytes]) -> None:
        """Such a stream makes no store."""
        other = self.other()
        before = other.digest()
        receiver = other.receive_snapshot()
        with self.assertRaises(BadSnapshot):
            for chunk in chunks:
                receiver.write(chunk)
            receiver.finish()
        self.assertRaises(AssertionError, other.install, receiver)
        receiver.abort()
        receiver.abort()
        self.assertEqual(other.digest(), before)
        self.assertEqual(other.get(b"mine"), Record(b"old", 1, 1, 1))

    def test_a_cut_stream_makes_no_store(self) -> None:
        sent = list(self.chunks())
        for length in (0, 1, 2, len(sent) - 1):
            self.broken(sent[:length])
        for number in (0, 1, len(sent) - 1):
            self.broken([*sent[:number], sent[number][:-1], *sent[number + 1 :]])
            self.broken([*sent[:number], sent[number][:1], *sent[number + 1 :]])
            self.broken([*sent[:number], b"", *sent[number + 1 :]])

    def test_a_garbled_stream_makes_no_store(self) -> None:
        sent = list(self.chunks())
        middle = len(sent) // 2
        self.broken([sent[1], *sent])
        self.broken([*sent[:2], *sent[3:]])
        self.broken([*sent[:middle], sent[middle], *sent[middle:]])
        self.broken([*sent, sent[1]])
        self.broken([*sent[:-1], b"\x09what", sent[-1]])
        for number in range(len(sent)):
            garbled = bytearray(sent[number])
            place = len(garbled) // 2 if number else 3
            garbled[place] ^= 1
            self.broken([*sent[:number], bytes(garbled), *sent[number + 1 :]])

    def test_a_snapshot_of_a_later_release_is_refused(self) -> None:
        self.patch(snapshot, "FORMAT_VERSION", 4)
        sent = list(self.chunks())
        self.patch(snapshot, "FORMAT_VERSION", 1)
        self.broken(sent)

    def test_a_snapshot_is_taken_once(self) -> None:
        receiver = self.other().receive_snapshot()
        for chunk in self.chunks():
            receiver.write(chunk)
        receiver.take().close()
        with self.assertRaisesRegex(AssertionError, "taken twice"):
            receiver.take()


class SnapshotsOnRocksTests(OnRocks, SnapshotsTests):
    """On the engine of real members."""
