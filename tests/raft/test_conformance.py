"""
The data-driven cases: those that etcd's raft pins its own behaviour with, and
our own; and the runner that both are run by.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import TypeVar
from unittest import SkipTest
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from kvdb.raft.messages import (
    APPEND_THREAD,
    Entry,
    Message,
    MessageType,
    ReadState,
    Ready,
    Role,
    SoftState,
)
from kvdb.raft.rawnode import RawNode
from tests.raft import interaction
from tests.raft.casefile import Argument, MalformedCase, parse_command_line, read_cases
from tests.raft.datadriven import find_files, main, run_file, without_logs
from tests.raft.descriptions import describe_message, describe_ready, quote

ROOT = Path(__file__).parent.parent.parent
SHARED = ROOT.parent / "shared" / "raft-conformance"
OWN = Path(__file__).parent / "cases"

SHARED_FILES = (
    "confchange/joint_autoleave",
    "confchange/joint_idempotency",
    "confchange/joint_safety",
    "confchange/simple_promote_demote",
    "confchange/update",
    "confchange/zero",
    "interaction/async_storage_writes",
    "interaction/campaign",
    "interaction/campaign_learner_must_vote",
    "interaction/checkquorum",
    "interaction/confchange_v1_add_single",
    "interaction/confchange_v1_remove_leader",
    "interaction/confchange_v2_add_double_auto",
    "interaction/confchange_v2_add_single_explicit",
    "interaction/confchange_v2_replace_leader",
    "interaction/forget_leader",
    "interaction/heartbeat_resp_recovers_from_probing",
    "interaction/lagging_commit",
    "interaction/prevote",
    "interaction/probe_and_replicate",
    "interaction/replicate_pause",
    "interaction/single_node",
    "interaction/slow_follower_after_compaction",
    "interaction/snapshot_succeed_via_app_resp",
    "quorum/joint_vote",
    "quorum/majority_commit",
    "quorum/majority_vote",
)
"""The files of etcd's that we have, so that each is missed where it is not."""


TestClass = TypeVar("TestClass", bound=type[SynchronousTestCase])


def one_test_for_each(
    folder: Path, files: Iterable[Path]
) -> Callable[[TestClass], TestClass]:
    """Give a class a test for each of C{files}, named as the file is."""

    def decorate(cls: TestClass) -> TestClass:
        for path in sorted(set(files)):
            name = "_".join(path.relative_to(folder).with_suffix("").parts)
            setattr(cls, f"test_{name}", _file_test(path))
        return cls

    return decorate


def _file_test(path: Path) -> Callable[[SynchronousTestCase], None]:
    def test(self: SynchronousTestCase) -> None:
        if not path.exists():
            raise SkipTest(f"there is no {path}")
        result = run_file(path)
        self.assertEqual((result.error, "\n".join(result.diffs)), ("", ""))
        self.assertGreater(result.cases, 0)

    test.__doc__ = f"All cases of {path.name} print what is expected."
    return test


@one_test_for_each(
    SHARED, [*(SHARED / f"{name}.txt" for name in SHARED_FILES), *SHARED.rglob("*.txt")]
)
class SharedCases(SynchronousTestCase):
    """etcd's own, in C{../shared/raft-conformance}."""


@one_test_for_each(OWN, find_files(OWN))
class OwnCases(SynchronousTestCase):
    """Ours, for what etcd's that we have leave open."""

    def test_each_tells_what_it_shows(self) -> None:
        """Each file opens with a comment."""
        for path in find_files(OWN):
            self.assertTrue(path.read_text().startswith("# "), path)


