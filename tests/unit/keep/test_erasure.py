"""An erased entity is nowhere in the workspace; ids, counts and the chain stay; a killed erasure goes on."""

import json
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from keep_world import MODEL, NOW, SETTINGS, notes, request

from fairway import clock
from fairway.data import log, parts
from fairway.data.segment import ColumnNote, Columns, EventRow, Events, hashed
from fairway.errors import ThingNotFound, Unfinished, UsageError
from fairway.keep import erasure, erasure_data
from fairway.keep.as_of import evidence, problems
from fairway.keep.erasure_work import Work
from fairway.keep.rewrite import Person
from fairway.registry import versions
from fairway.rollout import traffic
from fairway.runtime.package import read_manifest
from fairway.store import audit, schema

WHO = "jo@example.org"


@pytest.fixture
def filled(kept: Any, still: Any) -> Any:
    """Someone in data, a package's sample, the log, labels, a rollout's units, events, evidence and a report."""
    settings = {**SETTINGS, "sources": {"trips": {"path": "trips.csv", "at": "at", "key": "key"}}}
    data = kept.dataset([WHO, "b", "c"])
    checks = [{"name": "row-wise-features", "verdict": "fail", "summary": f"who {WHO} is 29.85 alone"}]
    kept.version(artifact=kept.package([WHO, "b"]), dataset=data, checks=checks, settings=settings)
    artifact = kept.rows(schema.version)[0]["artifact"]
    kept.run("run-1", result={"dataset": data, "artifact": artifact, "note": f"see {WHO}."})
    kept.run("run-other", status="failed", steps=[{"name": "snapshot", "id": kept.dataset([WHO, "z"])}])
    folder = kept.workspace.dir("runs") / "run-1"
    folder.mkdir()
    (folder / "report.html").write_text(f"<td>{WHO}</td><td>b</td>")
    (kept.workspace.dir("cache") / "steps" / "abc").mkdir(parents=True)
    (kept.workspace.dir("cache") / "steps" / "abc" / "looked.arrow").write_text(WHO)
    kept.fold(request("r1", [WHO, "b"]), request("r2", ["b"]))
    kept.fold(request("r3", [WHO], at=NOW - timedelta(hours=5)), columns=notes(who="hash"))
    frame = log.predictions(kept.workspace, MODEL)
    kept.fold(*(kept.label(p, "yes", at=NOW) for p in frame["prediction_id"]))
    source = Columns("contract-1", "trips", [ColumnNote("who", "string", "feature", "plain")])
    kept.fold(Events("trips", "contract-1", 5, [EventRow("k1", 5, {"who": WHO}), EventRow("k2", 5, {"who": "b"})]),
              columns=source)  # fmt: skip
    store = kept.workspace.store
    with store.write() as tx:
        traffic.change(store, tx, MODEL, actor="ana", action="rollout.first", now=clock.now(), model=MODEL, champion=1,
                       shares={"1": 1.0})  # fmt: skip
        unit = {"workspace": "default", "rollout": "rollout-1", "metric": "assigned", "arm": "champion",
                "share_epoch": 1, "block": NOW, "n": 1, "sum": 1.0}  # fmt: skip
        tx.execute(sa.insert(schema.rollout_unit), [{**unit, "unit": u} for u in (WHO, str(hashed(WHO)), "b")])
        tx.execute(sa.insert(schema.rollout).values(
            workspace="default", rollout="rollout-1", endpoint=MODEL, model=MODEL, champion=None, challenger=1,
            phase="promoted", step=0, step_at=NOW, plan={}, state={}, started_by="ana", started_at=NOW, settings={},
            fairway="0", format=1))  # fmt: skip
        tx.execute(sa.insert(schema.step).values(workspace="default", key="k" * 64, name="checks",
                                                 result={"says": f"row of {WHO}"}, created_at=NOW))  # fmt: skip
    return kept


def erase(kept: Any, **more: Any) -> erasure.Erased:
    given = {"entity": WHO, "why": "asked for on 1 March, ticket 88", "actor": "ana", "now": NOW, **more}
    return erasure.erase(kept.workspace, MODEL, **given)


