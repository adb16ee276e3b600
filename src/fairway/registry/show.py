"""What there is to see: rows of the store as JSON-able values, the same for the terminal, --json and the console.

Nothing here writes, decides or formats. Times are ISO text, UTC.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from fairway import clock
from fairway.errors import ModelNotFound, ThingNotFound, VersionNotFound
from fairway.registry import lines
from fairway.store import closed, schema
from fairway.store import jobs as job_rows
from fairway.store import schedules as schedule_rows
from fairway.store.base import Row, Store, jsonable
from fairway.store.gateways import LIVE

Json = dict[str, Any]


# -- models and versions ---------------------------------------------------------------------------------------------


def models(store: Store) -> list[str]:
    """Names of all models, in order."""
    table = schema.model
    with store.read() as tx:
        return list(tx.scalars(sa.select(table.c.model).where(lines.mine(store, table)).order_by(table.c.model)))


def status(store: Store, *, model: str | None = None, now: datetime | None = None) -> Json:
    """What needs a person, and one line per model. Raises: ModelNotFound."""
    now = now or clock.now()
    with store.read() as tx:
        rows = lines.select(store, tx, schema.model, order=[schema.model.c.model])
        if model is not None:
            rows = [row for row in rows if row.model == model]
            if not rows:
                raise ModelNotFound(model, known=lines.names(store, tx))
        shown = [lines.model_line(store, tx, row, now) for row in rows]
        open_reviews = lines.reviews(store, tx, model=model, open_only=True)
        open_alarms = lines.alarms(store, tx, model=model, open_only=True)
        running = lines.running(store, tx, model=model)
        table = schema.job
        waiting = tx.scalar(
            sa.select(sa.func.count()).where(lines.mine(store, table), table.c.status.in_(("queued", "running")))
        )
        failed = lines.select(
            store, tx, table, table.c.status == "failed", table.c.ended_at > now - lines.WEEK,
            *([table.c.key == model] if model else []), order=[table.c.ended_at.desc()], limit=5,
        )  # fmt: skip
        counters = {row.name: row.value for row in lines.select(store, tx, schema.counter)}
        moved = closed.reason(tx, store.workspace, name=store.name)
    return {
        "at": clock.iso(now),
        "moved": moved,  # why what is told here is old, after a move
        "models": shown,
        "reviews": open_reviews,
        "alarms": open_alarms,
        "rollouts": running,
        "jobs": int(waiting or 0),
        "failed_jobs": [lines.job(row) for row in failed],
        "counters": counters,
    }


def model(store: Store, name: str, *, now: datetime | None = None) -> Json:
    """One model with its endpoint, versions, windows, alarms, reviews and rollouts. Raises: ModelNotFound."""
    now = now or clock.now()
    with store.read() as tx:
        found = lines.select(store, tx, schema.model, schema.model.c.model == name)
        if not found:
            raise ModelNotFound(name, known=lines.names(store, tx))
        line = lines.model_line(store, tx, found[0], now)
        table = schema.version
        versions = lines.select(store, tx, table, table.c.model == name, order=[table.c.version.desc()])
        table = schema.window
        windows = lines.select(
            store, tx, table, table.c.model == name, order=[table.c.start_at.desc()], limit=lines.LISTED
        )
        table = schema.rollout
        rollouts = lines.select(
            store, tx, table, table.c.model == name, order=[table.c.started_at.desc()], limit=lines.LISTED
        )
        return {
            **line,
            "settings": jsonable(found[0].settings),
            "sources": lines.sources(store, tx, model=name),
            "versions": [lines.version(row) for row in versions],
            "windows": [lines.window(row) for row in reversed(windows)],
            "alarms": lines.alarms(store, tx, model=name),
            "reviews": lines.reviews(store, tx, model=name),
            "rollouts": [lines.rollout(row) for row in rollouts],
        }


def version(store: Store, name: str, number: int) -> Json:
    """One version: where it comes from, its metrics and checks. Raises: ModelNotFound, VersionNotFound."""
    table = schema.version
    with store.read() as tx:
        found = lines.select(store, tx, table, table.c.model == name, table.c.version == number)
        if not found:
            if name not in (names := lines.names(store, tx)):
                raise ModelNotFound(name, known=names)
            known = tx.scalars(
                sa.select(table.c.version)
                .where(lines.mine(store, table), table.c.model == name)
                .order_by(table.c.version)
            )
            raise VersionNotFound(name, number, known=list(known))
        row = found[0]
        run_rows = lines.select(store, tx, schema.run, schema.run.c.run == row.run)
    return {
        **lines.version(row),
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
        return [lines.version(row) for row in lines.select(store, tx, table, *where, order=order, limit=lines.LISTED)]


# -- runs and datasets -----------------------------------------------------------------------------------------------


def runs(store: Store, *, model: str | None = None) -> list[Json]:
    """Newest first, without their settings."""
    table = schema.run
    where = [table.c.model == model] if model else []
    with store.read() as tx:
        rows = lines.select(store, tx, table, *where, order=[table.c.started_at.desc()], limit=lines.LISTED)
        made = lines.versions_of_runs(store, tx, [row.run for row in rows])
    return [lines.run(row, made.get(row.run)) for row in rows]


def run(store: Store, name: str) -> Json:
    """One trip along the path. `name` may be cut short while only one run begins so. Raises: ThingNotFound."""
    table = schema.run
    with store.read() as tx:
        rows = lines.select(store, tx, table, table.c.run.startswith(name, autoescape=True), limit=10)
        rows = [row for row in rows if row.run == name] or rows
        if not rows:
            raise ThingNotFound(f"no run {name!r}; list them with: fairway show runs")
        if len(rows) > 1:
            raise ThingNotFound(f"{name!r} begins {', '.join(row.run for row in rows)}; give more of it")
        row = rows[0]
        made = lines.versions_of_runs(store, tx, [row.run])
    return {
        **lines.run(row, made.get(row.run)),
        "steps": jsonable(row.steps),
        "result": jsonable(row.result),
        "settings": jsonable(row.settings),
        "fairway": row.fairway,
    }


def datasets(store: Store) -> list[Json]:
    """Newest first."""
    table = schema.dataset
    with store.read() as tx:
        found = lines.select(store, tx, table, order=[table.c.created_at.desc()], limit=lines.LISTED)
    return [{"dataset": row.dataset, "rows": row.rows, "created_at": clock.iso(row.created_at)} for row in found]


def dataset(store: Store, name: str) -> Json:
    """One dataset version; `name` may be cut short. Raises: ThingNotFound."""
    table = schema.dataset
    with store.read() as tx:
        rows = lines.select(store, tx, table, table.c.dataset.startswith(name, autoescape=True), limit=2)
        rows = [row for row in rows if row.dataset == name] or rows
        if len(rows) != 1:
            raise ThingNotFound(f"{'no dataset' if not rows else 'more than one dataset begins'} {name!r}")
        row = rows[0]
        used = schema.version
        by = lines.select(store, tx, used, used.c.dataset == row.dataset, order=[used.c.model, used.c.version])
    return {
        "dataset": row.dataset,
        "rows": row.rows,
        "columns": jsonable(row.columns),
        "origin": jsonable(row.origin),
        "blob": row.blob,
        "parts": list(row.parts or [row.blob]),
        "created_at": clock.iso(row.created_at),
        "versions": [f"{v.model}@{v.version}" for v in by],
    }


# -- rollouts --------------------------------------------------------------------------------------------------------


def rollouts(store: Store, *, model: str | None = None) -> list[Json]:
    table = schema.rollout
    where = [table.c.model == model] if model else []
    with store.read() as tx:
        rows = lines.select(store, tx, table, *where, order=[table.c.started_at.desc()], limit=lines.LISTED)
    return [lines.rollout(row) for row in rows]


def rollout(store: Store, name: str) -> Json:
    """One rollout with its plan, sums per arm, looks and decision. Raises: ThingNotFound."""
    table = schema.rollout
    with store.read() as tx:
        found = lines.select(store, tx, table, table.c.rollout == name)
        if not found:
            raise ThingNotFound(f"no rollout {name!r}; list them with: fairway show rollouts")
        row = found[0]
        sums = schema.stratum
        strata = lines.select(
            store, tx, sums, sums.c.rollout == name, order=[sums.c.metric, sums.c.share_epoch, sums.c.block, sums.c.arm]
        )
        table = schema.look
        looks = lines.select(store, tx, table, table.c.rollout == name, order=[table.c.look])
        ends = schema.endpoint
        endpoint = lines.select(store, tx, ends, ends.c.endpoint == row.endpoint)
        shares = endpoint[0].shares if endpoint and endpoint[0].rollout == name else None
    return {
        **lines.rollout(row),
        "plan": jsonable(row.plan),
        "state": jsonable(row.state),
        "decision": jsonable(row.decision),
        "settings": jsonable(row.settings),
        "shares": shares,
        "totals": _totals(strata),
        "looks": [
            {"look": look.look, "at": clock.iso(look.at), "sums": look.sums, "decision": look.decision}
            for look in looks
        ],
    }


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
        return lines.alarms(store, tx, model=model, open_only=open_only)


def alarm(store: Store, name: str) -> Json:
    """Raises: ThingNotFound."""
    table = schema.alarm
    with store.read() as tx:
        rows = lines.select(store, tx, table, table.c.alarm == name)
    if not rows:
        raise ThingNotFound(f"no alarm {name!r}; list them with: fairway show alarms")
    return {**lines.alarm(rows[0]), "settings": jsonable(rows[0].settings)}


def reviews(store: Store, *, model: str | None = None, open_only: bool = False) -> list[Json]:
    """Open ones first, newest first."""
    with store.read() as tx:
        return lines.reviews(store, tx, model=model, open_only=open_only)


def review(store: Store, name: str) -> Json:
    """Raises: ThingNotFound."""
    table = schema.review
    with store.read() as tx:
        rows = lines.select(store, tx, table, table.c.review == name)
    if not rows:
        raise ThingNotFound(f"no review {name!r}; list them with: fairway show reviews")
    return lines.review(rows[0])


# -- jobs and schedules ----------------------------------------------------------------------------------------------


def jobs(store: Store, *, model: str | None = None) -> list[Json]:
    """What has not ended first, then newest first."""
    table = schema.job
    where = [table.c.key == model] if model else []
    order = [table.c.status.in_(job_rows.ENDED), table.c.queued_at.desc(), sa.func.length(table.c.job).desc(),
             table.c.job.desc()]  # fmt: skip
    with store.read() as tx:
        return [lines.job(row) for row in lines.select(store, tx, table, *where, order=order, limit=lines.LISTED)]


def job(store: Store, name: str) -> Json:
    """One job with its steps, signals, limits and result. Raises: ThingNotFound."""
    steps, signals, ticks = schema.job_step, schema.signal, schema.schedule_tick
    with store.read() as tx:
        row = job_rows.find(store, tx, name)
        done = lines.select(store, tx, steps, steps.c.job == name, order=[steps.c.ended_at, steps.c.step])
        sent = lines.select(store, tx, signals, signals.c.job == name, order=[signals.c.sent_at, signals.c.name])
        made_by = lines.select(store, tx, ticks, ticks.c.job == name)
    return {
        **lines.job(row),
        "payload": jsonable(row.payload),
        "limits": jsonable(row.limits or {}),
        "schedule": made_by[0].schedule if made_by else None,
        "steps": [lines.job_step(step) for step in done],
        "signals": [lines.signal(signal) for signal in sent],
        "result": jsonable(row.result),
    }


def schedules(store: Store, *, now: datetime | None = None) -> list[Json]:
    """By name, each with its last tick and the next."""
    now, ticks = now or clock.now(), schema.schedule_tick
    with store.read() as tx:
        rows = schedule_rows.listed(store, tx)
        made = {}
        for row in rows:
            where = (ticks.c.schedule == row.schedule, ticks.c.tick == row.last)
            made[row.schedule] = next((tick.job for tick in lines.select(store, tx, ticks, *where)), None)
    return [lines.schedule(row, now, made[row.schedule]) for row in rows]


# -- audit and gateways ----------------------------------------------------------------------------------------------


def audit_entries(store: Store, *, subject: str | None = None, limit: int = lines.LISTED) -> list[Json]:
    """The newest entries, newest first."""
    table = schema.audit
    where = [table.c.subject == subject] if subject else []
    with store.read() as tx:
        rows = lines.select(store, tx, table, *where, order=[table.c.entry.desc()], limit=limit)
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
        rows = lines.select(store, tx, schema.gateway, order=[schema.gateway.c.gateway])
        now = store.database_now(tx)
    return [
        {
            "gateway": row.gateway,
            "pid": row.pid,
            "heartbeat_at": clock.iso(row.heartbeat_at),
            "stale": row.heartbeat_at < now - LIVE,  # it may still serve what it had, and does not hear of changes
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
        rows = lines.select(store, tx, table, table.c.endpoint == name)
    return lines.endpoint(rows[0]) if rows else None
