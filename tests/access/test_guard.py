"""Who asks: checked once, remembered, and slowed down where it fails."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvdb.access import secrets
from kvdb.access.guard import (
    FAILURES,
    MAX_ADDRESSES,
    MAX_CHECKS,
    MAX_REMEMBERED,
    Refused,
    TooBusy,
    TooManyFailures,
    credentials_of,
)
from kvdb.access.rules import Principal
from kvdb.access.secrets import Hashed
from kvdb.rest.call import Call
from tests.access.files import Beside, Guarded, access

HERE = "192.0.2.1"


def basic(name: str, secret: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{name}:{secret}".encode())


READER, WRONG = basic("reader", "reader"), basic("reader", "other")


class Identifying(SynchronousTestCase):
    def setUp(self) -> None:
        self.guarded = Guarded()
        self.guard, self.beside = self.guarded.guard, self.guarded.beside

    def identify(self, header: bytes | None, address: str = HERE) -> Any:
        """A principal, or what was raised."""
        found: list[Any] = []
        try:
            done: Deferred[Any] = self.guard.identify(header, address)
        except (Refused, TooBusy) as error:
            return error
        done.addBoth(found.append)
        [result] = found
        return result if isinstance(result, Principal) else result.value

    def test_each_way_to_show_a_secret(self) -> None:
        for header in (
            READER,
            b"basic " + READER[6:],
            b"Bearer reader.reader",
            b"bearer   reader.reader ",
        ):
            self.assertEqual(self.identify(header).name, "reader")
        self.assertIsNone(self.identify(None).name)

    def test_what_holds_no_secret(self) -> None:
        for header in (
            b"",
            b"Basic",
            b"Basic !",
            b"Basic " + base64.b64encode(b"reader"),
            b"Basic " + base64.b64encode(b"reader:"),
            b"Basic " + base64.b64encode("é:x".encode()),
            b"Bearer reader",
            b"Bearer reader." + b"x" * 257,
            b"Digest reader:reader",
        ):
            self.assertIsNone(credentials_of(header))
        self.assertIsInstance(self.identify(b"Basic !"), Refused)
        self.assertEqual(self.beside.done, 0)

    def test_a_secret_is_checked_once(self) -> None:
        for _ in range(100):
            self.assertEqual(self.identify(READER).name, "reader")
        self.assertEqual(self.beside.done, 1)
        known = self.guard.known(READER)
        assert known is not None
        self.assertEqual(known.name, "reader")
        self.assertIsNone(self.guard.known(WRONG))

    def test_a_wrong_one_is_checked_once_too(self) -> None:
        for _ in range(5):
            self.assertIsInstance(self.identify(WRONG), Refused)
        self.assertEqual(self.beside.done, 1)

    def test_a_name_that_is_not_known_costs_as_much(self) -> None:
        error = self.identify(basic("stranger", "x"))
        self.assertEqual(self.beside.done, 1)
        self.assertEqual(str(error), str(self.identify(WRONG)))
        self.assertEqual(self.beside.done, 2)

    def test_and_as_much_as_the_file_says(self) -> None:
        """Where it has dearer ones than this release makes."""
        dear = {f"user{n}": "x" for n in range(4)}
        self.guard.replace(access(secret_of=dear, log_n=12))
        tried: list[int] = []

        def derive(how: Hashed, secret: bytes) -> bytes:
            tried.append(how.log_n)
            return b""

        self.patch(secrets, "_scrypt", derive)
        for name in ("user1", "stranger", "somebody"):
            self.assertIsInstance(self.identify(basic(name, "guess")), Refused)
        self.assertEqual(tried, [12, 12, 12])

    def test_those_who_show_the_same_wait_together(self) -> None:
        self.beside.at_once = False
        waiting = [self.guard.identify(READER, HERE) for _ in range(3)]
        waiting[1].addErrback(lambda _: None).cancel()  # its client hung up
        self.assertEqual(len(self.beside.waiting), 1)
        self.beside.work()
        for done in (waiting[0], waiting[2]):
            self.assertEqual(self.successResultOf(done).name, "reader")

    def test_only_so_many_wait(self) -> None:
        self.beside.at_once = False
        for number in range(MAX_CHECKS):
            self.guard.identify(basic("reader", f"{number}"), f"192.0.2.{number}")
        with self.assertRaises(TooBusy):
            self.guard.identify(READER, HERE)
        # Who is known already is none of them.
        self.assertEqual(len(self.beside.waiting), MAX_CHECKS)

    def test_of_one_address_only_so_many_wait(self) -> None:
        """As many as may still be wrong: who asks at once guesses no more often."""
        self.identify(basic("reader", "wrong already"))
        self.beside.at_once = False
        waiting = []
        for number in range(FAILURES - 1):
            header = basic("reader", f"{number}")
            waiting.append(self.guard.identify(header, "192.0.2.1"))
            waiting.append(self.guard.identify(header, "192.0.2.1"))  # no other one
        with self.assertRaises(TooBusy):
            self.guard.identify(READER, "192.0.2.1")
        waiting.append(self.guard.identify(READER, "192.0.2.2"))
        self.beside.work()
        for done in waiting[:-1]:
            self.failureResultOf(done, Refused)
        self.assertEqual(self.successResultOf(waiting[-1]).name, "reader")
        self.assertIsInstance(self.identify(basic("reader", "x")), TooManyFailures)

    def test_a_check_that_fails_is_told(self) -> None:
        self.beside.at_once = False
        done = self.guard.identify(READER, HERE)
        [(_, checking)] = self.beside.waiting
        checking.errback(MemoryError())
        self.failureResultOf(done, MemoryError)
        self.beside.waiting.clear()
        self.beside.at_once = True
        self.assertEqual(self.identify(READER).name, "reader")

    def test_a_new_file_forgets_all(self) -> None:
        told: list[int] = []
        self.guard.forgotten = lambda: told.append(1)
        self.identify(READER)
        self.identify(WRONG)
        fewer = access()
        users = {name: user for name, user in fewer.users.items() if name != "reader"}
        self.beside.at_once = False
        halfway = self.guard.identify(basic("admin", "admin"), HERE)
        self.guard.replace(type(fewer)(users, fewer.anonymous))
        self.beside.at_once = True
        self.beside.work()
        self.failureResultOf(halfway, TooBusy)
        self.assertEqual(told, [1])
        self.assertIsNone(self.guard.known(READER))
        self.assertIsInstance(self.identify(READER), Refused)

    def test_a_secret_that_is_taken_away_while_it_is_checked(self) -> None:
        """Whoever shows it after that is held against the new file."""
        self.beside.at_once = False
        before = self.guard.identify(READER, HERE)
        self.guard.replace(access(secret_of={"reader": "another"}))
        after = self.guard.identify(READER, HERE)
        self.beside.work()
        self.failureResultOf(before, TooBusy)
        self.failureResultOf(after, Refused)
        self.assertIsNone(self.guard.known(READER))

    # Failures.

    def test_who_hangs_up_has_failed_too(self) -> None:
        self.beside.at_once = False
        for number in range(FAILURES):
            done = self.guard.identify(basic("reader", f"{number}"), HERE)
            done.addErrback(lambda _: None).cancel()
            self.beside.work()
        with self.assertRaises(TooManyFailures):
            self.guard.identify(READER, HERE)

    def test_the_same_wrong_secret_counts_once(self) -> None:
        """A client with an old one says it again and again, and guesses nothing:
        it must not keep out those beside it."""
        for wrong in (WRONG, b"Basic !"):
            for _ in range(10 * FAILURES):
                error = self.identify(wrong)
                self.assertIsInstance(error, Refused)
                self.assertNotIsInstance(error, TooManyFailures)
        self.assertEqual(self.identify(READER).name, "reader")

    def test_who_fails_often_must_wait(self) -> None:
        self.assertEqual(self.identify(READER).name, "reader")
        for number in range(FAILURES):
            error = self.identify(basic("reader", f"guess {number}"))
            self.assertNotIsInstance(error, TooManyFailures)
        checked = self.beside.done
        error = self.identify(basic("writer", "writer"))
        self.assertIsInstance(error, TooManyFailures)
        self.assertTrue(0 < error.seconds <= 7)
        self.assertEqual(self.beside.done, checked)
        # Others, and whoever was right before, are not held up.
        self.assertEqual(self.identify(READER).name, "reader")
        self.assertEqual(self.identify(READER, "192.0.2.2").name, "reader")
        self.guarded.clock.advance(error.seconds)
        self.assertEqual(self.identify(basic("writer", "writer")).name, "writer")

    def test_all_addresses_of_one_network_are_one(self) -> None:
        for number in range(FAILURES):
            self.identify(basic("reader", f"{number}"), f"2001:db8::{number}")
        self.assertIsInstance(self.identify(READER, "2001:db8::ffff"), TooManyFailures)
        self.assertEqual(self.identify(READER, "2001:db8:0:1::1").name, "reader")

    def test_an_ipv4_address_in_ipv6_is_itself(self) -> None:
        for number in range(FAILURES):
            self.identify(basic("reader", f"{number}"), "::ffff:192.0.2.7")
        self.assertIsInstance(self.identify(READER, "192.0.2.7"), TooManyFailures)
        self.assertEqual(self.identify(READER, "::ffff:192.0.2.8").name, "reader")

    def test_addresses_that_are_none(self) -> None:
        for number in range(FAILURES):
            self.identify(basic("reader", f"{number}"), "x" * 1000)
        self.assertIsInstance(self.identify(READER, "x" * 1000), TooManyFailures)
        self.assertEqual(list(self.guard._failures), ["x" * 64])

    @given(st.binary(max_size=400))
    def test_any_bytes_may_be_shown(self, header: bytes) -> None:
        for shown in (header, b"Basic " + header, b"Bearer " + header):
            found = credentials_of(shown)
            self.assertTrue(found is None or 0 < len(found[1]) <= 256)
        encoded = b"Basic " + base64.b64encode(header)
        found = credentials_of(encoded)
        if found is not None:
            self.assertEqual(found[0].encode() + b":" + found[1], header)

    def test_memory_is_bounded(self) -> None:
        self.guarded.beside = Beside()
        self.guard.in_thread = lambda work: self.beside.run(lambda: False)
        for number in range(2 * MAX_ADDRESSES):
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            self.identify(basic("reader", f"{number}"), address)
        self.assertEqual(len(self.guard._failures), MAX_ADDRESSES)
        self.assertEqual(len(self.guard._wrong), MAX_REMEMBERED)
        self.assertEqual(len(self.guard._checking), 0)
        self.guard.in_thread = lambda work: self.beside.run(lambda: True)
        for number in range(2 * MAX_REMEMBERED):
            self.assertIsInstance(
                self.identify(basic("reader", f"right {number}")), Principal
            )
        self.assertEqual(len(self.guard._right), MAX_REMEMBERED)

    def test_no_secret_is_said_or_kept(self) -> None:
        said: list[str] = []
        self.guard._complaints.log = type(
            "Log", (), {"warn": lambda self, form, text: said.append(text)}
        )()
        self.identify(basic("reader", "hunter2"))
        self.identify(b"Bearer hunter2")
        [text] = said
        self.assertIn("192.0.2.1 has shown a wrong secret for the name 'reader'", text)
        kept = repr((self.guard._right, self.guard._wrong, self.guard._failures, text))
        self.assertNotIn("hunter2", kept)

    def test_what_is_shown_of_it_in_an_error_is_no_secret(self) -> None:
        self.guard._key = b"the key of hashes"
        call = Call(b"GET", b"/k", {}, {"authorization": "hunter2"}, Deferred)
        shown = repr((self.guard, self.guard.access, call))
        [user] = [u for u in self.guard.access.users.values() if u.principal.admin]
        for secret in (b"the key of hashes", user.hashed.hash, "hunter2"):
            self.assertNotIn(repr(secret)[2:-1], shown)
