"""The pictures."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from benchmarks import plot
from benchmarks.latency import Latency
from benchmarks.load import Figures, Kind, Load
from benchmarks.plot import Curve, Dot, svg
from benchmarks.rounds import Measurement, Point, Results

SVG = "{http://www.w3.org/2000/svg}"


def test_it_is_xml_with_a_curve_for_each_system() -> None:
    dots = (Dot("1", 300, 3, 9), Dot("32", 4800, 6.8, 13))
    curves = [Curve("kvdb", dots), Curve("<other> & co", dots), Curve("none", ())]
    root = ElementTree.fromstring(svg("puts & gets", curves))
    assert len(root.findall(f".//{SVG}polyline")) == 4  # p50 and p99 of two
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"kvdb", "<other> & co", "puts & gets", "requests per second"} <= set(texts)
    assert "none" not in texts


def test_places_are_inside_and_grow_to_the_right_and_upwards() -> None:
    dots = (Dot("1", 300, 3, 9), Dot("32", 4800, 6.8, 13))
    root = ElementTree.fromstring(svg("", [Curve("kvdb", dots)]))
    for line in root.iter(f"{SVG}polyline"):
        places = [one.split(",") for one in line.attrib["points"].split()]
        (x1, y1), (x2, y2) = ((float(x), float(y)) for x, y in places)
        assert plot.LEFT <= x1 < x2 <= plot.WIDTH - plot.RIGHT
        assert plot.HEIGHT - plot.BOTTOM >= y1 > y2 >= plot.TOP


def test_a_picture_of_nothing() -> None:
    ElementTree.fromstring(svg("nothing", []))


def test_one_picture_for_each_kind(tmp_path: Path) -> None:
    def measured(load: Load, suite: str) -> Measurement:
        figures = Figures(100, 1, Latency(1, 2, 3, 4))
        point = Point(f"{load}", load)
        return Measurement(suite, "kvdb", point, 1, figures)

    results = Results(
        [
            measured(Load(Kind.PUT, 8, 64, 9), "puts"),
            measured(Load(Kind.PUT, 1, 64, 9), "puts"),
            measured(Load(Kind.PUT, 1, 1024, 9), "puts"),
            measured(Load(Kind.PUT, 128, 64, 9, rate=50), "open"),
            measured(Load(Kind.GET, 8, 64, 9), "scale"),
        ]
    )
    paths = plot.write(results, tmp_path)
    assert [path.name for path in paths] == ["put.svg", "open-put.svg"]
    root = ElementTree.parse(paths[0]).getroot()
    assert len(root.findall(f".//{SVG}circle")) == 4  # of the two of 64 bytes
