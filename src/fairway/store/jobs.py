"""Jobs: rows claimed by lease. Leases expire by the database's clock; every write of a holder carries its fence.

A job goes queued -> running -> done | failed | cancelled, and back to queued when it is worth another attempt. While
it waits for a signal (`store.signals`) it is `waiting`: a row, with no process and no lease. Whoever holds a job may
die at any moment; its lease ends, and the next holder has a higher fence, past which the former can write nothing.
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.errors import FairwayError, LeaseLost, Refused, StoreError, ThingNotFound
from fairway.store import audit, schema
from fairway.store.base import Row, Store

LEASE = timedelta(seconds=30)
MAX_ATTEMPTS = 5
OTHERS_FIRST = timedelta(minutes=10)
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=2), timedelta(minutes=10)  # between two attempts
TIMEOUT_S = 24 * 3600.0  # of a job that states none: what hangs must not hold a worker for ever
ENDED = ("done", "failed", "cancelled")
OPEN = ("queued", "running", "waiting")

Standing = Literal["held", "lost", "cancel"]


@dataclass(frozen=True)
class Claim:
    """A job in this process's hands until its lease ends. JSON-able: a child gets it on its command line.

    limits: {"timeout_s": seconds of one attempt, "memory_mb": resident, of its process and all it started}.
    """

    job: str
    kind: str
    payload: dict[str, Any]
    fence: int
    attempts: int
    key: str = ""
    max_attempts: int = MAX_ATTEMPTS
    limits: dict[str, float] = field(default_factory=dict)


def submit(
    store: Store,
    tx: Connection,
    *,
    kind: str,
    key: str,
    payload: dict[str, Any],
    max_attempts: int = MAX_ATTEMPTS,
    limits: dict[str, float] | None = None,
) -> str | None:
    """Queue a job, unless one with this kind and key has not ended (then None).

    limits: see `Claim`; without timeout_s, a day.
    """
    table = schema.job
    same = sa.and_(
        table.c.workspace == store.workspace,
        table.c.kind == kind,
        table.c.key == key,
        table.c.status.in_(OPEN),
    )
    if tx.scalar(sa.select(sa.func.count()).select_from(table).where(same)):
        return None
    name = f"job-{store.next_number(tx, 'job')}"
    tx.execute(
        sa.insert(table).values(
            workspace=store.workspace, job=name, kind=kind, key=key, payload=payload, status="queued", attempts=0,
            fence=0, queued_at=clock.now(), max_attempts=max_attempts, limits=limits or {},
        )
    )  # fmt: skip
    return name


def claim(
    store: Store,
    *,
    owner: str,
    lease: timedelta = LEASE,
    kinds: Collection[str] | None = None,
    not_here: Callable[[], Collection[tuple[str, str]]] = tuple,
) -> Claim | None:
    """Take the job that has been free for longest: queued and due, or running with an expired lease (its holder died).

    kinds: only of these. not_here: (kind, key) of jobs that lack something on this machine; for OTHERS_FIRST they are
    left to workers elsewhere, then they are taken, so that a person hears what they lack. Several workers never wait
    for each other here: on Postgres each skips rows in other hands. A job that was lost `max_attempts` times, or
    cancelled while its holder died, is ended instead of taken.
    """
    with store.read() as tx:  # most looks find nothing, and need not take the writer's place
        if tx.execute(_free(store, store.database_now(tx), kinds)).first() is None:
            return None
    left = not_here()
    table = schema.job
    with store.beside() as tx:
        now = store.database_now(tx)
        while (row := tx.execute(_free(store, now, kinds, left).with_for_update(skip_locked=True)).first()) is not None:
            mine = sa.and_(table.c.workspace == store.workspace, table.c.job == row.job)
            most = MAX_ATTEMPTS if row.max_attempts is None else row.max_attempts
            if row.cancelled_by is not None or row.attempts >= most:
                status = "cancelled" if row.cancelled_by is not None else "failed"
                error = row.error if status == "cancelled" else _lost(row)
                ended = {"status": status, "error": error, "ended_at": clock.now(), "lease_until": None}
                tx.execute(sa.update(table).where(mine).values(**ended, fence=row.fence + 1))
                continue
            taken = {"fence": row.fence + 1, "attempts": row.attempts + 1}
            tx.execute(
                sa.update(table).where(mine).values(**taken, status="running", owner=owner, lease_until=now + lease)
            )
            return Claim(
                row.job, row.kind, row.payload, **taken, key=row.key, max_attempts=most, limits=row.limits or {}
            )
    return None


def _free(store: Store, now: datetime, kinds: Collection[str] | None, left: Collection[tuple[str, str]] = ()) -> Any:
    table = schema.job
    due = sa.or_(table.c.not_before.is_(None), table.c.not_before <= now)
    free = sa.or_(
        sa.and_(table.c.status == "queued", due), sa.and_(table.c.status == "running", table.c.lease_until < now)
    )
    # Free since: a retry or a dead holder's job queues behind what has been waiting for longer, so that a job that
    # kills its worker each time does not keep the others from being run.
    since = sa.func.coalesce(table.c.lease_until, table.c.not_before, table.c.queued_at)
    query = sa.select(table).where(table.c.workspace == store.workspace, free)
    if kinds is not None:
        query = query.where(table.c.kind.in_(kinds))
    for kind, key in left:
        other = sa.or_(table.c.kind != kind, table.c.key != key, table.c.key.is_(None))
        query = query.where(sa.or_(other, table.c.queued_at < now - OTHERS_FIRST))
    return query.order_by(since, sa.func.length(table.c.job), table.c.job).limit(1)


def _lost(row: Row) -> str:
    said = f"; before that: {row.error}" if row.error else ""
    return f"its process or its worker was killed in each of {row.attempts} attempts{said}"


# -- holding ---------------------------------------------------------------------------------------------------------


def renew(store: Store, held: Claim, *, lease: timedelta = LEASE) -> Standing:
    """Extend the lease; "lost" when another process has the job, "cancel" when it was asked to stop."""
    with store.beside() as tx:
        if not _update(store, tx, held, lease_until=store.database_now(tx) + lease):
            return "lost"
        return "cancel" if find(store, tx, held.job).cancelled_by is not None else "held"


def standing(store: Store, held: Claim) -> Standing:
    """As `renew`, only looking."""
    with store.read() as tx:
        row = find(store, tx, held.job)
    if row.fence != held.fence or row.status != "running":
        return "lost"
    return "cancel" if row.cancelled_by is not None else "held"


def guard(store: Store, tx: Connection, held: Claim) -> None:
    """Make sure, for the rest of this transaction, that the job is still in these hands. Raises: LeaseLost."""
    table = schema.job
    query = sa.select(table.c.job).where(_mine(store, held), table.c.status == "running").with_for_update()
    if tx.execute(query).first() is None:
        raise LeaseLost(f"{held.job} is no longer in the hands of attempt {held.fence}: nothing was written")


# -- ending ----------------------------------------------------------------------------------------------------------


def finish(
    store: Store,
    tx: Connection,
    held: Claim,
    *,
    result: dict[str, Any] | None = None,
    error: str | None = None,
) -> bool:
    """End a job in the transaction that holds its effect; False (and nothing written) when the lease was lost."""
    return _end(store, tx, held, "failed" if error else "done", result=result, error=error)


def fail(store: Store, tx: Connection, held: Claim, *, error: str, again: bool) -> str | None:
    """End an attempt that failed; the job's status then, or None when the lease was lost.

    again: whether another attempt may succeed (`worth_retry`): queued after a pause, while there are attempts left.
    On a virtual clock the pause is left out: nothing there waits for real time.
    """
    if not again or held.attempts >= held.max_attempts:
        return "failed" if _end(store, tx, held, "failed", error=error) else None
    pause = backoff(held.job, held.attempts)
    not_before = None if clock.is_virtual() else store.database_now(tx) + pause
    back = {"status": "queued", "error": error, "not_before": not_before, "lease_until": None, "owner": None}
    return "queued" if _update(store, tx, held, **back) else None


def release(store: Store, tx: Connection, held: Claim) -> bool:
    """Give a job back that was interrupted by no fault of its own (the worker stops): queued, and not counted."""
    back = {"status": "queued", "attempts": held.attempts - 1, "lease_until": None, "owner": None, "not_before": None}
    return _update(store, tx, held, **back)


def stopped(store: Store, tx: Connection, held: Claim) -> bool:
    """End a job as cancelled, when its process has gone."""
    return _end(store, tx, held, "cancelled")


def cancel(store: Store, tx: Connection, job: str, *, actor: str, why: str | None = None) -> str:
    """Ask for a job's end: "cancelled" when nobody holds it, else "running" until its holder has ended its process.

    Raises: ThingNotFound, Refused when it has ended.
    """
    table = schema.job
    row = find(store, tx, job, lock=True)
    if row.status in ENDED:
        raise Refused(f"{job} has ended: {row.status}; there is nothing to cancel")
    values: dict[str, Any] = {"cancelled_by": actor, "error": f"cancelled by {actor}" + (f": {why}" if why else "")}
    if row.status != "running":  # a holder that is about to claim it fails at its fence
        values |= {"status": "cancelled", "ended_at": clock.now(), "waits_for": None, "fence": row.fence + 1}
    tx.execute(sa.update(table).where(table.c.workspace == store.workspace, table.c.job == job).values(**values))
    audit.record(store, tx, actor=actor, action="job.cancel", subject=job, kind=row.kind, key=row.key, why=why)
    return str(values.get("status", "running"))


def worth_retry(error: BaseException) -> bool:
    """Whether the same job may succeed later: our failure, a lost store, or something that was not ready.

    A refusal (the data, the model's code, a gate) and a wrong name stay as they are until a person changes something.
    """
    return not isinstance(error, FairwayError) or isinstance(error, StoreError) or error.exit_code in (3, 70)


def backoff(job: str, attempt: int) -> timedelta:
    """The pause after attempt 1, 2, …: 2 s, doubled each time, at most 10 min, each shortened by up to half.

    The jitter comes from the job's name and the attempt: jobs that failed together come back apart, and the same job
    always alike.

    >>> [round(backoff("job-1", attempt).total_seconds(), 1) for attempt in (1, 2, 3, 60)]
    [2.0, 3.5, 4.2, 591.4]
    """
    longest: timedelta = min(FIRST_PAUSE * 2 ** min(attempt - 1, 30), LONGEST_PAUSE)
    return longest * random.Random(f"{job}/{attempt}").uniform(0.5, 1.0)


# -- reading ---------------------------------------------------------------------------------------------------------


def find(store: Store, tx: Connection, job: str, *, lock: bool = False) -> Row:
    """A job's row. lock: nobody else changes it until this transaction ends. Raises: ThingNotFound."""
    table = schema.job
    query = sa.select(table).where(table.c.workspace == store.workspace, table.c.job == job)
    row = tx.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise ThingNotFound(f"no {job}; list them with: fairway show jobs")
    return row


def pending(store: Store) -> int:
    """Jobs queued or running."""
    table = schema.job
    with store.read() as tx:
        where = sa.and_(table.c.workspace == store.workspace, table.c.status.in_(("queued", "running")))
        return int(tx.scalar(sa.select(sa.func.count()).select_from(table).where(where)) or 0)


def _end(store: Store, tx: Connection, held: Claim, status: str, **values: Any) -> bool:
    return _update(store, tx, held, status=status, ended_at=clock.now(), lease_until=None, not_before=None, **values)


def _mine(store: Store, held: Claim) -> sa.ColumnElement[bool]:
    table = schema.job
    return sa.and_(table.c.workspace == store.workspace, table.c.job == held.job, table.c.fence == held.fence)


def _update(store: Store, tx: Connection, held: Claim, **values: Any) -> bool:
    where = sa.and_(_mine(store, held), schema.job.c.status == "running")
    return tx.execute(sa.update(schema.job).where(where).values(**values)).rowcount == 1
