"""
From one membership to the next.

A simple change moves at most one voter, so that the majorities before and
after overlap (thesis, section 4.1).  Any other goes through a joint
configuration, in which both majorities must agree (paper, section 6): enter
it, and leave it once it is committed.

A L{Changer} computes the configuration that follows; it changes nothing it was
given.  Rules that hold of every configuration it returns:

* each member has a progress, and nobody else;
* no member is voter and learner at once;
* a voter of the outgoing half that becomes a learner waits in
  C{learners_next} until the joint configuration is left;
* outside a joint configuration there are no such waiters and no auto-leave.

The data of a membership entry is also encoded here::

    transition u8 | count u16 | (type u8, node id u64) * count | context

with big-endian numbers; no bytes at all are the empty change.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from attrs import define, frozen

from kvdb.raft.messages import (
    NO_NODE,
    ConfChange,
    ConfChangeSingle,
    ConfChangeTransition,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
    EntryType,
)
from kvdb.raft.progress import Progress, ProgressMap
from kvdb.raft.tracker import Configuration, Tracker

_HEAD = struct.Struct(">BH")
_CHANGE = struct.Struct(">BQ")

MAX_CHANGES = 1000
"""Changes in one entry."""


class ConfChangeError(Exception):
    """The change cannot follow the configuration in force."""


Change = ConfChange | ConfChangeV2
Result = tuple[Configuration, ProgressMap]


def as_v2(change: Change) -> ConfChangeV2:
    """The same change in the newer form."""
    if isinstance(change, ConfChangeV2):
        return change
    single = ConfChangeSingle(change.type, change.node_id)
    return ConfChangeV2((single,), ConfChangeTransition.AUTO, change.context)


def leaves_joint(change: ConfChangeV2) -> bool:
    """Whether the change means: leave the joint configuration."""
    return not change.changes and change.transition is ConfChangeTransition.AUTO


def joint_auto_leave(change: ConfChangeV2) -> bool | None:
    """Whether to leave the joint configuration the change enters by oneself;
    None when it enters none."""
    if change.transition is ConfChangeTransition.AUTO and len(change.changes) <= 1:
        return None
    return change.transition is not ConfChangeTransition.JOINT_EXPLICIT


def encode_conf_change(change: Change) -> bytes:
    """The data of a membership entry."""
    v2 = as_v2(change)
    if leaves_joint(v2) and not v2.context:
        return b""
    if len(v2.changes) > MAX_CHANGES:
        raise ValueError(f"{len(v2.changes)} changes, at most {MAX_CHANGES} fit")
    singles = [_CHANGE.pack(single.type, single.node_id) for single in v2.changes]
    head = _HEAD.pack(v2.transition, len(singles))
    return b"".join([head, *singles, v2.context])


def decode_conf_change(entry: Entry) -> Change:
    """
    What a membership entry asks for.

    @raise ValueError: its data are none that L{encode_conf_change} made.
    """
    data = entry.data
    if not data:
        return ConfChangeV2()
    try:
        transition, count = _HEAD.unpack_from(data)
        if count > MAX_CHANGES:
            raise ValueError(f"{count} changes, at most {MAX_CHANGES} fit")
        end = _HEAD.size + count * _CHANGE.size
        pairs = [
            _CHANGE.unpack_from(data, offset)
            for offset in range(_HEAD.size, end, _CHANGE.size)
        ]
        changes = tuple(
            ConfChangeSingle(ConfChangeType(kind), node) for kind, node in pairs
        )
        v2 = ConfChangeV2(changes, ConfChangeTransition(transition), data[end:])
    except struct.error as error:
        raise ValueError(
            f"the membership change at index {entry.index} is cut short"
        ) from error
    if entry.type is EntryType.CONF_CHANGE:
        if len(changes) != 1:
            raise ValueError(
                f"the membership change at index {entry.index} holds"
                f" {len(changes)} changes, its kind holds one"
            )
        return ConfChange(changes[0].type, changes[0].node_id, v2.context)
    return v2


def describe_conf_change(change: Change) -> str:
    """The printed form in log lines."""
    singles = [_describe_single(single) for single in as_v2(change).changes]
    if isinstance(change, ConfChange):
        return singles[0]
    name = _TRANSITION_NAMES[change.transition]
    return " ".join([f"transition:{name}", *(f"changes:{{{s}}}" for s in singles)])


def _describe_single(single: ConfChangeSingle) -> str:
    return f"type:{_TYPE_NAMES[single.type]} node_id:{single.node_id}"


_TYPE_NAMES = {
    ConfChangeType.ADD_NODE: "ConfChangeAddNode",
    ConfChangeType.REMOVE_NODE: "ConfChangeRemoveNode",
    ConfChangeType.UPDATE_NODE: "ConfChangeUpdateNode",
    ConfChangeType.ADD_LEARNER_NODE: "ConfChangeAddLearnerNode",
}
_TRANSITION_NAMES = {
    ConfChangeTransition.AUTO: "ConfChangeTransitionAuto",
    ConfChangeTransition.JOINT_IMPLICIT: "ConfChangeTransitionJointImplicit",
    ConfChangeTransition.JOINT_EXPLICIT: "ConfChangeTransitionJointExplicit",
}


@define(slots=True)
class _Draft:
    """A configuration in the making."""

    tracker: Tracker
    last_index: int
    incoming: set[int]
    outgoing: set[int]
    learners: set[int]
    learners_next: set[int]
    progress: ProgressMap
    auto_leave: bool = False

    def apply(self, changes: Iterable[ConfChangeSingle]) -> None:
        for change in changes:
            if change.node_id == NO_NODE:
                continue  # how an application refuses a committed change
            if change.type is ConfChangeType.ADD_NODE:
                self.make_voter(change.node_id)
            elif change.type is ConfChangeType.ADD_LEARNER_NODE:
                self.make_learner(change.node_id)
            elif change.type is ConfChangeType.REMOVE_NODE:
                self.remove(change.node_id)
        if not self.incoming:
            raise ConfChangeError("removed all voters")

    def make_voter(self, node: int) -> None:
        progress = self.progress.get(node)
        if progress is None:
            self.add(node, is_learner=False)
            return
        progress.is_learner = False
        self.learners.discard(node)
        self.learners_next.discard(node)
        self.incoming.add(node)

    def make_learner(self, node: int) -> None:
        progress = self.progress.get(node)
        if progress is None:
            self.add(node, is_learner=True)
            return
        if progress.is_learner:
            return
        self.remove(node)
        self.progress[node] = progress
        if node in self.outgoing:
            self.learners_next.add(node)
        else:
            progress.is_learner = True
            self.learners.add(node)

    def remove(self, node: int) -> None:
        if node not in self.progress:
            return
        self.incoming.discard(node)
        self.learners.discard(node)
        self.learners_next.discard(node)
        if node not in self.outgoing:
            del self.progress[node]

    def add(self, node: int, *, is_learner: bool) -> None:
        (self.learners if is_learner else self.incoming).add(node)
        self.progress[node] = Progress(
            match=0,
            # Probe from the last index: a new member is most often empty, and
            # says in its rejection what it has.
            next=max(self.last_index, 1),
            inflights=self.tracker.new_inflights(),
            is_learner=is_learner,
            # A new member is taken to be alive for as long as it takes to
            # hear of it, else it could cost the leader its quorum.
            recent_active=True,
        )

    def finish(self) -> Result:
        configuration = Configuration(
            frozenset(self.incoming),
            frozenset(self.outgoing),
            frozenset(self.learners),
            frozenset(self.learners_next),
            self.auto_leave,
        )
        check_invariants(configuration, self.progress)
        return configuration, {
            node: self.progress[node] for node in sorted(self.progress)
        }


def check_invariants(configuration: Configuration, progress: ProgressMap) -> None:
    """
    The rules at the head of this module.

    @raise ConfChangeError: one is broken.
    """
    c = configuration
    members = c.incoming | c.outgoing | c.learners | c.learners_next
    for node in sorted(members - progress.keys()):
        raise ConfChangeError(f"no progress for {node}")
    for node in sorted(progress.keys() - members):
        raise ConfChangeError(f"progress for {node}, which is no member")
    for node in sorted(c.learners_next):
        if node not in c.outgoing:
            raise ConfChangeError(f"{node} is in LearnersNext, but not Voters[1]")
        if progress[node].is_learner:
            raise ConfChangeError(
                f"{node} is in LearnersNext, but is already marked as learner"
            )
    for node in sorted(c.learners):
        if node in c.outgoing:
            raise ConfChangeError(f"{node} is in Learners and Voters[1]")
        if node in c.incoming:
            raise ConfChangeError(f"{node} is in Learners and Voters[0]")
        if not progress[node].is_learner:
            raise ConfChangeError(
                f"{node} is in Learners, but is not marked as learner"
            )
    if not c.joint:
        if c.learners_next:
            raise ConfChangeError("LearnersNext must be nil when not joint")
        if c.auto_leave:
            raise ConfChangeError("AutoLeave must be false when not joint")


@frozen(slots=True)
class Changer:
    """
    @ivar tracker: the configuration and progress to start from.
    @ivar last_index: the leader's last index; new members are probed there.
    """

    tracker: Tracker
    last_index: int

    def _draft(self) -> _Draft:
        c = self.tracker.configuration
        progress = {node: p.copy() for node, p in self.tracker.progress.items()}
        check_invariants(c, progress)
        return _Draft(
            self.tracker,
            self.last_index,
            set(c.incoming),
            set(c.outgoing),
            set(c.learners),
            set(c.learners_next),
            progress,
            c.auto_leave,
        )

    def simple(self, changes: Iterable[ConfChangeSingle]) -> Result:
        """
        Move at most one voter, and any learners.

        @raise ConfChangeError: more than that, or no voter is left, or the
            configuration is joint.
        """
        draft = self._draft()
        if draft.outgoing:
            raise ConfChangeError("can't apply simple config change in joint config")
        before = set(draft.incoming)
        draft.apply(changes)
        if len(before ^ draft.incoming) > 1:
            raise ConfChangeError(
                "more than one voter changed without entering joint config"
            )
        return draft.finish()

    def enter_joint(
        self, auto_leave: bool, changes: Iterable[ConfChangeSingle]
    ) -> Result:
        """
        Enter a joint configuration, by any changes.

        @raise ConfChangeError: it is joint already, or has no voter.
        """
        draft = self._draft()
        if draft.outgoing:
            raise ConfChangeError("config is already joint")
        if not draft.incoming:
            raise ConfChangeError("can't make a zero-voter config joint")
        draft.outgoing = set(draft.incoming)
        draft.apply(changes)
        draft.auto_leave = auto_leave
        return draft.finish()

    def leave_joint(self) -> Result:
        """
        Keep the incoming half alone.

        @raise ConfChangeError: the configuration is not joint.
        """
        draft = self._draft()
        if not draft.outgoing:
            raise ConfChangeError("can't leave a non-joint config")
        for node in draft.learners_next:
            draft.learners.add(node)
            draft.progress[node].is_learner = True
        draft.learners_next = set()
        for node in draft.outgoing - draft.incoming - draft.learners:
            del draft.progress[node]
        draft.outgoing = set()
        draft.auto_leave = False
        return draft.finish()

    def change(self, change: ConfChangeV2) -> Result:
        """Whichever of the three the change asks for."""
        if leaves_joint(change):
            return self.leave_joint()
        auto_leave = joint_auto_leave(change)
        if auto_leave is None:
            return self.simple(change.changes)
        return self.enter_joint(auto_leave, change.changes)


def restore(tracker: Tracker, last_index: int, state: ConfState) -> Result:
    """The configuration that a snapshot remembers, with fresh progress."""
    empty = Tracker(tracker.max_inflight, tracker.max_inflight_bytes)
    voters = _adds(ConfChangeType.ADD_NODE, state.voters)
    learners = _adds(
        ConfChangeType.ADD_LEARNER_NODE, (*state.learners, *state.learners_next)
    )
    if not state.voters_outgoing:
        for single in [*voters, *learners]:
            empty.install(*Changer(empty, last_index).simple([single]))
        return empty.configuration, empty.progress
    # As the members before the change, then the change itself.
    for single in _adds(ConfChangeType.ADD_NODE, state.voters_outgoing):
        empty.install(*Changer(empty, last_index).simple([single]))
    removals = _adds(ConfChangeType.REMOVE_NODE, state.voters_outgoing)
    return Changer(empty, last_index).enter_joint(
        state.auto_leave, [*removals, *voters, *learners]
    )


def _adds(kind: ConfChangeType, nodes: Sequence[int]) -> list[ConfChangeSingle]:
    return [ConfChangeSingle(kind, node) for node in nodes]
