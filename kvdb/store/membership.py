"""
Which membership changes fit the replicated membership.

Pure rules, the same on every member, asked when a change is applied.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

from kvdb.raft.messages import ConfChangeType, ConfChangeV2, ConfState
from kvdb.store.commands import Member
from kvdb.store.encoding import MemberChange

MAX_URL_BYTES: Final = 1024
"""The longest peer URL, which is the longest that members can dial."""


def refusal(
    change: ConfChangeV2,
    record: MemberChange,
    members: Mapping[int, Member],
    removed: Collection[int],
    conf_state: ConfState,
) -> str | None:
    """
    Why C{change} does not fit, for people; None if it does.

    @param removed: ids that were members once.
    """
    if len(change.changes) != 1 or change.changes[0].node_id != record.member_id:
        return "a change concerns one member"
    kind = change.changes[0].type
    node = record.member_id
    if kind is ConfChangeType.REMOVE_NODE:
        return _removal(node, members, conf_state)
    if kind is ConfChangeType.ADD_LEARNER_NODE:
        return _addition(node, record.url, members, removed)
    if kind is ConfChangeType.ADD_NODE:
        if node not in conf_state.learners:
            return f"member {node} is not a learner"
        return None
    return f"a change of kind {kind.name} is not supported"


def _removal(
    node: int, members: Mapping[int, Member], conf_state: ConfState
) -> str | None:
    if node not in members:
        return f"member {node} is not in the cluster"
    if conf_state.voters == (node,):
        return f"member {node} is the only voter: without it there is no cluster"
    return None


def _addition(
    node: int, url: str, members: Mapping[int, Member], removed: Collection[int]
) -> str | None:
    if node in members:
        return f"member {node} is in the cluster already, at {members[node].url}"
    if node in removed:
        return f"member {node} was removed, and ids are not given again"
    problem = url_problem(url)
    if problem is not None:
        return problem
    for member in members.values():
        if _address(member.url) == _address(url):
            return f"{url} is the URL of member {member.id}"
    return None


def url_problem(url: str) -> str | None:
    """Why C{url} is no peer URL, or None."""
    if len(url) > MAX_URL_BYTES:
        return f"a URL of {len(url)} characters; it may have {MAX_URL_BYTES}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"{url!r} is not http://host:port or https://host:port ({error})"
    if (
        parts.scheme not in ("http", "https", "tcp")
        or not parts.hostname
        or not port
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
        or not url.isascii()
        or not url.isprintable()
        or any(c in url for c in " ,\\")
    ):
        return f"{url!r} is not http://host:port or https://host:port"
    return None


def _address(url: str) -> tuple[str | None, int | None]:
    parts = urlsplit(url)
    return parts.hostname, parts.port
