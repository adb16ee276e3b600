"""Postgres stops and comes back under load: predictions go on, the log is whole, jobs end once."""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import running as running_module
import small_model
import sqlalchemy as sa
from ledger import Ledger, clients, compare, find_pids
from running import SERVE, Running, running, wait_until

from fairway import clock
from fairway.errors import StoreUnavailable
from fairway.store import audit, jobs, schema
from fairway.store.base import Store
from fairway.store.gateways import poke, wait_active
from fairway.store.workspace import Workspace

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))

from postgres_server import PostgresServer, binaries

STOPS, CLIENTS, PAUSE_S, JOBS = 4, 4, 0.02, 30


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    if binaries() is None:
        pytest.skip("no postgres binary on this machine (Debian: apt-get install postgresql)")
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def workspace(tmp_path: Path, server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """With two versions of a model, the first live; its store is on the server."""
    monkeypatch.setenv("FAIRWAY_STORE", server.new_database())
    workspace = Workspace.create(tmp_path / "ws")
    for version, leaf in ((1, 20), (2, 3)):
        small_model.register(workspace, small_model.make_package(tmp_path / f"v{version}", leaf=leaf), version)
    small_model.desire(workspace, epoch=1, **small_model.served(1))
    assert workspace.store.is_postgres
    return workspace


def work_off(store: Store, until: threading.Event) -> None:
    """Do jobs whose effect is a counter, in the transaction that ends them; go on when the store is back."""
    while not until.is_set():
        try:
            held = jobs.claim(store, owner="test", lease=timedelta(seconds=2))
            if held is None:
                until.wait(0.05)
                continue
            with store.write() as tx:
                if jobs.finish(store, tx, held, result={}):
                    store.add_to_counter(tx, f"effect-{held.payload['n']}")
        except StoreUnavailable:
            until.wait(0.05)  # its lease ends, or the job is done: either way it is taken once


def stale(served: Running) -> bool:
    return bool(served.client.get("/readyz").json().get("stale"))


def test_predictions_and_jobs_go_on_while_postgres_restarts(workspace: Workspace, server: PostgresServer) -> None:
    store, ledger, rng, ended = workspace.store, Ledger(), random.Random(5), threading.Event()
    with running(workspace) as served:
        served.ready()
        assert wait_active(workspace, "small", 1) == []
        with store.write() as tx:
            for n in range(JOBS):
                jobs.submit(store, tx, kind="counted", key=str(n), payload={"n": n})
        worker = threading.Thread(target=work_off, args=[store, ended])
        worker.start()
        with clients(served, ledger, CLIENTS, pause_s=PAUSE_S, same_row=True):
            for number in range(STOPS):
                time.sleep(rng.uniform(0.3, 1.0))
                server.stop(kill=number % 2 == 1)
                time.sleep(rng.uniform(0.0, 2.0))
                server.start()
            epoch = 2
            small_model.desire(workspace, epoch=epoch, **small_model.served(2), previous=1)
            assert wait_active(workspace, "small", epoch) == []
            time.sleep(0.5)
        assert wait_until(lambda: jobs.pending(store) == 0, 30)
        ended.set()
        worker.join()
        assert wait_until(lambda: not stale(served), 10)
    assert (ledger.failures, ledger.refused, ledger.broken) == ([], [], [])
    assert len(ledger.answers) > 100 and {entry.version for entry in ledger.requests} == {1, 2}
    assert len({(entry.version, entry.output) for entry in ledger.requests}) == 2
    with running(workspace) as served:
        served.ready()
        found = compare(workspace, ledger)
    assert (found.missing, found.double, found.other) == ([], [], [])
    with store.read() as tx:
        effects = {
            row.name: row.value for row in tx.execute(sa.select(schema.counter)) if row.name.startswith("effect-")
        }
    assert effects == {f"effect-{n}": 1 for n in range(JOBS)} and audit.verify(store) is None


def test_while_the_store_is_away_gateways_are_stale_and_one_that_dies_comes_back(
    workspace: Workspace, server: PostgresServer
) -> None:
    with running(workspace) as served:
        served.ready()
        assert wait_active(workspace, "small", 1) == [] and not stale(served)
        rows = {row["gateway"]: row["pid"] for row in served.gateway_rows()}
        server.stop()
        assert wait_until(lambda: stale(served), 10)
        assert "fairway_stale" in served.client.get("/metrics").text
        killed = rows[min(rows)]
        os.kill(killed, signal.SIGKILL)
        again = [{"who": "a", "size": 0.5, "color": "red"}]
        assert wait_until(lambda: len(pids := find_pids(served, "gateway")) == 2 and killed not in pids, 20)
        until_s = clock.elapsed() + 30  # all of the new one's connections are answered, the store being away
        answered = 0
        while answered < 20 and clock.elapsed() < until_s:
            with served.new_client() as client:
                code = client.post("/v1/models/small/predict", json={"rows": again}).status_code
                answered = answered + 1 if code == 200 else 0
        assert answered == 20
        server.start()
        assert wait_until(lambda: not stale(served), 15)
        assert wait_until(lambda: all(row["active"] == {"small": 1} for row in served.gateway_rows()), 15)


def test_a_change_is_heard_and_not_waited_for(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that looks by itself only every minute."""
    monkeypatch.setattr(
        running_module, "SERVE", "from fairway.process import supervisor\nsupervisor.POLL_S = 60\n" + SERVE
    )
    with running(workspace) as served:

        def at_first() -> bool:  # its gateways are still coming up: it has to be told to look again
            poke(workspace)
            return [row["active"] for row in served.gateway_rows()] == [{"small": 1}] * 2

        assert wait_until(at_first, 30)
        for epoch in (2, 3):
            store = workspace.store
            small_model.desire(workspace, epoch=epoch, **small_model.served(epoch - 1))
            with store.write() as tx:
                audit.record(store, tx, actor="test", action="promote", subject="small")
            assert wait_until(lambda e=epoch: [r["active"] for r in served.gateway_rows()] == [{"small": e}] * 2, 20)