class Reader(SynchronousTestCase):
    """L{tests.raft.casefile}."""

    def test_arguments(self) -> None:
        """Without value, with one, with an empty one, with several."""
        command, arguments = parse_command_line("do this  a=1 b= c=(1, 2,3 4) d=()")
        self.assertEqual(command, "do")
        self.assertEqual(
            arguments,
            (
                Argument("this"),
                Argument("a", ("1",)),
                Argument("b", ("",)),
                Argument("c", ("1", "2", "3 4")),
                Argument("d", ("",)),
            ),
        )
        self.assertEqual(arguments[3].numbers(), [1, 2, 3, 4])
        self.assertEqual(arguments[4].numbers(), [])

    def test_inner_parentheses_are_kept(self) -> None:
        """Only top-level commas separate values."""
        _, arguments = parse_command_line("do a=(f(x, y), (z)) b")
        self.assertEqual(arguments, (Argument("a", ("f(x, y)", "(z)")), Argument("b")))

    def test_a_command_line_that_is_none_is_refused(self) -> None:
        """As are values that are not what a command needs."""
        for line in ("do a=(1, 2", "do =1"):
            with self.assertRaises(MalformedCase):
                parse_command_line(line)
        argument = Argument("key", ("-1",))
        for parse in (argument.number, argument.boolean, Argument("k").single):
            with self.assertRaises(MalformedCase):
                parse()

    def test_a_backslash_continues_the_command(self) -> None:
        """On as many lines as end with one."""
        (case,) = read_cases("do a \\\n   b=1 \\\n c\ninput\n----\nok\n")
        self.assertEqual(case.command, "do")
        self.assertEqual([argument.key for argument in case.arguments], ["a", "b", "c"])
        self.assertEqual(case.input, "input")

    def test_a_case_ends_at_a_blank_line(self) -> None:
        """Comments are skipped between cases, and kept within them."""
        text = "# a\n\none\n# in\n----\nx\n# out\n\n  # b\ntwo\n----\n\nthree\n----\ny"
        self.assertEqual(
            [(c.line, c.command, c.input, c.expected) for c in read_cases(text)],
            [
                (3, "one", "# in", "x\n# out\n"),
                (10, "two", "", ""),
                (13, "three", "", "y\n"),
            ],
        )

    def test_doubled_separators_enclose_blank_lines(self) -> None:
        """A single one between them is output like any other line."""
        text = "one\n----\n----\nx\n\n----\ny\n----\n----\n\ntwo\n----\nz\n"
        self.assertEqual(
            [(case.command, case.expected) for case in read_cases(text)],
            [("one", "x\n\n----\ny\n"), ("two", "z\n")],
        )

    def test_an_unfinished_case_is_refused_by_its_line(self) -> None:
        """No separator, or no second pair of them."""
        for text in ("\none\n", "\none\n----\n----\nx\n----\n"):
            with self.assertRaisesRegex(MalformedCase, "^line 2: no "):
                list(read_cases(text))

    def test_carriage_returns_and_subtests_are_passed_over(self) -> None:
        """Neither is part of a case."""
        (case,) = read_cases("subtest a\r\n\r\none\r\n----\r\nx\r\n\r\nsubtest end\r\n")
        self.assertEqual((case.command, case.expected), ("one", "x\n"))


class PrintedForms(SynchronousTestCase):
    """L{tests.raft.descriptions}, where no case shows them."""

    def test_bytes_are_quoted_as_go_does(self) -> None:
        """Text as it is, the rest escaped."""
        for data, expected in [
            (b"", '""'),
            (b"plain ~", '"plain ~"'),
            (b'"\\\a\b\f\n\r\t\v', r'"\"\\\a\b\f\n\r\t\v"'),
            (b"\x00\x1b\x7f", r'"\x00\x1b\x7f"'),
            ("é世😀".encode(), '"é世😀"'),
            ("\x85\u2028\ufeff\U000e0001".encode(), r'"\u0085\u2028\ufeff\U000e0001"'),
            (b"\xff\xe2\x82A\xed\xa0\x80", r'"\xff\xe2\x82A\xed\xa0\x80"'),
        ]:
            self.assertEqual(quote(data), expected)

    def test_read_states(self) -> None:
        """Their contexts as lists of bytes."""
        ready = Ready(
            soft_state=SoftState(1, Role.LEADER),
            read_states=[ReadState(11, b"ab"), ReadState(12, b"")],
        )
        self.assertEqual(
            describe_ready(ready),
            "Ready MustSync=false:\nLead:1 State:StateLeader\n"
            "ReadStates [{11 [97 98]} {12 []}]\n",
        )

    def test_nested_messages_are_indented(self) -> None:
        """Entries within responses twice."""
        entries = [Entry(1, 2), Entry(1, 3, data=b"x")]
        inner = Message(MessageType.APP_RESP, from_=31, entries=entries)
        outer = Message(
            MessageType.STORAGE_APPEND, to=APPEND_THREAD, from_=31, responses=[inner]
        )
        self.assertEqual(
            describe_message(outer, "    "),
            "    1f->AppendThread MsgStorageAppend Term:0 Log:0/0 Responses:[\n"
            "      1f->None MsgAppResp Term:0 Log:0/0 Entries:[\n"
            '        1/2 EntryNormal ""\n'
            '        1/3 EntryNormal "x"\n'
            "      ]\n"
            "    ]",
        )

    def test_log_lines_are_left_out_wherever_they_stand(self) -> None:
        """C{ok} takes the place of nothing."""
        self.assertEqual(
            without_logs("> 1 x\n  INFO 1 y\nDEBUG z\n  INFORMAL\nWARNED\n"),
            "> 1 x\n  INFORMAL\nWARNED\n",
        )
        self.assertEqual(without_logs("  ERROR x\nFATAL y\nWARN z\n"), "ok\n")
        self.assertEqual(without_logs(""), "ok\n")


