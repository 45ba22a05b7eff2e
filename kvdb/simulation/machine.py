"""
A machine in virtual time: reactor, disk and engine, and the node that runs on
it, which is the real one from its services down.

It may be started, stopped as by SIGTERM, killed, paused, and lose its power;
its disk may fail.  What the node does about that is the node's business; what
is expected of it is said by L{Machine.excuses}.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IProtocolFactory

from kvdb.node.node import Node
from kvdb.node.settings import NodeSettings
from kvdb.reloading import Files
from kvdb.rest.site import MAX_KEY_BYTES, MAX_VALUE_BYTES
from kvdb.service import Kvdb
from kvdb.settings import Settings
from kvdb.simulation.filesystem import Crashed, SimulatedFileSystem
from kvdb.simulation.network import Network, SimulatedReactor
from kvdb.simulation.timeline import Timeline
from kvdb.store.engine import Engines
from kvdb.store.memory import MemoryEngines

PEER_PORT: Final = 2380
CLIENT_PORT: Final = 80
DATA: Final = "/data"

SYNC_FAILS: Final = "syncs fail"
DISK_FULL: Final = "the disk is full"
BAD_READS: Final = "reads are bad"
BIT_FLIPPED: Final = "a bit was flipped"
ROLLED_BACK: Final = "the disk was put back"
"""Excuses; behind the last two a member that stops is replaced."""

EXCUSED: Final[Mapping[str, tuple[str, ...]]] = {
    SYNC_FAILS: ("could not sync",),
    DISK_FULL: ("no space on the disk",),
    BAD_READS: ("offset",),
    BIT_FLIPPED: ("offset", "format"),
    ROLLED_BACK: ("an older copy of itself",),
}
"""What a node must say, of which one is enough, for an excuse to hold.  A full disk
stops none that runs: it keeps one from starting."""

EPOCH: Final = 1_800_000_000.0
"""The time of day when virtual time begins."""


def address(node_id: int) -> str:
    """Where a member's machine is."""
    return f"10.0.0.{node_id}"


def peer_url(node_id: int) -> str:
    """Where its peers reach it."""
    return f"http://{address(node_id)}:{PEER_PORT}"


class NoFiles:
    """Implements L{Files<kvdb.reloading.Files>}: none is there."""

    def stamp(self, path: str) -> object:
        """See there."""
        raise FileNotFoundError(errno.ENOENT, "a simulated machine has none", path)

    def read(self, path: str) -> bytes:
        """See there."""
        raise FileNotFoundError(errno.ENOENT, "a simulated machine has none", path)


@frozen(slots=True)
class Disk:
    """A copy of a machine's disk."""

    files: dict[str, bytes]
    memory: MemoryEngines


