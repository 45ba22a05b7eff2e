"""
A leader that had better not lead has somebody else do it.

That is so when it stops, and while its disk is full: it could still send out
heartbeats and answer reads, but take no write, also not one that is passed on
to it by a member that has space.

Rules: nobody is asked whose disk takes no writes; a leader with a full disk goes
on leading, for the sake of reads, where no other reaches a majority of members that
could vote for it (it cannot vote itself, as it could not write down for whom).
"""

from __future__ import annotations

from typing import Final

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvdb.node.changes import Changes
from kvdb.node.pump import Pump
from kvdb.node.reports import Reports

log = Logger(namespace="kvdb.node")

AGAIN_SECONDS: Final = 5.0
"""How long until it is tried again, if nothing came of it."""


def _not_handed_over(failure: Failure) -> None:
    log.info(
        "leadership was not handed over: {reason}", reason=failure.getErrorMessage()
    )


@define(slots=True, eq=False)
class HandOver:
    """Implements L{Watcher<kvdb.node.pump.Watcher>}."""

    pump: Pump
    changes: Changes
    reports: Reports
    _again_at: float = 0.0

    def before_stop(self) -> Deferred[None]:
        """
        Have somebody else lead, if this node does and anybody can.  Fires when
        that is done or was tried for an election timeout.
        """
        if not self.pump.leading or not self.pump.running:
            return succeed(None)
        handed: Deferred[int] = self.changes.transfer(None)
        return handed.addCallbacks(lambda _: None, _not_handed_over)

    def ticked(self) -> None:
        """See L{Watcher<kvdb.node.pump.Watcher>}, as for the two below."""
        now = self.pump.clock.seconds()
        if not self.pump.leading or self.pump.writer.full is None:
            self._again_at = 0.0
        elif now >= self._again_at:
            self._again_at = now + AGAIN_SECONDS
            self._relieve()

    def leader_changed(self) -> None:
        """Nothing follows from that here."""

    def applied(self, entries: int, commands: int) -> None:
        """Nor from that."""

    def _relieve(self) -> None:
        voters = self.changes.voters()
        able = voters & {n for n in self.reports.connected() if self._could_vote(n)}
        ready = {n for n in able if len(able & self._reached(n)) > len(voters) // 2}
        if not ready:
            return
        to = self.changes.successor(ready)
        log.warn(
            "the disk is full: leadership is handed to member {to}, which has space",
            to=to,
        )
        self.changes.transfer(to).addErrback(_not_handed_over)

    def _could_vote(self, node: int) -> bool:
        found = self.reports.latest(node)
        return found is not None and found[1].takes_writes

    def _reached(self, node: int) -> set[int]:
        """Whom that member has a connection to, and itself."""
        found = self.reports.latest(node)
        return {node} if found is None else {node, *found[1].links}
