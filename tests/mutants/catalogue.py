"""
The bugs.

Rules: each is one that a tired person could write; its text stands exactly once
in its file; the seed or the tests on record find it within a minute.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen


@frozen(slots=True)
class Mutant:
    """
    @ivar file: below C{kvdb/}.
    @ivar before: what stands there.
    @ivar after: what the bug is.
    @ivar seed: of a simulation that finds it; None where none is known.
    @ivar tests: what else finds it.
    """

    name: str
    file: str
    before: str
    after: str
    seed: int | None = None
    tests: str = ""


MUTANTS: Final = (
    # Elections.
    Mutant(
        "a vote is counted twice",
        "raft/quorum.py",
        "    granted = sum(1 for voter in voters if votes.get(voter) is True)\n",
        "    granted = sum(2 for voter in voters if votes.get(voter) is True)\n",
        seed=1,
    ),
    Mutant(
        "half of the votes are enough",
        "raft/quorum.py",
        "    majority = len(voters) // 2 + 1\n",
        "    majority = (len(voters) + 1) // 2\n",
        seed=4,
    ),
    Mutant(
        "a member votes again in the same term",
        "raft/election.py",
        "        or (raft.vote == NO_NODE and raft.leader == NO_NODE)\n",
        "        or raft.leader == NO_NODE\n",
        seed=11,
    ),
    Mutant(
        "a vote is not remembered",
        "raft/election.py",
        "            raft.vote = message.from_\n",
        "",
        seed=1,
    ),
    Mutant(
        "a candidate leads before its own vote is durable",
        "raft/candidate.py",
        "        elif raft.id in raft.tracker.votes:\n",
        "        else:\n",
        seed=25,
    ),
    Mutant(
        "what is committed is held against a leader's log by number alone",
        "raft/follower.py",
        "        for entry in repeated:\n"
        "            log.check_committed(entry.index, entry.term)\n"
        "        log.check_held(repeated)\n",
        "",
        tests="tests/raft/test_committed.py",
    ),
    Mutant(
        "a leader believes an index beyond its log",
        "raft/leader.py",
        "    elif message.index > raft.log.last_index():\n",
        "    elif message.index > raft.log.last_index() + 9:\n",
        tests="tests/raft/test_committed.py",
    ),
    Mutant(
        "a start is known by its number alone",
        "storage/starts.py",
        "        return back >= len(self.ids) or self.ids[-1 - back] == start.id\n",
        "        return True\n",
        seed=110,
    ),
    Mutant(
        "the starts of peers are not made durable",
        "node/peer_starts.py",
        "        self.known[peer.node_id] = start\n        self._write()\n",
        "        self.known[peer.node_id] = start\n",
        tests="tests/node/test_peer_starts.py",
    ),
    Mutant(
        "logs are compared by length alone",
        "raft/log.py",
        "        return last_term > own_term or (\n"
        "            last_term == own_term and last_index >= self.last_index()\n"
        "        )\n",
        "        return last_index >= self.last_index() or last_term > own_term + 9\n",
        tests="tests/raft",
    ),
    Mutant(
        "votes are given whatever the log",
        "raft/election.py",
        "    if can_vote and raft.log.is_up_to_date(message.index, message.log_term):\n",
        "    if can_vote:\n",
        seed=2,
    ),
    Mutant(
        "a vote of an earlier term stays in the next",
        "raft/state.py",
        "            self.term = term\n            self.vote = NO_NODE\n",
        "            self.term = term\n",
        seed=1,
    ),
    Mutant(
        "a leader that lost its quorum stays",
        "raft/leader.py",
        "        raft.become_follower(raft.term, NO_NODE)\n    for node",
        "        pass\n    for node",
        tests="tests/raft",
    ),
    Mutant(
        "who still hears a leader votes for another",
        "raft/election.py",
        "    if message.context == TRANSFER_CONTEXT or not raft.in_lease:\n",
        "    if True:\n",
        tests="tests/raft",
    ),
    Mutant(
        "a campaign in spite of an unapplied membership change",
        "raft/election.py",
        "    if _has_unapplied_conf_change(raft):\n",
        "    if False:\n",
        tests="tests/raft",
    ),
    # Replication and commit.
    Mutant(
        "committed before the quorum has it",
        "raft/quorum.py",
        "    return held[count - (count // 2 + 1)]\n",
        "    return held[count - count // 2 if count > 1 else 0]\n",
        seed=1,
    ),
    Mutant(
        "an old term's entry is committed by counting",
        "raft/log.py",
        "        if index > self.committed and term != 0 and self.matches(index, term):\n",
        "        if index > self.committed and term != 0:\n",
        tests="tests/raft",
    ),
    Mutant(
        "entries are taken wherever they fit",
        "raft/log.py",
        "        if not self.matches(prev_index, prev_term):\n",
        "        if prev_index > self.last_index():\n",
        tests="tests/raft",
    ),
    Mutant(
        "truncation is off by one",
        "raft/unstable.py",
        "            self.entries = [*self.entries[: first - self.offset], *entries]\n",
        "            self.entries = [*self.entries[: first - self.offset + 1], *entries]\n",
        tests="tests/raft",
    ),
    Mutant(
        "a follower commits what it did not compare",
        "raft/log.py",
        "        self.commit_to(min(commit, last_new))\n",
        "        self.commit_to(min(commit, self.last_index()))\n",
        tests="tests/raft",
    ),
    Mutant(
        "a heartbeat commits what the follower may not have",
        "raft/replication.py",
        "        commit = min(progress.match, raft.log.committed)\n",
        "        commit = raft.log.committed\n",
        seed=1,
    ),
    Mutant(
        "a conflict is not looked for",
        "raft/log.py",
        "            if not self.matches(entry.index, entry.term):\n",
        "            if entry.index > last:\n",
        seed=1,
    ),
    Mutant(
        "acknowledged before it is durable",
        "raft/state.py",
        "        if kind in _AFTER_APPEND:\n",
        "        if kind in _AFTER_APPEND and message.to == self.id:\n",
        seed=3,
    ),
    Mutant(
        "an older snapshot takes the place of a newer log",
        "raft/follower.py",
        "    if snapshot.index <= log.committed:\n",
        "    if snapshot.index < 0:\n",
        tests="tests/raft tests/node",
    ),
    # Reads.
    Mutant(
        "a read without the quorum's word",
        "raft/leader.py",
        "    alone = raft.tracker.is_singleton\n",
        "    alone = True\n",
        seed=48,
    ),
    Mutant(
        "a read before the leader's first commit",
        "raft/leader.py",
        "    if not raft.log.matches(raft.log.committed, raft.term):\n",
        "    if raft.log.committed == 0:\n",
        seed=85,
    ),
    Mutant(
        "one answer confirms a read",
        "raft/leader.py",
        "    if raft.tracker.vote_result(acks) is not VoteResult.WON:\n",
        "    if raft.tracker.vote_result(acks) is VoteResult.LOST:\n",
        tests="tests/raft",
    ),
    Mutant(
        "a read does not wait until all is applied",
        "node/reads.py",
        "            if needed <= index:\n",
        "            if needed <= index + 1000:\n",
        seed=2,
    ),
    Mutant(
        "a late reader joins a round that has asked",
        "node/reads.py",
        "        self._gathering.append((now + self.timeout, caller))\n",
        "        asked = list(self._asked.values())\n"
        "        group = asked[-1].readers if asked else self._gathering\n"
        "        group.append((now + self.timeout, caller))\n",
        tests="tests/node",
    ),
    Mutant(
        "reads are stale unless asked otherwise",
        "rest/keys.py",
        "        if linearizable:\n",
        "        if linearizable and call.args:\n",
        seed=1,
    ),
    # Membership.
    Mutant(
        "a learner is made a voter at once",
        "store/membership.py",
        "            if behind > CAUGHT_UP_ENTRIES:\n",
        "            if behind > index:\n",
        tests="tests/store",
    ),
    Mutant(
        "what was reached is not judged again when a change is applied",
        "store/membership.py",
        "    if can_commit(voters, judged.reached):\n",
        "    if can_commit(voters, voters):\n",
        tests="tests/node/test_changes.py",
    ),
    Mutant(
        "a removal is judged on the voters that there are, with the one that goes",
        "store/membership.py",
        "        return None if left == voters else _without_quorum(left, record.judged)\n",
        "        return None if left == voters else _without_quorum(voters, record.judged)\n",
        tests="tests/store tests/node/test_changes.py",
    ),
    Mutant(
        "a change is proposed as it was judged when it was queued",
        "node/proposals.py",
        "            one.data = renew()\n",
        "            one.data = one.data or renew()\n",
        tests="tests/node",
    ),
    Mutant(
        "an entry that an earlier release cannot read is made while one runs",
        "node/changes.py",
        "        return any(v < JUDGED_VERSION for v in self.network.versions().values())\n",
        "        return all(v < JUDGED_VERSION for v in self.network.versions().values())\n",
        tests="tests/node",
    ),
    Mutant(
        "a change is judged before it is queued, and never again",
        "node/changes.py",
        "            judged = None if self._earlier_release() else self._judged(match)\n",
        "            judged = None\n",
        seed=240,
    ),
    Mutant(
        "the reason of a refusal is hashed",
        "store/store.py",
        "    return _OUTCOME.pack(outcome.status, outcome.revision)\n",
        "    return _OUTCOME.pack(outcome.status, outcome.revision + outcome.reason)\n",
        tests="tests/store",
    ),
    Mutant(
        "hashes are compared with an earlier release's",
        "peer/links.py",
        "        report if connection.version >= JUDGED_VERSION else evolve(report, windows=())\n",
        "        report if connection.version else evolve(report, windows=())\n",
        tests="tests/peer",
    ),
    Mutant(
        "characters beyond ASCII may stand in a peer URL",
        "store/urls.py",
        "    if not _SHOWN.issuperset(url):\n        return _not(url)\n",
        "    if not url.isprintable():\n        return _not(url)\n",
        tests="tests/store",
    ),
    Mutant(
        "the unspecified address is dialled",
        "store/urls.py",
        "    if address[0] == 0:\n",
        "    if address == (0, 0, 0, 1):\n",
        tests="tests/store",
    ),
    Mutant(
        "a second membership change is let in",
        "raft/leader.py",
        "    if raft.pending_conf_index > raft.log.applied:\n",
        "    if raft.pending_conf_index < 0:\n",
        tests="tests/raft",
    ),
    Mutant(
        "a new leader forgets the membership change in its log",
        "raft/state.py",
        "        self.pending_conf_index = self.log.last_index()\n",
        "        self.pending_conf_index = 0\n",
        tests="tests/raft",
    ),
    Mutant(
        "a refused membership change is carried out",
        "node/changes.py",
        "        if unchanged is not None:\n",
        "        if unchanged is not None and not change.changes:\n",
        tests="tests/node tests/store",
    ),
    Mutant(
        "a removed member goes on",
        "node/changes.py",
        "        self._told_removed = True\n        self.removed()\n",
        "        self._told_removed = True\n",
        tests="tests/node",
    ),
    Mutant(
        "a removed member is let in",
        "peer/handshake.py",
        "    if peer.node_id in removed:\n",
        "    if peer.node_id in removed and joining:\n",
        tests="tests/peer tests/node",
    ),
    Mutant(
        "a member with another data directory is let in",
        "peer/handshake.py",
        "    if instances[peer.node_id] not in (NO_INSTANCE, peer.instance_id):\n",
        "    if instances[peer.node_id] == peer.instance_id + 1:\n",
        tests="tests/peer tests/node",
    ),
    Mutant(
        "the members' ids are given again",
        "store/membership.py",
        "    if node in removed:\n",
        "    if node in removed and node in members:\n",
        tests="tests/store",
    ),
    # What is written, and when.
    Mutant(
        "the vote is forgotten on a restart",
        "node/writer.py",
        "        self._hard_state = self.log.hard_state\n",
        "        self._hard_state = HardState()\n",
        tests="tests/node",
    ),
    Mutant(
        "a vote is not written",
        "node/writer.py",
        "        if job.entries or job.must_sync:\n",
        "        if job.entries:\n",
        seed=15,
    ),
    Mutant(
        "a vote is not synced",
        "raft/rawnode.py",
        "            or hard_state.vote != before.vote\n"
        "            or hard_state.term != before.term\n",
        "",
        seed=15,
    ),
    Mutant(
        "answers do not wait for the sync",
        "node/writer.py",
        "            self._syncing.append(job)\n",
        "            self.deliver(job.responses)\n"
        "            job.responses = []\n"
        "            self._syncing.append(job)\n",
        seed=6,
    ),
    Mutant(
        "only the last segment is synced",
        "storage/journal.py",
        "        parts = [segment.file.sync_later() for segment in self._unsynced()]\n",
        "        parts = [segment.file.sync_later() for segment in self._unsynced()[-1:]]\n",
        seed=28,
    ),
    Mutant(
        "the directory is never synced",
        "storage/journal.py",
        "        if self._named < last.number:\n",
        "        if self._named > last.number:\n",
        seed=2,
    ),
    Mutant(
        "who asks during a sync is told when that one ends",
        "storage/journal.py",
        "        self._waiting.append(done)\n        if not self._syncing:\n",
        "        if self._syncing:\n"
        "            self._syncing.append(done)\n"
        "            return done\n"
        "        self._waiting.append(done)\n"
        "        if not self._syncing:\n",
        seed=35,
    ),
    Mutant(
        "the log keeps the end that was overwritten",
        "storage/log.py",
        "        if entries:\n            self._truncate(entries[0].index)\n",
        "        if entries:\n",
        seed=1,
    ),
    Mutant(
        "a replayed log keeps the end that was overwritten",
        "storage/log.py",
        "        self._truncate(entry.index)\n        self._note(",
        "        if entry.index <= self.last_index():\n"
        "            return\n"
        "        self._note(",
        seed=1,
    ),
    Mutant(
        "segments go before what follows is durable",
        "storage/journal.py",
        "        if self.durable < self._needless_once:\n",
        "        if self.durable < 0:\n",
        tests="tests/storage",
    ),
    Mutant(
        "a torn end is called corruption",
        "storage/journal.py",
        "        if lost or self._claimed(place, position):\n",
        "        if lost or bad:\n",
        seed=32,
    ),
    Mutant(
        "corruption is called a torn end",
        "storage/journal.py",
        "        if lost or self._claimed(place, position):\n",
        "        if lost:\n",
        seed=3,
    ),
    Mutant(
        "an entry's checksum is not looked at",
        "storage/records.py",
        "        if crc32c(encoded[HEAD.size :]) != checksum:\n",
        "        if checksum < 0:\n",
        seed=3,
    ),
    Mutant(
        "the log is cut before the store has it",
        "node/compaction.py",
        "            self._cut_behind(durable)\n",
        "            self._cut_behind(replica.store.applied_index)\n",
        tests="tests/node",
    ),
    Mutant(
        "a clock before 1970 is written down as it is",
        "times.py",
        "    return int(max(0.0, min(seconds * 1000, MAX_TIME_MS)))\n",
        "    return int(min(seconds * 1000, MAX_TIME_MS))\n",
        tests="tests/store/test_encoding.py",
    ),
    Mutant(
        "a scan has no end in the engine",
        "store/rocks.py",
        "    options.set_iterate_upper_bound(high)\n",
        "",
        tests="tests/store/test_engines.py",
    ),
    Mutant(
        "recover goes by the members in the store alone",
        "offline/recover.py",
        "    apply_until(log, store, committed)\n",
        "",
        tests="tests/offline/test_recover.py",
    ),
    Mutant(
        "a disk that hangs lengthens --sync-interval",
        "node/writer.py",
        "        return waited < self.sync_interval\n",
        "        return self.sync_interval > 0\n",
        tests="tests/node/test_writer.py",
    ),
    Mutant(
        "a failed sync is recorded at the stop, not before",
        "service.py",
        "        self._unsynced.give_up()\n        return",
        "        return",
        tests="tests/simulation/test_sync_interval.py",
    ),
    Mutant(
        "the log's tail is bounded by the number of its entries alone",
        "node/compaction.py",
        "        target = max(by_entries, by_bytes)\n",
        "        target = by_entries\n",
        tests="tests/node",
    ),
    Mutant(
        "history's bytes are counted from a start on",
        "store/store.py",
        "            self._history = History(compacted, swept, written)\n",
        "            self._history = History(compacted, swept)\n",
        tests="tests/store",
    ),
    Mutant(
        "a store ahead of its log is always an install that was interrupted",
        "node/replica.py",
        "    if not may_be_ahead(log, store):\n",
        "    if False:\n",
        tests="tests/test_parts.py",
    ),
    Mutant(
        "a store without a log is given one",
        "service.py",
        "            self._check_no_store()\n",
        "",
        tests="tests/test_parts.py",
    ),
    Mutant(
        "an install is not noted before the store is replaced",
        "node/writer.py",
        "                self.log.begin_install()\n",
        "",
        tests="tests/node/test_writer.py",
    ),
    Mutant(
        "a failed sync is tried again",
        "storage/journal.py",
        "        self.broken = error\n        return error\n",
        "        return error\n",
        tests="tests/storage",
    ),
    # The store and its callers.
    Mutant(
        "the idempotency key is not looked at",
        "store/store.py",
        "        known = self._outcomes.known(self._batch, token, mark)\n"
        "        if known is not None:\n"
        "            return known\n"
        "        outcome = self._write(command, envelope)\n",
        "        outcome = self._write(command, envelope)\n",
        seed=6,
    ),
    Mutant(
        "a condition holds for later revisions too",
        "store/store.py",
        "    return mod_revision == condition.revision and mod_revision != 0\n",
        "    return mod_revision >= condition.revision and mod_revision != 0\n",
        seed=2,
    ),
    Mutant(
        "a failed condition takes a revision",
        "store/store.py",
        "            if not _holds(command.condition, previous):\n",
        "            if not _holds(command.condition, previous):\n"
        "                self.revision += 1\n",
        tests="tests/store",
    ),
    Mutant(
        "history loses what a deletion ended",
        "store/history.py",
        '        batch.changes[_history_key(key, revision)] = b""\n',
        "",
        tests="tests/store",
    ),
    Mutant(
        "a proposal that may be carried out is proposed again",
        "node/proposals.py",
        "            if _QUEUED < waiting.term < term:\n",
        "            if _QUEUED < waiting.term <= term:\n",
        seed=1,
    ),
    Mutant(
        "an unknown outcome is called a refusal",
        "node/proposals.py",
        "        if waiting.term != _QUEUED:\n            return OutcomeUnknown(\n",
        "        if waiting.term == _UNKNOWN:\n            return OutcomeUnknown(\n",
        seed=9,
    ),
    Mutant(
        "a proposal is taken by a leader that it was not meant for",
        "node/pump.py",
        "            if self.leading and message.term == self.raft.core.term:\n",
        "            if self.leading:\n",
        tests="tests/node",
    ),
    Mutant(
        "proposals are taken for lost behind a snapshot",
        "node/snapshots.py",
        "        self.pump.proposals.lost_sight()\n",
        "",
        tests="tests/node",
    ),
    Mutant(
        "a follower passes on all that it has",
        "node/proposals.py",
        "            room = MAX_PASSED_BYTES - self.passed_bytes if elsewhere else None\n",
        "            room = None\n",
        tests="tests/node/test_cluster.py",
    ),
    Mutant(
        "what is lost with a connection keeps its part of the window",
        "node/pump.py",
        "            self.proposals.open_window()\n",
        "",
        tests="tests/node/test_cluster.py",
    ),
    Mutant(
        "the window of an earlier connection is given back twice",
        "node/proposals.py",
        "        elif waiting.window == self._window:\n",
        "        elif waiting.window:\n",
        tests="tests/node/test_proposals.py",
    ),
    Mutant(
        "what the connection did not take counts as passed on",
        "node/pump.py",
        "        if not self.outbox.send_now(message):\n",
        "        if not self.outbox.send_now(message) and core.leader == NO_NODE:\n",
        tests="tests/node/test_cluster.py",
    ),
    Mutant(
        "what a leader failed to carry out goes behind what came later",
        "node/proposals.py",
        "                self._next = min(self._next, sequence)\n",
        "",
        tests="tests/node/test_proposals.py",
    ),
    Mutant(
        "one member takes up all the room that a leader has for others",
        "node/forwarded.py",
        "            of_sender = self._sizes[sender]\n",
        "            of_sender = self.size_bytes\n",
        tests="tests/node/test_forwarded.py",
    ),
    Mutant(
        "heartbeats wait behind entries",
        "peer/links.py",
        "            if self._control:\n",
        "            if self._control and not self._bulk:\n",
        tests="tests/peer/test_links.py",
    ),
    Mutant(
        "appends without entries overtake those with some",
        "peer/links.py",
        "[m for m in messages if m.type in BULK]",
        "[m for m in messages if m.entries]",
        tests="tests/peer/test_links.py",
    ),
    Mutant(
        "a body that finds no room is read all the same",
        "rest/channel.py",
        "        if self.waiting:\n            self.transport.pauseProducing()\n",
        "        return\n",
        tests="tests/rest/test_intake.py",
    ),
    Mutant(
        "bodies are let in by what has come of them",
        "rest/intake.py",
        "        if self._waiting or not self._fits(length):\n",
        "        if self._waiting or not self._fits(1):\n",
        tests="tests/rest/test_intake.py",
    ),
    Mutant(
        "the time for which a body was not read is its sender's",
        "rest/channel.py",
        "        doing = (self.arriving, self.waiting, self.closing, done)\n",
        "        doing = (self.arriving, False, self.closing, done)\n",
        tests="tests/rest/test_intake.py",
    ),
    Mutant(
        "who hangs up keeps the room for a body",
        "rest/channel.py",
        "        self._aside, self._asked = True, False\n"
        "        if self._counted:\n"
        "            self._release()\n",
        "        self._aside, self._asked = True, False\n",
        tests="tests/rest/test_intake.py",
    ),
    Mutant(
        "requests are taken from a connection that is full",
        "rest/channel.py",
        "            and not self._full\n            and not self._queued\n",
        "            and not self._queued\n",
        tests="tests/rest/test_unsent.py",
    ),
    Mutant(
        "a turn answers a connection all that it has asked for",
        "rest/channel.py",
        "        if self._spent > TURN_BYTES:\n            self._wait_for_turn()\n"
        "        if self._held and not self._taking:\n",
        "        if self._held and not self._taking:\n",
        tests="tests/rest/test_unsent.py",
    ),
    Mutant(
        "unsent answers of a connection that is lost stay counted",
        "rest/unsent.py",
        "        self.held_bytes -= self._held.pop(connection, 0)\n",
        "        self._held.pop(connection, 0)\n",
        tests="tests/rest/test_unsent.py",
    ),
    Mutant(
        "what is unsent is kept until its connection is collected",
        "rest/eager.py",
        "        self._tempDataBuffer = []\n",
        "",
        tests="tests/rest/test_eager.py",
    ),
    Mutant(
        "a large change is told to all who watch it in one turn",
        "node/watches.py",
        "            if turn.is_full:\n                return False\n",
        "",
        tests="tests/node/test_watches.py",
    ),
    Mutant(
        "a body is asked for before the head is judged",
        "rest/channel.py",
        "        self._expecting = True\n\n",
        "        self._expecting = True\n        self.ask_for_body()\n\n",
        tests="tests/rest/test_heads.py",
    ),
    Mutant(
        "a member is removed where a key of its name is meant",
        "rest/members.py",
        "        if self.database.get(call.path) is not None:\n",
        "        if self.database.get(call.path[1:]) is not None:\n",
        tests="tests/rest/test_surface.py",
    ),
    Mutant(
        "rights are not looked at again behind the read barrier",
        "rest/app.py",
        "            if guard.generation == generation:\n",
        "            if guard.generation >= generation:\n",
        tests="tests/rest/test_heads.py",
    ),
    Mutant(
        "an unknown outcome is answered as unavailable",
        "rest/problems.py",
        "    (OutcomeUnknown, 504),\n",
        "    (OutcomeUnknown, 503),\n",
        seed=9,
    ),
    # What makes it fast.
    Mutant(
        "the fast lane reads without asking whether it may",
        "rest/channel.py",
        "        if not is_put and stale:\n",
        "        if not is_put:\n",
        seed=1,
    ),
    Mutant(
        "the fast lane forgets a header that it does not know",
        "rest/lane.py",
        "    return int(length) if _HARMLESS.issuperset(seen) else NOT_PLAIN\n",
        "    return int(length)\n",
        tests="tests/rest",
    ),
    Mutant(
        "of the commands in an entry the last is not carried out",
        "store/store.py",
        "            for data in split_commands(entry.data):\n",
        "            for data in split_commands(entry.data)[:3]:\n",
        tests="tests/store",
    ),
    Mutant(
        "a deleted record is remembered",
        "store/store.py",
        '        self.recent.discard(b"k" + key)\n',
        "",
        seed=1,
    ),
    Mutant(
        "records are remembered over a snapshot",
        "store/store.py",
        "        self.recent.clear()\n",
        "",
        seed=5,
    ),
    Mutant(
        "what a snapshot has brought is applied again",
        "node/pump.py",
        "        start = max(0, self.replica.store.applied_index + 1 - entries[0].index)\n",
        "        start = 0\n",
        seed=7,
    ),
    Mutant(
        "news of a commit waits for ever",
        "node/outbox.py",
        "        for to, message in late.items():\n"
        "            self.transport.send(to, [message])\n",
        "",
        tests="tests/node",
    ),
    Mutant(
        "what is gathered waits for ever",
        "node/gathering.py",
        "        self._waiting = None\n        self._under_way.clear()\n        self.wake()\n",
        "        self._waiting = None\n",
        tests="tests/node",
    ),
    Mutant(
        "a follower believes that a leader who talks to it is gone",
        "peer/peers.py",
        "        if self.running and link.node_id not in self._inboxes:\n",
        "        if self.running:\n",
        tests="tests/peer",
    ),
    # Connections.
    Mutant(
        "a connection is used again after a bad frame",
        "peer/connection.py",
        '        self.note(f"it broke the protocol: {error.reason}")\n'
        "        self.abort()\n",
        '        self.note(f"it broke the protocol: {error.reason}")\n',
        tests="tests/peer",
    ),
    Mutant(
        "a snapshot's checksum is not looked at",
        "peer/snapshots.py",
        "        if _END.unpack(body) != (self.bytes_received, self._checksum):\n",
        "        if _END.unpack(body)[0] != self.bytes_received:\n",
        tests="tests/peer",
    ),
    Mutant(
        "a snapshot that is not whole is installed",
        "store/snapshot.py",
        "        if not self._reader.whole:\n",
        "        if not self._reader._started:\n",
        tests="tests/store",
    ),
    # Access.
    Mutant(
        "access: who may write may read",
        "rest/permissions.py",
        "                return self.on.startswith(principal.read)\n",
        "                return self.on.startswith(principal.read + principal.write)\n",
        tests="tests/rest/test_access.py",
    ),
    Mutant(
        "access: keys are compared as they were sent",
        "rest/permissions.py",
        "        return Need(Right.READ, key_of(path, _NO_LIMIT))\n",
        "        return Need(Right.READ, path)\n",
        tests="tests/rest/test_access.py",
    ),
    Mutant(
        "access: the lane takes a right to read for one to write",
        "rest/lane.py",
        '                principal.write if method == b"PUT" else principal.read\n',
        "                principal.read\n",
        tests="tests/rest/test_access.py",
    ),
    Mutant(
        "access: what the lane has learned outlives its reason",
        "rest/lane.py",
        "            self.guard.forgotten = self.forget\n",
        "            pass\n",
        tests="tests/rest/test_access.py",
    ),
    Mutant(
        "access: a secret that was taken back is still remembered",
        "access/guard.py",
        "        self._right.clear()\n",
        "",
        tests="tests/access",
    ),
    Mutant(
        "access: guessing is not slowed down",
        "access/guard.py",
        "            raise TooManyFailures(int(over) + 1)\n",
        "            pass\n",
        tests="tests/access",
    ),
    Mutant(
        "TLS: the host in a certificate is not looked at",
        "tls/transport.py",
        "            if depth == 0 and host is not None and not valid_for(certificate, host):\n",
        "            if depth == 9 and host is not None and not valid_for(certificate, host):\n",
        tests="tests/tls",
    ),
    Mutant(
        "TLS: nobody is asked for a certificate",
        "tls/transport.py",
        "        if self._client_cert_auth:\n",
        "        if self._client_cert_auth and False:\n",
        tests="tests/tls",
    ),
    Mutant(
        "TLS: a member may claim to be any other",
        "peer/connection.py",
        "        refusal = self._owner.vouch(self, theirs) or self._owner.judge(mine, theirs)\n",
        "        refusal = self._owner.judge(mine, theirs)\n",
        tests="tests/tls",
    ),
    Mutant(
        "a request may take as long as it likes to arrive",
        "rest/site.py",
        "                if seconds >= longest:\n",
        "                if seconds >= longest * 1000:\n",
        tests="tests/rest/test_abuse.py",
    ),
    Mutant(
        "connections are counted and not bounded",
        "rest/site.py",
        "        if len(self.open) < self._max_connections:\n",
        "        if len(self.open) < self._max_connections * 2:\n",
        tests="tests/rest/test_abuse.py",
    ),
    # Backups.
    Mutant(
        "a restored cluster goes on with the revisions of the old one",
        "offline/restore.py",
        "            store.begin_anew(cluster_id, cluster.founders(), revision)\n",
        "            store.begin_anew(cluster_id, cluster.founders(), store.revision)\n",
        tests="tests/offline/test_restore.py",
    ),
    Mutant(
        "a restored cluster answers watchers of the old one",
        "store/store.py",
        "        self.revision = self._history.compacted = revision\n",
        "        self.revision = revision\n",
        tests="tests/store/test_anew.py",
    ),
    Mutant(
        "a restore that fails leaves what it made",
        "offline/directory.py",
        "                shutil.rmtree(made, ignore_errors=True)\n",
        "",
        tests="tests/offline/test_restore.py",
    ),
    Mutant(
        "two restored clusters have one id",
        "offline/restore.py",
        '["kvdb restore", origin, self.token, str(self.revision_step), *members]',
        '["kvdb restore", origin, str(self.revision_step), *members]',
        tests="tests/offline/test_restore.py",
    ),
    Mutant(
        "a survivor's log is not applied",
        "offline/recover.py",
        "            until = found.committed if discard_uncommitted else found.last\n",
        "            until = found.applied if discard_uncommitted else found.applied\n",
        tests="tests/offline/test_recover.py",
    ),
    Mutant(
        "fsck stops at the first bad record",
        "offline/check_log.py",
        "                found = find_batch(buffer, offset + 1)\n",
        "                found = None\n",
        tests="tests/offline/test_fsck.py",
    ),
    Mutant(
        "a reader that takes nothing keeps a backup open for ever",
        "rest/backing_up.py",
        "        self._stall = self._clock.callLater(STALL_SECONDS, self._give_up)\n",
        "",
        tests="tests/rest/test_backing_up.py",
    ),
    Mutant(
        "entries are taken for which the store will find no space",
        "node/writer.py",
        "            self._take_room(job.entries, self.room)\n",
        "            pass\n",
        tests="tests/node/test_writer.py",
    ),
    Mutant(
        "each server has a class of requests of its own, which stays",
        "rest/site.py",
        "        requestFactory=partial(\n            BoundedRequest,",
        "        requestFactory=partial(\n"
        '            type("Request", (BoundedRequest,), {"clock": clock}),',
        tests="tests/simulation/test_runs.py::test_nothing_of_a_run_stays_in_memory",
    ),
)