@define(slots=True, eq=False, kw_only=True)
class Machine:
    """
    Implements L{Host<kvdb.host.Host>}.

    @ivar founders: the cluster's first members.
    @ivar joins: the node is started to join.
    @ivar observe: told after each piece of work done on this machine.
    @ivar ended: told that the process is gone, why, and with which status.
    @ivar excuses: why the node may stop by itself, if it does, each with the
        time until when: the faults of its disk.
    @ivar was_excused: whether there was one when it began to stop.
    @ivar lives: how often it was started.
    @ivar boots: how often it lost power.
    @ivar clock_error: seconds by which the time of day is wrong.
    """

    node_id: int
    founders: tuple[int, ...]
    joins: bool
    node_settings: NodeSettings
    timeline: Timeline
    network: Network
    random: Random
    observe: Callable[[Machine], None]
    ended: Callable[[Machine, str, int], None]
    reactor: Any = field(init=False)
    filesystem: SimulatedFileSystem = field(init=False)
    memory: MemoryEngines = field(factory=MemoryEngines)
    service: Kvdb | None = None
    lives: int = 0
    boots: int = 0
    clock_error: float = 0.0
    excuses: dict[str, float] = field(factory=dict)
    was_excused: bool = False
    _starting: bool = False
    _stopping: bool = False

    def __attrs_post_init__(self) -> None:
        self.reactor = SimulatedReactor(
            self.timeline,
            lambda: self.observe(self),
            network=self.network,
            host=address(self.node_id),
        )
        self.filesystem = SimulatedFileSystem(self.reactor, self.random)

    # Host.

    @property
    def files(self) -> Files:
        """There are none: a simulated node has neither certificates nor users."""
        return NoFiles()

    def in_thread(self, work: Callable[[], Any]) -> Deferred[Any]:
        """See L{Host<kvdb.host.Host>}, as for all below: at once."""
        return maybeDeferred(work)

    def on_hangup(self, work: Callable[[], None]) -> None:
        """See there: nobody hangs up."""

    def engines(self, directory: str) -> Engines:
        """See there."""
        return self.memory

    def listen(self, port: int, factory: IProtocolFactory, address: str) -> Any:
        """See there."""
        return self.reactor.listenTCP(port, factory, interface=address)

    def entropy(self, length: int) -> bytes:
        """See there."""
        return self.random.randbytes(length)

    def boot_id(self) -> str:
        """See there."""
        return f"boot {self.boots}"

    def time_of_day(self) -> float:
        """See there."""
        return EPOCH + self.timeline.now + self.clock_error

    def stop(self, why: str, status: int) -> None:
        """See there: as a signal to itself."""
        excused = self._excuses(why)
        self.timeline.after(0, self._stop, self.reactor.life, why, status, excused)

    def notify(self, state: str) -> None:
        """See there: nobody wants to know."""

    def close(self) -> None:
        """See there."""

    # The node.

    def excuse(self, why: str, seconds: float = math.inf) -> None:
        """From now on the node may stop by itself, for so long."""
        until = self.timeline.now + seconds
        self.excuses[why] = max(until, self.excuses.get(why, 0.0))

    @property
    def is_excused(self) -> bool:
        """Whether it may stop by itself now."""
        return any(until >= self.timeline.now for until in self.excuses.values())

    def _excuses(self, why: str) -> bool:
        """Whether it may stop by itself now, and for that reason."""
        return any(
            until >= self.timeline.now
            and any(part in why for part in EXCUSED[excuse])
            and (self._starting or excuse != DISK_FULL)
            for excuse, until in self.excuses.items()
        )

    @property
    def is_up(self) -> bool:
        """Whether a process runs."""
        return self.service is not None

    @property
    def node(self) -> Node | None:
        """The node, where one runs."""
        return None if self.service is None else self.service.node_service.node

    def settings(self) -> Settings:
        """What the process is started with."""
        cluster: Mapping[int, str] = {n: peer_url(n) for n in self.founders}
        if self.joins:
            cluster = {**cluster, self.node_id: peer_url(self.node_id)}
        return Settings(
            node_id=self.node_id,
            cluster=cluster,
            join=self.joins,
            data_dir=DATA,
            host=address(self.node_id),
            port=CLIENT_PORT,
            max_key_bytes=MAX_KEY_BYTES,
            max_value_bytes=MAX_VALUE_BYTES,
            node=self.node_settings,
        )

    def start(self) -> None:
        """Start the process."""
        assert self.service is None, f"machine {self.node_id} runs already"
        self.lives += 1
        self._stopping = False
        self.reactor.power_on()
        self.service = Kvdb(self.settings(), self)
        self._starting = True
        try:
            self.service.startService()
        except Crashed:
            self.lose_power()
        else:
            self.observe(self)
        finally:
            self._starting = False

    def terminate(self) -> None:
        """Ask the process to stop, as SIGTERM does."""
        self._stop(self.reactor.life, "asked to", 0, excused=False)

    def _stop(self, life: int, why: str, status: int, excused: bool) -> None:
        if life != self.reactor.life or self.service is None or self._stopping:
            return
        self._stopping = True
        self.was_excused = excused
        stopping: Deferred[Any] = self.service.stopService()
        stopping.addBoth(self._stopped, life, why, status)

    def _stopped(self, result: object, life: int, why: str, status: int) -> None:
        if life == self.reactor.life and self.service is not None:
            self.kill()
            self.ended(self, why, status)

    def kill(self) -> None:
        """End the process: its kernel keeps its files and closes its sockets."""
        self.service = None
        self.reactor.power_off(quietly=False)
        self.filesystem.kill()
        self.memory.crash()

    def lose_power(self) -> None:
        """Lose what was not synced, and say nothing to anybody."""
        self.boots += 1
        self.service = None
        self.reactor.power_off(quietly=True)
        self.filesystem.crash()
        self.memory.crash()

    def copy_disk(self) -> Disk:
        """What the disk of this machine holds, which is off."""
        assert self.service is None, "the disk of a running machine is copied"
        return Disk(self.filesystem.durable(), self.memory.copy())

    def put_back(self, disk: Disk) -> None:
        """Have the disk of this machine, which is off, hold what it held then."""
        assert self.service is None, "the disk of a running machine is put back"
        self.filesystem.put_back(disk.files)
        self.memory = disk.memory.copy()
