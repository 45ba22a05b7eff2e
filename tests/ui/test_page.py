"""The page itself: sizes, colours, keyboard, who asks, what it does without."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from tests.end_to_end.cluster import LocalCluster
from tests.ui.browser import PATIENCE_MS, PHONE, open_page
from tests.ui.test_cluster import event, expect, see

VIEWS = ["#/", "#/keys"]


def settle(page: Any, view: str) -> None:
    """Until a view shows what it has."""
    if view == "#/":
        see(page.locator("#headline"), "All 3")
        expect(page.locator("#members tr")).to_have_count(3)
    else:
        see(page.locator("#live"), "Live")


WIDER = """
() => [...document.querySelectorAll("body *")]
    .filter((one) => one.getBoundingClientRect().right > innerWidth + 0.5
        && !one.closest(".sr, thead, table.keys, .hex, .skip, .key-name"))
    .map((one) => one.tagName + "#" + one.id + "." + one.className)
"""
OUTSIDE = """
() => [...document.querySelectorAll("header, .card")].flatMap((box) => {
    if (!box.checkVisibility()) return [];
    const style = getComputedStyle(box);
    const end = box.getBoundingClientRect().right
        - parseFloat(style.paddingRight) - parseFloat(style.borderRightWidth);
    return [...box.querySelectorAll("button, .bar, .badge")]
        .filter((one) => one.getBoundingClientRect().right > end + 0.5)
        .map((one) => one.outerHTML.slice(0, 80));
})
"""


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("widths", [(320, 360), (720, 861), (1000, 1239, 1240)])
def test_nothing_is_wider_than_the_screen(
    calm: LocalCluster, browser: Any, view: str, widths: tuple[int, ...]
) -> None:
    """Nor than the box that it is in."""
    long = "long/" + "a-very-long-key-without-a-break" * 8
    calm.nodes[1].put(long, b"and-a-long-value" * 40)

    def fall_behind(route: Any) -> None:
        answer = route.fetch()
        status = answer.json()
        for member in status["members"]:
            member |= {"url": "https://db-1.example.org:12379", "term": 123_456}
            member |= {"match_index": 123_456_789, "lag": 123_456_789}
        route.fulfill(response=answer, json=status)

    with open_page(browser, viewport={**PHONE, "width": widths[0]}) as page:
        page.route("**/_/status", fall_behind)
        page.goto(f"{calm.nodes[1].url}/_/ui/{view}")
        settle(page, view)
        # All that the head may hold, and as wide as it may be.
        page.evaluate(
            """() => { document.getElementById("sign-in").hidden = false;
                document.getElementById("sign-in").textContent = "Signed in"; }"""
        )
        if view == "#/keys":
            page.locator("#keys").get_by_role("button", name=long).click()
            see(page.locator("#detail-title"), long)
        for width in widths:
            page.set_viewport_size({**PHONE, "width": width})
            expect(page.locator("body")).to_have_css("width", f"{width}px")
            wide = page.evaluate(WIDER)
            size = page.evaluate("document.documentElement.scrollWidth")
            assert size <= width, wide
            assert not wide, width
            assert not page.evaluate(OUTSIDE), width


@pytest.mark.parametrize(
    ("width", "scheme", "view"),
    [  # each pair of them once
        (1280, "light", VIEWS[0]),
        (360, "dark", VIEWS[0]),
        (1280, "dark", VIEWS[1]),
        (360, "light", VIEWS[1]),
    ],
)
def test_accessibility(
    calm: LocalCluster, browser: Any, view: str, scheme: str, width: int
) -> None:
    """axe-core's rules for WCAG 2.2 A and AA, and its best practices."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    node = calm.nodes[1]
    node.put("axe/text", b"value")
    node.put("axe/binary", b"\xff")
    with open_page(
        browser, viewport={**PHONE, "width": width}, color_scheme=scheme
    ) as page:
        page.goto(f"{node.url}/_/ui/{view}")
        settle(page, view)
        states = ["as it is"]
        if view == "#/":
            expect(page.locator("#chart-keys")).to_be_visible(timeout=PATIENCE_MS)
            states.append("dialog")
        else:
            states += ["text", "binary", "new"]
        for state in states:
            if state == "dialog":
                page.get_by_role("button", name="Add a member").click()
            elif state == "new":
                page.get_by_role("button", name="New key").click()
            elif state != "as it is":
                page.get_by_role("button", name=f"/axe/{state}").click()
                see(page.locator("#detail-title"), state)
            options = {"rules": {"region": {"enabled": state != "dialog"}}}
            found = axe.run(page, options=options).response["violations"]
            told = [
                (one["id"], one["help"], [n["html"][:200] for n in one["nodes"]])
                for one in found
            ]
            assert not told, f"{state}: {json.dumps(told, indent=1)}"


