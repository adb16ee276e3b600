"""On a virtual clock the processes and the embedded parts give the same log, and nothing is left undone by a move."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from running import row, running
from small_model import desire, make_package, register

from fairway import clock, fingerprint
from fairway.data import log
from fairway.errors import FairwayError
from fairway.process.embedded import EmbeddedServing
from fairway.store import schema
from fairway.store.gateways import advance_clock, wait_active
from fairway.store.workspace import Workspace

START = datetime(2014, 5, 1, 6, tzinfo=UTC)
HOURS = 3

Call = Callable[[str, Any], Any]


def fill(root: Path) -> Workspace:
    workspace = Workspace.create(root / "ws")
    for version, leaf in ((1, 20), (2, 3)):
        register(workspace, make_package(root / f"v{version}", leaf=leaf), version)
    shares = {"champion": 1, "challenger": 2, "shares": {"1": 0.5, "2": 0.5}, "shadows": [1, 2], "salt": "s"}
    desire(workspace, epoch=1, **shares)
    return workspace


def live(call: Call, advance: Callable[[datetime], None]) -> None:
    """A little history: each quarter of an hour trips, then rows, then labels of earlier rows."""
    for step in range(HOURS * 4):
        now = START + (step + 1) * timedelta(minutes=15)
        advance(now)
        trips = [
            {"trip": f"t{step}-{i}", "color": color, "left_at": clock.iso(now - timedelta(minutes=i)), "km": 3.0 * i}
            for i, color in enumerate(("red", "blue", "green"))
        ]
        call("/v1/sources/trips", {"rows": trips})
        at = clock.iso(now - timedelta(minutes=5))
        rows = [row(who=f"w{i}", asked_at=at if i % 2 else clock.iso(now), size=i / 7) for i in range(12)]
        call("/v1/models/small/predict", {"rows": rows, "request_id": f"step-{step}"})
        if step > 3:
            known = [fingerprint.prediction_id("default", "small", f"step-{step - 4}", i) for i in range(6)]
            call("/v1/feedback", {"rows": [{"id": i, "label": "yes" if step % 2 else "no"} for i in known]})


def in_processes(root: Path) -> pl.DataFrame:
    workspace = fill(root)
    with running(workspace, virtual_clock=START) as up:
        up.ready()
        assert wait_active(workspace, "small", 1) == []
        clients = [up.new_client() for _ in range(6)]

        def call(path: str, body: Any) -> None:
            client = clients[len(path + str(body)) % len(clients)]  # some connections meet the other gateway
            headers = {"Content-Type": "application/json"}
            answer = client.post(path, content=json.dumps(body), headers=headers)
            assert answer.status_code < 300, answer.text

        def advance(to: datetime) -> None:
            assert advance_clock(workspace, to) == to

        live(call, advance)
        advance(START + timedelta(hours=HOURS + 1))
        with pytest.raises(FairwayError, match="can't go back"):
            advance_clock(workspace, START)
        for client in clients:
            client.close()
    return told(workspace)


def embedded(root: Path, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    virtual = clock.VirtualClock(root / "clock", START)
    monkeypatch.setenv(clock.VARIABLE, str(virtual.path))
    workspace = fill(root)
    serving = EmbeddedServing(workspace)

    def call(path: str, body: Any) -> None:
        status, answer = serving.call("POST", path, json.dumps(body).encode())
        assert status < 300, answer

    def advance(to: datetime) -> None:
        at = virtual.now().replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        while at <= to:
            virtual.move(at)
            serving.settle(at)
            at += timedelta(hours=1)
        virtual.move(to)

    live(call, advance)
    advance(START + timedelta(hours=HOURS + 1))
    serving.close()
    found = told(workspace)
    monkeypatch.delenv(clock.VARIABLE)
    return found


def told(workspace: Workspace) -> pl.DataFrame:
    """The log without what may differ: gateway and latency."""
    frame = log.predictions(workspace, "small").drop("gateway")
    without = [
        json.dumps({v: {k: x for k, x in a.items() if k != "latency_ms"} for v, a in json.loads(text).items()})
        for text in frame["answers"]
    ]
    with workspace.store.read() as tx:
        assert tx.exec_driver_sql("select count(*) from label where matched = 0").scalar() == 0
        assert tx.execute(schema.segment.select()).first() is not None
    workspace.store.close()
    return frame.with_columns(answers=pl.Series(without))


def test_processes_and_embedded_parts_write_the_same_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = embedded(tmp_path / "a", monkeypatch)
    two = in_processes(tmp_path / "b")
    assert one.height == HOURS * 4 * 12 and one["label"].null_count() == one.height - 6 * (HOURS * 4 - 4)
    assert one["lk_recent_km"].null_count() < one.height
    assert one.equals(two)


def test_the_console_moves_the_clock(tmp_path: Path) -> None:
    workspace = fill(tmp_path)
    with running(workspace, virtual_clock=START) as up:
        up.ready()
        headers = {"Authorization": f"Bearer {workspace.token()}"}
        url = f"{up.console_url}/api/v1/clock"
        to = clock.iso(START + timedelta(hours=2))
        answer = httpx.post(url, json={"to": to}, headers=headers, timeout=60)
        assert (answer.status_code, answer.json()) == (200, {"now": to})
