"""A browser for all tests here, and a page for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.end_to_end.cluster import LocalCluster, local_cluster
from tests.ui.browser import chromium, open_page


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium."""
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page as on a desk."""
    with open_page(browser) as made:
        yield made


@pytest.fixture(scope="session")
def calm(
    browser: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalCluster]:
    """A cluster of three that no test disturbs."""
    with local_cluster(tmp_path_factory.mktemp("calm"), 3) as cluster:
        yield cluster
