"""
C{python -m benchmarks.backup}: a backup of many keys while a cluster writes.

Three members are restored from a backup that is made on the spot, which takes less
time than to write all keys; then clients write, and the leader and a follower give
backups meanwhile.  At the end what was backed up is restored and held against what
the members have, by hash.  The exit status is 1 if it is not the same.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import define, field
from rich.console import Console

from benchmarks.process import (
    LOOPBACK,
    Process,
    clean_environment,
    free_ports,
    kill_all,
)
from benchmarks.systems.kvdb import TWISTD
from kvdb.node.backups import Backups
from kvdb.offline.archive import verify
from kvdb.offline.directory import real_disk
from kvdb.offline.files import real_filesystem
from kvdb.offline.fsck import fsck
from kvdb.offline.restore import NewCluster, Restored, restore
from kvdb.raft.messages import Entry
from kvdb.storage.unsynced import this_boot
from kvdb.store.commands import Member, Put
from kvdb.store.encoding import encode_command, join_commands
from kvdb.store.rocks import RocksEngines
from kvdb.store.store import Store

MEMBERS: Final = 3
VALUE_BYTES: Final = 100
WRITERS: Final = 8
TOGETHER: Final = 200
"""Commands in an entry of the backup that is made on the spot."""

LOAD_SECONDS: Final = 10.0
"""How long writes are measured without a backup."""

PATIENCE: Final = 120.0
READ_BYTES: Final = 1 << 20

Made = TypeVar("Made")


def silent(done: float) -> None:
    """Progress is not shown: it would be measured."""


@define
class Writer(threading.Thread):
    """Overwrites keys at random, one after the other, and notes how long each took."""

    port: int
    keys: int
    seed: int
    seconds: list[float] = field(factory=list)
    failed: int = 0
    ended: threading.Event = field(factory=threading.Event)

    def __attrs_pre_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        """Until it is ended."""
        source = random.Random(self.seed)
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=20)
        while not self.ended.is_set():
            began = time.perf_counter()
            path = f"/key/{source.randrange(self.keys):08}"
            connection.request("PUT", path, source.randbytes(VALUE_BYTES))
            answer = connection.getresponse()
            answer.read()
            self.failed += answer.status != 204
            self.seconds.append(time.perf_counter() - began)

    __hash__ = threading.Thread.__hash__


@define
class Load:
    """All writers, and what they did since it was last asked."""

    writers: list[Writer]
    _seen: list[int] = field(factory=list)
    _since: float = 0.0

    def begin(self) -> None:
        """Forget what was done so far."""
        self._seen = [len(one.seconds) for one in self.writers]
        self._since = time.perf_counter()

    def told(self) -> str:
        """How fast it was since."""
        taken = time.perf_counter() - self._since
        done = sorted(
            seconds
            for one, seen in zip(self.writers, self._seen, strict=True)
            for seconds in one.seconds[seen:]
        )
        if not done:
            return "no write was answered"
        p50, p99 = (done[int(share * (len(done) - 1))] * 1000 for share in (0.5, 0.99))
        return (
            f"{len(done) / taken:.0f} writes/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms,"
            f" longest {done[-1] * 1000:.0f} ms"
        )


def make_seed(directory: Path, keys: int) -> Path:
    """A backup of so many keys, made without a cluster."""
    store = Store.open(RocksEngines(real_filesystem(), f"{directory}/seed"))
    store.bootstrap(1, [Member(1, f"http://{LOOPBACK}:1")])
    source = random.Random(keys)
    index = 1
    for first in range(0, keys, TOGETHER):
        commands = [
            encode_command(
                1, n, 0, Put(b"/key/%08d" % n, source.randbytes(VALUE_BYTES))
            )
            for n in range(first, min(first + TOGETHER, keys))
        ]
        index += 1
        store.apply([Entry(1, index, data=join_commands(commands))])
    path = directory / "seed.backup"
    opened = Backups(store, time.time).begin()
    with path.open("wb") as file:
        file.writelines(opened.pieces)
    opened.close()
    store.close()
    shutil.rmtree(f"{directory}/seed")
    return path


def download(port: int, path: Path) -> int:
    """A member's backup; its size."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=PATIENCE)
    connection.request("GET", "/_/snapshot")
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"no backup: {answer.status} {answer.read(500)!r}")
    size = 0
    with path.open("wb") as file:
        while data := answer.read(READ_BYTES):
            file.write(data)
            size += len(data)
    connection.close()
    return size


