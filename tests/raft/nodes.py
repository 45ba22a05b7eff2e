"""
The nodes of the interaction language: a member of the group, its disk in
memory, and the state that it applies entries to.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from attrs import Factory, define, field

from kvdb.raft.confchange import decode_conf_change
from kvdb.raft.config import Config
from kvdb.raft.memory import MemoryLog
from kvdb.raft.messages import (
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    Snapshot,
)
from kvdb.raft.rawnode import RawNode
from kvdb.raft.readonly import ReadOnlyOption
from tests.raft.casefile import Argument, CommandFailed
from tests.raft.descriptions import quote
from tests.raft.transcript import Transcript

ELECTION_TICK: Final = 3
HEARTBEAT_TICK: Final = 1
MAX_INFLIGHT_MSGS: Final = 2**31 - 1


@define(slots=True)
class NodeLog(MemoryLog):
    """
    A log that offers the newest state of the node as a snapshot, not the one
    it began with.

    @ivar history: a snapshot for every entry applied; its data are those of
        all entries so far, one after the other.
    """

    history: list[Snapshot] = Factory(list)

    def snapshot(self) -> Snapshot:
        """The last of the history."""
        return self.history[-1]


@define
class Node:
    """One member, its disk, and the work its threads have been given."""

    raw: RawNode
    log: NodeLog
    config: Config
    append_work: list[Message] = field(factory=list)
    apply_work: list[Message] = field(factory=list)

    @property
    def id(self) -> int:
        """The member's id; the first one made is 1."""
        return self.config.id

    def write(
        self,
        hard_state: HardState | None,
        entries: Sequence[Entry],
        snapshot: Snapshot | None,
    ) -> None:
        """The append thread's work."""
        if hard_state is not None and hard_state != HardState():
            self.log.set_hard_state(hard_state)
        if snapshot is not None and snapshot.index:
            if entries:
                raise CommandFailed("can't apply snapshot and entries at the same time")
            self.log.apply_snapshot(snapshot)
        else:
            self.log.append(entries)

    def apply(self, entries: Sequence[Entry]) -> None:
        """The apply thread's work: append each entry's data to the state."""
        for entry in entries:
            before = self.log.history[-1]
            data = entry.data
            conf_state = before.conf_state
            if entry.type is not EntryType.NORMAL:
                change = decode_conf_change(entry)
                data = change.context
                conf_state = self.raw.apply_conf_change(change)
            self.log.history.append(
                Snapshot(entry.index, entry.term, conf_state, before.data + data)
            )


@define
class NewNodes:
    """What C{add-nodes} was told."""

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    index: int = 0
    content: bytes = b""
    settings: dict[str, object] = field(factory=dict)

    def take(self, argument: Argument) -> None:
        key = argument.key
        if key == "voters":
            self.voters = tuple(argument.numbers())
        elif key == "learners":
            self.learners = tuple(argument.numbers())
        elif key == "index":
            self.index = self.settings["applied"] = argument.number()
        elif key == "content":
            self.content = argument.single().encode()
        elif key == "inflight":
            self.settings["max_inflight_msgs"] = argument.number()
        elif key == "max-committed-size-per-ready":
            self.settings["max_committed_size_per_ready"] = argument.number()
        elif key == "read-only":
            try:
                option = ReadOnlyOption(argument.single())
            except ValueError:
                text = quote(argument.single().encode())
                raise CommandFailed(f"invalid read-only option {text}") from None
            self.settings["read_only_option"] = option
        else:
            self.settings[FLAGS[key]] = argument.boolean()

    def snapshot(self) -> Snapshot | None:
        """What the nodes start from; None for nothing."""
        if not (self.voters or self.learners or self.index or self.content):
            return None
        # A log begins above its snapshot, and the first entry's place is not
        # to be the first of all.
        if self.index <= 1:
            raise CommandFailed("index must be specified as > 1 due to bootstrap")
        conf_state = ConfState(self.voters, self.learners)
        return Snapshot(self.index, 1, conf_state, self.content)


FLAGS = {
    "async-storage-writes": "async_storage_writes",
    "prevote": "pre_vote",
    "checkquorum": "check_quorum",
    "disable-conf-change-validation": "disable_conf_change_validation",
    "step-down-on-removal": "step_down_on_removal",
}


def make_node(
    id: int,
    snapshot: Snapshot | None,
    settings: dict[str, object],
    transcript: Transcript,
) -> Node:
    log = NodeLog(history=[snapshot or Snapshot()])
    if snapshot is not None:
        log.apply_snapshot(snapshot)
    defaults: dict[str, object] = {"max_inflight_msgs": MAX_INFLIGHT_MSGS}
    config = Config(
        id=id,
        election_tick=ELECTION_TICK,
        heartbeat_tick=HEARTBEAT_TICK,
        random=random.Random(id),
        logger=transcript,
        **(defaults | settings),  # type: ignore[arg-type]
    )
    try:
        return Node(RawNode(config, log), log, config)
    except ValueError as error:
        raise CommandFailed(str(error)) from error
