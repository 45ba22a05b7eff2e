"""Whether a disk is fast enough."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field

from kvdb.offline.disk import FILE_BYTES, MIN_SYNCS, Latencies, complaints, measure
from kvdb.offline.files import real_filesystem
from kvdb.storage.filesystem import DiskFull, SyncFailed
from tests.offline.member import nothing


@define
class SlowFile:
    """One whose syncs take what they are told to."""

    disk: SlowDisk

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.disk.done.append((name, *args))

    def sync(self) -> None:
        self.disk.now += next(self.disk.seconds)


@define
class SlowDisk:
    seconds: Iterator[float]
    now: float = 0.0
    done: list[Any] = field(factory=list)

    def open(self, path: str) -> SlowFile:
        return SlowFile(self)


def found(directory: Path, *milliseconds: float) -> Latencies:
    """On a disk that takes these, one after the other, over and over."""
    once = [0.0, *(one / 1000 for one in milliseconds)]

    def all_of_them() -> Iterator[float]:
        yield once[0]
        while True:
            yield from once[1:]

    disk: Any = SlowDisk(all_of_them())
    return measure(disk, str(directory), lambda: disk.now, nothing, 2.0)


def test_figures(tmp_path: Path) -> None:
    latencies = found(tmp_path, 1, 1, 1, 2)
    assert latencies.p50 == pytest.approx(0.001)
    assert latencies.p99 == pytest.approx(0.002)
    assert latencies.longest == pytest.approx(0.002)
    assert latencies.syncs == pytest.approx(2.0 / 0.00125, abs=2)
    one = Latencies.of([0.3])
    assert (one.p50, one.p99, one.longest) == (0.3, 0.3, 0.3)
    hundred = Latencies.of([n / 100 for n in range(100, 0, -1)])
    assert (hundred.p50, hundred.p99, hundred.longest) == (0.5, 0.99, 1.0)


def test_a_slow_disk_is_still_measured(tmp_path: Path) -> None:
    assert found(tmp_path, 1000).syncs == MIN_SYNCS


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [
        ([1.0], []),
        ([99.0], []),
        ([101.0], ["longer than a heartbeat (100 ms)"]),
        ([*[1.0] * 999, 499.0], []),
        ([*[1.0] * 999, 501.0], ["steps down"]),
        ([600.0], ["steps down", "longer than a heartbeat"]),
    ],
)
def test_what_a_cluster_can_bear(milliseconds: list[float], said: list[str]) -> None:
    told = complaints(Latencies.of([ms / 1000 for ms in milliseconds]), 0.1, 1.0)
    assert len(told) == len(said)
    for text, part in zip(told, said, strict=True):
        assert part in text


def test_on_a_real_disk(tmp_path: Path) -> None:
    told: list[float] = []
    ticks = iter(range(10**6))
    latencies = measure(
        real_filesystem(), str(tmp_path), lambda: next(ticks) / 10, told.append, 1.0
    )
    assert latencies.syncs >= MIN_SYNCS
    assert told == sorted(told)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "error", [DiskFull("full"), SyncFailed("no"), KeyboardInterrupt()]
)
def test_nothing_is_left_behind(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr("kvdb.storage.filesystem.RealFile.write", fail)
    with pytest.raises(type(error)):
        measure(real_filesystem(), str(tmp_path), lambda: 0.0, nothing)
    assert os.listdir(tmp_path) == []


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    """Whatever it is called, and whatever another run makes of its own."""
    old = tmp_path / "kvdb-check-disk.new"
    old.write_text("precious")
    told: list[list[str]] = []
    ticks = iter(range(10**6))
    measure(
        real_filesystem(),
        str(tmp_path),
        lambda: next(ticks) / 10,
        lambda done: told.append(os.listdir(tmp_path)),
        1.0,
    )
    assert old.read_text() == "precious"
    assert len(told[0]) == 2
    assert os.listdir(tmp_path) == [old.name]


def test_what_it_takes_is_bounded(tmp_path: Path) -> None:
    disk: Any = SlowDisk(iter([0.0] + [0.0001] * 100_000))
    measure(disk, str(tmp_path), lambda: disk.now, nothing, 5.0)
    offsets = [one[1] for one in disk.done if one[0] == "write"]
    assert len(offsets) > FILE_BYTES // 4096
    assert max(offsets) < FILE_BYTES
