"""C{snapshot verify} and C{snapshot restore}."""

from __future__ import annotations

import os
from typing import Any

import click

from kvdb.offline import archive
from kvdb.offline.command.options import (
    NODE_ID,
    cluster_option,
    json_option,
    step_option,
)
from kvdb.offline.command.say import (
    DONE,
    answer,
    bar,
    is_json,
    one_line,
    tell_owner,
    utc,
)
from kvdb.offline.directory import other_owner, real_disk
from kvdb.offline.restore import NewCluster
from kvdb.offline.restore import restore as make
from kvdb.store.backup import BackupHeader


@click.group("snapshot")
def snapshot() -> None:
    """Backups."""


@snapshot.command("verify")
@click.argument("file")
@json_option
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
        is_json(as_json),
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


@snapshot.command("restore")
@click.argument("file")
@click.option("--data-dir", required=True, help="A new directory, or an empty one.")
@click.option("--id", "node", type=NODE_ID, required=True, help="The member it is for.")
@cluster_option
@click.option("--cluster-token", default="", help="Another one makes another cluster.")
@step_option
@json_option
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
    new = NewCluster(members=cluster, token=cluster_token, revision_step=revision_step)
    owner = other_owner(data_dir)
    with bar(f"restoring {os.path.basename(file)}", archive.size_of(file)) as progress:
        made = make(real_disk(), file, data_dir, node, new, progress)
    answer(
        {
            "data_dir": data_dir,
            "cluster_id": f"{made.cluster_id:016x}",
            "revision": made.revision,
            "keys": made.contents.keys,
            "digest": made.contents.digest,
        },
        is_json(as_json),
    )
    tell_owner(data_dir, owner)
    return DONE
