"""
etcd 3.4, with its defaults: over its JSON gateway, and over gRPC.
"""

from __future__ import annotations

import shutil
from typing import ClassVar, Final

from attrs import define

from benchmarks import dialect
from benchmarks.dialect import Dialect, Request
from benchmarks.goload import Goload
from benchmarks.load import Figures, Load
from benchmarks.process import LOOPBACK, Process, clean_environment, free_ports
from benchmarks.systems.base import HttpCluster, Member

QUOTA_BYTES: Final = 8 << 30
"""The default of 2 GiB is less than some suites write."""


@define(slots=True, eq=False)
class EtcdHttp(HttpCluster):
    """Over its JSON gateway, as curl would."""

    name: ClassVar[str] = "etcd-http"
    dialect: ClassVar[Dialect] = dialect.EtcdGateway()

    @classmethod
    def absence(cls, goload: Goload) -> str | None:
        """See L{System<benchmarks.systems.base.System>}."""
        if shutil.which("etcd") is None:
            return "etcd is not installed"
        return HttpCluster.absence(goload)

    def prepare(self) -> None:
        """See L{HttpCluster}."""
        ports = free_ports(2 * self.size)
        peers = [f"http://{LOOPBACK}:{port}" for port in ports[: self.size]]
        cluster = ",".join(f"m{n}={url}" for n, url in enumerate(peers, 1))
        for number, port in enumerate(ports[self.size :], 1):
            url, peer = f"http://{LOOPBACK}:{port}", peers[number - 1]
            command = ["etcd", "--name", f"m{number}"]
            command += ["--data-dir", str(self.directory / f"m{number}")]
            command += ["--listen-client-urls", url, "--advertise-client-urls", url]
            command += ["--listen-peer-urls", peer]
            command += ["--initial-advertise-peer-urls", peer]
            command += ["--initial-cluster", cluster]
            command += ["--initial-cluster-state", "new"]
            command += ["--quota-backend-bytes", str(QUOTA_BYTES)]
            process = Process(
                f"etcd member {number}",
                command,
                self.directory,
                self.directory / f"{number}.log",
                clean_environment("ETCD_"),
            )
            self.members.append(Member(number, f"{LOOPBACK}:{port}", process))

    def leads(self, member: Member) -> bool:
        """See L{HttpCluster}."""
        told = member.told(Request("POST", "/v3/maintenance/status", b"{}"))
        return told is not None and told.get("leader") == told["header"]["member_id"]

    def is_ready(self, member: Member) -> bool:
        """See L{HttpCluster}."""
        told = member.told(Request("GET", "/health"))
        return told is not None and told.get("health") == "true"


@define(slots=True, eq=False)
class EtcdGrpc(EtcdHttp):
    """Over gRPC, with a client of its own for each connection."""

    name: ClassVar[str] = "etcd-grpc"

    @classmethod
    def absence(cls, goload: Goload) -> str | None:
        """See L{System<benchmarks.systems.base.System>}."""
        return super().absence(goload) or goload.grpc_problem

    def run(self, load: Load, seconds: int, *, follower: bool = False) -> Figures:
        """See L{System<benchmarks.systems.base.System>}."""
        member = self.follower() if follower else self.leader()
        return self.goload.run(member.address, load, seconds, dialect=None)
