"""Keys put in, and single writes tried again and again."""

from __future__ import annotations

import time

import pytest

from benchmarks.attempts import Writer
from benchmarks.dialect import Kvdb
from benchmarks.fill import fill
from benchmarks.load import Values, key_name
from benchmarks.process import Failed, free_ports
from tests.benchmarks.recorder import recording

FULL = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 2\r\n\r\n{}"


def test_every_key_is_put_in_once() -> None:
    told: list[int] = []
    with recording() as (address, asked):
        fill(address, Kvdb(), range(100, 1600), 64, told.append)
    values = Values(64)
    expected = {(f"PUT /{key_name(n)}", values.of(n)) for n in range(100, 1600)}
    assert set(asked) == expected
    assert len(asked) == sum(told) == 1500


def test_keys_that_are_refused() -> None:
    with (
        recording(FULL) as (address, _),
        pytest.raises(Failed, match="a write was answered 507"),
    ):
        fill(address, Kvdb(), range(10), 64)


def test_attempts_go_to_all_in_turn_until_one_is_acknowledged() -> None:
    (nobody,) = free_ports(1)
    with recording() as (address, _):
        writer = Writer([f"127.0.0.1:{nobody}", address], Kvdb(), 1.0)
        begun = time.monotonic()
        writer.write_until(
            lambda: sum(a.acknowledged for a in writer.attempts) >= 3, "three are done"
        )
        writer.drain()
        writer.close()
    refused = [a for a in writer.attempts if a.failed]
    assert len(refused) >= 3
    assert all(a.status is None for a in refused)
    first = writer.acknowledged_since(begun)
    assert first is writer.attempts[1]
    assert writer.acknowledged_since(time.monotonic()) is None


def test_an_attempt_without_an_answer_is_given_up() -> None:
    with recording(b"") as (address, _):
        writer = Writer([address], Kvdb(), 0.05)
        writer.write_until(lambda: any(a.failed for a in writer.attempts), "one is")
        writer.close()
    assert all(a.failed for a in writer.attempts)
