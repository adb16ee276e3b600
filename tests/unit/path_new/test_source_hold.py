"""A table that is late, empty or shrunk is asked about once, and holds training until it is answered or as before."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fairway.data.project import Project, load_project
from fairway.data.snapshot import snapshot, source_events
from fairway.errors import DataError, SourceHeld
from fairway.fleet import reviews
from fairway.path import source_hold
from fairway.registry import show
from fairway.store import schema

SETTINGS = """
format = 1
name = "m"
task = "binary"
target = "y"
positive = "yes"
at = "at"
owner = "ana"
[data]
source = "t.csv"
"""
CONTRACT = """
format = 1
[columns.at]
type = "datetime"
[columns.x]
type = "int"
[columns.y]
type = "category"
values = ["no", "yes"]
"""
START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = START + timedelta(days=10)


def write(project: Path, rows: int, *, source: str = "t.csv") -> None:
    lines = [f"{(START + timedelta(hours=i)).isoformat()},{i},{'yes' if i % 3 else 'no'}" for i in range(rows)]
    (project / source).write_text("\n".join(["at,x,y", *lines]) + "\n")


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Project]:
    def made(more: str = "", contract: str = "") -> Project:
        (tmp_path / ".fairway").mkdir(exist_ok=True)
        (tmp_path / "fairway.toml").write_text(SETTINGS + more)
        (tmp_path / "contract.toml").write_text(CONTRACT + contract)
        return load_project(tmp_path)

    write(tmp_path, 100)
    return made


def look(project: Project, now: datetime = NOW) -> None:
    snapshot(project, now=now, seen=source_hold.holder(project, now=now))


def held(project: Project, now: datetime = NOW) -> SourceHeld:
    with pytest.raises(SourceHeld) as caught:
        look(project, now)
    assert caught.value.exit_code == 3
    return caught.value


def all_reviews(project: Project) -> list[Any]:
    with project.workspace.store.read() as tx:
        return list(tx.execute(sa.select(schema.review).order_by(schema.review.c.review)))


def state(project: Project, source: str = "data") -> Any:
    with project.workspace.store.read() as tx:
        table = schema.source_state
        return tx.execute(sa.select(table).where(table.c.source == source)).one()


def test_a_table_that_shrank_holds_until_it_is_as_before(project: Callable[..., Project]) -> None:
    here = project('owner = "bob"\n')
    look(here)
    assert (state(here).rows, state(here).newest, state(here).state) == (100, START + timedelta(hours=99), "ok")
    write(here.root, 91)
    look(here)
    write(here.root, 50)
    error = held(here)
    assert (
        error.review == "review-1" and "t.csv" in str(error) and "50 rows of 91 are left (45.1 % fewer)" in str(error)
    )
    assert held(here, NOW + timedelta(hours=1)).review == "review-1"
    [asked] = all_reviews(here)
    assert (asked.assignee, asked.kind, asked.subject, asked.answer) == ("bob", "source", "m/data", None)
    assert state(here).state == "held" and state(here).rows == 91
    write(here.root, 90)
    look(here)
    [asked] = all_reviews(here)
    assert asked.answer == "withdrawn" and state(here).state == "ok"


def test_an_accepted_table_is_the_new_measure(project: Callable[..., Project]) -> None:
    here = project()
    look(here)
    write(here.root, 50)
    reviews.answer(here.workspace.store, held(here).review, "accept", actor="ana", now=NOW)
    look(here)
    look(here)
    assert state(here).rows == 50 and state(here).state == "ok"
    write(here.root, 46)
    look(here)


def test_who_answers_wait_is_not_asked_again_about_the_same(project: Callable[..., Project]) -> None:
    here = project()
    look(here)
    write(here.root, 50)
    reviews.answer(here.workspace.store, held(here).review, "wait", actor="ana", now=NOW)
    error = held(here)
    assert error.review == "review-1" and "was answered wait by ana" in str(error)
    write(here.root, 60)
    assert held(here).review == "review-2"
    write(here.root, 100)
    look(here)


def test_late_counts_from_the_newest_time_that_is_not_in_the_future(project: Callable[..., Project]) -> None:
    here = project('expect_every = "2d"\n')
    newest = START + timedelta(hours=99)
    look(here, newest + timedelta(days=2))
    error = held(here, newest + timedelta(days=2, minutes=1))
    assert "is late: its newest row is 2.0 days old, and one is expected every 2d" in str(error)
    with (here.root / "t.csv").open("a") as file:
        file.write("2027-01-01T00:00:00Z,1,no\n")
    assert held(here, newest + timedelta(days=3)).review == error.review
    reviews.answer(here.workspace.store, error.review, "accept", actor="ana", now=NOW)
    look(here, newest + timedelta(days=4))
    write(here.root, 102)
    held(here, newest + timedelta(days=4))


def test_the_contract_says_how_fresh(project: Callable[..., Project]) -> None:
    here = project()
    (here.root / "contract.toml").write_text('fresh = "1d"\n' + CONTRACT)
    assert "expected every 1d" in str(held(load_project(here.root)))


def test_an_empty_table_holds_once_it_had_rows(project: Callable[..., Project]) -> None:
    here = project()
    write(here.root, 0)
    with pytest.raises(DataError, match="the table has no rows"):
        look(here)
    write(here.root, 100)
    look(here)
    write(here.root, 0)
    assert "is empty; it had 100 rows" in str(held(here))


def test_another_table_is_measured_anew(project: Callable[..., Project]) -> None:
    here = project()
    look(here)
    write(here.root, 20, source="u.csv")
    (here.root / "fairway.toml").write_text(SETTINGS.replace("t.csv", "u.csv"))
    look(load_project(here.root))


SOURCE = (
    '[sources.trips]\npath = "trips.csv"\nat = "at"\nkey = "x"\nowner = "eve"\nshrink = "50%"\nexpect_every = "8d"\n'
)
SOURCE_CONTRACT = "".join(
    f'[sources.trips.columns.{name}]\ntype = "{kind}"\n'
    for name, kind in (("at", "datetime"), ("x", "int"), ("y", "string"))
)


def test_a_source_table_holds_too_and_asks_its_own_owner(project: Callable[..., Project]) -> None:
    here = project(SOURCE, SOURCE_CONTRACT)
    write(here.root, 100, source="trips.csv")

    def events(now: datetime = NOW) -> int:
        return source_events(here, "trips", now=now, seen=source_hold.holder(here, now=now)).height

    assert events() == 100
    write(here.root, 50, source="trips.csv")
    assert events() == 50
    write(here.root, 24, source="trips.csv")
    with pytest.raises(SourceHeld, match=r"Source trips \(trips\.csv\) is late.* and has shrunk"):
        events()
    assert all_reviews(here)[0].assignee == "eve"


def test_show_says_rows_and_newest(project: Callable[..., Project]) -> None:
    here = project()
    look(here)
    store = here.workspace.store
    with store.write() as tx:
        tx.execute(sa.insert(schema.model).values(workspace="default", model="m", settings={}, created_at=NOW))
    [found] = show.model(store, "m")["sources"]
    assert found["rows"] == 100 and found["newest"].startswith("2026-01-05T03:00:00") and found["state"] == "ok"
