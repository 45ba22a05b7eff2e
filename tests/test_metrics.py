"""Metrics of a node, and of a real one."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from kvdb.durations import BOUNDS, Durations
from kvdb.interfaces import NodeStatus
from kvdb.rest.app import route_of
from kvdb.store.commands import Delete, Put
from tests.end_to_end.cluster import ask, local_cluster, until
from tests.rest.local import Server
from tests.test_service import Nodes, with_nodes

PAGE = Path(__file__).parents[1] / "docs/metrics.md"


class DurationsTests(SynchronousTestCase):
    """Histograms."""

    def test_each_falls_in_its_bucket(self) -> None:
        durations = Durations()
        for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1], BOUNDS[-1] * 2):
            durations.observe(seconds)
        self.assertEqual(durations.counts[:2], [2, 1])
        self.assertEqual(durations.counts[-2:], [1, 1])
        self.assertAlmostEqual(durations.total, BOUNDS[0] * 2.01 + BOUNDS[-1] * 3)


class CountingTests(SynchronousTestCase):
    """What a server counts of its requests."""

    def test_requests_by_route_method_and_status(self) -> None:
        server = Server()
        talk = server.connect()
        site = talk.protocol.factory
        for line in (
            b"PUT /a HTTP/1.1\r\nContent-Length: 1",
            b"GET /a HTTP/1.1",
            b"GET /none HTTP/1.1",
            b"GET /a?consistency=stale HTTP/1.1",
            b"GET /_/kv/a HTTP/1.1",
            b"DELETE /a HTTP/1.1",
            b"BREW /a HTTP/1.1",
            b"GET /_/kv?limit=1 HTTP/1.1",
            b"DELETE /_/members/x HTTP/1.1",
            b"GET /_/bogus HTTP/1.1",
        ):
            talk.say(line + b"\r\nHost: h\r\n\r\n" + b"v" * line.startswith(b"PUT"))
        self.assertEqual(
            dict(site.counted()),
            {
                ("key", "PUT", 204): 1,
                ("key", "GET", 200): 3,
                ("key", "GET", 404): 1,
                ("key", "DELETE", 204): 1,
                ("key", "other", 405): 1,
                ("list", "GET", 200): 1,
                ("members", "DELETE", 400): 1,
                ("none", "GET", 404): 1,
            },
        )

    def test_routes_are_few_whatever_is_asked(self) -> None:
        for uri, route in (
            (b"/a", "key"),
            (b"/_/kv/x", "key"),
            (b"/_/kv", "list"),
            (b"/_/watch?since=1", "watch"),
            (b"/_/members/17", "members"),
            (b"/health", "health"),
            (b"/_/%41", "none"),
            (b"/v3/kv/range", "none"),
            (b"*", "none"),
            (b"\xff", "none"),
        ):
            self.assertEqual(route_of(uri), route)

    def test_plain_requests_are_measured_now_and_then(self) -> None:
        server = Server()
        server.clock.advance(1)
        talk = server.connect()
        server.database.write(Put(b"/a", b"v"))
        for _ in range(130):
            talk.say(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n")
        server.database.write(Delete(b"/a"))
        took = dict(talk.protocol.factory.took())["key, plain"]
        self.assertEqual(sum(took.counts), 2)


@with_nodes(3)
async def test_nodes_of_one_process_count_apart(nodes: Nodes) -> None:
    """Each in a registry of its own; who is no member is not spoken of."""

    async def scraped(number: int) -> dict[str, float]:
        status, body, _ = await nodes.ask("GET", number, "/metrics")
        assert status == 200
        return samples(body)

    def peers(found: dict[str, float], name: str) -> set[str]:
        return {sample for sample in found if sample.startswith(name + "{")}

    written = "kvdb_http_requests_total{method=PUT,route=key,status=204}"
    for number in (1, 2):
        for _ in range(number):
            assert (await nodes.ask("PUT", number, "/k", b"v"))[0] == 204
    found = {number: await scraped(number) for number in (1, 2, 3)}
    assert [found[number].get(written) for number in (1, 2, 3)] == [1, 2, None]
    assert sum(each["kvdb_server_is_leader{}"] for each in found.values()) == 1
    for number, each in found.items():
        others = {f"{{peer={n}}}" for n in (1, 2, 3) if n != number}
        for what in ("connected", "sent_bytes_total", "round_trip_time_seconds"):
            name = f"kvdb_network_peer_{what}"
            assert peers(each, name) == {name + other for other in others}
    assert (await nodes.ask("DELETE", 1, "/3"))[0] == 204
    await nodes.until(lambda: nodes.loops[3].stops)
    name = "kvdb_network_peer_connected"
    for number, other in ((1, 2), (2, 1)):
        status = nodes.running[number].status
        await nodes.until(partial(gone, status, 3))
        assert peers(await scraped(number), name) == {f"{name}{{peer={other}}}"}


def gone(status: Callable[[], NodeStatus], member: int) -> bool:
    """Whether a node knows no such member any more."""
    return member not in {one.id for one in status().members}


def samples(body: bytes) -> dict[str, float]:
    """By name and labels."""
    found = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


def scrape(url: str) -> dict[str, float]:
    """Samples by name and labels."""
    answer = ask("GET", url + "/metrics", headers={"Accept": "text/plain"})
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return samples(answer.body)


def test_a_real_cluster_is_scraped(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 3) as cluster:
        leader = cluster.leader()
        for number in range(20):
            assert leader.put(f"k{number}", b"v").status == 204
        assert leader.get("k1") == b"v"
        others = [n for n in cluster.nodes.values() if n is not leader]
        peers = [str(n.number) for n in others]
        lags = [f"kvdb_raft_peer_lag{{peer={peer}}}" for peer in peers]
        until(lambda: not any(scrape(leader.url)[lag] for lag in lags), "all caught up")
        found = scrape(leader.url)
        assert found["kvdb_server_is_leader{}"] == 1
        assert found["kvdb_server_has_leader{}"] == 1
        assert found["kvdb_store_revision{}"] == 20
        assert found["kvdb_commit_duration_seconds_count{}"] >= 10
        assert found["kvdb_disk_wal_fsync_duration_seconds_count{}"] >= 10
        assert found["kvdb_disk_wal_fsync_duration_seconds_sum{}"] > 0
        assert found["kvdb_http_requests_total{method=PUT,route=key,status=204}"] == 20
        for peer in peers:
            assert found[f"kvdb_network_peer_connected{{peer={peer}}}"] == 1
            assert found[f"kvdb_network_peer_sent_bytes_total{{peer={peer}}}"] > 0
            assert found[f"kvdb_network_peer_received_bytes_total{{peer={peer}}}"] > 0
            trip = found[f"kvdb_network_peer_round_trip_time_seconds{{peer={peer}}}"]
            assert 0 < trip < 1
        assert found["kvdb_raft_applied_index{}"] == found["kvdb_raft_last_index{}"]
        assert found["kvdb_server_proposals_failed_total{reason=busy}"] == 0
        assert found["process_resident_memory_bytes{}"] > 1e6
        # The page names each of them, and nothing else.
        text = PAGE.read_text()
        names = {name.partition("{")[0] for name in found if name.startswith("kvdb")}
        bare = {re.sub(r"_(bucket|sum|count)$", "", name) for name in names}
        documented = set(re.findall(r"^\| `(kvdb_\w+)", text, re.M))
        assert {name for name in bare if not name.endswith("_created")} == documented
        follower = scrape(others[0].url)
        assert follower["kvdb_server_is_leader{}"] == 0
        assert not [name for name in follower if name.startswith("kvdb_raft_peer")]
        again = ask("GET", leader.url + "/metrics?x=1")
        assert again.status == 400
        assert ask("POST", leader.url + "/metrics").status == 405
        assert ask("PUT", leader.url + "/metrics", b"v").status == 409
        opened = ask(
            "GET",
            leader.url + "/metrics",
            headers={"Accept": "application/openmetrics-text"},
        )
        assert opened.body.rstrip().endswith(b"# EOF")
