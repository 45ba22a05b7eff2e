"""A member that acknowledges before its disk has it (--sync-interval)."""

from __future__ import annotations

from pathlib import Path

from kvdb.storage.unsynced import this_boot
from tests.end_to_end.cluster import local_cluster

MORE = ("--sync-interval", "500", "--tick", "20")


def test_kills_cost_nothing_and_a_loss_of_power_the_member(tmp_path: Path) -> None:
    mark = tmp_path / "data" / "kvdb-1" / "log" / "unsynced"
    with local_cluster(tmp_path, 1, *MORE) as cluster:
        [one] = cluster.nodes.values()
        status = one.status()
        assert status["sync_interval"] == 0.5
        assert any("--sync-interval" in text for text in status["warnings"])
        assert mark.read_text() == this_boot()
        assert one.put("k", b"v").status == 204
        one.kill()
        one.start()
        one.wait_ready()
        assert one.get("k") == b"v"
        # In peace all is synced, and the next start asks nothing.
        one.stop()
        assert not mark.exists()
        one.start()
        one.wait_ready()
        one.kill()
        mark.write_text("the boot before")
        one.start()
        assert one.wait() == 1
        assert "while this member acknowledged before its disk had it" in one.log
        assert "under a new id" in one.log
        assert "Traceback" not in one.log
