"""Feedback meets predictions: every accepted row is kept once, waits for its prediction, and the latest counts."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.contract.view import parse_duration
from fairway.data.segment import Labels
from fairway.store import schema
from fairway.store.base import Store

WAIT = timedelta(days=7)  # beyond the label delay, for a label whose prediction is not known
MAX_WAITING = 1_000_000
_CHUNK = 500


def store_new(store: Store, tx: Connection, records: Iterable[Labels], *, folded_at: datetime) -> list[dict[str, Any]]:
    """Insert feedback rows that were not there; the key is (prediction, name, event). Returns the new ones, ordered."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in sorted(records, key=lambda r: r.received_us):
        for row in record.rows:
            rows.setdefault(
                (row.prediction, row.name, row.event),
                {
                    "workspace": store.workspace,
                    "prediction": row.prediction,
                    "name": row.name,
                    "event": row.event,
                    "value": row.value,
                    "at": clock.from_us(row.at_us),
                    "received_at": clock.from_us(record.received_us),
                    "matched": False,
                },
            )
    table = schema.label
    known: set[tuple[str, str, str]] = set()
    for ids in _chunks(sorted({key[0] for key in rows})):
        where = sa.and_(table.c.workspace == store.workspace, table.c.prediction.in_(ids))
        query = sa.select(table.c.prediction, table.c.name, table.c.event).where(where)
        known.update((row.prediction, row.name, row.event) for row in tx.execute(query))
    new = [row for key, row in sorted(rows.items()) if key not in known]
    if new:
        tx.execute(sa.insert(table), new)
    return [{name: value for name, value in row.items() if name != "workspace"} for row in new]


def match_labels(store: Store, tx: Connection, now: datetime) -> list[str]:
    """Join waiting labels to predictions; the ids of predictions whose current label changed.

    The label with the latest event time counts (then the later received, then the greater event id), in whatever
    order they came. A label named other than the model's target (a reward) is matched, but is not the label. Labels
    that no prediction has claimed `label_delay` + 7 d after they came are dropped and counted ("label_expired").
    """
    label, prediction = schema.label, schema.prediction
    joined = (
        sa.select(label.c.prediction, label.c.name, prediction.c.model)
        .join(
            prediction,
            sa.and_(prediction.c.workspace == label.c.workspace, prediction.c.prediction == label.c.prediction),
        )
        .where(label.c.workspace == store.workspace, label.c.matched.is_(False))
    )
    found = list(tx.execute(joined))
    if found:
        targets = _targets(store, tx)
        ids = sorted({row.prediction for row in found})
        for chunk in _chunks(ids):
            where = sa.and_(label.c.workspace == store.workspace, label.c.prediction.in_(chunk))
            tx.execute(sa.update(label).where(where).values(matched=True))
        judged = sorted(
            {
                row.prediction: targets.get(row.model) for row in found if targets.get(row.model) in (None, row.name)
            }.items()
        )
        changed = _set_current(store, tx, judged)
    else:
        changed = []
    _expire(store, tx, now)
    return changed


def _set_current(store: Store, tx: Connection, wanted: Sequence[tuple[str, str | None]]) -> list[str]:
    label, prediction = schema.label, schema.prediction
    targets = dict(wanted)
    best: dict[str, Any] = {}
    current: dict[str, Any] = {}
    for chunk in _chunks([identity for identity, _ in wanted]):
        where = sa.and_(label.c.workspace == store.workspace, label.c.prediction.in_(chunk))
        for row in tx.execute(sa.select(label).where(where)):
            if targets[row.prediction] not in (None, row.name):
                continue
            order = (row.at, row.received_at, row.event)
            if row.prediction not in best or order > best[row.prediction][0]:
                best[row.prediction] = (order, row)
        where = sa.and_(prediction.c.workspace == store.workspace, prediction.c.prediction.in_(chunk))
        query = sa.select(prediction.c.prediction, prediction.c.label, prediction.c.label_at).where(where)
        current.update((row.prediction, (row.label, row.label_at)) for row in tx.execute(query))
    updates = [
        {"p": identity, "v": row.value, "t": row.at}
        for identity, (_, row) in best.items()
        if current[identity] != (row.value, row.at)
    ]
    if updates:
        tx.execute(
            sa.update(prediction)
            .where(prediction.c.workspace == store.workspace, prediction.c.prediction == sa.bindparam("p"))
            .values(label=sa.bindparam("v", type_=sa.JSON), label_at=sa.bindparam("t", type_=schema.Timestamp)),
            updates,
        )
    return [str(u["p"]) for u in updates]


def _expire(store: Store, tx: Connection, now: datetime) -> None:
    label = schema.label
    waiting = sa.and_(label.c.workspace == store.workspace, label.c.matched.is_(False))
    gone = tx.execute(
        sa.delete(label).where(waiting, label.c.received_at < now - WAIT - _longest_delay(store, tx))
    ).rowcount
    count = int(tx.scalar(sa.select(sa.func.count()).select_from(label).where(waiting)) or 0)
    if count > MAX_WAITING:
        oldest = (
            sa.select(label.c.received_at)
            .where(waiting)
            .order_by(label.c.received_at.desc())
            .offset(MAX_WAITING)
            .limit(1)
        )
        bound = tx.scalar(oldest)
        gone += tx.execute(sa.delete(label).where(waiting, label.c.received_at <= bound)).rowcount
    if gone:
        store.add_to_counter(tx, "label_expired", gone)


def _settings(store: Store, tx: Connection) -> dict[str, dict[str, Any]]:
    table = schema.model
    query = sa.select(table.c.model, table.c.settings).where(table.c.workspace == store.workspace)
    return {row.model: row.settings for row in tx.execute(query)}


def _targets(store: Store, tx: Connection) -> dict[str, str | None]:
    return {model: settings.get("target") for model, settings in _settings(store, tx).items()}


def _longest_delay(store: Store, tx: Connection) -> timedelta:
    delays = [
        parse_duration(delay) if isinstance(delay, str) else timedelta(seconds=float(delay))
        for settings in _settings(store, tx).values()
        if (delay := settings.get("label_delay")) is not None
    ]
    return max(delays, default=timedelta(0))


def _chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
