"""
What a follower does when the leader's process is gone.

A killed process closes its connections and its port at once, while an election
timeout takes a second or two.  So a follower whose leader has hung up and
listens no more forgets it, and asks for pre-votes after a short random time, a
few times over.

Rules: that is all it does, and nothing rests on its being right.  Raft is safe
whatever begins an election; members that still hear the leader refuse the
pre-vote (paper, section 6, and thesis, 9.6), and a leader that is heard again
is followed again, in its term.
"""

from __future__ import annotations

from random import Random
from typing import Final

from attrs import define
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from kvdb.node.pump import Pump
from kvdb.raft.messages import NO_NODE

log = Logger(namespace="kvdb.node")

MAX_CAMPAIGNS: Final = 5
"""How often a follower campaigns for one leader that is gone; then the election
timeout is waited for."""

FIRST_SECONDS: Final = 0.06
"""The longest time before the first; drawn, so that two followers do not split
the votes."""

NEXT_SECONDS: Final = (0.05, 0.15)
"""The shortest and the longest time before each of the next."""


@define(slots=True, eq=False)
class Failover:
    """Implements L{Watcher<kvdb.node.pump.Watcher>}."""

    pump: Pump
    clock: IReactorTime
    random: Random
    _left: int = 0
    _term: int = 0
    _next: IDelayedCall | None = None

    def process_gone(self, node_id: int) -> None:
        """No process of that member is there any more."""
        pump = self.pump
        if not pump.running or pump.leading or pump.leader != node_id:
            return
        log.info(
            "the leader, member {leader}, has hung up and listens no more: it is"
            " forgotten",
            leader=node_id,
        )
        pump.forget_leader()
        self._left = MAX_CAMPAIGNS
        self._term = pump.raft.core.term
        self._later(self.random.uniform(0, FIRST_SECONDS))

    def _later(self, seconds: float) -> None:
        self.stop()
        self._next = self.clock.callLater(seconds, self._campaign)

    def _campaign(self) -> None:
        self._next = None
        pump = self.pump
        if not pump.running or pump.leader != NO_NODE or not pump.may_lead:
            return
        term = pump.raft.core.term
        if term == self._term:
            pump.campaign()
        # Else somebody's election is under way: it has its time.
        self._term = pump.raft.core.term
        self._left -= 1
        if self._left:
            self._later(self.random.uniform(*NEXT_SECONDS))

    def stop(self) -> None:
        """Campaign no more."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def leader_changed(self) -> None:
        """See L{Watcher<kvdb.node.pump.Watcher>}, as for the two below."""
        if self.pump.leader != NO_NODE:
            self.stop()

    def ticked(self) -> None:
        """Nothing is due."""

    def applied(self, entries: int, commands: int) -> None:
        """Nothing follows from that here."""
