"""
Pictures for the pages: C{python -m tests.ui.screenshots docs/images}.

Of real nodes in three states, with writes and reads going on: well, one member
stopped, and a new one that catches up; and of the keys.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.end_to_end.cluster import LocalCluster, Process, ask, local_cluster
from tests.ui.browser import PATIENCE_MS, PHONE, chromium, open_page

WARM_SECONDS: Final = 45.0
"""For so long a page looks on before its picture, so that charts have lines."""

SAMPLE: Final = {
    "config/limits": b'{"requests_per_second": 500, "burst": 50}',
    "config/motd": "Grüße from the cluster".encode(),
    "config/features/search": b"on",
    "config/features/upload": b"off",
    "locks/leader-of-the-queue": b"worker-3",
    "services/api/10.0.0.7": b'{"port": 8443, "zone": "a"}',
    "services/api/10.0.0.8": b'{"port": 8443, "zone": "b"}',
    "sessions/4f1c": bytes(range(48)),
}


@contextlib.contextmanager
def load(node: Process) -> Iterator[None]:
    """Clients that read and write, gently."""
    done = threading.Event()

    def work() -> None:
        number = 0
        while not done.wait(0.02 if number % 500 < 300 else 0.008):
            number += 1
            with contextlib.suppress(OSError):
                if number % 3:
                    node.put(f"load/{number % 500}", b"x" * 200)
                else:
                    ask("GET", f"{node.url}/load/{number % 500}")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _headline(page: Any, text: str) -> None:
    page.locator("#headline", has_text=text).wait_for(timeout=PATIENCE_MS)


def take(browser: Any, cluster: LocalCluster, where: Path) -> None:
    """All pictures."""
    where.mkdir(parents=True, exist_ok=True)
    leader = cluster.leader()
    for key, value in SAMPLE.items():
        leader.put(key, value)
    dashboard = leader.url + "/_/ui/"

    def shoot(page: Any, name: str) -> None:
        page.screenshot(path=where / f"dashboard-{name}.png", full_page=True)

    with open_page(browser) as page, load(leader):
        page.goto(dashboard)
        _headline(page, "All 3")
        page.wait_for_timeout(WARM_SECONDS * 1000)
        shoot(page, "healthy")
        page.emulate_media(color_scheme="dark")
        page.wait_for_timeout(500)
        shoot(page, "dark")
        page.emulate_media(color_scheme="light")

        down = next(n for n in cluster.nodes.values() if n is not leader)
        down.stop()
        _headline(page, "cannot be reached")
        page.wait_for_timeout(3000)
        shoot(page, "one-down")
        down.start()
        down.wait_ready()
        _headline(page, "All 3")

        joining = cluster.join(4)
        ask("POST", f"{leader.url}/4", joining.peer_url.encode())
        page.locator('#members tr[data-id="4"] .badge', has_text="learner").wait_for()
        page.wait_for_timeout(1500)
        shoot(page, "joining")
        joining.start()
        joining.wait_ready()
        _headline(page, "All 4")
    pages: list[tuple[str, dict[str, Any]]] = [
        ("keys", {}),
        ("phone", {"viewport": PHONE, "color_scheme": "dark"}),
    ]
    for name, options in pages:
        with open_page(browser, **options) as page:
            page.goto(dashboard + ("#/keys?prefix=%2F" if name == "keys" else ""))
            if name == "keys":
                page.locator("#live", has_text="Live").wait_for()
                page.get_by_label("Keys a page").select_option("25")
                page.get_by_role("button", name="/config/limits").click()
                page.locator("#detail-facts").get_by_text("Version").wait_for()
            else:
                _headline(page, "All 4")
                page.wait_for_timeout(8000)
            shoot(page, name)


def main(where: str) -> None:
    """Take them."""
    with (
        tempfile.TemporaryDirectory() as directory,
        chromium() as browser,
        local_cluster(Path(directory), 3) as cluster,
    ):
        take(browser, cluster, Path(where))


if __name__ == "__main__":
    main(*sys.argv[1:])
