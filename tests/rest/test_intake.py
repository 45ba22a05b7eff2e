"""Room for long bodies: who is read, who waits, and for how long."""

from __future__ import annotations

import json
import sys

from twisted.trial.unittest import SynchronousTestCase

from kvdb.rest import intake
from kvdb.rest.intake import SHORT_BODY_BYTES, Intake
from kvdb.rest.site import (
    ARRIVE_SECONDS,
    IDLE_SECONDS,
    ROOM_SECONDS,
    SCARCE_SECONDS,
    Site,
)
from tests.rest.local import Conversation, Server, the_long_way

LONG = 2 * SHORT_BODY_BYTES
PIECE = 1 << 14


class Sender:
    """Who sends a body."""

    def __init__(self) -> None:
        self.told = 0

    def go_on(self) -> None:
        self.told += 1


class IntakeTests(SynchronousTestCase):
    """L{Intake}."""

    def setUp(self) -> None:
        self.patch(intake, "MAX_BODIES_BYTES", 10)
        self.intake = Intake()
        self.senders = [Sender() for _ in range(5)]

    def test_bodies_are_let_in_up_to_the_bound_and_the_rest_in_turn(self) -> None:
        a, b, c, d, _ = self.senders
        self.assertTrue(self.intake.admit(a, 6))
        self.assertTrue(self.intake.admit(b, 4))
        self.assertFalse(self.intake.admit(c, 5))
        self.assertFalse(self.intake.admit(d, 1), "nobody overtakes")
        self.intake.release(b)
        self.assertEqual((c.told, d.told, self.intake.held_bytes), (0, 0, 6))
        self.intake.release(a)
        self.assertEqual((c.told, d.told, self.intake.held_bytes), (1, 1, 6))
        self.assertFalse(self.intake.is_full)

    def test_a_body_longer_than_the_bound_is_let_in_alone(self) -> None:
        a, b, c, *_ = self.senders
        self.assertTrue(self.intake.admit(a, 1))
        self.assertFalse(self.intake.admit(b, 11))
        self.assertFalse(self.intake.admit(c, 1))
        self.intake.release(a)
        self.assertEqual((b.told, c.told), (1, 0))
        self.intake.release(b)
        self.assertEqual((c.told, self.intake.held_bytes), (1, 1))

    def test_who_gives_up_waiting_makes_way(self) -> None:
        a, b, c, *_ = self.senders
        self.intake.admit(a, 6)
        self.intake.admit(b, 9)
        self.intake.admit(c, 4)
        self.intake.release(b)
        self.assertEqual((b.told, c.told, self.intake.held_bytes), (0, 1, 10))
        for sender in (a, b, c, c):
            self.intake.release(sender)
        self.assertEqual(self.intake.held_bytes, 0)


class Upload:
    """A connection that sends what is read, as TCP has it."""

    def __init__(self, site: Site, body: bytes, key: bytes, head: bytes) -> None:
        self.talk = Conversation(site)
        self.rest = b"PUT /%b HTTP/1.1\r\nHost: n\r\n%b\r\n" % (key, head) + body

    def send(self, most: int = 1 << 30) -> int:
        """How much was taken."""
        sent = 0
        while self.rest and sent < most and not self.is_paused:
            piece = self.rest[: min(PIECE, most - sent)]
            self.rest = self.rest[len(piece) :]
            sent += len(piece)
            self.talk.say(piece)
        return sent

    @property
    def is_paused(self) -> bool:
        return bool(self.talk.transport.producerState == "paused")


