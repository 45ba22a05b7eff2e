"""The page's own functions, that touch no document, called in the browser."""

from __future__ import annotations

from typing import Any

import pytest

from tests.end_to_end.cluster import LocalCluster


@pytest.fixture
def call(calm: LocalCluster, page: Any) -> Any:
    """Calls a function of a module; a value C{undefined} comes as None."""
    page.goto(calm.nodes[1].url + "/_/ui/")

    def ask(module: str, body: str, argument: Any = None) -> Any:
        return page.evaluate(
            f"""async (a) => {{ const m = await import("/_/ui/{module}.js");
                return ({body}); }}""",
            argument,
        )

    return ask


READING = """\
# TYPE t counter
t{a="x",b="say \\"hi\\" \\\\ {}, \\n"} 3
t{a="y"} 4 1700000000000
h_bucket{le="0.1"} 10
h_bucket{le="0.2"} 30
h_bucket{le="+Inf"} 40
nothing{broken
plain 1.5e3
nan NaN
"""


def test_prometheus_text(call: Any) -> None:
    labels = call("metrics", "m.parse(a).get('t')[0].labels", READING)
    assert labels == {"a": "x", "b": 'say "hi" \\ {}, \n'}
    assert call("metrics", "m.total(m.parse(a), 't')", READING) == 7
    assert call("metrics", "m.total(m.parse(a), 't', (l) => l.a === 'y')", READING) == 4
    assert call("metrics", "m.total(m.parse(a), 'plain')", READING) == 1500
    assert call("metrics", "m.total(m.parse(a), 'none')", READING) is None
    assert call("metrics", "m.parse(a).has('nothing')", READING) is False


def test_rates(call: Any) -> None:
    assert call("metrics", "m.perSecond(10, 30, 2)") == 10
    assert call("metrics", "m.perSecond(30, 10, 2)") is None, "it began anew"
    assert call("metrics", "m.perSecond(null, 10, 2)") is None
    assert call("metrics", "m.perSecond(1, 2, 0)") is None


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ([0, 0, 0], [10, 20, 20], [0.1, 0.198]),
        ([0, 0, 0], [0, 100, 100], [0.15, 0.199]),
        ([5, 5, 5], [5, 5, 5], [None, None]),
        ([0, 0, 0], [0, 0, 10], [0.2, 0.2]),  # beyond the last bound: at least it
        ([9, 9, 9], [1, 1, 1], [None, None]),  # it began anew
        ([0, 0, 0], [99, 99, 100], [pytest.approx(0.0505, abs=1e-4), 0.1]),
    ],
)
def test_quantiles(call: Any, before: Any, now: Any, expected: Any) -> None:
    got = call(
        "metrics",
        """m.quantiles(...a.map((v) => new Map(v.map((n, i) =>
            [[0.1, 0.2, Infinity][i], n]))), [0.5, 0.99])""",
        [before, now],
    )
    assert got == [
        value if value is None else pytest.approx(value) for value in expected
    ]


def test_octets(call: Any) -> None:
    assert call("octets", "m.percent('/a/..\\xff%')") == "%2Fa%2F..%FF%25"
    every = "Array.from({length: 256}, (_, i) => String.fromCharCode(i)).join('')"
    assert call("octets", f"m.unpercent(m.percent({every})) === {every}")
    assert call("octets", f"m.toBinary(m.fromBase64(btoa({every}))) === {every}")
    assert call("octets", "m.unpercent('/ü')") == "/\xc3\xbc"
    assert call("octets", "m.fromBase64('a*')") is None
    assert call("octets", "m.toText(new Uint8Array([255]))") is None
    assert call("octets", "m.toText(new Uint8Array([0xef, 0xbb, 0xbf]))") == "\ufeff"
    assert call("octets", "m.readable('/\\xff\\x00')") == "/\\xff\\x00"
    assert call("octets", "m.readable('/\\xc3\\xbc')") == "/ü"
    # A key is not shown in another order than it is written, nor with parts unseen.
    assert call(
        "octets", "m.readable(m.toBinary(m.fromText(a)))", "/\u202egpj.exe"
    ) == ("/\\u{202e}gpj.exe")
    joined = "/\u05e9\u200d\U0001f3f3\x85\u2028"
    assert call("octets", "m.readable(m.toBinary(m.fromText(a)))", joined) == (
        "/\u05e9\u200d\U0001f3f3\\u{85}\\u{2028}"
    )
    plain = "['a\\n\\tb', 'a\\rb', 'a\\0b', ''].map(m.isPlain)"
    assert call("octets", plain) == [True, False, False, True]
    dump = call("octets", "m.hexdump(new Uint8Array([0x6b, 0, 0xff]), 2)")
    assert dump.split() == ["00000000", "6b", "00", "k·"]


