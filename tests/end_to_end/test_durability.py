"""What is acknowledged survives SIGKILL of everybody at once."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

from tests.end_to_end.cluster import LocalCluster, ask, local_cluster

ROUNDS = int(os.environ.get("ROUNDS", "8"))
WRITERS = 4


class Writer(threading.Thread):
    """
    Writes ever higher numbers to its own keys.

    @ivar acknowledged: the highest number acknowledged, by key.
    @ivar tried: the highest number tried, by key.
    """

    def __init__(self, number: int, cluster: LocalCluster) -> None:
        super().__init__(daemon=True)
        self.keys = [f"w{number}-{k}" for k in range(5)]
        self.acknowledged = dict.fromkeys(self.keys, 0)
        self.tried = dict.fromkeys(self.keys, 0)
        self.random = random.Random(number)
        self.ended = threading.Event()
        self.cluster = cluster

    def run(self) -> None:
        """Until it is ended."""
        while not self.ended.is_set():
            key = self.random.choice(self.keys)
            node = self.random.choice(list(self.cluster.nodes.values()))
            number = self.tried[key] = self.tried[key] + 1
            try:
                answer = ask("PUT", f"{node.url}/{key}", b"%d" % number, timeout=3)
            except OSError:
                time.sleep(0.005)  # nobody listens: do not spin
                continue
            if answer.status == 204:
                self.acknowledged[key] = number


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    source = random.Random(7)
    with local_cluster(
        tmp_path, 3, "--tick", "20", "--snapshot-count", "200"
    ) as cluster:
        writers = [Writer(n, cluster) for n in range(WRITERS)]
        for writer in writers:
            writer.start()
        try:
            for round_ in range(ROUNDS):
                time.sleep(0.1 + source.random() * 0.4)  # load of some length
                for node in cluster.nodes.values():
                    node.signal(signal.SIGKILL)
                known = [dict(writer.acknowledged) for writer in writers]
                for node in cluster.nodes.values():
                    node.wait()
                for node in cluster.nodes.values():
                    node.start()
                for node in cluster.nodes.values():
                    node.wait_ready()
                reader = cluster.nodes[1 + round_ % 3]
                for writer, least in zip(writers, known, strict=True):
                    for key in writer.keys:
                        found = int(reader.get(key) or b"0")
                        assert least[key] <= found <= writer.tried[key], (
                            f"round {round_}: {key} is {found}, acknowledged was"
                            f" {least[key]}, tried {writer.tried[key]}"
                        )
        finally:
            for writer in writers:
                writer.ended.set()
            for writer in writers:
                writer.join(10)
        total = sum(sum(writer.acknowledged.values()) for writer in writers)
        assert total > ROUNDS * 20, f"only {total} writes were acknowledged"
