"""Views over files by parts of the entities: the same table as at once, whatever the bound."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fairway.contract.view import FOREVER, Feature, ViewSpec
from fairway.data import views
from fairway.data.view_parts import compute_files
from fairway.errors import DataError

START = datetime(2024, 1, 1, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")
EVENT_AT = {"trips": "left_at"}


def count(trips: pl.DataFrame) -> pl.DataFrame:
    return trips.group_by("stop", "at").agg(trips=pl.len())


VIEWS = (
    ViewSpec(
        "recent", "trips", "stop", timedelta(hours=2), None, (Feature("km", "km", "mean"), Feature("n", None, "count"))
    ),
    ViewSpec("newest", "trips", "line", FOREVER, None, (Feature("last_km", "km", "last"),)),
    ViewSpec("counted", "trips", "stop", timedelta(hours=1), count),
)


def write(folder: Path, n: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    rng = np.random.default_rng(5)

    def table(n: int, at: str) -> pl.DataFrame:
        times = [START + timedelta(minutes=int(m)) for m in rng.integers(0, 600, n)]
        stops = pl.Series("stop", [None if s == "g" else s for s in rng.choice(list("abcdefg"), n)], pl.String)
        lines = pl.Series("line", rng.integers(0, 20, n))
        return pl.DataFrame([stops, lines, pl.Series(at, times, TIME), pl.Series("km", rng.normal(size=n))])

    rows, events = table(n, "asked_at").drop("km").with_row_index("row"), table(n, "left_at")
    rows.write_parquet(folder / "rows.parquet")
    events.write_parquet(folder / "trips.parquet")
    return rows, events


@pytest.mark.parametrize("bound", [70, 10_000])
def test_by_parts_equals_at_once(tmp_path: Path, bound: int) -> None:
    rows, events = write(tmp_path, 400)
    wanted, schemas = views.look_up(VIEWS, rows, {"trips": events}, at="asked_at", event_at=EVENT_AT)
    out = tmp_path / "out.parquet"
    found = compute_files(
        VIEWS, tmp_path / "rows.parquet", {"trips": tmp_path / "trips.parquet"}, out, at="asked_at",
        event_at=EVENT_AT, part_rows=bound,
    )  # fmt: skip
    assert found == schemas
    assert pl.read_parquet(out).equals(wanted)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.parquet", "rows.parquet", "trips.parquet"]


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    write(tmp_path, 20)
    wrong = ViewSpec("v", "trips", "stop", FOREVER, None, (Feature("x", "speed", "last"),))
    with pytest.raises(DataError, match="speed"):
        compute_files(
            [wrong], tmp_path / "rows.parquet", {"trips": tmp_path / "trips.parquet"}, tmp_path / "out.parquet",
            at="asked_at", event_at=EVENT_AT,
        )  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.parquet", "trips.parquet"]
