"""Medians, ratios, and the tables made of them."""

from __future__ import annotations

import json

from benchmarks import report
from benchmarks.attempts import Attempt
from benchmarks.availability import longest_silence
from benchmarks.latency import Latency
from benchmarks.load import Figures, Kind, Load
from benchmarks.rounds import Cost, Measurement, Point, Results, median, rate, ratio

POINT = Point("put", Load(Kind.PUT, 8, 64, 100))


def measurement(
    system: str, number: int, requests: int, errors: dict[str, int] | None = None
) -> Measurement:
    figures = Figures(requests, 1.0, Latency(100, 200, 300, 400), errors or {})
    return Measurement("puts", system, POINT, number, figures)


def test_the_ratio_is_taken_within_rounds() -> None:
    ours = [measurement("kvdb", n, count) for n, count in enumerate((100, 10, 40))]
    theirs = [measurement("etcd", n, count) for n, count in enumerate((50, 20, 10))]
    assert ratio(ours, theirs) == 2  # of 2, 0.5 and 4: not 40 / 20
    assert median(ours, rate) == 40


def test_what_is_invalid_does_not_count() -> None:
    ours = [measurement("kvdb", 1, 100), measurement("kvdb", 2, 900, {"time-outs": 1})]
    theirs = [measurement("etcd", 1, 50), measurement("etcd", 2, 1)]
    assert ratio(ours, theirs) == 2
    assert median(ours, rate) == 100
    assert median(ours[1:], rate) is None
    assert ratio(ours[1:], theirs) is None


def test_tables() -> None:
    results = Results(
        [
            measurement("kvdb", 1, 100),
            measurement("etcd-http", 1, 50),
            measurement("etcd-http", 2, 50, {"time-outs": 3}),
            Measurement("puts", "kvdb", POINT, 2, None, "kvdb has ended"),
        ],
        [
            Cost("costs", "killed", "kvdb", "ms", 1, 100.0),
            Cost("costs", "killed", "kvdb", "ms", 2, 300.0),
            Cost("costs", "killed", "etcd-http", "ms", 1, 400.0),
            Cost("costs", "back", "etcd-http", "s", 1, None, "it is not"),
        ],
    )
    details, ratios, costs, problems = report.tables(results)
    assert details.rows[0][:4] == ["put", "kvdb", "1 of 2", "100"]
    assert ratios.columns == ["point", "kvdb / etcd-http"]
    assert ratios.rows == [["put", "2.00"]]
    assert costs.rows == [
        ["killed", "200 ms (300 of 2)", "400 ms", "0.5"],
        ["back", "–", "failed", "–"],
    ]
    assert [why for _, why in problems.rows] == [
        "3 time-outs",
        "kvdb has ended",
        "it is not",
    ]
    assert report.markdown(ratios).splitlines()[2:] == [
        "| point | kvdb / etcd-http |",
        "| --- | ---: |",
        "| put | 2.00 |",
    ]
    told = json.loads(json.dumps(results.as_json()))
    assert told["measurements"][0]["point"]["load"]["kind"] == "put"


def test_silence() -> None:
    attempts = [Attempt(0.0, 0.5, 204), Attempt(0.0, 1.2, 204), Attempt(1.3, 1.9, 204)]
    attempts += [Attempt(1.0, 1.6, 503), Attempt(1.0, 2.5, None)]
    assert round(longest_silence(attempts, 1.0), 6) == 0.7
