"""
Which commands there are.

Most are here.  Those that work on a member's files, without a cluster, are the
offline room's, and are named, not imported: a command of it is a Click command
whose function does its work at once, and returns its exit status or nothing.
It is loaded when it is asked for, and one whose module is not installed is not
shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import click

from kvdb import __version__
from kvdb.client.command import bench, cluster, completion, keys, snapshots
from kvdb.client.command.options import Group
from kvdb.client.command.session import NAME

_OFFLINE: Final = "kvdb.offline.command"

ELSEWHERE: Final[Mapping[str, str]] = {
    "snapshot verify": f"{_OFFLINE}.backups:verify",
    "snapshot restore": f"{_OFFLINE}.backups:restore",
    "recover": f"{_OFFLINE}.recovery:recover",
    "fsck": f"{_OFFLINE}.contents:fsck",
    "dump": f"{_OFFLINE}.contents:dump",
    "check": f"{_OFFLINE}.disks:check",
}
"""Commands of other rooms, and groups of them: what is typed, and
C{package.module:attribute}."""


class Tree(Group):
    """Commands that stand here, and those that stand elsewhere."""

    def __init__(self, *args: Any, words: str = "", **more: Any) -> None:
        super().__init__(*args, **more)
        self._words = words
        self.elsewhere: Mapping[str, str] = ELSEWHERE

    def list_commands(self, context: click.Context) -> list[str]:
        """See L{click.Group}."""
        begin = self._words + " " if self._words else ""
        found = set(super().list_commands(context))
        for words, where in self.elsewhere.items():
            name = words.removeprefix(begin)
            if words.startswith(begin) and " " not in name and _is_there(where):
                found.add(name)
        return sorted(found)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """See L{click.Group}."""
        here = super().get_command(context, name)
        where = self.elsewhere.get(f"{self._words} {name}".strip())
        if here is not None or where is None or not _is_there(where):
            return here
        module, _, attribute = where.partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        return found


def _is_there(where: str) -> bool:
    try:
        return find_spec(where.partition(":")[0]) is not None
    except ModuleNotFoundError:
        return False


@click.group(
    NAME,
    cls=Tree,
    outermost=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="These options can stand behind a command too.  See docs/kvdbctl.md.",
)
@click.version_option(__version__, prog_name=NAME, message="%(prog)s %(version)s")
def tree() -> None:
    """Talk to a kvdb cluster."""


HERE: Final[Sequence[click.Command]] = (
    keys.get,
    keys.put,
    keys.delete,
    keys.list_,
    keys.watch,
    cluster.member,
    cluster.leader,
    cluster.status,
    cluster.health,
    bench.bench,
    completion.completion,
)

snapshot = Tree("snapshot", words="snapshot", help=snapshots.snapshot.help)

for one in HERE:
    tree.add_command(one)
for one in snapshots.snapshot.commands.values():
    snapshot.add_command(one)
tree.add_command(snapshot)
