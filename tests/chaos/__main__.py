"""
Real nodes under faults.

    python -m tests.chaos --minutes 30 --seed 1

It enters namespaces of its own, where that is permitted, and so leaves neither
network nor mounts behind; where it is not, faults that need them are skipped by
name.  The exit status is 1 where something did not hold.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final, NoReturn

from tests.chaos.cluster import Cluster, movable_clock
from tests.chaos.network import Network, entry
from tests.chaos.run import Run

INSIDE: Final = "KVDB_CHAOS_INSIDE"


def _interrupt(number: int, _: object) -> NoReturn:
    for signal_ in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_, signal.SIG_IGN)  # said once is enough
    raise KeyboardInterrupt(signal.Signals(number).name)


def main(arguments: list[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="keep data and logs")
    options = parser.parse_args(arguments)
    command = None if INSIDE in os.environ else entry()
    if command is not None:
        again = [sys.executable, "-m", "tests.chaos", *arguments]
        again += ["--seed", str(options.seed)]
        os.execvpe(command[0], [*command, *again], {**os.environ, INSIDE: "1"})
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    directory = Path(tempfile.mkdtemp(prefix="kvdb-chaos-"))
    network = Network.make() if INSIDE in os.environ else None
    cluster = Cluster(
        directory,
        network=network,
        small_disks=network is not None,
        clocks=movable_clock(directory),
    )
    run = Run(cluster, options.seed, options.minutes * 60)
    print(f"seed {options.seed}, {options.nodes} nodes, in {directory}", flush=True)
    status = 1
    try:
        cluster.prepare(options.nodes)
        run.go()
        status = 0
        print("all of it holds")
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was proven")
        status = 130
    except AssertionError as error:
        print(f"\nFAILED, seed {options.seed}: {error}\nhistory and logs: {directory}")
    finally:
        cluster.end()
        run.write(directory)
        if status != 1 and not options.keep:
            if network is not None:
                cluster.unmount()
            shutil.rmtree(directory)
    return status


sys.exit(main(sys.argv[1:]))
