"""What holds for every view, whatever the rows and events: drawn cases against the rule spelled out."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fairway
from fairway.contract.settings import SourceSettings
from fairway.contract.view import FOREVER, Feature, ViewSpec
from fairway.data import view_events, view_figures, views
from fairway.errors import DataError, ModelCodeError

START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
EVENT_AT = {"trips": "left_at", "stops": "seen_at"}
SPAN = timedelta(minutes=10)
HOWS = ["count", "sum", "mean", "min", "max", "last"]

WINDOW = ViewSpec("recent", "trips", "stop", SPAN, None, tuple(Feature(f"km_{how}", "km", how) for how in HOWS))
COUNTS = ViewSpec("counts", "trips", "stop", SPAN, None, (Feature("n", None, "count"), Feature("n_sum", "n_of", "sum")))
LATEST = ViewSpec(
    "newest", "trips", "stop", SPAN, None, (Feature("last_km", "km", "last"), Feature("trip", "trip", "last"))
)
EVER = ViewSpec("ever", "trips", "stop", FOREVER, None, (Feature("ever_km", "km", "last"),))
BY_LINE = ViewSpec("line", "stops", "line", SPAN, None, (Feature("crowd", "people", "max"),))
DECLARED = (WINDOW, COUNTS, LATEST, EVER)


def function(trips: pl.DataFrame) -> pl.DataFrame:
    return trips.group_by("stop", "at", maintain_order=True).agg(f_n=pl.len(), f_last=pl.col("km").last())


FUNCTION = ViewSpec("function", "trips", "stop", SPAN, function)
ALL = (*DECLARED, FUNCTION)

minutes = st.integers(0, 40)
stops = st.sampled_from(["a", "b", None])
kms = st.one_of(st.none(), st.floats(-1e6, 1e6, allow_nan=False), st.just(-0.0))
rows_drawn = st.lists(st.tuples(stops, st.one_of(minutes, st.none())), max_size=12)
events_drawn = st.lists(st.tuples(stops, minutes, st.integers(0, 15), kms), max_size=25)


def rows_of(drawn: list[tuple[Any, Any]]) -> pl.DataFrame:
    at = [None if m is None else START + timedelta(minutes=m) for _, m in drawn]
    return pl.DataFrame(
        {
            "row": pl.Series(range(len(drawn)), dtype=pl.Int64),
            "stop": pl.Series([s for s, _ in drawn], dtype=pl.String),
            "asked_at": pl.Series(at, dtype=TIME),
        }
    )


def events_of(drawn: list[tuple[Any, int, int, Any]]) -> pl.DataFrame:
    left = [START + timedelta(minutes=m) for _, m, _, _ in drawn]
    return pl.DataFrame(
        {
            "trip": pl.Series([f"t{i:02}" for i in range(len(drawn))], dtype=pl.String),
            "stop": pl.Series([s for s, *_ in drawn], dtype=pl.String),
            "left_at": pl.Series(left, dtype=TIME),
            "km": pl.Series([km for *_, km in drawn], dtype=pl.Float64),
            "n_of": pl.Series(range(len(drawn)), dtype=pl.Int64),
            "_known_at": pl.Series(
                [at + timedelta(minutes=late) for at, (_, _, late, _) in zip(left, drawn, strict=True)], dtype=TIME
            ),
        }
    )


def compute(rows: pl.DataFrame, events: pl.DataFrame, specs: tuple[ViewSpec, ...] = ALL) -> pl.DataFrame:
    return views.compute(specs, rows, {"trips": events}, at="asked_at", event_at=EVENT_AT)


def seen(row: dict[str, Any], events: list[dict[str, Any]], window: timedelta) -> list[dict[str, Any]]:
    """The rule: of this stop, in (at - window, at], known by then; in order of time, then of the other columns."""
    if row["stop"] is None or row["asked_at"] is None:
        return []
    at = row["asked_at"]
    found = [
        e
        for e in events
        if e["stop"] == row["stop"] and at - window < e["left_at"] <= at and max(e["_known_at"], e["left_at"]) <= at
    ]
    return sorted(found, key=lambda e: (e["left_at"], e["trip"]))


def by_hand(row: dict[str, Any], events: list[dict[str, Any]]) -> dict[str, Any]:
    mine, ever = seen(row, events, SPAN), seen(row, events, FOREVER)
    kms = [e["km"] for e in mine if e["km"] is not None]
    return {
        "km_count": len(kms) if mine else None,
        "km_sum": math.fsum(kms) if kms else None,
        "km_mean": math.fsum(kms) / len(kms) if kms else None,
        "km_min": min(kms, default=None),
        "km_max": max(kms, default=None),
        "km_last": mine[-1]["km"] if mine else None,
        "n": len(mine) or None,
        "n_sum": sum(e["n_of"] for e in mine) if mine else None,
        "last_km": mine[-1]["km"] if mine else None,
        "trip": mine[-1]["trip"] if mine else None,
        "ever_km": ever[-1]["km"] if ever else None,
        "f_n": len(mine) or None,
        "f_last": mine[-1]["km"] if mine else None,
    }


@settings(max_examples=60, deadline=None, derandomize=True)
@given(rows_drawn, events_drawn)
def test_every_view_equals_the_rule_and_no_row_disappears(rows_, events_):
    rows, events = rows_of(rows_), events_of(events_)
    looked = compute(rows, events)
    assert looked.select(rows.columns).equals(rows)
    listed = events.to_dicts()
    for row in looked.iter_rows(named=True):
        wanted = by_hand(row, listed)
        for name, value in wanted.items():
            near = value is not None and row[name] is not None and isinstance(value, float)
            assert row[name] == (pytest.approx(value, rel=1e-9, abs=1e-6) if near else value), (name, row)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(rows_drawn, events_drawn, st.randoms(use_true_random=False))
def test_shuffling_rows_and_events_changes_no_bit(rows_, events_, random):
    rows, events = rows_of(rows_), events_of(events_)
    looked = compute(rows, events)
    order, mixed = list(range(rows.height)), list(range(events.height))
    random.shuffle(order)
    random.shuffle(mixed)
    again = compute(rows[order], events[mixed]).sort("row")
    assert again.equals(looked)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(rows_drawn, events_drawn, events_drawn)
def test_what_becomes_known_later_changes_nothing(rows_, events_, later_):
    rows, events = rows_of(rows_), events_of(events_)
    newest = rows["asked_at"].max() or START
    later = events_of(later_).with_columns(
        trip=pl.format("later-{}", "trip"), _known_at=pl.lit(newest).cast(TIME) + timedelta(microseconds=1)
    )
    assert compute(rows, pl.concat([events, later])).equals(compute(rows, events))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(rows_drawn, events_drawn)
def test_serving_equals_training_to_the_bit(rows_, events_):
    """A request's rows bring the events that a look-up found, and nothing else."""
    rows, events = rows_of(rows_), events_of(events_)
    looked, schemas = views.look_up(ALL, rows, {"trips": events}, at="asked_at", event_at=EVENT_AT)
    windows = views.windows_of(ALL, rows, {"trips": events}, at="asked_at", event_at=EVENT_AT)
    for one in ([list(range(rows.height))], [[i] for i in range(rows.height)]):
        for part in one:
            found = (
                windows["trips"].filter(pl.col("_row").is_in(part)).with_columns(pl.col("_row") - min(part, default=0))
            )
            given_ = views.compute_given(
                ALL, rows[part], {"trips": found}, at="asked_at", event_at=EVENT_AT, schemas=schemas
            )
            assert given_.equals(looked[part])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(rows_drawn, events_drawn)
