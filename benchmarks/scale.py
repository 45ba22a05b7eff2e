"""
The suite scale, of kvdb alone: more members, and more keys.
"""

from __future__ import annotations

from typing import Final

from benchmarks.load import Kind, Load
from benchmarks.process import Failed
from benchmarks.rounds import Measurement, Point
from benchmarks.run import Run
from benchmarks.settings import Settings
from benchmarks.systems.kvdb import Kvdb

CONNECTIONS: Final = 128


def scale(run: Run) -> None:
    """Both."""
    if Kvdb.name not in run.available:
        run.skip("scale", "kvdb is not measured")
        return
    _more_members(run)
    for keys in run.settings.scale_keys:
        _more_keys(run, keys)


def _load(settings: Settings, kind: Kind, keys: int) -> Load:
    connections = min(CONNECTIONS, max(settings.connections))
    size = settings.value_bytes[0]
    return Load(kind, connections, size, keys, settings.skew, settings.seed)


def _more_members(run: Run) -> None:
    load = _load(run.settings, Kind.PUT, run.settings.keys)
    points = [Point(f"put, cluster of {n}", load, n) for n in run.settings.sizes]
    others = {name: kind for name, kind in run.available.items() if kind is not Kvdb}
    for name in others:
        del run.available[name]
    try:
        run.rounds("scale", points)
    finally:
        run.available |= others


def _more_keys(run: Run, keys: int) -> None:
    """One cluster, filled once: to fill it takes longer than to measure it."""
    points = [
        Point(f"{kind.value}, {keys:,} keys", _load(run.settings, kind, keys))
        for kind in (Kind.PUT, Kind.GET)
    ]
    try:
        with run.cluster(Kvdb) as cluster:
            run.fill(cluster, range(keys), run.settings.value_bytes[0])
            for number in range(1, run.settings.rounds + 1):
                for point in points:
                    measured = run.measure("scale", cluster, point, number)
                    run.results.measurements.append(measured)
                    run.tell(measured)
    except Failed as error:
        for point in points:
            failed = Measurement("scale", Kvdb.name, point, 0, None, str(error))
            run.results.measurements.append(failed)