def test_colours(calm: LocalCluster, browser: Any) -> None:
    """As the system has it, or as was chosen, which is remembered."""
    with open_page(browser, color_scheme="dark") as page:
        page.goto(calm.nodes[1].url + "/_/ui/")
        background = "getComputedStyle(document.body).backgroundColor"
        dark = page.evaluate(background)
        page.emulate_media(color_scheme="light")
        light = page.evaluate(background)
        assert dark != light
        button = page.get_by_role("button", name="Colours")
        button.click()
        button.click()
        expect(button).to_have_accessible_name("Colours: Dark")
        assert page.evaluate(background) == dark
        page.reload()
        assert page.evaluate(background) == dark
        button.click()
        assert page.evaluate(background) == light


def test_by_keyboard_alone(calm: LocalCluster, page: Any) -> None:
    """From the page's top to a written key, and a dialog opened and left."""
    node = calm.nodes[1]
    page.goto(node.url + "/_/ui/")
    settle(page, "#/")

    def focused() -> str:
        return str(
            page.evaluate(
                "(document.activeElement.getAttribute('aria-label')"
                " || document.activeElement.textContent).trim()"
            )
        )

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            ring = page.evaluate(
                "getComputedStyle(document.activeElement).outlineStyle"
            )
            assert ring != "none", f"the focus on {focused()!r} is not to be seen"
            if focused() == name:
                return
        raise AssertionError(f"no way to {name!r}")

    page.keyboard.press("Tab")
    assert focused() == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    tab_to("Add a member")
    page.keyboard.press("Enter")
    expect(page.locator("#confirm")).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "add-id"
    page.keyboard.press("Escape")
    expect(page.locator("#confirm")).not_to_be_visible()
    assert focused() == "Add a member", "the focus is back where it was"

    page.reload()
    settle(page, "#/")
    page.evaluate("document.activeElement.blur()")
    tab_to("Keys")
    page.keyboard.press("Enter")
    settle(page, "#/keys")
    tab_to("New key")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "detail-key"
    page.keyboard.type("keyboard")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("typed")
    tab_to("Create")
    page.keyboard.press("Enter")
    see(page.locator("#said"), "Saved /keyboard")
    assert node.get("keyboard") == b"typed"
    node.put("keyboard2", b"v")
    first, second = (
        page.locator("#keys").get_by_role("button", name=name, exact=True)
        for name in ("/keyboard", "/keyboard2")
    )
    expect(second).to_be_visible()
    first.focus()
    page.keyboard.press("ArrowDown")
    expect(second).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(first).to_be_focused()


def test_motion_is_left_out_where_it_is_not_wanted(
    calm: LocalCluster, browser: Any
) -> None:
    node = calm.nodes[1]
    for motion, expected in (("reduce", 0), ("no-preference", 1)):
        with open_page(browser, reduced_motion=motion) as page:
            page.goto(node.url + "/_/ui/")
            settle(page, "#/")
            page.evaluate(
                """() => { window.__dots = 0; new MutationObserver((found) => {
                  for (const one of found) window.__dots += one.addedNodes.length;
                }).observe(document.querySelector(".ring g:nth-child(2)"),
                           { childList: true }); }"""
            )
            was = page.locator("#facts div", has_text="Revision").inner_text()
            node.put("motion", b"v")
            expect(page.locator("#facts div", has_text="Revision")).not_to_have_text(
                was.replace("\n", ""), timeout=PATIENCE_MS
            )
            assert (page.evaluate("window.__dots") > 0) == bool(expected)


