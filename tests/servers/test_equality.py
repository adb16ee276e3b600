"""The share of served predictions that training's code gives too: one, until the serving side is changed by hand."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import apsw
import polars as pl
import pytest
import small_model
import sqlalchemy as sa

from fairway import clock
from fairway.contract.settings import Settings
from fairway.fleet import loop
from fairway.monitor import alarms, equality
from fairway.process.embedded import EmbeddedServing
from fairway.registry import show
from fairway.serve.online import pack, unpack
from fairway.store import schema
from fairway.store.workspace import Workspace
from fairway.web import evidence, words


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model.make_package(tmp_path_factory.mktemp("package"))


@pytest.fixture
def serving(tmp_path: Path, packaged: Path) -> Iterator[EmbeddedServing]:
    workspace = Workspace.create(tmp_path / "ws")
    small_model.register(workspace, packaged, 1)
    none = {"trip": pl.String, "color": pl.String, "left_at": pl.Datetime("us", "UTC"), "km": pl.Float64}
    pl.DataFrame(schema=none).write_parquet(workspace.root / "trips.parquet")
    embedded = EmbeddedServing(workspace, observers=[], tick=lambda workspace, now: False)
    small_model.desire(workspace, epoch=1, **small_model.served(1))
    yield embedded
    embedded.close()
    workspace.store.close()


def post(serving: EmbeddedServing, path: str, rows: list[dict[str, Any]]) -> None:
    status, answer = serving.call("POST", path, json.dumps({"rows": rows}).encode())
    assert 200 <= status < 300, answer


def window(workspace: Workspace) -> Any:
    """A closed window around now, as the loop finds it."""
    now = clock.now()
    row = {
        "workspace": "default", "model": "small", "contract": small_model.CONTRACT.version,
        "start_at": now - timedelta(hours=1), "end_at": now + timedelta(hours=1), "rows": 3, "profile": {},
        "closed_at": now, "judgement": {"columns": {}, "quality": [], "reason": "a test"},
    }  # fmt: skip
    with workspace.store.write() as tx:
        workspace.store.upsert(tx, schema.window, row)
        return tx.execute(sa.select(schema.window)).one()


def traffic(serving: EmbeddedServing, *, since: int = 0) -> None:
    now = clock.now()
    trips = [
        {"trip": f"t{since + i}", "color": "red", "left_at": clock.iso(now - timedelta(minutes=i)), "km": 10.0 + i}
        for i in range(5)
    ]
    if not since:
        post(serving, "/v1/sources/trips", trips)
    rows = [{"who": f"w{since + i}", "size": i / 3, "color": c} for i, c in enumerate(["red", "red", "blue", None] * 5)]
    post(serving, "/v1/models/small/predict", rows)


def test_a_changed_online_state_is_found_and_named(serving: EmbeddedServing) -> None:
    workspace, settings = serving.workspace, Settings(name="small", task="binary", target="left")
    traffic(serving)
    serving.settle()
    row = window(workspace)
    found = equality.measure(workspace, row, settings, clock.now())
    assert (found["n"], found["equal"], found["share"], found["left_out"], found["reason"]) == (20, 20, 1.0, 0, None)

    online = apsw.Connection(str(workspace.folder / "online.db"))
    (data,) = online.execute("select data from event where key = 't1'").fetchone()
    online.execute("update event set data = ? where key = 't1'", (pack(unpack(data) | {"km": 99.0}),))
    online.close()
    traffic(serving, since=100)
    serving.settle()

    with workspace.store.write() as tx:
        equality.record(workspace.store, tx, row, found, settings, clock.now())
        assert equality.due(workspace.store, tx, "small", clock.now()) == []
        tx.execute(sa.delete(schema.monitor_state))
    assert loop._measure_equality(workspace, loop.live_endpoints(workspace.store)[0], clock.now())
    with workspace.store.read() as tx:
        (raised,) = alarms.open_alarms(workspace.store, tx, model="small", kind="equality")
    told = raised.evidence
    assert raised.severity == "alarm" and (told["n"], told["equal"]) == (40, 30), (told["columns"], told["first"])
    assert told["columns"]["recent_km"] == 10
    first = told["first"][0]
    assert first["column"] == "recent_km" and first["served"] > first["recomputed"] and first["version"] == 1
    judgement = show.model(workspace.store, "small")["windows"][0]["judgement"]
    assert words.equality(judgement["equality"]) == "30 of 40 equal"
    facts = dict(evidence.alarm_facts(show.alarm(workspace.store, raised.alarm)))
    assert facts["found"] == "30 of 40 predictions are what training gives too" and "recent_km 10" in facts["differ"]


def test_failed_look_ups_are_left_out_and_what_can_not_be_told_is_said(serving: EmbeddedServing) -> None:
    workspace, settings = serving.workspace, Settings(name="small", task="binary", target="left")
    traffic(serving)
    online = apsw.Connection(str(workspace.folder / "online.db"))
    online.execute("drop table newest; drop table place")
    traffic(serving, since=100)
    serving.settle()
    row = window(workspace)
    found = equality.measure(workspace, row, settings, clock.now())
    assert (found["n"], found["equal"], found["left_out"]) == (20, 20, 20)
    with workspace.store.write() as tx:
        tx.execute(sa.update(schema.version).values(artifact="0" * 64))
    found = equality.measure(workspace, row, settings, clock.now())
    assert found["n"] == 0 and found["share"] is None and found["reason"].startswith("@1: ")
