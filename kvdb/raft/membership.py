"""
Putting another membership in force.

A membership change takes effect when it is applied, not when it is appended:
one at a time, see C{pending_conf_index} of L{Raft<kvdb.raft.state.Raft>}.
"""

from __future__ import annotations

from kvdb.raft.confchange import Change, Changer, as_v2
from kvdb.raft.messages import NO_NODE, ConfState, Role
from kvdb.raft.progress import ProgressMap
from kvdb.raft.replication import broadcast_append, maybe_commit, send_append
from kvdb.raft.state import Raft
from kvdb.raft.tracker import Configuration


def apply_conf_change(raft: Raft, change: Change) -> ConfState:
    """
    A committed change is applied; the membership that follows.

    @raise ConfChangeError: it does not fit the one in force.
    """
    changer = Changer(raft.tracker, raft.log.last_index())
    return switch_to(raft, *changer.change(as_v2(change)))


def switch_to(
    raft: Raft, configuration: Configuration, progress: ProgressMap
) -> ConfState:
    """Put C{configuration} in force, and do what follows from it."""
    raft.tracker.install(configuration, progress)
    raft.logger.info(f"{raft.id:x} switched to configuration {configuration}")
    state = configuration.conf_state()
    own = raft.tracker.progress.get(raft.id)
    raft.is_learner = own is not None and own.is_learner
    if raft.role is not Role.LEADER:
        return state
    if own is None or own.is_learner:
        # It leads until the change is committed (paper, section 6), and then
        # stops if it was told to; else it leads, as no voter, until somebody
        # takes over.
        if raft.config.step_down_on_removal:
            raft.become_follower(raft.term, NO_NODE)
        return state
    if not state.voters:
        return state
    if maybe_commit(raft):
        # A smaller quorum may have more committed than the one before.
        broadcast_append(raft)
    else:
        for node in raft.tracker.progress:
            if node != raft.id:
                send_append(raft, node, send_if_empty=False)
    if raft.transferee != NO_NODE and raft.transferee not in configuration.voters:
        raft.transferee = NO_NODE
    return state
