"""
What a node counts, in the format of Prometheus (docs/metrics.md).

The rooms count in plain numbers, and know nothing of this; they are read when
somebody asks.  Each node has a registry of its own.

Rules: labels are bounded (routes have names, peers are members, methods and
statuses are those that HTTP has); a scrape changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from attrs import define, field
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from kvdb import __version__
from kvdb.durations import BOUNDS, Durations
from kvdb.node.node import Node
from kvdb.node.status import alarms
from kvdb.peer.peers import Peers
from kvdb.raft.messages import NO_NODE
from kvdb.rest.site import Site


@define(slots=True, eq=False)
class Metrics:
    """
    One node's.

    @ivar site: None until it serves.
    """

    node: Node
    peers: Peers
    site: Site | None = None
    _registry: CollectorRegistry = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Its own: the library's is the process's, where tests run many nodes.
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(_NodeCollector(self))

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """
        All of them, and their content type.

        @param accept: the request's C{Accept} header.
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _NodeCollector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        """Nothing in advance: the registry is this node's alone."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read everything."""
        yield from self._raft()
        yield from self._disk()
        yield from self._network()
        yield from self._watches()
        if self._metrics.site is not None:
            yield from self._http(self._metrics.site)

    def _raft(self) -> Iterator[Metric]:
        node = self._metrics.node
        pump = node.pump
        core, store, proposals = pump.raft.core, pump.replica.store, pump.proposals
        build = GaugeMetricFamily("kvdb_build_info", "The release.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield _gauge(
            "kvdb_server_has_leader", "Whether one is known.", core.leader != NO_NODE
        )
        yield _gauge("kvdb_server_is_leader", "Whether it leads.", pump.leading)
        yield _counter(
            "kvdb_server_leader_changes_seen",
            "How often another leader was seen.",
            pump.leader_changes,
        )
        yield _counter(
            "kvdb_server_proposals_committed",
            "Index up to which entries are known to be committed.",
            core.log.committed,
        )
        yield _counter(
            "kvdb_server_proposals_applied",
            "Index up to which entries are applied.",
            store.applied_index,
        )
        yield _gauge(
            "kvdb_server_proposals_pending",
            "Writes that wait for their outcome.",
            len(proposals),
        )
        failed = CounterMetricFamily(
            "kvdb_server_proposals_failed",
            "Writes refused, or not seen to be carried out in time.",
            labels=["reason"],
        )
        for reason, count in proposals.failed.items():
            failed.add_metric([reason], count)
        yield failed
        yield _gauge(
            "kvdb_server_alarms",
            "What is wrong, see /_/status.",
            len(list(alarms(node.pump, node.reports))),
        )
        yield _gauge("kvdb_raft_term", "The term.", core.term)
        yield _gauge("kvdb_raft_last_index", "Of the log.", core.log.last_index())
        yield _gauge("kvdb_raft_commit_index", "Known here.", core.log.committed)
        yield _gauge("kvdb_raft_applied_index", "Applied here.", store.applied_index)
        yield _histogram(
            "kvdb_commit_duration_seconds",
            "From a write's arrival until it is carried out; of one write at a time.",
            proposals.took,
        )
        match = GaugeMetricFamily(
            "kvdb_raft_peer_match_index",
            "How much of the log a member holds, as its leader knows.",
            labels=["peer"],
        )
        lag = GaugeMetricFamily(
            "kvdb_raft_peer_lag", "Entries it is behind its leader.", labels=["peer"]
        )
        if pump.leading:
            for peer, progress in core.tracker.progress.items():
                if not progress.match:
                    continue  # not known: it has not answered this leader
                match.add_metric([str(peer)], progress.match)
                lag.add_metric([str(peer)], core.log.last_index() - progress.match)
        yield match
        yield lag

    def _disk(self) -> Iterator[Metric]:
        pump = self._metrics.node.pump
        store, log = pump.replica.store, pump.replica.log
        yield _histogram(
            "kvdb_disk_wal_fsync_duration_seconds",
            "Until what was written to the log was durable.",
            pump.writer.took,
        )
        yield _histogram(
            "kvdb_disk_backend_commit_duration_seconds",
            "To apply a slice of entries to the store.",
            pump.applies,
        )
        space = log.space()
        if space is not None:
            yield _gauge(
                "kvdb_disk_free_bytes",
                "Free bytes on the disk under the data directory.",
                space.free,
            )
            yield _gauge(
                "kvdb_disk_size_bytes",
                "Size of the disk under the data directory, in bytes.",
                space.total,
            )
        yield _gauge("kvdb_store_size_bytes", "Of the store.", store.size_bytes)
        yield _gauge("kvdb_log_size_bytes", "Of the log.", log.size_bytes)
        yield _gauge("kvdb_store_revision", "The newest.", store.revision)
        yield _gauge(
            "kvdb_store_compacted_revision",
            "History at and below it is forgotten.",
            store.compacted_revision,
        )
        yield _gauge(
            "kvdb_backups", "Backups under way.", self._metrics.node.backups.open
        )

    def _network(self) -> Iterator[Metric]:
        peers = self._metrics.peers
        connected = GaugeMetricFamily(
            "kvdb_network_peer_connected",
            "Whether messages can be sent to a member.",
            labels=["peer"],
        )
        sent = CounterMetricFamily(
            "kvdb_network_peer_sent_bytes", "In messages.", labels=["peer"]
        )
        received = CounterMetricFamily(
            "kvdb_network_peer_received_bytes", "In messages.", labels=["peer"]
        )
        dropped = CounterMetricFamily(
            "kvdb_network_peer_dropped_messages",
            "Messages that were not sent.",
            labels=["peer"],
        )
        queued = GaugeMetricFamily(
            "kvdb_network_peer_queued_bytes", "Not yet written.", labels=["peer"]
        )
        round_trip = GaugeMetricFamily(
            "kvdb_network_peer_round_trip_time_seconds",
            "To a member and back, as the kernel has measured it.",
            labels=["peer"],
        )
        for peer, status in peers.status().items():
            if status.is_member:
                label = [str(peer)]
                connected.add_metric(label, int(status.is_connected))
                sent.add_metric(label, status.bytes_sent)
                received.add_metric(label, status.bytes_received)
                dropped.add_metric(label, status.messages_dropped)
                queued.add_metric(label, status.queued_bytes)
                if status.round_trip_seconds is not None:
                    round_trip.add_metric(label, status.round_trip_seconds)
        yield from (connected, sent, received, dropped, queued, round_trip)
        snapshots = self._metrics.node.snapshots
        yield _counter(
            "kvdb_snapshots_sent", "Snapshots that have arrived.", snapshots.count_sent
        )
        yield _counter(
            "kvdb_snapshots_failed",
            "Snapshots that have not arrived.",
            snapshots.count_failed,
        )
        yield _counter(
            "kvdb_snapshots_received",
            "Snapshots that were put in place here.",
            snapshots.count_installed,
        )
        yield _gauge(
            "kvdb_snapshots_sending",
            "Snapshots on their way to members.",
            len(peers.snapshots_sending),
        )
        yield _gauge(
            "kvdb_snapshots_receiving",
            "Snapshots on their way here.",
            int(peers.snapshot_receiving is not None),
        )

    def _watches(self) -> Iterator[Metric]:
        watches = self._metrics.node.watches
        yield _gauge("kvdb_watches", "Watches.", len(watches))
        yield _gauge(
            "kvdb_watches_paused", "Watches that wait for a reader.", watches.paused
        )
        yield _counter("kvdb_watch_events", "Changes told.", watches.told_events)
        yield _counter(
            "kvdb_watches_ended_slow",
            "Watches ended because their reader was slow.",
            watches.ended_slow,
        )

    def _http(self, site: Site) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "kvdb_http_requests",
            "Requests answered.",
            labels=["route", "method", "status"],
        )
        for (route, method, status), count in site.counted():
            requests.add_metric([route, method, str(status)], count)
        yield requests
        took = HistogramMetricFamily(
            "kvdb_http_request_duration_seconds",
            "Until a request was answered; of plain reads and writes one in 64.",
            labels=["route"],
        )
        for route, durations in site.took():
            took.add_metric([route], _buckets(durations), durations.total)
        yield took
        yield _gauge("kvdb_http_connections", "Of clients.", len(site.open))


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _histogram(name: str, text: str, durations: Durations) -> Metric:
    return HistogramMetricFamily(
        name, text, buckets=_buckets(durations), sum_value=durations.total
    )


def _buckets(durations: Durations) -> list[Any]:
    bounds = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"]
    return list(zip(bounds, accumulate(durations.counts), strict=True))
