"""C{recover}."""

from __future__ import annotations

import os
import sys

import click

from kvdb.offline.command.options import (
    NODE_ID,
    cluster_option,
    json_option,
    step_option,
)
from kvdb.offline.command.say import (
    DONE,
    NO,
    answer,
    bar,
    is_json,
    note,
    one_line,
    tell_owner,
    utc,
)
from kvdb.offline.directory import other_owner, real_disk
from kvdb.offline.recover import Survey, opened
from kvdb.offline.recover import recover as make
from kvdb.storage.unsynced import this_boot


@click.command("recover")
@click.option("--data-dir", required=True, help="What is left of the old cluster.")
@click.option("--to", "target", help="The new data directory.  [DATA-DIR-recovered]")
@click.option("--id", "node", type=NODE_ID, required=True, help="The member it is for.")
@cluster_option
@step_option
@click.option(
    "--discard-uncommitted",
    is_flag=True,
    help="Leave out what is not known to be committed.",
)
@click.option("--yes", is_flag=True, help="Do it without asking.")
@json_option
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
    owner = other_owner(to)
    # Kept from nodes until it is done: what is made is what the warnings were about.
    with opened(data_dir, this_boot()) as survivor:
        _tell(data_dir, survivor.survey)
        if not yes and not _confirmed(to):
            note("nothing was done")
            return NO
        with bar("recovering", None) as progress:
            made = make(
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
        is_json(as_json),
    )
    tell_owner(to, owner)
    return DONE


def _tell(directory: str, found: Survey) -> None:
    own = found.identity
    note(f"{directory} is of member {own.node_id} of cluster {own.cluster_id:016x}")
    note(
        f"it is at revision {found.revision}, with all that it knows to be committed;"
        f" its log ends at {found.last}"
    )
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
