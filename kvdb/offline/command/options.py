"""What several tools are told: how to answer, and of the cluster that is made."""

from __future__ import annotations

from typing import Final

import click

from kvdb.offline.restore import MAX_REVISION, REVISION_STEP
from kvdb.options import parse_cluster

json_option = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
NODE_ID: Final = click.IntRange(1, 2**63 - 1)
step_option = click.option(
    "--revision-step",
    type=click.IntRange(1, MAX_REVISION),
    default=REVISION_STEP,
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


cluster_option = click.option(
    "--cluster",
    required=True,
    metavar="ID=URL,...",
    callback=_cluster,
    help="Members of the new cluster, and their peer URLs.",
)
