"""What is said before a disk is full."""

from __future__ import annotations

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import provider

from kvdb.node.disk_space import LOOK_SECONDS
from tests.node.cluster import Cluster


class LittleSpace(SynchronousTestCase):
    def test_there_is_an_alarm_before_the_disk_is_full(self) -> None:
        lines: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        cluster = Cluster(1, low_space_bytes=100 << 20)
        node = cluster.leader()
        disk = cluster.machines[1].disk

        def said() -> list[str]:
            cluster.run(2 * LOOK_SECONDS)
            found = [line for line in lines if "space" in line or "MiB" in line]
            lines.clear()
            return found

        disk.space = 200 << 20
        self.assertEqual((list(node.status().alarms), said()), ([], []))
        disk.space = 50 << 20
        [alarm] = node.status().alarms
        self.assertEqual(
            alarm,
            "50 MiB are left on the disk under /data, of 1024: free some before writes"
            " are refused (--low-space 100)",
        )
        self.assertEqual(said(), [alarm])
        disk.space = 200 << 20
        self.assertEqual(said(), ["there is enough space on the disk again"])
        self.assertEqual(list(node.status().alarms), [])

    def test_without_a_bound_there_is_none(self) -> None:
        cluster = Cluster(1, low_space_bytes=0)
        node = cluster.leader()
        cluster.machines[1].disk.space = 1 << 20
        self.assertEqual(list(node.status().alarms), [])
