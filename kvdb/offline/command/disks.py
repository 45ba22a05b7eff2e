"""C{check disk}."""

from __future__ import annotations

import os
import time
from typing import Final

import click

from kvdb.offline import disk
from kvdb.offline.command.options import json_option
from kvdb.offline.command.say import DONE, NO, answer, bar, is_json, note, one_line
from kvdb.offline.directory import Unusable
from kvdb.offline.files import real_filesystem

_TICK_MS: Final = 100
_ELECTION_TICKS: Final = 10
_HEARTBEAT_TICKS: Final = 1


@click.group("check")
def check() -> None:
    """Whether a machine is fit for a member."""


@check.command("disk")
@click.argument("directory")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=disk.SECONDS,
    help="How long.",
)
@click.option("--tick", type=click.IntRange(5, 60_000), default=_TICK_MS)
@click.option("--election-ticks", type=click.IntRange(2, 1000), default=_ELECTION_TICKS)
@click.option(
    "--heartbeat-ticks", type=click.IntRange(1, 999), default=_HEARTBEAT_TICKS
)
@json_option
@one_line
def check_disk(
    directory: str,
    seconds: float,
    tick: int,
    election_ticks: int,
    heartbeat_ticks: int,
    as_json: bool,
) -> int:
    """
    Measure how long the disk under DIRECTORY takes to make a write durable.

    The exit status is 1 if that is too long for the election timeout; --tick and the
    others are those of the node.
    """
    if not os.path.isdir(directory):
        raise Unusable(f"{directory} is no directory")
    filesystem = real_filesystem()
    with bar("writing", seconds, of_bytes=False) as progress:
        found = disk.measure(
            filesystem, directory, time.perf_counter, progress, seconds
        )
    heartbeat, election = heartbeat_ticks * tick / 1000, election_ticks * tick / 1000
    wrong = disk.complaints(found, heartbeat, election)
    answer(
        {
            "syncs": found.syncs,
            "p50_ms": round(found.p50 * 1000, 3),
            "p99_ms": round(found.p99 * 1000, 3),
            "max_ms": round(found.longest * 1000, 3),
            "fit": not wrong,
        },
        is_json(as_json),
    )
    for text in wrong:
        note(text)
    return NO if wrong else DONE
