"""What there is to see: rows of the store as JSON-able values, the same for the terminal, --json and the console.

Nothing here writes, decides or formats. Times are ISO text, UTC.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.errors import ModelNotFound, ThingNotFound, VersionNotFound
from fairway.store import schema
from fairway.store.base import Row, Store, jsonable

Json = dict[str, Any]

_DAY = timedelta(days=1)
_LISTED = 200  # rows of a list, newest first


# -- models and versions ---------------------------------------------------------------------------------------------


def models(store: Store) -> list[str]:
    """Names of all models, in order."""
    table = schema.model
    with store.read() as tx:
        return list(tx.scalars(sa.select(table.c.model).where(_mine(store, table)).order_by(table.c.model)))


def status(store: Store, *, model: str | None = None, now: datetime | None = None) -> Json:
    """What needs a person, and one line per model. Raises: ModelNotFound."""
    now = now or clock.now()
    with store.read() as tx:
        rows = _rows(store, tx, schema.model, order=[schema.model.c.model])
        if model is not None:
            rows = [row for row in rows if row.model == model]
            if not rows:
                raise ModelNotFound(model, known=_names(store, tx))
        lines = [_model_line(store, tx, row, now) for row in rows]
        open_reviews = _reviews(store, tx, model=model, open_only=True)
        open_alarms = _alarms(store, tx, model=model, open_only=True)
        running = _running(store, tx, model=model)
        jobs = schema.job
        waiting = tx.scalar(
            sa.select(sa.func.count()).where(_mine(store, jobs), jobs.c.status.in_(("queued", "running")))
        )
        counters = {row.name: row.value for row in _rows(store, tx, schema.counter)}
    return {
        "at": clock.iso(now),
        "models": lines,
        "reviews": open_reviews,
        "alarms": open_alarms,
        "rollouts": running,
        "jobs": int(waiting or 0),
        "counters": counters,
    }


def model(store: Store, name: str, *, now: datetime | None = None) -> Json:
    """One model with its endpoint, versions, windows, alarms, reviews and rollouts. Raises: ModelNotFound."""
    now = now or clock.now()
    with store.read() as tx:
        found = _rows(store, tx, schema.model, schema.model.c.model == name)
        if not found:
            raise ModelNotFound(name, known=_names(store, tx))
        line = _model_line(store, tx, found[0], now)
        table = schema.version
        versions = _rows(store, tx, table, table.c.model == name, order=[table.c.version.desc()])
        table = schema.window
        windows = _rows(store, tx, table, table.c.model == name, order=[table.c.start_at.desc()], limit=_LISTED)
        table = schema.rollout
        rollouts = _rows(store, tx, table, table.c.model == name, order=[table.c.started_at.desc()], limit=_LISTED)
        return {
            **line,
            "settings": jsonable(found[0].settings),
            "versions": [_version_line(row) for row in versions],
            "windows": [_window(row) for row in reversed(windows)],
            "alarms": _alarms(store, tx, model=name),
            "reviews": _reviews(store, tx, model=name),
            "rollouts": [_rollout_line(row) for row in rollouts],
        }


def version(store: Store, name: str, number: int) -> Json:
    """One version: where it comes from, its metrics and checks. Raises: ModelNotFound, VersionNotFound."""
    table = schema.version
    with store.read() as tx:
        found = _rows(store, tx, table, table.c.model == name, table.c.version == number)
        if not found:
            if name not in (names := _names(store, tx)):
                raise ModelNotFound(name, known=names)
            known = tx.scalars(
                sa.select(table.c.version).where(_mine(store, table), table.c.model == name).order_by(table.c.version)
            )
            raise VersionNotFound(name, number, known=list(known))
        row = found[0]
        run_rows = _rows(store, tx, schema.run, schema.run.c.run == row.run)
    return {
        **_version_line(row),
        "checks": jsonable(row.checks),
        "settings": jsonable(row.settings),
        "fairway": row.fairway,
        "result": jsonable(run_rows[0].result) if run_rows else None,
        "cause": run_rows[0].cause if run_rows else None,
    }


def versions(store: Store, *, model: str | None = None) -> list[Json]:
    table = schema.version
    where = [table.c.model == model] if model else []
    with store.read() as tx:
        order = [table.c.created_at.desc(), table.c.version.desc()]
        return [_version_line(row) for row in _rows(store, tx, table, *where, order=order, limit=_LISTED)]


# -- runs and datasets -----------------------------------------------------------------------------------------------


def runs(store: Store, *, model: str | None = None) -> list[Json]:
    """Newest first, without their settings."""
    table = schema.run
    where = [table.c.model == model] if model else []
    with store.read() as tx:
        rows = _rows(store, tx, table, *where, order=[table.c.started_at.desc()], limit=_LISTED)
        made = _versions_of_runs(store, tx, [row.run for row in rows])
    return [_run_line(row, made.get(row.run)) for row in rows]


def run(store: Store, name: str) -> Json:
    """One trip along the path. `name` may be cut short while only one run begins so. Raises: ThingNotFound."""
    table = schema.run
    with store.read() as tx:
        rows = _rows(store, tx, table, table.c.run.startswith(name, autoescape=True), limit=10)
        rows = [row for row in rows if row.run == name] or rows
        if not rows:
            raise ThingNotFound(f"no run {name!r}; list them with: fairway show runs")
        if len(rows) > 1:
            raise ThingNotFound(f"{name!r} begins {', '.join(row.run for row in rows)}; give more of it")
        row = rows[0]
        made = _versions_of_runs(store, tx, [row.run])
    return {
        **_run_line(row, made.get(row.run)),
        "steps": jsonable(row.steps),
        "result": jsonable(row.result),
        "settings": jsonable(row.settings),
        "fairway": row.fairway,
    }


def dataset(store: Store, name: str) -> Json:
    """One dataset version; `name` may be cut short. Raises: ThingNotFound."""
    table = schema.dataset
    with store.read() as tx:
        rows = _rows(store, tx, table, table.c.dataset.startswith(name, autoescape=True), limit=2)
        rows = [row for row in rows if row.dataset == name] or rows
        if len(rows) != 1:
            raise ThingNotFound(f"{'no dataset' if not rows else 'more than one dataset begins'} {name!r}")
        row = rows[0]
        used = schema.version
        by = _rows(store, tx, used, used.c.dataset == row.dataset, order=[used.c.model, used.c.version])
    return {
        "dataset": row.dataset,
        "rows": row.rows,
        "columns": jsonable(row.columns),
        "origin": jsonable(row.origin),
        "blob": row.blob,
        "created_at": clock.iso(row.created_at),
        "versions": [f"{v.model}@{v.version}" for v in by],
    }


# -- rollouts --------------------------------------------------------------------------------------------------------


def rollouts(store: Store, *, model: str | None = None) -> list[Json]:
    table = schema.rollout
    where = [table.c.model == model] if model else []
    with store.read() as tx:
        rows = _rows(store, tx, table, *where, order=[table.c.started_at.desc()], limit=_LISTED)
    return [_rollout_line(row) for row in rows]


def rollout(store: Store, name: str) -> Json:
    """One rollout with its plan, sums per arm, looks and decision. Raises: ThingNotFound."""
    table = schema.rollout
    with store.read() as tx:
        found = _rows(store, tx, table, table.c.rollout == name)
        if not found:
            raise ThingNotFound(f"no rollout {name!r}; list them with: fairway show rollouts")
        row = found[0]
        sums = schema.stratum
        strata = _rows(
            store, tx, sums, sums.c.rollout == name, order=[sums.c.metric, sums.c.share_epoch, sums.c.block, sums.c.arm]
        )
        table = schema.look
        looks = _rows(store, tx, table, table.c.rollout == name, order=[table.c.look])
        ends = schema.endpoint
        endpoint = _rows(store, tx, ends, ends.c.endpoint == row.endpoint)
        shares = endpoint[0].shares if endpoint and endpoint[0].rollout == name else None
    return {
        **_rollout_line(row),
        "plan": jsonable(row.plan),
        "state": jsonable(row.state),
        "decision": jsonable(row.decision),
        "settings": jsonable(row.settings),
        "shares": shares,
        "totals": _totals(strata),
        "looks": [
            {"look": look.look, "at": clock.iso(look.at), "sums": jsonable(look.sums), **_spread(look.decision)}
            for look in looks
        ],
    }


def _spread(decision: Any) -> Json:
    return {"decision": jsonable(decision)}


def _totals(strata: Sequence[Row]) -> Json:
    """{metric: {arm: {n, sum}}}: for display only; decisions are made per stratum."""
    totals: dict[str, dict[str, dict[str, float]]] = {}
    for row in strata:
        entry = totals.setdefault(row.metric, {}).setdefault(row.arm, {"n": 0, "sum": 0.0})
        entry["n"] += row.n
        entry["sum"] += row.sum
    return totals


# -- alarms and reviews ----------------------------------------------------------------------------------------------


def alarms(store: Store, *, model: str | None = None, open_only: bool = False) -> list[Json]:
    """Open ones first, newest first."""
    with store.read() as tx:
        return _alarms(store, tx, model=model, open_only=open_only)


def alarm(store: Store, name: str) -> Json:
    """Raises: ThingNotFound."""
    table = schema.alarm
    with store.read() as tx:
        rows = _rows(store, tx, table, table.c.alarm == name)
    if not rows:
        raise ThingNotFound(f"no alarm {name!r}; list them with: fairway show alarms")
    return {**_alarm(rows[0]), "settings": jsonable(rows[0].settings)}


def reviews(store: Store, *, model: str | None = None, open_only: bool = False) -> list[Json]:
    """Open ones first, newest first."""
    with store.read() as tx:
        return _reviews(store, tx, model=model, open_only=open_only)


def review(store: Store, name: str) -> Json:
    """Raises: ThingNotFound."""
    table = schema.review
    with store.read() as tx:
        rows = _rows(store, tx, table, table.c.review == name)
    if not rows:
        raise ThingNotFound(f"no review {name!r}; list them with: fairway show reviews")
    return _review(rows[0])


# -- audit and gateways ----------------------------------------------------------------------------------------------


def audit_entries(store: Store, *, subject: str | None = None, limit: int = _LISTED) -> list[Json]:
    """The newest entries, newest first."""
    table = schema.audit
    where = [table.c.subject == subject] if subject else []
    with store.read() as tx:
        rows = _rows(store, tx, table, *where, order=[table.c.entry.desc()], limit=limit)
    return [
        {
            "entry": row.entry,
            "at": clock.iso(row.at),
            "actor": row.actor,
            "action": row.action,
            "subject": row.subject,
            "detail": jsonable(row.detail),
            "hash": row.hash,
        }
        for row in rows
    ]


def gateways(store: Store) -> list[Json]:
    """Every gateway that ever reported, with what it has prepared and activated."""
    with store.read() as tx:
        rows = _rows(store, tx, schema.gateway, order=[schema.gateway.c.gateway])
    return [
        {
            "gateway": row.gateway,
            "pid": row.pid,
            "heartbeat_at": clock.iso(row.heartbeat_at),
            "prepared": row.prepared,
            "active": row.active,
            "report": jsonable(row.report),
        }
        for row in rows
    ]


def endpoint(store: Store, name: str) -> Json | None:
    """The desired state of one endpoint."""
    table = schema.endpoint
    with store.read() as tx:
        rows = _rows(store, tx, table, table.c.endpoint == name)
    return _endpoint(rows[0]) if rows else None


# -- lines -----------------------------------------------------------------------------------------------------------


def _model_line(store: Store, tx: Connection, row: Row, now: datetime) -> Json:
    name, settings = row.model, row.settings or {}
    ends = [
        end
        for end in _rows(
            store, tx, schema.endpoint, schema.endpoint.c.model == name, order=[schema.endpoint.c.endpoint]
        )
        if not end.endpoint.endswith(".staging")
    ]
    end = next((e for e in ends if e.endpoint == name), ends[0] if ends else None)
    table = schema.version
    newest = _rows(store, tx, table, table.c.model == name, order=[table.c.version.desc()], limit=1)
    log = schema.prediction
    day = tx.scalar(
        sa.select(sa.func.count()).where(_mine(store, log), log.c.model == name, log.c.received_at > now - _DAY)
    )
    ever = day or tx.scalar(sa.select(sa.func.count()).where(_mine(store, log), log.c.model == name))
    table = schema.window
    judged = _rows(
        store, tx, table, table.c.model == name, table.c.performance.is_not(sa.null()),
        order=[table.c.start_at.desc()], limit=10,
    )  # fmt: skip
    alarm_count = tx.scalar(
        sa.select(sa.func.count()).where(
            _mine(store, schema.alarm), schema.alarm.c.model == name, schema.alarm.c.closed_at.is_(None)
        )
    )
    review_count = tx.scalar(
        sa.select(sa.func.count()).where(
            _mine(store, schema.review), schema.review.c.model == name, schema.review.c.answer.is_(None)
        )
    )
    performance = next((w.performance for w in judged if w.performance), None)
    live = end.champion if end is not None else None
    return {
        "model": name,
        "owner": settings.get("owner"),
        "risk": settings.get("risk"),
        "task": settings.get("task"),
        "live": live,
        "endpoint": _endpoint(end) if end is not None else None,
        "newest": newest[0].version if newest else None,
        "newest_verdict": newest[0].verdict if newest else None,
        "predictions_24h": int(day or 0),
        "predictions": bool(ever),
        "metric": jsonable(performance),
        "state": _state(end, review_count or 0, alarm_count or 0, day or 0, newest),
        "open_alarms": int(alarm_count or 0),
        "open_reviews": int(review_count or 0),
        "missing": _missing(settings, bool(ever), performance),
    }


def _state(end: Row | None, open_reviews: int, open_alarms: int, day: int, newest: Sequence[Row]) -> str:
    """One or two words, worst first."""
    if open_reviews:
        return "needs a person"
    if end is not None and end.rollout:
        return "rolling out"
    if open_alarms:
        return "alarm"
    if end is None or end.champion is None:
        return "not deployed" if newest else "no version"
    return "ok" if day else "silent"


def _missing(settings: Json, ever: bool, performance: Json | None) -> list[str]:
    missing = []
    if settings.get("label_delay") is None:
        missing.append("label delay: live accuracy is off")
    elif ever and performance is None:
        missing.append("feedback")
    return missing


def _endpoint(row: Row) -> Json:
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


def _version_line(row: Row) -> Json:
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


def _run_line(row: Row, made: str | None) -> Json:
    return {
        "run": row.run,
        "model": row.model,
        "status": row.status,
        "cause": row.cause,
        "version": made,
        "started_at": clock.iso(row.started_at),
        "ended_at": clock.iso(row.ended_at) if row.ended_at else None,
        "seconds": (row.ended_at - row.started_at).total_seconds() if row.ended_at else None,
        "error": row.error,
    }


def _window(row: Row) -> Json:
    return {
        "start_at": clock.iso(row.start_at),
        "end_at": clock.iso(row.end_at),
        "contract": row.contract,
        "rows": row.rows,
        "closed_at": clock.iso(row.closed_at) if row.closed_at else None,
        "judgement": jsonable(row.judgement),
        "performance": jsonable(row.performance),
    }


def _rollout_line(row: Row) -> Json:
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


def _running(store: Store, tx: Connection, *, model: str | None) -> list[Json]:
    table = schema.rollout
    where = [table.c.ended_at.is_(None)] + ([table.c.model == model] if model else [])
    return [_rollout_line(row) for row in _rows(store, tx, table, *where, order=[table.c.started_at.desc()])]


def _alarm(row: Row) -> Json:
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


def _alarms(store: Store, tx: Connection, *, model: str | None, open_only: bool = False) -> list[Json]:
    table = schema.alarm
    where = [table.c.model == model] if model else []
    where += [table.c.closed_at.is_(None)] if open_only else []
    order = [table.c.closed_at.is_not(None), table.c.opened_at.desc(), table.c.alarm.desc()]
    return [_alarm(row) for row in _rows(store, tx, table, *where, order=order, limit=_LISTED)]


def _review(row: Row) -> Json:
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


def _reviews(store: Store, tx: Connection, *, model: str | None, open_only: bool = False) -> list[Json]:
    table = schema.review
    where = [table.c.model == model] if model else []
    where += [table.c.answer.is_(None)] if open_only else []
    order = [table.c.answer.is_not(None), table.c.opened_at.desc(), table.c.review.desc()]
    return [_review(row) for row in _rows(store, tx, table, *where, order=order, limit=_LISTED)]


# -- small things ----------------------------------------------------------------------------------------------------


def numbered(name: str) -> int:
    """31 of "review-31": ids order by their number, not by their text.

    >>> numbered("review-31"), numbered("run-7f3a")
    (31, 0)
    """
    found = re.fullmatch(r"[a-z]+-(\d+)", name)
    return int(found[1]) if found else 0


def _names(store: Store, tx: Connection) -> list[str]:
    table = schema.model
    return list(tx.scalars(sa.select(table.c.model).where(_mine(store, table)).order_by(table.c.model)))


def _versions_of_runs(store: Store, tx: Connection, names: Sequence[str]) -> dict[str, str]:
    table = schema.version
    rows = _rows(store, tx, table, table.c.run.in_(names)) if names else []
    return {row.run: f"{row.model}@{row.version}" for row in rows}


def _mine(store: Store, table: sa.Table) -> sa.ColumnElement[bool]:
    return table.c.workspace == store.workspace


def _rows(
    store: Store,
    tx: Connection,
    table: sa.Table,
    *where: sa.ColumnElement[bool],
    order: Sequence[sa.ColumnElement[Any]] = (),
    limit: int | None = None,
) -> list[Row]:
    query = sa.select(table).where(_mine(store, table), *where).order_by(*order)
    return list(tx.execute(query.limit(limit) if limit else query))
