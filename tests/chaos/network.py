"""
A network of our own: a namespace for each node, all on one bridge.

It exists only inside the namespaces of the process that made it, reaches
nothing outside, and is gone with that process.

Packets from one host to another are cut silently and one way, as a broken
switch would: the sender is told a hardware address that nobody has.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Final

from attrs import define, field

BRIDGE: Final = "kvdb0"
NOBODY: Final = "02:00:00:00:ff:ff"
HERE: Final = 254
"""Our own place at the bridge."""

NETEM: Final = "slow network (netem delay)"
TBF: Final = "narrow network (tbf rate)"

_PROBE: Final = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), 0.5)
except ConnectionRefusedError:
    sys.exit(0)
except OSError:
    pass
sys.exit(1)
"""


def address_of(number: int) -> str:
    """The address of a host."""
    return f"10.77.0.{number}"


def namespace_of(number: int) -> str:
    """The name of its namespace."""
    return f"kvdb{number}"


def _hardware(number: int) -> str:
    return f"02:00:00:00:00:{number:02x}"


def entry() -> list[str] | None:
    """
    The command that runs another one where a network can be made; None where
    that is not permitted.
    """
    if not shutil.which("unshare") or not shutil.which("ip"):
        return None
    for more in ([], ["--map-root-user"]):
        command = ["unshare", "--net", "--mount", "--propagation", "private", *more]
        probe = (
            f"mount -t tmpfs none /run && ip link add {BRIDGE} type bridge"
            " && ip netns add probe && ip netns exec probe true"
        )
        tried = subprocess.run(
            [*command, "sh", "-c", probe], capture_output=True, check=False
        )
        if tried.returncode == 0:
            return command
    return None


def run(*command: str, text: str = "") -> None:
    """Run a command that has to succeed."""
    subprocess.run(command, input=text.encode(), check=True, capture_output=True)


@define
class Network:
    """
    @ivar slow_kind: how traffic can be made slow here; None for not at all.
    """

    slow_kind: str | None = None
    _hosts: set[int] = field(factory=set)
    _cuts: Counter[tuple[int, int]] = field(factory=Counter)

    @classmethod
    def make(cls) -> Network:
        """Make it, in namespaces that L{entry} has given this process."""
        run("mount", "-t", "tmpfs", "none", "/run")
        run("mount", "-t", "tmpfs", "none", "/dev/shm")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{address_of(HERE)}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        return cls()

    def add(self, number: int) -> None:
        """Add a host."""
        name = namespace_of(number)
        run("ip", "netns", "add", name)
        run(
            *("ip", "link", "add", f"v{number}", "type", "veth"),
            *("peer", "name", "eth0", "address", _hardware(number), "netns", name),
        )
        run("ip", "link", "set", f"v{number}", "master", BRIDGE, "up")
        lines = (
            f"addr add {address_of(number)}/24 dev eth0\n"
            "link set lo up\nlink set eth0 up\n"
        )
        run("ip", "-n", name, "-batch", "-", text=lines)
        self._hosts.add(number)

    def prove(self) -> None:
        """
        Try a cut on two hosts, and find out how traffic can be made slow.

        @raise AssertionError: a cut does not cut.
        """
        one, other = sorted(self._hosts)[:2]
        assert self._reaches(one, other), "there is no network"
        self.cut([(one, other)])
        assert not self._reaches(one, other), "a cut does not cut"
        self.heal([(one, other)])
        assert self._reaches(one, other), "a cut does not heal"
        for kind in (NETEM, TBF):
            self.slow_kind = kind
            try:
                self.slow(one)
                self.fast(one)
                return
            except subprocess.CalledProcessError:
                self.slow_kind = None

    def _reaches(self, one: int, other: int) -> bool:
        command = [sys.executable, "-c", _PROBE, address_of(other)]
        inside = ["ip", "netns", "exec", namespace_of(one), *command]
        return subprocess.run(inside, check=False).returncode == 0

    def cut(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Lose all packets from the first to the second of each pair."""
        for pair in pairs:
            self._cuts[pair] += 1
            if self._cuts[pair] == 1:
                self._point(*pair, NOBODY)

    def heal(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Take back as many cuts; the last one lets packets pass."""
        for pair in pairs:
            self._cuts[pair] -= 1
            if not self._cuts[pair]:
                self._point(*pair, _hardware(pair[1]))

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut."""
        return not any(self._cuts.values())

    def _point(self, one: int, other: int, hardware: str) -> None:
        run(
            *("ip", "-n", namespace_of(one), "neigh", "replace", address_of(other)),
            *("lladdr", hardware, "dev", "eth0", "nud", "permanent"),
        )

    def slow(self, number: int) -> None:
        """Delay, or hold back, what a host sends."""
        rule = ["netem", "delay", "120ms", "60ms"]
        if self.slow_kind == TBF:
            rule = ["tbf", "rate", "150kbit", "burst", "2kb", "latency", "800ms"]
        self._queue("replace", number, *rule)

    def fast(self, number: int) -> None:
        """No more of that."""
        self._queue("del", number)

    def _queue(self, verb: str, number: int, *rule: str) -> None:
        name = namespace_of(number)
        run("tc", "-n", name, "qdisc", verb, "dev", "eth0", "root", *rule)
