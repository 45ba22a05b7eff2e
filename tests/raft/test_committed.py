"""
A leader that contradicts what is committed, and a follower that holds more than its
leader: what cannot be while every member keeps what it acknowledged.
"""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from kvdb.raft.core import Config
from kvdb.raft.log import AcknowledgedLost, CommittedConflict
from kvdb.raft.memory import MemoryLog
from kvdb.raft.messages import (
    ConfState,
    Entry,
    HardState,
    Message,
    MessageType,
    Role,
    Snapshot,
)
from kvdb.raft.rawnode import RawNode

VOTERS = ConfState((1, 2, 3))
TERMS = (2, 2, 3, 3, 3)
"""Of the entries from index 6 on."""

COMMITTED = 9


def member(compacted: int = 5) -> RawNode:
    """
    Member 1: a log from 6 to 10 behind a snapshot of term 1 at 5, committed to 9.

    @param compacted: where its log begins.
    """
    log = MemoryLog()
    log.apply_snapshot(Snapshot(5, 1, VOTERS))
    log.append([Entry(term, 6 + at) for at, term in enumerate(TERMS)])
    log.set_hard_state(HardState(3, 0, COMMITTED))
    node = RawNode(
        Config(
            id=1,
            election_tick=10,
            heartbeat_tick=1,
            random=random.Random(1),
            applied=COMMITTED,
        ),
        log,
    )
    if compacted > 5:
        log.compact(compacted)
    return node


def append(index: int, term: int, *terms: int, commit: int = 0) -> Message:
    """What member 2 sends as leader of term 9."""
    entries = [Entry(term, index + 1 + at) for at, term in enumerate(terms)]
    return Message(
        MessageType.APP, 1, 2, 9, term, index, entries=entries, commit=commit
    )


class Contradictions(SynchronousTestCase):
    """What a follower hears from a leader that lacks what is committed."""

    def refused(self, node: RawNode, message: Message, pattern: str) -> None:
        """C{message} is not answered, and changes nothing."""
        with self.assertRaisesRegex(CommittedConflict, pattern):
            node.step(message)
        log = node.core.log
        self.assertEqual((log.committed, log.last_index()), (COMMITTED, 10))
        answers = [m for m in node.core.messages_after_append if m.from_ == 1]
        self.assertEqual(answers, [])

    def test_another_term_before_the_entries(self) -> None:
        for index, term in ((6, 1), (8, 2), (8, 4), (9, 2)):
            self.refused(member(), append(index, term), f"index {index} is committed")

    def test_another_term_among_the_entries(self) -> None:
        self.refused(member(), append(6, 2, 2, 9), "term 9 at index 8")
        self.refused(member(), append(8, 3, 9), "term 9 at index 9")

    def test_a_new_leader_s_first_entry_in_a_committed_place(self) -> None:
        self.refused(member(), append(5, 1, 9), "term 9 at index 6")

    def test_another_entry_of_the_same_term(self) -> None:
        # Also where it is not known to be committed.
        for index, term, at in ((6, 2, 8), (8, 3, 9), (9, 3, 10)):
            message = append(index, term, *TERMS[index - 5 :])
            message.entries[at - index - 1].data = b"another"
            pattern = f"another entry of term 3 at index {at}"
            self.refused(member(), message, pattern)

    def test_a_later_term_where_the_entries_are_compacted(self) -> None:
        self.refused(member(8), append(5, 1, 9), "term 9 at index 6.*index 8")

    def test_an_earlier_term_behind_what_is_committed(self) -> None:
        self.refused(member(), append(12, 2), "term 2 at index 12.*index 9")

    def test_snapshots(self) -> None:
        for index, term in ((8, 9), (12, 2)):
            snapshot = Snapshot(index, term, VOTERS)
            message = Message(MessageType.SNAP, 1, 2, 9, snapshot=snapshot)
            self.refused(member(), message, f"term {term} at index {index}")

    def test_a_heartbeat_that_counts_on_what_was_forgotten(self) -> None:
        node = member()
        with self.assertRaisesRegex(AcknowledgedLost, "tocommit.11. is out of range"):
            node.step(Message(MessageType.HEARTBEAT, 1, 2, 9, commit=11))
        self.assertEqual(node.core.log.committed, COMMITTED)


class Repetitions(SynchronousTestCase):
    """What is late or sent twice is answered as before."""

    def answers(self, node: RawNode, message: Message) -> list[tuple[int, bool]]:
        """Index and refusal of what is answered."""
        node.step(message)
        return [
            (m.index, m.reject)
            for m in node.core.messages_after_append
            if m.type is MessageType.APP_RESP
        ]

    def test_what_is_committed_is_taken_by_its_number(self) -> None:
        for index, term, *terms in ((5, 1, 2, 2, 3), (7, 2), (7, 2, 3, 3, 9)):
            message = append(index, term, *terms)
            self.assertEqual(self.answers(member(), message), [(COMMITTED, False)])

    def test_what_is_compacted_too(self) -> None:
        message = append(5, 1, 2, 2, 3)
        self.assertEqual(self.answers(member(8), message), [(COMMITTED, False)])

    def test_an_older_snapshot_too(self) -> None:
        for node in (member(), member(8)):
            message = Message(
                MessageType.SNAP, 1, 2, 9, snapshot=Snapshot(7, 2, VOTERS)
            )
            self.assertEqual(self.answers(node, message), [(COMMITTED, False)])

    def test_an_uncommitted_entry_is_replaced(self) -> None:
        self.assertEqual(self.answers(member(), append(9, 3, 9)), [(10, False)])

    def test_a_gap_is_refused(self) -> None:
        self.assertEqual(self.answers(member(), append(12, 4)), [(12, True)])


class Leaders(SynchronousTestCase):
    """What a leader believes of its followers."""

    def test_an_index_beyond_its_log_is_not_believed(self) -> None:
        node = member()
        core = node.core
        disk = core.log.storage
        assert isinstance(disk, MemoryLog)
        node.campaign()
        node.step(Message(MessageType.VOTE_RESP, 1, 2, core.term))
        while node.has_ready():
            disk.append(node.ready().entries)
            node.advance()
        self.assertIs(core.role, Role.LEADER)
        last = core.log.last_index()
        self.assertEqual((last, disk.last_index()), (11, 11))
        for peer in (2, 3):
            answer = Message(MessageType.APP_RESP, 1, peer, core.term, index=last + 1)
            node.step(answer)
            self.assertEqual(core.tracker.progress[peer].match, 0)
        self.assertLess(core.log.committed, last)
        node.step(Message(MessageType.APP_RESP, 1, 2, core.term, index=last))
        self.assertEqual(core.tracker.progress[2].match, last)
