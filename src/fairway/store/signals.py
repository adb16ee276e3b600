"""Signals: answers that a waiting job goes on with. Only data: a job that waits is a row, with no process and no lease.

A signal belongs to one job and has a name; the first one sent under a name stands, and it may come before the wait.
"""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.store import jobs, schema
from fairway.store.base import Row, Store
from fairway.store.jobs import Claim


class Parked(Exception):
    """The job waits: its row says for what, and this process is done with it. Not an error."""


def wait(store: Store, held: Claim, name: str, *, known: Callable[[Connection], Any] | None = None) -> Any:
    """The payload of the job's signal `name`; when it has not come, the job is parked.

    known: looks in the store for what the signal would say (not None), for one that is only sent to jobs that wait.
    The next attempt begins at the job's start, once the signal is there: what lies before belongs into steps.
    Raises: Parked (let it pass), LeaseLost.
    """
    table = schema.job
    with store.write() as tx:
        # The row's lock before the look: a signal between look and wait would be waited for in vain.
        jobs.guard(store, tx, held)
        found = _sent(store, tx, held.job, name)
        if found is not None:
            return found.payload
        if known is not None and (already := known(tx)) is not None:
            return already
        where = sa.and_(table.c.workspace == store.workspace, table.c.job == held.job)
        parked = {"status": "waiting", "waits_for": name, "owner": None, "lease_until": None, "attempts": 0}
        tx.execute(sa.update(table).where(where).values(**parked))
    raise Parked(f"{held.job} waits for {name}")


def send(store: Store, tx: Connection, job: str, name: str, payload: Any = None, *, by: str) -> bool:
    """Give a job its signal, and wake it when it waits for it; False when one of this name was sent before.

    payload: JSON. In the caller's transaction: the answer and what it wakes commit together. Raises: ThingNotFound.
    """
    row = jobs.find(store, tx, job, lock=True)
    signal = {"workspace": store.workspace, "job": job, "name": name}
    if not store.insert_new(tx, schema.signal, signal | {"payload": payload, "sent_by": by, "sent_at": clock.now()}):
        return False
    if row.status == "waiting" and row.waits_for == name:
        table = schema.job
        where = sa.and_(table.c.workspace == store.workspace, table.c.job == job)
        tx.execute(sa.update(table).where(where).values(status="queued", waits_for=None, not_before=None))
    return True


def send_to_waiting(store: Store, tx: Connection, name: str, payload: Any = None, *, by: str) -> list[str]:
    """`send` to every job that waits for `name` (an answer that several may want); the jobs."""
    table = schema.job
    query = sa.select(table.c.job).where(
        table.c.workspace == store.workspace, table.c.status == "waiting", table.c.waits_for == name
    )
    waiting = list(tx.scalars(query.order_by(table.c.job)))
    return [job for job in waiting if send(store, tx, job, name, payload, by=by)]


def _sent(store: Store, tx: Connection, job: str, name: str) -> Row | None:
    table = schema.signal
    return tx.execute(
        sa.select(table).where(table.c.workspace == store.workspace, table.c.job == job, table.c.name == name)
    ).first()
