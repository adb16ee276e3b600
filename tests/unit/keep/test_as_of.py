"""Production at a past time is told from the chain; what contradicts the record is named."""

import io
import json
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from keep_world import MODEL, NOW, request

from fairway import clock
from fairway.cli.admin_audit import as_of_lines
from fairway.errors import ModelNotFound
from fairway.keep import as_of
from fairway.rollout import traffic
from fairway.store import audit, heads, schema

DAY = timedelta(days=1)


@pytest.fixture
def lived(kept: Any, still: Any) -> Any:
    """@1 live on day 0; a canary of @2 on day 2, promoted on day 3, rolled back on day 5."""
    store = kept.workspace.store
    kept.version()
    kept.version(
        artifact=kept.package(text=b"second"), dataset=kept.dataset(["d", "e", "f"]), run="run-2", author="lee"
    )

    def put(day: int, action: str, **values: Any) -> None:
        still(NOW + day * DAY)
        with store.write() as tx:
            traffic.change(store, tx, MODEL, actor=values.pop("actor", "fairway"), action=action, now=clock.now(),
                           model=MODEL, **values)  # fmt: skip

    put(0, "rollout.first", actor="ana", champion=1, rollout="rollout-1", shares={"1": 1.0})
    kept.fold(request("r1", ["a", "b"], at=NOW))
    put(2, "rollout.step", challenger=2, rollout="rollout-2", shares={"1": 0.9, "2": 0.1})
    put(3, "rollout.promote", champion=2, previous=1, challenger=None, rollout="rollout-2", shares={"2": 1.0})
    kept.fold(request("r2", ["a"], at=NOW + 3 * DAY))
    kept.fold(*(kept.label(row["prediction"], "yes") for row in kept.rows(schema.prediction)))
    with store.write() as tx:
        tx.execute(sa.insert(schema.review).values(
            workspace="default", review="review-1", model=MODEL, kind="approve", subject="rollout-2", question="?",
            evidence={}, choices={"approve": "", "reject": ""}, assignee="risk", not_by="lee", opened_at=NOW + DAY,
            answer="approve", answered_by="kim", answered_at=NOW + 2 * DAY, why="MC-198"))  # fmt: skip
        audit.record(store, tx, actor="kim", action="review.answer", subject="review-1", answer="approve", why="MC-198")
    put(5, "rollback", actor="li", champion=1, previous=2, rollout=None, shares={"1": 1.0}, why="slow")
    still(NOW + 6 * DAY)
    return kept


def at(kept: Any, day: float, **more: Any) -> Any:
    return as_of.evidence(kept.workspace, MODEL, at=NOW + day * DAY, **more)


def test_what_served_is_told_for_any_time(lived: Any) -> None:
    assert at(lived, -1)["production"] is None
    told = [(s["champion"], s["shares"]) for s in (at(lived, d)["production"] for d in (0.5, 2.5, 3.5, 5.5))]
    assert told == [(1, {"1": 1.0}), (1, {"1": 0.9, "2": 0.1}), (2, {"2": 1.0}), (1, {"1": 1.0})]
    assert [v["name"] for v in at(lived, 2.5)["versions"]] == ["small@1", "small@2"]
    since = at(lived, 3.5)["production"]["since"]
    assert (since["rollout"], since["at"]) == ("rollout-2", clock.iso(NOW + 3 * DAY))
    with pytest.raises(ModelNotFound):
        as_of.evidence(lived.workspace, "other", at=NOW)


def test_the_lines_say_who_what_and_on_which_evidence(lived: Any) -> None:
    head = heads.sign(lived.workspace)
    found = at(lived, 3.25, copies=[head])
    assert as_of.problems(found) == []
    lines = as_of_lines(found, [])
    assert lines[0] == (
        "production at 2026-03-04 18:00 UTC   small@2, 100 %, champion since 04 Mar 2026 12:00 by rollout-2"
    )
    text = "\n".join(lines)
    wanted = (
        "(sha256 checked)", "reproduce: not run (add --reproduce)", 'kim, 03 Mar 2026 12:00, "MC-198"; author lee',
        "gate 1 of 1", "1 that day in the log; labels for 1", "unbroken; head matches the copy signed on",
    )  # fmt: skip
    for said in wanted:
        assert said in text
    assert "no approval was asked for; author ana" in "\n".join(as_of_lines(at(lived, 1), []))
    again = at(lived, 3.25, reproduce=lambda run: {"outcome": "differs", "text": f"{run} differs"})
    assert as_of.problems(again) == ["reproducing gave something else: run-2 differs"]


@pytest.mark.parametrize(
    ("table", "values", "says"),
    [
        (schema.version, {"metrics": {"auc": 0.99}}, "its metrics, checks or settings are not those"),
        (schema.version, {"dataset": "data-other"}, "its dataset is not the one that was registered"),
        (schema.review, {"answered_by": "sam"}, "review-1: its answer is not the one in the audit log"),
        (schema.audit, {"actor": "eve"}, "audit entry 1 is missing, out of order or changed"),
    ],
)
def test_a_changed_row_is_named(lived: Any, table: sa.Table, values: dict[str, Any], says: str) -> None:
    with lived.workspace.store.write() as tx:
        tx.execute(sa.update(table).values(**values))
    assert any(says in text for text in as_of.problems(at(lived, 3.5)))


@pytest.mark.parametrize("what", ["package", "dataset", "log"])
def test_changed_bytes_are_named(lived: Any, what: str) -> None:
    found = at(lived, 3.25)
    version = found["versions"][0]
    blob = {
        "package": version["files"]["model/weights.txt"],
        "dataset": next(r["blob"] for r in lived.rows(schema.dataset) if r["dataset"] == version["dataset"]["dataset"]),
        "log": next(r["blob"] for r in lived.rows(schema.log_file) if r["hour"] >= NOW + 2 * DAY),
    }[what]
    path = lived.workspace.blobs.path(blob)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    (said,) = as_of.problems(at(lived, 3.25))
    assert blob[:12] in said


def test_dropped_predictions_are_said_to_be_dropped(lived: Any) -> None:
    from fairway.keep import retention

    retention.drop(lived.workspace, MODEL, keep=DAY, now=NOW + 6 * DAY)
    found = at(lived, 3.5)
    assert found["predictions"]["rows"] == 0 and as_of.problems(found) == []
    assert "dropped by retention on" in "\n".join(as_of_lines(found, []))


def test_the_archive_holds_it_all(lived: Any, tmp_path: Path) -> None:
    folder = lived.workspace.dir("runs") / "run-2"
    folder.mkdir()
    (folder / "report.html").write_text("<h1>report</h1>")
    head = heads.sign(lived.workspace)
    found = at(lived, 3.5, copies=[head])
    out = as_of.write_zip(lived.workspace, found, tmp_path / "a.zip", lines=as_of_lines(found, []), copies=[head])
    with zipfile.ZipFile(io.BytesIO(out.read_bytes())) as archive:
        names = set(archive.namelist())
        assert names >= {"README.txt", "evidence.json", "summary.txt", "report.html", "entries.jsonl", "head.json",
                         "package/manifest.json", "package/contract.toml",
                         f"copies/default-{head.entry:010d}.json"}  # fmt: skip
        assert json.loads(archive.read("evidence.json"))["production"]["champion"] == 2
        entries = archive.read("entries.jsonl").splitlines()
        assert len(entries) == head.entry == json.loads(archive.read("head.json"))["entry"]
    assert [p.name for p in tmp_path.glob(".a.zip*")] == []
