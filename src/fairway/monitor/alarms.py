"""Alarms: one open alarm per (model, kind, subject), with what was seen when it was raised."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway.store import audit, schema
from fairway.store.base import Row, Store

FORMAT = 1
Kind = Literal["drift", "performance", "quality", "guardrail", "age", "log", "equality"]
Severity = Literal["notice", "alarm"]


@dataclass(frozen=True)
class Raised:
    """alarm: its id. new: False when one of this model, kind and subject was open already."""

    alarm: str
    new: bool


def raise_alarm(
    store: Store,
    tx: Connection,
    *,
    model: str,
    kind: Kind,
    subject: str,
    severity: Severity,
    evidence: Mapping[str, Any],
    settings: Mapping[str, Any],
    now: datetime,
    action: Mapping[str, Any] | None = None,
) -> Raised:
    """Open an alarm, or add to the open one: a notice can become an alarm, never the other way round."""
    found = open_alarm(store, tx, model=model, kind=kind, subject=subject)
    if found is not None:
        if found.severity == "notice" and severity == "alarm":
            update(store, tx, found.alarm, severity="alarm", evidence=dict(evidence))
        return Raised(found.alarm, new=False)
    name = f"alarm-{store.next_number(tx, 'alarm')}"
    tx.execute(
        sa.insert(schema.alarm).values(
            workspace=store.workspace, alarm=name, model=model, kind=kind, subject=subject, severity=severity,
            opened_at=now, evidence=dict(evidence), action=None if action is None else dict(action),
            settings=dict(settings), format=FORMAT,
        )
    )  # fmt: skip
    audit.record(
        store, tx, actor="fairway", action=f"alarm.{severity}", subject=name, model=model, kind=kind, about=subject
    )
    return Raised(name, new=True)


def open_alarm(store: Store, tx: Connection, *, model: str, kind: str, subject: str) -> Row | None:
    table = schema.alarm
    return tx.execute(
        sa.select(table).where(
            table.c.workspace == store.workspace, table.c.model == model, table.c.kind == kind,
            table.c.subject == subject, table.c.closed_at.is_(None),
        )
    ).first()  # fmt: skip


def open_alarms(store: Store, tx: Connection, *, model: str, kind: str | None = None) -> list[Row]:
    """Oldest first."""
    table = schema.alarm
    query = sa.select(table).where(
        table.c.workspace == store.workspace, table.c.model == model, table.c.closed_at.is_(None)
    )
    if kind is not None:
        query = query.where(table.c.kind == kind)
    return list(tx.execute(query.order_by(table.c.opened_at, sa.func.length(table.c.alarm), table.c.alarm)))


def update(store: Store, tx: Connection, alarm: str, **values: Any) -> None:
    table = schema.alarm
    tx.execute(sa.update(table).where(table.c.workspace == store.workspace, table.c.alarm == alarm).values(**values))


def close(store: Store, tx: Connection, alarm: str, *, now: datetime, why: str) -> None:
    update(store, tx, alarm, closed_at=now)
    audit.record(store, tx, actor="fairway", action="alarm.close", subject=alarm, why=why)
