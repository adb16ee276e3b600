"""Rows of the store as JSON-able values: one function per kind of row, used by `registry.show`."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.store import schedules, schema
from fairway.store.base import Row, Store, jsonable

Json = dict[str, Any]

LISTED = 200  # rows of a list, newest first
WEEK = timedelta(days=7)
_DAY = timedelta(days=1)


def model_line(store: Store, tx: Connection, row: Row, now: datetime) -> Json:
    name, settings = row.model, row.settings or {}
    ends = [
        end
        for end in select(
            store, tx, schema.endpoint, schema.endpoint.c.model == name, order=[schema.endpoint.c.endpoint]
        )
        if not end.endpoint.endswith(".staging")
    ]
    end = next((e for e in ends if e.endpoint == name), ends[0] if ends else None)
    table = schema.version
    newest = select(store, tx, table, table.c.model == name, order=[table.c.version.desc()], limit=1)
    log = schema.prediction
    day = tx.scalar(
        sa.select(sa.func.count()).where(mine(store, log), log.c.model == name, log.c.received_at > now - _DAY)
    )
    ever = day or tx.scalar(sa.select(sa.func.count()).where(mine(store, log), log.c.model == name))
    table = schema.window
    judged = select(
        store, tx, table, table.c.model == name, table.c.performance.is_not(sa.null()),
        order=[table.c.start_at.desc()], limit=10,
    )  # fmt: skip
    alarm_count = tx.scalar(
        sa.select(sa.func.count()).where(
            mine(store, schema.alarm), schema.alarm.c.model == name, schema.alarm.c.closed_at.is_(None)
        )
    )
    review_count = tx.scalar(
        sa.select(sa.func.count()).where(
            mine(store, schema.review), schema.review.c.model == name, schema.review.c.answer.is_(None)
        )
    )
    moving = schema.rollout
    phase = None
    if end is not None and end.rollout:
        phase = tx.scalar(sa.select(moving.c.phase).where(mine(store, moving), moving.c.rollout == end.rollout))
    performance = next((w.performance for w in judged if w.performance), None)
    live = end.champion if end is not None else None
    return {
        "model": name,
        "owner": settings.get("owner"),
        "risk": settings.get("risk"),
        "task": settings.get("task"),
        "live": live,
        "endpoint": endpoint(end) if end is not None else None,
        "newest": newest[0].version if newest else None,
        "newest_verdict": newest[0].verdict if newest else None,
        "predictions_24h": int(day or 0),
        "predictions": bool(ever),
        "metric": jsonable(performance),
        "state": _state(end, phase, review_count or 0, alarm_count or 0, day or 0, newest),
        "open_alarms": int(alarm_count or 0),
        "open_reviews": int(review_count or 0),
        "missing": _missing(settings, bool(ever), performance),
    }


def _state(
    end: Row | None, phase: str | None, open_reviews: int, open_alarms: int, day: int, newest: Sequence[Row]
) -> str:
    """One or two words, worst first."""
    if open_reviews:
        return "needs a person"
    if phase is not None:
        return "in guard time" if phase == "guarding" else "rolling out"
    if open_alarms:
        return "alarm"
    if end is None or end.champion is None:
        return "not deployed" if newest else "no version"
    return "ok" if day else "silent"


def _missing(settings: Json, ever: bool, performance: Json | None) -> list[str]:
    missing = []
    if settings.get("label_delay") is None:
        missing.append("label delay")
    elif ever and performance is None:
        missing.append("feedback")
    return missing


def endpoint(row: Row) -> Json:
    return {
        "endpoint": row.endpoint,
        "model": row.model,
        "state": row.state,
        "epoch": row.epoch,
        "champion": row.champion,
        "previous": row.previous,
        "challenger": row.challenger,
        "rollout": row.rollout,
        "shares": row.shares,
        "shadows": row.shadows,
        "changed_by": row.changed_by,
        "changed_at": clock.iso(row.changed_at),
    }


def version(row: Row) -> Json:
    checks = row.checks if isinstance(row.checks, list) else []
    return {
        "model": row.model,
        "version": row.version,
        "verdict": row.verdict,
        "run": row.run,
        "dataset": row.dataset,
        "contract": row.contract,
        "artifact": row.artifact,
        "metrics": jsonable(row.metrics),
        "checks_failed": [c.get("name") for c in checks if c.get("verdict") == "fail"],
        "author": row.author,
        "trained_until": clock.iso(row.trained_until) if row.trained_until else None,
        "created_at": clock.iso(row.created_at),
    }


def run(row: Row, made: str | None) -> Json:
    """made: the version that it registered; a run that changed nothing names the one that was there."""
    known = (row.result or {}).get("version")
    if made is None and known is not None:
        made = f"{row.model}@{known}"
    return {
        "run": row.run,
        "model": row.model,
        "status": row.status,
        "cause": row.cause,
        "version": made,
        "started_at": clock.iso(row.started_at),
        "ended_at": clock.iso(row.ended_at) if row.ended_at else None,
        "seconds": _took(row),
        "error": row.error,
    }


def _took(row: Row) -> float | None:
    """Seconds from start to end; the steps' own where they say more, since a virtual clock stands still meanwhile."""
    if row.ended_at is None:
        return None
    steps = sum(float(step.get("seconds") or 0.0) for step in row.steps or () if not step.get("cached"))
    return max(float((row.ended_at - row.started_at).total_seconds()), steps)


def window(row: Row) -> Json:
    return {
        "start_at": clock.iso(row.start_at),
        "end_at": clock.iso(row.end_at),
        "contract": row.contract,
        "rows": row.rows,
        "closed_at": clock.iso(row.closed_at) if row.closed_at else None,
        "judgement": jsonable(row.judgement),
        "performance": jsonable(row.performance),
    }


