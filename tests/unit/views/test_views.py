"""Views see exactly the events of their window that were known by then."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from fairway.contract.view import ViewSpec
from fairway.data import views
from fairway.errors import DataError, ModelCodeError

START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
EVENT_AT = {"trips": "left_at"}


def mean_delay(trips: pl.DataFrame) -> pl.DataFrame:
    return trips.group_by("stop", "at").agg(delay=pl.col("late").mean(), n=pl.len())


def spec(function=mean_delay, *, hours: int = 2) -> ViewSpec:
    return ViewSpec(function.__name__, "trips", "stop", timedelta(hours=hours), function)


def table(rng: np.random.Generator, n: int, name: str) -> pl.DataFrame:
    minutes = rng.integers(0, 600, n)
    return pl.DataFrame(
        {
            "stop": rng.choice(["a", "b", "c"], n),
            name: pl.Series([START + timedelta(minutes=int(m)) for m in minutes], dtype=TIME),
        }
    )


def trips(rng: np.random.Generator, n: int) -> pl.DataFrame:
    made = table(rng, n, "left_at").with_columns(late=rng.normal(size=n), trip=pl.Series(range(n)))
    late = [timedelta(minutes=int(m)) for m in rng.integers(0, 90, n)]
    return made.with_columns(_known_at=pl.col("left_at") + pl.Series(late))


def by_hand(rows: pl.DataFrame, events: pl.DataFrame, window: timedelta) -> list[tuple[float | None, int | None]]:
    out = []
    for stop, at in rows.select("stop", "asked_at").iter_rows():
        seen = [
            e["late"]
            for e in events.iter_rows(named=True)
            if e["stop"] == stop and at - window < e["left_at"] <= at and e["_known_at"] <= at
        ]
        out.append((sum(seen) / len(seen), len(seen)) if seen else (None, None))
    return out


@pytest.mark.parametrize("pairs", [1, 7, 2_000_000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_compute_equals_a_search_by_hand(seed, pairs, monkeypatch):
    monkeypatch.setattr(views, "PAIRS", pairs)
    rng = np.random.default_rng(seed)
    rows, events = table(rng, 80, "asked_at").with_row_index("row"), trips(rng, 150)
    looked = views.compute([spec()], rows, {"trips": events}, at="asked_at", event_at=EVENT_AT)
    assert looked.select("row", "stop", "asked_at").equals(rows.select("row", "stop", "asked_at"))
    for (delay, n), (mean, count) in zip(
        looked.select("delay", "n").iter_rows(), by_hand(rows, events, timedelta(hours=2)), strict=True
    ):
        assert n == count
        assert delay == mean or delay == pytest.approx(mean, abs=1e-12)


def test_each_row_with_its_own_events_gets_the_same_values():
    rng = np.random.default_rng(3)
    rows, events = table(rng, 60, "asked_at"), trips(rng, 150)
    looked, schemas = views.look_up([spec()], rows, {"trips": events}, at="asked_at", event_at=EVENT_AT)
    windows = views.windows_of([spec()], rows, {"trips": events}, at="asked_at", event_at=EVENT_AT)
    given = views.compute_given([spec()], rows, windows, at="asked_at", event_at=EVENT_AT, schemas=schemas)
    assert given.equals(looked)
    alone = []
    for i in range(rows.height):
        own = {"trips": windows["trips"].filter(pl.col("_row") == i).with_columns(_row=pl.lit(0, dtype=pl.Int64))}
        alone.append(views.compute_given([spec()], rows[[i]], own, at="asked_at", event_at=EVENT_AT, schemas=schemas))
    assert pl.concat(alone).equals(looked)


def test_a_row_sees_no_event_that_another_row_brought():
    at = pl.Series([START, START + timedelta(minutes=9)], dtype=TIME)
    rows = pl.DataFrame({"stop": ["a", "a"], "asked_at": at})
    late = pl.DataFrame({"stop": ["a"], "left_at": pl.Series([START], dtype=TIME), "late": [4.0], "_row": [1]})
    given = views.compute_given(
        [spec()], rows, {"trips": late}, at="asked_at", event_at=EVENT_AT,
        schemas={"mean_delay": {"delay": "Float64", "n": "UInt32"}},
    )  # fmt: skip
    assert given["delay"].to_list() == [None, 4.0]


def test_the_window_is_open_at_its_start_and_closed_at_its_end():
    at = START + timedelta(hours=5)
    times = [at - timedelta(hours=2), at - timedelta(hours=2) + timedelta(microseconds=1), at,
             at + timedelta(microseconds=1)]  # fmt: skip
    events = pl.DataFrame({"stop": ["a"] * 4, "left_at": pl.Series(times, dtype=TIME), "late": [1.0, 2.0, 4.0, 8.0]})
    rows = pl.DataFrame({"stop": ["a"], "asked_at": pl.Series([at], dtype=TIME)})
    looked = views.compute([spec()], rows, {"trips": events}, at="asked_at", event_at=EVENT_AT)
    assert looked["delay"].to_list() == [3.0]


def test_no_events_and_null_keys_are_null_of_the_same_type_and_no_row_is_lost():
    rows = pl.DataFrame(
        {"stop": ["a", None, "z"], "asked_at": pl.Series([START, START, None], dtype=TIME)},
    )
    events = trips(np.random.default_rng(0), 5).clear()
    looked = views.compute([spec()], rows, {"trips": events}, at="asked_at", event_at=EVENT_AT)
    assert looked["delay"].to_list() == [None] * 3
    assert looked.schema["delay"] == pl.Float64
    full = trips(np.random.default_rng(0), 50)
    _, schemas = views.look_up([spec()], table(np.random.default_rng(0), 20, "asked_at"), {"trips": full},
                               at="asked_at", event_at=EVENT_AT)  # fmt: skip
    given = views.compute_given([spec()], rows, {}, at="asked_at", event_at=EVENT_AT, schemas=schemas)
    assert given.schema == looked.schema


def test_an_entity_of_another_type_in_the_events_still_matches():
    events = pl.DataFrame({"stop": ["a", "q"], "left_at": pl.Series([START, START], dtype=TIME), "late": [1.0, 5.0]})
    rows = pl.DataFrame(
        {"stop": pl.Series(["b", "a"], dtype=pl.Enum(["a", "b"])), "asked_at": pl.Series([START] * 2, dtype=TIME)}
    )
    looked = views.compute([spec()], rows, {"trips": events}, at="asked_at", event_at=EVENT_AT)
    assert looked["delay"].to_list() == [None, 1.0]


def doubled(trips: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([mean_delay(trips)] * 2)


def shifted(trips: pl.DataFrame) -> pl.DataFrame:
    return mean_delay(trips).with_columns(pl.col("at") + timedelta(hours=1))


def nameless(trips: pl.DataFrame) -> pl.DataFrame:
    return trips.group_by("stop").agg(delay=pl.col("late").mean())


def none(trips: pl.DataFrame) -> None:
    return None


@pytest.mark.parametrize(
    ("function", "said"),
    [(doubled, "two rows for stop"), (shifted, "was not asked"), (nameless, "no column 'at'"), (none, "NoneType")],
)
def test_a_view_that_breaks_its_promises_is_refused_by_name(function, said):
    rng = np.random.default_rng(0)
    with pytest.raises(ModelCodeError, match=said) as caught:
        views.compute([spec(function)], table(rng, 20, "asked_at"), {"trips": trips(rng, 50)}, at="asked_at",
                      event_at=EVENT_AT)  # fmt: skip
    assert f"view {function.__name__}()" in str(caught.value)


def test_columns_that_are_not_there_are_named():
    rng = np.random.default_rng(0)
    rows, events = table(rng, 5, "asked_at"), trips(rng, 5)
    with pytest.raises(DataError, match="no column 'stop'"):
        views.compute([spec()], rows.drop("stop"), {"trips": events}, at="asked_at", event_at=EVENT_AT)
    with pytest.raises(ModelCodeError, match="not under"):
        views.compute([spec()], rows, {"trips": events}, at="asked_at", event_at={})
    with pytest.raises(DataError, match="rename it"):
        views.compute([spec()], rows, {"trips": events.with_columns(at=1)}, at="asked_at", event_at=EVENT_AT)
