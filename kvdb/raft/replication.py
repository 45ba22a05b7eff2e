"""
How a leader brings its log to the others (paper, section 5.3).

To each member goes what its L{Progress<kvdb.raft.progress.Progress>} asks for:
entries, or a snapshot when they are compacted; heartbeats keep the rest quiet.
What a quorum holds, of the leader's own term, is committed.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvdb.raft.messages import Entry, Message, MessageType
from kvdb.raft.progress import Progress, ProgressState
from kvdb.raft.state import Raft, payload_size
from kvdb.raft.storage import (
    Compacted,
    SnapshotTemporarilyUnavailable,
    Unavailable,
)


def send_append(raft: Raft, to: int, *, send_if_empty: bool = True) -> bool:
    """
    Send C{to} what it lacks; whether anything was sent.

    @param send_if_empty: send without entries too, to bring the commit index
        or to probe.
    """
    progress = raft.tracker.progress[to]
    if progress.paused:
        return False
    if not send_if_empty and progress.next > raft.log.last_index():
        return False  # as would be found out below
    previous = progress.next - 1
    entries: Sequence[Entry] = ()
    try:
        previous_term = raft.log.term(previous)
        # A full window lets through only empty messages, which keep a member
        # going whose entries were lost on the way.
        if not (progress.state is ProgressState.REPLICATE and progress.inflights.full):
            entries = raft.log.entries(progress.next, raft.config.max_size_per_msg)
    except (Compacted, Unavailable):
        return _send_snapshot(raft, to, progress)
    if not entries and not send_if_empty:
        return False
    raft.send(
        Message(
            MessageType.APP,
            to=to,
            index=previous,
            log_term=previous_term,
            entries=entries,
            commit=raft.log.committed,
        )
    )
    size = payload_size(entries) if raft.config.max_inflight_bytes else 0
    progress.sent_entries(len(entries), size)
    progress.sent_commit = raft.log.committed
    return True


def _send_snapshot(raft: Raft, to: int, progress: Progress) -> bool:
    if not progress.recent_active:
        raft.logger.debug(
            f"ignore sending snapshot to {to:x} since it is not recently active"
        )
        return False
    try:
        snapshot = raft.log.snapshot()
    except SnapshotTemporarilyUnavailable:
        raft.logger.debug(
            f"{raft.id:x} failed to send snapshot to {to:x} because snapshot is"
            " temporarily unavailable"
        )
        return False
    assert snapshot.index > 0, "need non-empty snapshot"
    raft.logger.debug(
        f"{raft.id:x} [firstindex: {raft.log.first_index()}, commit:"
        f" {raft.log.committed}] sent snapshot[index: {snapshot.index}, term:"
        f" {snapshot.term}] to {to:x} [{progress}]"
    )
    progress.become_snapshot(snapshot.index)
    raft.logger.debug(
        f"{raft.id:x} paused sending replication messages to {to:x} [{progress}]"
    )
    raft.send(Message(MessageType.SNAP, to=to, snapshot=snapshot))
    return True


def broadcast_append(raft: Raft) -> None:
    """Send every other member what it lacks."""
    for node in raft.tracker.progress:
        if node != raft.id:
            send_append(raft, node)


def broadcast_heartbeat(raft: Raft, context: bytes) -> None:
    """
    Tell every other member who leads.

    @param context: of a read that waits to be confirmed, or no bytes.
    """
    for node, progress in raft.tracker.progress.items():
        if node == raft.id:
            continue
        # Never more than the member is known to hold: a follower commits as
        # told (paper, section 5.3), and its log may end in somebody else's
        # entries.
        commit = min(progress.match, raft.log.committed)
        raft.send(
            Message(MessageType.HEARTBEAT, to=node, commit=commit, context=context)
        )
        progress.sent_commit = commit


def maybe_commit(raft: Raft) -> bool:
    """Commit what a quorum holds; whether that is news."""
    return raft.log.maybe_commit(raft.tracker.committed(), raft.term)


def send_timeout_now(raft: Raft, to: int) -> None:
    """Have C{to} campaign at once (thesis, section 3.10)."""
    raft.send(Message(MessageType.TIMEOUT_NOW, to=to))
