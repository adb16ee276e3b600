"""Schedules: what is queued every so often. A tick makes at most one job, whoever sees it first.

Tick k of a schedule lies at `starts_at` + k times `every`. `tick(now)` looks only at stored state and `now`: it may be
repeated, killed anywhere, called by several machines at once, and works on a virtual clock as on the real one.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.errors import ThingNotFound
from fairway.store import jobs, schema
from fairway.store.base import Row, Store

Backfill = Literal["none", "latest", "all"]

SHORTEST = timedelta(minutes=1)
AT_ONCE = 100  # ticks that one look makes or notes as skipped, per schedule


def put(
    store: Store,
    tx: Connection,
    name: str,
    *,
    kind: str,
    payload: dict[str, Any],
    every: timedelta,
    starts_at: datetime,
    backfill: Backfill = "latest",
) -> bool:
    """Declare a schedule; False when it stands as it is. A change keeps its past ticks, and whether it is paused.

    backfill: what becomes of ticks that nobody saw in time, because nothing ran or the schedule was paused. A single
    tick is made however late. Of several, "latest" makes only the newest, "all" makes each in order, and "none" makes
    none and goes on with the next. With "all" jobs of several ticks may wait side by side; else a tick is skipped
    while the job of an earlier one has not ended. Raises: ValueError for a period below a minute.
    """
    if every < SHORTEST:
        raise ValueError(f"schedule {name}: every {every} is shorter than {SHORTEST}")
    table = schema.schedule
    values = {
        "kind": kind, "payload": payload, "every_us": every // timedelta(microseconds=1), "starts_at": starts_at,
        "backfill": backfill,
    }  # fmt: skip
    where = sa.and_(table.c.workspace == store.workspace, table.c.schedule == name)
    row = tx.execute(sa.select(table).where(where)).first()
    if row is None:
        key = {"workspace": store.workspace, "schedule": name}
        return bool(store.insert_new(tx, table, key | values | {"paused": False, "created_at": clock.now()}))
    if all(getattr(row, column) == value for column, value in values.items()):
        return False
    tx.execute(sa.update(table).where(where).values(**values))
    return True


def pause(store: Store, tx: Connection, name: str, *, paused: bool = True) -> None:
    """Stop a schedule from making jobs, or let it go on by its backfill rule. Raises: ThingNotFound."""
    table = schema.schedule
    where = sa.and_(table.c.workspace == store.workspace, table.c.schedule == name)
    if tx.execute(sa.update(table).where(where).values(paused=paused)).rowcount == 0:
        raise ThingNotFound(f"no schedule {name!r}; list them with: fairway show schedules")


def remove(store: Store, tx: Connection, name: str) -> None:
    """Forget a schedule and its ticks; jobs it made stay. No effect when there is none."""
    for table in (schema.schedule_tick, schema.schedule):
        tx.execute(sa.delete(table).where(table.c.workspace == store.workspace, table.c.schedule == name))


def tick(store: Store, now: datetime, *, known: Sequence[Row] | None = None) -> bool:
    """Queue the jobs of all ticks that are due; True if anything was written. Call until False.

    known: the schedules as `listed` gave them just now, when they were read already.
    """
    if known is None:
        with store.read() as tx:
            known = _rows(store, tx)
    made = False
    for row in (row for row in known if not row.paused and _due(row, now)[0]):
        with store.write() as tx:
            fresh = next((r for r in _rows(store, tx, row.schedule) if not r.paused), None)
            if fresh is not None:  # as it stands now that nobody else can change it
                made |= _make(store, tx, fresh, now)
    return made


def next_tick(row: Row, now: datetime) -> datetime:
    """When the schedule's next job is due: a tick later than `now`, or one that waits to be made."""
    missed, after = _due(row, now)
    return missed[0] if missed else after


def listed(store: Store, tx: Connection) -> list[Row]:
    """Every schedule with `last`, its newest tick; by name."""
    return _rows(store, tx)


def _rows(store: Store, tx: Connection, name: str | None = None) -> list[Row]:
    table, ticks = schema.schedule, schema.schedule_tick
    last = (
        sa.select(sa.func.max(ticks.c.tick))
        .where(ticks.c.workspace == table.c.workspace, ticks.c.schedule == table.c.schedule)
        .scalar_subquery()
    )
    query = sa.select(table, last.label("last")).where(table.c.workspace == store.workspace)
    if name is not None:
        query = query.where(table.c.schedule == name).with_for_update()
    return list(tx.execute(query.order_by(table.c.schedule)))


def _due(row: Row, now: datetime) -> tuple[list[datetime], datetime]:
    """The ticks that are due and not made, and the first one that is not due; of very many only the ends."""
    every = timedelta(microseconds=row.every_us)
    first = 0 if row.last is None else (row.last - row.starts_at) // every + 1
    end = (now - row.starts_at) // every + 1  # the first tick later than now
    first, end = max(first, 0), max(end, 0)
    in_order = row.backfill == "all"
    wanted = range(first, min(end, first + AT_ONCE)) if in_order else range(max(first, end - AT_ONCE), end)
    return [row.starts_at + every * k for k in wanted], row.starts_at + every * max(first, end)


def _make(store: Store, tx: Connection, row: Row, now: datetime) -> bool:
    due, _ = _due(row, now)
    if row.backfill == "all":
        wanted = set(due)
    elif row.backfill == "none" and len(due) > 1:
        wanted = set()
    else:
        wanted = set(due[-1:])
    made = False
    for at in due:
        key = {"workspace": store.workspace, "schedule": row.schedule, "tick": at}
        if not store.insert_new(tx, schema.schedule_tick, key | {"job": None, "made_at": now}):
            continue
        made = True
        if at not in wanted:
            continue
        job = jobs.submit(
            store, tx, kind=row.kind, payload={**row.payload, "tick": clock.iso(at)},
            key=f"{row.schedule}/{clock.iso(at)}" if row.backfill == "all" else row.schedule,
        )  # fmt: skip
        table = schema.schedule_tick
        where = sa.and_(*(table.c[column] == value for column, value in key.items()))
        tx.execute(sa.update(table).where(where).values(job=job))
    return made
