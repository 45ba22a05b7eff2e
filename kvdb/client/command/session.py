"""
What a command is given to work with, and how it speaks.

Rules:

* answers go to the standard output, all else to the standard error;
* what moves (bars, live figures) is shown on a terminal only;
* to a terminal, what could steer it is written as an escape; to a file or a
  pipe, bytes go as they are;
* what a server says of itself is text on one line, wherever it goes.
"""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, BinaryIO, Final, Protocol, TextIO

from attrs import frozen
from rich.console import Console

from kvdb.client.client import Client

NAME: Final = "kvdbctl"

DONE: Final = 0
NO: Final = 1
USAGE: Final = 2
CONFLICT: Final = 3
REFUSED: Final = 4
NOT_ALLOWED: Final = 5
UNAVAILABLE: Final = 6
UNKNOWN: Final = 7
UNEXPECTED: Final = 8
NOT_WRITTEN: Final = 9
INTERRUPTED: Final = 130
TERMINATED: Final = 143
PIPE_CLOSED: Final = 141
"""Exit statuses; docs/kvdbctl.md says what each means."""


class Readable(Protocol):
    """What bytes come from."""

    def read(self, size: int = -1, /) -> bytes:
        """So many of them, or all."""


class NotWritten(Exception):
    """The standard output takes no more; the text says why."""

    def __init__(self, error: OSError) -> None:
        why = error.strerror or str(error)
        super().__init__(f"the output cannot be written: {why}")


def say(errors: TextIO, text: str) -> None:
    """A line on the standard error, if anybody reads that."""
    try:
        errors.write(f"{NAME}: {printable(text)}\n")
        errors.flush()
    except OSError:
        pass  # and there is nowhere else to tell it


@frozen(slots=True)
class Session:
    """
    @ivar output: the standard output.
    @ivar input: the standard input.
    @ivar errors: the standard error.
    @ivar as_json: whether answers are JSON.
    @ivar on_terminal: whether C{output} is a terminal.
    """

    reactor: Any
    client: Client
    input: Readable
    output: BinaryIO
    errors: TextIO
    as_json: bool
    on_terminal: bool

    @property
    def console(self) -> Console:
        """For what moves."""
        return Console(file=self.errors, highlight=False)

    def write(self, data: bytes) -> None:
        """
        Bytes, as they are.

        @raise BrokenPipeError: whoever read them has gone.
        @raise NotWritten: they cannot be written.
        """
        try:
            self.output.write(data)
            self.output.flush()
        except BrokenPipeError:
            raise  # who read them has gone, and knows
        except OSError as error:
            raise NotWritten(error) from None

    def line(self, text: str) -> None:
        """A line of an answer."""
        if self.on_terminal:
            text = printable(text)
        self.write(text.encode("utf-8", "surrogateescape") + b"\n")

    def json(self, value: Any) -> None:
        """An answer as JSON, on one line."""
        text = json.dumps(value, ensure_ascii=False)
        if self.on_terminal:
            text = printable(text, lambda character: json.dumps(character)[1:-1])
        # What is half of a pair stands in JSON as its escape.
        self.write(text.encode("utf-8", "backslashreplace") + b"\n")

    def note(self, text: str) -> None:
        """A line that is no answer."""
        say(self.errors, text)

    def shown(self, data: bytes) -> bytes:
        """C{data} for one line: unchanged, but escaped on a terminal."""
        return escaped(data).encode() if self.on_terminal else data


Job = Callable[[Session], Coroutine[Any, Any, int | None]]
"""What a command does; the answer is its exit status."""


def escaped(data: bytes) -> str:
    """
    Text that steers no terminal and has one line; all else, and the backslash,
    stands as C{x}, with a backslash before it and two hexadecimal digits behind.
    """
    text = data.decode("utf-8", "surrogateescape")
    return "".join(
        character if _is_plain(character) else _escape(character) for character in text
    )


def printable(text: str, escape: Callable[[str], str] | None = None) -> str:
    """Text with escapes for what is no character that one sees, or a space."""
    if text.isprintable():
        return text
    escape = escape or _escape
    return "".join(c if c.isprintable() else escape(c) for c in text)


def _is_plain(character: str) -> bool:
    if character == " ":
        return True
    return character != "\\" and unicodedata.category(character)[0] not in "CZ"


def _escape(character: str) -> str:
    is_byte = "\udc80" <= character <= "\udcff"
    raw = character.encode("utf-8", "surrogateescape" if is_byte else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in raw)


def text_field(name: str, value: bytes) -> dict[str, str]:
    """As the HTTP surface has it: text, or Base64 where it is none."""
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


def table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()
) -> list[str]:
    """
    Lines, in columns; what is None is shown as C{-}.

    @param right: the heads of columns that are set to the right.
    """
    cells = [list(heads)]
    cells += [
        ["-" if cell is None else printable(str(cell)) for cell in row] for row in rows
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    lines = []
    for row in cells:
        aligned = [
            cell.rjust(width) if head in right else cell.ljust(width)
            for head, cell, width in zip(heads, row, widths, strict=True)
        ]
        lines.append("  ".join(aligned).rstrip())
    return lines


def size_text(count: int | None) -> str | None:
    """Bytes, for people."""
    if count is None:
        return None
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of C{values}."""
    return {name: value for name, value in values.items() if value is not None}
