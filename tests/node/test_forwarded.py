"""Proposals that a leader takes from other members."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from kvdb.node import forwarded as module
from kvdb.node.forwarded import Forwarded
from kvdb.node.proposals import MAX_PASSED_BYTES
from kvdb.raft.confchange import encode_conf_change
from kvdb.raft.config import ProposalDropped
from kvdb.raft.messages import (
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    Entry,
    EntryType,
)
from kvdb.store.commands import Put
from kvdb.store.encoding import encode_command, encode_member_change, join_commands


def write(number: int) -> Entry:
    command = encode_command(1, number, 5, Put(b"/k", b"v"))
    return Entry(3, 9, data=join_commands([command]))


def change() -> Entry:
    context = encode_member_change(1, 1, 5, 4, "http://h:4", b"")
    single = ConfChangeSingle(ConfChangeType.ADD_LEARNER_NODE, 4)
    data = encode_conf_change(ConfChangeV2((single,), context=context))
    return Entry(0, 0, EntryType.CONF_CHANGE_V2, data)


class ForwardedTests(SynchronousTestCase):
    """See the head of kvdb.node.forwarded."""

    def setUp(self) -> None:
        self.forwarded = Forwarded(10.0)
        self.forwarded.keep(3)
        self.batches: list[list[bytes]] = []

    def propose(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.assertEqual((entry.term, entry.index), (0, 0))
        self.batches.append([entry.data for entry in entries])

    def offer(self) -> None:
        self.forwarded.offer(self.propose)

    def test_commands_are_proposed_at_once_and_changes_alone(self) -> None:
        entries = [write(1), write(2), change(), change(), write(3)]
        self.forwarded.hold(0.0, 2, entries)
        self.offer()
        one, two, third, fourth, five = (entry.data for entry in entries)
        self.assertEqual(self.batches, [[one, two], [third], [fourth], [five]])
        self.assertEqual((len(self.forwarded), self.forwarded.size_bytes), (0, 0))

    def test_what_is_not_taken_now_is_offered_again_in_order(self) -> None:
        entries = [write(1), change(), write(2)]
        self.forwarded.hold(0.0, 2, entries)

        def takes_commands(some: Sequence[Entry]) -> None:
            if some[0].type is not EntryType.NORMAL:
                raise ProposalDropped
            self.propose(some)

        self.forwarded.offer(takes_commands)
        self.assertEqual(self.batches, [[entries[0].data]])
        self.assertEqual(self.forwarded.size_bytes, entries[1].size + entries[2].size)
        self.offer()
        self.assertEqual(self.batches[1:], [[entry.data] for entry in entries[1:]])

    def test_they_are_forgotten_with_the_term_of_their_leader(self) -> None:
        self.forwarded.hold(0.0, 2, [write(1)])
        self.forwarded.keep(3)
        self.assertEqual(len(self.forwarded), 1)
        self.forwarded.keep(4)
        self.offer()
        self.assertEqual(self.batches, [])
        self.assertEqual(self.forwarded.size_bytes, 0)

    def test_none_is_held_longer_than_its_proposer_waits(self) -> None:
        self.forwarded.hold(0.0, 2, [write(1)])
        self.forwarded.hold(1.0, 2, [write(2)])
        self.forwarded.expire(9.9)
        self.assertEqual(len(self.forwarded), 2)
        self.forwarded.expire(10.0)
        self.offer()
        self.assertEqual(self.batches, [[write(2).data]])
        self.assertEqual(self.forwarded.size_bytes, 0)

    def test_there_is_a_bound(self) -> None:
        entry = write(1)
        self.patch(module, "MAX_FORWARDED_BYTES", 2 * entry.size)
        self.forwarded.hold(0.0, 2, [entry] * 3)
        self.assertEqual(len(self.forwarded), 2)
        self.offer()
        self.forwarded.hold(0.0, 2, [entry])
        self.assertEqual(len(self.forwarded), 1)

    def test_each_member_has_a_bound_of_its_own(self) -> None:
        entry = write(1)
        self.patch(module, "MAX_FORWARDED_BYTES", 2 * entry.size)
        self.forwarded.hold(0.0, 2, [entry] * 3)
        self.forwarded.hold(1.0, 3, [entry] * 3)
        self.assertEqual(len(self.forwarded), 4)
        self.forwarded.expire(10.0)
        self.assertEqual(len(self.forwarded), 2)
        self.forwarded.hold(10.0, 2, [entry])
        self.forwarded.hold(10.0, 3, [entry])
        self.assertEqual(len(self.forwarded), 3)

    def test_what_is_not_taken_counts_for_its_member_again(self) -> None:
        entry = write(1)
        self.patch(module, "MAX_FORWARDED_BYTES", 2 * entry.size)
        self.forwarded.hold(0.0, 2, [entry] * 2)

        def refuse(some: Sequence[Entry]) -> None:
            raise ProposalDropped

        self.forwarded.offer(refuse)
        self.forwarded.hold(0.0, 2, [entry])
        self.assertEqual(len(self.forwarded), 2)

    def test_an_entry_of_any_size_is_held_alone(self) -> None:
        entry = write(1)
        self.patch(module, "MAX_FORWARDED_BYTES", 1)
        self.forwarded.hold(0.0, 2, [entry, entry])
        self.assertEqual(len(self.forwarded), 1)

    def test_what_a_member_passes_on_at_a_time_is_held(self) -> None:
        self.assertLessEqual(2 * MAX_PASSED_BYTES, module.MAX_FORWARDED_BYTES)

    def test_what_cannot_be_read_is_dropped_and_the_rest_is_not(self) -> None:
        unknown = Entry(0, 0, data=b"\xff" * 9)
        no_change = Entry(0, 0, EntryType.CONF_CHANGE_V2, b"\xff")
        self.forwarded.hold(0.0, 2, [unknown, no_change, write(1)])
        self.offer()
        self.assertEqual(self.batches, [[write(1).data]])
