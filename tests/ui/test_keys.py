"""Keys: listed, watched, written and deleted in the browser."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from tests.end_to_end.cluster import LocalCluster, Process, ask, until
from tests.ui.browser import open_page
from tests.ui.test_cluster import expect, see


@pytest.fixture
def node(calm: LocalCluster) -> Process:
    return calm.nodes[1]


def visit(page: Any, node: Process, prefix: str) -> None:
    """Open a prefix, and wait until its changes are live."""
    page.goto(node.url + "/_/ui/#/keys?prefix=" + prefix.replace("/", "%2F"))
    see(page.locator("#live"), "Live")


def open_key(page: Any, name: str) -> None:
    page.locator("#keys").get_by_role("button", name=name, exact=True).click()
    see(page.locator("#detail-title"), name)
    see(page.locator("#keys [data-open]"), name)
    expect(page.locator("#detail-facts")).to_contain_text(re.compile(r"Revision\d"))


def revision(node: Process, key: str) -> str:
    return ask("GET", f"{node.url}/{key}").headers["ETag"].strip('"')


def test_pages_of_a_prefix(node: Process, page: Any) -> None:
    for number in range(60):
        node.put(f"pages/{number:02}", b"v%d" % number)
    node.put("other", b"v")
    visit(page, node, "/pages/")
    rows = page.locator("#keys tr")
    expect(rows).to_have_count(50)
    see(rows.first, "/pages/00")
    see(page.locator("#list-note"), "50 keys, first page")
    page.get_by_role("button", name="Next page").click()
    expect(rows).to_have_count(10)
    see(rows.first, "/pages/50")
    page.get_by_role("button", name="Back").click()
    see(rows.first, "/pages/00")
    page.get_by_label("Keys a page").select_option("25")
    expect(rows).to_have_count(25)
    # A page stays a page: what is written beyond it, or no longer fits, is the next's.
    see(page.locator("#live"), "Live")
    node.put("pages/00x", b"here")
    node.put("pages/59x", b"beyond")
    see(page.locator("#last-change"), "/pages/59x")
    see(rows.nth(1), "/pages/00x")
    expect(rows).to_have_count(25)
    see(rows.last, "/pages/23")
    page.get_by_role("button", name="Next page").click()
    see(rows.first, "/pages/24")
    page.get_by_role("textbox", name="Prefix").fill("/pages/5")
    page.get_by_role("button", name="Open").click()
    expect(rows).to_have_count(11)
    page.get_by_role("textbox", name="Prefix").fill("/nothing/")
    page.keyboard.press("Enter")
    see(page.locator("#list-empty"), "No key begins with /nothing/")
    page.go_back()
    expect(rows).to_have_count(11)


def test_changes_are_shown_as_they_happen(node: Process, page: Any) -> None:
    node.put("live/a", b"one")
    page.clock.install()
    visit(page, node, "/live/")
    node.put("live/a", b"two")
    see(page.locator("#keys tr").first, "two")
    node.put("live/b", b"three")
    expect(page.locator("#keys tr")).to_have_count(2)
    see(page.locator("#last-change"), "Written: /live/b")
    ask("DELETE", node.url + "/live/b")
    see(page.locator("#last-change"), "Deleted: /live/b")
    see(page.locator("#keys tr", has_text="/live/b"), "deleted")
    page.clock.fast_forward(5000)
    expect(page.locator("#keys tr")).to_have_count(1)
    # A key that is open and not written to follows.
    open_key(page, "/live/a")
    node.put("live/a", b"four")
    expect(page.get_by_label("Value", exact=True)).to_have_value("four")
    # One that changes all the time is not read all the time.
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    began = time.monotonic()
    for number in range(40):
        node.put("live/a", b"%d" % number)
    expect(page.get_by_label("Value", exact=True)).to_have_value("39")
    expect(page.locator("#last-change")).to_have_attribute("aria-live", "off")
    read = len([url for url in asked if "/_/kv/" in url])
    assert read <= 2 + (time.monotonic() - began) / 0.5


def test_a_page_whose_keys_are_gone_is_filled_again(node: Process, page: Any) -> None:
    """A page holds a mebibyte; there are keys behind it."""
    for name in ("a", "b"):
        node.put(f"moving/{name}", b"x" * 600_000)
    page.clock.install()
    visit(page, node, "/moving/")
    rows = page.locator("#keys tr")
    expect(rows).to_have_count(1)
    ask("DELETE", f"{node.url}/moving/a")
    see(rows, "deleted")
    page.clock.fast_forward(5000)
    see(rows, "/moving/b")


def test_a_page_that_was_away_does_not_read_all_it_missed(
    node: Process, page: Any
) -> None:
    """A page of keys, and changes from there on."""
    node.put("away/a", b"one")
    visit(page, node, "/away/")
    open_key(page, "/away/a")
    hide = """(is) => { Object.defineProperty(document, "hidden",
        { get: () => is, configurable: true });
        document.dispatchEvent(new Event("visibilitychange")); }"""
    page.evaluate(hide, True)
    was = revision(node, "away/a")
    node.put("away/a", b"two")
    node.put("away/b", b"three")
    page.clock.set_fixed_time(time.time() + 3600)
    with page.expect_request("**/_/watch?*") as watch:
        page.evaluate(hide, False)
    assert int(watch.value.url.rpartition("since=")[2]) > int(was) + 1
    expect(page.locator("#keys tr")).to_have_count(2)
    expect(page.get_by_label("Value", exact=True)).to_have_value("two")


def test_what_may_not_be_read_any_more_is_not_left_on_the_screen(
    node: Process, page: Any
) -> None:
    node.put("secret/a", b"one")
    visit(page, node, "/secret/")
    open_key(page, "/secret/a")
    page.route(
        lambda url: "/_/kv" in url,
        lambda route: route.fulfill(status=403, body='{"detail": "not for you"}'),
    )
    page.get_by_role("button", name="Reload").click()
    see(page.locator("#detail-problem"), "Not for you")
    expect(page.get_by_label("Value", exact=True)).to_have_value("")
    page.get_by_role("button", name="Open", exact=True).click()
    see(page.locator("#list-problem"), "Not for you")
    expect(page.locator("#keys tr")).to_have_count(0)


def test_a_key_is_made_written_and_deleted(node: Process, page: Any) -> None:
    visit(page, node, "/made/")
    page.get_by_role("button", name="New key").click()
    name = page.get_by_label("Key", exact=True)
    expect(name).to_have_value("/made/")
    name.fill("/made/ü ?%")
    value = page.get_by_label("Value", exact=True)
    value.fill("first\nline")
    page.get_by_role("button", name="Create").click()
    see(page.get_by_role("status").last, "Saved /made/ü ?%")
    assert node.get("made/%C3%BC%20%3F%25") == b"first\nline"
    expect(page.locator("#keys tr")).to_have_count(1)
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    value.fill("second")
    page.get_by_role("button", name="Save").click()
    until(lambda: node.get("made/%C3%BC%20%3F%25") == b"second", "it is saved")
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    see(dialog, "/made/ü ?%")
    dialog.get_by_role("button", name="Delete").click()
    see(page.locator("#detail-title"), "No key is open")
    expect(page.locator("#detail")).to_be_focused()
    assert node.get("made/%C3%BC%20%3F%25") is None
    # One that is there is not made again.
    node.put("made/there", b"theirs")
    page.get_by_role("button", name="New key").click()
    name.fill("/made/there")
    value.fill("mine")
    page.get_by_role("button", name="Create").click()
    see(page.locator("#detail-problem"), "There is such a key already")
    assert node.get("made/there") == b"theirs"


def test_somebody_else_was_faster(node: Process, page: Any) -> None:
    """Compare-and-set: nothing is overwritten that was not seen."""
    node.put("cas/k", b"one")
    visit(page, node, "/cas/")
    open_key(page, "/cas/k")
    value = page.get_by_label("Value", exact=True)
    value.fill("mine")
    problem = page.locator("#detail-problem")
    node.put("cas/k", b"theirs")
    see(problem, "Somebody has changed this key")
    expect(value).to_have_value("mine")
    page.get_by_role("button", name="Save").click()
    see(problem, f"it is at revision {revision(node, 'cas/k')}")
    assert node.get("cas/k") == b"theirs"
    expect(value).to_have_value("mine")
    problem.get_by_role("button", name="Reload theirs").click()
    expect(value).to_have_value("theirs")
    expect(problem).not_to_be_visible()
    # And the other way out.
    value.fill("mine after all")
    node.put("cas/k", b"theirs again")
    see(problem, "Somebody has changed this key")
    page.get_by_role("button", name="Save").click()
    problem.get_by_role("button", name="Keep mine").click()
    # Save is disabled while it is under way, too.
    until(lambda: node.get("cas/k") == b"mine after all", "it is saved")
    expect(problem).not_to_be_visible()
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    # A deletion is on condition too.
    page.get_by_role("button", name="Delete").click()
    node.put("cas/k", b"at the last moment")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    see(problem, "Somebody has changed this key")
    assert node.get("cas/k") == b"at the last moment"


def test_values_that_are_no_text(node: Process, page: Any) -> None:
    node.put("bytes/raw", b"\x00\xff\xfe kvdb")
    node.put("bytes/crlf", b"a\r\nb")
    node.put("bytes/%FF%00", b"odd key")
    node.put("bytes/empty", b"")
    visit(page, node, "/bytes/")
    see(page.locator("#keys tr", has_text="/bytes/raw"), "binary, 8 B")
    open_key(page, "/bytes/raw")
    see(page.locator("#detail-note"), "This value is no UTF-8 text")
    see(page.locator("#detail-hex"), "00 ff fe 20 6b 76 64 62")
    expect(page.get_by_role("radio", name="Text")).to_be_disabled()
    page.get_by_text("Base64", exact=True).click()
    value = page.get_by_label("Value, in Base64")
    expect(value).to_have_value("AP/+IGt2ZGI=")
    value.fill("no base64!")
    page.get_by_role("button", name="Save").click()
    see(page.locator("#detail-problem"), "This is not Base64")
    value.fill("/wA=")
    page.get_by_role("button", name="Save").click()
    see(page.get_by_role("status").last, "Saved /bytes/raw")
    assert node.get("bytes/raw") == b"\xff\x00"
    # A text box would turn CRLF into LF.
    open_key(page, "/bytes/crlf")
    expect(page.get_by_role("radio", name="Text")).to_be_disabled()
    assert node.get("bytes/crlf") == b"a\r\nb"
    open_key(page, r"\x2fbytes\x2f\xff\x00".replace(r"\x2f", "/"))
    expect(page.get_by_label("Value", exact=True)).to_have_value("odd key")
    open_key(page, "/bytes/empty")
    expect(page.get_by_label("Value", exact=True)).to_have_value("")
    # What cannot be typed is not offered as text: it would be another key.
    visit(page, node, "/bytes/%FF")
    page.get_by_role("button", name="New key").click()
    expect(page.get_by_label("Key", exact=True)).to_have_value("/")


def test_what_is_stored_is_shown_and_never_run(node: Process, page: Any) -> None:
    """Keys and values come from anybody."""
    attack = "<img src=x onerror=\"document.title='run'\"><script>alert(1)</script>"
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda _: asked.append("an alert"))
    node.put("attack/%3Cimg%20src=x%20onerror=alert(1)%3E", attack.encode())
    visit(page, node, "/attack/")
    see(page.locator("#keys tr").first, "<img src=x")
    open_key(page, "/attack/<img src=x onerror=alert(1)>")
    expect(page.get_by_label("Value", exact=True)).to_have_value(attack)
    see(page.locator("#detail-title"), "<img src=x onerror=alert(1)>")
    node.put("attack/<b>".replace("<", "%3C").replace(">", "%3E"), attack.encode())
    see(page.locator("#last-change"), "/attack/<b>")
    assert page.locator("main img, main script, main b").count() == 0
    assert page.title() != "run"
    assert not [url for url in asked if url.endswith("/x") or url == "an alert"]


def test_the_policy_stands_where_a_script_would_try(
    node: Process, browser: Any
) -> None:
    with open_page(browser, strict=False) as page:
        visit(page, node, "/")
        refused = page.evaluate(
            """() => { try { document.body.innerHTML = "<b>"; return false; }
                       catch (error) { return error instanceof TypeError; } }"""
        )
        assert refused
        page.evaluate(
            """() => { const style = document.createElement("style");
                       style.textContent = "body { display: none }";
                       document.head.append(style);
                       const image = new Image(); image.src = "http://127.0.0.1:9/x";
                       document.body.append(image); }"""
        )
        expect(page.locator("header")).to_be_visible()
        page.wait_for_function("window.__violations.length >= 3")
        violations = " ".join(page.evaluate("window.__violations"))
        for directive in ("trusted-types", "style-src", "img-src"):
            assert directive in violations, violations


def test_changes_are_not_lost_by_a_click(node: Process, page: Any) -> None:
    node.put("keep/a", b"a")
    node.put("keep/b", b"b")
    visit(page, node, "/keep/")
    open_key(page, "/keep/a")
    value = page.get_by_label("Value", exact=True)
    value.fill("not saved")
    page.locator("#keys").get_by_role("button", name="/keep/b").click()
    dialog = page.get_by_role("dialog")
    see(dialog, "Give up your changes?")
    dialog.get_by_role("button", name="Cancel").click()
    see(page.locator("#detail-title"), "/keep/a")
    expect(value).to_have_value("not saved")
    page.locator("#keys").get_by_role("button", name="/keep/b").click()
    dialog.get_by_role("button", name="Give them up").click()
    expect(value).to_have_value("b")


def test_a_write_nobody_knows_the_end_of_is_tried_again_once(
    node: Process, page: Any
) -> None:
    """With the same Idempotency-Key: it is carried out once."""
    node.put("again/k", b"one")
    visit(page, node, "/again/")
    open_key(page, "/again/k")
    tokens: list[str] = []

    def lose_the_answer(route: Any) -> None:
        tokens.append(route.request.headers.get("idempotency-key", ""))
        if route.request.method == "PUT" and len(tokens) == 1:
            route.fetch()  # it is carried out
            route.fulfill(
                status=504,
                content_type="application/problem+json",
                body='{"detail": "not in time"}',
            )
        else:
            route.continue_()

    page.route("**/_/kv/**", lose_the_answer)
    page.get_by_label("Value", exact=True).fill("two")
    page.get_by_role("button", name="Save").click()
    problem = page.locator("#detail-problem")
    see(problem, "Not in time. It may yet have been carried out")
    problem.get_by_role("button", name="Try again").click()
    see(page.get_by_role("status").last, "Saved /again/k")
    expect(problem).not_to_be_visible()
    assert tokens[0] == tokens[1] != ""
    assert node.get("again/k") == b"two"


def test_what_a_late_answer_says_is_not_said_of_another_key(
    node: Process, page: Any
) -> None:
    """A key that was opened while another one was deleted stays open, as it is."""
    node.put("late/a", b"a")
    node.put("late/b", b"b")
    visit(page, node, "/late/")
    open_key(page, "/late/a")
    held: list[Any] = []

    def hold(route: Any) -> None:
        if route.request.method == "DELETE":
            held.append(route)
        else:
            route.continue_()

    page.route("**/_/kv/**", hold)
    page.get_by_role("button", name="Delete").click()
    with page.expect_request(lambda request: request.method == "DELETE"):
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    open_key(page, "/late/b")
    held[0].continue_()
    see(page.locator("#said"), "Deleted /late/a")
    see(page.locator("#detail-title"), "/late/b")
    expect(page.get_by_label("Value", exact=True)).to_have_value("b")
    expect(page.get_by_role("button", name="Delete")).to_be_enabled()
