"""
Proposals that other members have passed on to this one, their leader.

They wait for the end of the turn, as this member's own do, and longer while
another membership change is under way.

Rules: they are for the leader of one term, and forgotten with it: else one could
be carried out after its proposer has given it up; none is held longer than its
proposer waits; beyond a bound in bytes for each proposer they are lost, as messages
may be, which no member comes to that keeps to its window
(L{kvdb.node.proposals.MAX_PASSED_BYTES}); one that this release cannot read is
dropped, for in the log it would stop every member.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from attrs import define, field, frozen
from twisted.logger import Logger

from kvdb.node.proposals import MAX_PASSED_BYTES
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

MAX_FORWARDED_BYTES: Final = 4 * MAX_PASSED_BYTES
"""Held at a time of one member's, in bytes, or one entry of any size.  A member that
connects again, or whose callers have given up, passes on another window."""


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


@frozen(slots=True)
class _Held:
    """
    @ivar deadline: when its proposer gives up.
    @ivar sender: the proposer's node id.
    """

    deadline: float
    sender: int
    entry: Entry


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
    _held: deque[_Held] = field(factory=deque)
    _sizes: Counter[int] = field(factory=Counter)  # bytes held, by sender

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
        self._sizes.clear()
        self.size_bytes = 0

    def hold(self, now: float, sender: int, entries: Sequence[Entry]) -> None:
        """Hold those of C{entries} that can be read, and for which there is room."""
        for entry in entries:
            if not is_readable(entry):
                continue
            of_sender = self._sizes[sender]
            if of_sender and of_sender + entry.size > MAX_FORWARDED_BYTES:
                return
            # Its encoded form is of no place in the log.
            bare = Entry(0, 0, entry.type, entry.data)
            self._put(_Held(now + self.timeout, sender, bare))

    def _put(self, held: _Held) -> None:
        self._held.append(held)
        self._sizes[held.sender] += held.entry.size
        self.size_bytes += held.entry.size

    def expire(self, now: float) -> None:
        """Forget those whose proposers wait no more."""
        while self._held and self._held[0].deadline <= now:
            held = self._held.popleft()
            self._sizes[held.sender] -= held.entry.size
            self.size_bytes -= held.entry.size

    def offer(self, propose: Callable[[Sequence[Entry]], None]) -> None:
        """
        Propose them: the commands at once, a membership change by itself.

        @param propose: raises L{ProposalDropped} where no more are taken now.
        """
        waiting, self._held = self._held, deque()
        self.clear()
        while waiting:
            batch = [waiting.popleft()]
            if batch[0].entry.type is EntryType.NORMAL:
                while waiting and waiting[0].entry.type is EntryType.NORMAL:
                    batch.append(waiting.popleft())
            try:
                propose([held.entry for held in batch])
            except ProposalDropped:
                for held in (*batch, *waiting):
                    self._put(held)
                return
