"""
Whether a loss of power may have taken what a member has acknowledged.

With C{--sync-interval} a member acknowledges what it has written before that is
on the disk.  A process that dies loses nothing of it, as the kernel has it; a
machine that loses power may, and so may a disk that fails to sync.  A member that
may have forgotten what it acknowledged must not take part any more: with another
that fails it could undo what a quorum had.  So a mark stands beside the log for as
long as that may be, with the name of this boot of the machine in it::

    unsynced    the boot's id, as text; nothing once a sync has failed

Rules: the mark is durable before anything is acknowledged early, and is taken
away only when all is synced; it is emptied before anybody hears that a sync has
failed; a mark that is not of this boot refuses the directory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from attrs import frozen

from kvdb.storage.filesystem import FileSystem

MARK: Final = "unsynced"

MAX_BOOT_ID_BYTES: Final = 64

BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
"""See random(4)."""

LOST: Final = (
    "the machine stopped or its disk failed while this member acknowledged before its"
    " disk had it (--sync-interval), so what it acknowledged last may be gone"
)

REMEDY: Final = (
    "remove the member, and add it under a new id with an empty data directory; if a"
    " majority is in this state, see kvdbctl recover"
)


def this_boot() -> str:
    """What tells this boot of this machine from all others; empty where it does not
    say."""
    try:
        return Path(BOOT_ID).read_text("ascii").strip()
    except OSError:
        return ""


class PowerWasLost(Exception):
    """What a member acknowledged may be gone: its data must not be used."""


@frozen(slots=True)
class Unsynced:
    """
    The mark of one log.

    @ivar boot_id: of this boot of the machine; no other has it.
    """

    filesystem: FileSystem
    directory: str
    boot_id: str

    @property
    def path(self) -> str:
        """Where it is."""
        return f"{self.directory}/{MARK}"

    def is_set(self) -> bool:
        """Whether there is one, of this boot or of another."""
        return self.filesystem.exists(self.path)

    def is_of_before(self) -> bool:
        """Whether there is one of another boot, or of a sync that failed."""
        if not self.is_set():
            return False
        file = self.filesystem.open(self.path)
        try:
            found = file.read(0, MAX_BOOT_ID_BYTES)
        finally:
            file.close()
        return found != self.boot_id.encode()

    def check(self) -> None:
        """@raise PowerWasLost: the mark is not that of this boot."""
        if self.is_of_before():
            raise PowerWasLost(f"{self.path}: {LOST}.  What to do: {REMEDY}")

    def begin(self) -> None:
        """From now on it may acknowledge what is not synced."""
        file = self.filesystem.open(f"{self.path}.new")
        try:
            file.write(0, self.boot_id.encode())
            file.sync()
        finally:
            file.close()
        self.filesystem.rename(f"{self.path}.new", self.path)
        self.filesystem.sync_directory(self.directory)

    def give_up(self) -> None:
        """
        A sync has failed: what was acknowledged may be gone, also in this boot.
        Neither space nor a sync is needed for this: whoever loses power now finds
        the mark of another boot, or this one.
        """
        if self.is_set():
            file = self.filesystem.open(self.path)
            file.truncate(0)
            file.close()

    def end(self) -> None:
        """All that was acknowledged is synced, and will be from now on."""
        if self.filesystem.exists(self.path):
            self.filesystem.remove(self.path)
            self.filesystem.sync_directory(self.directory)