class Surface(SynchronousTestCase):
    """The server, with room for two long bodies."""

    def setUp(self) -> None:
        self.patch(intake, "MAX_BODIES_BYTES", 2 * LONG)
        self.server = Server()
        self.server.database.hold = True
        self.site = self.server.site()
        self.uploads: list[Upload] = []

    def upload(self, length: int = LONG, *, chunked: bool = False) -> Upload:
        body, head = bytes(length), b"Content-Length: %d\r\n" % length
        if chunked:
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (length, body)
            head = b"Transfer-Encoding: chunked\r\n"
        made = Upload(self.site, body, b"k%d" % len(self.uploads), head)
        self.uploads.append(made)
        return made

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.server.clock.advance(1)

    def answer(self) -> None:
        """Carry out the oldest write that waits."""
        database = self.server.database
        database.held.pop(0).callback(database.outcomes[0])

    def statuses(self, upload: Upload) -> list[int]:
        return [reply.status for reply in upload.talk.replies()]

    def end(self) -> None:
        """All is answered and hung up, and all room is given back."""
        while self.server.database.held:
            self.answer()
        for upload in self.uploads:
            upload.talk.hang_up()
        self.assertEqual(
            (self.site.intake.held_bytes, self.site.intake.is_full), (0, 0)
        )

    def test_what_finds_no_room_is_not_read_and_goes_on_in_its_turn(self) -> None:
        uploads = [self.upload() for _ in range(4)]
        for upload in uploads:
            upload.send()
        self.assertEqual([u.is_paused for u in uploads], [False, False, True, True])
        for upload in uploads[2:]:
            self.assertGreater(len(upload.rest), LONG - 2 * PIECE)
        self.answer()
        self.assertEqual([u.is_paused for u in uploads[2:]], [False, True])
        uploads[2].send()
        self.answer()
        self.answer()
        uploads[3].send()
        self.answer()
        for upload in uploads:
            self.assertEqual(self.statuses(upload), [204])
        self.end()

    def test_half_bodies_do_not_wait_for_each_other(self) -> None:
        uploads = [self.upload() for _ in range(9)]
        while any(upload.rest for upload in uploads):
            taken = sum(upload.send(PIECE) for upload in uploads)
            if self.server.database.held:
                self.answer()
            else:
                self.assertTrue(taken, "nobody can go on")
        while self.server.database.held:
            self.answer()
        self.assertEqual([self.statuses(u) for u in uploads], [[204]] * 9)
        self.end()

    def test_short_ones_and_those_without_a_body_are_not_held_up(self) -> None:
        for _ in range(3):
            self.upload().send()
        short = self.upload(SHORT_BODY_BYTES)
        short.send()
        self.assertEqual(short.rest, b"")
        self.server.database.hold = False
        talk = Conversation(self.site)
        talk.say(b"GET /k0 HTTP/1.1\r\nHost: n\r\n\r\n")
        self.assertEqual([reply.status for reply in talk.replies()], [200])
        talk.hang_up()
        self.end()

    def test_a_body_that_nobody_looks_at_takes_no_room(self) -> None:
        for method in (b"GET", b"DELETE"):
            upload = self.upload()
            upload.rest = upload.rest.replace(b"PUT", method)
            upload.send()
            self.assertEqual(self.site.intake.held_bytes, 0)
            request = upload.talk.protocol.requests[0]
            self.assertEqual(request.content.getvalue(), b"")
        self.end()

    def test_of_a_chunked_body_the_longest_is_expected(self) -> None:
        first, second = (self.upload(chunked=True) for _ in range(2))
        first.send()
        second.send()
        self.assertEqual((first.is_paused, second.is_paused), (False, True))
        self.answer()
        second.send()
        self.answer()
        self.assertEqual((self.statuses(first), self.statuses(second)), ([204], [204]))
        self.end()

    def test_who_hangs_up_gives_the_room_back(self) -> None:
        uploads = [self.upload() for _ in range(4)]
        for upload in uploads:
            upload.send(2 * PIECE)
        self.assertTrue(uploads[2].is_paused)
        uploads[3].talk.hang_up()
        uploads[0].talk.hang_up()
        self.assertFalse(uploads[2].is_paused)
        del self.uploads[3], self.uploads[0]
        self.end()

    def test_what_is_read_all_the_same_is_held_up_again(self) -> None:
        """As when the transport goes on because an earlier answer was sent."""
        for _ in range(3):
            self.upload().send()
        waiting = self.uploads[2]
        for _ in range(3):
            waiting.talk.protocol.resumeProducing()
            waiting.send(PIECE)
            self.assertTrue(waiting.is_paused)
        self.answer()
        waiting.send()
        self.answer()
        self.answer()
        self.assertEqual(self.statuses(waiting), [204])
        self.end()

    def test_the_next_of_a_connection_is_counted_as_well(self) -> None:
        for _ in range(2):
            self.upload().send()
        again = self.uploads[0]
        again.rest = (
            b"PUT /again HTTP/1.1\r\nHost: n\r\nContent-Length: %d\r\n\r\n" % LONG
        )
        again.rest += bytes(LONG)
        self.upload().send()
        self.answer()
        self.assertFalse(self.uploads[2].is_paused)
        again.send()
        self.assertTrue(again.is_paused)
        self.answer()
        self.assertFalse(again.is_paused)
        again.send()
        self.uploads[2].send()
        self.answer()
        self.answer()
        self.assertEqual(self.statuses(again), [204, 204])
        self.end()

    def test_the_time_in_which_it_was_not_read_is_not_its_senders(self) -> None:
        self.patch_room(IDLE_SECONDS * 9)
        uploads = [self.upload() for _ in range(3)]
        for upload in uploads:
            upload.send()
        self.pass_time(3 * max(ARRIVE_SECONDS, IDLE_SECONDS))
        self.assertFalse(uploads[2].talk.transport.disconnecting)
        self.answer()
        self.pass_time(ARRIVE_SECONDS - 2)
        self.assertFalse(uploads[2].talk.transport.disconnecting)
        uploads[2].send()
        self.answer()
        self.answer()
        self.assertEqual(self.statuses(uploads[2]), [204])
        self.end()

    def patch_room(self, seconds: float) -> None:
        self.patch(sys.modules[Site.__module__], "ROOM_SECONDS", seconds)

    def test_after_a_time_it_is_dropped_as_it_comes_and_its_sender_told(self) -> None:
        uploads = [self.upload() for _ in range(3)]
        for upload in uploads:
            upload.send()
        self.pass_time(ROOM_SECONDS - 1)
        self.assertTrue(uploads[2].is_paused)
        self.pass_time(3)
        held = self.site.intake.held_bytes
        self.assertEqual(self.statuses(uploads[2]), [])
        uploads[2].send()
        [reply] = uploads[2].talk.replies()
        self.assertEqual(reply.status, 503)
        self.assertIn("retry-after", reply.headers)
        self.assertIn("nothing was done", json.loads(reply.body)["detail"])
        self.assertEqual(self.site.intake.held_bytes, held)
        self.assertEqual(len(self.server.database.held), 2)
        # The connection is as good as before.
        self.answer()
        uploads[2].rest = b"GET /none HTTP/1.1\r\nHost: n\r\n\r\n"
        self.server.database.hold = False
        uploads[2].send()
        self.assertEqual(self.statuses(uploads[2]), [404])
        self.end()

    def test_while_others_wait_a_body_must_come_faster(self) -> None:
        uploads = [self.upload() for _ in range(3)]
        uploads[0].send(2 * PIECE)
        uploads[1].send()
        self.pass_time(SCARCE_SECONDS + 2)
        self.assertFalse(uploads[0].talk.transport.disconnecting)
        uploads[2].send()
        self.assertTrue(uploads[2].is_paused)
        self.pass_time(1)
        self.assertEqual(self.statuses(uploads[0]), [408])
        self.assertTrue(uploads[0].talk.transport.disconnecting)
        uploads[0].talk.hang_up()
        self.assertFalse(uploads[2].is_paused)
        del self.uploads[0]
        self.end()


SurfaceTheLongWay = the_long_way(Surface)
