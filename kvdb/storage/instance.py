"""
Which log a store belongs to.

A data directory has two parts, which may be two volumes: the log, which says who the
member is and which instance of it, and the store.  Either may be missing, or be that
of another directory; a member that started on such a pair would take back what it
acknowledged.  So the store has the log's instance id beside it::

    <data directory>/store/INSTANCE    16 hexadecimal digits and a newline

Rules: it is durable only after the log's identity is, so a store without a log is
never what a crash left; a directory of a release that wrote none is given one.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from kvdb.storage.filesystem import FileSystem

NAME: Final = "INSTANCE"

_TEXT_BYTES: Final = 17

REMEDY: Final = (
    "Mount the volume, or put back the part, that belongs to the other.  If that is"
    " lost: a member of a larger cluster is removed and added under a new id with an"
    " empty data directory; a cluster of one is restored from a backup into an empty"
    " data directory (kvdbctl snapshot restore)"
)


class PartsDiffer(Exception):
    """
    Log and store of one data directory do not belong together.

    @ivar what: without the remedy.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}.  {REMEDY}")
        self.what = what


@frozen(slots=True)
class InstanceFile:
    """
    The file beside one store.

    @ivar directory: the store's.
    """

    filesystem: FileSystem
    directory: str

    @property
    def path(self) -> str:
        """Where it is."""
        return f"{self.directory}/{NAME}"

    def read(self) -> str | None:
        """What it says; None where there is none."""
        if not self.filesystem.exists(self.path):
            return None
        file = self.filesystem.open(self.path)
        try:
            return file.read(0, _TEXT_BYTES + 1).decode("latin-1")
        finally:
            file.close()

    def check(self, instance_id: int, log_directory: str) -> None:
        """
        @param instance_id: of the log in C{log_directory}.
        @raise PartsDiffer: the store belongs to another log.
        """
        found = self.read()
        if found is not None and found != _text(instance_id):
            raise PartsDiffer(
                f"the store in {self.directory} belongs to instance {found.strip()!r}"
                f" ({self.path}), and the log in {log_directory} is that of instance"
                f" '{instance_id:016x}': they are parts of two data directories"
            )

    def write(self, instance_id: int) -> None:
        """The store belongs to that log: durable on return."""
        if self.read() == _text(instance_id):
            return
        self.filesystem.make_directory(self.directory)
        file = self.filesystem.open(f"{self.path}.new")
        try:
            file.truncate(0)
            file.write(0, _text(instance_id).encode())
            file.sync()
        finally:
            file.close()
        self.filesystem.rename(f"{self.path}.new", self.path)
        self.filesystem.sync_directory(self.directory)


def _text(instance_id: int) -> str:
    return f"{instance_id:016x}\n"
