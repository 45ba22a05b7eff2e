"""C{python -m kvdb.access hash}."""

from __future__ import annotations

import io
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from kvdb.access.__main__ import main
from kvdb.access.rules import parse_access


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Command(SynchronousTestCase):
    def run_it(
        self, *words: str, typed: io.StringIO | None = None, answers: str = ""
    ) -> tuple[int, str, str]:
        out, err, left = io.StringIO(), io.StringIO(), list(answers.split())
        status = main(
            ["hash", *words],
            lambda size: b"\x01" * size,
            typed or Terminal(),
            out,
            err,
            lambda _: left.pop(0),
        )
        return status, out.getvalue(), err.getvalue()

    def test_an_entry_for_the_file(self) -> None:
        for typed, answers in ((None, "apple apple"), (io.StringIO("apple\nx\n"), "")):
            status, entry, said = self.run_it(
                "ann", "--role", "app", typed=typed, answers=answers
            )
            self.assertEqual((status, said), (0, ""))
            access = parse_access(b"[roles.app]\nread = ['/']\n" + entry.encode())
            ann = access.users["ann"]
            self.assertTrue(ann.hashed.matches(b"apple"))
            self.assertEqual(ann.principal.read, (b"/",))

    def test_a_secret_can_be_made(self) -> None:
        status, entry, said = self.run_it("ci", "--generate")
        self.assertEqual(status, 0)
        secret = said.splitlines()[0].rpartition(" ")[2]
        self.assertIn(f"Authorization: Bearer ci.{secret}", said)
        self.assertTrue(
            parse_access(entry.encode()).users["ci"].hashed.matches(secret.encode())
        )
        self.assertNotIn(secret, entry)

    def test_what_is_wrong_is_said(self) -> None:
        for words, typed, answers, reason in (
            (["a b"], io.StringIO("x"), "", "'a b' is no user's name"),
            (["ann", "--role", "."], io.StringIO("x"), "", "'.' is no role's name"),
            (["ann"], io.StringIO(""), "", "a secret has 1 to 256 bytes"),
            (["ann"], io.StringIO("x" * 257), "", "a secret has 1 to 256 bytes"),
            (["ann"], io.StringIO("a\rb"), "", "a secret is one line"),
            (["ann"], None, "apple pear", "the two differ"),
        ):
            status, entry, said = self.run_it(*words, typed=typed, answers=answers)
            self.assertEqual((status, entry), (1, ""))
            self.assertIn(reason, said)

    def test_as_a_command(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "kvdb.access", "hash", "ann"],
            input=b"apple\n",
            capture_output=True,
            check=True,
            timeout=60,
        )
        self.assertIn("ann", parse_access(done.stdout).users)
