"""
The Raft paper (Ongaro and Ousterhout, 2014, extended version), section by
section, and what of Ongaro's thesis the core has beyond it.
"""

from __future__ import annotations

import random
from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from kvdb.raft.confchange import encode_conf_change
from kvdb.raft.config import Config, ProposalDropped
from kvdb.raft.memory import MemoryLog
from kvdb.raft.messages import (
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    ReadState,
    Role,
    Snapshot,
)
from kvdb.raft.rawnode import RawNode
from tests.raft.group import ELECTION_TICKS, Group, append


def sent(group: Group, node: int) -> list[Message]:
    """What a member sends now; its Readys are carried out, nothing arrives."""
    while group.carry_out(node):
        pass
    messages, group.in_flight = group.in_flight, []
    return messages


class Section51Terms(SynchronousTestCase):
    """5.1: terms act as a logical clock."""

    def test_anybody_with_a_lower_term_becomes_follower_of_the_higher(self) -> None:
        for role in (Role.FOLLOWER, Role.CANDIDATE, Role.LEADER):
            group = Group(3, pre_vote=False, check_quorum=False)
            raft = group.up[2]
            if role is not Role.FOLLOWER:
                raft.campaign()
                group.carry_out(2)
            if role is Role.LEADER:
                group.settle()
            self.assertIs(raft.core.role, role)
            term = raft.core.term + 5
            raft.step(Message(MessageType.APP, from_=1, term=term))
            self.assertIs(raft.core.role, Role.FOLLOWER)
            self.assertEqual((raft.core.term, raft.core.leader), (term, 1))

    def test_a_stale_request_changes_nothing(self) -> None:
        group = Group(3, pre_vote=False, check_quorum=False)
        group.elect(1)
        group.elect(3)
        before = group.log(2)
        term = group.up[2].core.term
        self.assertGreater(term, 1)  # a message of term 0 is a local one
        group.up[2].step(append(term - 1, (1, 1), [1]))
        self.assertEqual(group.log(2), before)
        self.assertEqual(group.up[2].core.term, term)

    def test_terms_never_go_back_over_a_restart(self) -> None:
        group = Group(3)
        group.elect(1)
        term = group.up[1].core.term
        group.stop(1)
        group.start(1)
        self.assertEqual(group.up[1].core.term, term)


class Section52Elections(SynchronousTestCase):
    """5.2: at most one leader per term, and soon one."""

    def test_members_start_as_followers(self) -> None:
        group = Group(3)
        self.assertEqual(group.leaders(), [])
        self.assertEqual({r.core.role for r in group.up.values()}, {Role.FOLLOWER})

    def test_a_leader_sends_heartbeats_that_keep_others_from_campaigning(self) -> None:
        group = Group(3)
        leader = group.elect(1)
        term = group.up[leader].core.term
        group.tick(20 * ELECTION_TICKS)
        self.assertEqual(group.leaders(), [leader])
        self.assertEqual(group.up[leader].core.term, term)

    def test_without_a_leader_somebody_is_elected(self) -> None:
        for seed in range(20):
            group = Group(5, seed)
            leader = group.elect()
            group.stop(leader)
            group.tick(3 * ELECTION_TICKS)
            self.assertEqual(len(group.leaders()), 1, f"seed {seed}")

    def test_a_candidate_votes_for_itself_and_asks_all_others(self) -> None:
        group = Group(3, pre_vote=False)
        group.up[1].campaign()
        messages = sent(group, 1)
        self.assertEqual(
            [(m.type, m.to, m.term) for m in messages],
            [(MessageType.VOTE, 2, 1), (MessageType.VOTE, 3, 1)],
        )
        self.assertEqual(group.disks[1].hard_state, HardState(1, 1, 1))

    def test_one_vote_per_term_first_come_first_served(self) -> None:
        group = Group(3, pre_vote=False)
        for candidate in (1, 3, 1):
            group.up[2].step(
                Message(MessageType.VOTE, from_=candidate, term=1, index=1, log_term=1)
            )
        self.assertEqual(
            [(m.to, m.reject) for m in sent(group, 2)],
            [(1, False), (3, True), (1, False)],
        )

    def test_a_vote_is_stored_before_it_is_sent_and_kept_over_a_restart(self) -> None:
        group = Group(3, pre_vote=False)
        request = Message(MessageType.VOTE, from_=1, term=1, index=1, log_term=1)
        group.up[2].step(request)
        ready = group.up[2].ready()
        assert ready.hard_state is not None
        self.assertEqual(ready.hard_state, HardState(1, 1, 1))
        self.assertTrue(ready.must_sync)
        group.disks[2].set_hard_state(ready.hard_state)
        group.stop(2)
        group.start(2)
        group.up[2].step(
            Message(MessageType.VOTE, from_=3, term=1, index=1, log_term=1)
        )
        self.assertEqual([m.reject for m in sent(group, 2)], [True])

    def test_election_timeouts_are_drawn_between_one_and_two(self) -> None:
        group = Group(1)
        core = group.up[1].core
        drawn = set()
        for _ in range(500):
            core.reset_election_timeout()
            drawn.add(core.randomized_election_timeout)
        self.assertEqual(drawn, set(range(ELECTION_TICKS, 2 * ELECTION_TICKS)))

    def test_split_votes_are_resolved(self) -> None:
        group = Group(4, pre_vote=False)
        for node in (1, 2, 3, 4):
            group.up[node].campaign()
        group.settle()
        self.assertEqual(group.leaders(), [])
        group.elect()
        self.assertEqual(len(group.leaders()), 1)


