"""
Who is a member: asking for changes, applying them, letting peers in.

A new member comes as a learner and is made a voter by the leader once it has
caught up, so that adding one never costs the quorum anything.  A removed one
is told so and stops.  Ids are never given twice.

Rules:

* what the replicated membership allows, the store decides when the change is
  applied (L{kvdb.store.membership});
* what only this member knows, who can be reached and how far a learner is, it judges
  when it is asked and again when the change leaves the queue, and puts in the entry:
  so that is judged a third time when it is applied, on the membership of then.  Two
  changes asked for at the same time cannot cost the quorum that one may spare;
* a change that does not fit is applied as one that changes nobody;
* entries are of the form of earlier releases while one is known to run here;
* a member whose data directory is not the one on record is kept out: it may
  have forgotten a vote (see docs/architecture.md, instances).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Final, Protocol

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvdb.interfaces import (
    MembershipRefused,
    OutcomeUnknown,
    Unavailable,
    UnknownMember,
)
from kvdb.node.peer_starts import PeerStarts
from kvdb.node.pump import Pump
from kvdb.peer.handshake import JUDGED_VERSION, Hello, Identity, Refusal, admit
from kvdb.raft.confchange import as_v2, decode_conf_change, encode_conf_change
from kvdb.raft.messages import (
    NO_NODE,
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    Entry,
)
from kvdb.raft.progress import ProgressState
from kvdb.storage.starts import NO_INSTANCE
from kvdb.store.commands import Outcome, OutcomeStatus, Reason, RegisterInstance
from kvdb.store.encoding import Judged, decode_member_change, encode_member_change
from kvdb.store.membership import (
    CAUGHT_UP_ENTRIES,
    can_commit,
    explain,
    voters_of,
)
from kvdb.store.store import Store
from kvdb.store.urls import url_problem

log = Logger(namespace="kvdb.node")

MAX_MEMBER_ID: Final = 2**63 - 1

START_OTHERS: Final = "Start the others first, and retry."


class Network(Protocol):
    """What is asked of the peers' connections here."""

    def set_members(self, urls: dict[int, str]) -> None:
        """Keep connections to these, by id, and to nobody else."""

    def connected(self) -> Collection[int]:
        """The ids of the members a connection is up to."""

    def versions(self) -> Mapping[int, int]:
        """The protocol versions last agreed on with peers, as far as known."""


def _why_unchanged(outcome: Outcome, change: ConfChangeV2) -> str:
    if outcome.status is not OutcomeStatus.REFUSED:
        return "it was carried out before"
    record = decode_member_change(change.context)
    return f"refused: {explain(outcome, record.member_id, record.url)}"