def wait_ready(port: int) -> None:
    """Until a member serves."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
        try:
            connection.request("GET", "/_/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise SystemExit(f"the member at port {port} is not ready within {PATIENCE:g} s")


def status(port: int) -> dict[str, Any]:
    """A member's own view."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    connection.request("GET", "/_/status")
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return found


@contextmanager
def running(directory: Path, ports: list[int], urls: list[str]) -> Iterator[None]:
    """The members' processes."""
    processes = []
    try:
        for number, port in enumerate(ports, 1):
            command = [TWISTD, "-n", "--pidfile=", "kvdb", "--id", str(number)]
            command += ["--cluster", ",".join(urls), "--port", str(port)]
            command += ["--data-dir", str(directory / f"member-{number}")]
            process = Process(
                f"member {number}",
                command,
                directory,
                directory / f"{number}.log",
                clean_environment("KVDB_"),
            )
            process.start()
            processes.append(process)
        for port in ports:
            wait_ready(port)
        yield
    finally:
        try:
            for process in processes:
                process.signal(signal.SIGTERM)
            for process in processes:
                process.wait()
        finally:
            kill_all(processes)


def measure(directory: Path, keys: int, console: Console) -> bool:
    """Everything; whether all hashes were the same."""

    def timed(what: str, work: Callable[[], Made]) -> Made:
        began = time.perf_counter()
        made = work()
        console.print(f"{what}: {time.perf_counter() - began:.1f} s")
        return made

    seed = timed(f"a backup of {keys:,} keys made", lambda: make_seed(directory, keys))
    ports = free_ports(2 * MEMBERS)
    urls = [f"http://{LOOPBACK}:{port}" for port in ports[MEMBERS:]]
    ports = ports[:MEMBERS]
    cluster = NewCluster(members=dict(enumerate(urls, 1)))

    def restored(path: Path, name: str, node: int) -> Restored:
        target = str(directory / name)
        return restore(real_disk(), str(path), target, node, cluster, silent)

    for node in cluster.members:
        name = f"member-{node}"
        timed(f"{name} restored", lambda: restored(seed, name, node))  # noqa: B023
    with running(directory, ports, urls):
        leader = next(port for port in ports if status(port)["role"] == "leader")
        term = status(leader)["term"]
        follower = next(port for port in ports if port != leader)
        writers = [Writer(leader, keys, number) for number in range(WRITERS)]
        load = Load(writers)
        for writer in writers:
            writer.start()
        load.begin()
        time.sleep(LOAD_SECONDS)
        console.print(f"without a backup: {load.told()}")
        for name, port in (("leader", leader), ("follower", follower)):
            load.begin()
            path = directory / f"{name}.backup"
            size = timed(f"backup of the {name}", lambda: download(port, path))  # noqa: B023
            console.print(f"  {size / 2**20:.0f} MiB; meanwhile {load.told()}")
            contents = timed("  verified", lambda: verify(str(path), silent))  # noqa: B023
            console.print(f"  {contents.keys:,} keys at {contents.header.revision}")
            path.unlink()
        for writer in writers:
            writer.ended.set()
        for writer in writers:
            writer.join(PATIENCE)
        console.print(f"writes that failed: {sum(one.failed for one in writers)}")
        console.print(f"elections meanwhile: {status(leader)['term'] - term}")
        last = directory / "last.backup"
        timed("backup without load", lambda: download(follower, last))
    made = timed("restored", lambda: restored(last, "again", 1))
    found = {made.contents.digest, digest_of(directory / "again")}
    for node in cluster.members:
        checked = timed(
            f"fsck of member {node}",
            lambda: digest_of(directory / f"member-{node}"),  # noqa: B023
        )
        found.add(checked)
    console.print(f"digests: {found}")
    return len(found) == 1


def digest_of(directory: Path) -> str:
    """What C{fsck} says of all keys in a directory."""
    checked = fsck(str(directory), this_boot(), silent)
    if checked.findings.errors:
        raise SystemExit(checked.findings.found[0].text())
    return checked.digest or ""


def main() -> None:
    """See the head of this module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backup")
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="on the disk to be measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as directory:
        console = Console(highlight=False)
        sys.exit(not measure(Path(directory), arguments.keys, console))


if __name__ == "__main__":
    main()
