"""Workers are killed with -9, and Postgres is stopped: every job ends, and each of its effects is there once."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import counting_jobs
import pytest
from counting_jobs import Crew
from postgres_server import PostgresServer, binaries

from fairway.store.base import Store
from fairway.store.workspace import Workspace

JOBS, KILLS, SEED = 20, 6, 7


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """One that the test may stop."""
    if binaries() is None:
        pytest.skip("no postgres binary on this machine")
    server = PostgresServer()
    try:
        yield server
    finally:
        server.remove()


def through_kills(workspace: Workspace, store: Store, url: str | None, restart: PostgresServer | None) -> None:
    names, rng = counting_jobs.submit(store, JOBS, seed=SEED, seconds=0.6), random.Random(SEED)

    def also() -> None:
        if restart is not None and rng.random() < 0.4:
            restart.stop(kill=rng.random() < 0.5)
            time.sleep(rng.uniform(0.0, 0.5))
            restart.start()

    with Crew(workspace, size=3, url=url) as crew:
        counting_jobs.disturb(crew, store, kills=KILLS, rng=rng, pause_s=0.2, also=also)
        counting_jobs.wait_for(store, within_s=120)
    found = counting_jobs.look(store, names)
    assert (found.statuses, found.missing, found.double) == ({"done": JOBS}, [], [])
    assert found.attempts > JOBS  # the kills did meet jobs


def test_each_effect_once_on_sqlite(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path)
    with workspace.store as store:
        through_kills(workspace, store, None, None)


def test_each_effect_once_on_a_postgres_that_is_stopped_in_between(tmp_path: Path, server: PostgresServer) -> None:
    url = server.new_database()
    with Store(url) as store:
        through_kills(Workspace.create(tmp_path), store, url, server)
