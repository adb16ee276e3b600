"""The golden path on Postgres and S3 by two settings, nothing else changed: train, serve, deploy, roll back."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import PATIENT, fairway, serving
from train_project import SETTINGS, write_project

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))

from postgres_server import PostgresServer, binaries
from s3_server import ENVIRONMENT, S3Server

from fairway.store import audit
from fairway.store.workspace import Workspace

PASSWORD, SECRET = "sw0rdfish-of-the-store", "sw0rdfish-of-the-bucket"
LOOKS = (
    "admin doctor", "admin audit verify", "show churn@2 --card", "admin move --to embedded --blobs embedded --dry-run",
    "admin move --to embedded --dry-run --json", "show jobs --json", "status --json",
)  # fmt: skip
ROW = {"customer": "c1", "tenure": 3, "charges": 80.0, "plan": "pro"}


@pytest.mark.skipif(binaries() is None, reason="no postgres binary on this machine")
def test_the_golden_path_on_postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = binaries()
    assert folder is not None
    server, bucket = PostgresServer(), S3Server()
    try:
        url = server.new_database()
        for name, value in {
            **ENVIRONMENT,
            "AWS_ENDPOINT_URL": bucket.endpoint,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("FAIRWAY_STORE", url.replace("@", f":{PASSWORD}@"))
        monkeypatch.setenv("FAIRWAY_BLOBS", f"s3://{bucket.new_bucket()}/models")
        said = walk(tmp_path, server)
        rows = subprocess.run([str(folder / "pg_dump"), url], capture_output=True, check=True).stdout
        assert b"churn" in rows
        for where, text in [("output", said.encode()), ("database", rows), *files(tmp_path)]:
            assert b"sw0rdfish" not in text, f"a secret is in {where}"
    finally:
        bucket.remove()
        server.remove()


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()


def walk(tmp_path: Path, server: PostgresServer) -> str:
    """Returns: all that was said, errors too."""
    said: list[str] = []

    def done(root: Path, *command: str) -> str:
        found = fairway(root, *command)
        assert found.code == 0, f"{command}: {found.out}{found.err}"
        said.append(found.out + found.err)
        return found.out

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
    for command in (*LOOKS, "admin backup --to ../copy", "admin gc"):
        done(root, *command.split())
    with Workspace.find(root).store as store:
        assert store.is_postgres and audit.verify(store) is None
        actions = [entry.action for entry in audit.entries(store)]
    assert actions.count("version_registered") == 2 and actions.count("rollback") == actions.count("backup") == 1
    assert not (root / ".fairway" / "store.db").exists() and not (root / ".fairway" / "blobs").exists()
    server.stop()
    away = [fairway(root, *command.split()) for command in ("status --debug", "train --json --debug")]
    server.start()
    assert [one.code for one in away] == [3, 70]
    return "".join([*said, *(one.out + one.err for one in away)])
