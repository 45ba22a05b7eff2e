"""
Curves as SVG: latency against throughput, both logarithmic, by connections.

Each system has one colour: its medians as a whole line, its 99th percentiles as a
dashed one.  A number beside a point is that of its connections, or in an open loop
its rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from attrs import frozen

from benchmarks.load import Kind
from benchmarks.rounds import Measurement, Results, median, of, rate

WIDTH: Final = 900
HEIGHT: Final = 560
LEFT: Final = 80
RIGHT: Final = 190
TOP: Final = 50
BOTTOM: Final = 70
COLOURS: Final = (
    *("#d55e00", "#0072b2", "#56b4e9", "#009e73"),
    *("#cc79a7", "#e69f00", "#555555"),
)
"""Told apart by people who see few colours, too."""

SUITES: Final = ("puts", "reads", "mix", "open")
"""Of which there are pictures."""

GRID: Final = "#dddddd"
STEPS: Final = (1, 2, 5)
"""Within each power of ten."""


@frozen(slots=True)
class Dot:
    """
    One point of two curves.

    @ivar rate: requests a second.
    @ivar p50, p99: milliseconds.
    """

    label: str
    rate: float
    p50: float
    p99: float


@frozen(slots=True)
class Curve:
    """One system."""

    name: str
    dots: tuple[Dot, ...]


@frozen(slots=True)
class _Axis:
    """From values to places, logarithmically."""

    low: float
    high: float
    first: float
    last: float

    def place(self, value: float) -> float:
        part = math.log(value / self.low) / math.log(self.high / self.low)
        return round(self.first + part * (self.last - self.first), 1)

    def ticks(self) -> list[float]:
        lowest = math.floor(math.log10(self.low))
        highest = math.ceil(math.log10(self.high))
        steps = STEPS if highest - lowest <= 4 else (1,)
        found = [n * 10.0**power for power in range(lowest, highest + 1) for n in steps]
        return [tick for tick in found if self.low <= tick <= self.high]


def _axis(values: Sequence[float], first: float, last: float) -> _Axis:
    """That holds all of them, and ends at steps."""
    every = [n * 10.0**power for power in range(-4, 9) for n in STEPS]
    low = max((one for one in every if one <= min(values)), default=every[0])
    high = min((one for one in every if one >= max(values)), default=every[-1])
    if low >= high:
        high = low * 10
    return _Axis(low, high, first, last)


def _text(x: float, y: float, text: str, anchor: str = "start", more: str = "") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def svg(title: str, curves: Sequence[Curve], numbers: str = "connections") -> str:
    """
    The picture; curves without dots are left out.

    @param numbers: what those beside the points are.
    """
    curves = [curve for curve in curves if curve.dots]
    dots = [dot for curve in curves for dot in curve.dots]
    across = _axis([d.rate for d in dots] or [1.0], LEFT, WIDTH - RIGHT)
    latencies = [taken for dot in dots for taken in (dot.p50, dot.p99)]
    up = _axis(latencies or [1.0], HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        f' width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, TOP - 24, title, more=' font-size="17"'),
        *_grid(across, up),
    ]
    for number, curve in enumerate(curves):
        parts += _curve(curve, COLOURS[number % len(COLOURS)], across, up)
        parts += _legend(curve, COLOURS[number % len(COLOURS)], number)
    parts += _legend_of_lines(len(curves), numbers)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _grid(across: _Axis, up: _Axis) -> list[str]:
    parts = []
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for tick in across.ticks():
        x = across.place(tick)
        parts.append(f'<path d="M{x} {TOP}V{bottom}" stroke="{GRID}"/>')
        parts.append(_text(x, bottom + 20, _amount(tick), "middle"))
    for tick in up.ticks():
        y = up.place(tick)
        parts.append(f'<path d="M{LEFT} {y}H{right}" stroke="{GRID}"/>')
        parts.append(_text(LEFT - 8, y + 4, _amount(tick), "end"))
    middle = (TOP + bottom) / 2
    turned = f' transform="rotate(-90 24 {middle})"'
    parts.append(
        _text((LEFT + right) / 2, HEIGHT - 22, "requests per second", "middle")
    )
    parts.append(_text(24, middle, "latency, milliseconds", "middle", turned))
    return parts


def _curve(curve: Curve, colour: str, across: _Axis, up: _Axis) -> list[str]:
    parts = [
        f'<g stroke="{colour}" fill="{colour}"><title>{escape(curve.name)}</title>'
    ]
    for name, dash in (("p50", ""), ("p99", ' stroke-dasharray="6 4"')):
        places = [
            (across.place(d.rate), up.place(getattr(d, name))) for d in curve.dots
        ]
        line = " ".join(f"{x},{y}" for x, y in places)
        parts.append(f'<polyline points="{line}" fill="none" stroke-width="2"{dash}/>')
        for (x, y), dot in zip(places, curve.dots, strict=True):
            parts.append(f'<circle cx="{x}" cy="{y}" r="3"/>')
            if name == "p50":
                more = ' font-size="10" stroke="none"'
                parts.append(_text(x + 5, y + 12, dot.label, more=more))
    parts.append("</g>")
    return parts


def _legend(curve: Curve, colour: str, number: int) -> list[str]:
    x, y = WIDTH - RIGHT + 20, TOP + 10 + 22 * number
    return [
        f'<path d="M{x} {y}h26" stroke="{colour}" stroke-width="3"/>',
        _text(x + 34, y + 4, curve.name),
    ]


def _legend_of_lines(curves: int, numbers: str) -> list[str]:
    x, y = WIDTH - RIGHT + 20, TOP + 30 + 22 * curves
    return [
        f'<path d="M{x} {y}h26" stroke="black" stroke-width="2"/>',
        _text(x + 34, y + 4, "p50"),
        f'<path d="M{x} {y + 22}h26" stroke="black" stroke-width="2"'
        ' stroke-dasharray="6 4"/>',
        _text(x + 34, y + 26, "p99"),
        _text(x, y + 52, f"numbers: {numbers}", more=' font-size="11"'),
    ]


def _taken(name: str, measured: list[Measurement]) -> float:
    def value(measurement: Measurement) -> float:
        assert measurement.figures is not None, "a measurement without figures"
        taken: int = getattr(measurement.figures.latency, name)
        return max(taken, 1) / 1000  # a logarithm of nothing is none

    return median(measured, value) or 0.0


def curves_of(measured: list[Measurement]) -> list[Curve]:
    """One for each system, through the numbers of connections, or the rates."""
    curves = []
    for system in dict.fromkeys(m.system for m in measured):
        mine = [m for m in measured if m.system == system and m.valid]
        mine.sort(key=_number)
        dots = []
        for label in dict.fromkeys(m.point.label for m in mine):
            same = of(mine, system, label)
            per_second = median(same, rate) or 0.0
            p50, p99 = _taken("p50", same), _taken("p99", same)
            dots.append(Dot(f"{_number(same[0]):,}", per_second, p50, p99))
        curves.append(Curve(system, tuple(dots)))
    return curves


def _number(measurement: Measurement) -> int:
    load = measurement.point.load
    return load.connections if load.rate is None else load.rate


def write(results: Results, directory: Path) -> list[Path]:
    """A picture of each kind of load that was measured with several systems."""
    written = []
    plain = [m for m in results.measurements if m.suite in SUITES]
    for kind, is_open in dict.fromkeys(_sort(m) for m in plain):
        same = [m for m in plain if _sort(m) == (kind, is_open)]
        first = same[0].point.load
        same = [
            m
            for m in same
            if m.point.load.value_bytes == first.value_bytes
            and m.point.load.skew is first.skew
        ]
        title = f"{kind.value}, values of {first.value_bytes} bytes"
        numbers = "requests/s due" if is_open else "connections"
        path = directory / f"{'open-' if is_open else ''}{kind.value}.svg"
        path.write_text(svg(title, curves_of(same), numbers))
        written.append(path)
    return written


def _sort(measurement: Measurement) -> tuple[Kind, bool]:
    load = measurement.point.load
    return load.kind, load.rate is not None
