"""
A cluster to be hurt.

On a L{Network} each node has a host of its own; without one all are on the
loopback address, and nothing between them can be cut.
"""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path
from typing import Final

from attrs import define, field

from tests.chaos.network import Network, address_of, namespace_of, run
from tests.end_to_end.cluster import (
    PATIENCE,
    TWISTD,
    LocalCluster,
    Process,
    free_ports,
)

OPTIONS: Final = [
    *("--tick", "50"),
    *("--request-timeout", "2"),
    *("--snapshot-count", "2000"),
]
DISK: Final = "96m"
"""The size of a small disk."""

PEER_PORT: Final = 12379
CLIENT_PORT: Final = 12380


def movable_clock(directory: Path) -> Path | None:
    """The library that moves clocks, compiled; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = directory / "clock.so"
    source = Path(__file__).with_name("clock.c")
    run(compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl")
    return library


@define
class Node(Process):
    """
    @ivar lives: how many times it was started.
    @ivar command: what the node's own command is given to.
    @ivar small_disk: whether its data directory is on a disk that can be filled.
    """

    host: str = "127.0.0.1"
    lives: int = 0
    command: list[str] = field(factory=list)
    small_disk: bool = False

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.directory / f"data/kvdb-{self.number}"

    @property
    def clock(self) -> Path:
        """The file with the offset of its clock."""
        return self.directory / f"{self.number}.clock"

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        self.lives += 1
        with (self.directory / f"{self.number}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, TWISTD, "-n", "--pidfile=", "kvdb", *self.options],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={k: v for k, v in os.environ.items() if not k.startswith("KVDB_")},
                start_new_session=True,  # Ctrl-C is for the run, not for its nodes
            )

    def set_clock(self, offset: float) -> None:
        """Move its time of day by so many seconds, from the true one."""
        self.clock.touch()
        with self.clock.open("r+b") as file:  # in place: the node has it mapped
            file.write(struct.pack("=q", int(offset * 1e9)))


@define
class Cluster(LocalCluster):
    """
    @ivar network: None where there is none.
    @ivar small_disks: whether some nodes get a disk that can be filled.
    @ivar clocks: the library that moves clocks, or None.
    @ivar size: how many members there are to be.
    """

    network: Network | None = None
    small_disks: bool = False
    clocks: Path | None = None
    size: int = 0
    _last: int = 0
    _gone: list[Node] = field(factory=list)

    def prepare(self, size: int) -> None:
        self.size = size
        places = {number: self._place(number) for number in range(1, size + 1)}
        known = {n: f"http://{host}:{peer}" for n, (host, peer, _) in places.items()}
        for number, place in places.items():
            self._make(number, place, known, [])
        if self.network is not None:
            self.network.prove()

    def join_next(self) -> Node:
        """Prepare a new member, to be started once it is added."""
        number = self._last + 1
        host, peer_port, port = self._place(number)
        known = {n.number: n.peer_url for n in self.members}
        known[number] = f"http://{host}:{peer_port}"
        return self._make(number, (host, peer_port, port), known, ["--join"])

    def _place(self, number: int) -> tuple[str, int, int]:
        self._last = number
        if self.network is None:
            return "127.0.0.1", *free_ports(2)  # type: ignore[return-value]
        self.network.add(number)
        return address_of(number), PEER_PORT, CLIENT_PORT

    def _make(
        self,
        number: int,
        place: tuple[str, int, int],
        known: dict[int, str],
        more: list[str],
    ) -> Node:
        host, _, port = place
        cluster = ",".join(f"{n}={url}" for n, url in sorted(known.items()))
        options = ["--id", str(number), "--cluster", cluster, "--port", str(port)]
        options += [*more, *OPTIONS]
        # A majority has a large disk: the cluster goes on while others are full.
        small = sum(node.small_disk for node in self.members) + 1
        node = Node(
            number,
            port,
            known[number],
            self.directory,
            options,
            host=host,
            command=self._command(number),
            small_disk=self.small_disks and 2 * small < self.size,
        )
        if node.small_disk:
            node.data.mkdir(parents=True)
            run("mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(node.data))
        if self.clocks is not None:
            node.set_clock(0)
        self.nodes[number] = node
        return node

    def _command(self, number: int) -> list[str]:
        command = []
        if self.network is not None:
            command += ["ip", "netns", "exec", namespace_of(number)]
        if shutil.which("setpriv"):
            command += ["setpriv", "--pdeathsig", "KILL"]  # should we be killed
        if self.clocks is not None:
            clock = self.directory / f"{number}.clock"
            command += ["env", f"LD_PRELOAD={self.clocks}", f"CHAOS_CLOCK={clock}"]
        return command

    @property
    def members(self) -> list[Node]:
        """The nodes that are to be members now."""
        return [n for n in list(self.nodes.values()) if isinstance(n, Node)]

    @property
    def all_nodes(self) -> list[Node]:
        """Those that were members, too."""
        return [*self._gone, *self.members]

    def forget(self, node: Node) -> None:
        """It is no member any more."""
        del self.nodes[node.number]
        self._gone.append(node)

    def unmount(self) -> None:
        """Give the small disks back, with what is on them."""
        for node in self.all_nodes:
            if node.small_disk:
                run("umount", str(node.data))

    def end(self) -> None:
        for node in self.all_nodes:
            if node.alive:
                node.signal(signal.SIGKILL)
        for node in self.all_nodes:
            if node.process is not None:
                node.process.wait(PATIENCE)
