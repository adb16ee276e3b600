"""Jobs: rows claimed by lease. Leases expire by the database's clock; every write of a holder carries its fence."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.store import schema
from fairway.store.base import Store

LEASE = timedelta(seconds=30)
_ENDED = ("done", "failed")


@dataclass(frozen=True)
class Claim:
    """A job in this process's hands until its lease ends."""

    job: str
    kind: str
    payload: dict[str, Any]
    fence: int
    attempts: int


def submit(store: Store, tx: Connection, *, kind: str, key: str, payload: dict[str, Any]) -> str | None:
    """Queue a job, unless one with this kind and key is queued or running (then None)."""
    table = schema.job
    same = sa.and_(
        table.c.workspace == store.workspace,
        table.c.kind == kind,
        table.c.key == key,
        table.c.status.notin_(_ENDED),
    )
    if tx.scalar(sa.select(sa.func.count()).select_from(table).where(same)):
        return None
    name = f"job-{store.next_number(tx, 'job')}"
    tx.execute(
        sa.insert(table).values(
            workspace=store.workspace, job=name, kind=kind, key=key, payload=payload, status="queued", attempts=0,
            fence=0, queued_at=clock.now(),
        )
    )  # fmt: skip
    return name


def claim(store: Store, *, owner: str, lease: timedelta = LEASE) -> Claim | None:
    """Take the oldest job that is queued, or running with an expired lease (its holder died)."""
    table = schema.job
    with store.write() as tx:
        now = store.database_now(tx)
        free = sa.or_(table.c.status == "queued", sa.and_(table.c.status == "running", table.c.lease_until < now))
        row = tx.execute(
            sa.select(table)
            .where(table.c.workspace == store.workspace, free)
            .order_by(table.c.queued_at, sa.func.length(table.c.job), table.c.job)
            .limit(1)
            .with_for_update(skip_locked=True)
        ).first()
        if row is None:
            return None
        tx.execute(
            sa.update(table)
            .where(table.c.workspace == store.workspace, table.c.job == row.job)
            .values(
                status="running",
                owner=owner,
                lease_until=now + lease,
                fence=row.fence + 1,
                attempts=row.attempts + 1,
            )
        )
        return Claim(row.job, row.kind, row.payload, row.fence + 1, row.attempts + 1)


def renew(store: Store, held: Claim, *, lease: timedelta = LEASE) -> bool:
    """Extend the lease; False when another process has taken the job."""
    with store.write() as tx:
        return _update(store, tx, held, lease_until=store.database_now(tx) + lease)


def finish(
    store: Store,
    tx: Connection,
    held: Claim,
    *,
    result: dict[str, Any] | None = None,
    error: str | None = None,
) -> bool:
    """End a job in the transaction that holds its effect; False (and nothing written) when the lease was lost."""
    status = "failed" if error else "done"
    return _update(store, tx, held, status=status, result=result, error=error, ended_at=clock.now(), lease_until=None)


def pending(store: Store) -> int:
    """Jobs queued or running."""
    table = schema.job
    with store.read() as tx:
        where = sa.and_(table.c.workspace == store.workspace, table.c.status.notin_(_ENDED))
        return int(tx.scalar(sa.select(sa.func.count()).select_from(table).where(where)) or 0)


def _update(store: Store, tx: Connection, held: Claim, **values: Any) -> bool:
    table = schema.job
    mine = sa.and_(table.c.workspace == store.workspace, table.c.job == held.job, table.c.fence == held.fence)
    return tx.execute(sa.update(table).where(mine, table.c.status == "running").values(**values)).rowcount == 1
