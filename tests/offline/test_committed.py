"""An engine that is only read, with changes above it that stay in memory."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvdb.offline.committed import Overlay
from kvdb.store.memory import MemoryEngine

KEYS = st.sampled_from([bytes([n]) for n in range(8)])
BATCHES = st.lists(st.dictionaries(KEYS, st.none() | st.just(b"new")), max_size=4)


@given(st.dictionaries(KEYS, st.just(b"old")), BATCHES, KEYS, KEYS)
def test_it_is_as_if_they_had_been_written(
    below: dict[bytes, bytes],
    batches: list[dict[bytes, bytes | None]],
    low: bytes,
    high: bytes,
) -> None:
    read, written = MemoryEngine(), MemoryEngine()
    read.write(below)
    written.write(below)
    overlay = Overlay(read)
    for batch in batches:
        overlay.write(batch)
        written.write(batch)
    assert list(overlay.scan(low, high)) == list(written.scan(low, high))
    for key in (low, high):
        assert overlay.get(key) == written.get(key)
    assert dict(read.scan(b"", b"z")) == below
