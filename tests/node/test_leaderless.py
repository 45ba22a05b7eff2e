"""What the log says of a member that knows no leader."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEvent,
    globalLogPublisher,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from kvdb.interfaces import Unavailable
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

    def test_reads_without_a_leader_are_no_lines_of_the_log(self) -> None:
        self.cluster.machines[2].stop()
        self.cluster.machines[3].stop()
        node = self.cluster.node(1)
        timeout = self.cluster.settings.election_timeout
        self.cluster.until(lambda: node.pump.leader == 0)
        self.said()
        barrier = node.read_barrier()
        self.cluster.run((PATIENCE + 1) * timeout)
        self.assertEqual([line for line in self.said() if "index reading" in line], [])
        self.cluster.machines[2].start()
        self.cluster.result(barrier)

    def test_who_waits_to_be_added_says_so(self) -> None:
        node = self.cluster.add(4).start()
        timeout = self.cluster.settings.election_timeout
        self.cluster.run((PATIENCE + 1) * timeout)
        [line] = [line for line in self.said() if "waits to join" in line]
        url = node.identity.url
        self.assertIn(f"POST /4 with the body {url} to any member", line)
        self.assertIn("waits to join", node.status().warnings[0])
        failed = self.failureResultOf(self.fails(node.read_barrier()), Unavailable)
        self.assertIn("waits to join", str(failed.value))
        self.cluster.result(self.cluster.leader().add_member(4, url))
        self.cluster.until(lambda: bool(node.replica.store.members))
        self.assertEqual([w for w in node.status().warnings if "join" in w], [])

    def fails(self, deferred: Deferred[None]) -> Deferred[None]:
        """C{deferred}, once its time is up."""
        self.cluster.run(self.cluster.settings.request_timeout + 1)
        return deferred
