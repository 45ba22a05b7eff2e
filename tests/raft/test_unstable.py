"""What a member holds that its disk does not yet, and how it is overwritten."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvdb.raft.logger import SilentLogger
from kvdb.raft.messages import Entry
from kvdb.raft.unstable import Unstable


def entries(low: int, high: int, term: int) -> list[Entry]:
    return [Entry(term, index) for index in range(low, high)]


class Overwriting(SynchronousTestCase):
    """Entries from C{first} on take the place of all that stood there."""

    def test_wherever_they_begin(self) -> None:
        for handed_over in (5, 7, 9):
            for first, kept in ((9, 4), (8, 3), (7, 2), (6, 1), (5, 0), (3, 0)):
                unstable = Unstable(5, handed_over, SilentLogger())
                unstable.entries = entries(5, 9, 1)
                unstable.truncate_and_append(entries(first, first + 2, 2))
                expected = entries(5, 5 + kept, 1) + entries(first, first + 2, 2)
                self.assertEqual(unstable.entries, expected)
                self.assertEqual(unstable.offset, min(first, 5))
                # What is written over was not handed over any more.
                waiting = unstable.next_entries()
                self.assertEqual(
                    [entry.index for entry in waiting],
                    list(range(min(handed_over, first), first + 2)),
                )
