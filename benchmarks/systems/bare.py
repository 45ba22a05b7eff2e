"""
What Twisted alone can do: one process that answers, and does nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar, Final

from attrs import define

from benchmarks import dialect
from benchmarks.dialect import Dialect
from benchmarks.process import LOOPBACK, Process, free_ports
from benchmarks.systems.base import HttpCluster, Member, Tell

ROOT: Final = Path(__file__).resolve().parent.parent.parent


@define(slots=True, eq=False)
class BareProtocol(HttpCluster):
    """A protocol that finds the ends of requests."""

    name: ClassVar[str] = "bare-protocol"
    kind: ClassVar[str] = "protocol"
    dialect: ClassVar[Dialect] = dialect.Kvdb()

    def prepare(self) -> None:
        """See L{HttpCluster}."""
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "benchmarks.systems.bare_server"]
        process = Process(
            self.name,
            [*command, self.kind, str(port)],
            ROOT,
            self.directory / "log",
        )
        self.members.append(Member(1, f"{LOOPBACK}:{port}", process))

    def leads(self, member: Member) -> bool:
        """See L{HttpCluster}."""
        return True

    def is_ready(self, member: Member) -> bool:
        """See L{HttpCluster}."""
        answer = member.ask(self.dialect.get("any"))
        return answer is not None and answer.done

    def follower(self) -> Member:
        """There is but one."""
        return self.members[0]

    def fill(self, keys: range, value_bytes: int, tell: Tell) -> None:
        """It keeps nothing."""
        tell(len(keys))

    def notes(self) -> list[str]:
        """See L{System<benchmarks.systems.base.System>}."""
        return ["bare: one process that keeps nothing; reads find 64 bytes"]


@define(slots=True, eq=False)
class BareSite(BareProtocol):
    """twisted.web's own way."""

    name: ClassVar[str] = "bare-site"
    kind: ClassVar[str] = "site"
