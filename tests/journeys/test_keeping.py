"""Keeping it, as a person does: an audit of the past, an erasure while it serves, gc beside a train, the doctor."""

import json
import subprocess
import zipfile
from datetime import UTC, timedelta
from pathlib import Path

from commands import FAIRWAY, PATIENT, asking, fairway, serving
from train_project import SETTINGS, table, write_project

from fairway import clock
from fairway.data import log
from fairway.store.workspace import Workspace

WHO = "c00007"
ROW = {"tenure": 3, "charges": 80.0, "plan": "pro"}


def holders(root: Path, text: str) -> list[str]:
    import io

    import polars as pl

    found = []
    for path in sorted(p for p in (root / ".fairway").rglob("*") if p.is_file()):
        data = path.read_bytes()
        if data[:4] == b"PAR1":
            data = repr(pl.read_parquet(io.BytesIO(data)).to_dicts()).encode()
        if text.encode() in data:
            found.append(str(path.relative_to(root)))
    return found


def test_an_audit_an_erasure_and_a_gc_while_it_serves(tmp_path: Path) -> None:
    root = write_project(tmp_path / "churn", settings=SETTINGS + PATIENT)
    workspace = Workspace.find(root)
    try:
        trained = fairway(root, "train")
        assert trained.code == 0, trained.out + trained.err
        with serving(root) as target:
            deployed = fairway(root, "deploy")
            assert deployed.code == 0, deployed.out + deployed.err
            rows = [{"customer": WHO, **ROW}, {"customer": "c-new", **ROW}]
            status, body = target.call("/v1/models/churn/predict", json.dumps({"rows": rows}).encode())
            ids = [output["id"] for output in json.loads(body)["outputs"]]
            assert status == 200
            feedback = [{"id": i, "label": "yes"} for i in ids]
            for item in feedback:
                assert target.call("/v1/feedback", json.dumps(item).encode())[0] == 202
            with asking(target, "churn", [{"customer": "c-other", **ROW}], token=workspace.token()) as heard:
                done = fairway(root, "admin", "erase", "churn", "--entity", WHO, "--why", "ticket 88", "--json")
                assert done.code == 0, done.out + done.err
                found = json.loads(done.out)
                fairway(root, "status")
            assert {status for status, _ in heard.since(0.0)} == {200}  # the package was swapped under load
        assert found["done"] and found["versions"] == ["churn@1"] and found["yours"] == ["data.csv"]
        counts = found["counts"]
        assert counts["rows of the log"] == counts["predictions"] == counts["labels"] == counts["rows of datasets"] == 1
        assert holders(root, WHO) == []
        assert log.predictions(workspace, "churn")["entity"].to_list().count("c-new") == 1

        head = fairway(root, "admin", "audit", "head", "--out", str(tmp_path / "head.json"))
        assert head.code == 0, head.err
        now = clock.iso((clock.now() - timedelta(seconds=1)).astimezone(UTC))
        out = tmp_path / "audit.zip"
        audited = fairway(
            root, "admin", "audit", "churn", "--as-of", now, "--out", str(out), "--head", str(tmp_path / "head.json")
        )
        assert audited.code == 0, audited.out + audited.err
        assert "churn@1, 100 %, champion since" in audited.out and "rows erased on" in audited.out
        assert "head matches the copy signed on" in audited.out
        with zipfile.ZipFile(out) as archive:
            assert {"evidence.json", "entries.jsonl", "head.json", "report.html"} <= set(archive.namelist())
            assert not [name for name in archive.namelist() if WHO.encode() in archive.read(name)]
        assert fairway(root, "admin", "audit", "verify").code == 0

        _gc_beside_trains(root)
        checked = fairway(root, "admin", "doctor", "--json")
        assert checked.code == 0, checked.out
        again = fairway(root, "train", "--reproduce", "churn@1")
        assert again.code == 1 and "erased" in again.out + again.err
    finally:
        workspace.store.close()


def _gc_beside_trains(root: Path) -> None:
    """gc with no grace at all, again and again, while a run makes what only it names at its end."""
    table(seed=1).write_csv(root / "data.csv")
    training = subprocess.Popen(
        [*FAIRWAY, "train"], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while training.poll() is None:
        collected = fairway(root, "admin", "gc", "--yes", "--grace", "1s", "--json")
        assert collected.code == 0, collected.err
    said = training.communicate()[0]
    assert training.returncode in (0, 1), said  # the gate may say no; the run itself must not fail
    assert "churn@2" in said, said
