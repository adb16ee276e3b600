"""Whether a table is as it should be: late, empty or shrunk is told from how it was when it was last used."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from fairway.contract.columns import Column
from fairway.contract.parsing import parse
from fairway.contract.settings import DataSettings, SourceSettings
from fairway.contract.view import format_duration
from fairway.data.project import Project
from fairway.data.source import Place, Raw
from fairway.store.base import Row

DATA = "data"  # what the training table is called where source tables have their names


@dataclass(frozen=True)
class Look:
    """A table as it was read. source: "data" or the name of a source table. newest: latest time that is not after now.

    content: changes with the table; place: changes when the settings name another table.
    expect: the newest row may be so old. shrink: share of rows that may be gone. owner: who is asked.
    """

    source: str
    name: str
    rows: int
    newest: datetime | None
    content: str
    place: str
    expect: timedelta | None
    shrink: float
    owner: str

    @property
    def key(self) -> str:
        """Says which table in which state."""
        return f"{self.place}:{self.content}"


def look_at(project: Project, raw: Raw, now: datetime) -> Look:
    """The training table."""
    settings, contract = project.settings, project.contract
    at = contract.column(settings.at) if settings.at is not None else None
    expected = [e for e in (settings.data.expect_every, contract.fresh) if e is not None and at is not None]
    return _look(project, DATA, settings.data, at, raw, min(expected, default=None), now)


def look_at_events(project: Project, name: str, raw: Raw, now: datetime) -> Look:
    """The history of a source table."""
    settings = project.settings.sources[name]
    at = next(c for c in dict(project.contract.sources)[name] if c.name == settings.at)
    return _look(project, name, settings, at, raw, settings.expect_every, now)


def _look(
    project: Project, source: str, settings: DataSettings | SourceSettings, at: Column | None, raw: Raw,
    expect: timedelta | None, now: datetime,
) -> Look:  # fmt: skip
    return Look(
        source=source, name=raw.name, rows=raw.frame.height, newest=_newest(raw.frame, at, now), content=raw.content,
        place=Place.of(settings).identity, expect=expect, shrink=settings.shrink,
        owner=settings.owner or project.settings.owner,
    )  # fmt: skip


def _newest(frame: pl.DataFrame, at: Column | None, now: datetime) -> datetime | None:
    if at is None or at.name not in frame.columns or not frame.height:
        return None
    times = parse(frame[at.name], at).values
    found: Any = times.filter(times <= now).max()
    return found  # type: ignore[no-any-return]


def troubles(look: Look, before: Row | None, now: datetime) -> list[str]:
    """What is wrong with the table, as ends of a sentence about it; none when it may be used.

    before: its row of source_state from the last time that it was used, of the same table. A table that is empty from
    the start is no trouble here: it never was what its owner promised, and is refused where it is read.
    """
    if not look.rows:
        return [f"is empty; it had {before.rows:,} rows"] if before is not None and before.rows else []
    found = []
    if look.expect is not None and (look.newest is None or now - look.newest > look.expect):
        every = format_duration(look.expect)
        found.append(f"is late: {_newest_is(look.newest, now)}, and one is expected every {every}")
    if before is not None and look.rows < (1 - look.shrink) * before.rows:
        gone = 1 - look.rows / before.rows
        found.append(f"has shrunk: {look.rows:,} rows of {before.rows:,} are left ({100 * gone:.1f} % fewer)")
    return found


def _newest_is(newest: datetime | None, now: datetime) -> str:
    if newest is None:
        return "no row has a time"
    age = now - newest
    days = age / timedelta(days=1)
    return f"its newest row is {f'{days:,.1f} days' if days >= 1 else f'{24 * days:.1f} hours'} old"
