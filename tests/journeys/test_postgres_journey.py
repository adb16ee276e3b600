"""The golden path with FAIRWAY_STORE=postgresql://… and nothing else changed: train, serve, deploy, roll back."""

import json
import sys
from pathlib import Path

import pytest
from commands import PATIENT, fairway, serving
from train_project import SETTINGS, write_project

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))

from postgres_server import PostgresServer, binaries

from fairway.store import audit
from fairway.store.workspace import Workspace

ROW = {"customer": "c1", "tenure": 3, "charges": 80.0, "plan": "pro"}


@pytest.mark.skipif(binaries() is None, reason="no postgres binary on this machine")
def test_the_golden_path_on_postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = PostgresServer()
    try:
        monkeypatch.setenv("FAIRWAY_STORE", server.new_database())
        walk(tmp_path)
    finally:
        server.remove()


def walk(tmp_path: Path) -> None:
    root = write_project(tmp_path / "churn", settings=SETTINGS + PATIENT)
    first = done(root, "train")
    assert "churn@1 may be deployed" in first
    done(root, "train")  # all of it is found again: no new version, see below
    with serving(root) as target:

        def asked() -> int:
            status, body = target.call("/v1/models/churn/predict", json.dumps({"rows": [ROW]}).encode())
            assert status == 200, body
            return int(json.loads(body)["outputs"][0]["version"])

        done(root, "deploy")
        assert asked() == 1
        (root / "fairway.toml").write_text(
            (root / "fairway.toml").read_text().replace("max_iter = 20", "max_iter = 21")
        )
        assert "churn@2" in done(root, "train")
        done(root, "deploy")
        done(root, "deploy", "--finish", "--why", "seen enough")
        assert asked() == 2
        done(root, "rollback", "--why", "slow since noon")
        assert asked() == 1
        assert "churn" in done(root, "status")
        assert json.loads(done(root, "admin", "format", "--json"))["older_gateways"] == []
    with Workspace.find(root).store as store:
        assert store.is_postgres and audit.verify(store) is None
        actions = [entry.action for entry in audit.entries(store)]
    assert actions.count("version_registered") == 2 and actions.count("rollback") == 1
    assert not (root / ".fairway" / "store.db").exists()


def done(root: Path, *command: str) -> str:
    found = fairway(root, *command)
    assert found.code == 0, f"{command}: {found.out}{found.err}"
    return found.out
