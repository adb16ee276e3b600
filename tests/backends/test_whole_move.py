"""A project begun on a laptop goes on over Postgres and a bucket by two settings, with the commands of a person."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa

from fairway import clock
from fairway.store import schema, transfer
from fairway.store.gateways import is_served
from fairway.store.workspace import Workspace

FAIRWAY = [sys.executable, "-m", "fairway.cli.main"]
ROW = {"who": "w1", "color": "red", "size": 0.4}


def run(root: Path, *arguments: str, code: int = 0, **settings: str) -> str:
    done = subprocess.run(
        [*FAIRWAY, *arguments], cwd=root, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout or done.stderr


@contextlib.contextmanager
def serving(root: Path, **settings: str) -> Iterator[httpx.Client]:
    """A client of `fairway serve`, ready."""
    workspace = Workspace(root)
    with (root / "serve.log").open("a") as log:
        command = [*FAIRWAY, "serve", "--port", "0", "--console-port", "0", "--gateways", "1"]
        server = subprocess.Popen(command, cwd=root, env={**os.environ, **settings}, stdout=log, stderr=log)
    try:
        until_s = clock.elapsed() + 60
        while (served := is_served(workspace)) is None:
            assert server.poll() is None and clock.elapsed() < until_s, (root / "serve.log").read_text()
            time.sleep(0.05)
        headers = {"Authorization": f"Bearer {workspace.token()}"}
        with httpx.Client(base_url=served["predict"], headers=headers, timeout=30) as client:
            while client.get("/readyz").status_code != 200:
                assert server.poll() is None and clock.elapsed() < until_s
                time.sleep(0.05)
            yield client
    finally:
        server.terminate()
        server.wait(30)


def predict(client: httpx.Client, request: str) -> dict[str, Any]:
    answer = client.post("/v1/models/small/predict", json={"rows": [ROW], "request_id": request})
    assert answer.status_code == 200, answer.text
    output: dict[str, Any] = answer.json()["outputs"][0]
    return output


def folded(root: Path, settings: Mapping[str, str], wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        store, until_s = Workspace(root).store, clock.elapsed() + 60
        while True:
            with store.read() as tx:
                found = transfer.count(tx, schema.prediction, "default")
            if found == wanted:
                break
            assert clock.elapsed() < until_s, f"{found} predictions are folded, {wanted} were answered"
            time.sleep(0.1)
        store.close()


def table(path: Path) -> None:
    rng, n = np.random.default_rng(0), 1200
    size, color = rng.normal(size=n), rng.choice(["red", "green", "blue"], n)
    late = size + (color == "red") - 0.3 + rng.normal(size=n) * 0.7 > 0
    start = datetime(2026, 1, 1, tzinfo=UTC)
    pl.DataFrame(
        {
            "who": [f"w{i}" for i in range(n)],
            "at": [start + timedelta(minutes=20 * i) for i in range(n)],
            "size": size,
            "color": color,
            "late": ["yes" if value else "no" for value in late],
        }
    ).write_parquet(path)


def test_a_project_goes_on_over_servers(
    tmp_path: Path, postgres_url: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(tmp_path / "t.parquet")
    run(tmp_path, "new", "small", "--data", "t.parquet", "--target", "late", "--yes")
    root = tmp_path / "small"
    contract = (root / "contract.toml").read_text().replace('known = "unsure"', 'known = "request"')
    (root / "contract.toml").write_text(contract)
    run(root, "train")
    with serving(root) as client:
        run(root, "deploy")
        first = [predict(client, f"before-{n}") for n in range(5)]
        run(root, "admin", "move", "--to", postgres_url, "--blobs", s3_url, code=2)
        folded(root, {}, 5, monkeypatch)
    moved = json.loads(run(root, "admin", "move", "--to", postgres_url, "--blobs", s3_url, "--json"))
    servers = {"FAIRWAY_STORE": postgres_url, "FAIRWAY_BLOBS": s3_url}
    assert moved["set"] == servers and moved["tables"]["prediction"] == 5 and moved["blobs"] > 5
    assert "set FAIRWAY_BLOBS=" in run(root, "train", code=2)

    for name in ("blobs", "cache", "store.db"):  # nothing of the old place is needed
        (root / ".fairway" / name).rename(tmp_path / f"old-{name}")
    assert "unbroken" in run(root, "admin", "audit", "verify", **servers)
    assert "Nothing has changed since" in run(root, "train", **servers)
    with serving(root, **servers) as client:
        again = predict(client, "before-0-again")
        assert (again["version"], again["probability"]) == (1, first[0]["probability"])
        after = [predict(client, f"after-{n}") for n in range(5)]
        feedback = client.post("/v1/feedback", json={"id": first[0]["id"], "label": "yes"})
        assert feedback.status_code == 202, feedback.text
        folded(root, servers, 11, monkeypatch)
    shown = json.loads(run(root, "show", after[0]["id"], "--json", **servers))
    assert shown["inputs"]["color"] == "red"
    settings = (root / "fairway.toml").read_text()
    (root / "fairway.toml").write_text(settings.replace("max_iter = 100", "max_iter = 140"))
    assert "small@2" in run(root, "train", **servers)
    assert not (root / ".fairway" / "blobs").exists() and not (root / ".fairway" / "store.db").exists()
    assert '"verdict": "fail"' not in run(root, "admin", "doctor", "--json", **servers)
    with monkeypatch.context() as patch:
        for name, value in servers.items():
            patch.setenv(name, value)
        workspace = Workspace(root)
        with workspace.store.read() as tx:
            versions = tx.scalars(sa.select(schema.version.c.version).order_by(schema.version.c.version)).all()
            assert versions == [1, 2]
            assert transfer.count(tx, schema.prediction, "default") == 11
        workspace.store.close()

    back = json.loads(run(root, "admin", "move", "--to", "embedded", "--blobs", "embedded", "--json", **servers))
    assert back["set"] == {"FAIRWAY_STORE": None, "FAIRWAY_BLOBS": None}
    assert "small@2" in run(root, "show", "small")
