"""
Members between which links can be cut, while their processes and their clients'
ports stay as they are.

Whatever a member dials among the others goes through a relay of the test, one for
each ordered pair (L{dial_through}).  A cut is silent, as a broken switch makes it:
sockets stand, and what is sent is kept until the cut is healed.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from tests.end_to_end.cluster import LocalCluster, Process, free_ports

RELAYS: Final = "TEST_RELAYS"
"""In the environment of a member: the port of its relay, by the port it dials."""
PIECE: Final = 1 << 16
"""Bytes that are passed on at a time."""
ROOT: Final = Path(__file__).parents[2]


def dial_through(reactor: Any, relays: dict[int, int]) -> None:
    """Have what would be dialled at a port be dialled at its relay's."""
    connect = reactor.connectTCP

    def relayed(host: str, port: int, *more: Any, **named: Any) -> Any:
        return connect(host, relays.get(port, port), *more, **named)

    reactor.connectTCP = relayed


class Relays:
    """Relays for pairs of members, on one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._cut: set[tuple[int, int]] = set()
        self._waiting: list[selectors.SelectorKey] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._ended = False
        self._thread = threading.Thread(target=self._work)

    def add(self, pair: tuple[int, int], to: int) -> int:
        """A relay from one member to another one's port; gives its own port."""
        listening = socket.create_server(("127.0.0.1", 0))
        self._selector.register(listening, selectors.EVENT_READ, (pair, to))
        return int(listening.getsockname()[1])

    def start(self) -> None:
        """Begin to pass on."""
        self._thread.start()

    def part(self, number: int, others: Iterator[int]) -> None:
        """Cut a member off from others, both ways."""
        self._cut = {p for n in others for p in ((number, n), (n, number))}

    def heal(self) -> None:
        """All that was sent meanwhile arrives."""
        self._cut = set()

    def _work(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(0.02):
                pair, other = key.data
                if pair in self._cut:
                    # Not to be woken for it again and again.
                    self._selector.unregister(key.fileobj)
                    self._waiting.append(key)
                elif isinstance(other, int):
                    self._accept(key.fileobj, pair, other)
                else:
                    self._pass(key.fileobj, other)
            held = [key for key in self._waiting if key.data[0] in self._cut]
            for key in self._waiting:
                if key not in held and key.fileobj.fileno() >= 0:  # type: ignore[union-attr]
                    self._selector.register(key.fileobj, key.events, key.data)
            self._waiting = held

    def _accept(self, listening: Any, pair: tuple[int, int], to: int) -> None:
        near, _ = listening.accept()
        try:
            far = socket.create_connection(("127.0.0.1", to))
        except OSError:
            near.close()  # as if nobody listened
            return
        self._pairs.append((near, far))
        self._selector.register(near, selectors.EVENT_READ, (pair, far))
        self._selector.register(far, selectors.EVENT_READ, (pair, near))

    def _pass(self, one: Any, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            piece = one.recv(PIECE)
            if piece:
                other.sendall(piece)
                return
        for end in (one, other):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(end)
            end.close()

    def end(self) -> None:
        """Close all."""
        self._ended = True
        self._thread.join()
        for key in [*self._selector.get_map().values(), *self._waiting]:
            key.fileobj.close()  # type: ignore[union-attr]
        for pair in self._pairs:
            for end in pair:
                end.close()
        self._selector.close()


@define
class RelayedProcess(Process):
    """@ivar relays: as L{RELAYS} has it."""

    relays: dict[int, int] = field(factory=dict)

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("KVDB_")}
        environment |= {"PYTHONPATH": str(ROOT), RELAYS: json.dumps(self.relays)}
        with (self.directory / f"{self.number}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.ui.partition"),
                    *("-n", "--pidfile=", "kvdb", *self.options),
                ],
                cwd=self.directory,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )


@define
class PartedCluster(LocalCluster):
    """A cluster whose links can be cut."""

    relays: Relays = field(factory=Relays)

    def prepare(self, size: int) -> None:
        ports = free_ports(2 * size)
        urls = [f"http://127.0.0.1:{port}" for port in ports[:size]]
        for number, port in enumerate(ports[size:], 1):
            made = self._add(number, port, urls, [])
            self.nodes[number] = RelayedProcess(
                *(number, port, made.peer_url, self.directory, made.options),
                relays={
                    to: self.relays.add((number, other), to)
                    for other, to in enumerate(ports[:size], 1)
                    if other != number
                },
            )
        self.relays.start()

    def part(self, number: int) -> None:
        """Cut a member off from all others."""
        self.relays.part(number, iter(self.nodes))

    def heal(self) -> None:
        """Let everything through again."""
        self.relays.heal()


@contextlib.contextmanager
def parted_cluster(directory: Path, size: int) -> Iterator[PartedCluster]:
    """One that serves; ended at the end, with its logs where a test fails."""
    cluster = PartedCluster(directory)
    cluster.prepare(size)
    try:
        cluster.start()
        yield cluster
    except BaseException:
        for node in cluster.nodes.values():
            print(f"--- node {node.number}\n{node.log[-4000:]}")
        raise
    finally:
        cluster.end()
        cluster.relays.end()


if __name__ == "__main__":
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    dial_through(
        reactor, {int(k): v for k, v in json.loads(os.environ[RELAYS]).items()}
    )
    run()
