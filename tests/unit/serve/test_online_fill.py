"""What is filled in from history answers every later look-up as the whole history would, and is no more than that."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway import clock
from fairway.data.segment import EventRow
from fairway.serve.online import Ask, Need, Slot
from fairway.serve.online_fill import reachable
from fairway.testing.online_suite import by_hand

NOW = datetime(2024, 5, 1, tzinfo=UTC)
NOW_US, HOUR_US = clock.to_us(NOW), 3_600_000_000
STOP, LINE = Slot("trips", "stop"), Slot("trips", "line")
TIME = pl.Datetime("us", "UTC")

events_drawn = st.lists(
    st.tuples(st.integers(-60, 0), st.integers(0, 40), st.sampled_from("ab"), st.sampled_from(["x", "y", None])),
    max_size=20,
)


def table(drawn: list[tuple[int, int, str, str | None]]) -> tuple[pl.DataFrame, list[EventRow]]:
    """Hours of happening before now and of becoming known after that."""
    rows = [
        EventRow(f"t{i:02}", at := NOW_US + hour * HOUR_US, {"stop": stop, "line": line}, at + late * HOUR_US)
        for i, (hour, late, stop, line) in enumerate(drawn)
    ]
    columns = {
        "key": pl.Series([r.key for r in rows], dtype=pl.String),
        "stop": pl.Series([r.data["stop"] for r in rows], dtype=pl.String),
        "line": pl.Series([r.data["line"] for r in rows], dtype=pl.String),
        "left_at": pl.Series([r.at_us for r in rows], dtype=pl.Int64).cast(TIME),
        "_known_at": pl.Series([r.known_us for r in rows], dtype=pl.Int64).cast(TIME),
    }
    return pl.DataFrame(columns), rows


@settings(max_examples=60, deadline=None, derandomize=True)
@given(events_drawn, st.integers(1, 30), st.integers(1, 90), st.integers(-24, 50))
def test_later_look_ups_find_the_same(drawn, window_h, ttl_h, at_h):
    frame, rows = table(drawn)
    needs = [Need(STOP, window_h * HOUR_US, 0), Need(LINE, 0, ttl_h * HOUR_US)]
    kept = set(reachable(frame, needs, at="left_at", now=NOW)["key"])
    fewer = [row for row in rows if row.key in kept]
    at = NOW_US + at_h * HOUR_US
    asks = [Ask(STOP, e, at - window_h * HOUR_US, at, False) for e in "ab"]
    asks += [Ask(LINE, e, at - ttl_h * HOUR_US, at, True) for e in "xy"]
    assert [by_hand(fewer, ask) for ask in asks] == [by_hand(rows, ask) for ask in asks]


def test_a_long_history_leaves_one_event_of_an_entity():
    frame, _ = table([(-hour, 0, "a", "x") for hour in range(25, 60)])
    assert reachable(frame, [Need(LINE, 0, 10_000 * HOUR_US)], at="left_at", now=NOW)["left_at"].to_list() == [
        NOW - timedelta(hours=25)
    ]
