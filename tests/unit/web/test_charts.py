"""Charts are well-formed SVG for any finite or missing values."""

import itertools
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from fairway.web.charts import Line, Point, Rule, interval_chart, line_chart

T0 = datetime(2026, 1, 1, tzinfo=UTC)
numbers = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e12, max_value=1e12)


values = st.none() | numbers


@given(st.lists(st.tuples(st.integers(0, 10**8), values, values, values), max_size=30), st.lists(numbers, max_size=3))
def test_line_charts_are_well_formed(rows: list[tuple[int, float, float, float]], rules: list[float]) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    points = [Point(T0 + timedelta(seconds=s), v, low, high, "<note>") for s, v, low, high in rows]
    drawn = line_chart("a <b> & c", [Line("one", points), Line("two", points)], rules=[Rule(r, "r") for r in rules])
    if drawn:
        ElementTree.fromstring(drawn)
    assert bool(drawn) == any(p.value is not None for p in points)


words = st.text(min_size=1, max_size=5).filter(str.isprintable)


@given(st.lists(st.tuples(words, numbers, values, values), max_size=8))
def test_interval_charts_are_well_formed(rows: list[tuple[str, float, float, float]]) -> None:
    drawn = interval_chart("t", rows)
    if drawn:
        ElementTree.fromstring(drawn)
    assert bool(drawn) == bool(rows)


def test_names_are_apart_and_many_points_are_thinned() -> None:
    points = [Point(T0 + timedelta(hours=i), 1.0) for i in range(5000)]
    drawn = line_chart("t", [Line(f"l{i}", points) for i in range(4)], rules=[Rule(1.0, "r")])
    assert len(drawn) < 40_000
    names = [e for e in ElementTree.fromstring(drawn) if e.get("class", "").startswith(("name", "rule-name"))]
    heights = sorted(float(e.get("y", "0")) for e in names)
    assert all(b - a >= 12.9 for a, b in itertools.pairwise(heights))