@define(slots=True, eq=False)
class Changes:
    """
    @ivar identity: this node's own.
    @ivar removed: told once that this node is no member any more.
    """

    identity: Identity
    store: Store
    network: Network
    removed: Callable[[], None]
    peer_starts: PeerStarts
    pump: Pump = field(init=False)
    _seen_instances: dict[int, int] = field(factory=dict)
    _under_way: set[tuple[str, int]] = field(factory=set)
    _told_removed: bool = False
    _awaiting_leader: list[tuple[float, int, Deferred[int]]] = field(factory=list)

    def start(self) -> None:
        """Connect to the members on record."""
        self._tell_network()

    # Asking for changes.

    def add(self, node_id: int, url: str, idempotency_key: bytes) -> Deferred[None]:
        """See L{Database.add_member<kvdb.interfaces.Database.add_member>}."""
        problem = url_problem(url)
        if problem is not None:
            return fail(MembershipRefused(f"a member needs a peer URL: {problem}"))
        change = ConfChangeType.ADD_LEARNER_NODE
        return self._propose(change, node_id, url, idempotency_key, lambda: 0)

    @inlineCallbacks
    def remove(
        self, node_id: int, idempotency_key: bytes
    ) -> Generator[Deferred[Any], Any, None]:
        """See L{Database.remove_member<kvdb.interfaces.Database.remove_member>}."""
        yield self.pump.read_barrier()

        def check() -> int:
            if node_id in self.store.members or not idempotency_key:
                # Else an earlier try with that key may have removed it.
                self._check_removal(node_id)
            return 0

        check()
        if node_id == self.pump.leader and len(self.voters()) > 1:
            # Or nobody would lead for an election timeout.
            yield self.transfer(None)
        change = ConfChangeType.REMOVE_NODE
        try:
            yield self._propose(change, node_id, "", idempotency_key, check)
        except OutcomeUnknown:
            if not (node_id == self.identity.node_id and self._told_removed):
                raise

    def _check_removal(self, node_id: int) -> None:
        if node_id not in self.store.members:
            raise self._unknown(node_id)
        voters = self.voters()
        left = voters - {node_id}
        if node_id not in voters or not left:
            return  # a learner; or the last voter, which the store refuses
        reached = self._reached()
        if not can_commit(left, reached):
            raise MembershipRefused(
                f"without member {node_id} there are {len(left)} voters, of which"
                f" only {len(left & reached)} can be reached: the cluster would stop",
                START_OTHERS,
            )

    def _unknown(self, node_id: int) -> UnknownMember:
        was = " any more" if node_id in self.store.removed else ""
        return UnknownMember(f"member {node_id} is not in the cluster{was}")

    def _reached(self) -> set[int]:
        return {self.identity.node_id, *self.network.connected()}

    def voters(self) -> set[int]:
        """Whose votes count, also while that is being changed."""
        return voters_of(self.store.conf_state)

    @inlineCallbacks
    def _propose(
        self,
        kind: ConfChangeType,
        node_id: int,
        url: str,
        idempotency_key: bytes,
        check: Callable[[], int],
    ) -> Generator[Deferred[Outcome], Outcome, None]:
        """
        @param check: judges the change by what this member knows now: raises
            L{DatabaseError}, or says up to where a learner is known to hold the log.
        """
        if not 0 < node_id <= MAX_MEMBER_ID:
            raise MembershipRefused("a member's id is a number from 1 to 2^63 - 1")

        def encode(session: int, sequence: int, time_ms: int) -> bytes:
            match = check()
            judged = None if self._earlier_release() else self._judged(match)
            context = encode_member_change(
                session, sequence, time_ms, node_id, url, idempotency_key, judged
            )
            single = ConfChangeSingle(kind, node_id)
            return encode_conf_change(ConfChangeV2((single,), context=context))

        outcome = yield self.pump.propose_change(encode)
        if outcome.status is OutcomeStatus.REFUSED:
            raise self._refused(outcome, node_id, url)

    def _judged(self, match: int) -> Judged:
        return Judged(tuple(sorted(self._reached())), match)

    def _earlier_release(self) -> bool:
        """Whether a member is known to run one.  One that is not known of would stop
        at an entry that says what it was judged on, and say so."""
        return any(v < JUDGED_VERSION for v in self.network.versions().values())

    def _refused(self, outcome: Outcome, node_id: int, url: str) -> MembershipRefused:
        if outcome.reason is Reason.NO_MEMBER:
            return self._unknown(node_id)
        text = explain(outcome, node_id, url)
        known = self.store.members.get(node_id)
        if outcome.reason is Reason.IS_MEMBER and known is not None:
            text = f"{text}, at {known.url}"
        few = outcome.reason is Reason.TOO_FEW_REACHED
        return MembershipRefused(text, START_OTHERS if few else "")

    @inlineCallbacks
    def transfer(self, to: int | None) -> Generator[Deferred[int], int, int]:
        """See L{kvdb.interfaces.Database.transfer_leadership}."""
        if to is None:
            to = self.successor()
        elif to not in self.store.members:
            raise UnknownMember(f"member {to} is not in the cluster")
        elif to not in self.voters():
            raise MembershipRefused(
                f"member {to} is a learner, and does not lead",
                "It is made a voter once it has caught up.",
            )
        if to == self.pump.leader:
            return to
        if self.pump.leader == NO_NODE:
            raise Unavailable("there is no leader to hand over", "Try again.")
        deadline = self.pump.clock.seconds() + self.pump.settings.election_timeout
        changed: Deferred[int] = Deferred()
        self._awaiting_leader.append((deadline, to, changed))
        self.pump.transfer_leadership(to)
        leader = yield changed
        return leader

    def successor(self, among: AbstractSet[int] | None = None) -> int:
        """
        The voter that would lead soonest, other than the leader.

        @param among: if not all of them will do.
        """
        leader = self.pump.leader
        others = sorted(self.voters() - {leader})
        if among is not None:
            others = [node for node in others if node in among]
        if not others:
            raise Unavailable("there is no other voter to hand leadership to")
        if not self.pump.leading:
            own = self.identity.node_id
            return own if own in others else others[0]
        connected = self.network.connected()
        progress = self.pump.raft.core.tracker.progress
        return max(
            others, key=lambda node: (node in connected, progress[node].match, -node)
        )

    # Applying them.

    def apply(self, entry: Entry) -> tuple[int, int, Outcome] | None:
        """A committed membership entry."""
        change = as_v2(decode_conf_change(entry))
        unchanged = self.store.check_change(entry.index, change)
        effective, note = change, ""
        if unchanged is not None:
            note = f" ({_why_unchanged(unchanged, change)})"
            nobody = tuple(evolve(c, node_id=NO_NODE) for c in change.changes)
            effective = evolve(change, changes=nobody)
        conf_state = self.pump.raft.apply_conf_change(effective)
        settled = self.store.apply_conf_change(
            entry.index, entry.term, change, conf_state
        )
        log.info(
            "membership at index {index}: voters {voters}, learners {learners}{note}",
            index=entry.index,
            voters=list(conf_state.voters),
            learners=list(conf_state.learners),
            note=note,
        )
        self._tell_network()
        if self.identity.node_id in self.store.removed:
            self.removed()
        return settled

    def told_removed(self) -> None:
        """A member says that this node is none any more."""
        self._told_removed = True
        self.removed()
        # Nothing comes from the others any more: whoever waits here hears so while
        # there is still time to answer, also who asked for this very removal.
        self.pump.halt("this member was removed from the cluster")

    def installed(self) -> None:
        """A snapshot brought another membership."""
        self._tell_network()
        if self.identity.node_id in self.store.removed:
            self.removed()

    def _tell_network(self) -> None:
        own = self.identity.node_id
        self.network.set_members(
            {m.id: m.url for m in self.store.members.values() if m.id != own}
        )

    # Letting peers in.

    def judge(self, hello: Hello) -> Refusal | None:
        """See L{PeerPolicy<kvdb.peer.handshake.PeerPolicy>}."""
        instances = {m.id: m.instance_id for m in self.store.members.values()}
        for node, seen in self._seen_instances.items():
            if instances.get(node) == NO_INSTANCE:
                instances[node] = seen
        refusal = admit(
            hello, self.identity, instances, self.store.removed, self.peer_starts.known
        )
        peer = hello.identity
        if refusal is None and peer.node_id in self.store.members:
            self._seen_instances.setdefault(peer.node_id, peer.instance_id)
            self.peer_starts.met(peer, self.store.members)
        return refusal

    # As time goes by.

    def ticked(self) -> None:
        """See L{Watcher<kvdb.node.pump.Watcher>}, as for the two below."""
        self.peer_starts.ticked()
        now = self.pump.clock.seconds()
        waiting, self._awaiting_leader = self._awaiting_leader, []
        for deadline, to, changed in waiting:
            if deadline > now:
                self._awaiting_leader.append((deadline, to, changed))
            else:
                changed.errback(
                    Unavailable(f"member {to} did not take over in time", "Try again.")
                )
        if self.pump.leading:
            self._promote_learners()
            self._register_instances()

    def leader_changed(self) -> None:
        """Who waited for another leader may have one."""
        leader = self.pump.leader
        if leader == NO_NODE:
            return
        waiting, self._awaiting_leader = self._awaiting_leader, []
        for deadline, to, changed in waiting:
            if leader == to:
                changed.callback(leader)
            else:
                self._awaiting_leader.append((deadline, to, changed))

    def applied(self, entries: int, commands: int) -> None:
        """Nothing follows from that here."""

    def _promote_learners(self) -> None:
        for node in sorted(self.pump.raft.core.tracker.configuration.learners):
            if self._caught_up(node):
                member = self.store.members[node]
                self._once(
                    "promote",
                    node,
                    partial(
                        self._propose,
                        ConfChangeType.ADD_NODE,
                        node,
                        member.url,
                        b"",
                        partial(self._check_promotion, node),
                    ),
                )

    def _caught_up(self, node: int) -> int:
        """Up to where a learner holds the log, if it may be made a voter; else 0."""
        core = self.pump.raft.core
        progress = core.tracker.progress.get(node)
        if (
            self.pump.leading
            and progress is not None
            and progress.state is ProgressState.REPLICATE
            and progress.recent_active
            and progress.match >= core.log.last_index() - CAUGHT_UP_ENTRIES
        ):
            return progress.match
        return 0

    def _check_promotion(self, node: int) -> int:
        match = self._caught_up(node)
        if not match or not can_commit(self.voters() | {node}, self._reached()):
            raise Unavailable("it is not caught up any more, or cannot be reached")
        return match

    def _register_instances(self) -> None:
        self._seen_instances[self.identity.node_id] = self.identity.instance_id
        for member in self.store.members.values():
            seen = self._seen_instances.get(member.id, NO_INSTANCE)
            if member.instance_id == NO_INSTANCE and seen != NO_INSTANCE:
                command = RegisterInstance(member.id, seen)
                self._once(
                    "register",
                    member.id,
                    partial(self.pump.write, command),
                )

    def _once(self, what: str, node: int, begin: Callable[[], Deferred[Any]]) -> None:
        """Begin, unless it is under way; if it fails, the next tick begins
        again."""
        if (what, node) in self._under_way:
            return
        self._under_way.add((what, node))

        def ended(result: object) -> None:
            self._under_way.discard((what, node))
            if isinstance(result, Failure):
                log.info(
                    "could not {what} member {node} yet: {reason}",
                    what=what,
                    node=node,
                    reason=result.getErrorMessage(),
                )

        begin().addBoth(ended)
