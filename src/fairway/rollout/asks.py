"""Reviews as records: a question to a person. What an answer does is decided where it is answered (fleet.reviews)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway.store import audit, schema, signals
from fairway.store.base import Row, Store

Kind = Literal["approve", "retrain", "rollout", "source"]


def open_review(
    store: Store,
    tx: Connection,
    *,
    model: str,
    kind: Kind,
    subject: str,
    question: str,
    evidence: Mapping[str, Any],
    choices: Mapping[str, str],
    assignee: str,
    now: datetime,
    not_by: str | None = None,
    due_at: datetime | None = None,
) -> str:
    """Ask; or, when the same question (model, kind, subject) is open, bring its evidence up to date.

    choices: answer -> what it does. The last one is what happens when nobody answers by `due_at`.
    """
    found = open_reviews(store, tx, model=model, kind=kind, subject=subject)
    table = schema.review
    if found:
        where = sa.and_(table.c.workspace == store.workspace, table.c.review == found[0].review)
        tx.execute(
            sa.update(table).where(where).values(question=question, evidence=dict(evidence), choices=dict(choices))
        )
        if (found[0].question, found[0].choices) != (question, dict(choices)):
            # Who answers must have seen what was asked last.
            audit.record(
                store, tx, actor="fairway", action="review.change", subject=found[0].review, question=question,
                choices=list(choices),
            )  # fmt: skip
        return str(found[0].review)
    name = f"review-{store.next_number(tx, 'review')}"
    tx.execute(
        sa.insert(table).values(
            workspace=store.workspace, review=name, model=model, kind=kind, subject=subject, question=question,
            evidence=dict(evidence), choices=dict(choices), assignee=assignee, not_by=not_by, opened_at=now,
            due_at=due_at,
        )
    )  # fmt: skip
    audit.record(store, tx, actor="fairway", action="review.open", subject=name, model=model, about=subject)
    return name


def open_reviews(
    store: Store, tx: Connection, *, model: str | None = None, kind: str | None = None, subject: str | None = None
) -> list[Row]:
    """Unanswered reviews, oldest first."""
    table = schema.review
    query = sa.select(table).where(table.c.workspace == store.workspace, table.c.answered_at.is_(None))
    for column, value in ((table.c.model, model), (table.c.kind, kind), (table.c.subject, subject)):
        if value is not None:
            query = query.where(column == value)
    return list(tx.execute(query.order_by(table.c.opened_at, sa.func.length(table.c.review), table.c.review)))


def withdraw(store: Store, tx: Connection, *, subject: str, now: datetime, why: str) -> None:
    """Close the open reviews about `subject`, which has been settled another way."""
    for row in open_reviews(store, tx, subject=subject):
        record_answer(store, tx, row.review, answer="withdrawn", actor="fairway", why=why, now=now)


def answered(review: str) -> str:
    """The signal that a job may wait for: it comes with the answer, as {"answer", "by"}, in the same transaction."""
    return f"answer to {review}"


def answer_of(store: Store, tx: Connection, review: str) -> dict[str, Any] | None:
    """What the signal `answered` says or will say; None while the review is open."""
    table = schema.review
    where = sa.and_(table.c.workspace == store.workspace, table.c.review == review, table.c.answered_at.is_not(None))
    row = tx.execute(sa.select(table.c.answer, table.c.answered_by).where(where)).first()
    return None if row is None else {"answer": row.answer, "by": row.answered_by}


def record_answer(
    store: Store, tx: Connection, review: str, *, answer: str, actor: str, why: str | None, now: datetime
) -> None:
    table = schema.review
    tx.execute(
        sa.update(table)
        .where(table.c.workspace == store.workspace, table.c.review == review)
        .values(answer=answer, answered_by=actor, answered_at=now, why=why)
    )
    audit.record(store, tx, actor=actor, action="review.answer", subject=review, answer=answer, why=why)
    signals.send_to_waiting(store, tx, answered(review), {"answer": answer, "by": actor}, by=actor)