# Who asks: other servers' answers are put in the place of this one's.


def guard(page: Any, accepted: str) -> list[str]:
    """Have every answer but the page's own be 401, unless C{accepted} is sent."""
    seen: list[str] = []

    def check(route: Any) -> None:
        sent = route.request.headers.get("authorization", "")
        seen.append(sent)
        if sent == accepted:
            route.continue_()
            return
        route.fulfill(
            status=401,
            headers={"WWW-Authenticate": 'Basic realm="kvdb"'},
            content_type="application/problem+json",
            body='{"detail": "who are you?"}',
        )

    page.route(lambda url: "/_/ui/" not in url, check)
    return seen


@pytest.mark.parametrize("kind", ["basic", "bearer"])
def test_who_asks(calm: LocalCluster, page: Any, kind: str) -> None:
    pair = base64.b64encode("ann:päss".encode()).decode()
    accepted = f"Basic {pair}" if kind == "basic" else "Bearer t0ken"
    seen = guard(page, accepted)
    page.goto(calm.nodes[1].url + "/_/ui/")
    dialog = page.get_by_role("dialog", name="Sign in")
    see(dialog, "Who are you?")
    expect(dialog.get_by_label("User", exact=True)).to_be_focused()
    see(page.locator("#headline"), "Sign in to see the cluster")
    # Whoever declines is not asked again and again.
    dialog.get_by_role("button", name="Cancel").click()
    before = len(seen)
    page.wait_for_function(
        "() => performance.getEntriesByName(new URL('/_/status', location).href)"
        ".length > 2"
    )
    assert len(seen) > before
    expect(dialog).not_to_be_visible()
    page.get_by_role("button", name="Sign in").click()

    def fill(word: str) -> None:
        if kind == "basic":
            dialog.get_by_label("User", exact=True).fill("ann")
            dialog.get_by_label("Password", exact=True).fill(word)
        else:
            dialog.get_by_text("Token").first.click()
            dialog.locator("#login-token").fill(word)
        dialog.get_by_role("button", name="Sign in").click()

    fill("wrong")
    see(dialog, "Who are you?")
    expect(dialog).to_be_visible()
    fill("päss" if kind == "basic" else "t0ken")
    settle(page, "#/")
    page.get_by_role("link", name="Keys").click()
    settle(page, "#/keys")  # the watch sends it too
    assert accepted in seen
    # It answered all the time.
    assert page.locator("#events li", has_text="answers again").count() == 0
    expect(page.get_by_role("button", name="Signed in")).to_be_visible()
    kept = page.evaluate("[sessionStorage.length, localStorage.length]")
    assert kept == [1, 0]
    page.reload()
    settle(page, "#/keys")
    page.locator("#keys button").first.click()
    value = page.locator("#detail-value")
    expect(value).not_to_have_value("")
    page.get_by_role("button", name="Signed in").click()
    dialog.get_by_role("button", name="Sign out").click()
    see(dialog, "Who are you?")
    assert page.evaluate("sessionStorage.length") == 0
    # Nothing of what was shown is left for who comes next.
    expect(page.locator("#keys tr")).to_have_count(0)
    expect(value).to_have_value("")
    expect(page).to_have_title("kvdb: sign in")


def test_without_storage(calm: LocalCluster, page: Any) -> None:
    """As a browser has it that keeps nothing for sites."""
    page.add_init_script(
        """for (const name of ["sessionStorage", "localStorage"])
            Object.defineProperty(window, name, { get() {
                throw new DOMException("no", "SecurityError"); } });"""
    )
    guard(page, "Bearer t0ken")
    page.goto(calm.nodes[1].url + "/_/ui/")
    dialog = page.get_by_role("dialog", name="Sign in")
    dialog.get_by_text("Token").first.click()
    dialog.locator("#login-token").fill("t0ken")
    dialog.get_by_role("button", name="Sign in").click()
    settle(page, "#/")


