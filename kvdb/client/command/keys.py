"""
C{get}, C{put}, C{delete}, C{list}, C{watch}.
"""

from __future__ import annotations

import itertools
import os
from typing import Any, Final

import click

from kvdb.client.command.options import Command, Count, key_argument
from kvdb.client.command.session import Job, Readable, Session, escaped, text_field
from kvdb.client.model import Entry, Event, Put

MAX_VALUE_BYTES: Final = 8 << 20
"""The longest value that a member can be told to take (--max-value-bytes)."""


@click.command("get", cls=Command)
@click.argument("key")
@click.option("--stale", is_flag=True, help="Be content with what a member has.")
@click.option("--revision", type=Count(1), help="As of a revision.")
def get(key: str, stale: bool, revision: int | None) -> Job:
    """
    Print a key's value.

    Its bytes go out unchanged; on a terminal, a line that does not end is
    ended.
    """
    raw = key_argument(key)

    async def job(session: Session) -> None:
        found = await session.client.get(raw, stale=stale, revision=revision)
        if session.as_json:
            fields = text_field("key", raw) | text_field("value", found.value)
            session.json({**fields, "revision": found.revision})
            return
        session.write(found.value)
        if session.on_terminal and not found.value.endswith(b"\n"):
            session.write(b"\n")

    return job


@click.command("put", cls=Command)
@click.argument("key")
@click.argument("value", required=False)
@click.option("--file", "path", help="Take the value from a file.")
@click.option("--if-revision", type=Count(1), help="Only if unchanged since.")
@click.option("--if-absent", is_flag=True, help="Only if there is no such key.")
@click.option("--if-present", is_flag=True, help="Only if there is such a key.")
@click.option("--idempotency-key", help="Carry it out once, however often it is asked.")
def put(
    key: str,
    value: str | None,
    path: str | None,
    if_revision: int | None,
    if_absent: bool,
    if_present: bool,
    idempotency_key: str | None,
) -> Job:
    """
    Write a key; VALUE - is the standard input.

    A value that begins with a dash stands behind two: put /key -- -5
    """
    raw = key_argument(key)
    if (value is None) == (path is None):
        raise click.UsageError("the value stands behind the key, in --file, or is -")
    if (if_revision is not None) + if_absent + if_present > 1:
        raise click.UsageError("--if-... options exclude each other")
    given = b"" if value is None else os.fsencode(value)
    if path is not None:
        given = _file_bytes(path)

    async def job(session: Session) -> None:
        revision = await session.client.put(
            raw,
            _whole(session.input, "the standard input") if value == "-" else given,
            if_revision=0 if if_absent else if_revision,
            if_present=if_present,
            idempotency_key=idempotency_key,
        )
        _tell_revision(session, revision)

    return job


@click.command("delete", cls=Command)
@click.argument("key")
@click.option("--if-revision", type=Count(1), help="Only if unchanged since.")
@click.option("--idempotency-key", help="Carry it out once, however often it is asked.")
def delete(key: str, if_revision: int | None, idempotency_key: str | None) -> Job:
    """Remove a key."""
    raw = key_argument(key)

    async def job(session: Session) -> None:
        revision = await session.client.delete(
            raw, if_revision=if_revision, idempotency_key=idempotency_key
        )
        _tell_revision(session, revision)

    return job


@click.command("list", cls=Command)
@click.argument("prefix", default="/")
@click.option("--values", is_flag=True, help="With their values.")
@click.option("--start", help="From this key on.")
@click.option("--limit", type=Count(1), help="At most so many.")
@click.option("--stale", is_flag=True, help="Be content with what a member has.")
@click.option("-0", "--null", is_flag=True, help="End lines with NUL, not newline.")
def list_(
    prefix: str,
    values: bool,
    start: str | None,
    limit: int | None,
    stale: bool,
    null: bool,
) -> Job:
    """Print the keys that begin with PREFIX, in order, one a line."""
    raw = key_argument(prefix)
    first = None if start is None else key_argument(start)
    end = b"\0" if null else b"\n"

    async def job(session: Session) -> None:
        numbers = itertools.count(1)
        entries = session.client.list(
            raw, start=first, keys_only=not values, stale=stale
        )
        async for entry in entries:
            if session.as_json:
                session.json(_entry_json(entry))
            else:
                line = session.shown(entry.key)
                if entry.value is not None:
                    line += b"\t" + session.shown(entry.value)
                session.write(line + end)
            if next(numbers) == limit:
                return

    return job


@click.command("watch", cls=Command)
@click.argument("prefix", default="/")
@click.option("--exact", is_flag=True, help="PREFIX is the whole key.")
@click.option("--since", type=Count(0), help="What changed behind a revision.")
@click.option("--count", type=Count(1), help="End after so many changes.")
@click.option("--previous", is_flag=True, help="With the values before.")
def watch(
    prefix: str, exact: bool, since: int | None, count: int | None, previous: bool
) -> Job:
    """
    Print changes of keys that begin with PREFIX, as they happen.

    Each is printed once, in order, also when members come and go.
    """
    raw = key_argument(prefix)

    async def job(session: Session) -> None:
        numbers = itertools.count(1)
        chosen = {"key": raw} if exact else {"prefix": raw}
        watching = session.client.watch(since=since, previous=previous, **chosen)
        async with watching as events:
            async for event in events:
                if session.as_json:
                    session.json(_event_json(event, previous))
                else:
                    session.line(_event_line(event))
                if next(numbers) == count:
                    return

    return job


def _file_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return _whole(file, path)
    except OSError as error:
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None


def _whole(file: Readable, name: str) -> bytes:
    """
    All that is in it.

    @raise click.UsageError: that cannot be had, or is more than any member takes.
    """
    try:
        data = file.read(MAX_VALUE_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"{name} cannot be read: {error.strerror}") from None
    if len(data) > MAX_VALUE_BYTES:
        raise click.UsageError(
            f"{name} has more than {MAX_VALUE_BYTES} bytes, the most that a value can"
            " have at any member"
        )
    return data


def _tell_revision(session: Session, revision: int) -> None:
    if session.as_json:
        session.json({"revision": revision})
    else:
        session.line(f"revision {revision}")


def _entry_json(entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = text_field("key", entry.key)
    if entry.value is not None:
        fields |= text_field("value", entry.value)
    fields["create_revision"] = entry.create_revision
    fields["mod_revision"] = entry.mod_revision
    fields["version"] = entry.version
    return fields


def _event_json(event: Event, previous: bool) -> dict[str, Any]:
    fields: dict[str, Any] = {"event": "put" if isinstance(event, Put) else "delete"}
    fields |= text_field("key", event.key)
    if isinstance(event, Put):
        fields |= text_field("value", event.value)
    fields["revision"] = event.revision
    if isinstance(event, Put):
        fields["create_revision"] = event.create_revision
        fields["version"] = event.version
    fields["previous_revision"] = event.previous_revision
    if previous and event.previous_value is None:
        fields["previous_value"] = None
    elif event.previous_value is not None:
        fields |= text_field("previous_value", event.previous_value)
    fields["time"] = event.time
    return fields


def _event_line(event: Event) -> str:
    if isinstance(event, Put):
        line = f"{event.revision}  put     {escaped(event.key)}"
        if event.value:
            line += f"  {escaped(event.value)}"
    else:
        line = f"{event.revision}  delete  {escaped(event.key)}"
    before = event.previous_value
    return line if before is None else f"{line}  (before: {escaped(before)})"
