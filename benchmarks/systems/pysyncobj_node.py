"""
One member of a PySyncObj cluster, with its client inside.

    python -m benchmarks.systems.pysyncobj_node SELF PARTNER,... JOURNAL

It has no server for clients: a program that uses it is a member itself.  So what
elsewhere are connections are here writes kept under way in the member's own
process, each begun when the one before it was applied.  Requests and answers are
lines of JSON on standard input and output.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import threading
import time
from typing import Any, Final

from attrs import define, field
from pysyncobj import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    FAIL_REASON,
    SyncObj,
    SyncObjConf,
)
from pysyncobj.batteries import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
    ReplDict,
)

from benchmarks.latency import Histogram
from benchmarks.load import Skew, Values, key_name

GRACE_SECONDS: Final = 10.0
"""After its end, within which what is under way has to be answered."""

ZIPF_EXPONENT: Final = 0.99


@define(slots=True, eq=False)
class Loop:
    """
    A closed loop of writes.

    @ivar under_way: how many are; at the end none.
    """

    data: Any
    told: dict[str, Any]
    histogram: Histogram = field(factory=Histogram)
    errors: dict[str, int] = field(factory=dict)
    under_way: int = 0
    begun: float = 0.0
    end: float = 0.0
    ended: threading.Event = field(factory=threading.Event)
    _random: random.Random = field(init=False)
    _values: Values = field(init=False)
    _sums: list[float] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.told["seed"])
        self._values = Values(self.told["value_bytes"])
        if self.told["skew"] == Skew.ZIPFIAN.value:
            weights = (1 / n**ZIPF_EXPONENT for n in range(1, self.told["keys"] + 1))
            self._sums = list(itertools.accumulate(weights))

    def _key(self) -> int:
        keys: int = self.told["keys"]
        if self._sums is None:
            return self._random.randrange(keys)
        return self._random.choices(range(keys), cum_weights=self._sums)[0]

    def run(self) -> dict[str, Any]:
        """The figures."""
        self.begun = time.monotonic()
        self.end = self.begun + self.told["seconds"]
        self.under_way = self.told["connections"]
        for _ in range(self.under_way):
            self._write()
        if not self.ended.wait(self.told["seconds"] + GRACE_SECONDS):
            self.errors["writes without an answer"] = self.under_way
        return {
            "requests": self.histogram.total,
            "microseconds": round((self.end - self.begun) * 1e6),
            "histogram": dict(self.histogram.counts),
            "errors": self.errors,
        }

    def _write(self) -> None:
        key = self._key()
        sent = time.monotonic()

        def applied(_: Any, reason: int) -> None:  # in the library's own thread
            now = time.monotonic()
            if now < self.end:
                if reason == FAIL_REASON.SUCCESS:
                    self.histogram.add(round((now - sent) * 1e6))
                else:
                    name = f"writes failed for reason {reason}"
                    self.errors[name] = self.errors.get(name, 0) + 1
                self._write()
            else:
                self.under_way -= 1
                if self.under_way == 0:
                    self.ended.set()

        self.data.set(key_name(key), self._values.of(key), callback=applied)


def main(own: str, partners: str, journal: str) -> None:
    """Serve requests until standard input ends."""
    data = ReplDict()
    # Versions that can sync their journal do; this one's notes say if it cannot.
    settings = SyncObjConf(journalFile=journal, flushJournal=True)
    member = SyncObj(own, partners.split(","), settings, consumers=[data])
    for line in sys.stdin:
        told = json.loads(line)
        if told["ask"] == "state":
            # It calls itself ready only once a leader has been heard.
            answer = {"ready": member.isReady(), "leader": member._isLeader()}
        else:
            answer = Loop(data, told).run()
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