def test_what_answers_in_the_place_of_kvdb(calm: LocalCluster, page: Any) -> None:
    """A proxy's page, whatever its status, is told from an answer."""
    node = calm.nodes[1]
    node.put("proxied/k", b"real")
    page.goto(node.url + "/_/ui/#/keys?prefix=%2Fproxied%2F&key=%2Fproxied%2Fk")
    settle(page, "#/keys")
    value = page.get_by_label("Value", exact=True)
    expect(value).to_have_value("real")
    answer: dict[str, Any] = {"status": 200, "body": "<html>Sign in to the hotel"}
    page.route(lambda url: "/_/ui/" not in url, lambda route: route.fulfill(**answer))
    soon = """() => document.dispatchEvent(new Event("visibilitychange"))"""
    page.evaluate(soon)  # the next status
    see(page.locator("#pulse"), "No answer")
    value.fill("mine")
    page.get_by_role("button", name="Save").click()
    problem = page.locator("#detail-problem")
    see(problem, "What answers is no kvdb: a proxy, perhaps. It may yet have been")
    value.fill("real")
    page.get_by_role("textbox", name="Prefix").fill("/elsewhere/")
    page.keyboard.press("Enter")
    see(page.locator("#list-problem"), "What answers is no kvdb")
    expect(page.locator("#keys tr")).to_have_count(0)
    page.get_by_role("link", name="Cluster").click()
    headline = page.locator("#headline")
    for body in ("null", '{"id": 1, "members": [null]}'):
        answer["body"] = body
        with page.expect_response("**/_/status"):
            page.evaluate(soon)
        see(headline, "Member 1 does not answer")
    answer |= {"status": 502}
    page.evaluate(soon)
    see(headline, "Member 1 answers with an error")
    answer |= {"status": 429, "headers": {"Retry-After": "60"}}
    page.evaluate(soon)
    see(headline, "Member 1 asks to wait")
    page.unroute_all()
    page.evaluate(soon)
    settle(page, "#/")


def test_ids_that_a_number_does_not_hold(calm: LocalCluster, page: Any) -> None:
    def add(route: Any) -> None:
        answer = route.fetch()
        status = answer.json()
        if removed:
            del status["members"][2]
        else:
            status["members"][2]["id"] = 2**53 + 1
        route.fulfill(response=answer, json=status)

    removed: list[str] = []
    page.route("**/_/status", add)
    page.goto(calm.nodes[1].url + "/_/ui/")
    settle(page, "#/")
    see(page.locator(".ring .node").nth(2), "…993")

    def refuse(route: Any) -> None:
        removed.append(route.request.url)
        route.fulfill(status=409, body='{"detail": "not this one"}')

    page.route("**/_/members/*", refuse)
    page.get_by_role("button", name="Remove member 9007199254740993").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Remove member").click()
    see(dialog, "Not this one")
    assert removed[0].endswith("/9007199254740993")
    page.keyboard.press("Escape")
    # One that was removed is not offered again.
    see(page.locator("#headline"), "All 2")
    page.get_by_role("button", name="Add a member").click()
    expect(dialog.get_by_label("Id")).to_have_value("9007199254740994")


def test_what_somebody_may_not_do_is_said_where_it_was_tried(
    calm: LocalCluster, page: Any
) -> None:
    page.route(
        "**/_/leader",
        lambda route: route.fulfill(
            status=403,
            content_type="application/problem+json",
            body='{"detail": "ann may not do this", "hint": "Ask root."}',
        ),
    )
    page.goto(calm.leader().url + "/_/ui/")
    settle(page, "#/")
    page.get_by_role("button", name="Hand over leadership").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Hand over").click()
    see(dialog.get_by_role("alert"), "Ann may not do this. Ask root.")


def test_alarms_in_words(calm: LocalCluster, page: Any) -> None:
    alarms: list[str] = ["no space on the disk for x; writes are refused"]

    def add(route: Any) -> None:
        answer = route.fetch()
        status = answer.json()
        status["alarms"] = alarms
        status["warnings"] = ["<b>even</b> size"]
        route.fulfill(response=answer, json=status)

    page.route("**/_/status", add)
    page.goto(calm.nodes[1].url + "/_/ui/")
    see(page.locator("#headline"), "Something is wrong")
    see(page.locator("#alarms"), "AlarmNo space on the disk for x")
    see(page.locator("#alarms"), "Warning<b>even</b> size")
    alarms.clear()
    see(event(page, "Over:"), "no space on the disk")
    see(page.locator("#headline"), "All 3")