class Runner(SynchronousTestCase):
    """C{python -m tests.raft.datadriven}."""

    def write(self, text: str, name: str = "case.txt") -> str:
        """Make a file of cases; where it is."""
        path = self.folder() / name
        path.write_text(dedent(text), encoding="utf-8")
        return str(path)

    def folder(self) -> Path:
        """An empty one, for as long as the test runs."""
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Path(folder.name)

    def run_main(self, *arguments: str) -> tuple[int, str]:
        """The exit status, and what was printed."""
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            status = main(arguments)
        return status, output.getvalue()

    def check(self, text: str) -> None:
        """All cases in C{text} print what they are expected to."""
        status, output = self.run_main(self.write(text))
        self.assertEqual(status, 0, output)

    def test_the_number_of_cases_is_printed(self) -> None:
        """For each file, also one that holds none."""
        two = self.write("vote\n----\nVoteWon\n\nvote cfg=(1) votes=(y)\n----\nVoteWon")
        none = self.write("# nothing here\n")
        status, output = self.run_main(two, none)
        self.assertEqual(status, 0)
        self.assertEqual(output, f"{two}: 2 cases\n{none}: 0 cases\n")

    def test_a_difference_is_shown_and_fails(self) -> None:
        """The cases after it are run all the same."""
        path = self.write(
            """\
            simple
            v1
            ----
            voters=(1)
            1: StateProbe match=0 next=2

            simple
            v2
            ----
            voters=(1 2)
            1: StateProbe match=0 next=1
            2: StateProbe match=0 next=1
            """
        )
        status, output = self.run_main(path)
        self.assertEqual(status, 1)
        self.assertEqual(
            output.splitlines(),
            [
                f"{path}: 2 cases",
                f"--- {path}:1 expected",
                f"+++ {path}:1 actual",
                "@@ -1,2 +1,2 @@",
                " voters=(1)",
                "-1: StateProbe match=0 next=2",
                "+1: StateProbe match=0 next=1",
            ],
        )

    def test_an_unknown_command_ends_the_run_of_its_file(self) -> None:
        """Also one of another language than the file's; other files go on."""
        bad = self.write("vote\n----\nVoteWon\n\nsimple\n----\nx\n")
        worse = self.write("jump 1\n----\nok\n")
        differs = self.write("vote\n----\nVoteLost\n")
        status, output = self.run_main(bad, worse, differs)
        self.assertEqual(status, 2)
        self.assertIn(f"{bad}: 1 cases\n{bad}: line 5: unknown command simple", output)
        self.assertIn(f"{worse}: line 1: unknown command jump", output)
        self.assertIn("+VoteWon", output)

    def test_arguments_that_a_command_does_not_know_are_refused(self) -> None:
        """By line, and not passed over."""
        for text in (
            "add-nodes 1 voters=(1) colour=red\n----\nok",
            "add-nodes voters=(1)\n----\nok",
            "add-nodes 1 voters=(x)\n----\nok",
            "add-nodes 1 prevote=perhaps\n----\nok",
            "campaign 1\n----\nok",
            "propose 1 a b\n----\nok",
            "log-level\n----\nok",
            "transfer-leadership from=1\n----\nok",
            "deliver-msgs 1 drop=(1)\n----\nok",
            "deliver-msgs type=MsgHello\n----\nok",
            "send-snapshot 1\n----\nok",
            "set-randomized-election-timeout 1 timeout=0\n----\nok",
            "vote cfg=(1) votes=(maybe)\n----\nok",
            "vote cfg=(1) idx=(1)\n----\nok",
            "vote 1\n----\nok",
            "committed cfg=(1) idx=(0)\n----\nok",
            "simple autoleave=true\n----\nok",
        ):
            setup = "log-level none\n----\nok\n\nadd-nodes 0\n----\nok\n\n"
            known = interaction.COMMANDS
            language = setup if text.split()[0] in known else ""
            status, output = self.run_main(self.write(language + text))
            self.assertEqual(status, 2, output)
            self.assertRegex(output, r": line (1|9): ")

    def test_what_is_no_file_of_cases_cannot_be_run(self) -> None:
        """A path without file, a folder without files, bytes that are no text."""
        folder = self.folder()
        garbage = folder / "garbage"
        garbage.write_bytes(b"\xff\xfe")
        for path in (folder / "absent.txt", folder, garbage):
            status, output = self.run_main(str(path))
            self.assertEqual(status, 2, output)
            self.assertIn(str(path), output)

    def test_a_folder_is_searched_for_text_files(self) -> None:
        """At any depth, in order; a file that is named may be called anything."""
        top = self.folder()
        inner = top / "b" / "c.txt"
        inner.parent.mkdir()
        inner.write_text("vote\n----\nVoteWon\n")
        (top / "a.txt").write_text("simple\nv1\n----\nx\n")
        (top / "README.md").write_text("no cases\n")
        self.assertEqual(find_files(top), [top / "a.txt", inner])
        self.assertEqual(self.run_main(str(top))[0], 1)
        status, _ = self.run_main(self.write("vote\n----\nVoteWon\n", "anything"))
        self.assertEqual(status, 0)

    def test_logs_can_be_ignored(self) -> None:
        """In what is expected as in what is printed, and only if asked."""
        text = """\
            add-nodes 1 voters=(1) index=2
            ----
            INFO something else

            campaign 1
            ----
            ok

            process-ready 1
            ----
            Ready MustSync=true:
            Lead:0 State:StateCandidate
            HardState Term:1 Vote:1 Commit:2
            """
        path = self.write(text)
        self.assertEqual(
            self.run_main("--ignore-logs", path), (0, f"{path}: 3 cases\n")
        )
        self.assertEqual(self.run_main(path)[0], 1)
        other = self.write(text.replace("Term:1", "Term:2"))
        self.assertEqual(self.run_main("--ignore-logs", other)[0], 1)

    def test_an_error_silences_nothing_but_itself(self) -> None:
        """At level none an error is all that is printed."""
        self.check(
            """\
            add-nodes 1 index=1
            ----
            index must be specified as > 1 due to bootstrap

            log-level None
            ----
            ok

            add-nodes 1 index=1
            ----
            index must be specified as > 1 due to bootstrap

            stabilize log-level=loud
            ----
            log levels must be either of [DEBUG INFO WARN ERROR FATAL NONE]

            add-nodes 2 \\
              voters=(1 2) \\
              index=2
            ----
            ok

            stabilize 1 log-level=debug
            ----
            ok

            campaign 1
            ----
            ok

            process-append-thread 1
            ----
            ok

            _breakpoint
            ----
            ok
            """
        )

    def test_threads_without_work_say_so(self) -> None:
        """Under a header, where several are asked."""
        self.check(
            """\
            log-level none
            ----
            ok

            add-nodes 2 voters=(1,2) index=2
            ----
            ok

            log-level debug
            ----
            ok

            process-append-thread 2 1
            ----
            > 2 processing append thread
              no append work to perform
            > 1 processing append thread
              no append work to perform

            process-apply-thread 1
            ----
            no apply work to perform

            process-ready 1
            ----
            <empty Ready>

            deliver-msgs 1 2 9 drop=(7)
            ----
            no messages
            """
        )

    def test_disagreeing_computations_are_printed(self) -> None:
        """A wrong majority does not go unseen."""
        path = self.write(
            "committed cfg=(1,2,3) idx=(3,5,4)\n----\n"
            "       idx\n>        3    (id=1)\nxx>      5    (id=2)\n"
            "x>       4    (id=3)\n4\n"
        )
        self.assertEqual(self.run_main(path)[0], 0)
        with patch("tests.raft.datadriven.majority_committed", lambda *_: 5):
            status, output = self.run_main(path)
        self.assertEqual(status, 1)
        self.assertIn("+4 <-- via alternative computation", output)
        self.assertIn("+4 <-- via zero-joint quorum", output)
        self.assertIn("+4 <-- via self-joint quorum", output)
        wrong = iter([4, 3, 3])
        with patch("tests.raft.datadriven.majority_committed", lambda *_: next(wrong)):
            status, output = self.run_main(path)
        self.assertIn("+3 <-- overlaying 1->2", output)
        self.assertIn("+3 <-- overlaying 1->0", output)

    def test_a_core_that_breaks_down_is_a_difference(self) -> None:
        """With its traceback; the file ends there."""
        path = self.write(
            "add-nodes 0\n----\nok\n\nadd-nodes 1 index=2\n----\nok\n\nraft-state\n"
            "----\nok\n"
        )

        def broken(*_: object) -> None:
            raise AssertionError("rule broken")

        with patch.object(RawNode, "__init__", broken):
            status, output = self.run_main(path)
        self.assertEqual(status, 1)
        self.assertIn(f"{path}: 2 cases", output)
        self.assertIn("+panic: AssertionError: rule broken", output)
        self.assertIn("Traceback", output)

    def test_nodes_that_never_rest_are_given_up(self) -> None:
        """After a bound, by an error."""
        path = self.write(
            "log-level none\n----\nok\n\nadd-nodes 2 voters=(1,2) index=2\n----\nok\n\n"
            "campaign 1\n----\nok\n\nstabilize\n----\n"
            "the nodes did not come to rest in 2 rounds\n"
        )
        with patch("tests.raft.interaction.MAX_STABILIZE_ROUNDS", 2):
            self.assertEqual(self.run_main(path)[0], 0)
