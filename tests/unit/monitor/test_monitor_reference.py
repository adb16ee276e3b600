import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa

from fairway import fingerprint
from fairway.contract.columns import Column, Contract
from fairway.contract.settings import Settings
from fairway.monitor import alarms, drift, reference, windows
from fairway.monitor.reference import build_reference, window_start
from fairway.store import schema
from fairway.store.base import Store

START = datetime(2014, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CARRIERS = ["AA", "DL", "WN"]
SETTINGS = Settings(name="late", task="binary", target="late", positive="yes", at="at", label_delay=timedelta(hours=6))
CONTRACT = Contract(
    columns=(
        Column(name="id", type="string", role="entity"),
        Column(name="at", type="datetime", role="at"),
        Column(name="distance", type="float"),
        Column(name="carrier", type="category", values=("AA", "DL", "WN")),
        Column(name="seen_at", type="datetime"),
        Column(name="day", type="date"),
        Column(name="note", type="string"),
        Column(name="late", type="category", role="target", values=("no", "yes")),
    )
)


def frame(days: int, *, per_day: int = 400, seed: int = 0) -> pl.DataFrame:
    random = np.random.default_rng(seed)
    n = days * per_day
    at = [START + DAY * (i / per_day) for i in range(n)]
    return pl.DataFrame(
        {
            "id": [f"f{i}" for i in range(n)],
            "at": pl.Series(at, dtype=pl.Datetime("us", "UTC")),
            "distance": random.normal(900, 200, n),
            "carrier": pl.Series(random.choice(CARRIERS, n, p=[0.5, 0.3, 0.2]), dtype=pl.Enum(CARRIERS)),
            "seen_at": pl.Series([t - timedelta(hours=float(h)) for t, h in zip(at, random.random(n), strict=True)],
                                 dtype=pl.Datetime("us", "UTC")),
            "day": pl.Series([(t - timedelta(days=i % 3)).date() for i, t in enumerate(at)]),
            "note": [f"text {i}" for i in range(n)],
            "delay": random.exponential(10, n),
            "late": random.choice(["no", "yes"], n),
        }
    )  # fmt: skip


def prediction(i: int, at: datetime, *, carrier: str | None, distance: float, delay: float | None) -> dict[str, Any]:
    return {
        "prediction": f"p-{i}", "endpoint": "late", "model": "late", "contract": "contract-1", "at": at,
        "inputs": {
            "distance": distance, "carrier": carrier,
            "seen_at": int((at - timedelta(hours=(i % 100) / 100)).timestamp() * 1e6),
            "day": (at - timedelta(days=i % 3)).date().isoformat(), "note": "text 1", "id": f"x{i}",
        },
        "looked_up": {"delay": delay},
    }  # fmt: skip


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return build_reference(frame(28), at="at", contract=CONTRACT, importance={"distance": 0.6}, window=DAY)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield made
    made.close()


def test_reference_has_columns_bins_and_windows(made: dict[str, Any]) -> None:
    assert set(made["columns"]) == {"distance", "carrier", "seen_at", "day", "note", "delay"}
    assert len(made["windows"]) == 28 and not made["live"]
    assert made["columns"]["carrier"]["kind"] == "categorical" and made["columns"]["note"]["kind"] == "length"
    assert made["columns"]["seen_at"]["kind"] == "time"
    assert len(made["columns"]["distance"]["reference"]["x"]) == 28
    assert made["columns"]["distance"]["importance"] == 0.6
    assert json.loads(fingerprint.canonical(made)) == made


def test_reference_without_time_is_filled_by_live_windows() -> None:
    made = build_reference(frame(3).drop("at"), at=None, contract=CONTRACT)
    assert made["live"] and made["windows"] == [] and made["columns"]["distance"]["reference"] is None


def test_reference_of_an_empty_or_tiny_frame() -> None:
    for rows in (0, 1):
        made = build_reference(frame(1).head(rows), at="at", contract=CONTRACT)
        assert made["live"] and set(made["columns"]) >= {"distance"}


def test_held_out_losses_become_reference_windows() -> None:
    data = frame(20)
    losses = pl.Series([None if i < 4000 else 0.1 for i in range(data.height)], dtype=pl.Float64)
    made = build_reference(data, at="at", contract=CONTRACT, losses=losses)
    assert [round(w["mean"], 6) for w in made["losses"]] == [0.1] * 10


def fold(store: Store, day: datetime, *, seed: int, shift: float = 0.0, n: int = 400, nulls: float = 0.0) -> None:
    random = np.random.default_rng(seed)
    rows = [
        prediction(
            seed * 10_000 + i, day + DAY * (i / n), distance=float(random.normal(900 + shift, 200)),
            carrier=str(random.choice(["AA", "DL", "WN"], p=[0.5, 0.3, 0.2])),
            delay=None if random.random() < nulls else float(random.exponential(10)),
        )
        for i in range(n)
    ]  # fmt: skip
    with store.write() as tx:
        windows.observe(store, tx, rows[: n // 2])
        windows.observe(store, tx, rows[n // 2 :])


def close(store: Store, now: datetime) -> list[Any]:
    with store.write() as tx:
        return [drift.close_window(store, tx, row, SETTINGS, now) for row in windows.due(store, tx, now)]


def install(store: Store, made: dict[str, Any], version: int = 1) -> None:
    with store.write() as tx:
        reference.install(store, tx, model="late", contract="contract-1", version=version, reference=made)


def opened(store: Store) -> list[Any]:
    with store.read() as tx:
        return alarms.open_alarms(store, tx, model="late")


def test_same_data_raises_nothing_and_a_shift_raises_an_alarm(store: Store, made: dict[str, Any]) -> None:
    install(store, made)
    day = START + 28 * DAY
    for i in range(10):
        fold(store, day + i * DAY, seed=100 + i)
    judged = close(store, day + 11 * DAY)
    assert len(judged) == 10
    watched = ("distance", "carrier", "delay", "seen_at", "day")
    assert {j["columns"][c]["state"] for j in judged for c in watched} <= {"ok", "refused"}
    fold(store, day + 10 * DAY, seed=200, shift=250.0)
    (found,) = close(store, day + 12 * DAY)
    assert found["columns"]["distance"]["state"] == "alarm"
    alarm = next(a for a in opened(store) if a.subject == "distance")
    assert (alarm.kind, alarm.severity, alarm.action["row"]) == ("drift", "alarm", 7)
    assert close(store, day + 12 * DAY) == []  # a window closes once


def test_drift_alarm_closes_after_calm_windows(store: Store, made: dict[str, Any]) -> None:
    install(store, made)
    day = START + 28 * DAY
    fold(store, day, seed=1, shift=300.0)
    close(store, day + 2 * DAY)
    assert any(a.subject == "distance" for a in opened(store))
    for i in range(1, 8):
        fold(store, day + i * DAY, seed=1 + i)
        close(store, day + (i + 2) * DAY)
    assert not any(a.subject == "distance" for a in opened(store))


def test_nulls_are_a_quality_notice(store: Store, made: dict[str, Any]) -> None:
    install(store, made)
    day = START + 28 * DAY
    fold(store, day, seed=1, nulls=0.5)
    (found,) = close(store, day + 2 * DAY)
    assert [q["column"] for q in found["quality"]] == ["delay"]
    alarm = next(a for a in opened(store) if a.kind == "quality")
    assert alarm.severity == "notice" and alarm.action["row"] == 3


def test_windows_keep_their_reference_when_the_champion_changes(store: Store, made: dict[str, Any]) -> None:
    install(store, made)
    day = START + 28 * DAY
    fold(store, day, seed=1, n=100)
    install(store, build_reference(frame(30, seed=9), at="at", contract=CONTRACT), version=2)
    with store.write() as tx:
        reference.activate(store, tx, "late", 2)
    fold(store, day, seed=2, n=100)
    fold(store, day + DAY, seed=3, n=100)
    with store.read() as tx:
        rows = tx.execute(sa.select(schema.window).order_by(schema.window.c.start_at)).all()
    assert [(r.profile["reference"], r.rows) for r in rows] == [("1", 200), ("2", 100)]


def test_live_windows_become_the_reference(store: Store) -> None:
    install(store, build_reference(frame(3).drop("at"), at=None, contract=CONTRACT))
    for i in range(16):
        fold(store, START + i * DAY, seed=i)
        close(store, START + (i + 2) * DAY)
    with store.read() as tx:
        found = reference.installed(store, tx, "late", "contract-1")
    assert found is not None
    grown = found[1]["1"]
    assert len(grown["windows"]) == 16 and len(grown["columns"]["distance"]["reference"]["x"]) == 16


def test_few_rows_are_not_judged(store: Store, made: dict[str, Any]) -> None:
    install(store, made)
    fold(store, START + 28 * DAY, seed=1, n=20)
    (found,) = close(store, START + 30 * DAY)
    assert found["columns"] == {} and "20 rows" in found["reason"]


def test_windows_start_at_utc_days() -> None:
    assert window_start(datetime(2014, 5, 3, 13, 7, tzinfo=UTC), DAY) == datetime(2014, 5, 3, tzinfo=UTC)
