"""
Which membership changes fit the replicated membership.

Pure rules, the same on every member, asked when a change is applied: functions of
the entry and of the membership at its index, and of nothing else.

Rules:

* a change is judged on the membership at its own index, whatever was in force when
  it was asked for; what else it was judged on stands in the entry (L{Judged}): which
  members were reached, and how far the learner had come;
* what such a change leaves must be able to commit: more than half of the voters are
  among those that were reached;
* an entry without L{Judged}, of an earlier release, is judged as that release did,
  but for the form of its URL: that was judged by Python's parser, whose answers
  differ between releases.  Who proposed it has judged it, so it is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from kvdb.raft.messages import ConfChangeType, ConfChangeV2, ConfState
from kvdb.store.commands import Member, Outcome, OutcomeStatus, Reason
from kvdb.store.encoding import Judged, MemberChange
from kvdb.store.urls import MAX_URL_BYTES, read_url, url_problem

CAUGHT_UP_ENTRIES: Final = 100
"""How far behind the log a learner may be to be made a voter.  The same on every
member: changing it is a new form of entry."""

TRANSIENT: Final = frozenset({Reason.TOO_FEW_REACHED, Reason.NOT_CAUGHT_UP})
"""Refused for what may pass: the same change, asked for again, is judged again, also
under the same idempotency key."""


def refusal(
    index: int,
    change: ConfChangeV2,
    record: MemberChange,
    members: Mapping[int, Member],
    removed: Collection[int],
    conf_state: ConfState,
) -> Outcome | None:
    """
    How C{change} is refused; None if it fits.

    @param index: of its entry.
    @param removed: ids that were members once.
    """
    if len(change.changes) != 1 or change.changes[0].node_id != record.member_id:
        return _refused(Reason.NOT_ONE_MEMBER)
    kind = change.changes[0].type
    node = record.member_id
    voters = voters_of(conf_state)
    if kind is ConfChangeType.REMOVE_NODE:
        if node not in members:
            return _refused(Reason.NO_MEMBER)
        if conf_state.voters == (node,):
            return _refused(Reason.ONLY_VOTER)
        left = voters - {node}
        return None if left == voters else _without_quorum(left, record.judged)
    if kind is ConfChangeType.ADD_LEARNER_NODE:
        return _addition(record, members, removed)
    if kind is ConfChangeType.ADD_NODE:
        if node not in conf_state.learners:
            return _refused(Reason.NO_LEARNER)
        judged = record.judged
        if judged is not None:
            behind = index - 1 - judged.match
            if behind > CAUGHT_UP_ENTRIES:
                return _refused(Reason.NOT_CAUGHT_UP, behind)
        return _without_quorum(voters | {node}, judged)
    return _refused(Reason.NOT_SUPPORTED)


def voters_of(conf_state: ConfState) -> set[int]:
    """Whose votes count, also while that is being changed."""
    return {*conf_state.voters, *conf_state.voters_outgoing}


def can_commit(voters: set[int], reached: Iterable[int]) -> bool:
    """Whether more than half of C{voters} are among C{reached}."""
    return 2 * len(voters.intersection(reached)) > len(voters)


def _refused(reason: Reason, number: int = 0) -> Outcome:
    return Outcome(OutcomeStatus.REFUSED, reason=reason, number=number)


def _without_quorum(voters: set[int], judged: Judged | None) -> Outcome | None:
    """Refuses what would leave C{voters} that could commit nothing."""
    if judged is None:
        return None
    if can_commit(voters, judged.reached):
        return None
    return _refused(Reason.TOO_FEW_REACHED, len(voters.intersection(judged.reached)))


def _addition(
    record: MemberChange, members: Mapping[int, Member], removed: Collection[int]
) -> Outcome | None:
    node, url = record.member_id, record.url
    if node in members:
        return _refused(Reason.IS_MEMBER)
    if node in removed:
        return _refused(Reason.WAS_REMOVED)
    if record.judged is not None:
        bad = url_problem(url) is not None
    else:
        bad = len(url) > MAX_URL_BYTES or not url.isascii()
    if bad:
        return _refused(Reason.BAD_URL)
    for member in members.values():
        if read_url(member.url)[1:] == read_url(url)[1:]:
            return _refused(Reason.URL_TAKEN, member.id)
    return None


def explain(outcome: Outcome, node: int = 0, url: str = "") -> str:
    """
    Why a command was refused, for people: made when it is told, kept nowhere.

    @param node: whom a change of the membership concerned.
    @param url: of a member that was to be added.
    """
    number = outcome.number
    texts = {
        Reason.NOT_KEPT: "it was refused when it was first asked for",
        Reason.OTHER_REQUEST: "the Idempotency-Key was used for another request before",
        Reason.OTHER_DIRECTORY: f"member {node} is known with another data directory",
        Reason.NOT_ONE_MEMBER: "a change concerns one member",
        Reason.NOT_SUPPORTED: "a change of that kind is not supported",
        Reason.NO_MEMBER: f"member {node} is not in the cluster",
        Reason.ONLY_VOTER: (
            f"member {node} is the only voter: without it there is no cluster"
        ),
        Reason.IS_MEMBER: f"member {node} is in the cluster already",
        Reason.WAS_REMOVED: f"member {node} was removed, and ids are not given again",
        Reason.BAD_URL: url_problem(url) or f"{url} is no peer URL",
        Reason.URL_TAKEN: f"{url} is the URL of member {number}",
        Reason.NO_LEARNER: f"member {node} is not a learner",
        Reason.TOO_FEW_REACHED: (
            "of the voters that there would be, too few can be reached"
            f" ({number}): the cluster would stop"
        ),
        Reason.NOT_CAUGHT_UP: f"member {node} is {number} entries behind",
    }
    return texts[outcome.reason]