def test_what_a_status_says_of_a_write(call: Any) -> None:
    """Only what kvdb itself says was not carried out is known not to be."""
    unknown = "a.map(([status, own]) => new m.Problem(status, '', { own }).unknown)"
    told = [[0, False], [502, False], [503, False], [504, True], [500, True]]
    assert call("api", unknown, told) == [True] * 5
    told = [[503, True], [507, True], [412, True], [429, False]]
    assert call("api", unknown, told) == [False] * 4


def test_the_span_that_is_drawn(call: Any) -> None:
    """A minute at least, also of a single point; and five at most."""
    spans = "[[1000], [1000, 1010], [0, 400, 1000]].map(m.shownSpan)"
    assert call("charts", spans) == [[940, 1000], [950, 1010], [700, 1000]]


def test_hours_leave_no_more_than_minutes(call: Any) -> None:
    """Nor does a clock that is put back."""
    held = """(() => { const c = new m.Charts(); let most = [0, 0];
        const note = () => { most = most.map((n, i) => Math.max(n, c.held[i])); };
        for (let at = 1; at < 2000; at += 1) { c.add(2 * at, at, null); note(); }
        for (let at = 1; at < 2000; at += 1) { c.add(20 * at, at, null); note(); }
        for (let at = 1; at < 500; at += 1) { c.add(2 * at, at, null); note(); }
        for (let at = 900; at > 1; at -= 1) { c.add(at, at, null); note(); }
        return [...most, ...c.held]; })()"""
    samples, points, *at_last = call("charts", held)
    assert samples <= 7
    assert points == 200
    assert at_last == [1, 0], "what is drawn is of one time"
    shown = """(() => { for (let at = 0; at < 1000; at += 1) m.tell("good", `${at}`);
        return document.getElementById("events").children.length; })()"""
    assert call("events", shown) == 200


def member(number: int, **more: Any) -> dict[str, Any]:
    """An entry of /_/status, as a leader 1 has it."""
    made = {
        "id": number,
        "url": f"http://h:{number}",
        "role": "leader" if number == 1 else "follower",
        "match_index": 100,
        "lag": 0,
        "connected": None if number == 1 else True,
    }
    return {**made, **more}


def status(*members: dict[str, Any], **more: Any) -> dict[str, Any]:
    made = {
        "id": 1,
        "role": "leader",
        "leader": 1,
        "term": 3,
        "commit_index": 100,
        "applied_index": 100,
        "alarms": [],
        "members": members,
    }
    return {**made, **more}


REPORT = {"age_seconds": 0.5, "term": 3, "applied_index": 90}
UNKNOWN: dict[str, Any] = dict.fromkeys(
    (
        "client_url",
        "term",
        "last_index",
        "applied_index",
        "version",
        "links",
        "age_seconds",
    )
)


@pytest.mark.parametrize(
    ("told", "state", "headline"),
    [
        (status(member(1)), "good", "The only member is well"),
        (status(*map(member, (1, 2, 3))), "good", "All 3 members are in touch"),
        (
            status(member(1), member(2, **UNKNOWN), member(3, **UNKNOWN)),
            "good",
            "All 3 members are in touch",
        ),
        (
            status(member(1), member(2), member(3, connected=False)),
            "warn",
            "Member 3 cannot be reached",
        ),
        (
            status(member(1), member(2), member(3, **{**REPORT, "age_seconds": 9})),
            "warn",
            "Member 3 cannot be reached",
        ),
        (
            status(member(1), *(member(n, connected=False) for n in (2, 3))),
            "bad",
            "Fewer than a majority can be reached",
        ),
        (
            status(*map(member, (1, 2, 3)), leader=None, role="candidate"),
            "bad",
            "No leader is known",
        ),
        (
            status(*map(member, (1, 2, 3)), member(4, role="learner")),
            "good",
            "Member 4 is joining",
        ),
        (
            status(member(1), member(2, role="learner", connected=False)),
            "warn",
            "Member 2 is joining, and not in touch",
        ),
        (
            status(*map(member, (1, 2, 3)), alarms=["full"]),
            "bad",
            "Something is wrong",
        ),
    ],
)
def test_verdicts(call: Any, told: Any, state: str, headline: str) -> None:
    got = call("picture", "m.verdict(a, m.picture(a))", told)
    assert got[:2] == [state, headline]


def test_a_member_that_stops_to_report_is_silent(call: Any) -> None:
    """Until its connection is lost; one that never did is of an earlier release."""
    states = call(
        "picture",
        """(() => { let seen = null; return a.map((one) => {
            seen = m.picture(one, seen); return seen.members[1].state; }); })()""",
        [
            status(member(1), member(2)),
            status(member(1), member(2, **REPORT)),
            status(member(1), member(2, **{**REPORT, "age_seconds": 4.5})),
            status(member(1), member(2, **UNKNOWN)),
            status(member(1), member(2, connected=False)),
            status(member(1), member(2)),
            status(member(1), member(2, **REPORT)),
        ],
    )
    assert states == ["up", "up", "silent", "silent", "down", "up", "up"]


