"""New rows of a source's history while it is served: into the log and the online state, each once."""

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from fairway import clock
from fairway.process import sources
from fairway.process.sources import Sources
from fairway.serve.online import Ask, Slot, open_online
from fairway.store import schema
from fairway.store.workspace import Workspace

FILES = {
    "fairway.toml": """
format = 1
name = "m"
task = "binary"
target = "y"
positive = "yes"
at = "at"
[data]
source = "t.csv"
[sources.trips]
path = "trips.csv"
at = "left_at"
key = "trip"
every = "1s"
[sources.sent]
at = "left_at"
key = "trip"
""",
    "contract.toml": """
format = 1
[columns.at]
type = "datetime"
[columns.y]
type = "category"
values = ["no", "yes"]
"""
    + "".join(
        f'[sources.{source}.columns.{name}]\ntype = "{kind}"\n'
        for source in ("trips", "sent")
        for name, kind in (("trip", "int"), ("left_at", "datetime"), ("car", "string"))
    ),
}
START = datetime(2026, 1, 1, tzinfo=UTC)


def rows(n: int) -> str:
    lines = [f"{i},{(START + timedelta(hours=i)).isoformat()},car {i % 2}" for i in range(n)]
    return "\n".join(["trip,left_at,car", *lines]) + "\n"


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(sources, "LOOK_S", 0.0)
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    found = Workspace.create(tmp_path)
    with found.store.write() as tx:
        row = {"model": "m", "settings": {}, "created_at": START, "project_path": str(tmp_path)}
        tx.execute(sa.insert(schema.model).values(workspace="default", **row))
        end = {
            "endpoint": "m", "model": "m", "epoch": 1, "share_epoch": 1, "champion": 1, "state": "off", "shares": {},
            "shadows": [],
            "changed_at": START, "changed_by": "ana",
        }  # fmt: skip
        needed = {c.name for c in schema.endpoint.columns if not c.nullable and c.name not in end} - {"workspace"}
        tx.execute(sa.insert(schema.endpoint).values(workspace="default", **end, **dict.fromkeys(needed, "x")))
    return found


def online(workspace: Workspace, hours: float) -> list[str]:
    """Keys of car 0's events at a moment."""
    store = open_online(workspace.folder / "online.db")
    slot = Slot("trips", "car")
    store.watch([slot])
    at_us = clock.to_us(START + timedelta(hours=hours))
    found = store.read([Ask(slot, "car 0", at_us - 10**12, at_us, False)])[0]
    store.close()
    return sorted((event.key for event in found), key=int)


def due(looked: Sources) -> Sources:
    looked._due_s.clear()
    return looked


def test_new_rows_follow_into_the_online_state(workspace: Workspace) -> None:
    path = workspace.root / "trips.csv"
    path.write_text(rows(6))
    looked = Sources(workspace)
    looked.round(START + timedelta(hours=6))
    path.write_text(rows(9))
    assert due(looked).round(START + timedelta(hours=8.5))
    assert online(workspace, 9) == ["8"] and online(workspace, 8.2) == []  # known from when it was found
    assert not due(looked).round(START + timedelta(hours=9))
    looked.close()
    again = Sources(workspace)
    assert not again.round(START + timedelta(hours=10))
    path.write_text(rows(11))
    assert due(again).round(START + timedelta(hours=11)) and online(workspace, 12) == ["8", "10"]
    again.close()


def test_a_source_that_can_not_be_read_is_said_once(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    looked = Sources(workspace)
    with caplog.at_level(logging.WARNING):
        assert not looked.round(START) and not due(looked).round(START)
    assert [record.message for record in caplog.records] == [
        f"source trips of m: trips.csv: there is no such file or folder (looked in {workspace.root})"
    ]
    (workspace.root / "trips.csv").write_text(rows(2))
    due(looked).round(START + timedelta(hours=5))
    (workspace.root / "trips.csv").write_text(rows(7))
    assert due(looked).round(START + timedelta(hours=7))
    looked.close()
