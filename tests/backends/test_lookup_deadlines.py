"""Predictions go on while the online state's server hangs or is away: flagged, counted, and whole again afterwards."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from postgres_server import PostgresServer, binaries
from redis_server import RedisServer

sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))

import small_model

from fairway import clock
from fairway.data import log
from fairway.process.embedded import EmbeddedServing
from fairway.store.workspace import Workspace

PREDICT = "/v1/models/small/predict"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("packages")
    refuse = small_model.SETTINGS + 'on_missing = "refuse"\n'
    return {
        "null": small_model.make_package(root / "null"),
        "refuse": small_model.make_package(root / "refuse", settings=refuse),
    }


@contextmanager
def serving(folder: Path, package: Path, url: str) -> Iterator[EmbeddedServing]:
    workspace = Workspace.create(folder)
    small_model.register(workspace, package, 1)
    embedded = EmbeddedServing(workspace, observers=[], tick=lambda workspace, now: False, online=url)
    small_model.desire(workspace, epoch=1, **small_model.served(1))
    try:
        yield embedded
    finally:
        embedded.close()
        workspace.store.close()


def post(served: EmbeddedServing, path: str, *rows: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    status, answer = served.call("POST", path, json.dumps({"rows": rows}).encode())
    return status, json.loads(answer)


def send(served: EmbeddedServing, key: str, km: float) -> int:
    left = clock.iso(clock.now() - timedelta(seconds=1))
    return post(served, "/v1/sources/trips", {"trip": key, "color": "red", "left_at": left, "km": km})[0]


def ask(served: EmbeddedServing) -> int:
    return post(served, PREDICT, {"who": "a", "size": 0.5, "color": "red"})[0]


def logged(served: EmbeddedServing) -> pl.DataFrame:
    """Predictions in order of time: what was looked up, and the flags."""
    served.settle()
    return log.predictions(served.workspace, "small").sort("received_at").select("lk_recent_km", "flags")


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit, "not within 30 s"
        time.sleep(0.05)


def outage(served: EmbeddedServing, away: Callable[[], None], back: Callable[[], None]) -> None:
    """Ask before, during and after an outage, in which an event comes."""
    until(
        lambda: ask(served) == 200 and logged(served)["flags"][-1].to_list() == []
    )  # the first connection may be late
    assert send(served, "t1", 10.0) == 202 and ask(served) == 200
    before = logged(served)
    assert before["lk_recent_km"][-1] == 10.0
    away()
    assert [ask(served) for _ in range(5)] == [200] * 5
    assert send(served, "t2", 20.0) == 202, "what is in the log is accepted"
    assert ask(served) == 200
    during = logged(served)[before.height :]
    assert during["flags"].to_list() == [["lookup_failed:recent_km"]] * 6
    assert during["lk_recent_km"].null_count() == 6
    assert failed(served, "null") >= 6
    back()

    def whole() -> bool:
        assert ask(served) == 200
        last = logged(served)[-1]
        return last["flags"].to_list() == [[]] and last["lk_recent_km"].to_list() == [15.0]

    until(whole)
    flagged = logged(served).filter(pl.col("flags").list.len() == 0)
    assert flagged["lk_recent_km"].drop_nulls().is_in([10.0, 15.0]).all(), "no answer without its flag lacks an event"


def failed(served: EmbeddedServing, outcome: str) -> float:
    """Rows counted as failed look-ups."""
    text = served.call("GET", "/metrics", b"")[1].decode()
    line = f'fairway_lookups_failed_total{{gateway="g1",endpoint="small",outcome="{outcome}"}} '
    return float(next(found for found in text.splitlines() if found.startswith(line)).removeprefix(line))


def test_a_redis_that_hangs(tmp_path: Path, packages: dict[str, Path], redis_server: RedisServer) -> None:
    own = RedisServer()
    try:
        with serving(tmp_path / "ws", packages["null"], own.new_url()) as served:
            outage(served, own.pause, own.resume)
    finally:
        own.remove()


def test_a_postgres_that_is_away(tmp_path: Path, packages: dict[str, Path]) -> None:
    if binaries() is None:
        pytest.skip("no postgres binary on this machine (Debian: apt-get install postgresql)")
    own = PostgresServer()
    try:
        with serving(tmp_path / "ws", packages["null"], own.new_database()) as served:
            outage(served, lambda: own.stop(kill=True), own.start)
    finally:
        own.remove()


def test_on_missing_refuse_answers_503_and_says_which_view(
    tmp_path: Path, packages: dict[str, Path], redis_server: RedisServer
) -> None:
    own = RedisServer()
    try:
        with serving(tmp_path / "ws", packages["refuse"], own.new_url()) as served:
            until(lambda: ask(served) == 200)
            own.stop()
            status, said = post(served, PREDICT, {"who": "a", "size": 0.5, "color": "red"})
            assert (status, said["code"]) == (503, "lookup_failed") and "recent_km" in said["error"]
            assert failed(served, "refused") >= 1
    finally:
        own.remove()


def test_a_server_that_is_away_at_the_start_holds_nothing_up(
    tmp_path: Path, packages: dict[str, Path], redis_server: RedisServer
) -> None:
    with serving(tmp_path / "ws", packages["null"], "redis://127.0.0.1:1/0") as served:
        assert ask(served) == 200
        assert logged(served)["flags"].to_list() == [["lookup_failed:recent_km"]]
