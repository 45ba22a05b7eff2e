"""C{fsck} and C{dump}."""

from __future__ import annotations

import json
from typing import Any

import click
from attrs import asdict

from kvdb.offline import dump as dumping
from kvdb.offline import fsck as checking
from kvdb.offline.command.options import json_option
from kvdb.offline.command.say import (
    DONE,
    NO,
    answer,
    bar,
    is_json,
    json_line,
    line,
    one_line,
)
from kvdb.storage.unsynced import this_boot


@click.command("fsck")
@click.argument("directory")
@json_option
@one_line
def fsck(directory: str, as_json: bool) -> int:
    """
    Read all of a data directory, and tell what is wrong with it.

    Nothing is changed.  The exit status is 1 if there is an error.
    """
    with bar("reading", None) as progress:
        found = checking.fsck(directory, this_boot(), progress)
    findings = found.findings
    if is_json(as_json):
        for one in findings.found:
            json_line(asdict(one))
    else:
        for one in findings.found:
            line(one.text())
        if findings.more:
            line(f"and {findings.more} more")
    answer(
        {
            "errors": findings.errors,
            "segments": found.segments,
            "log_bytes": found.log_bytes,
            "entries": found.entries,
            "keys": found.keys,
            "digest": found.digest,
        },
        is_json(as_json),
    )
    return NO if findings.errors else DONE


@click.command("dump")
@click.argument("directory")
@click.option("--show-keys", is_flag=True, help="Tell keys, and not their lengths.")
@json_option
@one_line
def dump(directory: str, show_keys: bool, as_json: bool) -> int:
    """
    Tell what is in a data directory: a line for each thing in it.

    Keys are told by their lengths, values always.
    """
    json_lines = is_json(as_json)
    for one in dumping.dump(directory, show_keys=show_keys):
        if json_lines:
            json_line(one)
        else:
            line(_text_of(one))
    return DONE


def _text_of(one: dict[str, Any]) -> str:
    what, *rest = one.items()
    return " ".join(
        [str(what[1]), *(f"{name}={_value(value)}" for name, value in rest)]
    )


def _value(value: Any) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=True)
