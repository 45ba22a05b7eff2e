"""
What the log says while no leader is known.

A member that cannot win goes on asking, and the core tells of each attempt, several
lines a second.  People want to know the one thing that they can do something about:
which members are needed, and which of them this one reaches; or that it waits to be
added.

Rules: it is said when it has lasted a while, then once in a long time, and when it is
over; meanwhile the core's attempts are for those who log at C{debug}.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from attrs import define
from twisted.logger import Logger

from kvdb.node.pump import NOT_ADDED, Pump
from kvdb.raft.messages import NO_NODE

log = Logger(namespace="kvdb.node")

PATIENCE: Final = 3
"""Election timeouts without a leader, until it is said: an election is over before."""

REPEAT_SECONDS: Final = 60.0
"""How often it is said."""


@define(slots=True, eq=False)
class Leaderless:
    """
    Implements L{Watcher<kvdb.node.pump.Watcher>}.

    @ivar voters: ids of the members whose votes count.
    @ivar connected: ids of the members that a connection is up to.
    @ivar url: this member's peer URL.
    """

    pump: Pump
    voters: Callable[[], Collection[int]]
    connected: Callable[[], Collection[int]]
    url: str
    _since: float | None = None
    _next: float = 0.0

    def ticked(self) -> None:
        """See L{Watcher<kvdb.node.pump.Watcher>}, as for the two below."""
        now = self.pump.clock.seconds()
        if self.pump.leader != NO_NODE:
            self._since = None
        elif self._since is None:
            self._since = now
            self._next = now + PATIENCE * self.pump.settings.election_timeout
        elif now >= self._next:
            self._next = now + REPEAT_SECONDS
            if not self.voters():
                self._tell_not_added()
                return
            self.pump.core_log.repeats = True
            self._tell(now - self._since)

    def _tell(self, seconds: float) -> None:
        voters = sorted(self.voters())
        reached = sorted({*self.connected()} & {*voters})
        log.warn(
            "no leader is known for {seconds:.1f} s: {needed} of the voters {voters}"
            " must run and reach each other; member {node} reaches {reached}",
            seconds=seconds,
            needed=len(voters) // 2 + 1,
            voters=", ".join(map(str, voters)),
            node=self.pump.node_id,
            reached=", ".join(map(str, reached)) or "none of the others",
        )

    def _tell_not_added(self) -> None:
        log.warn(
            "{why}.  Add it by POST /{node} with the body {url} to any member, or"
            " kvdbctl member add {node} {url}",
            why=NOT_ADDED,
            node=self.pump.node_id,
            url=self.url,
        )

    def leader_changed(self) -> None:
        """See there."""
        if self.pump.leader != NO_NODE and self.pump.core_log.repeats:
            self.pump.core_log.repeats = False
            log.info(
                "a leader is known again: member {leader}", leader=self.pump.leader
            )

    def applied(self, entries: int, commands: int) -> None:
        """See there: nothing follows."""
