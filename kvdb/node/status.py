"""
What a node says of itself, and what it warns of.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kvdb import __version__
from kvdb.interfaces import MemberStatus, NodeStatus
from kvdb.node.pump import Pump
from kvdb.raft.messages import NO_NODE, Role
from kvdb.store.commands import Member

_ROLES = {
    Role.FOLLOWER: "follower",
    Role.CANDIDATE: "candidate",
    Role.PRE_CANDIDATE: "candidate",
    Role.LEADER: "leader",
}


def node_status(pump: Pump, connected: Collection[int]) -> NodeStatus:
    """@param connected: the members a connection is up to."""
    core = pump.raft.core
    store = pump.replica.store
    log = pump.replica.log
    leader = None if core.leader == NO_NODE else core.leader
    members = sorted(store.members.values(), key=lambda member: member.id)
    return NodeStatus(
        id=pump.node_id,
        cluster_id=f"{store.cluster_id:016x}",
        role=_own_role(pump),
        leader=leader,
        term=core.term,
        commit_index=core.log.committed,
        applied_index=store.applied_index,
        revision=store.revision,
        compacted_revision=store.compacted_revision,
        log_bytes=log.size_bytes,
        store_bytes=store.size_bytes,
        version=__version__,
        members=[_member_status(pump, member, connected) for member in members],
        alarms=list(_alarms(pump)),
        warnings=list(_warnings(pump)),
    )


def _own_role(pump: Pump) -> str:
    return "learner" if pump.raft.core.is_learner else _ROLES[pump.raft.core.role]


def _member_status(
    pump: Pump, member: Member, connected: Collection[int]
) -> MemberStatus:
    core = pump.raft.core
    if member.id == pump.node_id:
        role = _own_role(pump)
    elif member.id == core.leader:
        role = "leader"
    elif member.id in core.tracker.configuration.learners:
        role = "learner"
    else:
        role = "follower" if pump.leading else "unknown"
    match = lag = None
    if pump.leading and member.id in core.tracker.progress:
        match = core.tracker.progress[member.id].match
        lag = core.log.last_index() - match
    own = member.id == pump.node_id
    return MemberStatus(
        id=member.id,
        url=member.url,
        role=role,
        match_index=match,
        lag=lag,
        connected=None if own else member.id in connected,
    )


def _alarms(pump: Pump) -> Iterator[str]:
    if pump.writer.full is not None:
        yield f"{pump.writer.full}; writes are refused until there is space again"
    if pump.stalled_for:
        yield (
            f"the disk under {pump.replica.log.directory} has not answered for"
            f" {pump.stalled_for:.1f} s; this member does not lead until it does"
        )


def _warnings(pump: Pump) -> Iterator[str]:
    voters = len(pump.raft.core.tracker.configuration.voters)
    if voters > 0 and voters % 2 == 0:
        yield (
            f"a cluster of {voters} voters bears no more failures than one of"
            f" {voters - 1}: add a member, or remove one"
        )
