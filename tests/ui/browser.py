"""
A real Chromium before the dashboard of real nodes.

Whatever a page complains of (an error on its console, a script that failed, a
breach of its own policy) fails the test that it was in.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define, field

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 360, "height": 740}
PATIENCE_MS = 20_000
"""Within which what a test expects of a page must come to hold."""

_NOTE_VIOLATIONS = """
window.__violations = [];
addEventListener("securitypolicyviolation", (event) =>
  window.__violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


@define
class Complaints:
    """What pages had to complain of."""

    heard: list[str] = field(factory=list)

    def watch(self, page: Any) -> None:
        """Listen to a page."""

        def console(message: Any) -> None:
            # Chromium notes every answer from 400 on, which the page expects.
            is_answer = message.text.startswith("Failed to load resource")
            if message.type in ("error", "warning") and not is_answer:
                self.heard.append(f"{message.type}: {message.text}")

        page.on("console", console)
        page.on("pageerror", lambda error: self.heard.append(f"failed: {error}"))


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A browser, with a fresh directory of its own."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def open_page(browser: Any, strict: bool = True, **options: Any) -> Iterator[Any]:
    """A page of a fresh profile; its complaints fail, if it is strict."""
    complaints = Complaints()
    context = browser.new_context(**{"viewport": DESKTOP, **options})
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(_NOTE_VIOLATIONS)
    page = context.new_page()
    complaints.watch(page)
    try:
        yield page
        if not strict:
            return
        violations = page.evaluate("window.__violations")
        assert not violations, f"the policy was broken: {violations}"
        assert not complaints.heard, f"the page complains: {complaints.heard}"
    finally:
        context.close()
