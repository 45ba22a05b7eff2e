"""
How the tools speak.

Rules: answers go to the standard output; progress, on a terminal, and what goes wrong
go to the standard error.  What goes wrong is one line.  What comes out of files, their
names too, steers no terminal and has one line, wherever it goes.
"""

from __future__ import annotations

import functools
import grp
import json
import os
import pwd
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
)

from kvdb.offline.directory import Unusable
from kvdb.storage.filesystem import DirectoryInUse, DiskFull, SyncFailed
from kvdb.storage.instance import PartsDiffer
from kvdb.storage.log import UnknownFormat
from kvdb.storage.segment import CorruptLog
from kvdb.store.backup import BadBackup
from kvdb.store.encoding import UnknownCommand
from kvdb.store.engine import EngineError
from kvdb.store.store import UnknownFormat as UnknownStoreFormat

NAME: Final = "kvdbctl"

DONE: Final = 0
NO: Final = 1
UNUSABLE: Final = 2
INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141
TERMINATED: Final = 143
"""Exit statuses, as docs/kvdbctl.md has them."""

BAD: Final = (
    BadBackup,
    CorruptLog,
    EngineError,
    PartsDiffer,
    UnknownCommand,
    UnknownFormat,
    UnknownStoreFormat,
)
"""What can be wrong in files, and says itself what to do."""

OUT_OF_REACH: Final = (DirectoryInUse, DiskFull, OSError, SyncFailed, Unusable)
"""What can keep files from being read or made; nothing was done."""

Work = Callable[..., int | None]


def one_line(work: Work) -> Work:
    """Have what goes wrong told in one line; and SIGTERM end it as Ctrl-C does."""

    @functools.wraps(work)
    def told(*args: Any, **more: Any) -> int | None:
        try:
            with _in_order():
                return work(*args, **more)
        except BAD as error:
            note(str(error))
            return NO
        except BrokenPipeError:
            return PIPE_CLOSED  # who read it has gone, and knows
        except OUT_OF_REACH as error:
            note(_why(error) if isinstance(error, OSError) else str(error))
            return UNUSABLE

    return told


@contextmanager
def _in_order() -> Iterator[None]:
    """SIGTERM lets the work remove what it has half made; the second one does not."""

    def end(number: int, frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield  # which alone hears signals
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _why(error: OSError) -> str:
    text = (error.strerror or str(error)).lower()
    # Where there are two, the second was to be made.
    name = error.filename if error.filename2 is None else error.filename2
    return text if name is None else f"{name}: {text}"


def printable(text: str) -> str:
    """Text with escapes for what is no character that one sees, or a space."""
    if text.isprintable():
        return text
    # As in JSON, whose escapes fit a character outside of it too.
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def note(text: str) -> None:
    """A line that is no answer."""
    click.echo(f"{NAME}: {printable(' '.join(text.split()))}", err=True)


def line(text: str) -> None:
    """
    A line of an answer.

    @raise Unusable: the output takes no more.
    """
    try:
        click.echo(printable(text))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Unusable(f"the output cannot be written: {_why(error)}") from error


def json_line(value: dict[str, Any]) -> None:
    """The same in JSON."""
    line(json.dumps(value, ensure_ascii=False))


def answer(value: dict[str, Any], as_json: bool) -> None:
    """An answer: a line of JSON, or a line for each name."""
    if as_json:
        json_line(value)
        return
    width = max(map(len, value))
    for name, one in value.items():
        for text in one if isinstance(one, list) else [one]:
            line(f"{name.replace('_', ' '):{width}}  {text}")


def is_json(given: bool) -> bool:
    """Whether asked for here, or before the command."""
    context = click.get_current_context(silent=True)
    kept = None if context is None else context.find_object(dict)
    return given or bool((kept or {}).get("json"))


def tell_owner(directory: str, owner: tuple[int, int] | None) -> None:
    """Say whose node cannot open what was made, if it is another user's."""
    if owner is None:
        return
    user, group = _user(owner[0]), _group(owner[1])
    note(
        f"WARNING: {directory} belongs to {_user(os.geteuid())}, where all else"
        f" belongs to {user}: a node that runs as {user} cannot open it.  Before its"
        f" start: chown -R {user}:{group} {shlex.quote(directory)}"
    )


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


@contextmanager
def bar(
    what: str, total: float | None, *, of_bytes: bool = True
) -> Iterator[Callable[[float], None]]:
    """Progress, on a terminal: of so many bytes, or seconds."""
    console = Console(stderr=True, highlight=False)
    columns: list[ProgressColumn] = [TextColumn(what, markup=False), BarColumn()]
    if of_bytes:
        columns.append(DownloadColumn(binary_units=True))
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as shown:
        task = shown.add_task("", total=total)
        yield lambda done: shown.update(task, completed=done)


def utc(time_ms: int) -> str:
    """A time for people and programs (ISO 8601)."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat("T", "seconds")
    except (OSError, OverflowError, ValueError):
        return f"{time_ms} ms"
