"""
The examples: what they name is there.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kvdb.options import Options
from tests.end_to_end.cluster import Process, ask, local_cluster, until

EXAMPLES = Path(__file__).parent.parent / "examples"
SELECTOR = re.compile(r"((?:kvdb|process|python)_\w+)(?:\{([^}]*)\})?")
GROUPING = re.compile(r"by \(([^)]*)\)")
MOST_EXPOSED = 16
"""In tenths: the network, its sockets and code that TLS makes are needed."""

ADDED = {"job", "instance", "le"}
"""Labels that Prometheus adds, or a histogram has."""


def expressions() -> dict[str, list[str]]:
    """All queries, by the file they stand in."""
    dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
    targets = [t["expr"] for p in dashboard["panels"] for t in p.get("targets", ())]
    [job] = [v for v in dashboard["templating"]["list"] if v["name"] == "job"]
    rules = (EXAMPLES / "prometheus-alerts.yml").read_text()
    found = re.findall(r"expr: (?:>-\n)?((?:.|\n)*?)\n +(?:for|labels):", rules)
    return {"dashboard": [*targets, job["query"]], "alerts": found}


def served(leader: Process) -> dict[str, set[str]]:
    """Labels by the names of samples, as a leader tells them."""
    text = ask("GET", leader.url + "/metrics").body.decode()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def test_every_metric_is_there(tmp_path: Path) -> None:
    with local_cluster(tmp_path, 3) as cluster:
        leader = cluster.leader()
        assert leader.put("k", b"v").status == 204
        assert ask("GET", leader.url + "/health").status == 200
        there = until(
            lambda: (
                (found := served(leader)) and "kvdb_raft_peer_lag" in found and found
            ),
            "the leader tells how far the others are",
        )
    queries = expressions()
    assert len(queries["dashboard"]) > 30
    assert len(queries["alerts"]) == 17
    for where, found in queries.items():
        for query in found:
            selectors = SELECTOR.findall(query)
            assert selectors or "up{" in query, (where, query)
            for name, matchers in selectors:
                assert name in there, (where, query)
                labels = set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", matchers))
                assert labels <= there[name] | ADDED, (where, query)
                for group in GROUPING.findall(query):
                    assert {g.strip() for g in group.split(",")} <= there[name] | ADDED


def test_every_metric_is_shown_or_alerted_on() -> None:
    """A name of the page that no panel shows has been forgotten."""
    page = (EXAMPLES.parent / "docs" / "metrics.md").read_text()
    names = set(re.findall(r"^\| `(kvdb_\w+)`", page, re.MULTILINE))
    assert len(names) > 25
    queries = " ".join(query for found in expressions().values() for query in found)
    missing = {name for name in names if name not in queries}
    # Of those, others say as much.
    assert missing <= {
        "kvdb_store_compacted_revision",
        "kvdb_raft_peer_match_index",
        "kvdb_raft_last_index",
        "kvdb_raft_commit_index",
        "kvdb_raft_applied_index",
    }


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no Prometheus here")
@pytest.mark.parametrize(
    "words",
    [
        ["check", "rules", "examples/prometheus-alerts.yml"],
        ["check", "config", "examples/prometheus.yml"],
        ["test", "rules", "tests/alerts.yml"],
    ],
)
def test_the_alerts_as_prometheus_takes_them(words: list[str]) -> None:
    done = subprocess.run(
        ["promtool", *words],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("where", ["dashboard", "alerts"])
def test_each_function_is_of_the_right_kind(where: str) -> None:
    """Counters are counted from where they began; a gauge that falls only fell."""
    for query in expressions()[where]:
        for name in re.findall(r"\b(?:rate|increase)\((\w+)", query):
            assert re.search(r"_(total|bucket|count)$", name), query
        for name in re.findall(r"\bderiv\((\w+)", query):
            assert not name.endswith("_total"), query


def test_panels_have_their_places() -> None:
    panels = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        own = {
            (place["x"] + x, place["y"] + y)
            for x in range(place["w"])
            for y in range(place["h"])
        }
        assert not own & taken, panel["title"]
        assert max(x for x, _ in own) < 24, panel["title"]
        taken |= own
        for target in panel.get("targets", ()):
            assert "{{" in target["legendFormat"], panel["title"]
    for name in ("id", "title"):
        assert len({panel[name] for panel in panels}) == len(panels)


def unit() -> dict[str, list[str]]:
    """What the unit sets, by name."""
    found: dict[str, list[str]] = {}
    for line in (EXAMPLES / "kvdb@.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def test_the_unit_starts_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its command line, its environment and the example's options fit."""
    [command] = unit()["ExecStart"]
    path = str(EXAMPLES / "kvdb.toml")
    words = shlex.split(command.replace("/etc/kvdb/%i.toml", path))
    assert words[0].endswith("/twistd")
    assert words[1:4] == ["-n", "--pidfile=", "kvdb"]
    for setting in unit()["Environment"]:
        name, _, value = setting.partition("=")
        monkeypatch.setenv(name, value.replace("%S/kvdb/%i", "/var/lib/kvdb/1"))
    options = Options()
    options.parseOptions(words[4:])
    settings = options.settings()
    assert settings.data_dir == "/var/lib/kvdb/1"
    assert len(settings.cluster) == 3
    assert unit()["Type"] == ["notify"]


def test_the_file_of_options_shows_all_of_them() -> None:
    text = (EXAMPLES / "kvdb.toml").read_text()
    shown = set(tomllib.loads(text)) | set(re.findall(r"^# ([\w-]+) =", text, re.M))
    names = {name for name, *_ in [*Options.optParameters, *Options.optFlags]}
    assert shown == names - {"config"}
    for name, _, default, *_ in Options.optParameters:
        value = tomllib.loads(text).get(name)
        if default is not None and value is not None and name != "cluster":
            assert str(value) == default, f"{name} is not the default"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_as_systemd_reads_it(tmp_path: Path) -> None:
    text = (EXAMPLES / "kvdb@.service").read_text()
    # What is named must be there: who runs it, and the program.
    text = text.replace("=/opt/kvdb/bin/twistd", "=/bin/true").replace(
        "=kvdb\n", "=root\n"
    )
    copy = tmp_path / "kvdb@1.service"
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if "kvdb@" in line]
    assert not complaints


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_unit_gives_little_to_whoever_breaks_in() -> None:
    """As systemd judges it, of 10.0."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    done = subprocess.run(
        [*command, f"--threshold={MOST_EXPOSED}", "examples/kvdb@.service"],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
