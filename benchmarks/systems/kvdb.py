"""
kvdb: real nodes, started as a user would.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar, Final

from attrs import define

from benchmarks import dialect
from benchmarks.dialect import Dialect, Request
from benchmarks.process import LOOPBACK, Process, clean_environment, free_ports
from benchmarks.systems.base import HttpCluster, Member

TWISTD: Final = str(Path(sys.executable).parent / "twistd")


@define(slots=True, eq=False)
class Kvdb(HttpCluster):
    """See the head of this module."""

    name: ClassVar[str] = "kvdb"
    dialect: ClassVar[Dialect] = dialect.Kvdb()

    def prepare(self) -> None:
        """See L{HttpCluster}."""
        ports = free_ports(2 * self.size)
        urls = [f"http://{LOOPBACK}:{port}" for port in ports[: self.size]]
        for number, port in enumerate(ports[self.size :], 1):
            command = [TWISTD, "-n", "--pidfile=", "kvdb", "--id", str(number)]
            command += ["--cluster", ",".join(urls), "--port", str(port)]
            process = Process(
                f"kvdb member {number}",
                command,
                self.directory,
                self.directory / f"{number}.log",
                clean_environment("KVDB_"),
            )
            self.members.append(Member(number, f"{LOOPBACK}:{port}", process))

    def leads(self, member: Member) -> bool:
        """See L{HttpCluster}."""
        status = member.told(Request("GET", "/_/status"))
        return status is not None and status["role"] == "leader"

    def is_ready(self, member: Member) -> bool:
        """See L{HttpCluster}."""
        answer = member.ask(Request("GET", "/_/ready"))
        return answer is not None and answer.done
