"""
What the members tell each other of themselves, and what follows from it.

Mostly that people can be shown it, whichever member they ask.  But each report
also carries the hashes of what was applied (L{kvdb.store.windows}), and a
replica that differs from most others at an equal index is wrong, whatever the
cause: it stops, and does not start again on that data.

Rules:

* the odd one stops itself; the others name it, and go on;
* where no hash has a majority, nobody knows who is wrong: all say so, loudly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from attrs import define, field
from twisted.logger import Logger

from kvdb import __version__
from kvdb.node.pump import Pump
from kvdb.peer.report import Report
from kvdb.raft.messages import Role
from kvdb.store.windows import MAX_WINDOWS

log = Logger(namespace="kvdb.node")

FRESH_SECONDS: Final = 5.0
"""How old a report may be, to be shown."""

REPORTED_WINDOWS: Final = 8
"""How many windows a report holds: more than are applied between two, mostly."""


_ROLES: Final = {
    Role.FOLLOWER: "follower",
    Role.CANDIDATE: "candidate",
    Role.PRE_CANDIDATE: "candidate",
    Role.LEADER: "leader",
}


def own_role(pump: Pump) -> str:
    """This member's role, in a word."""
    return "learner" if pump.raft.core.is_learner else _ROLES[pump.raft.core.role]


@define(slots=True, eq=False)
class Reports:
    """
    See the head of this module.

    @ivar client_url: where this member serves clients; empty until it does.
    @ivar connected: ids of the members that a connection is up to.
    @ivar diverged: told why this member's data must not be used any more.
    @ivar alarms: what was found, in sentences, and the other members it names.
    """

    pump: Pump
    connected: Callable[[], list[int]]
    diverged: Callable[[str], None]
    client_url: str = ""
    alarms: dict[str, list[int]] = field(factory=dict)
    _latest: dict[int, tuple[float, Report, int]] = field(factory=dict)
    _heard: dict[int, dict[int, int]] = field(factory=dict)
    _differs_since: dict[int, float] = field(factory=dict)

    def own(self) -> Report:
        """What this member says of itself."""
        pump = self.pump
        core, store = pump.raft.core, pump.replica.store
        newest = [*store.windows.hashes.items()][-REPORTED_WINDOWS:]
        return Report(
            own_role(pump),
            core.term,
            core.leader,
            core.log.committed,
            store.applied_index,
            core.log.last_index(),
            store.revision,
            store.size_bytes,
            pump.replica.log.size_bytes,
            __version__,
            self.client_url,
            tuple(self.connected()),
            tuple(newest),
            pump.may_lead,
            not pump.settings.sync_interval,
        )

    def received(self, sender: int, report: Report) -> None:
        """What another member says of itself."""
        if sender not in self.pump.replica.store.members:
            return
        own_last = self.pump.raft.core.log.last_index()
        self._latest[sender] = (self.pump.clock.seconds(), report, own_last)
        for index, window in report.windows:
            if index in self._heard or index > self._oldest_kept():
                self._heard.setdefault(index, {})[sender] = window
                self._compare(index)
        while len(self._heard) > MAX_WINDOWS:
            oldest = min(self._heard)
            del self._heard[oldest]
            self._differs_since.pop(oldest, None)

    def latest(self, node: int) -> tuple[float, Report] | None:
        """A member's last report and its age in seconds, if it is fresh."""
        if node == self.pump.node_id:
            return 0.0, self.own()
        found = self._latest.get(node)
        if found is None:
            return None
        age = self.pump.clock.seconds() - found[0]
        return None if age > FRESH_SECONDS else (age, found[1])

    def behind(self, node: int) -> int | None:
        """
        By how many entries a member's log was behind this one's when it last reported,
        if that is fresh.
        """
        found = self._latest.get(node)
        if found is None or self.latest(node) is None:
            return None
        _, report, own_last = found
        return max(0, own_last - report.last_index)

    def _oldest_kept(self) -> int:
        return min(self._heard) if len(self._heard) >= MAX_WINDOWS else 0

    def ticked(self) -> None:
        """Forget who is no member; compare what was applied since it was heard of."""
        for node in self._latest.keys() - self.pump.replica.store.members.keys():
            self._forget(node)
        for index in list(self._heard):
            self._compare(index)

    def _forget(self, node: int) -> None:
        """It was removed, and what was wrong with it is no matter any more."""
        del self._latest[node]
        for heard in self._heard.values():
            heard.pop(node, None)
        for alarm, named in list(self.alarms.items()):
            if node in named:
                del self.alarms[alarm]

    def _compare(self, index: int) -> None:
        """Hold what is known of one window against each other."""
        store = self.pump.replica.store
        own = store.windows.hashes.get(index)
        heard = self._heard[index]
        if own is None or all(window == own for window in heard.values()):
            return
        hashes = {**heard, self.pump.node_id: own}
        voters = self.pump.raft.core.tracker.configuration.voters
        counts = Counter(hashes[node] for node in hashes if node in voters)
        agreed = [w for w, count in counts.items() if count > len(voters) // 2]
        others = sorted(node for node in heard if heard[node] != own)
        if not agreed:
            now = self.pump.clock.seconds()
            if now - self._differs_since.setdefault(index, now) < FRESH_SECONDS:
                return  # who else has an opinion may yet say so
            self._say(
                f"members {_names([self.pump.node_id, *others])} differ in what they"
                f" hold at index {index}, and it is not known which is right: look"
                " at each one's data (kvdbctl status, kvdbctl fsck), and replace the"
                " wrong one",
                others,
            )
        elif own != agreed[0]:
            right = sorted(n for n in heard if heard[n] == agreed[0])
            self.diverged(
                f"member {self.pump.node_id} differs from members {_names(right)} in"
                f" what it holds at index {index}: its memory, its disk or its release"
                " is at fault.  Remove it from the cluster, and add it under a new id"
                " with an empty data directory, on a machine that is well"
            )
        else:
            self._say(
                f"member {_names(others)} differs from most others in what it holds at"
                f" index {index}, and stops: replace it",
                others,
            )

    def _say(self, alarm: str, others: list[int]) -> None:
        kind = alarm.partition(" at index ")[0]
        if not any(known.startswith(kind) for known in self.alarms):
            self.alarms[alarm] = others
            log.critical("{alarm}", alarm=alarm)


def _names(nodes: list[int]) -> str:
    return ", ".join(str(node) for node in sorted(nodes))