class Section53Replication(SynchronousTestCase):
    """5.3: the leader's log becomes everybody's."""

    def test_an_entry_is_committed_once_a_majority_holds_it(self) -> None:
        group = Group(5)
        group.elect(1)
        group.isolate(1, 2)
        group.propose(1, b"a")
        self.assertEqual(group.applied[1], [])
        group.cut.clear()
        group.isolate(1, 2, 3)
        group.tick(2)
        self.assertEqual(group.applied[1], [b"a"])
        self.assertEqual(group.applied[4], [])

    def test_a_leader_counts_its_own_entry_only_once_it_is_durable(self) -> None:
        group = Group(1)
        group.elect(1)
        raft = group.up[1]
        raft.propose([b"a"])
        ready = raft.ready()
        self.assertEqual([e.data for e in ready.entries], [b"a"])
        self.assertEqual(list(ready.committed_entries), [])
        group.disks[1].append(ready.entries)
        raft.advance()
        self.assertEqual([e.data for e in raft.ready().committed_entries], [b"a"])

    def test_followers_apply_what_the_leader_committed_in_its_order(self) -> None:
        group = Group(3)
        group.elect(2)
        for number in range(10):
            group.propose(1 + number % 3, b"%d" % number)
        group.tick()
        wanted = [b"%d" % number for number in range(10)]
        self.assertEqual(group.applied, {1: wanted, 2: wanted, 3: wanted})

    def test_figure_7_every_follower_is_brought_to_the_leaders_log(self) -> None:
        leader_terms = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6]
        followers = {
            "a, an entry missing": leader_terms[:9],
            "b, many missing": leader_terms[:4],
            "c, one too many": [*leader_terms, 6],
            "d, of a later term": [*leader_terms, 7, 7],
            "e, of an earlier term": [1, 1, 1, 4, 4, 4, 4],
            "f, of two earlier terms": [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
        }
        for name, terms in followers.items():
            group = Group(3, pre_vote=False, check_quorum=False)
            for node, own in ((1, leader_terms), (2, terms), (3, leader_terms)):
                message = append(max(own), (1, 1), own)
                message.to = node
                message.from_ = 1 if node != 1 else 3
                group.up[node].step(message)
            group.settle()
            group.up[1].step(Message(MessageType.HEARTBEAT, from_=3, term=7))
            group.elect(1)
            group.tick(2)
            with self.subTest(name):
                self.assertEqual(group.log(2), group.log(1))
                self.assertEqual(
                    [term for _, term, _ in group.log(1)][:10], leader_terms
                )

    def test_entries_already_there_are_not_taken_for_conflicts(self) -> None:
        group = Group(3, pre_vote=False, check_quorum=False)
        group.up[2].step(append(2, (1, 1), [2, 2, 2]))
        group.carry_out(2)
        group.up[2].step(append(2, (1, 1), [2]))
        self.assertEqual(len(group.log(2)), 3)

    def test_a_retried_append_is_answered_alike(self) -> None:
        group = Group(3, pre_vote=False, check_quorum=False)
        for _ in range(2):
            group.up[2].step(append(2, (1, 1), [2, 2], commit=3))
            answers = sent(group, 2)
            self.assertEqual([(m.index, m.reject) for m in answers], [(3, False)])


class Section54Safety(SynchronousTestCase):
    """5.4: what is committed stays."""

    def test_a_member_with_a_lesser_log_is_not_elected(self) -> None:
        group = Group(3, pre_vote=False, check_quorum=False)
        group.elect(1)
        group.isolate(3)
        group.propose(1, b"a")
        group.cut.clear()
        group.stop(1)
        group.up[3].campaign()
        group.settle()
        self.assertEqual(group.leaders(), [])
        group.up[2].campaign()
        group.settle()
        self.assertEqual(group.leaders(), [2])
        self.assertIn(b"a", [data for _, _, data in group.log(3)])

    def test_figure_8_an_old_terms_entry_is_not_committed_by_counting(self) -> None:
        group = Group(5, pre_vote=False, check_quorum=False)
        # (a) S1 leads term 2 and replicates the entry at index 2 to S2 only.
        group.up[1].step(Message(MessageType.HEARTBEAT, from_=5, term=1))
        group.isolate(1, 2)
        group.cut -= {(n, 1) for n in group.ids} | {(1, n) for n in group.ids}
        group.lose = lambda m: m.type is MessageType.APP and m.to != 2
        group.elect(1)
        self.assertEqual(group.up[1].core.term, 2)
        # (b) S5 is elected for term 3 by S3 and S4, and appends for itself.
        group.stop(1)
        group.cut.clear()
        group.lose = lambda m: m.type is MessageType.APP
        group.up[5].step(Message(MessageType.HEARTBEAT, from_=4, term=2))
        group.cut = {(5, 2), (2, 5)}
        group.elect(5)
        group.stop(5)
        # (c) S1 is back and leads term 4; its old entry reaches a majority.
        group.cut.clear()
        group.start(1)
        group.up[1].step(Message(MessageType.HEARTBEAT, from_=3, term=3))
        group.lose = lambda m: any(e.term == 4 for e in m.entries)
        group.elect(1)
        self.assertEqual(group.up[1].core.term, 4)
        # As a leader would that has a bound on its messages: the entry of
        # term 2 alone.
        old = group.up[1].core.log.slice(2, 3, 2**63)
        for node in (2, 3):
            group.up[node].step(
                Message(
                    MessageType.APP,
                    from_=1,
                    to=node,
                    term=4,
                    index=1,
                    log_term=1,
                    entries=old,
                )
            )
        group.settle()
        held = [n for n in (1, 2, 3) if group.log(n)[0][:2] == (2, 2)]
        self.assertEqual(held, [1, 2, 3])
        self.assertEqual(group.up[1].core.log.committed, 1)
        # (e) Once an entry of its own term is there too, both are committed.
        group.lose = lambda m: False
        group.tick(3)
        self.assertGreaterEqual(group.up[1].core.log.committed, 3)

    def test_commit_and_logs_agree_under_random_faults(self) -> None:
        committed = elections = 0
        for seed in range(20):
            with self.subTest(seed=seed):
                run = RandomFaults(self, seed)
                run.run(800)
                committed += len(run.committed)
                elections += len(run.leader_of)
        # Else nothing much was put to the test.
        self.assertGreater(committed, 500)
        self.assertGreater(elections, 37)


class RandomFaults:
    """Elections, losses, cuts and restarts from a seed; figure 3's properties
    after each step."""

    def __init__(self, case: SynchronousTestCase, seed: int) -> None:
        self.case = case
        self.random = random.Random(seed)
        self.group = Group(
            self.random.choice((3, 5)),
            seed,
            pre_vote=self.random.random() < 0.7,
            check_quorum=self.random.random() < 0.7,
        )
        self.leader_of: dict[int, int] = {}
        self.committed: dict[int, tuple[int, bytes]] = {}
        self.proposed = 0

    def run(self, steps: int) -> None:
        group = self.group
        rate = self.random.choice((0.0, 0.05, 0.3))
        group.lose = lambda message: self.random.random() < rate
        for _ in range(steps):
            self.step()
            self.check()
        group.lose = lambda message: False
        group.cut.clear()
        for node in group.ids:
            if node not in group.up:
                group.start(node)
        leader = group.elect()
        group.tick(4 * ELECTION_TICKS)
        leader = group.elect()
        group.propose(leader, b"last")
        group.tick(2)
        self.check()
        logs = [group.log(node) for node in group.ids]
        self.case.assertTrue(all(log == logs[0] for log in logs))

    def step(self) -> None:
        group = self.group
        node = self.random.choice(list(group.ids))
        dice = self.random.random()
        if dice < 0.01 and node in group.up and len(group.up) > 1:
            group.stop(node)
        elif dice < 0.05 and node not in group.up:
            group.start(node)
        elif dice < 0.06:
            group.isolate(node)
        elif dice < 0.11:
            group.cut.clear()
        elif dice < 0.30 and node in group.up:
            group.up[node].tick()
        elif dice < 0.45 and group.leaders():
            self.proposed += 1
            try:
                group.up[group.leaders()[0]].propose([b"%d" % self.proposed])
            except ProposalDropped:
                pass
        elif dice < 0.75 and node in group.up:
            group.carry_out(node)
        elif dice < 0.95:
            group.deliver()
        else:
            group.tick()

    def check(self) -> None:
        group = self.group
        logs = {node: group.log(node) for node in group.up}
        for node, raft in group.up.items():
            core = raft.core
            if core.role is Role.LEADER:
                # Election safety.
                first = self.leader_of.setdefault(core.term, node)
                self.case.assertEqual(first, node, f"two leaders in term {core.term}")
            for index, term, data in logs[node]:
                if index <= core.log.committed:
                    # Leader completeness and state machine safety, in one: what
                    # was ever committed at an index is what is there.
                    entry = (term, data)
                    self.case.assertEqual(
                        self.committed.setdefault(index, entry), entry
                    )
        # Log matching.
        for one, other in pairwise(logs.values()):
            shared = {entry[:2] for entry in one} & {entry[:2] for entry in other}
            if shared:
                last = max(shared)[0]
                self.case.assertEqual(
                    [e for e in one if e[0] <= last], [e for e in other if e[0] <= last]
                )


class Thesis(SynchronousTestCase):
    """What the core has beyond the paper."""

    def test_3_10_leadership_is_handed_over_within_a_round_trip(self) -> None:
        group = Group(3)
        group.elect(1)
        group.up[1].transfer_leadership(3)
        group.settle()
        self.assertEqual(group.leaders(), [3])

    def test_3_10_a_handover_that_fails_ends_after_an_election_timeout(self) -> None:
        group = Group(3)
        group.elect(1)
        group.isolate(3)
        group.up[1].transfer_leadership(3)
        self.assertRaises(ProposalDropped, group.up[1].propose, [b"a"])
        group.tick(ELECTION_TICKS)
        group.propose(1, b"b")
        self.assertEqual(group.applied[1], [b"b"])

    def test_6_4_a_read_needs_a_quorum_that_still_follows(self) -> None:
        group = Group(3)
        group.elect(1)
        group.isolate(1)
        group.up[1].read_index(b"one")
        for _ in range(3):
            ready = group.up[1].ready() if group.up[1].has_ready() else None
            if ready is not None:
                self.assertEqual(list(ready.read_states), [])
                group.in_flight.extend(ready.messages)
                group.up[1].advance()
            group.deliver()
        group.cut.clear()
        group.up[1].tick()
        states: list[ReadState] = []
        for _ in range(4):
            for node in group.ids:
                if group.up[node].has_ready():
                    ready = group.up[node].ready()
                    states += ready.read_states
                    group.in_flight.extend(ready.messages)
                    group.up[node].advance()
            group.deliver()
        self.assertEqual([state.context for state in states], [b"one"])
        self.assertEqual(states[0].index, group.up[1].core.log.committed)

    def test_6_4_of_five_two_are_no_quorum_for_a_read(self) -> None:
        group = Group(5)
        group.elect(1)
        group.isolate(1, 2)
        raft = group.up[1]
        raft.read_index(b"one")
        states: list[ReadState] = []
        for _ in range(4):
            for node in (1, 2):
                if group.up[node].has_ready():
                    ready = group.up[node].ready()
                    states += ready.read_states
                    group.in_flight.extend(ready.messages)
                    group.up[node].advance()
            group.deliver()
        self.assertEqual(states, [])
        self.assertEqual(len(raft.core.read_only.pending[b"one"].acks), 2)

    def test_6_2_a_leader_that_hears_no_quorum_steps_down(self) -> None:
        group = Group(3)
        group.elect(1)
        group.isolate(1)
        group.tick(2 * ELECTION_TICKS)
        self.assertIs(group.up[1].core.role, Role.FOLLOWER)

    def test_9_6_a_member_that_was_cut_off_does_not_disturb_the_others(self) -> None:
        group = Group(3)
        group.elect(1)
        group.isolate(3)
        group.tick(10 * ELECTION_TICKS)
        term = group.up[1].core.term
        self.assertEqual(group.up[3].core.term, term)
        group.cut.clear()
        group.tick(3 * ELECTION_TICKS)
        self.assertEqual(group.leaders(), [1])
        self.assertEqual(group.up[1].core.term, term)

    def test_a_leader_whose_disk_hangs_can_step_down(self) -> None:
        group = Group(3)
        group.elect(1)
        group.up[1].step_down()
        self.assertEqual(group.leaders(), [])
        group.elect()
        self.assertEqual(len(group.leaders()), 1)


class UnappliedMembership(SynchronousTestCase):
    """A membership that is committed and not yet in force."""

    def test_nobody_campaigns_by_the_old_one(self) -> None:
        change = ConfChangeV2((ConfChangeSingle(ConfChangeType.ADD_NODE, 4),))
        data = encode_conf_change(change)
        for last, campaigns in (
            (Entry(1, 2, EntryType.CONF_CHANGE_V2, data), False),
            (Entry(1, 2), True),
        ):
            log = MemoryLog()
            log.apply_snapshot(Snapshot(1, 1, ConfState((1, 2, 3))))
            log.append([last])
            log.set_hard_state(HardState(1, 0, 2))
            config = Config(
                id=1,
                random=random.Random(1),
                election_tick=3,
                heartbeat_tick=1,
                max_size_per_msg=1000,
                max_inflight_msgs=10,
                applied=1,
            )
            raft = RawNode(config, log)
            raft.campaign()
            self.assertEqual(raft.core.role is Role.CANDIDATE, campaigns)

    def test_a_new_leader_takes_no_change_before_those_in_its_log(self) -> None:
        def change(node: int) -> Entry:
            single = ConfChangeSingle(ConfChangeType.ADD_LEARNER_NODE, node)
            data = encode_conf_change(ConfChangeV2((single,)))
            return Entry(0, 0, EntryType.CONF_CHANGE_V2, data)

        group = Group(3, pre_vote=False, check_quorum=False)
        group.elect(1)
        two = group.up[2]
        term, last = two.core.term, two.core.log.last_index()
        sent_on = append(term, (last, term), [term])
        sent_on.entries[0].type = EntryType.CONF_CHANGE_V2
        sent_on.entries[0].data = change(4).data
        two.step(sent_on)
        group.carry_out(2)
        # Elected by its own vote and member 3's; nothing more arrives.
        two.campaign()
        group.carry_out(2)
        two.step(Message(MessageType.VOTE_RESP, 2, 3, term=two.core.term))
        group.carry_out(2)
        self.assertIs(two.core.role, Role.LEADER)
        two.propose_entries([change(5)])
        log = two.core.log
        kinds = [log.slice(i, i + 1, 1)[0].type for i in range(last + 1, last + 4)]
        waits = [EntryType.CONF_CHANGE_V2, EntryType.NORMAL, EntryType.NORMAL]
        self.assertEqual(kinds, waits)


class Figure2AppendEntries5(SynchronousTestCase):
    """A follower commits no further than the entries it was sent."""

    def test_what_was_not_compared_is_not_committed(self) -> None:
        group = Group(3)
        group.elect(1)
        raft = group.up[2]
        term, last = raft.core.term, raft.core.log.last_index()
        # Of a leader that has fallen since: nobody else has them.
        raft.step(append(term, (last, term), [term, term, term]))
        self.assertEqual(raft.core.log.last_index(), last + 3)
        raft.step(
            Message(
                MessageType.APP,
                from_=3,
                term=term + 1,
                index=last,
                log_term=term,
                commit=last + 3,
            )
        )
        self.assertEqual(raft.core.log.committed, last)
