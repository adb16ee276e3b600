"""Folding: every acknowledged row once, in whatever order segments come and however often."""

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from fairway import clock, fingerprint
from fairway.contract.columns import Column, Contract
from fairway.contract.settings import Settings
from fairway.data import log, segment
from fairway.data.segment import ColumnNote, Columns, EventRow, Events, LabelRow, Labels, Predictions, VersionAnswers
from fairway.errors import StoreError, ThingNotFound
from fairway.store import schema
from fairway.store.workspace import Workspace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COLUMNS = Columns(
    "contract-1",
    "",
    [
        ColumnNote("who", "string", "entity", "plain"),
        ColumnNote("size", "float", "feature", "plain"),
        ColumnNote("kind", "category", "feature", "plain"),
        ColumnNote("born", "datetime", "feature", "plain"),
    ],
)


def request(name: str, rows: int = 2, *, body: str = "b", minute: int = 0, output: float = 0.25) -> Predictions:
    at = clock.to_us(NOW + timedelta(minutes=minute))
    places = list(range(rows))
    return Predictions(
        endpoint="m", model="m", gateway="g1", contract="contract-1", request_id=name, body=body, received_us=at,
        rollout="rollout-1", share_epoch=1, ids=[fingerprint.prediction_id("default", "m", name, i) for i in places],
        at_us=[at + i for i in places], entities=[f"{name}/{i}" for i in places], units=[f"{name}/{i}" for i in places],
        arms=[3] * rows, propensities=[0.9] * rows, flags=[["unseen:kind"]] * rows,
        columns={
            "who": [f"{name}/{i}" for i in places], "size": [1.5] * rows, "kind": [None] * rows, "born": [at] * rows,
        },
        looked_up=[{"recent": 2.0}] * rows,
        answers=[
            VersionAnswers(3, places, [True] * rows, ["ok"] * rows, [output] * rows, [None] * rows, 1.0),
            VersionAnswers(4, places, [False] * rows, ["model_error"] * rows, [None] * rows, ["boom"] * rows, 2.0),
        ],
    )  # fmt: skip


def label(identity: str, value: Any, *, at: int, event: str = "e", name: str = "y", received: int = 0) -> Labels:
    us = clock.to_us(NOW)
    return Labels(us + received, [LabelRow(identity, name, event, value, us + at)])


