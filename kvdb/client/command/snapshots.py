"""
C{snapshot save}: a backup of a cluster that serves.

The file comes to be whole or not at all: what was loaded stands beside it, as
C{FILE.part}, until it is all there and on the disk.  On the standard output it is as it
comes, and the exit status says whether it is whole.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import click
from rich.progress import (
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TransferSpeedColumn,
)

from kvdb.client.command.options import Group
from kvdb.client.command.session import Job, Session, size_text


@click.group("snapshot", cls=Group)
def snapshot() -> None:
    """Backups."""


STANDARD_OUTPUT: Final = "-"


@snapshot.command("save")
@click.argument("file")
def save(file: str) -> Job:
    """Write a backup of the whole store to FILE; - for the standard output."""
    if file != STANDARD_OUTPUT:
        _check_place(file)

    async def job(session: Session) -> None:
        if file == STANDARD_OUTPUT:
            if session.on_terminal:
                raise click.UsageError(
                    "the standard output is a terminal: redirect it, or name a file"
                )
            size = await _load(session, session, "standard output")
            told = json.dumps({"bytes": size}) if session.as_json else size_text(size)
            session.note(f"standard output: {told}")
            return
        path = Path(os.path.realpath(file))
        with _whole_or_not_at_all(path) as out:
            size = await _load(session, out, path.name)
        if session.as_json:
            session.json({"file": file, "bytes": size})
        else:
            session.line(f"{file}: {size_text(size)}")

    return job


def _check_place(file: str) -> None:
    """@raise click.UsageError: no file can be put there."""
    try:
        mode = os.stat(file).st_mode
    except OSError:
        return  # it is not there yet, or it is said when it is written
    if stat.S_ISDIR(mode):
        raise click.UsageError(f"{file} is a directory: name a file")
    if not stat.S_ISREG(mode):
        raise click.UsageError(
            f"{file} is no regular file: name one, or - for the standard output"
        )


async def _load(session: Session, out: Any, name: str) -> int:
    """Write the backup to C{out}, and show on a terminal how far it is."""
    console = session.console
    with Progress(
        SpinnerColumn(),
        TextColumn(f"saving {name}", markup=False),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None)
        return await session.client.snapshot(
            out, progress=lambda done: bar.update(task, completed=done)
        )


@contextmanager
def _whole_or_not_at_all(path: Path) -> Iterator[BinaryIO]:
    part = path.with_name(path.name + ".part")
    try:
        with _taken(part) as out:
            try:
                yield out
                out.flush()
                os.fsync(out.fileno())
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        why = error.strerror or str(error)
        what = error.filename or path
        raise click.ClickException(f"{what} cannot be written: {why}") from None


def _taken(part: Path) -> BinaryIO:
    """An empty file that no other run writes to, and nobody else may read."""
    # It holds all that is secret in the store.  Not waited for: a FIFO would be, for
    # whoever reads it.
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        out = os.fdopen(os.open(part, flags, 0o600), "wb")
    except OSError:
        if os.path.lexists(part) and not _is_file(part):
            raise _in_the_way(part) from None
        raise
    try:
        found = os.fstat(out.fileno())
        if not _is_leftover(found):
            raise _in_the_way(part)
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another run may have given it its own name before it was locked here.
        if not os.path.samestat(found, part.stat()):
            raise BlockingIOError
        os.fchmod(out.fileno(), 0o600)
        out.truncate(0)
    except (BlockingIOError, FileNotFoundError):
        out.close()
        raise click.ClickException(
            f"{part} is being written by another process: wait for it, or name"
            " another file"
        ) from None
    except BaseException:
        out.close()
        raise
    return out


def _is_file(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _is_leftover(found: os.stat_result) -> bool:
    """Whether it is what a run of ours leaves that is killed: whose file it is, may
    read it whatever its mode, and what has two names is of use elsewhere."""
    return (
        stat.S_ISREG(found.st_mode)
        and found.st_uid == os.geteuid()
        and found.st_nlink <= 1
    )


def _in_the_way(part: Path) -> click.ClickException:
    return click.ClickException(
        f"{part} is in the way, and nothing that an earlier run left: remove it, or"
        " name another file"
    )
