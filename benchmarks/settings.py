"""
What is to be measured, and how long.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from attrs import frozen

from benchmarks.load import Skew

SUITES: Final = ("puts", "reads", "mix", "open", "costs", "watch", "scale")
"""In the order in which they run."""


@frozen(slots=True, kw_only=True)
class Settings:
    """
    @ivar seconds: of each measurement.
    @ivar warm_up_seconds: before each, whose figures are thrown away.
    @ivar value_bytes: the first is measured with all numbers of connections.
    @ivar repetitions: of what is done to a leader.
    @ivar memory_keys: of 100 bytes, for what memory and disk they take.
    @ivar behind_writes: which a follower has missed and catches up with.
    @ivar restart_keys: of 100 bytes, with which a member is started again.
    @ivar sizes: of clusters.
    @ivar watchers: on one member.
    @ivar data_directory: on the disk that is to be measured.
    """

    systems: tuple[str, ...]
    suites: tuple[str, ...]
    rounds: int = 3
    seconds: int = 5
    warm_up_seconds: int = 1
    connections: tuple[int, ...] = (1, 8, 32, 128, 512)
    value_bytes: tuple[int, ...] = (64, 1024, 65536)
    keys: int = 10_000
    skew: Skew = Skew.UNIFORM
    follower: bool = False
    rates: tuple[int, ...] = (250, 500, 1000, 2000, 4000)
    repetitions: int = 7
    memory_keys: int = 1_000_000
    behind_writes: int = 50_000
    restart_keys: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    scale_keys: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    sizes: tuple[int, ...] = (1, 3, 5, 7)
    watchers: int = 5_000
    seed: int = 1
    data_directory: Path
    output: Path
