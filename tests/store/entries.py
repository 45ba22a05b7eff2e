"""Log entries of commands and membership changes, and stores to apply them to."""

from __future__ import annotations

from typing import Final

from attrs import define

from kvdb.raft.messages import (
    ConfChangeSingle,
    ConfChangeType,
    ConfChangeV2,
    ConfState,
    Entry,
)
from kvdb.store.commands import Command, Member, Outcome
from kvdb.store.encoding import (
    Judged,
    encode_command,
    encode_member_change,
    join_commands,
)
from kvdb.store.store import Store

SESSION: Final = 5
TIME_MS: Final = 1_700_000_000_000
FIRST: Final = Member(1, "http://a:1")


def entry(index: int, command: Command | None) -> Entry:
    """A committed entry; None for one that asks for nothing."""
    data = b""
    if command is not None:
        made = encode_command(SESSION, index, TIME_MS + index, command)
        data = join_commands([made])
    return Entry(1, index, data=data)


def together(index: int, *commands: Command) -> Entry:
    """A committed entry of several commands."""
    made = [
        encode_command(SESSION, 100 * index + place, TIME_MS + index, command)
        for place, command in enumerate(commands)
    ]
    return Entry(1, index, data=join_commands(made))


def bootstrap(store: Store) -> None:
    """A cluster of one."""
    store.bootstrap(77, [FIRST])


def do(store: Store, *commands: Command) -> list[Outcome]:
    """Apply commands in one batch; their outcomes."""
    first = store.applied_index + 1
    entries = [entry(first + place, one) for place, one in enumerate(commands)]
    outcomes = []
    for number, settled in enumerate(store.apply(entries)):
        session, sequence, outcome = settled
        assert (session, sequence) == (SESSION, first + number)
        outcomes.append(outcome)
    return outcomes


@define(slots=True)
class Changer:
    """Commits membership changes to a store, as the node does."""

    store: Store

    def change(
        self,
        kind: ConfChangeType,
        node: int,
        url: str = "",
        token: bytes = b"",
        judged: Judged | None = None,
    ) -> Outcome:
        """Commit a change and carry it out, or what is left of it."""
        context = encode_member_change(SESSION, 1, TIME_MS, node, url, token, judged)
        v2 = ConfChangeV2((ConfChangeSingle(kind, node),), context=context)
        return self.commit(v2, node)

    def commit(self, v2: ConfChangeV2, node: int) -> Outcome:
        """As above, of a change that was made elsewhere."""
        store = self.store
        state = store.conf_state
        index = store.applied_index + 1
        if store.check_change(index, v2) is None:
            state = changed(state, v2.changes[0].type, node)
        settled = store.apply_conf_change(index, 1, v2, state)
        assert settled is not None
        return settled[2]


def changed(state: ConfState, kind: ConfChangeType, node: int) -> ConfState:
    """The membership after a simple change."""
    voters = set(state.voters) - {node}
    learners = set(state.learners) - {node}
    if kind is ConfChangeType.ADD_NODE:
        voters.add(node)
    elif kind is ConfChangeType.ADD_LEARNER_NODE:
        learners.add(node)
    return ConfState(tuple(sorted(voters)), tuple(sorted(learners)))