def rollout(row: Row) -> Json:
    return {
        "rollout": row.rollout,
        "model": row.model,
        "endpoint": row.endpoint,
        "champion": row.champion,
        "challenger": row.challenger,
        "phase": row.phase,
        "step": row.step,
        "step_at": clock.iso(row.step_at),
        "started_by": row.started_by,
        "started_at": clock.iso(row.started_at),
        "ended_at": clock.iso(row.ended_at) if row.ended_at else None,
    }


def running(store: Store, tx: Connection, *, model: str | None) -> list[Json]:
    table = schema.rollout
    where = [table.c.ended_at.is_(None)] + ([table.c.model == model] if model else [])
    return [rollout(row) for row in select(store, tx, table, *where, order=[table.c.started_at.desc()])]


def alarm(row: Row) -> Json:
    return {
        "alarm": row.alarm,
        "model": row.model,
        "kind": row.kind,
        "subject": row.subject,
        "severity": row.severity,
        "opened_at": clock.iso(row.opened_at),
        "closed_at": clock.iso(row.closed_at) if row.closed_at else None,
        "evidence": jsonable(row.evidence),
        "action": jsonable(row.action),
    }


def alarms(store: Store, tx: Connection, *, model: str | None, open_only: bool = False) -> list[Json]:
    table = schema.alarm
    where = [table.c.model == model] if model else []
    where += [table.c.closed_at.is_(None)] if open_only else []
    order = [table.c.closed_at.is_not(None), table.c.opened_at.desc(), table.c.alarm.desc()]
    return [alarm(row) for row in select(store, tx, table, *where, order=order, limit=LISTED)]


def review(row: Row) -> Json:
    return {
        "review": row.review,
        "model": row.model,
        "kind": row.kind,
        "subject": row.subject,
        "question": row.question,
        "evidence": jsonable(row.evidence),
        "choices": jsonable(row.choices),
        "assignee": row.assignee,
        "not_by": row.not_by,
        "opened_at": clock.iso(row.opened_at),
        "due_at": clock.iso(row.due_at) if row.due_at else None,
        "answer": row.answer,
        "answered_by": row.answered_by,
        "answered_at": clock.iso(row.answered_at) if row.answered_at else None,
        "why": row.why,
    }


def reviews(store: Store, tx: Connection, *, model: str | None, open_only: bool = False) -> list[Json]:
    table = schema.review
    where = [table.c.model == model] if model else []
    where += [table.c.answer.is_(None)] if open_only else []
    order = [table.c.answer.is_not(None), table.c.opened_at.desc(), table.c.review.desc()]
    return [review(row) for row in select(store, tx, table, *where, order=order, limit=LISTED)]


def job(row: Row) -> Json:
    return {
        "job": row.job,
        "kind": row.kind,
        "key": row.key,
        "status": row.status,
        "attempts": row.attempts,
        "max_attempts": row.max_attempts,
        "queued_at": clock.iso(row.queued_at),
        "ended_at": clock.iso(row.ended_at) if row.ended_at else None,
        "not_before": clock.iso(row.not_before) if row.not_before else None,
        "waits_for": row.waits_for,
        "owner": row.owner,
        "lease_until": clock.iso(row.lease_until) if row.lease_until else None,
        "cancelled_by": row.cancelled_by,
        "error": row.error,
    }


def job_step(row: Row) -> Json:
    return {"step": row.step, "ended_at": clock.iso(row.ended_at), "attempt": row.fence, "result": jsonable(row.result)}


def signal(row: Row) -> Json:
    return {
        "signal": row.name,
        "sent_by": row.sent_by,
        "sent_at": clock.iso(row.sent_at),
        "payload": jsonable(row.payload),
    }


def schedule(row: Row, now: datetime, job: str | None) -> Json:
    """job: what its newest tick made."""
    return {
        "schedule": row.schedule,
        "kind": row.kind,
        "every_s": row.every_us / 1e6,
        "backfill": row.backfill,
        "paused": row.paused,
        "last_tick": clock.iso(row.last) if row.last else None,
        "last_job": job,
        "next_tick": None if row.paused else clock.iso(schedules.next_tick(row, now)),
        "payload": jsonable(row.payload),
    }


# -- small things ----------------------------------------------------------------------------------------------------


def names(store: Store, tx: Connection) -> list[str]:
    table = schema.model
    return list(tx.scalars(sa.select(table.c.model).where(mine(store, table)).order_by(table.c.model)))


def versions_of_runs(store: Store, tx: Connection, names: Sequence[str]) -> dict[str, str]:
    table = schema.version
    rows = select(store, tx, table, table.c.run.in_(names)) if names else []
    return {row.run: f"{row.model}@{row.version}" for row in rows}


def mine(store: Store, table: sa.Table) -> sa.ColumnElement[bool]:
    return table.c.workspace == store.workspace


def select(
    store: Store,
    tx: Connection,
    table: sa.Table,
    *where: sa.ColumnElement[bool],
    order: Sequence[sa.ColumnElement[Any]] = (),
    limit: int | None = None,
) -> list[Row]:
    query = sa.select(table).where(mine(store, table), *where).order_by(*order)
    return list(tx.execute(query.limit(limit) if limit else query))


def sources(store: Store, tx: Connection, *, model: str) -> list[Json]:
    """The model's tables as they were last read: "data", and source tables by their names."""
    table = schema.source_state
    rows = select(store, tx, table, table.c.model == model, order=[table.c.source])
    return [
        {
            "source": row.source,
            "rows": row.rows,
            "newest": None if row.newest is None else clock.iso(row.newest),
            "read_at": clock.iso(row.read_at),
            "state": row.state,
            "review": row.review,
        }
        for row in rows
        if not row.source.startswith("poll:")  # where the worker keeps its place
    ]
