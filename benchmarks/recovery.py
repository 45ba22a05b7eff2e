"""
Of the suite costs: how long a member takes to be back.

* B{catching up}: a follower was stopped in peace, and missed writes.  It has them
  when it answers a stale read with the last one.
* B{starting}: a follower was killed.  It serves when it answers a stale read, and
  is ready when it says so itself.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Final

from benchmarks.load import Values, key_name
from benchmarks.process import Failed, until
from benchmarks.rounds import Cost
from benchmarks.run import Run
from benchmarks.systems.base import HttpCluster, Member

VALUE_BYTES: Final = 100
BACK_SECONDS: Final = 300.0
"""Within which a member has to be back."""


def catches_up(run: Run, kind: type[HttpCluster]) -> None:
    """A follower that was down while others wrote."""
    run.progress.say(f"costs: a follower catches up ({kind.name})")
    count = run.settings.behind_writes
    what = f"follower {count:,} writes behind: until it has them"
    try:
        with run.cluster(kind) as cluster:
            for number in range(1, run.settings.rounds + 1):
                follower = cluster.follower()
                follower.process.signal(signal.SIGTERM)
                follower.process.wait()
                keys = range((number - 1) * count, number * count)
                run.fill(cluster, keys, VALUE_BYTES)
                begun = time.monotonic()
                follower.process.start()
                _wait(cluster, follower, lambda: _has(cluster, follower, keys[-1]))  # noqa: B023
                taken = time.monotonic() - begun
                run.results.costs.append(
                    Cost("costs", what, kind.name, "s", number, taken)
                )
                cluster.wait_ready()
    except Failed as error:
        failed = Cost("costs", what, kind.name, "s", 0, None, str(error))
        run.results.costs.append(failed)


def starts_again(run: Run, kind: type[HttpCluster]) -> None:
    """A follower that was killed, with more and more data."""
    run.progress.say(f"costs: a member starts again ({kind.name})")
    present = 0
    what = "started again"
    try:
        with run.cluster(kind) as cluster:
            for count in run.settings.restart_keys:
                run.fill(cluster, range(present, count), VALUE_BYTES)
                present = count
                what = f"killed with {count:,} keys, started again"
                for number in range(1, run.settings.rounds + 1):
                    follower = cluster.follower()
                    follower.process.kill()
                    begun = time.monotonic()
                    follower.process.start()
                    _wait(cluster, follower, lambda: _has(cluster, follower, 0))  # noqa: B023
                    read = time.monotonic() - begun
                    _wait(cluster, follower, lambda: cluster.is_ready(follower))  # noqa: B023
                    ready = time.monotonic() - begun
                    for until_when, taken in (
                        ("until a stale read", read),
                        ("until it is ready", ready),
                    ):
                        row = f"{what}: {until_when}"
                        cost = Cost("costs", row, kind.name, "s", number, taken)
                        run.results.costs.append(cost)
    except Failed as error:
        failed = Cost("costs", what, kind.name, "s", 0, None, str(error))
        run.results.costs.append(failed)


def _has(cluster: HttpCluster, member: Member, key: int) -> bool:
    """Whether a member itself has a key's value."""
    answer = member.ask(cluster.dialect.get(key_name(key), stale=True))
    if answer is None:
        return False
    return cluster.dialect.value(answer) == Values(VALUE_BYTES).of(key)


def _wait(cluster: HttpCluster, member: Member, condition: Callable[[], bool]) -> None:
    def holds() -> bool:
        member.process.require_alive()
        return condition()

    until(holds, f"{member.process.name} is back", BACK_SECONDS)
