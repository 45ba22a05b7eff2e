"""The view of the cluster, over real nodes that fail, come and go."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.cluster import LocalCluster, ask, local_cluster, until
from tests.ui.browser import PATIENCE_MS, open_page
from tests.ui.partition import parted_cluster

expect: Any = pytest.importorskip("playwright.sync_api").expect


def see(locator: Any, text: str | re.Pattern[str]) -> None:
    """Until it says so."""
    expect(locator).to_contain_text(text, timeout=PATIENCE_MS)


def see_state(locator: Any, state: str) -> None:
    expect(locator).to_have_attribute("data-state", state, timeout=PATIENCE_MS)


def event(page: Any, text: str) -> Any:
    return page.locator("#events li", has_text=text).first


def test_a_cluster_at_rest(calm: LocalCluster, page: Any) -> None:
    leader = calm.leader()
    assert leader.put("k", b"v").status == 204
    page.goto(leader.url + "/_/ui/")
    see(page.locator("#headline"), "All 3 members are in touch")
    see(page.locator("#subline"), f"Member {leader.number} leads in term")
    see(page.locator("#subline"), "The cluster bears the loss of one voter")
    see_state(page.locator("#health"), "good")
    expect(page.locator("#members tr")).to_have_count(3)
    row = page.locator(f'#members tr[data-id="{leader.number}"]')
    see(row.locator(".badge"), "leader")
    see(row, "this")
    see(row, leader.peer_url)
    expect(page.locator('.ring .node[data-role="leader"]')).to_have_count(1)
    expect(page.locator(".ring .link[data-leads]")).to_have_count(2)
    drawing = page.locator(".ring")
    expect(drawing).to_have_attribute(
        "aria-label", re.compile(f"Member {leader.number} leads. No link is down")
    )
    revision = leader.status()["revision"]
    see(page.locator("#facts div", has_text="Revision"), f"{revision}")
    expect(row.get_by_role("meter")).to_have_attribute(
        "aria-valuenow",
        f"{leader.status()['members'][leader.number - 1]['match_index']}",
    )


def test_writes_are_plotted_and_told(calm: LocalCluster, page: Any) -> None:
    leader = calm.leader()
    page.goto(leader.url + "/_/ui/")
    chart = page.locator("#chart-keys")
    for number in range(20):
        leader.put(f"plot{number}", b"v")
    expect(chart).to_be_visible(timeout=PATIENCE_MS)
    expect(chart.locator("canvas")).to_be_visible()
    writes = chart.locator("li", has_text="Writes").locator("output")
    expect(writes).not_to_have_text("–", timeout=PATIENCE_MS)


def test_a_follower_tells_what_it_knows(calm: LocalCluster, page: Any) -> None:
    leader = calm.leader()
    other = next(node for node in calm.nodes.values() if node is not leader)
    page.goto(other.url + "/_/ui/")
    see(page.locator("#pulse"), f"Live, by member {other.number}")
    see(page.locator("#headline"), "All 3 members are in touch")
    see(page.locator(f'#members tr[data-id="{leader.number}"] .badge'), "leader")


def test_a_member_stops_and_comes_back(tmp_path: Path, page: Any) -> None:
    with local_cluster(tmp_path, 3) as cluster:
        leader = cluster.leader()
        page.goto(leader.url + "/_/ui/")
        see(page.locator("#headline"), "All 3")
        other = next(n for n in cluster.nodes.values() if n is not leader)
        other.stop()
        see(page.locator("#headline"), f"Member {other.number} cannot be reached")
        see(page.locator("#subline"), "The other 2 of 3 voters are a majority")
        see_state(page.locator("#health"), "warn")
        row = page.locator(f'#members tr[data-id="{other.number}"]')
        see(row, "no connection")
        see(event(page, "cannot be reached"), f"Member {other.number}")
        down = page.locator('.ring .link[data-state="down"]')
        expect(down.first).to_be_visible(timeout=PATIENCE_MS)
        leader.put("k", b"v")
        other.start()
        other.wait_ready()
        see(page.locator("#headline"), "All 3")
        see(event(page, "in touch again"), f"Member {other.number}")


def test_a_leader_dies_and_another_is_elected(tmp_path: Path, page: Any) -> None:
    with local_cluster(tmp_path, 3) as cluster:
        leader = cluster.leader()
        other = next(n for n in cluster.nodes.values() if n is not leader)
        page.goto(other.url + "/_/ui/")
        see(page.locator("#headline"), "All 3")
        leader.kill()
        see(page.locator("#headline"), f"Member {leader.number} cannot be reached")
        see(event(page, "was elected leader in term"), "Member")
        third = next(n for n in cluster.nodes.values() if n not in (leader, other))
        # The majority goes, and with it whoever leads.
        third.kill()
        see(page.locator("#headline"), "Fewer than a majority can be reached")
        see_state(page.locator("#health"), "bad")
        other.kill()
        see(page.locator("#headline"), f"Member {other.number} does not answer")
        see(page.locator("#pulse"), "No answer")
        other.start()
        see(event(page, "answers again"), f"Member {other.number}")


def test_a_member_that_hangs(tmp_path: Path, page: Any) -> None:
    """Its sockets stand, and nothing comes; nor does it answer anybody."""
    with local_cluster(tmp_path, 3) as cluster:
        leader = cluster.leader()
        page.goto(leader.url + "/_/ui/")
        see(page.locator("#headline"), "All 3")
        other = next(n for n in cluster.nodes.values() if n is not leader)
        other.signal(signal.SIGSTOP)
        try:
            see(page.locator("#headline"), f"Member {other.number} cannot be reached")
        finally:
            other.signal(signal.SIGCONT)
        see(page.locator("#headline"), "All 3")


def test_the_leader_is_parted_from_the_others(tmp_path: Path, browser: Any) -> None:
    """Its process and its page go on: either side of the cut says what it knows."""
    with (
        parted_cluster(tmp_path, 3) as cluster,
        open_page(browser) as cut_off,
        open_page(browser) as page,
    ):
        leader = cluster.leader()
        assert leader.put("k", b"before").status == 204
        other, third = (n for n in cluster.nodes.values() if n is not leader)
        for seen, node in ((cut_off, leader), (page, other)):
            seen.goto(node.url + "/_/ui/")
            see(seen.locator("#headline"), "All 3")
        cluster.part(leader.number)
        see(cut_off.locator("#headline"), "Fewer than a majority can be reached")
        see(cut_off.locator("#subline"), "1 of 3 voters can be reached from here")
        see(cut_off.locator("#pulse"), f"Live, by member {leader.number}")
        see(event(cut_off, "and nobody does"), f"Member {leader.number} leads no")
        # What only a leader can do is not offered.
        for name in ("Make member", "Remove member"):
            for button in cut_off.get_by_role("button", name=name).all():
                expect(button).to_be_disabled()
        see(page.locator("#headline"), f"Member {leader.number} cannot be reached")
        see(page.locator("#subline"), "reads and writes go on")
        see(event(page, "was elected leader"), "Member")
        links = page.locator('.ring .link[data-state="down"]')
        expect(links).to_have_count(2, timeout=PATIENCE_MS)
        assert other.put("k", b"after").status == 204
        cluster.heal()
        for seen in (cut_off, page):
            see(seen.locator("#headline"), "All 3")
            see(event(seen, "in touch again"), "Member")
        assert leader.get("k") == b"after"
        assert third.process is not None and third.process.poll() is None


def test_a_member_is_added_and_another_removed(tmp_path: Path, page: Any) -> None:
    with local_cluster(tmp_path, 3) as cluster:
        leader = cluster.leader()
        page.goto(leader.url + "/_/ui/")
        see(page.locator("#headline"), "All 3")
        four = cluster.join(4)
        page.get_by_role("button", name="Add a member").click()
        dialog = page.get_by_role("dialog")
        see(dialog, "learner")
        expect(dialog.get_by_label("Id")).to_have_value("4")
        url = dialog.get_by_label("Peer URL")
        url.fill("nonsense")
        dialog.get_by_role("button", name="Add member 4").click()
        see(dialog.get_by_role("alert"), "A member needs a peer URL")
        url.fill(four.peer_url)
        dialog.get_by_role("button", name="Add member 4").click()
        see(dialog, "Start member 4")
        see(dialog.locator("pre"), f"4={four.peer_url}")
        see(dialog.locator("pre"), "--join")
        expect(dialog.get_by_role("button", name="Cancel")).not_to_be_visible()
        dialog.get_by_role("button", name="Done").click()
        see(event(page, "Member 4 was added"), "as a learner")
        see(page.locator("#headline"), "Member 4 is joining, and not in touch")
        four.start()
        four.wait_ready()
        see(event(page, "Member 4 has caught up"), "is a voter")
        see(page.locator("#headline"), "All 4")
        see(page.locator("#alarms"), "A cluster of 4 voters bears no more failures")

        gone = next(n for n in (1, 2, 3) if n != leader.number)
        row = page.locator(f'#members tr[data-id="{gone}"]')
        row.get_by_role("button", name="Remove").click()
        see(dialog, f"Remove member {gone}?")
        see(dialog, "3 voters will be left, of which one may fail")
        expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.locator("#confirm")).not_to_be_visible()
        assert len(ask("GET", leader.url + "/_/members").json()["members"]) == 4
        row.get_by_role("button", name="Remove").click()
        dialog.get_by_role("button", name=f"Remove member {gone}").click()
        see(event(page, "was removed"), f"Member {gone}")
        assert cluster.nodes[gone].wait() == 0
        see(page.locator("#headline"), "All 3")
        expect(page.locator("#members tr")).to_have_count(3)

        # The member whose page it is says why it answers no more.
        page.get_by_role("button", name=f"Remove member {leader.number}").click()
        see(dialog, "It is the member that serves this page")
        dialog.get_by_role("button", name=f"Remove member {leader.number}").click()
        see(page.locator("#headline"), f"Member {leader.number} was removed")


def test_leadership_is_handed_over(tmp_path: Path, page: Any) -> None:
    with local_cluster(tmp_path, 3) as cluster:
        leader = cluster.leader()
        to = next(n for n in cluster.nodes.values() if n is not leader)
        page.goto(leader.url + "/_/ui/")
        row = page.locator(f'#members tr[data-id="{to.number}"]')
        row.get_by_role("button", name="leader").click()
        dialog = page.get_by_role("dialog")
        see(dialog, f"Member {leader.number} stops taking writes")
        dialog.get_by_role("button", name="Hand over").click()
        see(row.locator(".badge"), "leader")
        see(event(page, "was elected leader"), f"Member {to.number}")
        until(lambda: to.status()["role"] == "leader", "it leads")
