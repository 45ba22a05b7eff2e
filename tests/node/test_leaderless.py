"""What the log says of a member that knows no leader."""

from __future__ import annotations

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from kvdb.node.leaderless import PATIENCE, REPEAT_SECONDS
from tests.node.cluster import Cluster


class LeaderlessTests(SynchronousTestCase):
    """See the head of kvdb.node.leaderless."""

    def setUp(self) -> None:
        self.cluster = Cluster(3)
        self.cluster.settle()
        self.lines: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event["log_level"] >= LogLevel.info:
                self.lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def said(self) -> list[str]:
        """What was logged since this was last asked, but for debugging."""
        said, self.lines[:] = self.lines.copy(), []
        return said

    def test_who_is_needed_is_said_and_not_each_attempt(self) -> None:
        self.cluster.machines[2].stop()
        self.cluster.machines[3].stop()
        timeout = self.cluster.settings.election_timeout
        self.cluster.run((PATIENCE + 3) * timeout)
        said = self.said()
        self.assertTrue(
            any(
                line.startswith("member 1 is pre-candidate, no leader") for line in said
            ),
            said,
        )
        [line] = [line for line in said if "no leader is known" in line]
        self.assertIn(
            "2 of the voters 1, 2, 3 must run and reach each other; member 1 reaches"
            " none of the others",
            line,
        )
        self.cluster.run(REPEAT_SECONDS)
        [line] = self.said()
        self.assertIn("no leader is known for 6", line)
        self.cluster.machines[2].start()
        self.cluster.leader()
        self.cluster.run(1)
        said = self.said()
        self.assertTrue(any("a leader is known again" in line for line in said), said)
        # From then on elections are told in full.
        self.cluster.node(self.cluster.leader().pump.node_id % 2 + 1).pump.campaign()
        self.cluster.run(1)
        self.assertTrue(any("pre-candidate" in line for line in self.said()))

    def test_an_election_is_no_reason(self) -> None:
        leader = self.cluster.leader().pump.node_id
        self.cluster.machines[leader].stop()
        self.cluster.leader()
        self.cluster.run(1)
        self.assertEqual([x for x in self.said() if "no leader is known" in x], [])
