"""New rows of a source's history while it is served: each becomes an event once, known from when it was found.

What was there at the first look is history: it counts as known at its own time, and is not copied into the log. An
event that happened before the first look and arrives in the table after it counts as history too.
"""

import io
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from fairway import clock, fingerprint
from fairway.contract.columns import Column
from fairway.data import log
from fairway.data.project import Project
from fairway.data.segment import EventRow
from fairway.data.snapshot import source_history
from fairway.data.source import change_mark
from fairway.data.view_events import KNOWN_AT
from fairway.store import schema
from fairway.store.base import Row

PLACE = "poll:"  # before a source's name in source_state: where the worker keeps its place
_SLICE = 10_000


def poll(project: Project, name: str, *, now: datetime) -> list[EventRow]:
    """Write rows that came since the last look into the log, and return them. Exactly once by key, also over crashes.

    Cheap when the files have not changed; a query is asked each time. Raises: DataError, SettingsError.
    """
    store, settings = project.workspace.store, project.settings.sources[name]
    before = _place(project, name)
    mark = change_mark(settings, project.root)
    content = "" if mark is None else fingerprint.of_value([mark])
    if before is not None and content and before.content == content:
        return []
    history = source_history(project, name, now=now)
    if history is None:
        return []
    begun = now if before is None else before.newest
    found = history.filter((pl.col(settings.at) > begun) & (pl.col(KNOWN_AT) <= now))
    key = found[settings.key].cast(pl.String)
    known = log.source_events(project.workspace, name, now)
    fresh = found.filter(~key.is_in(known["_key"].implode())) if known is not None else found
    fresh = fresh.with_columns(pl.lit(now).cast(pl.Datetime("us", "UTC")).alias(KNOWN_AT))
    waits = bool((history[KNOWN_AT] > now).any())  # rows whose time has not come are looked at again
    with store.write() as tx:
        if fresh.height:
            _log(project, tx, name, fresh, now)
        row = {
            "workspace": store.workspace, "model": project.settings.name, "source": PLACE + name,
            "rows": history.height, "newest": begun, "read_at": now, "content": "" if waits else content,
            "state": "ok", "review": None,
        }  # fmt: skip
        store.upsert(tx, schema.source_state, row)
    return [row for rows in event_rows(project, name, fresh) for row in rows]


def event_rows(project: Project, name: str, events: pl.DataFrame) -> Iterator[list[EventRow]]:
    """Typed events with `_known_at` as the online state keeps them, some thousands at a time."""
    settings = project.settings.sources[name]
    columns = dict(project.contract.sources)[name]
    values = [_wire(events[c.name]) for c in columns]
    frame = pl.DataFrame(values) if values else events.select()
    keys = events[settings.key].cast(pl.String)
    at, known = _us(events[settings.at]), _us(events[KNOWN_AT])
    for start in range(0, events.height, _SLICE):
        some = slice(start, start + _SLICE)
        yield [
            EventRow(key, at_us, data, known_us)
            for key, at_us, data, known_us in zip(
                keys[some].to_list(), at[some].to_list(), frame[some].to_dicts(), known[some].to_list(), strict=True
            )
        ]


def _us(times: pl.Series) -> pl.Series:
    return times.dt.timestamp("us")


def _wire(values: pl.Series) -> pl.Series:
    """As a request's decoder hands values over: times in microseconds, dates and categories as text."""
    if isinstance(values.dtype, pl.Datetime):
        return _us(values).alias(values.name)
    if values.dtype == pl.Date or isinstance(values.dtype, pl.Enum):
        return values.cast(pl.String)
    return values.arr.to_list() if isinstance(values.dtype, pl.Array) else values


def _log(project: Project, tx: sa.Connection, name: str, events: pl.DataFrame, now: datetime) -> None:
    """One file of the log, as the fold writes them."""
    workspace, settings = project.workspace, project.settings.sources[name]
    known = pl.Series("_received_at", [now], pl.Datetime("us", "UTC")).new_from_index(0, events.height)
    columns = [events[settings.key].cast(pl.String).alias("_key"), known, events[KNOWN_AT]]
    columns += [_logged(events[c.name], c) for c in dict(project.contract.sources)[name]]
    buffer = io.BytesIO()
    pl.DataFrame(columns).write_parquet(buffer, compression="zstd", statistics=False)
    newest: Any = events[settings.at].max()
    row = {
        "workspace": workspace.name,
        "blob": workspace.blobs.put(buffer.getvalue()),
        "kind": "source",
        "model": name,
        "contract": project.contract.version,
        "hour": newest.replace(minute=0, second=0, microsecond=0),
        "rows": events.height,
        "segment": f"poll-{clock.to_us(now)}",
    }
    workspace.store.insert_new(tx, schema.log_file, row)


def _logged(values: pl.Series, column: Column) -> pl.Series:
    if column.log == "drop":
        return pl.Series(column.name, [None] * len(values), pl.String)
    if column.log == "hash":
        hidden = [log.hashed(value) for value in _wire(values).to_list()]
        return pl.Series(column.name, hidden, pl.String)
    if isinstance(values.dtype, pl.Enum):
        return values.cast(pl.String)
    return values.arr.to_list() if isinstance(values.dtype, pl.Array) else values


def _place(project: Project, name: str) -> Row | None:
    table = schema.source_state
    with project.workspace.store.read() as tx:
        return tx.execute(
            sa.select(table).where(
                table.c.workspace == project.workspace.store.workspace,
                table.c.model == project.settings.name, table.c.source == PLACE + name,
            )
        ).first()  # fmt: skip
