"""C{python -m kvdb.offline}: the tools alone, without C{kvdbctl}."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from kvdb.offline.command.backups import snapshot
from kvdb.offline.command.contents import dump, fsck
from kvdb.offline.command.disks import check
from kvdb.offline.command.recovery import recover
from kvdb.offline.command.say import INTERRUPTED, NAME


@click.group(NAME, context_settings={"help_option_names": ["-h", "--help"]})
def tree() -> None:
    """Backups, and data directories that nobody uses."""


for one in (snapshot, recover, fsck, dump, check):
    tree.add_command(one)


def main() -> NoReturn:
    """The process."""
    try:
        status = tree.main(prog_name=NAME, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except click.Abort:
        status = INTERRUPTED
    try:
        sys.stdout.flush()
    except OSError:
        # It was told, or is known to who closed it; the interpreter would complain
        # of it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
