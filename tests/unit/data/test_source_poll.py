"""A source's history while it is served: what was there is history, what comes becomes an event once."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from fairway import clock
from fairway.data import log
from fairway.data.project import Project, load_project
from fairway.data.snapshot import source_events
from fairway.data.source_poll import event_rows, poll
from fairway.errors import DataError

SETTINGS = """
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
"""
CONTRACT = """
format = 1
[columns.at]
type = "datetime"
[columns.y]
type = "category"
values = ["no", "yes"]
[sources.trips.columns.trip]
type = "int"
[sources.trips.columns.left_at]
type = "datetime"
[sources.trips.columns.day]
type = "date"
nulls = true
[sources.trips.columns.kind]
type = "category"
values = ["a", "b"]
[sources.trips.columns.delay]
type = "float"
nulls = true
"""
START = datetime(2026, 1, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / ".fairway").mkdir()
    (tmp_path / "fairway.toml").write_text(SETTINGS)
    (tmp_path / "contract.toml").write_text(CONTRACT)
    return load_project(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., None]:
    def rows(*hours: float) -> None:
        lines = [f"{round(10 * h)},{at(h).isoformat()},2026-01-01,a,{h}" for h in hours]
        (tmp_path / "trips.csv").write_text("\n".join(["trip,left_at,day,kind,delay", *lines]) + "\n")

    return rows


def known(project: Project, hours: float) -> dict[int, datetime]:
    events = source_events(project, "trips", now=at(hours))
    return dict(zip(events["trip"].to_list(), events["_known_at"].to_list(), strict=True))


def test_new_rows_become_events_once(project: Project, write: Callable[..., None]) -> None:
    write(0, 1, 2)
    assert poll(project, "trips", now=at(3)) == [] and log.source_events(project.workspace, "trips", at(9)) is None
    write(0, 1, 2, 3.5, 4)
    fresh = poll(project, "trips", now=at(5))
    assert [row.key for row in fresh] == ["35", "40"] and {row.known_us for row in fresh} == {clock.to_us(at(5))}
    assert fresh[0].data == {
        "trip": 35, "left_at": clock.to_us(at(3.5)), "day": "2026-01-01", "kind": "a", "delay": 3.5,
    }  # fmt: skip
    assert poll(project, "trips", now=at(6)) == []
    write(0, 1, 2, 3.5, 4, 5.5)
    assert [row.key for row in poll(project, "trips", now=at(7))] == ["55"]
    assert known(project, 8) == {0: at(0), 10: at(1), 20: at(2), 35: at(5), 40: at(5), 55: at(7)}
    assert known(project, 4) == {0: at(0), 10: at(1), 20: at(2), 35: at(3.5), 40: at(4)}


def test_a_row_whose_time_has_not_come_waits_for_it(project: Project, write: Callable[..., None]) -> None:
    write(0)
    poll(project, "trips", now=at(1))
    write(0, 3)
    assert poll(project, "trips", now=at(2)) == []
    assert [row.key for row in poll(project, "trips", now=at(4))] == ["30"]
    assert poll(project, "trips", now=at(5)) == []


def test_a_late_row_from_before_the_first_look_is_history(project: Project, write: Callable[..., None]) -> None:
    write(0, 2)
    poll(project, "trips", now=at(3))
    write(0, 1, 2)
    assert poll(project, "trips", now=at(4)) == []
    assert known(project, 5)[10] == at(1)


def test_a_table_that_breaks_the_contract_changes_nothing(project: Project, write: Callable[..., None]) -> None:
    write(0)
    poll(project, "trips", now=at(1))
    path = project.root / "trips.csv"
    path.write_text(path.read_text() + "20,yesterday,,a,\n")
    with pytest.raises(DataError, match=r"trips.csv, row 2, column left_at"):
        poll(project, "trips", now=at(2))
    write(0, 1.5)
    assert [row.key for row in poll(project, "trips", now=at(3))] == ["15"]


def test_history_as_the_online_state_keeps_it(project: Project, write: Callable[..., None]) -> None:
    write(*range(5))
    rows = [row for some in event_rows(project, "trips", source_events(project, "trips", now=at(3))) for row in some]
    assert [(row.key, row.at_us, row.known_us) for row in rows] == [
        (str(10 * h), clock.to_us(at(h)), clock.to_us(at(h))) for h in range(4)
    ]


def test_an_empty_history(project: Project, write: Callable[..., None]) -> None:
    write()
    assert poll(project, "trips", now=at(1)) == []
    assert list(event_rows(project, "trips", source_events(project, "trips", now=at(1)))) == []
    write(1.5)
    assert [row.key for row in poll(project, "trips", now=at(2))] == ["15"]
    assert pl.DataFrame(source_events(project, "trips", now=at(2))).height == 1
