"""
The runner of the data-driven tests::

    python -m tests.raft.datadriven [--ignore-logs] PATH...

A path is a file, or a folder whose C{.txt} files are run, at any depth.  For
each file the number of cases is printed, and a diff for each case that prints
something else than it is expected to.  The exit status is 0 where all agree, 1
where any differs, 2 where a file cannot be run: it is not there, breaks the
format of L{tests.raft.casefile}, or holds a command that is unknown.

There are three languages; which one a file is in is seen from its commands:

* C{committed}, C{vote}: the arithmetic of majorities, L{run_quorum_case};
* C{simple}, C{enter-joint}, C{leave-joint}: membership changes,
  L{MembershipChanges};
* all others: nodes of one group, L{tests.raft.interaction.Interaction}.
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import define, field

from kvdb.raft.confchange import Changer, ConfChangeError
from kvdb.raft.progress import describe_progress_map
from kvdb.raft.quorum import (
    INFINITE_INDEX,
    describe_majority,
    joint_committed,
    joint_vote,
    majority_committed,
    majority_vote,
)
from kvdb.raft.tracker import Tracker
from tests.raft import interaction
from tests.raft.casefile import (
    Case,
    CommandFailed,
    MalformedCase,
    parse_number,
    read_cases,
)
from tests.raft.descriptions import describe_list, parse_changes
from tests.raft.interaction import Interaction

ALL_AGREE: Final = 0
SOME_DIFFER: Final = 1
CANNOT_RUN: Final = 2

MEMBERSHIP_MAX_INFLIGHT: Final = 10

_LOG_LINE = re.compile(r"\s*(DEBUG|INFO|WARN|ERROR|FATAL) ")
_VOTES = {"y": 2, "n": 1, "_": 0}
"""How votes are counted where they are treated as indexes are."""


class UnknownCommand(MalformedCase):
    """No language has this command."""


# Majorities.


def _describe_index(index: int) -> str:
    return "∞" if index == INFINITE_INDEX else str(index)


def _parse_index(word: str) -> int:
    if word == "_":
        return 0
    index = parse_number(word)
    if index == 0:
        # It would not be told from "_".
        raise MalformedCase("cannot use 0 as idx")
    return index


def _parse_vote(word: str) -> int:
    if word not in _VOTES:
        raise MalformedCase(f"unknown vote: {word}")
    return _VOTES[word]


@define
class _Voters:
    """
    What a case about majorities says.

    @ivar outgoing: None where it is about one majority alone.
    @ivar values: index or vote by voter; one that is not known is left out.
    @ivar given: the values in the order of the case, 0 where not known.
    """

    incoming: list[int] = field(factory=list)
    outgoing: list[int] | None = None
    given: list[int] = field(factory=list)

    @classmethod
    def parse(cls, case: Case) -> _Voters:
        voters = cls()
        parse = {
            "committed": ("idx", _parse_index),
            "vote": ("votes", _parse_vote),
        }
        values_key, parse_value = parse[case.command]
        if case.plain():
            raise MalformedCase(f"unknown argument {case.plain()[0]}")
        for argument in case.named():
            if argument.key == "cfg":
                voters.incoming = argument.numbers()
            elif argument.key == "cfgj":
                joint = argument.words()
                voters.outgoing = [] if joint == ["zero"] else argument.numbers()
            elif argument.key == values_key:
                voters.given = [parse_value(word) for word in argument.words()]
            else:
                raise MalformedCase(f"unknown argument {argument.key}")
        return voters

    @property
    def all(self) -> list[int]:
        """All voters, each once, in the order of the case."""
        return list(dict.fromkeys([*self.incoming, *(self.outgoing or ())]))

    @property
    def values(self) -> dict[int, int]:
        pairs = zip(self.all, self.given, strict=True)
        return {voter: value for voter, value in pairs if value}


def run_quorum_case(case: Case) -> str:
    """What a case about majorities prints."""
    voters = _Voters.parse(case)
    if len(voters.given) != len(voters.all):
        return (
            "error: mismatched input (explicit or _) for voters"
            f" {describe_list(sorted(voters.all))}: {describe_list(voters.given)}"
        )
    if case.command == "vote":
        return _run_vote(voters)
    return _run_committed(voters)


def _run_vote(voters: _Voters) -> str:
    votes = {voter: vote == _VOTES["y"] for voter, vote in voters.values.items()}
    if voters.outgoing is None:
        return f"{majority_vote(voters.incoming, votes).value}\n"
    result = joint_vote(voters.incoming, voters.outgoing, votes)
    swapped = joint_vote(voters.outgoing, voters.incoming, votes)
    via = "" if swapped is result else f"{swapped.value} <-- via symmetry\n"
    return f"{via}{result.value}\n"


def _run_committed(voters: _Voters) -> str:
    acked = voters.values
    if voters.outgoing is None:
        result = majority_committed(voters.incoming, acked)
        others = _other_computations(voters.incoming, acked, result)
    else:
        result = joint_committed(voters.incoming, voters.outgoing, acked)
        swapped = joint_committed(voters.outgoing, voters.incoming, acked)
        others = iter([("via symmetry", swapped)])
    disagreements = [
        f"{_describe_index(other)} <-- {how}\n"
        for how, other in others
        if other != result
    ]
    table = describe_majority(voters.all, acked)
    return table + "".join(disagreements) + f"{_describe_index(result)}\n"


def _other_computations(
    voters: Collection[int], acked: Mapping[int, int], result: int
) -> Iterator[tuple[str, int]]:
    """Other ways to the same C{result}: how, and what comes out."""
    yield "via alternative computation", committed_by_counting(voters, acked)
    yield "via zero-joint quorum", joint_committed(voters, [], acked)
    yield "via self-joint quorum", joint_committed(voters, voters, acked)
    for voter in sorted(voters):
        index = acked.get(voter, 0)
        if 0 < index < result:
            # Who is behind has no say in how far behind it is.
            for lower in (index - 1, 0):
                overlaid = {**acked, voter: lower}
                yield (
                    f"overlaying {voter}->{lower}",
                    majority_committed(voters, overlaid),
                )


def committed_by_counting(voters: Collection[int], acked: Mapping[int, int]) -> int:
    """
    The committed index by its definition: the highest of those acked that more
    than half of the voters have reached.
    """
    if not voters:
        return INFINITE_INDEX
    indexes = [acked.get(voter, 0) for voter in voters]
    return max(
        (
            candidate
            for candidate in indexes
            if 2 * sum(index >= candidate for index in indexes) > len(indexes)
        ),
        default=0,
    )


# Membership changes.


@define
class MembershipChanges:
    """
    One configuration, changed by each case that can be.

    @ivar last_index: where new members are probed; grows by one with every
        case, whether it worked or not.
    """

    tracker: Tracker = field(factory=lambda: Tracker(MEMBERSHIP_MAX_INFLIGHT))
    last_index: int = 0

    def run(self, case: Case) -> str:
        """What C{case} prints."""
        try:
            self._change(case)
        except (ConfChangeError, CommandFailed) as error:
            return f"{error}\n"
        finally:
            self.last_index += 1
        tracker = self.tracker
        return f"{tracker.configuration}\n{describe_progress_map(tracker.progress)}"

    def _change(self, case: Case) -> None:
        auto_leave = False
        for argument in case.arguments:
            if (case.command, argument.key) != ("enter-joint", "autoleave"):
                raise MalformedCase(f"unknown argument {argument.key}")
            auto_leave = argument.boolean()
        changes = parse_changes(case.input)
        changer = Changer(self.tracker, self.last_index)
        if case.command == "simple":
            result = changer.simple(changes)
        elif case.command == "enter-joint":
            result = changer.enter_joint(auto_leave, changes)
        elif changes:
            raise CommandFailed("this command takes no input")
        else:
            result = changer.leave_joint()
        self.tracker.configuration, self.tracker.progress = result


# Languages.

_Run = Callable[[Case], str]

LANGUAGES: list[tuple[frozenset[str], Callable[[], _Run]]] = [
    (frozenset({"committed", "vote"}), lambda: run_quorum_case),
    (
        frozenset({"simple", "enter-joint", "leave-joint"}),
        lambda: MembershipChanges().run,
    ),
    (frozenset(interaction.COMMANDS), lambda: Interaction().run),
]
"""The commands of each language, and how its state is made for a file."""


def run_cases(cases: Iterable[Case]) -> Iterator[tuple[Case, str]]:
    """
    Each case of one file, and what it prints.

    @raise MalformedCase: a case cannot be run; names its line.
    """
    commands: frozenset[str] = frozenset()
    run: _Run | None = None
    for case in cases:
        if run is None:
            for language, start in LANGUAGES:
                if case.command in language:
                    commands, run = language, start()
        if run is None or case.command not in commands:
            raise UnknownCommand(f"line {case.line}: unknown command {case.command}")
        try:
            output = run(case)
        except MalformedCase as error:
            raise MalformedCase(f"line {case.line}: {error}") from error
        except Exception as error:
            # The core found its own rule broken, or broke down.  State is not
            # to be trusted after it.
            traceback.print_exc()
            yield case, f"panic: {type(error).__name__}: {error}\n"
            return
        if output and not output.endswith("\n"):
            output += "\n"
        yield case, output


# The runner.


def without_logs(output: str) -> str:
    """C{output} without its log lines, C{ok} if nothing is left."""
    lines = output.splitlines(keepends=True)
    return "".join(line for line in lines if not _LOG_LINE.match(line)) or "ok\n"


@define
class FileResult:
    """
    What came of a file.

    @ivar cases: how many were run.
    @ivar diffs: one for each case that differs.
    @ivar error: why the rest could not be run; empty where it could.
    """

    path: Path
    cases: int = 0
    diffs: list[str] = field(factory=list)
    error: str = ""

    @property
    def status(self) -> int:
        """The exit status that it calls for."""
        if self.error:
            return CANNOT_RUN
        return SOME_DIFFER if self.diffs else ALL_AGREE

    def __str__(self) -> str:
        lines = [f"{self.path}: {self.cases} cases", *self.diffs]
        if self.error:
            lines.append(f"{self.path}: {self.error}")
        return "\n".join(lines)


def run_file(path: Path, *, ignore_logs: bool = False) -> FileResult:
    """Run all cases of the file at C{path}."""
    result = FileResult(path)
    try:
        text = path.read_text(encoding="utf-8")
        for case, output in run_cases(read_cases(text)):
            result.cases += 1
            expected, actual = case.expected, output
            if ignore_logs:
                expected, actual = without_logs(expected), without_logs(actual)
            if expected != actual:
                result.diffs.append(_diff(f"{path}:{case.line}", expected, actual))
    except (OSError, UnicodeDecodeError, MalformedCase) as error:
        result.error = str(error)
    return result


def _diff(where: str, expected: str, actual: str) -> str:
    return "\n".join(
        difflib.unified_diff(
            expected.splitlines(),
            actual.splitlines(),
            f"{where} expected",
            f"{where} actual",
            lineterm="",
        )
    )


def find_files(path: Path) -> list[Path]:
    """The file at C{path}, or those of the folder there."""
    return sorted(path.rglob("*.txt")) if path.is_dir() else [path]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run what the command line names, and print what came of it.

    @return: the exit status.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.raft.datadriven",
        description="Run data-driven tests of the consensus core.",
    )
    parser.add_argument(
        "--ignore-logs",
        action="store_true",
        help="compare outputs without their log lines",
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    options = parser.parse_args(arguments)
    status = ALL_AGREE
    for path in options.paths:
        files = find_files(path)
        if not files:
            print(f"{path}: no .txt files")
            status = CANNOT_RUN
        for file in files:
            result = run_file(file, ignore_logs=options.ignore_logs)
            print(result)
            status = max(status, result.status)
    return status


if __name__ == "__main__":
    sys.exit(main())