@pytest.mark.parametrize(
    ("two", "three", "expected"),
    [
        ({}, {}, "unknown"),
        ({**REPORT, "links": [1, 3]}, {**REPORT, "links": [1, 2]}, "up"),
        ({**REPORT, "links": [1, 3]}, {}, "up"),
        ({**REPORT, "links": [1, 3]}, {**REPORT, "links": [1]}, "down"),
        ({**REPORT, "links": [1]}, {**REPORT, "links": [1]}, "down"),
        ({**REPORT, "links": [3], "age_seconds": 60}, {}, "unknown"),
    ],
)
def test_links_of_others(call: Any, two: Any, three: Any, expected: str) -> None:
    told = status(member(1), member(2, **two), member(3, **three))
    links = call("picture", "m.picture(a).links", told)
    found = next(link["state"] for link in links if (link["a"], link["b"]) == (2, 3))
    if two.get("age_seconds", 0) > 5:
        assert found in ("unknown", "down")
    else:
        assert found == expected


def test_reports_of_members(call: Any) -> None:
    """What a follower knows of the others, from what they say of themselves."""
    told = status(
        member(1, role="follower", match_index=None, lag=None),
        member(2, role="leader", match_index=None, last_index=104, lag=None, **REPORT),
        member(3, client_url="javascript:alert(1)", match_index=None, lag=None),
        leader=2,
        role="follower",
    )
    seen = call("picture", "JSON.parse(JSON.stringify(m.picture(a)))", told)
    one, two, three = seen["members"]
    assert (one["applied"], one["term"], one["own"]) == (100, 3, True)
    assert (two["applied"], two["leads"], two["lag"]) == (90, True, 0)
    assert (two["match"], seen["last"]) == (104, 104)
    assert (three["page"], three["lag"], three["term"]) == (None, None, None)


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (status(member(1)), status(member(1)), []),
        (
            status(*map(member, (1, 2)), leader=1),
            status(*map(member, (1, 2)), leader=2, term=4),
            ["Member 2 was elected leader in term 4"],
        ),
        (
            status(member(1), leader=1),
            status(member(1), leader=None),
            ["Member 1 leads no longer, and nobody does"],
        ),
        (
            status(member(1), leader=None),
            status(member(1), leader=None, term=4),
            ["An election: term 4"],
        ),
        (
            status(member(1)),
            status(member(1), member(2, role="learner")),
            ["Member 2 was added, as a learner: http://h:2"],
        ),
        (
            status(member(1), member(2, role="learner")),
            status(member(1), member(2)),
            ["Member 2 has caught up and is a voter"],
        ),
        (
            status(member(1), member(2)),
            status(member(1)),
            ["Member 2 was removed"],
        ),
        (
            status(member(1), member(2)),
            status(member(1), member(2, connected=False)),
            ["Member 2 cannot be reached"],
        ),
        (
            status(member(1), member(2, **{**REPORT, "links": [1, 3]}), member(3)),
            status(member(1), member(2, **{**REPORT, "links": [1]}), member(3)),
            ["The link between 2 and 3 is down"],
        ),
    ],
)
def test_events(call: Any, before: Any, now: Any, expected: list[str]) -> None:
    got = call(
        "events",
        """await import("/_/ui/picture.js").then((p) =>
            m.changes(...a.map((one) => p.picture(one))).map(([, text]) => text))""",
        [before, now],
    )
    assert got == expected


def test_a_leader_that_is_heard_again_was_not_elected(call: Any) -> None:
    got = call(
        "events",
        """await import("/_/ui/picture.js").then((p) => { let seen = null;
            return a.flatMap((one) => { const before = seen;
                seen = p.picture(one, before);
                return before ? m.changes(before, seen).map(([, text]) => text) : [];
            }); })""",
        [
            status(member(1), member(2), leader=2, term=3),
            status(member(1), member(2), leader=None, term=3),
            status(member(1), member(2), leader=2, term=3),
            status(member(1), member(2), leader=None, term=4),
            status(member(1), member(2), leader=2, term=4),
        ],
    )
    assert [text for text in got if "longer" not in text] == [
        "Member 2 is heard again, and leads as before in term 3",
        "Member 2 was elected leader in term 4",
    ]


def test_alarms_that_count_up_are_one(call: Any) -> None:
    got = call(
        "events",
        "m.alarmChanges(['silent for 1.5 s'], ['silent for 2.5 s', 'full'])",
    )
    assert got == [["bad", "Alarm: full"]]


def test_numbers_as_people_read_them(call: Any) -> None:
    values = "[0, 0.0000042, 0.0021, 0.25, 3, 600, null].map(m.duration)"
    assert call("words", values) == [
        "0 µs",
        "4 µs",
        "2.1 ms",
        "250 ms",
        "3.0 s",
        "10 min",
        "–",
    ]
    assert call("words", "[0, 1023, 1024, 20480, 2**21].map(m.bytes)") == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "20 KiB",
        "2.0 MiB",
    ]
    assert call("words", "[m.list([1]), m.list([1,2]), m.list([1,2,3])]") == [
        "1",
        "1 and 2",
        "1, 2 and 3",
    ]
