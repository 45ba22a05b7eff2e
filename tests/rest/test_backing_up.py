"""Backups over HTTP."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from kvdb.interfaces import Unavailable
from kvdb.node import backups
from kvdb.node.backups import MAX_BACKUPS
from kvdb.rest.backing_up import STALL_SECONDS
from kvdb.store.backup import BackupReader, BadBackup
from kvdb.store.commands import Put
from tests.rest.local import Conversation, Server


def body_of(talk: Conversation) -> tuple[bytes, bytes, bool]:
    """Head and body so far, and whether it has its end."""
    head, _, data = talk.transport.value().partition(b"\r\n\r\n")
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            return head, body, True
        body += data[:length]
        data = data[length + 2 :]
    return head, body, False


class BackingUpTests(SynchronousTestCase):
    """C{GET /_/snapshot}."""

    def setUp(self) -> None:
        self.patch(backups, "PIECE_BYTES", 1000)
        self.server = Server()
        self.database = self.server.database
        for number in range(100):
            self.database.write(Put(b"/k%03d" % number, b"v" * 50))

    def begin(self, query: str = "") -> Conversation:
        talk = self.server.connect()
        talk.say(f"GET /_/snapshot{query} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
        return talk

    def turns(self, number: int) -> None:
        for _ in range(number):
            clock = self.server.clock
            for call in [c for c in clock.calls if c.getTime() <= clock.seconds()]:
                self.server.clock.calls.remove(call)
                call.called = 1
                call.func(*call.args, **call.kw)

    def test_the_whole_store_as_of_its_beginning(self) -> None:
        talk = self.begin()
        self.turns(2)
        self.database.write(Put(b"/later", b"v"))
        self.turns(100)
        head, body, ended = body_of(talk)
        self.assertTrue(ended)
        self.assertIn(b"Content-Type: application/vnd.kvdb.snapshot", head)
        self.assertIn(b"X-Kvdb-Revision: 100", head)
        self.assertIn(b"X-Kvdb-Cluster-Id: 0000000000000007", head)
        reader = BackupReader()
        data = b"".join(reader.feed(body))
        header = reader.finish()
        self.assertEqual((header.revision, header.cluster_id), (100, 7))
        self.assertEqual(data.count(b"k/k0"), 100)
        self.assertNotIn(b"/later", data)
        self.assertEqual(self.database.backups.open, 0)

    def test_it_is_read_no_faster_than_it_is_taken(self) -> None:
        talk = self.begin()
        self.turns(3)
        _, before, _ = body_of(talk)
        talk.protocol.pauseProducing()
        self.turns(20)
        self.assertEqual(body_of(talk)[1], before)
        self.server.clock.advance(STALL_SECONDS - 1)
        self.assertEqual(body_of(talk)[1], before)
        talk.protocol.resumeProducing()
        self.turns(100)
        self.assertTrue(body_of(talk)[2])
        calls = self.server.clock.getDelayedCalls()
        self.assertFalse([c for c in calls if c.getTime() > STALL_SECONDS])

    def test_a_reader_that_takes_nothing_is_cut_off(self) -> None:
        """So that it does not keep the engine's files for ever."""
        talk = self.begin()
        self.turns(3)
        talk.protocol.pauseProducing()
        self.server.clock.advance(STALL_SECONDS)
        self.assertTrue(talk.transport.disconnected)
        talk.hang_up()
        self.assertEqual(self.database.backups.open, 0)
        self.assertFalse(body_of(talk)[2])

    def test_one_that_hangs_up_lets_go(self) -> None:
        talk = self.begin()
        self.turns(2)
        self.assertEqual(self.database.backups.open, 1)
        talk.hang_up()
        self.assertEqual(self.database.backups.open, 0)
        self.turns(5)

    def test_there_is_a_bound(self) -> None:
        talks = [self.begin() for _ in range(MAX_BACKUPS)]
        reply = self.server.ask("GET", "/_/snapshot")
        self.assertEqual((reply.status, reply.headers["retry-after"]), (503, "1"))
        talks[0].hang_up()
        self.begin()

    def test_what_cannot_be_read_cuts_it_off(self) -> None:
        talk = self.begin()
        self.turns(2)

        def fails() -> bytes:
            raise OSError("a bad block")

        talk.protocol.requests[0].producer._source._backup.pieces = iter(fails, b"")
        self.turns(5)
        self.assertTrue(talk.transport.disconnected)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        _, body, ended = body_of(talk)
        self.assertFalse(ended)
        reader = BackupReader()
        list(reader.feed(body))
        with self.assertRaises(BadBackup):
            reader.finish()

    def test_linearizable_unless_asked_otherwise(self) -> None:
        self.database.failure = Unavailable("no leader")
        self.assertEqual(self.server.ask("GET", "/_/snapshot").status, 503)
        self.begin("?consistency=stale")
        self.assertEqual(self.database.backups.open, 1)

    def test_head_opens_none(self) -> None:
        reply = self.server.ask("HEAD", "/_/snapshot")
        self.assertEqual(reply.status, 200)
        self.assertEqual(self.database.backups.open, 0)

    def test_what_is_wrong_is_said(self) -> None:
        reply = self.server.ask("GET", "/_/snapshot?revision=1")
        self.assertEqual(reply.status, 400)
        self.assertIn("unknown query parameter", json.loads(reply.body)["detail"])
        self.assertEqual(self.server.ask("POST", "/_/snapshot").status, 405)
