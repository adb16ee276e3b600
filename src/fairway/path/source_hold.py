"""A table that is late, empty or shrunk holds training, and its owner is asked once."""

from collections.abc import Callable
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.data.project import Project
from fairway.data.source_state import DATA, Look, troubles
from fairway.errors import SourceHeld
from fairway.rollout import asks
from fairway.store import schema
from fairway.store.base import Row, Store

KIND = "source"
CHOICES = {
    "accept": "train on the table as it is, and take it as the new measure",
    "wait": "go on holding; training goes on by itself when the table is as before",
}
OK, HELD, ACCEPTED = "ok", "held", "accepted"


def holder(project: Project, *, now: datetime) -> Callable[[Look], None]:
    """What `snapshot` and `source_events` call with what they read: notes it, or raises SourceHeld."""

    def seen(look: Look) -> None:
        note(project, look, now=now)

    return seen


def note(project: Project, look: Look, *, now: datetime) -> None:
    """Remember a table that is as it should be; ask about one that is not. Raises: SourceHeld."""
    store, model = project.workspace.store, project.settings.name
    with store.write() as tx:
        state = _state(store, tx, model, look.source)
        before = state if state is not None and state.content.startswith(f"{look.place}:") else None
        wrong = troubles(look, before, now)
        accepted = before is not None and before.state == ACCEPTED and before.content == look.key
        if not wrong or accepted:
            if state is not None and state.state == HELD and state.review is not None:
                asks.withdraw(store, tx, subject=_subject(model, look.source), now=now, why="it is as before again")
            _keep(store, tx, model, look, now, rows=look.rows, state=ACCEPTED if accepted and wrong else OK)
            return
        review, said = _ask(store, tx, model, look, before, wrong, now)
        # What is measured against stays that of the last table that was used.
        _keep(store, tx, model, look, now, rows=before.rows if before else look.rows, state=HELD, review=review)
    raise SourceHeld(said, review=review)


def answered(store: Store, tx: Connection, row: Row, choice: str, *, now: datetime) -> None:
    """What an answer to such a review does: the table, as it was last read, is accepted."""
    if choice != "accept":
        return
    found, table = row.evidence, schema.source_state
    values = {
        "rows": found["rows"],
        "newest": None if found["newest"] is None else clock.parse_iso(found["newest"]),
        "read_at": now,
        "state": ACCEPTED,
        "review": row.review,
    }
    where = sa.and_(table.c.workspace == store.workspace, table.c.model == row.model, table.c.source == found["source"])
    tx.execute(sa.update(table).where(where).values(**values))


def held(store: Store, tx: Connection, model: str) -> bool:
    """Whether a table of this model is being asked about."""
    table = schema.source_state
    found = sa.select(table.c.source).where(
        table.c.workspace == store.workspace, table.c.model == model, table.c.state == HELD
    )
    return tx.execute(found.limit(1)).first() is not None


def _ask(
    store: Store, tx: Connection, model: str, look: Look, before: Row | None, wrong: list[str], now: datetime
) -> tuple[str, str]:
    """The review, opened unless the same state of the table was answered already, and the sentence for a person."""
    what = f"The training table ({look.name})" if look.source == DATA else f"Source {look.source} ({look.name})"
    said = f"{what} {' and '.join(wrong)}."
    same = before is not None and before.state == HELD and before.content == look.key and before.review is not None
    row = _review(store, tx, before.review) if same and before is not None else None
    if row is not None and row.answered_at is not None:
        who = row.answered_by or "somebody"
        return row.review, (
            f"{said}\n{row.review} was answered {row.answer} by {who}; training goes on when the table changes."
        )
    review = asks.open_review(
        store, tx, model=model, kind="source", subject=_subject(model, look.source),
        question=f"{said} Train on it as it is?",
        evidence={
            "source": look.source, "file": look.name, "rows": look.rows,
            "rows_before": before.rows if before is not None else None,
            "newest": None if look.newest is None else clock.iso(look.newest), "reasons": wrong,
        },
        choices=CHOICES, assignee=look.owner, now=now,
    )  # fmt: skip
    return review, (
        f"{said}\nNothing was trained; {look.owner} is asked ({review}). Train on it as it is: "
        f"fairway answer {review} accept"
    )


def _subject(model: str, source: str) -> str:
    return f"{model}/{source}"


def _state(store: Store, tx: Connection, model: str, source: str) -> Row | None:
    table = schema.source_state
    return tx.execute(
        sa.select(table).where(table.c.workspace == store.workspace, table.c.model == model, table.c.source == source)
    ).first()


def _keep(
    store: Store, tx: Connection, model: str, look: Look, now: datetime, *, rows: int, state: str,
    review: str | None = None,
) -> None:  # fmt: skip
    row = {
        "workspace": store.workspace, "model": model, "source": look.source, "rows": rows, "newest": look.newest,
        "read_at": now, "content": look.key, "state": state, "review": review,
    }  # fmt: skip
    store.upsert(tx, schema.source_state, row)


def _review(store: Store, tx: Connection, review: str) -> Row | None:
    table = schema.review
    return tx.execute(sa.select(table).where(table.c.workspace == store.workspace, table.c.review == review)).first()
