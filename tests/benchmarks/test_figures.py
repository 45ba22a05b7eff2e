"""What clients say of a load, as it is read."""

from __future__ import annotations

import pytest

from benchmarks import goload, wrk
from benchmarks.answers import Answers, BadAnswer
from benchmarks.dialect import Answer, EtcdGateway, Kvdb
from benchmarks.latency import Histogram, Latency
from benchmarks.load import Kind, Load, Values
from benchmarks.process import Failed

SAID = """Running 1s test @ http://127.0.0.1:12380/
  1 threads and 8 connections
Requests/sec:   4321.00
FIGURES {"requests": 8642, "microseconds": 2000000, "latency": {"p50": 900, \
"p90": 1500, "p99": 7000, "max": 9000}, "errors": {"connect": 0, "read": %d, \
"write": 0, "timeout": 0, "status": %d}}
"""


def test_wrk() -> None:
    figures = wrk.parse(SAID % (0, 0), 0.25)
    assert figures.rate == 4321
    assert figures.latency == Latency(900, 1500, 7000, 9000)
    assert figures.client_cpu_seconds == 0.25
    assert figures.problem is None


def test_any_error_makes_figures_invalid() -> None:
    figures = wrk.parse(SAID % (2, 7))
    assert figures.problem == "2 errors reading, 7 answers of 400 and above"


def test_wrk_without_figures() -> None:
    with pytest.raises(Failed, match="no figures"):
        wrk.parse("unable to connect")


def test_go_client() -> None:
    output = (
        '{"requests": 4, "microseconds": 1000000,'
        ' "histogram": {"100": 3, "900": 1}, "errors": {}}'
    )
    load = Load(Kind.PUT, 4, 64, 10)
    assert goload.parse(output, load).latency == Latency(100, 900, 900, 900)
    failed = output.replace('"errors": {}', '"errors": {"answers 503": 1}')
    assert goload.parse(failed, load).problem == "1 answers 503"
    with pytest.raises(Failed, match="no figures"):
        goload.parse("", load)


def test_percentiles() -> None:
    histogram = Histogram(dict.fromkeys(range(1, 101), 1))
    assert [histogram.percentile(p) for p in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert Histogram().latency() == Latency(0, 0, 0, 0)


def test_correction_is_that_of_wrk() -> None:
    corrected = Histogram({10: 5, 45: 2}).corrected(10)
    # 45 stands for 35, 25 and 15 as well; 5 would be below the usual.
    assert corrected.counts == {10: 5, 15: 2, 25: 2, 35: 2, 45: 2}


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_answers_arrive_in_pieces(size: int) -> None:
    stream = (
        b'HTTP/1.1 204 No Content\r\nETag: "1"\r\n\r\n'
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\r\n\r\n."
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
    )
    answers = Answers()
    found = []
    for begin in range(0, len(stream), size):
        found += answers.take(stream[begin : begin + size])
    assert found == [204, 200, 503]


def test_what_is_no_answer() -> None:
    with pytest.raises(BadAnswer):
        Answers().take(b"SSH-2.0\r\n\r\n")
    with pytest.raises(BadAnswer):
        Answers().take(b"HTTP/1.1 200 OK\r\n\r\n")


def test_dialects() -> None:
    put = Kvdb().put("k1", b"v").encode("h:1")
    assert put == b"PUT /k1 HTTP/1.1\r\nHost: h:1\r\nContent-Length: 1\r\n\r\nv"
    gateway = EtcdGateway()
    assert gateway.put("k1", b"v").body == b'{"key":"azE=","value":"dg=="}'
    assert gateway.get("k1", stale=True).body == b'{"key":"azE=","serializable":true}'
    assert gateway.value(Answer(200, b'{"kvs":[{"value":"dg=="}]}')) == b"v"
    assert gateway.value(Answer(200, b"{}")) is None
    assert Kvdb().value(Answer(404, b"")) is None


def test_values_differ_by_key_and_have_their_size() -> None:
    values = Values(100)
    found = {values.of(key) for key in range(1000)}
    assert len(found) == 1000
    assert {len(value) for value in found} == {100}
