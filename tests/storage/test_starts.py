"""What a directory remembers of its starts, and what an older copy of it does not."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvdb.storage.starts import (
    MAX_PEERS,
    MAX_STARTS,
    PeerStart,
    Start,
    Starts,
    decode_peer_starts,
    decode_starts,
    encode_peer_starts,
    encode_starts,
)

u64 = st.integers(0, 2**64 - 1)
ids = st.lists(u64, unique=True, max_size=3 * MAX_STARTS)


NONE = Starts()


def started(start_ids: list[int], before: Starts = NONE) -> Starts:
    """C{before}, and a start with each of C{start_ids}."""
    for start_id in start_ids:
        before = before.begin(start_id)
    return before


@given(ids)
def test_every_start_that_was_met_is_remembered(start_ids: list[int]) -> None:
    met: list[Start] = []
    starts = Starts()
    for start_id in start_ids:
        starts = starts.begin(start_id)
        newest = starts.newest
        assert newest == Start(len(met) + 1, start_id)
        met.append(newest)
        assert all(starts.remembers(start) for start in met)


@given(
    before=ids,
    since=st.lists(u64, min_size=1, max_size=5, unique=True),
    again=st.lists(u64, min_size=1, max_size=MAX_STARTS, unique=True),
)
def test_an_older_copy_does_not_remember_what_came_since(
    before: list[int], since: list[int], again: list[int]
) -> None:
    if set(since) & set(again):
        return  # as likely as two equal draws of 64 bits
    copied = started(before)
    met = started(since, copied).newest
    assert met is not None
    assert started(since + again, copied).remembers(met)
    # However often the copy was started before it was met again, within what is kept.
    assert not started(again[: MAX_STARTS - len(since)], copied).remembers(met)


def test_an_older_copy_counts_to_the_same_number() -> None:
    copied = started([11, 12])
    met = started([13], copied).newest
    assert met == Start(3, 13)
    assert not started([99], copied).remembers(met)


def test_what_is_too_long_ago_is_not_held_against_anybody() -> None:
    starts = started(list(range(1000, 1000 + MAX_STARTS + 1)))
    assert starts.remembers(Start(1, 7))
    assert not starts.remembers(Start(2, 7))


@given(ids)
def test_starts_are_read_as_they_were_written(start_ids: list[int]) -> None:
    starts = started(start_ids)
    assert decode_starts(encode_starts(starts) + b"more") == starts


@given(st.binary(max_size=300))
def test_any_bytes_are_starts_or_refused(data: bytes) -> None:
    try:
        starts = decode_starts(data)
    except (struct.error, ValueError):
        return
    assert encode_starts(starts) == data[: len(encode_starts(starts))]
    assert len(starts.ids) <= min(MAX_STARTS, starts.count)


peers = st.dictionaries(
    u64, st.builds(PeerStart, u64, st.builds(Start, u64, u64)), max_size=MAX_PEERS
)


@given(peers)
def test_peers_starts_are_read_as_they_were_written(
    known: dict[int, PeerStart],
) -> None:
    data = encode_peer_starts(known)
    assert decode_peer_starts(data) == known
    with pytest.raises(struct.error):
        decode_peer_starts(data + b"\0")


def test_more_peers_than_fit_are_refused() -> None:
    many = {node: PeerStart(1, Start(1, 1)) for node in range(1, MAX_PEERS + 2)}
    with pytest.raises(ValueError, match="101 members"):
        encode_peer_starts(many)
