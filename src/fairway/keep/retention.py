"""Retention: `[log] keep` drops old predictions, their labels and the Parquet of their inputs, by the hour.

Sums, windows and rollouts stay: they hold counts, nobody's row. Every drop is an audit entry in its own transaction.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.contract.view import parse_duration
from fairway.store import audit, schema
from fairway.store.base import Store
from fairway.store.workspace import Workspace

EVERY = timedelta(days=1)
_HOUR_US = 3_600_000_000
_AT_ONCE = 20_000  # predictions in one transaction: a rollback must not wait long for the writer's place
_STATE = "log_retention"  # name in `monitor_state`


def tick(workspace: Workspace, now: datetime) -> bool:
    """Drop what is due, at most once a day per model; True if anything was written. A schedule calls it."""
    changed = False
    for model, keep in _rules(workspace.store).items():
        changed |= drop(workspace, model, keep=keep, now=now)
    return changed


def drop(workspace: Workspace, model: str, *, keep: timedelta, now: datetime, every: timedelta = EVERY) -> bool:
    """Drop the model's predictions from before now - keep, in full hours. Nothing within `every` of the last time."""
    store = workspace.store
    before = clock.from_us(clock.to_us(now - keep) // _HOUR_US * _HOUR_US)
    with store.read() as tx:
        last = _last(store, tx, model)
        if last is not None and before - last < every:
            return False
        if not _anything(store, tx, model, before):
            return False
    done = False
    while not done:
        with store.write() as tx:
            blobs, done = _drop_some(store, tx, model, before, keep)
        for blob in blobs:  # after the commit; a kill before leaves them to gc
            _delete_unless_named(workspace, blob)
    return True


def _rules(store: Store) -> dict[str, timedelta]:
    """Models with a limit, by their settings of the last run."""
    table = schema.model
    with store.read() as tx:
        rows = tx.execute(sa.select(table.c.model, table.c.settings).where(table.c.workspace == store.workspace)).all()
    found = {row.model: (row.settings.get("log") or {}).get("keep") for row in rows}
    return {model: parse_duration(keep) for model, keep in found.items() if keep}


def _last(store: Store, tx: Connection, model: str) -> datetime | None:
    table = schema.monitor_state
    state = tx.scalar(
        sa.select(table.c.state).where(
            table.c.workspace == store.workspace, table.c.model == model, table.c.name == _STATE
        )
    )
    return clock.parse_iso(state["before"]) if state else None


def _anything(store: Store, tx: Connection, model: str, before: datetime) -> bool:
    old = _old_files(store, model, before), _old_predictions(store, model, before)
    return any(tx.execute(sa.select(sa.literal(1)).where(sa.exists().where(where))).first() for where in old)


def _old_files(store: Store, model: str, before: datetime) -> sa.ColumnElement[bool]:
    table = schema.log_file
    return sa.and_(
        table.c.workspace == store.workspace, table.c.kind == "prediction", table.c.model == model,
        table.c.hour < before,
    )  # fmt: skip


def _old_predictions(store: Store, model: str, before: datetime) -> sa.ColumnElement[bool]:
    table = schema.prediction
    return sa.and_(table.c.workspace == store.workspace, table.c.model == model, table.c.at < before)


def _drop_some(
    store: Store, tx: Connection, model: str, before: datetime, keep: timedelta
) -> tuple[Sequence[str], bool]:
    """The oldest hours up to a number of rows; (blobs that are free now, whether all is done)."""
    files, predictions, labels = schema.log_file, schema.prediction, schema.label
    until = before
    nth = tx.scalar(
        sa.select(predictions.c.at)
        .where(_old_predictions(store, model, before))
        .order_by(predictions.c.at)
        .offset(_AT_ONCE)
        .limit(1)
    )
    if nth is not None:
        hour = clock.from_us((clock.to_us(nth) // _HOUR_US + 1) * _HOUR_US)
        until = min(before, hour)
    blobs = list(tx.scalars(sa.select(files.c.blob).where(_old_files(store, model, until)).order_by(files.c.blob)))
    ids = sa.select(predictions.c.prediction).where(_old_predictions(store, model, until))
    n_labels = tx.execute(
        sa.delete(labels).where(labels.c.workspace == store.workspace, labels.c.prediction.in_(ids))
    ).rowcount
    n_rows = tx.execute(sa.delete(predictions).where(_old_predictions(store, model, until))).rowcount
    tx.execute(sa.delete(files).where(_old_files(store, model, until)))
    state = {"workspace": store.workspace, "model": model, "name": _STATE, "state": {"before": clock.iso(until)}}
    store.upsert(tx, schema.monitor_state, state)
    audit.record(
        store, tx, actor="fairway", action="log_dropped", subject=model, before=clock.iso(until),
        keep_s=keep.total_seconds(), predictions=n_rows, labels=n_labels, files=len(blobs),
    )  # fmt: skip
    return blobs, until == before


def _delete_unless_named(workspace: Workspace, blob: str) -> None:
    """Two folds may have written equal bytes: then another hour still names the file."""
    table = schema.log_file
    with workspace.store.read() as tx:
        named = tx.scalar(
            sa.select(sa.func.count()).select_from(table).where(
                table.c.workspace == workspace.store.workspace, table.c.blob == blob
            )
        )  # fmt: skip
    if not named:
        workspace.blobs.delete(blob, before=clock.machine_now())
