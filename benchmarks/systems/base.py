"""
The face of all systems, and what clusters spoken to over HTTP have in common.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

from attrs import define, field

from benchmarks import wrk
from benchmarks.dialect import Answer, Dialect, Request, ask
from benchmarks.fill import fill
from benchmarks.goload import Goload
from benchmarks.load import Figures, Load
from benchmarks.process import Failed, Process, kill_all, until

MEMBERS: Final = 3
"""Of a cluster, unless said otherwise."""

Tell = Callable[[int], None]
"""Told how many more keys were put in."""


@define(slots=True, eq=False)
class System(ABC):
    """
    @cvar name: what people call it.
    @ivar directory: its own, with all its data.
    @ivar size: of how many members.
    """

    name: ClassVar[str]
    directory: Path
    goload: Goload
    size: int = MEMBERS

    @classmethod
    def absence(cls, goload: Goload) -> str | None:
        """Why it cannot be measured on this machine."""
        return None

    @classmethod
    def unfit(cls, load: Load) -> str | None:
        """Why it cannot carry a load."""
        return None

    @abstractmethod
    def start(self) -> None:
        """
        Start it, and wait until it serves.

        @raise Failed: it does not.
        """

    @abstractmethod
    def fill(self, keys: range, value_bytes: int, tell: Tell) -> None:
        """
        Put keys in.

        @raise Failed: not all could be.
        """

    @abstractmethod
    def run(self, load: Load, seconds: int, *, follower: bool = False) -> Figures:
        """
        Put a load on the leader, or on a follower.

        @raise Failed: the client does not run.
        """

    @abstractmethod
    def processes(self) -> dict[str, Process]:
        """Its processes, by a name for each."""

    def notes(self) -> list[str]:
        """What has to be known to judge its figures."""
        return []

    def stop(self) -> None:
        """End its processes; their data is thrown away."""
        kill_all(self.processes().values())


@contextlib.contextmanager
def running(system: System) -> Iterator[None]:
    """A system that serves; ended, and its data removed, whatever happens."""
    try:
        system.start()
        yield
    finally:
        system.stop()
        shutil.rmtree(system.directory, ignore_errors=True)


def fresh_directory(parent: Path, name: str) -> Path:
    """A new one."""
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=parent))


@define(slots=True, eq=False)
class Member:
    """
    One member of a cluster.

    @ivar address: where clients find it.
    """

    number: int
    address: str
    process: Process

    def ask(self, request: Request) -> Answer | None:
        """One request; None where there is no answer."""
        return ask(self.address, request)

    def told(self, request: Request) -> Any:
        """The JSON it answers with; None where it does not."""
        answer = self.ask(request)
        if answer is None or not answer.done:
            return None
        try:
            return answer.json()
        except ValueError:
            return None


@define(slots=True, eq=False)
class HttpCluster(System):
    """
    @ivar members: in the order of their numbers.
    """

    dialect: ClassVar[Dialect]
    members: list[Member] = field(factory=list, init=False)

    @classmethod
    def absence(cls, goload: Goload) -> str | None:
        """See L{System}."""
        return wrk.absence()

    @abstractmethod
    def prepare(self) -> None:
        """Make the members, without starting them."""

    @abstractmethod
    def leads(self, member: Member) -> bool:
        """Whether it says that it leads."""

    @abstractmethod
    def is_ready(self, member: Member) -> bool:
        """Whether it has caught up, and serves."""

    def start(self) -> None:
        """See L{System}."""
        self.prepare()
        for member in self.members:
            member.process.start()
        self.wait_ready()
        self.leader()

    def wait_ready(self) -> None:
        """
        Until all that were started serve.

        @raise Failed: they do not.
        """
        for member in self.members:
            self.wait_ready_of(member)

    def wait_ready_of(self, member: Member) -> None:
        """Until one serves."""

        def ready() -> bool:
            member.process.require_alive()
            return self.is_ready(member)

        until(ready, f"{member.process.name} serves")

    def leader(self) -> Member:
        """
        Who leads.

        @raise Failed: nobody does.
        """

        def found() -> list[Member]:
            return [m for m in self.members if m.process.alive and self.leads(m)]

        return until(found, f"{self.name} has a leader")[0]

    def follower(self) -> Member:
        """One that does not lead."""
        leader = self.leader()
        others = [member for member in self.members if member is not leader]
        if not others:
            raise Failed(f"{self.name} has no follower")
        return others[0]

    def fill(self, keys: range, value_bytes: int, tell: Tell) -> None:
        """See L{System}."""
        fill(self.leader().address, self.dialect, keys, value_bytes, tell)

    def run(self, load: Load, seconds: int, *, follower: bool = False) -> Figures:
        """See L{System}."""
        member = self.follower() if follower else self.leader()
        if load.rate is not None:
            return self.goload.run(
                member.address, load, seconds, dialect=self.dialect.name
            )
        return wrk.run(member.address, self.dialect.name, load, seconds)

    def processes(self) -> dict[str, Process]:
        """See L{System}."""
        return {f"member {m.number}": m.process for m in self.members}
