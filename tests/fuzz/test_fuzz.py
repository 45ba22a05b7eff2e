"""
The targets, on the corpus and on what hypothesis makes: quick, and the same
each time.  To look for more, see C{tests.fuzz.__main__}.
"""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from random import Random
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvdb.peer.framing import HEADER, MAX_FRAME_BYTES, FrameParser, FrameType
from tests.fuzz.__main__ import CORPUS, MAX_BYTES, changed
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

ROOM: Final = 256 << 10
"""What a decoder may take beside a multiple of its input."""

FOLD: Final = 64
"""That multiple: Python's objects are large beside the bytes they stand for."""

DECODERS: Final = sorted(
    TARGETS.keys() - {"connection", "log-bytes", "log-records", "http"}
)

EXAMPLES: Final = settings(
    max_examples=30, deadline=None, derandomize=True, database=None
)


def corpus(name: str) -> list[Path]:
    """The inputs of a target that are kept."""
    return sorted((CORPUS / name).glob("*"))


def peak(name: str, data: bytes) -> int:
    """The most memory that a target takes over C{data}."""
    tracemalloc.start()
    try:
        TARGETS[name](data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_finds_nothing(name: str) -> None:
    found = corpus(name)
    assert found, "there is a corpus"
    for path in found:
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            error.add_note(f"python -m tests.fuzz --target {name} --input {path}")
            raise


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_find_nothing(name: str) -> None:
    @EXAMPLES
    @given(st.binary(max_size=200))
    @example(b"")
    def check(data: bytes) -> None:
        TARGETS[name](data)

    check()


@pytest.mark.parametrize("name", TARGETS)
def test_valid_bytes_with_changes_find_nothing(name: str) -> None:
    seeds = st.sampled_from(SEEDS[name])

    @EXAMPLES
    @given(st.integers(0, 2**32), seeds, seeds)
    def check(seed: int, data: bytes, other: bytes) -> None:
        TARGETS[name](changed(Random(seed), data, other))

    check()


@pytest.mark.parametrize("name", DECODERS)
def test_memory_is_bounded_by_what_has_come(name: str) -> None:
    paths = corpus(name)
    for path in Random(1).sample(paths, min(len(paths), 40)):
        data = path.read_bytes()
        assert peak(name, data) < ROOM + FOLD * len(data), path.name


@pytest.mark.parametrize("name", DECODERS)
def test_lengths_and_counts_that_claim_much_take_nothing(name: str) -> None:
    for seed in SEEDS[name]:
        data = seed[:MAX_BYTES]
        for at in range(0, min(len(data), 100), 4):
            claim = data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]
            assert peak(name, claim) < ROOM + FOLD * len(claim), (at, claim)


def test_a_frame_that_is_announced_takes_what_has_come_of_it() -> None:
    parser = FrameParser(MAX_FRAME_BYTES)
    head = HEADER.pack(MAX_FRAME_BYTES, FrameType.MESSAGES, 0)
    tracemalloc.start()
    try:
        for piece in (head, bytes(1000), bytes(1000)):
            parser.feed(piece)
            assert parser.next() is None
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()