def test_events_that_a_look_up_brings_in_vain_are_left_out(rows_, events_):
    """Whatever the online state hands over, the model process sees only the question's own."""
    rows, events = rows_of(rows_), events_of(events_)
    looked, schemas = views.look_up(ALL, rows, {"trips": events}, at="asked_at", event_at=EVENT_AT)
    row = pl.DataFrame({"_row": range(rows.height)}, schema={"_row": pl.Int64})
    everything = events.join(row, how="cross")
    given_ = views.compute_given(ALL, rows, {"trips": everything}, at="asked_at", event_at=EVENT_AT, schemas=schemas)
    assert given_.equals(looked)


def test_a_value_expires_at_its_ttl():
    events = events_of([("a", 0, 0, 1.0)])
    at = [START + SPAN - timedelta(microseconds=1), START + SPAN, START + timedelta(days=9)]
    rows = pl.DataFrame({"stop": ["a"] * 3, "asked_at": pl.Series(at, dtype=TIME)})
    looked = compute(rows, events, (LATEST, EVER))
    assert looked["last_km"].to_list() == [1.0, None, None]
    assert looked["ever_km"].to_list() == [1.0, 1.0, 1.0]


def test_views_of_several_sources_and_entities_stand_side_by_side():
    rows = pl.DataFrame({"stop": ["a", "b"], "line": [7, 8], "asked_at": pl.Series([START + SPAN / 2] * 2, dtype=TIME)})
    trips = events_of([("a", 1, 0, 3.0), ("b", 2, 0, 4.0)])
    people = pl.DataFrame({"line": [7, 7, 9], "people": [5, 9, 99], "seen_at": pl.Series([START] * 3, dtype=TIME)})
    looked = views.compute((LATEST, BY_LINE), rows, {"trips": trips, "stops": people}, at="asked_at", event_at=EVENT_AT)
    assert looked.select("last_km", "crowd").rows() == [(3.0, 9), (4.0, None)]


@pytest.mark.parametrize("entity", [pl.Int64, pl.String, pl.Enum(["1", "2", "3"])])
def test_entities_of_any_type_match_by_what_they_say(entity):
    rows = pl.DataFrame(
        {"stop": pl.Series(["1", "2", "3"]).cast(entity), "asked_at": pl.Series([START] * 3, dtype=TIME)}
    )
    events = events_of([("2", 0, 0, 5.0), ("1", 0, 0, 6.0)])
    assert compute(rows, events, (LATEST,))["last_km"].to_list() == [6.0, 5.0, None]


