"""
Every crash of short histories of a log, as far as they can be counted.

A history is written to a disk that notes each operation.  For each place in it
the states are made that a crash there may leave; the log is opened on each, and
must be what it was at one moment: none that a sync has left behind, and none
that never was.  Then it is written to and opened again.

More of them, as long as one likes::

    python -m tests.storage.test_every_crash --samples 100 --again 50 --seeds 50
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final

import pytest
from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvdb.raft.messages import Entry, HardState
from kvdb.simulation.filesystem import SimulatedFileSystem
from kvdb.storage import journal
from kvdb.storage.filesystem import DiskFull
from kvdb.storage.log import Identity, Log
from tests.storage.disk import DIRECTORY, content, make_entries
from tests.storage.recording import (
    Image,
    RecordingFileSystem,
    crashes,
    make_disk,
    put,
)

SEGMENT_BYTES: Final = 1 << 10
RECENT_BYTES: Final = 1 << 10
ROOM: Final = 256
"""What the head of a segment and urgent batches have to themselves, here."""

US: Final = Identity(1, 2, 3)


@frozen(slots=True)
class Moment:
    """
    What a log held once.

    @ivar base: index and term where it began, or began anew.
    @ivar cut: up to where it may have let go since.
    @ivar began: how many operations there were before it.
    @ivar wrote: how long the data of each entry in its batch was.
    """

    entries: tuple[Entry, ...] = ()
    state: HardState = HardState()
    identity: Identity | None = None
    base: tuple[int, int] = (0, 0)
    cut: int = 0
    began: int = -1
    wrote: tuple[int, ...] = ()

    @property
    def last(self) -> int:
        return self.base[0] + len(self.entries)

    def term(self, index: int) -> int:
        at, term = self.base
        return self.entries[index - at - 1].term if index > at else term

    def is_in(self, log: Log) -> bool:
        """Whether C{log} is as it was then."""
        before = log.first_index() - 1
        return (
            self.base[0] <= before <= self.cut
            and log.hard_state == self.state
            and log.identity == self.identity
            and log.last_index() == self.last
            and log.term(before) == self.term(before)
            and content(log) == list(self.entries[before - self.base[0] :])
        )


@define(slots=True, eq=False)
class History:
    """
    A log on a disk that notes what is done, and what was promised when.

    @ivar moments: what it held after each call, in order.
    @ivar promised: how many operations there were when a moment was, and which.
    """

    image: Image = field(factory=dict)
    moments: list[Moment] = field(factory=lambda: [Moment()])
    promised: list[tuple[int, int]] = field(factory=list)
    clock: Clock = field(factory=Clock)
    disk: SimulatedFileSystem = field(init=False)
    recorded: RecordingFileSystem = field(init=False)
    log: Log = field(init=False)
    start: int = 0

    def __attrs_post_init__(self) -> None:
        self.disk = make_disk(self.clock, {})
        self.recorded = RecordingFileSystem(self.disk)
        put(self.recorded, self.image)
        self.start = self.now
        self.open()

    @property
    def now(self) -> int:
        return len(self.recorded.operations)

    @property
    def state(self) -> HardState:
        return self.moments[-1].state

    def open(self) -> None:
        """Begin, or go on after a crash."""
        self.log = open_log(self.recorded, self.clock)
        # Whatever is found is durable from now on.
        found = [
            one for one, moment in enumerate(self.moments) if moment.is_in(self.log)
        ]
        assert found, describe(self.log, self.moments)
        self.moments.append(evolve(self.moments[found[-1]], began=self.now))
        self.promised.append((self.now, len(self.moments) - 1))

    def kill(self) -> None:
        """The process ends; what was written is in the page cache."""
        for call in self.clock.getDelayedCalls():
            call.cancel()
        self.log.close()
        self.open()

    def settle(self) -> None:
        """Let the disk do what it was asked for."""
        self.clock.pump([0.0] * 4)

    def append(self, new: Sequence[Entry], state: HardState | None = None) -> bool:
        """Whether there was space for it."""
        began = self.now
        try:
            self.log.append(new, state)
        except DiskFull:
            return False
        last = self.moments[-1]
        kept = last.entries
        if new:
            kept = kept[: new[0].index - last.base[0] - 1] + tuple(new)
        self.moments.append(
            evolve(
                last,
                entries=kept,
                state=state or last.state,
                began=began,
                wrote=tuple(len(one.data) for one in new),
            )
        )
        return True

    def more(self, number: int, term: int = 1, size: int = 100) -> bool:
        """Append so many."""
        low = self.log.last_index() + 1
        return self.append(make_entries(low, low + number, term, size))

    def ask(self) -> None:
        """Begin to sync."""
        moment = len(self.moments) - 1

        def note(_: None) -> None:
            self.promised.append((self.now, moment))

        done: Deferred[None] = self.log.sync()
        done.addCallback(note)

    def sync(self) -> None:
        self.ask()
        self.settle()

    def name(self, identity: Identity) -> None:
        self.moments.append(
            evolve(self.moments[-1], identity=identity, began=self.now, wrote=())
        )
        self.log.set_identity(identity)
        self.promised.append((self.now, len(self.moments) - 1))

    def reset(self, index: int, term: int) -> None:
        began = self.now
        state = HardState(max(term, self.state.term), 0, index)
        self.log.reset(index, term, state)
        self.moments.append(
            evolve(
                self.moments[-1],
                entries=(),
                state=state,
                base=(index, term),
                cut=index,
                began=began,
                wrote=(),
            )
        )

    def compact(self, index: int) -> None:
        last = self.moments[-1]
        self.moments.append(
            evolve(last, cut=max(last.cut, index), began=self.now, wrote=())
        )
        self.log.compact(index)

    def allowed(self, length: int) -> list[Moment]:
        """What a log may hold after a crash behind so many operations."""
        low = max(moment for at, moment in [(0, 0), *self.promised] if at <= length)
        later = [m for m in self.moments[low + 1 :] if m.began < length]
        return [self.moments[low], *later]


def open_log(disk: SimulatedFileSystem | RecordingFileSystem, clock: Clock) -> Log:
    return Log.open(disk, DIRECTORY, clock, SEGMENT_BYTES, RECENT_BYTES)


def describe(log: Log, moments: Sequence[Moment]) -> str:
    def brief(entries: Sequence[Entry]) -> str:
        return " ".join(f"{one.term}/{one.index}" for one in entries)

    lines = [f"found {log.first_index()}: {brief(content(log))} {log.hard_state}"]
    lines += [
        f"may be {m.base} {m.cut}: {brief(m.entries)} {m.state}" for m in moments[:9]
    ]
    return "\n".join(lines)


# Histories.


def single_entries(history: History) -> None:
    history.name(US)
    for number in range(4):
        history.more(1)
        if number % 2:
            history.ask()
    history.more(1)
    history.settle()
    history.more(1, size=600)
    history.more(1)
    history.sync()


def batches(history: History) -> None:
    history.name(US)
    history.append(make_entries(1, 4), HardState(1, 1, 0))
    history.ask()
    history.append(make_entries(4, 6), HardState(1, 1, 5))
    history.append([], HardState(2, 3, 5))
    history.settle()
    history.append(make_entries(6, 8, 2), HardState(2, 3, 7))
    history.sync()
    history.append(make_entries(8, 9, 2), HardState(2, 3, 8))


def conflict(history: History) -> None:
    history.append(make_entries(1, 6), HardState(1, 1, 2))
    history.sync()
    history.append(make_entries(4, 7, 2), HardState(2, 0, 2))
    history.append(make_entries(5, 6, 3), HardState(3, 0, 4))
    history.ask()
    history.append(make_entries(6, 9, 3))
    history.append(make_entries(6, 7, 4), HardState(4, 2, 6))
    history.settle()


def rolls(history: History) -> None:
    history.name(US)
    for number in range(8):
        history.more(1, size=350)
        if number in {1, 5}:
            history.ask()
        if number == 6:
            history.settle()
    history.sync()


def rolls_without_a_sync(history: History) -> None:
    for number in range(7):
        history.more(2, size=200)
        if number == 4:
            history.settle()  # only the next file is made
    history.append([], HardState(2, 2, 3))
    history.sync()


def long_batches(history: History) -> None:
    history.more(1)
    history.sync()
    history.more(6, size=400)
    history.more(1, size=1500)
    history.sync()
    history.more(1, size=20)


def conflict_over_segments(history: History) -> None:
    history.name(US)
    history.more(8, size=200)
    history.more(4, size=200)
    history.sync()
    history.append(make_entries(5, 9, 2, 200), HardState(2, 0, 6))
    history.more(3, 2, 250)
    history.sync()
    history.append(make_entries(9, 11, 3, 300), HardState(3, 0, 9))
    history.sync()
    history.compact(9)
    history.more(2, 3)
    history.sync()


def compaction(history: History) -> None:
    history.name(US)
    for _ in range(8):
        history.more(1, size=300)
    history.append([], HardState(1, 1, 8))
    history.sync()
    history.compact(4)
    history.more(3, size=300)
    history.compact(7)
    history.ask()
    history.more(2, size=300)
    history.settle()
    history.compact(8)
    history.sync()


def snapshot(history: History) -> None:
    history.name(US)
    for _ in range(4):
        history.more(1, size=300)
    history.sync()
    history.more(2, size=300)
    history.reset(20, 3)
    history.more(1, 3)
    history.ask()
    history.reset(30, 4)
    history.settle()
    history.more(2, 4, 300)
    history.sync()
    history.reset(31, 4)
    history.sync()


def naming(history: History) -> None:
    history.more(2, size=350)
    history.name(US)
    history.more(1, size=300)
    history.name(evolve(US, cluster_id=9))
    history.append([], HardState(1, 2, 1))
    history.sync()
    history.name(evolve(US, cluster_id=9, removed=True))


def votes(history: History) -> None:
    history.name(US)
    for term in range(1, 12):
        history.append([], HardState(term, term % 3, 0))
        if term % 3 == 0:
            history.ask()
        if term % 4 == 0:
            history.settle()
    history.more(1, 12)


def full_disk(history: History) -> None:
    history.disk.space = 2600
    while history.more(1, size=300):
        history.ask()
    history.settle()
    last = history.log.last_index()
    for term in range(2, 9):
        history.append([], HardState(term, 1, last - 1))
    history.more(1)
    history.ask()
    history.append([], HardState(9, 1, last))
    history.settle()
    history.disk.space += 3 * SEGMENT_BYTES
    history.compact(last)
    history.more(2, 9, 300)
    history.sync()
    history.more(3, 9, 300)


def killed(history: History) -> None:
    history.name(US)
    history.more(2, size=300)
    history.sync()
    history.more(2, size=300)
    history.kill()
    history.append(make_entries(3, 5, 2), HardState(2, 1, 2))
    history.more(3, 2, 300)
    history.ask()
    history.kill()
    history.more(1, 2)
    history.sync()


def any_calls(seed: int) -> Callable[[History], None]:
    """Calls as they come, as a member makes them."""

    def history_of_calls(history: History) -> None:
        random = Random(seed)
        history.name(US)
        for term in range(1, 16):
            chance = random.random()
            log, state = history.log, history.state
            if chance < 0.6:
                kept = max(log.first_index() - 1, state.commit)
                low = max(kept + 1, log.last_index() + 1 - random.randrange(3))
                new = make_entries(
                    low, low + random.randrange(1, 4), term, random.randrange(400)
                )
                if random.random() < 0.5:
                    state = HardState(term, 1, random.randint(kept, new[-1].index))
                history.append(new, state)
            elif chance < 0.7:
                commit = random.randint(state.commit, log.last_index())
                history.append([], HardState(term, 2, commit))
            elif chance < 0.8:
                history.reset(log.last_index() + random.randrange(1, 4), term)
            elif chance < 0.9:
                history.sync()
                history.compact(random.randint(log.first_index() - 1, state.commit))
            else:
                history.kill()
            if random.random() < 0.4:
                history.ask()
            if random.random() < 0.3:
                history.settle()

    return history_of_calls


def go_on(history: History) -> None:
    """After a crash."""
    history.append(
        make_entries(history.log.last_index() + 1, history.log.last_index() + 3, 50)
    )
    history.ask()
    history.more(2, 50, 300)
    history.settle()


HISTORIES: Final[dict[str, Callable[[History], None]]] = {
    one.__name__: one
    for one in (
        single_entries,
        batches,
        conflict,
        rolls,
        rolls_without_a_sync,
        long_batches,
        conflict_over_segments,
        compaction,
        snapshot,
        naming,
        votes,
        full_disk,
        killed,
    )
}


# Crashes.


@define(slots=True)
class Search:
    """
    @ivar samples: subsets that are drawn, where there are too many.
    @ivar again: of how many crashes, for each history, the recovery and what
        follows crash everywhere too.
    @ivar states: how many different ones were opened.
    @ivar failures: what was wrong.
    """

    samples: int = 2
    again: int = 1
    states: int = 0
    failures: list[str] = field(factory=list)

    def run(self, name: str, calls: Callable[[History], None]) -> None:
        """Crash one history everywhere."""
        history = History()
        calls(history)
        random = Random(name)
        chosen: list[tuple[Image, list[Moment]]] = []
        for place, opened in enumerate(self.crash_everywhere(name, history, random)):
            # All of them would be gigabytes: each is kept with the same chance.
            if place < self.again:
                chosen.append(opened)
            elif (instead := random.randrange(place + 1)) < self.again:
                chosen[instead] = opened
        for image, moments in chosen:
            following = History(image, moments)
            go_on(following)
            for _ in self.crash_everywhere(f"{name}, again", following, random):
                pass

    def crash_everywhere(
        self, name: str, history: History, random: Random
    ) -> Iterator[tuple[Image, list[Moment]]]:
        """The good states, each with the moments that it may be of."""
        seen: set[int] = set()
        for length in range(history.start, history.now + 1):
            allowed = history.allowed(length)
            operations = history.recorded.operations[:length]
            for image in crashes(operations, random, self.samples):
                # Those that may be the same are as good.
                mark = hash((tuple(image.items()), len(allowed), allowed[0].began))
                if mark in seen:
                    continue
                seen.add(mark)
                self.states += 1
                try:
                    found = check(image, allowed)
                except Exception as error:
                    self.failures.append(
                        f"{name}, {length} of {history.now}: {error!r}"
                    )
                else:
                    yield image, found


def check(image: Image, allowed: list[Moment]) -> list[Moment]:
    """
    Open a log on C{image}, write to it, and open it again: the moments it may be
    of.
    """
    clock = Clock()
    disk = make_disk(clock, image)
    log = open_log(disk, clock)
    places = [place for place, moment in enumerate(allowed) if moment.is_in(log)]
    assert places, describe(log, allowed)
    assert log.hard_state.commit <= log.last_index(), "committed beyond its end"
    assert not [name for name in disk.list(DIRECTORY) if name.endswith(".new")]
    held, low = content(log), log.last_index() + 1
    state, identity = log.hard_state, log.identity
    # A batch as long as the one that was lost: what stood behind that would
    # follow, if it came back.
    last = allowed[places[-1]]
    lost = allowed[places[-1] + 1] if last is not allowed[-1] else last
    if lost.state != last.state:
        state = HardState(98, 1, state.commit)
    new = [
        Entry(99, index, data=bytes(length))
        for index, length in enumerate(lost.wrote or (30, 30), low)
    ]
    log.append(new, state)
    log.sync()
    clock.advance(0)
    disk.crash()
    log = open_log(disk, clock)
    assert content(log) == held + new, "after going on"
    assert (log.hard_state, log.identity) == (state, identity), "after going on"
    log.close()
    return [evolve(allowed[place], began=-1) for place in places]


@pytest.mark.no_cover  # counting lines nearly trebles what it takes
class EveryCrashTests(SynchronousTestCase):
    """The log after each crash of each history."""

    def setUp(self) -> None:
        self.patch(journal, "HEAD_ROOM", ROOM)
        self.patch(journal, "STATE_ROOM", ROOM)
        self.patch(journal, "SMALL_SEGMENT_BYTES", 2 * ROOM)
        self.patch(journal, "RESERVE_BYTES", 2 * ROOM)

    def search(
        self, histories: dict[str, Callable[[History], None]], least: int
    ) -> None:
        search = Search()
        for name, calls in histories.items():
            search.run(name, calls)
        self.assertEqual(search.failures, [])
        self.assertGreater(search.states, least)

    def test_it_is_what_it_was_at_some_moment(self) -> None:
        self.search(HISTORIES, 40_000)

    def test_after_any_calls(self) -> None:
        self.search({f"calls {seed}": any_calls(seed) for seed in range(1)}, 10_000)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--again", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    case = EveryCrashTests("test_after_any_calls")
    case.setUp()
    search = Search(options.samples, options.again)
    started = time.monotonic()
    calls = {f"calls {seed}": any_calls(seed) for seed in range(options.seeds)}
    for name, history in (HISTORIES | calls).items():
        search.run(name, history)
        print(
            f"{name}: {search.states} states, {len(search.failures)} failures,"
            f" {time.monotonic() - started:.0f} s",
            flush=True,
        )
        for failure in search.failures[:5]:
            print(failure)


if __name__ == "__main__":
    main()
