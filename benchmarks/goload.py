"""
The Go client in C{goload/}: closed loops over gRPC, open loops over both.

It is built where Go is installed, without asking any other machine; over gRPC only
where the sources of etcd's client are installed as well (Debian's
C{golang-etcd-server-dev}).
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Final

from attrs import define, field

from benchmarks.latency import Histogram
from benchmarks.load import Figures, Load
from benchmarks.process import Failed, run_to_end

SOURCE: Final = Path(__file__).with_name("goload")
LIBRARIES: Final = Path("/usr/share/gocode")
ETCD_CLIENT: Final = LIBRARIES / "src/go.etcd.io/etcd/clientv3"
BUILD_SECONDS: Final = 300.0
MARGIN_SECONDS: Final = 60.0
"""Beyond its time, within which it has to end."""

MAX_ERROR_CHARACTERS: Final = 80
"""Of the text of one kind of error."""


@define(slots=True)
class Goload:
    """
    @ivar directory: where it is built.
    @ivar problem: why it cannot be used at all, once that is known.
    """

    directory: Path
    problem: str | None = None
    _program: Path | None = field(default=None, repr=False)

    @property
    def grpc_problem(self) -> str | None:
        """Why it cannot speak gRPC."""
        if not ETCD_CLIENT.is_dir():
            return "the sources of etcd's Go client are not installed"
        return self.usable()

    def usable(self) -> str | None:
        """None if it can be used, after it was built; else why it cannot."""
        if self._program is None and self.problem is None:
            if shutil.which("go") is None:
                self.problem = "Go is not installed"
            else:
                try:
                    self._program = self._build()
                except Failed as error:
                    self.problem = f"the Go client cannot be built: {error}"
        return self.problem

    def _build(self) -> Path:
        program = self.directory / "goload"
        tags = ["-tags", "etcd"] if ETCD_CLIENT.is_dir() else []
        run_to_end(
            ["go", "build", *tags, "-o", str(program), "."],
            BUILD_SECONDS,
            directory=SOURCE,
            environment={
                **os.environ,
                "GO111MODULE": "off",
                "GOPATH": str(LIBRARIES),
                "GOPROXY": "off",
                "GOFLAGS": "",
            },
        )
        return program

    def run(
        self, address: str, load: Load, seconds: int, *, dialect: str | None
    ) -> Figures:
        """
        One measurement.

        @param dialect: the name of one, or None for gRPC.
        @raise Failed: it does not run.
        """
        if self.usable() is not None:
            raise Failed(str(self.problem))
        keys = load.filled_keys if load.kind.reads else load.keys
        command = [str(self._program), "-address", address]
        if dialect is None:
            command += ["-transport", "grpc"]
        else:
            command += ["-transport", "http", "-dialect", dialect]
        command += ["-kind", load.kind.value, "-skew", load.skew.value]
        command += ["-connections", str(load.connections), "-seconds", str(seconds)]
        command += ["-value-bytes", str(load.value_bytes), "-keys", str(keys)]
        command += ["-rate", str(load.rate or 0), "-seed", str(load.seed)]
        done = run_to_end(command, seconds + MARGIN_SECONDS)
        return parse(done.output, load, done.cpu_seconds)


def parse(output: str, load: Load, client_cpu_seconds: float | None = None) -> Figures:
    """
    What it has said.

    @raise Failed: there are no figures in it.
    """
    try:
        told = json.loads(output)
    except ValueError as error:
        raise Failed("the Go client has given no figures") from error
    histogram = Histogram.read(told["histogram"])
    requests = told["requests"]
    if load.rate is None:
        rounds = max(1, requests // load.connections)
        histogram = histogram.corrected(told["microseconds"] // rounds)
    return Figures(
        requests,
        told["microseconds"] / 1e6,
        histogram.latency(),
        {name[:MAX_ERROR_CHARACTERS]: count for name, count in told["errors"].items()},
        client_cpu_seconds,
    )
