"""
PySyncObj: Raft as a Python library, three processes with a replicated dictionary.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import select
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, Final

from attrs import asdict, define, field

from benchmarks.goload import parse
from benchmarks.load import Figures, Kind, Load
from benchmarks.process import (
    LOOPBACK,
    PATIENCE_SECONDS,
    Failed,
    Process,
    free_ports,
    until,
)
from benchmarks.systems.base import System, Tell

ROOT: Final = Path(__file__).resolve().parent.parent.parent
READ_BYTES: Final = 1 << 16


def _ask(process: Process, request: dict[str, Any], seconds: float) -> str:
    """
    One line for one line.

    @raise Failed: there is no answer in time.
    """
    running = process.running
    assert running.stdin is not None and running.stdout is not None, "no pipes"
    try:
        running.stdin.write(json.dumps(request).encode() + b"\n")
        running.stdin.flush()
    except OSError as error:
        process.require_alive()
        raise Failed(f"{process.name} takes no request: {error}") from error
    line = b""
    deadline = time.monotonic() + seconds
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([running.stdout], [], [], left)[0]:
            raise Failed(f"{process.name} does not answer within {seconds:g} s")
        data = os.read(running.stdout.fileno(), READ_BYTES)
        if not data:
            process.wait()
            process.require_alive()
        line += data
    return line.decode()


@define(slots=True, eq=False)
class PySyncObj(System):
    """See the head of this module."""

    name: ClassVar[str] = "pysyncobj"
    _members: list[Process] = field(factory=list, init=False)

    @classmethod
    def absence(cls, goload: Any) -> str | None:
        """See L{System}."""
        if importlib.util.find_spec("pysyncobj") is None:
            return "pysyncobj is not installed"
        return None

    @classmethod
    def unfit(cls, load: Load) -> str | None:
        """See L{System}."""
        if load.kind is not Kind.PUT:
            return "its reads are those of a local dictionary, and ask nobody"
        return "it has no open loop" if load.rate is not None else None

    def start(self) -> None:
        """See L{System}."""
        addresses = [f"{LOOPBACK}:{port}" for port in free_ports(self.size)]
        for number, own in enumerate(addresses, 1):
            partners = ",".join(one for one in addresses if one != own)
            command = [sys.executable, "-m", "benchmarks.systems.pysyncobj_node"]
            command += [own, partners, str(self.directory / f"{number}.journal")]
            log = self.directory / f"{number}.log"
            name = f"pysyncobj member {number}"
            process = Process(name, command, ROOT, log, talks=True)
            self._members.append(process)
            process.start()
        for process in self._members:
            until(
                lambda one=process: self._state(one)["ready"],  # type: ignore[misc]
                f"{process.name} serves",
            )
        until(self._leaders, "pysyncobj has a leader")

    def _state(self, process: Process) -> Any:
        return json.loads(_ask(process, {"ask": "state"}, PATIENCE_SECONDS))

    def _leaders(self) -> list[Process]:
        return [one for one in self._members if self._state(one)["leader"]]

    def fill(self, keys: range, value_bytes: int, tell: Tell) -> None:
        """Its reads are not measured."""
        tell(len(keys))

    def run(self, load: Load, seconds: int, *, follower: bool = False) -> Figures:
        """See L{System}."""
        leader = until(self._leaders, "pysyncobj has a leader")[0]
        member = leader
        if follower:
            member = next(one for one in self._members if one is not leader)
        request = asdict(load, value_serializer=lambda _, __, v: getattr(v, "value", v))
        request |= {"ask": "load", "seconds": seconds}
        return parse(_ask(member, request, seconds + PATIENCE_SECONDS), load)

    def processes(self) -> dict[str, Process]:
        """See L{System}."""
        return {f"member {n}": one for n, one in enumerate(self._members, 1)}

    def notes(self) -> list[str]:
        """See L{System}."""
        settings: Any = importlib.import_module("pysyncobj").SyncObjConf()
        said = (
            "pysyncobj: no connections: as many writes under way in the leader's own"
            " process; its journal is a mapped file"
        )
        if not hasattr(settings, "flushJournal"):
            said += ", which this version never syncs: a loss of power loses writes"
        return [said]
