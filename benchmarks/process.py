"""
Processes of this machine: started, watched, ended by their own ids.

Nothing here waits for a time: it waits for a condition, for so long at most.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from attrs import define, field, frozen

PATIENCE_SECONDS: Final = 30.0
"""Within which a condition must come to hold, unless said otherwise."""

POLL_SECONDS: Final = 0.01
"""Between two looks at a condition."""

LOOPBACK: Final = "127.0.0.1"
FIRST_PORT: Final = 20000
LAST_PORT: Final = 32000
"""Below the ports that the kernel gives to clients: a member that comes back must
find its own port free."""

PORT_DRAWS: Final = 1000
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_LOG_TAIL_BYTES: Final = 4096

T = TypeVar("T")


class Failed(Exception):
    """Something could not be done; the text says what, in one line."""


def until(
    condition: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS
) -> T:
    """
    What C{condition} gives once it is true.

    @raise Failed: it did not come to be.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(POLL_SECONDS)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    found: list[int] = []
    for _ in range(PORT_DRAWS):
        port = random.randrange(FIRST_PORT, LAST_PORT)
        with socket.socket() as one:
            try:
                one.bind((LOOPBACK, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
        if len(found) == count:
            return found
    raise Failed(f"no {count} free ports between {FIRST_PORT} and {LAST_PORT}")


def clean_environment(*prefixes: str) -> dict[str, str]:
    """Ours, without the variables that would configure what is started."""
    return {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}


@frozen(slots=True)
class Usage:
    """
    What a process has used since it began.

    @ivar written_bytes: given to the disk, not only to the page cache.
    @ivar resident_bytes: now.
    @ivar private_bytes: of these, what is no part of a mapped file.
    @ivar peak_bytes: the most that was resident.
    """

    cpu_seconds: float
    written_bytes: int
    resident_bytes: int
    private_bytes: int
    peak_bytes: int

    def since(self, before: Usage) -> Usage:
        """What was used after C{before}; memory as it is now."""
        return Usage(
            self.cpu_seconds - before.cpu_seconds,
            self.written_bytes - before.written_bytes,
            self.resident_bytes,
            self.private_bytes,
            self.peak_bytes,
        )


def _fields(path: Path) -> dict[str, int]:
    """The lines C{name: number ...} of a file of /proc."""
    found: dict[str, int] = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0])
    return found


def usage_of(pid: int) -> Usage:
    """
    @raise Failed: there is no such process, or not for us to see.
    """
    place = Path(f"/proc/{pid}")
    try:
        stat = (place / "stat").read_text().rpartition(")")[2].split()
        memory = _fields(place / "status")
        written = _fields(place / "io")["write_bytes"]
    except (OSError, KeyError) as error:
        raise Failed(f"process {pid} cannot be looked at: {error}") from error
    return Usage(
        (int(stat[11]) + int(stat[12])) / _TICKS_PER_SECOND,
        written,
        memory.get("VmRSS", 0) * 1024,
        memory.get("RssAnon", 0) * 1024,
        memory.get("VmHWM", 0) * 1024,
    )


@define(slots=True, eq=False)
class Process:
    """
    One process of a system, over all its lives.

    @ivar log: what it says, over all its lives.
    @ivar talks: whether we write to its standard input and read its output.
    """

    name: str
    command: list[str]
    directory: Path
    log: Path
    environment: dict[str, str] = field(factory=clean_environment, repr=False)
    talks: bool = False
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """
        Start it, without waiting for it to serve.

        @raise Failed: the program cannot be started.
        """
        command = self.command
        if shutil.which("setpriv"):
            command = [
                "setpriv",
                "--pdeathsig",
                "KILL",
                *command,
            ]  # should we be killed
        with self.log.open("ab") as log:
            try:
                self.popen = subprocess.Popen(
                    command,
                    cwd=self.directory,
                    stdin=subprocess.PIPE if self.talks else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if self.talks else log,
                    stderr=log,
                    env=self.environment,
                    start_new_session=True,  # Ctrl-C is for us, not for it
                )
            except OSError as error:
                raise Failed(f"{self.name} cannot be started: {error}") from error

    @property
    def running(self) -> subprocess.Popen[bytes]:
        """The process, which must have been started."""
        assert self.popen is not None, f"{self.name} was never started"
        return self.popen

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.popen is not None and self.popen.poll() is None

    def require_alive(self) -> None:
        """
        @raise Failed: it has ended; with the last it said.
        """
        if not self.alive:
            said = self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            last = lines[-1][:300] if lines else "it said nothing"
            raise Failed(f"{self.name} has ended: {last}")

    def usage(self) -> Usage:
        """What it has used."""
        return usage_of(self.running.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.running.send_signal(number)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> None:
        """
        Until it has ended.

        @raise Failed: it does not end.
        """
        try:
            self.running.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{self.name} does not end within {seconds:g} s") from error

    def kill(self) -> None:
        """End it at once, if it runs."""
        if self.popen is None:
            return
        if self.alive:
            self.signal(signal.SIGKILL)
        self.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    pass  # what it was to read is lost with it


def kill_all(processes: Iterable[Process]) -> None:
    """End them, all at the same time."""
    processes = list(processes)
    for process in processes:
        if process.alive:
            process.signal(signal.SIGKILL)
    for process in processes:
        process.kill()


@frozen(slots=True)
class Done:
    """
    A program that has run to its end.

    @ivar cpu_seconds: what it used.
    """

    output: str
    cpu_seconds: float


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_to_end(
    command: list[str],
    seconds: float,
    *,
    directory: Path | None = None,
    environment: dict[str, str] | None = None,
) -> Done:
    """
    Run a program.

    @raise Failed: it cannot be started, fails, or takes too long.
    """
    name = Path(command[0]).name
    before = _children_cpu()
    try:
        popen = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise Failed(f"{name} cannot be started: {error}") from error
    try:
        output, errors = popen.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{name} did not end within {seconds:g} s") from error
    finally:
        if popen.poll() is None:
            popen.kill()
            popen.wait(PATIENCE_SECONDS)
    if popen.returncode:
        said = (errors or output).decode(errors="replace").strip().splitlines()
        raise Failed(f"{name} failed: {said[-1][:300] if said else popen.returncode}")
    return Done(output.decode(errors="replace"), _children_cpu() - before)
