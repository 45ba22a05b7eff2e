"""The requests that wrk sends, seen by a server."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter

import pytest
from attrs import evolve

from benchmarks import wrk
from benchmarks.load import Kind, Load, Skew
from tests.benchmarks.recorder import recording

pytestmark = pytest.mark.skipif(
    wrk.absence() is not None, reason=wrk.absence() or "wrk is here"
)


def asked_by(dialect: str, load: Load) -> list[tuple[str, bytes]]:
    with recording() as (address, asked):
        figures = wrk.run(address, dialect, load, 1)
    assert figures.problem is None
    return asked


def test_keys_are_drawn_zipfian_and_the_same_for_a_seed() -> None:
    load = Load(Kind.MIX, 1, 10, 1000, Skew.ZIPFIAN)
    kvdb = asked_by("kvdb", load)
    etcd = asked_by("etcd", load)
    keys = [line.removeprefix("PUT /").removeprefix("GET /") for line, _ in kvdb]
    assert all(re.fullmatch(r"k00000\d{3}", key) for key in keys)
    (most, _), *_ = Counter(keys).most_common(1)
    assert most == "k00000000"
    writes = [body for line, body in kvdb if line.startswith("PUT")]
    assert 0.05 < len(writes) / len(kvdb) < 0.2
    assert {len(body) for body in writes} == {10}
    told = [(line, json.loads(body)) for line, body in etcd]
    theirs = [base64.b64decode(body["key"]).decode() for _, body in told]
    first = min(len(keys), len(theirs), 50)
    assert keys[:first] == theirs[:first]
    for line, body in told:
        assert line == ("POST /v3/kv/put" if "value" in body else "POST /v3/kv/range")
        assert len(base64.b64decode(body.get("value", "MDEyMzQ1Njc4OQ=="))) == 10


def test_each_thread_draws_keys_of_its_own() -> None:
    few = wrk.FEW_CONNECTIONS + 1
    load = Load(Kind.PUT, few, 10, 10**8)
    keys = Counter(line for line, _ in asked_by("kvdb", load))
    assert len(keys) > 50
    # Two threads with one seed would ask for each twice.
    assert sum(keys.values()) - len(keys) < len(keys) / 10
    other = Counter(line for line, _ in asked_by("kvdb", evolve(load, seed=2)))
    assert len(keys & other) < len(keys) / 10
