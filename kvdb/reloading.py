"""
Files that an operator changes while the node runs: certificates, keys, the
access file.

Each L{Reloaded} is read again when one of its files changes.  A new file that
is of no use is said so once, and what was read before stays in force.

Rules: what was read is replaced whole or not at all; nothing here knows what
is in a file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

log = Logger(namespace="kvdb.reloading")

RELOAD_SECONDS: Final = 5.0
"""How often it is looked whether a file has changed."""

MAX_FILE_BYTES: Final = 1 << 20
"""The longest of these files."""

Read = TypeVar("Read")


class Unusable(Exception):
    """What a file holds is of no use; the text says why, and names the option."""


class Files(Protocol):
    """The way to such files; small, and on a disk that is seldom slow."""

    def stamp(self, path: str) -> object:
        """Differs once the file was changed.  @raise OSError: it is not there."""

    def read(self, path: str) -> bytes:
        """All of it.  @raise OSError: it cannot be read."""


class RealFiles:
    """This machine's."""

    def stamp(self, path: str) -> object:
        """See L{Files}, as for the next."""
        found = os.stat(path)
        return found.st_mtime_ns, found.st_size, found.st_ino

    def read(self, path: str) -> bytes:
        """See there."""
        with Path(path).open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)


def read_file(files: Files, path: str, option: str) -> bytes:
    """
    What an option's file holds.

    @raise Unusable: it cannot be read, or is too long.
    """
    try:
        data = files.read(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise Unusable(f"{option}: {path} cannot be read ({why})") from None
    if len(data) > MAX_FILE_BYTES:
        raise Unusable(f"{option}: {path} is longer than {MAX_FILE_BYTES} bytes")
    return data


@define(slots=True, eq=False)
class Reloaded(Generic[Read]):
    """
    What was read from some files, as new as they are.

    @ivar what: what it is, for the log.
    @ivar load: reads them; raises L{Unusable}.
    @ivar value: the newest that was of use.
    @ivar problem: why what is there now is not; empty if it is.
    @ivar changed: told of each new value.
    """

    what: str
    paths: Sequence[str]
    files: Files
    load: Callable[[], Read]
    value: Read = field(init=False)
    problem: str = ""
    changed: Callable[[Read], None] | None = None
    _stamp: object = None

    def __attrs_post_init__(self) -> None:
        self._stamp = self._stamps()
        self.value = self.load()

    def check(self, even_if_unchanged: bool = False) -> None:
        """Read the files again, if they have changed."""
        stamp = self._stamps()
        if stamp == self._stamp and not even_if_unchanged:
            return
        self._stamp = stamp
        try:
            self.value = self.load()
        except Unusable as error:
            self.problem = f"{error}; what was read before stays in force"
            log.error("{problem}", problem=self.problem)
            return
        self.problem = ""
        log.info("{what} was read anew", what=self.what)
        if self.changed is not None:
            self.changed(self.value)

    def _stamps(self) -> object:
        stamps = []
        for path in self.paths:
            try:
                stamps.append(self.files.stamp(path))
            except OSError as error:
                stamps.append(error.errno)
        return stamps


class ReloadService(Service):
    """Looks after them all."""

    def __init__(self, clock: IReactorTime, things: Sequence[Reloaded[object]]) -> None:
        self._clock = clock
        self._things = things
        self._call: IDelayedCall | None = None

    def startService(self) -> None:
        """Begin to look."""
        super().startService()
        self._later()

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def read_all(self) -> None:
        """Somebody says that the files have changed."""
        if self.running:
            for thing in self._things:
                thing.check(even_if_unchanged=True)

    def _later(self) -> None:
        self._call = self._clock.callLater(RELOAD_SECONDS, self._look)

    def _look(self) -> None:
        for thing in self._things:
            thing.check()
        self._later()
