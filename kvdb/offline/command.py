"""
The tools from a command line: C{snapshot verify}, C{snapshot restore}, C{recover},
C{fsck}, C{dump}, C{check disk}.

Each is a Click command that does its work at once and returns its exit status, so
that any tree of commands can take it in; L{main} is a tree of its own.

Answers go to the standard output; progress, on a terminal, and what goes wrong go to
the standard error.  What goes wrong is one line.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, NoReturn

import click
from attrs import asdict
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
)

from kvdb.offline import archive, disk
from kvdb.offline import dump as dumping
from kvdb.offline import fsck as checking
from kvdb.offline import recover as recovering
from kvdb.offline import restore as restoring
from kvdb.offline.directory import Unusable, real_disk
from kvdb.offline.files import real_filesystem
from kvdb.options import parse_cluster
from kvdb.storage.filesystem import DirectoryInUse, DiskFull, SyncFailed
from kvdb.storage.log import UnknownFormat
from kvdb.storage.segment import CorruptLog
from kvdb.storage.unsynced import this_boot
from kvdb.store.backup import BackupHeader, BadBackup
from kvdb.store.encoding import UnknownCommand
from kvdb.store.engine import EngineError
from kvdb.store.store import UnknownFormat as UnknownStoreFormat

NAME: Final = "kvdbctl"

DONE: Final = 0
NO: Final = 1
UNUSABLE: Final = 2
INTERRUPTED: Final = 130
"""Exit statuses, as docs/kvdbctl.md has them."""

_TICK_MS: Final = 100
_ELECTION_TICKS: Final = 10
_HEARTBEAT_TICKS: Final = 1

BAD: Final = (
    BadBackup,
    CorruptLog,
    EngineError,
    UnknownCommand,
    UnknownFormat,
    UnknownStoreFormat,
)
"""What can be wrong in files, and says itself what to do."""

OUT_OF_REACH: Final = (DirectoryInUse, DiskFull, OSError, SyncFailed, Unusable)
"""What can keep files from being read or made; nothing was done."""

Work = Callable[..., int | None]


def one_line(work: Work) -> Work:
    """Have what goes wrong told in one line."""

    @functools.wraps(work)
    def told(*args: Any, **more: Any) -> int | None:
        try:
            return work(*args, **more)
        except BAD as error:
            note(str(error))
            return NO
        except OUT_OF_REACH as error:
            text = str(error)
            if isinstance(error, OSError) and error.filename is not None:
                text = f"{error.filename}: {(error.strerror or text).lower()}"
            note(text)
            return UNUSABLE

    return told


def note(text: str) -> None:
    """A line that is no answer."""
    click.echo(f"{NAME}: {' '.join(text.split())}", err=True)


def answer(value: dict[str, Any], as_json: bool) -> None:
    """An answer: a line of JSON, or a line for each name."""
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False))
        return
    width = max(map(len, value))
    for name, one in value.items():
        for text in one if isinstance(one, list) else [one]:
            click.echo(f"{name.replace('_', ' '):{width}}  {text}")


def _is_json(given: bool) -> bool:
    """Whether asked for here, or before the command."""
    context = click.get_current_context(silent=True)
    kept = None if context is None else context.find_object(dict)
    return given or bool((kept or {}).get("json"))


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


_json = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
_ID = click.IntRange(1, 2**63 - 1)
_step = click.option(
    "--revision-step",
    type=click.IntRange(1, restoring.MAX_REVISION),
    default=restoring.REVISION_STEP,
    show_default=True,
    help="How far revisions move on.",
)


def _cluster(
    context: click.Context, parameter: click.Parameter, text: str
) -> dict[int, str]:
    try:
        return parse_cluster(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


_cluster_option = click.option(
    "--cluster",
    required=True,
    metavar="ID=URL,...",
    callback=_cluster,
    help="Members of the new cluster, and their peer URLs.",
)


# Backups.


@click.group("snapshot")
def snapshot() -> None:
    """Backups."""


@snapshot.command("verify")
@click.argument("file")
@_json
@one_line
def verify(file: str, as_json: bool) -> int:
    """
    Read a backup through, check every checksum, and tell what is in it.

    The exit status is 0 if the backup is whole, else 1.
    """
    with bar(f"reading {os.path.basename(file)}", archive.size_of(file)) as progress:
        contents = archive.verify(file, progress)
    answer(
        {
            **_header_fields(contents.header),
            "keys": contents.keys,
            "members": [f"{one.id}={one.url}" for one in contents.members],
            "outcomes": contents.outcomes,
            "bytes": contents.size,
            "sha256": contents.sha256,
            "digest": contents.digest,
        },
        _is_json(as_json),
    )
    return DONE


def _header_fields(header: BackupHeader) -> dict[str, Any]:
    return {
        "cluster_id": f"{header.cluster_id:016x}",
        "revision": header.revision,
        "index": header.applied_index,
        "term": header.applied_term,
        "taken": utc(header.time_ms),
    }


def utc(time_ms: int) -> str:
    """A time for people and programs (ISO 8601)."""
    try:
        return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat("T", "seconds")
    except (OverflowError, ValueError):
        return f"{time_ms} ms"


@snapshot.command("restore")
@click.argument("file")
@click.option("--data-dir", required=True, help="A new directory, or an empty one.")
@click.option("--id", "node", type=_ID, required=True, help="The member it is for.")
@_cluster_option
@click.option("--cluster-token", default="", help="Another one makes another cluster.")
@_step
@_json
@one_line
def restore(
    file: str,
    data_dir: str,
    node: int,
    cluster: dict[int, str],
    cluster_token: str,
    revision_step: int,
    as_json: bool,
) -> int:
    """
    Make the data directory of one member of a new cluster from a backup.

    Run it for each member, with the same file and options but --id and --data-dir;
    then start them.
    """
    new = restoring.NewCluster(
        members=cluster, token=cluster_token, revision_step=revision_step
    )
    with bar(f"restoring {os.path.basename(file)}", archive.size_of(file)) as progress:
        made = restoring.restore(real_disk(), file, data_dir, node, new, progress)
    answer(
        {
            "data_dir": data_dir,
            "cluster_id": f"{made.cluster_id:016x}",
            "revision": made.revision,
            "keys": made.contents.keys,
            "digest": made.contents.digest,
        },
        _is_json(as_json),
    )
    return DONE


# A data directory.


@click.command("recover")
@click.option("--data-dir", required=True, help="What is left of the old cluster.")
@click.option("--to", "target", help="The new data directory.  [DATA-DIR-recovered]")
@click.option("--id", "node", type=_ID, required=True, help="The member it is for.")
@_cluster_option
@_step
@click.option(
    "--discard-uncommitted",
    is_flag=True,
    help="Leave out what is not known to be committed.",
)
@click.option("--yes", is_flag=True, help="Do it without asking.")
@_json
@one_line
def recover(
    data_dir: str,
    target: str | None,
    node: int,
    cluster: dict[int, str],
    revision_step: int,
    discard_uncommitted: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """
    Make a new cluster of one from what one member has.

    For when a majority of the members is gone for good, and there is no backup that
    is newer.  The directory is left as it is; what may be lost is told before.
    """
    if list(cluster) != [node]:
        raise click.UsageError(
            f"--cluster is the new member alone: {node}=http://HOST:PORT; the others"
            " are added to it once it serves"
        )
    to = target or os.path.normpath(data_dir) + "-recovered"
    # Kept from nodes until it is done: what is made is what the warnings were about.
    with recovering.opened(data_dir) as survivor:
        _tell(data_dir, survivor.survey)
        if not yes and not _confirmed(to):
            note("nothing was done")
            return NO
        with bar("recovering", None) as progress:
            made = recovering.recover(
                real_disk(),
                survivor,
                to,
                node,
                cluster[node],
                progress,
                revision_step=revision_step,
                discard_uncommitted=discard_uncommitted,
            )
    answer(
        {
            "data_dir": to,
            "cluster_id": f"{made.cluster_id:016x}",
            "revision": made.revision,
            "entries_applied": made.applied,
            "keys": made.keys,
            "digest": made.digest,
        },
        _is_json(as_json),
    )
    return DONE


def _tell(directory: str, found: recovering.Survey) -> None:
    own = found.identity
    note(f"{directory} is of member {own.node_id} of cluster {own.cluster_id:016x}")
    note(f"its store is at revision {found.revision}, its log ends at {found.last}")
    if found.newest_ms is not None:
        note(f"the newest write in its log was asked for at {utc(found.newest_ms)}")
    for text in found.warnings():
        note(f"WARNING: {text}")


def _confirmed(target: str) -> bool:
    if not _is_asked():
        note("to go on, say --yes")
        return False
    return click.confirm(f"Make a new cluster of one in {target}?", err=True)


def _is_asked() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()


@click.command("fsck")
@click.argument("directory")
@_json
@one_line
def fsck(directory: str, as_json: bool) -> int:
    """
    Read all of a data directory, and tell what is wrong with it.

    Nothing is changed.  The exit status is 1 if there is an error.
    """
    with bar("reading", None) as progress:
        found = checking.fsck(directory, this_boot(), progress)
    findings = found.findings
    if _is_json(as_json):
        for one in findings.found:
            click.echo(json.dumps(asdict(one), ensure_ascii=False))
    else:
        for one in findings.found:
            click.echo(one.text())
        if findings.more:
            click.echo(f"and {findings.more} more")
    answer(
        {
            "errors": findings.errors,
            "segments": found.segments,
            "log_bytes": found.log_bytes,
            "entries": found.entries,
            "keys": found.keys,
            "digest": found.digest,
        },
        _is_json(as_json),
    )
    return NO if findings.errors else DONE


@click.command("dump")
@click.argument("directory")
@click.option("--show-keys", is_flag=True, help="Tell keys, and not their lengths.")
@_json
@one_line
def dump(directory: str, show_keys: bool, as_json: bool) -> int:
    """
    Tell what is in a data directory: a line for each thing in it.

    Keys are told by their lengths, values always.
    """
    json_lines = _is_json(as_json)
    for line in dumping.dump(directory, show_keys=show_keys):
        if json_lines:
            click.echo(json.dumps(line, ensure_ascii=False))
        else:
            click.echo(_text_of(line))
    return DONE


def _text_of(line: dict[str, Any]) -> str:
    what, *rest = line.items()
    return " ".join([str(what[1]), *(f"{name}={_value(one)}" for name, one in rest)])


def _value(value: Any) -> str:
    return "-" if value is None else json.dumps(value, ensure_ascii=True)


# A disk.


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
@_json
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
        _is_json(as_json),
    )
    for text in wrong:
        note(text)
    return NO if wrong else DONE


@click.group(NAME, context_settings={"help_option_names": ["-h", "--help"]})
def tree() -> None:
    """Backups, and data directories that nobody uses."""


for one in (snapshot, recover, fsck, dump, check):
    tree.add_command(one)


def main() -> NoReturn:
    """C{python -m kvdb.offline}."""
    try:
        status = tree.main(prog_name=NAME, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except click.Abort:
        status = INTERRUPTED
    sys.exit(status)