def write(folder: Path, name: str, *records: Any, opened_us: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.seg"
    connection = segment.create(path, gateway="g1", opened_us=opened_us)
    with connection:
        connection.executemany(
            "insert into record(kind, data) values(?, ?)", [segment.encode(r) for r in (COLUMNS, *records)]
        )
    segment.close(connection)
    return path


@pytest.fixture(autouse=True)
def stopped_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.VirtualClock(tmp_path / "clock", NOW)
    monkeypatch.setenv(clock.VARIABLE, str(tmp_path / "clock"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.create(tmp_path)
    with made.store.write() as tx:
        settings = {"target": "y", "label_delay": "6h"}
        tx.execute(
            sa.insert(schema.model).values(workspace="default", model="m", settings=settings, created_at=clock.now())
        )
    return made


def table(workspace: Workspace, which: sa.Table) -> list[dict[str, Any]]:
    with workspace.store.read() as tx:
        return [dict(row._mapping) for row in tx.execute(sa.select(which).order_by(*which.primary_key.columns))]


def test_a_folded_request_reads_back_whole(workspace: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path, "s1", request("r1"))
    seen: list[log.FoldedBatch] = []
    log.fold(workspace, path, [lambda store, tx, batch: seen.append(batch)])
    assert not path.exists()
    frame = log.predictions(workspace, "m")
    assert frame["prediction_id"].to_list() == [fingerprint.prediction_id("default", "m", "r1", i) for i in (0, 1)]
    row = frame.to_dicts()[0]
    assert (row["in_who"], row["in_size"], row["in_born"], row["lk_recent"]) == ("r1/0", 1.5, NOW, 2.0)
    assert json.loads(row["answers"]) == {
        "3": {"role": "served", "status": "ok", "output": 0.25, "latency_ms": 1.0},
        "4": {"role": "shadow", "status": "model_error", "output": None, "latency_ms": 2.0, "error": "boom"},
    }
    found = log.find(workspace, row["prediction_id"])
    assert found["inputs"]["who"] == "r1/0" and found["answers"]["3"]["output"] == 0.25 and found["labels"] == []
    assert seen[0].predictions[0]["inputs"] == {"who": "r1/0", "size": 1.5, "kind": None, "born": clock.to_us(NOW)}
    with pytest.raises(ThingNotFound):
        log.find(workspace, "p-none")


def test_a_segment_counts_once_even_when_its_file_comes_back(workspace: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path, "s1", request("r1"))
    copy = path.read_bytes()
    log.fold(workspace, path)
    path.write_bytes(copy)  # the worker was killed after the commit and before the file was deleted
    batches: list[log.FoldedBatch] = []
    log.fold(workspace, path, [lambda store, tx, batch: batches.append(batch)])
    assert batches == [] and not path.exists()
    assert log.predictions(workspace, "m").height == 2


def test_an_observer_that_fails_leaves_nothing(workspace: Workspace, tmp_path: Path) -> None:
    path = write(tmp_path, "s1", request("r1"))

    def fail(store: Any, tx: Any, batch: Any) -> None:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        log.fold(workspace, path, [fail])
    assert path.exists() and table(workspace, schema.prediction) == [] and table(workspace, schema.log_file) == []
    log.fold(workspace, path)
    assert log.predictions(workspace, "m").height == 2


def test_repetitions_are_dropped_and_other_bodies_counted(workspace: Workspace, tmp_path: Path) -> None:
    first = write(tmp_path, "s1", request("r1", output=0.25), opened_us=1)
    again = write(tmp_path, "s2", request("r1", output=0.75), opened_us=2)
    other = write(tmp_path, "s3", request("r1", body="other"), opened_us=3)
    log.fold(workspace, [other, again, first])
    assert log.predictions(workspace, "m").height == 2
    assert table(workspace, schema.prediction)[0]["answers"]["3"]["output"] == 0.25
    counters = {row["name"]: row["value"] for row in table(workspace, schema.counter)}
    assert counters == {"conflict": 2, "repeated": 2}


def test_order_and_grouping_of_segments_do_not_matter(tmp_path: Path) -> None:
    ids = [fingerprint.prediction_id("default", "m", f"r{i}", 0) for i in range(3)]
    pieces = [
        [request("r0", minute=50), label(ids[1], 1, at=5, event="late", received=3)],
        [label(ids[1], 0, at=2, event="early", received=9), label(ids[0], 1, at=1), request("r2", minute=70)],
        [request("r1", minute=5), label(ids[2], 1, at=1), label(ids[2], 0, at=1, event="f", received=1)],
    ]
    results = []
    for number, order in enumerate(itertools.permutations(range(3))):
        workspace = Workspace.create(tmp_path / str(number))
        with workspace.store.write() as tx:
            model = {"workspace": "default", "model": "m", "settings": {"target": "y"}, "created_at": NOW}
            tx.execute(sa.insert(schema.model).values(model))
        files = {i: write(workspace.root / "x", f"s{i}", *pieces[i], opened_us=i) for i in range(3)}
        if number % 2:
            log.fold(workspace, [files[i] for i in order])
        else:
            for i in order:
                log.fold(workspace, files[i])
        rows = [{k: v for k, v in r.items() if k != "segment"} for r in table(workspace, schema.prediction)]
        results.append((rows, table(workspace, schema.label), log.predictions(workspace, "m").to_dicts()))
    for result in results[1:]:
        assert result == results[0]
    assert {row["prediction"]: row["label"] for row in results[0][0] if row["label_at"]} == dict(
        zip(ids, (1, 1, 0), strict=True)
    )


def test_a_label_waits_for_its_prediction_and_then_expires(workspace: Workspace, tmp_path: Path) -> None:
    identity = fingerprint.prediction_id("default", "m", "r1", 0)
    log.fold(workspace, write(tmp_path, "s1", label(identity, 1, at=0), label("p-unknown", 1, at=0)))
    assert [row["matched"] for row in table(workspace, schema.label)] == [False, False]
    batch = log.fold(workspace, write(tmp_path, "s2", request("r1")))
    assert batch.relabelled == [identity]
    assert {r["prediction"]: r["matched"] for r in table(workspace, schema.label)} == {
        identity: True,
        "p-unknown": False,
    }
    with workspace.store.write() as tx:
        assert log.match_labels(workspace.store, tx, NOW + timedelta(days=7, hours=6)) == []
        assert log.match_labels(workspace.store, tx, NOW + timedelta(days=7, hours=7)) == []
    assert [row["prediction"] for row in table(workspace, schema.label)] == [identity]
    assert {row["name"]: row["value"] for row in table(workspace, schema.counter)} == {"label_expired": 1}


def test_a_reward_is_kept_but_is_not_the_label(workspace: Workspace, tmp_path: Path) -> None:
    identity = fingerprint.prediction_id("default", "m", "r1", 0)
    log.fold(workspace, write(tmp_path, "s1", request("r1"), label(identity, 9.5, at=4, name="revenue")))
    assert log.find(workspace, identity)["label"] is None
    log.fold(workspace, write(tmp_path, "s2", label(identity, 1, at=2)))
    assert log.find(workspace, identity)["label"] == 1
    assert [item["name"] for item in log.find(workspace, identity)["labels"]] == ["y", "revenue"]


def test_private_columns_never_reach_the_log(workspace: Workspace, tmp_path: Path) -> None:
    notes = [ColumnNote("who", "string", "entity", "hash"), ColumnNote("size", "float", "feature", "drop")]
    private = Columns("contract-2", "", notes)
    record = request("secret-person")
    record.contract = "contract-2"
    record.columns = {"who": record.columns["who"], "size": record.columns["size"]}
    batch = log.fold(workspace, write(tmp_path, "s1", private, record))
    frame = log.predictions(workspace, "m")
    assert frame["in_size"].to_list() == [None, None]
    assert frame["in_who"].to_list() == frame["entity"].to_list() == [log.hashed(f"secret-person/{i}") for i in (0, 1)]
    assert batch.predictions[0]["unit"] == log.hashed("secret-person/0")
    assert "secret-person/" not in str(table(workspace, schema.prediction))


def test_labelled_rows_are_typed_and_know_only_their_time(workspace: Workspace, tmp_path: Path) -> None:
    contract = Contract(
        columns=(
            Column(name="who", type="string", role="entity"),
            Column(name="size", type="float"),
            Column(name="kind", type="category", values=("a", "b")),
            Column(name="later", type="int", known="later"),
            Column(name="y", type="bool", role="target"),
        )
    )
    project = SimpleNamespace(
        contract=contract, settings=Settings(name="m", task="binary", target="y", positive="true")
    )
    identity = fingerprint.prediction_id("default", "m", "r1", 0)
    late = label(identity, False, at=9, event="f", received=3_600_000_000)
    log.fold(workspace, write(tmp_path, "s1", request("r1"), label(identity, True, at=4), late))
    early = log.labelled_rows(workspace, project, NOW + timedelta(minutes=1))
    assert early.select("who", "size", "kind", "later", "y").rows() == [("r1/0", 1.5, None, None, True)]
    assert log.labelled_rows(workspace, project, NOW + timedelta(hours=2))["y"].to_list() == [False]
    assert log.labelled_rows(workspace, project, NOW - timedelta(hours=2)).height == 0


def test_source_events_count_once_per_key(workspace: Workspace, tmp_path: Path) -> None:
    columns = Columns("contract-1", "trips", [ColumnNote("km", "float", "feature", "plain")])
    us = clock.to_us(NOW)
    first = Events("trips", "contract-1", us, [EventRow("a", us, {"km": 1.0}), EventRow("b", us - 5, {"km": 2.0})])
    again = Events("trips", "contract-1", us + 9, [EventRow("a", us, {"km": 7.0})])
    assert log.source_events(workspace, "trips", NOW) is None
    log.fold(workspace, write(tmp_path, "s1", columns, again, opened_us=1))
    log.fold(workspace, write(tmp_path, "s2", columns, first, opened_us=2))
    frame = log.source_events(workspace, "trips", NOW + timedelta(seconds=1))
    assert frame is not None and frame.select("_key", "km").rows() == [("a", 1.0), ("b", 2.0)]
    assert log.source_events(workspace, "trips", NOW - timedelta(seconds=1)).height == 0  # type: ignore[union-attr]


def test_a_damaged_segment_folds_nothing(workspace: Workspace, tmp_path: Path) -> None:
    good = write(tmp_path, "s1", request("r1"))
    bad = tmp_path / "s2.seg"
    bad.write_bytes(good.read_bytes()[:5000])
    with pytest.raises(StoreError, match="s2"):
        log.fold(workspace, [good, bad])
    assert good.exists() and table(workspace, schema.segment) == []
