"""
Proposals that other members have passed on to this one, their leader.

They wait for the end of the turn, as this member's own do, and longer while
another membership change is under way.

Rules: they are for the leader of one term, and forgotten with it: else one could
be carried out after its proposer has given it up; none is held longer than its
proposer waits; beyond a bound in bytes they are lost, as messages may be; one that
this release cannot read is dropped, for in the log it would stop every member.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field
from twisted.logger import Logger

from kvdb.raft.confchange import as_v2, decode_conf_change
from kvdb.raft.config import ProposalDropped
from kvdb.raft.messages import Entry, EntryType
from kvdb.store.encoding import (
    UnknownCommand,
    decode_command,
    decode_member_change,
    split_commands,
)

log = Logger(namespace="kvdb.node")

MAX_FORWARDED_BYTES: Final = 16 << 20
"""Held at a time, in bytes."""


def is_readable(entry: Entry) -> bool:
    """Whether what is proposed can be carried out; if not, the log says why."""
    try:
        if entry.type is EntryType.NORMAL:
            for command in split_commands(entry.data):
                decode_command(command)
        else:
            decode_member_change(as_v2(decode_conf_change(entry)).context)
    except (UnknownCommand, ValueError) as error:
        log.warn(
            "a proposal of another member is dropped: {reason}.  Is it of a later"
            " release?",
            reason=str(error),
        )
        return False
    return True


@define(slots=True, eq=False)
class Forwarded:
    """
    @ivar timeout: seconds that a proposer waits.
    @ivar term: of the leader that they are for.
    @ivar size_bytes: of all that are held.
    """

    timeout: float
    term: int = 0
    size_bytes: int = 0
    _held: deque[tuple[float, Entry]] = field(factory=deque)

    def __len__(self) -> int:
        return len(self._held)

    def keep(self, term: int) -> None:
        """Hold none but those for C{term}'s leader."""
        if term != self.term:
            self.clear()
            self.term = term

    def clear(self) -> None:
        """Forget them all."""
        self._held.clear()
        self.size_bytes = 0

    def hold(self, now: float, entries: Sequence[Entry]) -> None:
        """Hold those of C{entries} that can be read, and for which there is room."""
        for entry in entries:
            if not is_readable(entry):
                continue
            if self.size_bytes + entry.size > MAX_FORWARDED_BYTES:
                return
            # Its encoded form is of no place in the log.
            bare = Entry(0, 0, entry.type, entry.data)
            self._held.append((now + self.timeout, bare))
            self.size_bytes += entry.size

    def expire(self, now: float) -> None:
        """Forget those whose proposers wait no more."""
        while self._held and self._held[0][0] <= now:
            self.size_bytes -= self._held.popleft()[1].size

    def offer(self, propose: Callable[[Sequence[Entry]], None]) -> None:
        """
        Propose them: the commands at once, a membership change by itself.

        @param propose: raises L{ProposalDropped} where no more are taken now.
        """
        held, self._held = self._held, deque()
        self.size_bytes = 0
        while held:
            batch = [held.popleft()]
            if batch[0][1].type is EntryType.NORMAL:
                while held and held[0][1].type is EntryType.NORMAL:
                    batch.append(held.popleft())
            try:
                propose([entry for _, entry in batch])
            except ProposalDropped:
                self._held.extend([*batch, *held])
                self.size_bytes = sum(entry.size for _, entry in self._held)
                return