METRICS = """\
# HELP kvdb_http_requests_total Requests.
# TYPE kvdb_http_requests_total counter
kvdb_http_requests_total{{route="key",method="GET",status="200"}} {many}
kvdb_http_requests_total{{route="key",method="GET",status="404"}} {many}
kvdb_http_requests_total{{route="status",method="GET",status="200"}} 1e9
kvdb_commit_duration_seconds_bucket{{le="0.001"}} 0
kvdb_commit_duration_seconds_bucket{{le="0.002"}} {many}
kvdb_commit_duration_seconds_bucket{{le="+Inf"}} {many}
kvdb_disk_wal_fsync_duration_seconds_bucket{{le="0.004"}} {many}
kvdb_disk_wal_fsync_duration_seconds_bucket{{le="+Inf"}} {many}
kvdb_server_proposals_pending 7
kvdb_http_connections 5
"""


def test_metrics_are_plotted(calm: LocalCluster, page: Any) -> None:
    asked = 0
    is_allowed = True

    def tell(route: Any) -> None:
        nonlocal asked
        asked += 1
        if not is_allowed:
            route.fulfill(status=401, body='{"detail": "who are you?"}')
            return
        text = METRICS.format(many=1000 * asked)
        route.fulfill(status=200, content_type="text/plain", body=text)

    page.route("**/metrics", tell)
    page.goto(calm.nodes[1].url + "/_/ui/")
    for chart in ("keys", "commit", "sync", "http"):
        expect(page.locator(f"#chart-{chart} canvas")).to_be_visible(
            timeout=PATIENCE_MS
        )
    see(page.locator("#chart-commit li", has_text="Half"), "1.5 ms")
    see(page.locator("#chart-commit li", has_text="99 %"), "2.0 ms")
    see(page.locator("#chart-sync li", has_text="Half"), "2.0 ms")
    reads = page.locator("#chart-keys li", has_text="Reads").locator("output")
    expect(reads).not_to_have_text("–")
    expect(page.locator("#chart-http li", has_text="5xx")).to_be_visible()
    see(page.locator("#facts"), "Pending7")
    see(page.locator("#facts"), "Connections5")
    # They change without a word to whoever listens to the page.
    expect(reads).to_have_attribute("aria-live", "off")
    # What is known no longer is not shown; nobody has to sign in for this alone.
    is_allowed = False
    see(page.locator("#charts-note"), "metrics are not for whoever asks")
    expect(page.locator("#facts")).not_to_contain_text("Pending")
    expect(page.locator("#login")).not_to_be_visible()


def test_what_a_real_member_counts(calm: LocalCluster, page: Any) -> None:
    """Names and labels are those of /metrics; the page's own polling is no read."""
    node = calm.leader()
    page.goto(node.url + "/_/ui/")
    reads = page.locator("#chart-keys li", has_text="Reads").locator("output")
    expect(reads).to_have_text("0", timeout=PATIENCE_MS)
    for chart in ("commit", "sync"):
        value = page.locator(f"#chart-{chart} li", has_text="99 %").locator("output")
        for _ in range(200):
            node.put("counted", b"v")
            node.get("counted")
            if value.is_visible() and value.inner_text() != "–":
                break
        expect(value).to_have_text(re.compile(r"\d (µs|ms|s)$"))
    expect(reads).not_to_have_text("0", timeout=PATIENCE_MS)
    answers = page.locator("#chart-http li", has_text="2xx").locator("output")
    expect(answers).to_have_text(re.compile(r"\d"))
    see(page.locator("#facts"), "Connections")


def test_a_member_without_metrics(calm: LocalCluster, page: Any) -> None:
    page.route("**/metrics", lambda route: route.fulfill(status=404, body=""))
    page.goto(calm.nodes[1].url + "/_/ui/")
    see(page.locator("#charts-note"), "this member tells no metrics")
    expect(page.locator("#chart-keys")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator("#chart-commit")).not_to_be_visible()
