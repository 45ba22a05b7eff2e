"""
Reads that wait until they are linearizable (thesis, section 6.4).

Reads that come in one turn form a round.  A round asks the leader once for its
commit index, under a context of its own, and all its readers may read once
that much is applied here.

Rules: a reader joins only a round that has not asked yet, for an answer speaks
of the time it was asked; a question that gets no answer is asked again, as
the leader may have changed; readers are bounded in number.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from attrs import define, field

from kvdb.interfaces import Caller, Unavailable
from kvdb.raft.messages import ReadState

MAX_WAITING: Final = 65_536
"""Readers waiting."""

MAX_ROUNDS: Final = 4
"""Rounds asked and not answered; later readers wait for one to end."""

ASK_AGAIN_AFTER: Final = 0.3
"""Seconds without an answer after which a round asks again."""

_CONTEXT = struct.Struct(">QQ")


@define(slots=True, eq=False)
class _Round:
    readers: list[tuple[float, Caller[None]]]
    asked_at: float


@define(slots=True)
class Reads:
    """
    @ivar session: this run of this node, a random unsigned 64-bit integer.
    @ivar timeout: seconds a reader waits at most.
    """

    session: int
    timeout: float
    _gathering: list[tuple[float, Caller[None]]] = field(factory=list)
    _asked: dict[bytes, _Round] = field(factory=dict)
    _confirmed: deque[tuple[int, _Round]] = field(factory=deque)
    _waiting: int = 0
    _number: int = 0

    def submit(self, now: float, caller: Caller[None]) -> None:
        """
        @param caller: told when a local read is linearizable.
        @raise Unavailable: too many wait already (here, not through the caller).
        """
        if self._waiting >= MAX_WAITING:
            raise Unavailable(
                f"{self._waiting} reads are waiting already",
                "Slow down, or read with consistency=stale.",
            )
        self._waiting += 1
        self._gathering.append((now + self.timeout, caller))

    def __len__(self) -> int:
        return self._waiting

    @property
    def confirmed(self) -> bool:
        """Whether any round waits only for what is applied here."""
        return bool(self._confirmed)

    @property
    def can_ask(self) -> bool:
        """Whether those gathered can have their round now."""
        return bool(self._gathering) and len(self._asked) < MAX_ROUNDS

    def ask(self, now: float, read_index: Callable[[bytes], None]) -> None:
        """Begin a round for those gathered."""
        if not self.can_ask:
            return
        self._number += 1
        context = _CONTEXT.pack(self.session, self._number)
        self._asked[context] = _Round(self._gathering, now)
        self._gathering = []
        read_index(context)

    def ask_again(
        self, now: float, read_index: Callable[[bytes], None], *, all_rounds: bool
    ) -> None:
        """
        Repeat the questions that got no answer.

        @param all_rounds: even the newest, as the leader has changed.
        """
        for context, round_ in list(self._asked.items()):
            if all_rounds or now - round_.asked_at >= ASK_AGAIN_AFTER:
                round_.asked_at = now
                read_index(context)

    def answer(self, state: ReadState) -> None:
        """The leader's commit index for a round."""
        round_ = self._asked.pop(state.context, None)
        if round_ is not None:
            self._confirmed.append((state.index, round_))

    def applied_to(self, index: int) -> None:
        """All up to C{index} is applied here: let those read who waited for it."""
        later: deque[tuple[int, _Round]] = deque()
        ready: list[_Round] = []
        for needed, round_ in self._confirmed:
            if needed <= index:
                ready.append(round_)
            else:
                later.append((needed, round_))
        self._confirmed = later
        for round_ in ready:
            self._waiting -= len(round_.readers)
            for _, caller in round_.readers:
                caller.callback(None)

    def expire(self, now: float, why: str) -> None:
        """Tell those whose time is up."""
        late = self._cut(self._gathering, now)
        for context, round_ in list(self._asked.items()):
            late += self._cut(round_.readers, now)
            if not round_.readers:
                del self._asked[context]
        for _, round_ in self._confirmed:
            late += self._cut(round_.readers, now)
        self._refuse(late, why)

    @staticmethod
    def _cut(
        readers: list[tuple[float, Caller[None]]], now: float
    ) -> list[Caller[None]]:
        # All wait equally long, so the oldest comes first.
        late = 0
        while late < len(readers) and readers[late][0] <= now:
            late += 1
        cut = [caller for _, caller in readers[:late]]
        del readers[:late]
        return cut

    def refuse_all(self, why: str) -> None:
        """The node stops: tell everyone."""
        rounds = [*self._asked.values(), *(round_ for _, round_ in self._confirmed)]
        self._asked.clear()
        self._confirmed.clear()
        readers = [*self._gathering, *(r for round_ in rounds for r in round_.readers)]
        self._gathering = []
        self._refuse([caller for _, caller in readers], why)

    def _refuse(self, readers: list[Caller[None]], why: str) -> None:
        self._waiting -= len(readers)
        for caller in readers:
            caller.errback(Unavailable(why, "Try again."))
