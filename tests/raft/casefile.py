"""
The file reader of the data-driven tests.

A file is a sequence of cases::

    # What the case shows.
    command argument argument=value argument=(value, value)
    input, on any number of lines
    ----
    expected output, up to a blank line

A backslash at the end of the command line continues it on the next.  Where the
expected output holds blank lines, the separator is doubled and so is what ends
the output.

The reader knows no commands; what is between the lines is for the languages of
L{tests.raft.datadriven} to understand.
"""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, frozen

SEPARATOR = "----"


class MalformedCase(Exception):
    """The file does not hold to the format, or a command to its arguments."""


class CommandFailed(Exception):
    """A command could not do what it was told; its text is what it prints."""


@frozen
class Argument:
    """
    One argument of a command.

    @ivar values: none for C{key}, one for C{key=value}, any number for
        C{key=(value, value)}.
    """

    key: str
    values: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The values, also where blanks separate them instead of commas."""
        return [word for value in self.values for word in value.split()]

    def single(self) -> str:
        """The one value."""
        if len(self.values) != 1:
            raise MalformedCase(f"{self.key} takes one value")
        return self.values[0]

    def number(self) -> int:
        """The one value, a number."""
        return parse_number(self.single())

    def numbers(self) -> list[int]:
        """The values, all numbers."""
        return [parse_number(word) for word in self.words()]

    def boolean(self) -> bool:
        """The one value, C{true} or C{false}."""
        return parse_boolean(self.single())


@frozen
class Case:
    """
    One command, and what it is expected to print.

    @ivar line: where in the file the command stands, from 1.
    @ivar input: the lines between command and separator, trimmed.
    @ivar expected: ends with a newline, unless it is empty.
    """

    line: int
    command: str
    arguments: tuple[Argument, ...]
    input: str
    expected: str

    def plain(self) -> list[str]:
        """The arguments without values."""
        return [argument.key for argument in self.arguments if not argument.values]

    def plain_numbers(self) -> list[int]:
        """The arguments without values, all numbers."""
        return [parse_number(key) for key in self.plain()]

    def named(self) -> list[Argument]:
        """The arguments with values."""
        return [argument for argument in self.arguments if argument.values]

    def argument(self, key: str) -> Argument:
        """The argument C{key}, which must be there."""
        for argument in self.arguments:
            if argument.key == key:
                return argument
        raise MalformedCase(f"{self.command} needs {key}=")


def parse_number(text: str) -> int:
    """An unsigned decimal number."""
    if not (text.isascii() and text.isdigit()):
        raise MalformedCase(f"{text!r} is not a number")
    return int(text)


def parse_boolean(text: str) -> bool:
    """C{true} or C{false}."""
    if text not in ("true", "false"):
        raise MalformedCase(f"{text!r} is neither true nor false")
    return text == "true"


def parse_command_line(line: str) -> tuple[str, tuple[Argument, ...]]:
    """The command, and its arguments."""
    command, _, rest = line.strip().partition(" ")
    arguments = []
    rest = rest.lstrip()
    while rest:
        argument, rest = _parse_argument(rest)
        arguments.append(argument)
        rest = rest.lstrip()
    return command, tuple(arguments)


def _parse_argument(text: str) -> tuple[Argument, str]:
    """The argument that C{text} begins with, and what follows it."""
    end = 0
    while end < len(text) and text[end] not in " =":
        end += 1
    key, rest = text[:end], text[end:]
    if not key:
        raise MalformedCase(f"an argument without a name at {text!r}")
    if not rest.startswith("="):
        return Argument(key), rest
    rest = rest[1:]
    if rest.startswith("("):
        values, rest = _parse_values(rest)
        return Argument(key, values), rest
    value, _, rest = rest.partition(" ")
    return Argument(key, (value,)), rest


def _parse_values(text: str) -> tuple[tuple[str, ...], str]:
    """
    What stands between the parenthesis that C{text} begins with and its
    partner, cut at the commas that no inner ones enclose; and what follows.
    """
    values = []
    depth = 0
    start = 1
    for position, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == "," and depth == 1:
            values.append(text[start:position].lstrip(" "))
            start = position + 1
        elif character == ")":
            depth -= 1
            if depth == 0:
                values.append(text[start:position].lstrip(" "))
                return tuple(values), text[position + 1 :]
    raise MalformedCase(f"no closing parenthesis in {text!r}")


@define
class _Reader:
    """
    @ivar position: how many lines have been read.
    """

    lines: list[str]
    position: int = 0

    def next(self) -> str | None:
        if self.position == len(self.lines):
            return None
        self.position += 1
        return self.lines[self.position - 1]

    def cases(self) -> Iterator[Case]:
        while (line := self.next()) is not None:
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            number = self.position
            try:
                while line.endswith("\\"):
                    line = line[:-1] + " " + (self.next() or "").strip()
                command, arguments = parse_command_line(line)
                if command == "subtest":
                    # Marks a part of a file, for people; it is no case.
                    continue
                yield Case(number, command, arguments, self.input(), self.expected())
            except MalformedCase as error:
                raise MalformedCase(f"line {number}: {error}") from error

    def input(self) -> str:
        lines: list[str] = []
        while (line := self.next()) is not None:
            if line == SEPARATOR:
                return "\n".join(lines).strip()
            lines.append(line)
        raise MalformedCase(f"no {SEPARATOR} after the command")

    def expected(self) -> str:
        line = self.next()
        lines: list[str] = []
        if line == SEPARATOR:
            lines = self.expected_with_blank_lines()
        else:
            while line is not None and line.strip():
                lines.append(line)
                line = self.next()
        return "".join(f"{line}\n" for line in lines)

    def expected_with_blank_lines(self) -> list[str]:
        lines: list[str] = []
        while (line := self.next()) is not None:
            if line == SEPARATOR and lines and lines[-1] == SEPARATOR:
                return lines[:-1]
            lines.append(line)
        raise MalformedCase(f"no second {SEPARATOR} twice after the output")


def read_cases(text: str) -> Iterator[Case]:
    """
    The cases in a file's C{text}, one by one.

    @raise MalformedCase: it does not hold to the format; names the line.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()
    return _Reader(lines).cases()
