"""
Who is a member, as the replicated state has it.

=====  =======================================  ==================================
``n``  member id                                the member
``r``  member id                                a member that was removed
``mc``                                          voters, learners, and those on their
                                                way in or out
=====  =======================================  ==================================

Rules: an id that was removed is never given again; which changes fit says
L{kvdb.store.membership}.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

from attrs import define, evolve, field

from kvdb.raft.messages import ConfChangeType, ConfState
from kvdb.store.batch import WriteBatch
from kvdb.store.commands import (
    Member,
    Outcome,
    OutcomeStatus,
    Reason,
    RegisterInstance,
)
from kvdb.store.encoding import (
    MemberChange,
    decode_conf_state,
    decode_member,
    encode_conf_state,
    encode_member,
)
from kvdb.store.engine import Engine

_CONF_STATE_KEY: Final = b"mc"
_U64: Final = struct.Struct(">Q")


@define(slots=True, eq=False)
class Members:
    """
    @ivar by_id: in order of their ids.
    @ivar removed: ids that were members once.
    """

    by_id: dict[int, Member] = field(factory=dict)
    removed: set[int] = field(factory=set)
    conf_state: ConfState = field(factory=ConfState)

    @classmethod
    def load(cls, engine: Engine) -> Members:
        """What an engine knows of them."""
        data = engine.get(_CONF_STATE_KEY)
        removed = {_U64.unpack(key[1:])[0] for key, _ in engine.scan(b"r", b"s")}
        members = cls({}, removed, decode_conf_state(data) if data else ConfState())
        members._set(decode_member(data) for _, data in engine.scan(b"n", b"o"))
        return members

    def begin(
        self, batch: WriteBatch, members: Sequence[Member], conf_state: ConfState
    ) -> None:
        """Let C{members} be all there are, and all there ever were."""
        for node in self.by_id:
            batch.changes[b"n" + _U64.pack(node)] = None
        for node in self.removed:
            batch.changes[b"r" + _U64.pack(node)] = None
        self.by_id, self.removed = {}, set()
        for member in members:
            self._put(batch, member)
        self.set_conf_state(batch, conf_state)

    def change(
        self, batch: WriteBatch, kind: ConfChangeType, record: MemberChange
    ) -> None:
        """Carry out a change that fits; its C{conf_state} follows."""
        node = record.member_id
        if kind is ConfChangeType.REMOVE_NODE:
            del self.by_id[node]
            self.removed.add(node)
            batch.changes[b"n" + _U64.pack(node)] = None
            batch.changes[b"r" + _U64.pack(node)] = b""
        elif node not in self.by_id:
            self._put(batch, Member(node, record.url))

    def register_instance(
        self, batch: WriteBatch, command: RegisterInstance
    ) -> Outcome:
        """Note which data directory is a member's."""
        member = self.by_id.get(command.node_id)
        if member is None:
            return Outcome(OutcomeStatus.NOT_FOUND)
        if member.instance_id not in (0, command.instance_id):
            return Outcome(OutcomeStatus.REFUSED, reason=Reason.OTHER_DIRECTORY)
        self._put(batch, evolve(member, instance_id=command.instance_id))
        return Outcome(OutcomeStatus.DONE)

    def set_conf_state(self, batch: WriteBatch, conf_state: ConfState) -> None:
        """Who votes, and who learns."""
        self.conf_state = conf_state
        batch.changes[_CONF_STATE_KEY] = encode_conf_state(conf_state)
        self._set(self.by_id.values())

    def _put(self, batch: WriteBatch, member: Member) -> None:
        self.by_id[member.id] = member
        batch.changes[b"n" + _U64.pack(member.id)] = encode_member(member)

    def _set(self, members: Iterable[Member]) -> None:
        learners = self.conf_state.learners
        self.by_id = {
            member.id: evolve(member, learner=member.id in learners)
            for member in sorted(members, key=lambda member: member.id)
        }