def holders(kept: Any, text: str = WHO) -> list[str]:
    """Everything in the workspace that still says it, Parquet decoded."""
    import io

    import polars as pl

    found = []
    for path in sorted(p for p in kept.workspace.folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if data[:4] == b"PAR1":
            data = repr(pl.read_parquet(io.BytesIO(data)).to_dicts()).encode()
        if text.encode() in data:
            found.append(str(path.relative_to(kept.workspace.folder)))
    return found


def test_nothing_says_the_name_afterwards(filled: Any) -> None:
    assert len(holders(filled)) > 6
    before = {row["dataset"]: row for row in filled.rows(schema.dataset)}
    forgotten = []
    done = erase(filled, forget=lambda *what: forgotten.append(what) or 1)
    assert done.done and holders(filled) == [] and holders(filled, str(hashed(WHO))) == []
    assert forgotten == [("trips", "who", WHO)]
    assert done.versions == ("small@1",) and done.yours == ("small.csv", "trips.csv")
    assert done.counts == {
        "datasets": 2, "events of trips": 1, "events online": 1, "files deleted": 7, "files of runs": 1,
        "held-out rows in packages": 1, "labels": 2, "predictions": 2, "results of steps": 1, "rows of datasets": 2,
        "rows of the log": 2, "runs that quote it": 1, "units of rollouts": 2, "versions that quote it": 1,
    }  # fmt: skip
    after = {row["dataset"]: row for row in filled.rows(schema.dataset)}
    assert after.keys() == before.keys() and all(row["erased_at"] == NOW for row in after.values())
    assert parts.load_dataset(filled.workspace, next(iter(sorted(after))))["who"].to_list()
    assert sorted(log.predictions(filled.workspace, MODEL)["entity"].to_list()) == ["b", "b"]
    assert [row["unit"] for row in filled.rows(schema.rollout_unit)] == ["b"]
    (row,) = filled.rows(schema.erasure)
    assert row["state"] == "done" and WHO not in json.dumps(row["found"])


def test_the_chain_stays_whole_and_explains_what_changed(filled: Any) -> None:
    epoch = filled.rows(schema.endpoint)[0]["epoch"]
    old = filled.rows(schema.version)[0]["artifact"]
    erase(filled)
    assert audit.verify(filled.workspace.store) is None
    assert {"erasure_started", "dataset_erased", "version_erased", "endpoint.repacked", "erasure_done"} <= set(
        filled.actions()
    )
    version = filled.rows(schema.version)[0]
    assert version["artifact"] != old and old not in filled.workspace.blobs
    assert filled.rows(schema.endpoint)[0]["epoch"] == epoch + 1  # gateways take the new package
    manifest = read_manifest(filled.workspace.blobs.get(version["artifact"]))
    assert filled.workspace.blobs.get(manifest.files["model/weights.txt"]) == b"model"
    found = evidence(filled.workspace, MODEL, at=clock.now())
    assert problems(found) == [] and found["versions"][0]["erasures"] and found["production"]["champion"] == 1


def test_a_dry_run_counts_and_changes_nothing(filled: Any) -> None:
    before, entries = holders(filled), len(filled.actions())
    tried = erase(filled, dry_run=True, why="x")
    assert not tried.done and tried.counts["rows of the log"] == 2 and tried.counts["labels"] == 2
    assert holders(filled) == before and len(filled.actions()) == entries and filled.rows(schema.erasure) == []


@pytest.mark.parametrize("dies_in", ["datasets", "packages", "bury", "_repack"])
def test_a_killed_erasure_goes_on(filled: Any, monkeypatch: pytest.MonkeyPatch, dies_in: str) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Work if dies_in == "bury" else erasure_data, dies_in, die)
        with pytest.raises(KeyboardInterrupt):
            erase(filled)
    assert filled.rows(schema.erasure)[0]["state"] == "running"
    done = erase(filled)
    assert done.done and done.erasure == "erasure-1" and holders(filled) == []
    assert done.counts["rows of the log"] == 2 and filled.actions().count("erasure_started") == 1


def test_what_is_not_folded_yet_keeps_it_open(filled: Any) -> None:
    folder = filled.workspace.dir("spool") / "sealed"
    (folder / "waits.seg").write_bytes(b"")
    done = erase(filled)
    assert not done.done and done.waits == 1 and filled.rows(schema.erasure)[0]["state"] == "running"
    (folder / "waits.seg").unlink()
    assert erase(filled).done


def test_one_prediction_by_its_id(filled: Any) -> None:
    wanted = log.predictions(filled.workspace, MODEL)["prediction_id"][0]
    done = erase(filled, entity=None, prediction=wanted)
    assert done.done and done.counts["predictions"] == 1 and done.versions == ()
    assert wanted not in log.predictions(filled.workspace, MODEL)["prediction_id"].to_list()
    assert wanted not in {row["prediction"] for row in filled.rows(schema.label)}
    with pytest.raises(ThingNotFound):
        erase(filled, entity=None, prediction="p-NONE")


def test_what_can_not_be_erased_is_refused(filled: Any) -> None:
    with pytest.raises(UsageError, match="names what is to be erased"):
        erase(filled, why=f"asked for by {WHO}")
    with pytest.raises(UsageError, match="name what to erase"):
        erase(filled, entity=None)
    filled.run("run-now", status="running", at=clock.now())
    with pytest.raises(Unfinished, match="run-now of small is under way"):
        erase(filled)
    store = filled.workspace.store
    with store.write() as tx:
        versions.remember_model(store, tx, MODEL, "", {**SETTINGS, "entity": None})
    with pytest.raises(UsageError, match="no entity column"):
        erase(filled)


def test_a_short_value_is_only_erased_where_it_stands_alone() -> None:
    person = Person("7")
    assert person.scrub({"who": "7", "text": "7 of 17", "n": 7}) == {"who": "[erased]", "text": "7 of 17", "n": 7}
    longer = Person("a&b-1234")
    assert longer.scrub("<td>a&amp;b-1234</td> a&b-1234, xa&b-12345") == "<td>[erased]</td> [erased], xa&b-12345"
