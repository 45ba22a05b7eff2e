"""
The power goes: what was written to real files, and no sync has seen, is lost.

A kill leaves all of it in the page cache.  So C{power.c} is loaded before the C
library, and notes each sync of a file or directory that has ended.  By that,
files are cut behind what was synced, and names are removed that were not.

Rules: only what was not durable is lost.  A file keeps its beginning, as on file
systems that lengthen it when the data is written; names change in order, and
what was removed or replaced stays so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Final

from attrs import define, field

NOTES: Final = 900
"""The descriptor that C{power.c} writes to."""


def preload() -> None:
    """Begin this program anew, with C{power.c} in it."""
    library = f"{tempfile.gettempdir()}/kvdb-power-{os.getpid()}.so"
    if os.environ.get("LD_PRELOAD") == library:
        del os.environ["LD_PRELOAD"]
        os.unlink(library)
        return
    source = str(Path(__file__).with_name("power.c"))
    subprocess.run(
        ["cc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True
    )
    os.environ["LD_PRELOAD"] = library
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@define(slots=True, eq=False)
class Power:
    """
    What is durable of what lies in a directory.

    @ivar lengths: of files, by inode: they may have got another name since.
    @ivar names: with their inodes, by directory.
    """

    notes: str
    random: Random
    lengths: dict[int, int] = field(factory=dict)
    names: dict[str, set[tuple[int, str]]] = field(factory=dict)
    bytes_lost: int = 0
    names_lost: int = 0

    def __attrs_post_init__(self) -> None:
        fd = os.open(self.notes, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC)
        os.dup2(fd, NOTES)
        os.close(fd)

    def lose(self, directory: str) -> None:
        """Lose what is not durable; all else is, from now on."""
        for line in Path(self.notes).read_text().splitlines():
            self._note(line)
        os.truncate(self.notes, 0)
        self._lose_below(directory)
        self.lengths.clear()
        self.names.clear()
        self._keep(directory)

    def _note(self, line: str) -> None:
        kind, _, rest = line.partition(" ")
        if kind == "F":
            inode, length, _ = rest.split(" ", 2)
            self.lengths[int(inode)] = int(length)
        else:
            path, *found = rest.split("\t")
            pairs = [one.split(" ", 1) for one in found]
            self.names[path] = {(int(inode), name) for inode, name in pairs}

    def _lose_below(self, directory: str) -> None:
        known = self.names.get(directory, set())
        names = {name for _, name in known}
        found = list(os.scandir(directory))
        # Names change in order, and one that was replaced is not taken back.
        replaced = any(
            one.name in names and (one.inode(), one.name) not in known for one in found
        )
        for one in found:
            lost = not replaced and one.name not in names
            if lost and self.random.random() < 0.7:
                self.names_lost += 1
                if one.is_dir():
                    shutil.rmtree(one.path)
                else:
                    os.unlink(one.path)
            elif one.is_dir():
                self._lose_below(one.path)
            else:
                self._cut(one.path, self.lengths.get(one.inode(), 0))

    def _cut(self, path: str, durable: int) -> None:
        length = os.stat(path).st_size
        if length <= durable:
            return
        kept = self.random.choice([durable, self.random.randint(durable, length)])
        self.bytes_lost += length - kept
        os.truncate(path, kept)

    def _keep(self, directory: str) -> None:
        entries = list(os.scandir(directory))
        self.names[directory] = {(one.inode(), one.name) for one in entries}
        for one in entries:
            if one.is_dir():
                self._keep(one.path)
            else:
                self.lengths[one.inode()] = one.stat().st_size
