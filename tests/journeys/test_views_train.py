"""A project with declared views and one of its own, from training through served days: what is served is trained."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa

from fairway.data import log
from fairway.data.project import load_project
from fairway.store import schema
from fairway.store.workspace import Workspace
from fairway.testing.backtest import run_backtest

START = datetime(2024, 3, 1, tzinfo=UTC)
DAYS, SERVED_FROM = 30, START + timedelta(days=26)

SETTINGS = """format = 1
name = "orders"
task = "binary"
target = "late"
positive = "yes"
entity = "order"
at = "placed_at"
label_delay = "2h"
risk = "low"
[data]
source = "orders.parquet"
[sources.accounts]
path = "accounts.parquet"
at = "changed_at"
key = "change"
known_at = "booked_at"
[sources.trips]
path = "trips.parquet"
at = "left_at"
key = "trip"
[endpoint]
at_from_caller = true
max_skew = "20min"
"""
CONTRACT = """format = 1
reviewed = true
[columns.order]
type = "string"
role = "entity"
[columns.placed_at]
type = "datetime"
role = "at"
[columns.customer]
type = "int"
[columns.depot]
type = "category"
values = ["n", "s"]
[columns.size]
type = "float"
[columns.late]
type = "category"
values = ["no", "yes"]
role = "target"
known = "later"
[sources.accounts.columns.change]
type = "string"
[sources.accounts.columns.customer]
type = "int"
[sources.accounts.columns.changed_at]
type = "datetime"
[sources.accounts.columns.booked_at]
type = "datetime"
[sources.accounts.columns.plan]
type = "category"
values = ["free", "paid"]
[sources.accounts.columns.balance]
type = "float"
nulls = true
[sources.trips.columns.trip]
type = "int"
[sources.trips.columns.depot]
type = "category"
values = ["n", "s"]
[sources.trips.columns.left_at]
type = "datetime"
[sources.trips.columns.delay]
type = "float"
"""
MODEL = """
import polars as pl
from sklearn.linear_model import LogisticRegression

import fairway

account = fairway.latest(source="accounts", entity="customer", columns=["plan", "balance"], ttl="10d")
ever = fairway.latest(source="accounts", entity="customer", columns={"ever_balance": "balance"})
depot = fairway.window(source="trips", entity="depot", window="3h", features={
    "delay": ("delay", "mean"), "worst": ("delay", "max"), "trips": "count",
})


@fairway.view(source="trips", entity="depot", window="1h")
def spread(trips: pl.DataFrame) -> pl.DataFrame:
    return trips.group_by("depot", "at").agg(spread=pl.col("delay").std())


def features(data: pl.DataFrame) -> pl.DataFrame:
    return data.select(
        "size", (pl.col("plan") == "paid").cast(pl.Float64).alias("paid").fill_null(-1.0),
        pl.col("balance", "ever_balance", "delay", "worst", "spread").fill_null(0.0),
        pl.col("trips").fill_null(0).cast(pl.Float64),
    )


def train(X: pl.DataFrame, y: pl.Series, params: dict) -> LogisticRegression:
    return LogisticRegression().fit(X, y)
"""


def write_project(folder: Path) -> None:
    rng = np.random.default_rng(11)
    folder.mkdir()
    (folder / "fairway.toml").write_text(SETTINGS)
    (folder / "contract.toml").write_text(CONTRACT)
    (folder / "model.py").write_text(MODEL)
    minutes = DAYS * 24 * 60

    def times(n: int) -> pl.Series:
        drawn = np.sort(rng.integers(0, minutes * 60, n))
        return pl.Series([START + timedelta(seconds=int(s)) for s in drawn], dtype=pl.Datetime("us", "UTC"))

    n = 4_000
    trips = pl.DataFrame({"trip": range(n), "depot": rng.choice(["n", "s"], n), "left_at": times(n),
                          "delay": rng.gamma(2.0, 5.0, n)})  # fmt: skip
    n = 600
    late_booking = pl.duration(minutes=pl.Series(rng.integers(0, 300, n)))
    accounts = pl.DataFrame({
        "change": [f"c{i}" for i in range(n)], "customer": rng.integers(0, 60, n), "changed_at": times(n),
        "plan": rng.choice(["free", "paid"], n), "balance": rng.normal(0, 50, n),
    }).with_columns(
        booked_at=pl.col("changed_at") + late_booking, balance=pl.when(pl.col("balance") > -60).then("balance")
    )  # fmt: skip
    n = 3_000
    orders = pl.DataFrame({"order": [f"o{i}" for i in range(n)], "placed_at": times(n),
                           "customer": rng.integers(0, 70, n), "depot": rng.choice(["n", "s"], n),
                           "size": rng.normal(size=n)})  # fmt: skip
    known = trips.sort("left_at").rename({"left_at": "placed_at"})
    recent = orders.sort("placed_at").join_asof(known, on="placed_at", by="depot", check_sortedness=False)["delay"]
    score = orders["size"].to_numpy() + recent.fill_null(10.0).to_numpy() / 8 - 1.2 + rng.logistic(size=n)
    orders.with_columns(late=pl.Series(np.where(score > 0.4, "yes", "no"))).write_parquet(folder / "orders.parquet")
    trips.write_parquet(folder / "trips.parquet")
    accounts.write_parquet(folder / "accounts.parquet")


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict]:
    folder = tmp_path_factory.mktemp("orders") / "orders"
    write_project(folder)
    Workspace.create(folder)
    end = START + timedelta(days=DAYS)
    summary = run_backtest(load_project(folder), start=SERVED_FROM, end=end, retrain="never")
    return Workspace.find(Path(summary["folder"])), summary


def test_every_window_is_served_as_trained(replayed: tuple[Workspace, dict]) -> None:
    workspace, summary = replayed
    assert summary["predictions"] > 300
    with workspace.store.read() as tx:
        windows = tx.execute(sa.select(schema.window).order_by(schema.window.c.start_at)).all()
    told = [w.judgement["equality"] for w in windows if w.closed_at]
    assert len(told) >= 3 and sum(found["n"] for found in told) > 200
    for found in told:
        assert found["reason"] is None and found["share"] == 1.0, found
    assert not [a for a in summary["alarms"] if a["kind"] == "equality"]


def test_look_ups_find_history_and_no_balance_before_it_was_booked(replayed: tuple[Workspace, dict]) -> None:
    workspace, _ = replayed
    frame = log.predictions(workspace, "orders")
    assert not frame["flags"].list.eval(pl.element().str.starts_with("lookup_failed")).list.any().any()
    accounts = pl.read_parquet(workspace.root.parents[2] / "accounts.parquet")
    seen = 0
    for row in frame.iter_rows(named=True):
        known = accounts.filter(
            (pl.col("customer") == row["in_customer"]) & (pl.max_horizontal("changed_at", "booked_at") <= row["at"])
        ).sort("changed_at", "change")
        if known.height and known["changed_at"][-1] < SERVED_FROM - timedelta(days=2):  # from history, never sent
            assert row["lk_ever_balance"] == known["balance"][-1]
            fresh = known["changed_at"][-1] > row["at"] - timedelta(days=10)
            assert row["lk_plan"] == (known["plan"][-1] if fresh else None)
            seen += 1
    assert seen > 50
    assert json.loads(frame["answers"][0])
