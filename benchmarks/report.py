"""
Results as tables: on the terminal, as Markdown; and all of them as JSON.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from attrs import define, field
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.rounds import Cost, Measurement, Results, median, of, rate, ratio

OURS: Final = "kvdb"
NOTHING: Final = "–"


@define(slots=True)
class Table:
    """
    @ivar columns: the first is text, the others are numbers.
    """

    title: str
    columns: list[str]
    rows: list[list[str]] = field(factory=list)


def show(table: Table, console: Console) -> None:
    """On a terminal."""
    shown = RichTable(title=table.title, box=box.SIMPLE, title_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(
            column,
            justify="right" if number else "left",
            no_wrap=number > 0,
            overflow="fold",
        )
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown, markup=False)


def markdown(table: Table) -> str:
    """As Markdown."""
    lines = [f"### {table.title}", ""]
    ruler = ["---", *(["---:"] * (len(table.columns) - 1))]
    for row in (table.columns, ruler, *table.rows):
        cells = (cell.replace("|", "\\|") for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def tables(results: Results) -> list[Table]:
    """All that there are, in the order in which they were measured."""
    found = []
    for suite in dict.fromkeys(m.suite for m in results.measurements):
        measured = [m for m in results.measurements if m.suite == suite]
        found.append(_details(suite, measured))
        ratios = _ratios(suite, measured)
        if ratios.rows:
            found.append(ratios)
    if results.costs:
        found.append(_costs(results.costs))
    problems = _problems(results)
    if problems.rows:
        found.append(problems)
    return found


def _labels(measured: Iterable[Measurement]) -> list[str]:
    return list(dict.fromkeys(m.point.label for m in measured))


def _systems(measured: Iterable[Measurement | Cost]) -> list[str]:
    return list(dict.fromkeys(m.system for m in measured))


def _details(suite: str, measured: list[Measurement]) -> Table:
    columns = ["point", "system", "rounds", "requests/s"]
    columns += ["p50 ms", "p90 ms", "p99 ms", "max ms", "CPU ms/1000", "client CPU"]
    table = Table(f"{suite}: medians over rounds", columns)
    for label in _labels(measured):
        for system in _systems(measured):
            one = of(measured, system, label)
            if one:
                table.rows.append([label, system, *_figures(one)])
    return table


def _figures(measured: list[Measurement]) -> list[str]:
    valid = [m for m in measured if m.valid]
    rounds = (
        f"{len(valid)}"
        if len(valid) == len(measured)
        else (f"{len(valid)} of {len(measured)}")
    )
    if not valid:
        return [rounds, "invalid", *([NOTHING] * 6)]
    return [
        rounds,
        _number(median(valid, rate)),
        *(_milliseconds(valid, name) for name in ("p50", "p90", "p99", "max")),
        _number(median([m for m in valid if m.usage], _cpu)),
        _number(median([m for m in valid if _client(m) is not None], _client_share)),
    ]


def _milliseconds(measured: list[Measurement], name: str) -> str:
    def value(measurement: Measurement) -> float:
        assert measurement.figures is not None, "a measurement without figures"
        taken: int = getattr(measurement.figures.latency, name)
        return taken / 1000

    return _number(median(measured, value))


def _p99(measurement: Measurement) -> float:
    assert measurement.figures is not None, "a measurement without figures"
    return max(measurement.figures.latency.p99, 1)


def _cpu(measurement: Measurement) -> float:
    """Milliseconds of all processes of a system for 1000 requests."""
    assert measurement.figures is not None, "a measurement without figures"
    used = sum(usage.cpu_seconds for usage in measurement.usage.values())
    return used * 1e6 / measurement.figures.requests


def _client(measurement: Measurement) -> float | None:
    return measurement.figures.client_cpu_seconds if measurement.figures else None


def _client_share(measurement: Measurement) -> float:
    """Of one processor, over the whole time."""
    assert measurement.figures is not None, "a measurement without figures"
    return (_client(measurement) or 0.0) / measurement.figures.seconds


def _ratios(suite: str, measured: list[Measurement]) -> Table:
    """In an open loop all answer as many a second: there it is of latencies."""
    others = [system for system in _systems(measured) if system != OURS]
    what, value = ("requests/s", rate) if suite != "open" else ("p99", _p99)
    table = Table(
        f"{suite}: {what} of {OURS}, as a multiple of others' (median of rounds)",
        ["point", *(f"{OURS} / {system}" for system in others)],
    )
    for label in _labels(measured):
        ours = of(measured, OURS, label)
        found = [ratio(ours, of(measured, system, label), value) for system in others]
        if any(one is not None for one in found):
            table.rows.append([label, *(_number(one) for one in found)])
    return table


def _costs(costs: list[Cost]) -> Table:
    systems = _systems(costs)
    others = [system for system in systems if system != OURS] if OURS in systems else []
    table = Table(
        "costs: median (worst of so many)",
        ["what", *systems, *(f"{OURS} / {system}" for system in others)],
    )
    for what in dict.fromkeys(cost.what for cost in costs):
        row = [what]
        values: dict[str, list[float]] = {}
        for system in systems:
            found = [c for c in costs if c.what == what and c.system == system]
            values[system] = [c.value for c in found if c.value is not None]
            unit = found[0].unit if found else ""
            failed = any(c.value is None for c in found)
            row.append(_cost(values[system], unit, failed=failed))
        for system in others:
            mine, theirs = values.get(OURS), values[system]
            both = bool(mine and theirs and statistics.median(theirs))
            row.append(
                _number(statistics.median(mine or [0]) / statistics.median(theirs))
                if both
                else NOTHING
            )
        table.rows.append(row)
    return table


def _cost(values: list[float], unit: str, *, failed: bool) -> str:
    if not values:
        return "failed" if failed else NOTHING
    said = f"{_number(statistics.median(values))} {unit}".strip()
    if len(values) > 1:
        said += f" ({_number(max(values))} of {len(values)})"
    return said + (", then failed" if failed else "")


def _problems(results: Results) -> Table:
    table = Table("invalid measurements", ["what", "why"])
    for measured in results.measurements:
        if not measured.valid:
            what = f"{measured.point.label}: {measured.system}, round {measured.round}"
            table.rows.append([what, str(measured.problem)])
    for cost in results.costs:
        if cost.value is None:
            table.rows.append([f"{cost.what}: {cost.system}", str(cost.failure)])
    return table


def _number(value: float | None) -> str:
    """With about three figures that count."""
    if value is None:
        return NOTHING
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def write(
    results: Results,
    machine: dict[str, str],
    settings: dict[str, object],
    directory: Path,
) -> None:
    """C{results.json} and C{results.md}."""
    told = {"machine": machine, "settings": settings, **results.as_json()}
    (directory / "results.json").write_text(json.dumps(told, indent=1) + "\n")
    lines = ["# Measurements", ""]
    lines += [f"* {name}: {value}" for name, value in machine.items()]
    lines += [f"* skipped: {what}: {why}" for what, why in results.skipped.items()]
    lines += [f"* {note}" for note in results.notes]
    parts = ["\n".join(lines) + "\n", *(markdown(table) for table in tables(results))]
    (directory / "results.md").write_text("\n".join(parts))
