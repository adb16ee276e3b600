"""Two `fairway serve`, as on two machines: folders of their own, one Postgres, one bucket."""

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import small_model
import sqlalchemy as sa
from ledger import find_pids
from running import Running, row, running, wait_until

from fairway.data import log
from fairway.store import jobs, schema
from fairway.store.gateways import live_gateways, wait_active
from fairway.store.workspace import Workspace

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))

from postgres_server import PostgresServer, binaries
from s3_server import ENVIRONMENT, S3Server

pytestmark = pytest.mark.skipif(binaries() is None, reason="no postgres binary on this machine")
JOBS = 12


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    yield server
    server.remove()


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def one(tmp_path: Path, postgres: PostgresServer, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The first machine's workspace, with two versions of a model, the first live."""
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": s3_server.endpoint}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FAIRWAY_STORE", postgres.new_database())
    monkeypatch.setenv("FAIRWAY_BLOBS", f"s3://{s3_server.new_bucket()}/models")
    workspace = Workspace.create(tmp_path / "one")
    for version, leaf in ((1, 20), (2, 3)):
        small_model.register(workspace, small_model.make_package(tmp_path / f"v{version}", leaf=leaf), version)
    small_model.desire(workspace, epoch=1, **small_model.served(1))
    return workspace


def output(served: Running) -> dict[str, Any]:
    answer = served.predict([row()])
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.content)["outputs"][0]
    return found


def folded(workspace: Workspace, ids: set[str]) -> bool:
    found = log.predictions(workspace, "small")
    return ids <= set(found["prediction_id"].to_list())


def test_both_serve_the_same_and_follow_one_change(
    one: Workspace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    two = Workspace.create(tmp_path / "two")
    with running(one) as here, running(two) as there:
        here.ready()
        there.ready()
        assert wait_active(one, "small", 1) == []
        names = [gateway.gateway for gateway in live_gateways(one.store)]
        assert len(set(names)) == 4 and len({name.partition("@")[2] for name in names}) == 2
        assert capfd.readouterr().out.count("set FAIRWAY_ONLINE") == 1  # views look up what only one of them was sent
        answers = [output(here), output(there)]
        assert len({json.dumps(a["value"] if "value" in a else a["version"]) for a in answers}) == 1

        for served in (here, there):  # the project's code gets no keys
            for pid in find_pids(served, "model"):
                given = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                assert not [v for v in given if v.startswith((b"AWS_", b"FAIRWAY_STORE", b"FAIRWAY_BLOBS"))]

        store = one.store
        with store.write() as tx:
            for n in range(JOBS):
                jobs.submit(store, tx, kind="tidy_jobs", key=f"tidy-{n}", payload={"tick": "2026-01-01T00:00:00Z"})
        small_model.desire(one, epoch=2, **small_model.served(2), previous=1)
        assert wait_active(one, "small", 2) == []  # said on one machine: both have done it
        answers += (after := [output(here), output(there), output(here), output(there)])
        assert {a["version"] for a in after} == {2}

        assert wait_until(lambda: folded(two, {a["id"] for a in answers}), 20)
        logged = log.predictions(one, "small")
        assert logged.height == len(answers) and len({n.partition("@")[2] for n in logged["gateway"]}) == 2
        assert wait_until(lambda: jobs.pending(store) == 0, 20)
        with store.read() as tx:
            done = tx.execute(sa.select(schema.job).where(schema.job.c.kind == "tidy_jobs")).all()
        assert [(job.status, job.attempts) for job in done if job.key.startswith("tidy-")] == [("done", 1)] * JOBS

        assert there.stop() == 0
        left = [gateway.gateway for gateway in live_gateways(one.store)]
        assert len(left) == 2 and set(left) < set(names)
        small_model.desire(one, epoch=3, **small_model.served(1), previous=2)
        assert wait_active(one, "small", 3) == []  # and nobody waits for the one that has left
        assert output(here)["version"] == 1


def test_status_tells_what_is_served_while_the_store_is_away(one: Workspace, postgres: PostgresServer) -> None:
    def status(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "fairway.cli.main", "status", *more]
        return subprocess.run(command, cwd=one.root, capture_output=True, text=True, timeout=60, check=False)

    with running(one) as served:
        served.ready()
        assert wait_active(one, "small", 1) == []
        postgres.stop()
        try:
            with ThreadPoolExecutor() as pool:  # each waits for the store, for its ten seconds
                said, as_json = pool.map(lambda more: status(*more), [[], ["--json"]])
            told = json.loads(as_json.stdout)
            assert output(served)["version"] == 1
        finally:
            postgres.start()
        assert said.returncode == 3 and "small" in said.stdout and "@1" in said.stdout and "epoch 1" in said.stdout
        assert told["ready"]["ready"] and told["active"] == {"small": {"epoch": 1, "champion": 1}}
        assert served.url in said.stdout and "can't be reached" in said.stdout