def test_times_too_far_apart_for_one_key_are_ranked():
    """Microseconds from year 1 to 9999 beside an entity's number don't fit into 64 bits."""
    far = [datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC), START]
    n = 40_000
    rows = pl.DataFrame({"stop": range(n), "asked_at": pl.Series([START] * n, dtype=TIME)})
    events = pl.DataFrame(
        {"stop": [i % n for i in range(3 * n)], "left_at": pl.Series([far[i // n] for i in range(3 * n)], dtype=TIME),
         "km": [float(i) for i in range(3 * n)]}
    )  # fmt: skip
    spec = ViewSpec("v", "trips", "stop", SPAN, None, (Feature("k", "km", "last"), Feature("c", None, "count")))
    looked = compute(rows, events, (spec,))
    assert looked["k"].to_list() == [float(2 * n + i) for i in range(n)]
    assert set(looked["c"]) == {1}


def test_figures_over_parts_of_unknown_events_are_the_same(monkeypatch):
    rows, events = (
        rows_of([("a", m) for m in range(40)]),
        events_of([("a", m, 9 - m % 10, float(m)) for m in range(30)]),
    )
    whole = compute(rows, events, DECLARED)
    monkeypatch.setattr(view_figures, "PAIRS", 3)
    assert compute(rows, events, DECLARED).equals(whole)


def test_declared_views_read_as_they_are_written():
    spec = fairway.latest(source="trips", entity="stop", columns={"last_km": "km"}, ttl="30min")
    assert spec == ViewSpec("", "trips", "stop", timedelta(minutes=30), None, (Feature("last_km", "km", "last"),))
    assert spec.latest and fairway.latest(source="t", entity="e", columns=["a"]).window == FOREVER
    recent = fairway.window(source="trips", entity="stop", window="2h", features={"n": "count", "km": ("km", "mean")})
    assert recent.features == (Feature("n", None, "count"), Feature("km", "km", "mean")) and not recent.latest


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: fairway.window(source="s", entity="e", window="2h", features={"a": ("b", "median")}), "no figure"),
        (lambda: fairway.window(source="s", entity="e", window="2h", features={"a": "mean"}), "no figure"),
        (lambda: fairway.window(source="s", entity="e", window="2h", features={}), "empty"),
        (lambda: fairway.window(source="s", entity="e", window="0h", features={"a": "count"}), "no event can lie"),
        (lambda: fairway.latest(source="s", entity="e", columns="plan"), "must be a list"),
        (lambda: fairway.latest(source="s", entity="e", columns=["plan"], ttl="soon"), "not a duration"),
    ],
)
def test_a_wrong_declaration_says_what_to_write(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize(
    ("feature", "error", "said"),
    [
        (Feature("x", "speed", "mean"), DataError, "no column 'speed', which x of view v needs"),
        (Feature("x", "trip", "mean"), ModelCodeError, "the mean of 'trip', which is String"),
        (Feature("x", "left_at", "last"), ModelCodeError, "numbers, bools, text"),
        (Feature("stop", "km", "last"), ModelCodeError, "has already"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_by_name(feature, error, said):
    spec = ViewSpec("v", "trips", "stop", SPAN, None, (feature,))
    with pytest.raises(error, match=said):
        compute(rows_of([("a", 1)]), events_of([("a", 0, 0, 1.0)]), (spec,))


def test_the_key_of_an_event_must_be_its_own():
    events = pl.DataFrame({"trip": ["t1", "t2", "t2"], "km": [1.0, 2.0, 2.0]})
    once = view_events.one_event_per_key(events, "trip", file="trips.csv")
    assert once["trip"].to_list() == ["t1", "t2"]
    with pytest.raises(DataError, match=r"trips.csv, column trip: 't2' is the key of more than one event"):
        view_events.one_event_per_key(events.with_columns(km=pl.Series([1.0, 2.0, 3.0])), "trip", file="trips.csv")
    for empty in ("", None):
        odd = events.with_columns(trip=pl.Series(["t1", empty, "t2"]))
        with pytest.raises(DataError, match=r"trips.csv, row 2, column trip: the key of this event is empty"):
            view_events.one_event_per_key(odd, "trip", file="trips.csv")


def test_history_counts_as_known_when_it_says_but_never_before_it_happened():
    times = pl.Series([START, START + SPAN], dtype=TIME)
    events = pl.DataFrame({"left_at": times, "created": pl.Series([START + SPAN, START], dtype=TIME)})
    plain = SourceSettings(path=None, at="left_at", key="trip")
    assert view_events.with_known_at(events, plain)["_known_at"].to_list() == times.to_list()
    created = SourceSettings(path=None, at="left_at", key="trip", known_at="created")
    assert view_events.with_known_at(events, created)["_known_at"].to_list() == [START + SPAN] * 2
