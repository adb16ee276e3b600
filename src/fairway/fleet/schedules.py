"""What fairway does by the calendar: kinds of jobs that a schedule may name, and the schedules each workspace has.

To add a kind, write `def my_kind(workspace, payload, job) -> dict` where its matter belongs (any layer below) and give
it a line in KINDS. payload: the schedule's, with `tick` (ISO text): the moment the job is for, so that it does the same
however late it runs and on a virtual clock. job: `job.step(name, given, do)` keeps what is done over a crash,
`job.commit(name, given, do)` runs `do(tx)` so that its effect is there once, `job.wait(signal)` parks the job. What it
returns is the job's result; what it raises is tried again, if that may help (`store.jobs.worth_retry`).

* Each workspace has it: a line in STANDING.
* Made by something in a project (a source that is polled): `store.schedules.put(...)` where that thing becomes known,
  `store.schedules.remove(...)` where it goes; both are safe to repeat.
* Only our own code, no project's, and short: its name in LIGHT. It then runs within the worker, without a child process
  (and without limits), so that a virtual clock may pass many days at little cost.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.keep import gc, retention
from fairway.store import heads, jobs, schedules, schema
from fairway.store.base import Store
from fairway.store.jobs import Claim
from fairway.store.schedules import Backfill
from fairway.store.steps import Job, attempt
from fairway.store.workspace import Workspace

Json = dict[str, Any]
Kind = Callable[[Workspace, Json, Job], Json]

DAY = timedelta(days=1)
KEPT = timedelta(days=30)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A schedule that every workspace has; its first tick is the next full day (UTC)."""

    name: str
    kind: str
    every: timedelta = DAY
    backfill: Backfill = "latest"
    payload: Json = field(default_factory=dict)


def tidy_jobs(workspace: Workspace, payload: Json, job: Job) -> Json:
    """Forget ended jobs of the calendar and ticks that are older than 30 days; trainings and deployments stay."""
    before = clock.parse_iso(payload["tick"]) - KEPT
    result: Json = job.commit("tidy", clock.iso(before), lambda tx: _forget(workspace.store, tx, before))
    return result


def audit_head(workspace: Workspace, payload: Json, job: Job) -> Json:
    """Sign the head of the audit chain and keep it elsewhere, where FAIRWAY_AUDIT_HEADS names a place."""
    place = heads.elsewhere()
    if place is None or clock.is_virtual():  # a replay's head would stand beside the real ones
        return {"written": False}
    result: Json = job.step("write", payload["tick"], lambda: {"entry": heads.write_elsewhere(workspace, place).entry})
    return {"written": True, "to": place, **result}


def gc_report(workspace: Workspace, payload: Json, job: Job) -> Json:
    """What `fairway admin gc` would delete. Nothing is deleted: that takes a person."""
    return gc.collect(workspace, actor="fairway").as_dict()


def drop_old_log(workspace: Workspace, payload: Json, job: Job) -> Json:
    """`[log] keep`: drop predictions that are older."""
    return {"dropped": retention.tick(workspace, clock.parse_iso(payload["tick"]))}


KINDS: dict[str, Kind] = {
    "audit_head": audit_head,
    "drop_old_log": drop_old_log,
    "gc_report": gc_report,
    "tidy_jobs": tidy_jobs,
}
LIGHT: set[str] = {"audit_head", "drop_old_log", "gc_report", "tidy_jobs"}
STANDING: list[Standing] = [
    Standing(name="audit-head", kind="audit_head"),
    Standing(name="drop-old-log", kind="drop_old_log"),
    Standing(name="gc-report", kind="gc_report", every=7 * DAY),
    Standing(name="tidy-jobs", kind="tidy_jobs"),
]


def tick(workspace: Workspace, now: datetime) -> bool:
    """Declare the standing schedules, and queue what is due; True if anything was written."""
    store = workspace.store
    with store.read() as tx:
        known = {row.schedule: row for row in schedules.listed(store, tx)}
    changed = False
    for standing in STANDING:
        row = known.get(standing.name)
        starts_at = row.starts_at if row is not None else _midnight_after(now)
        if row is None or (row.kind, row.payload, row.every_us, row.backfill) != _shape(standing):
            with store.write() as tx:
                changed |= schedules.put(
                    store, tx, standing.name, kind=standing.kind, payload=standing.payload, every=standing.every,
                    starts_at=starts_at, backfill=standing.backfill,
                )  # fmt: skip
    return schedules.tick(store, now, known=None if changed else list(known.values())) or changed


def run(workspace: Workspace, claim: Claim) -> bool:
    """Run a claimed job of one of the KINDS; False when its lease was lost. See `store.steps.attempt`."""
    store = workspace.store

    def do() -> bool:
        result = KINDS[claim.kind](workspace, claim.payload, Job(store, claim))
        with store.write() as tx:
            return jobs.finish(store, tx, claim, result=result)

    return attempt(store, claim, do)


def _shape(standing: Standing) -> tuple[str, Json, int, str]:
    return standing.kind, standing.payload, standing.every // timedelta(microseconds=1), standing.backfill


def _midnight_after(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY


def _forget(store: Store, tx: Connection, before: datetime) -> Json:
    table, ticks = schema.job, schema.schedule_tick
    mine = table.c.workspace == store.workspace
    old = list(
        tx.scalars(
            sa.select(table.c.job).where(
                mine, table.c.status.in_(jobs.ENDED), table.c.ended_at < before, table.c.kind.in_(KINDS)
            )
        )
    )
    for other in (schema.job_step, schema.signal, table):
        for start in range(0, len(old), 500):  # SQLite takes a limited number of values in a statement
            names = other.c.job.in_(old[start : start + 500])
            tx.execute(sa.delete(other).where(other.c.workspace == store.workspace, names))
    newest = {row.schedule: row.last for row in schedules.listed(store, tx)}
    forgotten = 0
    for name, last in newest.items():
        if last is None:
            continue
        # The newest tick stays, however old: it says from where the schedule goes on.
        where = sa.and_(ticks.c.schedule == name, ticks.c.tick < min(before, last))
        forgotten += tx.execute(sa.delete(ticks).where(ticks.c.workspace == store.workspace, where)).rowcount
    return {"jobs": len(old), "ticks": forgotten}
