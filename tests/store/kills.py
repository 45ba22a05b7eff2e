"""
A process that applies, flushes and installs snapshots is killed, many times::

    python -m tests.store.kills --times 2000

Each writer is forked from a parent that has imported all and opened nothing,
for threads do not survive a fork.  It opens what the one before left, says what
it found, and goes on until it is killed: a moment after it has spoken, or
before, while it opens.

What it found must be what the entries up to its applied index make, and no less
than what was said to be durable; of other directories nothing may be left.

With C{--power}, half of the kills lose what no sync has seen, too.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

from attrs import define, field

from kvdb.store import rocks, snapshot
from kvdb.store.memory import MemoryEngines
from kvdb.store.store import Store
from tests.store.entries import bootstrap
from tests.store.power import Power, preload
from tests.store.writer import made_entry, open_store

LIVES: Final = 40
"""Kills before another directory is begun, so that none grows too large."""

LONGEST: Final = 0.06
"""Seconds that a writer writes at most."""

OPENING: Final = 0.04
"""Seconds in which one is killed that is not waited for."""

RECEIVING: Final = 0.3
"""Seconds in which one that is killed behind a snapshot waits for it."""

SWITCHING: Final = 0.03
"""Seconds after a snapshot has come in which one is killed."""


class Wrong(Exception):
    """A store is not what it must be."""


def swept_digest(store: Store) -> str:
    """Of all that is kept once what is forgotten was given back."""
    while store.compact_slice(1000):
        pass
    return store.digest()


@define(slots=True, eq=False)
class Writer:
    """
    What a child does.

    @ivar model: the parent's, at or before what is in the directory.
    """

    directory: str
    model: Store
    random: Random
    say: Callable[[str], None]
    store: Store = field(init=False)
    said: int = 0

    def run(self) -> None:
        self.store = open_store(self.directory)
        names = ",".join(sorted(os.listdir(self.directory)))
        applied = self.store.applied_index
        self.say(f"found {applied} {swept_digest(self.store)} {names}")
        if not applied:
            bootstrap(self.store)
        while True:
            self.write()
            if self.random.random() < 0.2:
                self.receive()

    def write(self) -> None:
        """Apply some entries, and look after the flush."""
        apply_to(self.store, self.store.applied_index + self.random.randrange(1, 10))
        self.store.compact_slice(20)
        if not self.store.flushing and self.random.random() < 0.1:
            self.store.begin_flush()
        durable = self.store.poll_flush()
        if durable > self.said:
            self.said = durable
            self.say(f"durable {durable}")

    def receive(self) -> None:
        """A snapshot of what others have applied; not all come to their end."""
        behind = self.store.applied_index + self.random.randrange(20, 200)
        if self.model.applied_index < behind:
            apply_to(self.model, behind)
        receiver = self.store.receive_snapshot()
        for chunk in self.model.open_snapshot().chunks():
            receiver.write(chunk)
            if self.store.applied_index + 10 < behind:
                self.write()
            if self.random.random() < 0.01:
                receiver.abort()
                return
        receiver.finish()
        self.say("staged")
        self.store.install(receiver)
        self.said = self.store.poll_flush()
        self.say(f"durable {self.said}")
        self.say("installed")


def listen(readable: int, word: bytes, seconds: float) -> bytes:
    """What is said up to C{word}, or for so long."""
    said, end = b"", time.monotonic() + seconds
    while word not in said and (left := end - time.monotonic()) > 0:
        if select.select([readable], [], [], left)[0]:
            more = os.read(readable, 1 << 16)
            if not more:
                break
            said += more
    return said


def apply_to(store: Store, last: int) -> None:
    """All up to C{last}."""
    first = store.applied_index + 1
    store.apply([made_entry(index) for index in range(first, last + 1)])


def fork(work: Callable[[Callable[[str], None]], None]) -> tuple[int, int]:
    """Do C{work} in a child: its id, and where to read what it says."""
    readable, writable = os.pipe()
    child = os.fork()
    if child:
        os.close(writable)
        return child, readable
    os.close(readable)
    try:
        work(lambda line: (os.write(writable, line.encode() + b"\n"), None)[1])
    except BaseException:
        os.write(writable, b"failed " + repr(traceback.format_exc()).encode() + b"\n")
    os._exit(1)


@define(slots=True, eq=False)
class Kills:
    """
    Directories, one after the other, and what must be in the one in use.

    @ivar checked: how often what a kill left was looked at.
    @ivar early: how many were killed while they opened.
    """

    random: Random
    above: str
    power: Power | None = None
    directory: str = ""
    model: Store = field(init=False)
    durable: int = 0
    kills: int = 0
    checked: int = 0
    early: int = 0
    staged: int = 0
    installed: int = 0
    applied: int = 0
    outages: int = 0

    def begin(self) -> None:
        """Another directory."""
        if self.directory:
            shutil.rmtree(self.directory)
        self.directory = f"{self.above}/{self.kills}"
        Path(self.directory).mkdir()
        self.model = Store.open(MemoryEngines())
        bootstrap(self.model)
        self.durable = 0

    def kill(self) -> None:
        """One life of a writer."""
        if self.kills % LIVES == 0:
            self.begin()
        seed = self.random.random()
        child, readable = fork(
            lambda say: Writer(self.directory, self.model, Random(seed), say).run()
        )
        said = b""
        chance = self.random.random()
        if chance < 0.2:
            self.early += 1
            time.sleep(self.random.random() * OPENING)
        elif chance < 0.7:
            said = listen(readable, b"\n", 10)
            time.sleep(self.random.random() * LONGEST)
        else:
            said = listen(readable, b"\n", 10)
            said += listen(readable, b"staged\n", RECEIVING)
            time.sleep(self.random.random() * SWITCHING)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        while more := os.read(readable, 1 << 16):
            said += more
        os.close(readable)
        self.kills += 1
        lines = said.decode().splitlines()
        for line in lines:
            self.heard(line)
        if not os.WIFSIGNALED(status):
            raise Wrong(f"the writer ended by itself: {lines}")
        if self.power is not None and self.random.random() < 0.5:
            self.outages += 1
            if Path(self.directory).exists():
                self.power.lose(self.directory)
        self.staged += lines.count("staged")
        self.installed += lines.count("installed")

    def heard(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "found":
            applied, digest, names = rest.split(" ")
            self.found(int(applied), digest, names.split(","))
        elif word == "durable":
            self.durable = max(self.durable, int(rest))
        elif word == "failed":
            raise Wrong(rest)

    def found(self, applied: int, digest: str, names: list[str]) -> None:
        """What a writer found in the directory that it opened."""
        self.checked += 1
        if applied < self.durable:
            raise Wrong(f"{applied} is applied, {self.durable} was durable")
        if len(names) != 2 or names[0] != "CURRENT":
            raise Wrong(f"left are {names}")
        self.durable = applied
        if not applied:
            return
        if applied < self.model.applied_index:
            raise Wrong(f"{applied} is applied, {self.model.applied_index} was found")
        self.applied += applied - self.model.applied_index
        apply_to(self.model, applied)
        if swept_digest(self.model) != digest:
            raise Wrong(f"other content than the entries up to {applied} make")

    @property
    def figures(self) -> str:
        return (
            f"{self.kills} kills, {self.early} of them while opening,"
            f" {self.outages} with what no sync has seen;"
            f" {self.checked} states checked, {self.applied} entries kept,"
            f" {self.staged} snapshots received, {self.installed} installed"
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", help="where to put stores; a temporary one")
    parser.add_argument("--power", action="store_true", help="lose unsynced writes")
    options = parser.parse_args()
    if options.power:
        preload()
    rocks.CACHE_BYTES = 1 << 20  # type: ignore[misc]
    snapshot.CHUNK_BYTES = 4 << 10  # type: ignore[misc]
    above = options.directory or tempfile.mkdtemp(prefix="kvdb-kills-")
    Path(above).mkdir(parents=True, exist_ok=True)
    kills = Kills(Random(options.seed), above)
    if options.power:
        kills.power = Power(f"{above}/notes", Random(options.seed))
    started = time.monotonic()
    try:
        while kills.kills < options.times:
            kills.kill()
            if kills.kills % 100 == 0:
                print(
                    f"{time.monotonic() - started:.0f} s: {kills.figures}", flush=True
                )
    except Wrong as error:
        print(f"WRONG after {kills.figures}: {error}\nleft in {kills.directory}")
        sys.exit(1)
    print(f"nothing was wrong after {kills.figures}")
    shutil.rmtree(above)


if __name__ == "__main__":
    main()
