"""
What a node says of itself, and what it warns of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import evolve

from kvdb import __version__
from kvdb.interfaces import MemberStatus, NodeStatus
from kvdb.node.pump import NOT_ADDED, Pump
from kvdb.node.reports import Reports, own_role
from kvdb.raft.messages import NO_NODE
from kvdb.store.commands import Member


def node_status(
    pump: Pump, reports: Reports, more_warnings: Iterable[str]
) -> NodeStatus:
    """
    @param reports: what is known of the other members.
    @param more_warnings: of what the node does not know of itself.
    """
    core = pump.raft.core
    store = pump.replica.store
    log = pump.replica.log
    leader = None if core.leader == NO_NODE else core.leader
    members = sorted(store.members.values(), key=lambda member: member.id)
    return NodeStatus(
        id=pump.node_id,
        cluster_id=f"{store.cluster_id:016x}",
        role=own_role(pump),
        leader=leader,
        term=core.term,
        commit_index=core.log.committed,
        applied_index=store.applied_index,
        revision=store.revision,
        compacted_revision=store.compacted_revision,
        log_bytes=log.size_bytes,
        store_bytes=store.size_bytes,
        version=__version__,
        members=[_member_status(pump, reports, member) for member in members],
        alarms=list(alarms(pump, reports)),
        warnings=[*_warnings(pump, reports), *more_warnings],
        sync_interval=pump.settings.sync_interval,
    )


def _member_status(pump: Pump, reports: Reports, member: Member) -> MemberStatus:
    core = pump.raft.core
    is_own = member.id == pump.node_id
    found = reports.latest(member.id)
    if is_own:
        role = own_role(pump)
    elif member.id == core.leader:
        role = "leader"
    elif member.id in core.tracker.configuration.learners:
        role = "learner"
    elif pump.leading:
        role = "follower"
    else:
        # Two who lead are of different terms: the later one is known above.
        role = found[1].role if found is not None else "unknown"
    match = lag = None
    if pump.leading and member.id in core.tracker.progress:
        # 0 until it has answered this leader.
        match = core.tracker.progress[member.id].match or None
        if is_own:
            lag = 0
        elif found is not None:
            # Of the same moment as the rest of its report.
            lag = reports.behind(member.id)
        elif match is not None:
            lag = core.log.last_index() - match
    status = MemberStatus(
        id=member.id,
        url=member.url,
        role=role,
        match_index=match,
        lag=lag,
        connected=None if is_own else member.id in reports.connected(),
    )
    if found is None:
        return status
    age, report = found
    return evolve(
        status,
        client_url=report.client_url or None,
        term=report.term,
        last_index=report.last_index,
        applied_index=report.applied_index,
        revision=report.revision,
        version=report.version,
        store_bytes=report.store_bytes,
        links=list(report.links),
        age_seconds=round(age, 3),
    )


def alarms(pump: Pump, reports: Reports) -> Iterator[str]:
    """What is wrong, each in a sentence that says what to do."""
    yield from reports.alarms
    low = low_space(pump)
    if low is not None:
        yield low
    if pump.writer.full is not None:
        yield f"{pump.writer.full}; writes are refused until there is space again"
    if pump.stalled_for:
        yield (
            f"the disk under {pump.replica.log.directory} has not answered for"
            f" {pump.stalled_for:.1f} s; this member does not lead until it does"
        )


def low_space(pump: Pump) -> str | None:
    """That the disk will be full soon, before it is."""
    directory, bound = pump.replica.log.directory, pump.settings.low_space_bytes
    space = pump.replica.log.space()
    if pump.writer.full is not None or space is None or space.free >= bound:
        return None
    return (
        f"{space.free >> 20} MiB are left on the disk under {directory}, of"
        f" {space.total >> 20}: free some before writes are refused (--low-space"
        f" {bound >> 20})"
    )


def _warnings(pump: Pump, reports: Reports) -> Iterator[str]:
    if not pump.replica.store.members:
        yield NOT_ADDED
    voters = len(pump.raft.core.tracker.configuration.voters)
    if voters > 0 and voters % 2 == 0:
        yield (
            f"a cluster of {voters} voters bears no more failures than one of"
            f" {voters - 1}: add a member, or remove one"
        )
    interval = pump.settings.sync_interval
    if interval:
        yield (
            f"writes are acknowledged up to {1000 * interval:.0f} ms before this"
            " member's disk has them (--sync-interval): a loss of power costs this"
            " member, and at a majority of them the last writes"
        )
    others = [
        member
        for member in sorted(pump.replica.store.members)
        if (found := reports.latest(member)) is not None
        and found[1].syncs_first != (not interval)
    ]
    if others:
        yield (
            f"this member and {', '.join(map(str, others))} do not sync alike: give"
            " all members the same --sync-interval"
        )
