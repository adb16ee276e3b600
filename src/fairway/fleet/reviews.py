"""Reviews answered: who may, what is recorded, and what the answer does, in one transaction."""

from collections.abc import Collection
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.errors import NotAllowed, Refused, ThingNotFound, UsageError
from fairway.fleet import retrain
from fairway.monitor import alarms
from fairway.path import source_hold
from fairway.rollout import asks, controller
from fairway.rollout.asks import open_review
from fairway.store import jobs, schema
from fairway.store.base import Row, Store

__all__ = ["answer", "due", "open_review"]

NOBODY = "fairway"  # answers for those who did not by the due time


def answer(
    store: Store,
    review: str,
    choice: str,
    *,
    actor: str,
    now: datetime | None = None,
    why: str | None = None,
    roles: Collection[str] | None = None,
) -> None:
    """Record an answer and do what it says.

    roles: of the answering token; None when the caller has checked them. An approval needs `approver` and, when the
    review says so, another person than the version's author.
    Raises: ThingNotFound, UsageError for an unknown choice, Refused when it was answered, NotAllowed.
    """
    at = now or clock.now()
    with store.write() as tx:
        row = _find(store, tx, review)
        if row.answered_at is not None:
            raise Refused(f"{review} was answered already: {row.answer}, by {row.answered_by}")
        if choice not in row.choices:
            raise UsageError(f"{review} can't be answered {choice!r}; choices: {', '.join(row.choices)}")
        if row.not_by is not None and actor == row.not_by:
            raise NotAllowed(f"refused: {actor} is the author of {row.evidence.get('version', row.subject)}; "
                             "another person must answer")  # fmt: skip
        if row.kind == "approve" and roles is not None and "approver" not in roles:
            raise NotAllowed(f"refused: {review} needs the role approver, and {actor} has {', '.join(sorted(roles))}")
        if row.kind == "approve" and choice == "approve" and not why:
            raise UsageError(f"{review}: an approval needs a reason; add --why")
        asks.record_answer(store, tx, review, answer=choice, actor=actor, why=why, now=at)
        _do(store, tx, row, choice, actor=actor, why=why, now=at)


def due(store: Store, now: datetime) -> bool:
    """Take the standing answer of reviews whose time is over: the last choice, the cautious one."""
    table = schema.review
    with store.read() as tx:
        names = tx.scalars(
            sa.select(table.c.review)
            .where(table.c.workspace == store.workspace, table.c.answered_at.is_(None), table.c.due_at <= now)
            .order_by(table.c.due_at, sa.func.length(table.c.review), table.c.review)
        ).all()
    for name in names:
        with store.write() as tx:
            row = _find(store, tx, name)
            if row.answered_at is not None:
                continue  # answered, or settled by the one before
            choice = list(row.choices)[-1]
            asks.record_answer(store, tx, name, answer=choice, actor=NOBODY, why="nobody answered in time", now=now)
            _do(store, tx, row, choice, actor=NOBODY, why="nobody answered in time", now=now)
    return bool(names)


def _find(store: Store, tx: Connection, review: str) -> Row:
    table = schema.review
    row = tx.execute(sa.select(table).where(table.c.workspace == store.workspace, table.c.review == review)).first()
    if row is None:
        raise ThingNotFound(f"no {review}; see them with: fairway show reviews")
    return row


def _do(store: Store, tx: Connection, row: Row, choice: str, *, actor: str, why: str | None, now: datetime) -> None:
    if row.kind == "approve":
        if choice == "approve":
            controller.approve(store, tx, row.subject, actor=actor, now=now)
        else:
            waiting = controller.find(store, tx, row.subject)
            controller.rollback_row(store, tx, waiting, why=why or "rejected", actor=actor, now=now)
    elif row.kind == "rollout":
        _about_rollout(store, tx, row, choice, actor=actor, why=why, now=now)
    elif row.kind == source_hold.KIND:
        source_hold.answered(store, tx, row, choice, now=now)
    else:
        _about_retraining(store, tx, row, choice, actor=actor, why=why, now=now)


def _about_rollout(
    store: Store, tx: Connection, row: Row, choice: str, *, actor: str, why: str | None, now: datetime
) -> None:
    rollout = controller.find(store, tx, row.subject)
    if choice == "continue":
        controller.waive(store, tx, row.subject, row.evidence["rule"], actor=actor, now=now, why=why)
    elif choice == "promote":
        controller.finish_row(store, tx, rollout, why=why or "answered: promote", actor=actor, now=now)
    else:
        controller.rollback_row(store, tx, rollout, why=why or "answered: rollback", actor=actor, now=now)


def _about_retraining(
    store: Store, tx: Connection, row: Row, choice: str, *, actor: str, why: str | None, now: datetime
) -> None:
    if choice == "retrain":
        retrain.submit(store, tx, row.model, cause=row.review)
    elif choice == "deploy":
        payload = {"model": row.model, "version": row.evidence["version"], "cause": row.review}
        job = jobs.submit(store, tx, kind="deploy", key=row.model, payload=payload)
        if job is None and actor != NOBODY:
            raise Refused(f"another deployment of {row.model} is under way or waits for a person: fairway show jobs")
    elif choice == "rollback":
        controller.rollback_in(store, tx, row.model, why=why or f"answer to {row.review}", actor=actor, now=now)
    # Nobody's answer closes no alarm: it stays to be seen, and its question is not asked again by more retrains.
    if choice in ("keep", "rollback") and row.subject.startswith("alarm-") and actor != NOBODY:
        alarms.close(store, tx, row.subject, now=now, why=f"{row.review}: {choice}")
