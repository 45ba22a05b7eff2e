"""
What is asked of a system, and what came of it.

Keys and values are made here, in C{load.lua} and in C{goload} alike: key 7 is
C{k00000007}, and its value is a piece of one random text that begins at a place
given by the key, so that few values are alike.
"""

from __future__ import annotations

import random
import string
from enum import Enum
from typing import Final

from attrs import define, field, frozen

from benchmarks.latency import Latency

MAX_KEYS: Final = 10**8
"""Names of keys have eight digits."""

MAX_FILLED_BYTES: Final = 1 << 26
"""Values that are put in before a measurement; with large values, fewer keys."""

TEXT_STEPS: Final = 1 << 14
"""Places in the random text where a value may begin, 3 bytes apart: then its
Base64 is a piece of the text's."""


class Kind(Enum):
    """What requests do."""

    PUT = "put"
    GET = "get"
    """Linearizable."""

    STALE = "stale"
    """What the member has, which etcd calls serializable."""

    MIX = "mix"
    """Nine linearizable reads for one write."""

    @property
    def reads(self) -> bool:
        """Whether keys have to be there before."""
        return self is not Kind.PUT


class Skew(Enum):
    """Which keys are asked for."""

    UNIFORM = "uniform"
    ZIPFIAN = "zipfian"


@frozen(slots=True)
class Load:
    """
    @ivar connections: each with one request at a time.
    @ivar keys: how many there are.
    @ivar rate: requests a second, sent when they are due; None for a closed loop.
    """

    kind: Kind
    connections: int
    value_bytes: int
    keys: int
    skew: Skew = Skew.UNIFORM
    seed: int = 1
    rate: int | None = None

    @property
    def filled_keys(self) -> int:
        """Of how many keys the load can be, where each has to be there."""
        return max(1, min(self.keys, MAX_FILLED_BYTES // self.value_bytes))


@frozen(slots=True)
class Figures:
    """
    What a load came to.

    @ivar errors: what went wrong, and how often: any makes the figures invalid.
    @ivar client_cpu_seconds: what the client itself used, if that is known.
    """

    requests: int
    seconds: float
    latency: Latency
    errors: dict[str, int] = field(factory=dict)
    client_cpu_seconds: float | None = None

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds if self.seconds > 0 else 0.0

    @property
    def problem(self) -> str | None:
        """Why they say nothing."""
        if self.errors:
            return ", ".join(f"{count} {name}" for name, count in self.errors.items())
        return None if self.requests else "no answers"


def key_name(number: int) -> str:
    """The name of a key."""
    return f"k{number:08d}"


@define(slots=True)
class Values:
    """The values of all keys, of one size."""

    size: int
    _text: str = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        letters = string.ascii_letters + string.digits
        chosen = random.Random(1).choices(letters, k=self.size + 3 * TEXT_STEPS)
        self._text = "".join(chosen)

    def of(self, key: int) -> bytes:
        """The value of a key."""
        place = 3 * (key * 7919 % TEXT_STEPS)
        return self._text[place : place + self.size].encode()
