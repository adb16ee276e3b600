"""`[log] keep` drops old hours whole: Parquet, index rows and labels, with an entry that says so."""

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from keep_world import MODEL, NOW, SETTINGS, request

from fairway import clock
from fairway.data import log
from fairway.keep import retention
from fairway.registry import versions
from fairway.store import schema


def remember(kept: Any, keep: str | None) -> None:
    with kept.workspace.store.write() as tx:
        settings = {**SETTINGS, "log": {"keep": keep}}
        versions.remember_model(kept.workspace.store, tx, MODEL, str(kept.workspace.root), settings)


def test_old_hours_go_and_young_ones_stay(kept: Any, still: Any) -> None:
    remember(kept, None)
    for day in range(4):
        name = f"r{day}"
        kept.fold(request(name, ["a", "b"], at=NOW - timedelta(days=day)))
        kept.fold(kept.label(log.predictions(kept.workspace, MODEL)["prediction_id"][0], "yes"))
    blobs = {row["blob"] for row in kept.rows(schema.log_file)}
    assert len(blobs) == 4 and not retention.tick(kept.workspace, NOW)  # kept for ever
    remember(kept, "2d")
    assert kept.actions()[-1] == "settings_changed"
    assert retention.tick(kept.workspace, NOW) and not retention.tick(kept.workspace, NOW)
    left = {row["blob"] for row in kept.rows(schema.log_file)}
    assert len(left) == 3  # the hour that `now - 2 days` lies in stays whole
    assert set(kept.workspace.blobs) >= left and not (blobs - left) & set(kept.workspace.blobs)
    times = log.predictions(kept.workspace, MODEL)["at"].to_list()
    assert len(times) == 6 and min(times) >= NOW - timedelta(days=2)
    entry = kept.rows(schema.audit)[-1]
    assert (entry["action"], entry["subject"], entry["detail"]["predictions"]) == ("log_dropped", MODEL, 2)
    ids = {row["prediction"] for row in kept.rows(schema.prediction)}
    assert {row["prediction"] for row in kept.rows(schema.label)} <= ids


def test_a_schedule_does_it(kept: Any, still: Any) -> None:
    from fairway.fleet.schedules import KINDS, STANDING

    remember(kept, "2d")
    kept.fold(request("r", ["a"], at=NOW - timedelta(days=5)))
    (standing,) = (s for s in STANDING if s.kind == "drop_old_log")
    job: Any = None  # it keeps no steps
    assert standing.every == timedelta(days=1) and KINDS[standing.kind](kept.workspace, {"tick": clock.iso(NOW)}, job)
    assert kept.rows(schema.prediction) == []


def test_it_runs_once_a_day_and_in_pieces(kept: Any, still: Any, monkeypatch: Any) -> None:
    remember(kept, "1d")
    monkeypatch.setattr(retention, "_AT_ONCE", 3)
    for hour in range(6):
        kept.fold(request(f"r{hour}", ["a", "b"], at=NOW - timedelta(days=3, hours=hour)))
    assert retention.tick(kept.workspace, NOW)
    assert kept.rows(schema.prediction) == [] and kept.rows(schema.log_file) == []
    assert kept.actions().count("log_dropped") > 1
    kept.fold(request("late", ["a"], at=NOW - timedelta(days=2)))
    assert not retention.tick(kept.workspace, NOW + timedelta(hours=2))
    assert retention.tick(kept.workspace, NOW + timedelta(days=1)) and kept.rows(schema.prediction) == []


def test_a_file_that_another_hour_names_stays(kept: Any, still: Any) -> None:
    remember(kept, "1d")
    kept.fold(request("r", ["a"], at=NOW - timedelta(days=3)))
    row = kept.rows(schema.log_file)[0]
    with kept.workspace.store.write() as tx:
        tx.execute(sa.update(schema.log_file).values(kind="source"))
    with kept.workspace.store.write() as tx:
        mine = sa.and_(schema.log_file.c.blob == row["blob"], schema.log_file.c.kind == "prediction")
        assert tx.execute(sa.select(schema.log_file).where(mine)).first() is None
    retention.tick(kept.workspace, NOW)
    assert row["blob"] in kept.workspace.blobs and kept.rows(schema.prediction) == []
