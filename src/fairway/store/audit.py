"""The audit log: append-only entries, each holding the hash of the one before."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock, fingerprint
from fairway.store import schema
from fairway.store.base import Row, Store

_GENESIS = "0" * 64


def record(store: Store, tx: Connection, *, actor: str, action: str, subject: str, **detail: Any) -> None:
    """Append an entry within the caller's transaction, so that what happened and its entry commit together."""
    table = schema.audit
    last = tx.execute(
        sa.select(table.c.entry, table.c.hash)
        .where(table.c.workspace == store.workspace)
        .order_by(table.c.entry.desc())
        .limit(1)
    ).first()
    entry = {
        "workspace": store.workspace,
        "entry": last.entry + 1 if last else 1,
        "at": clock.now(),
        "actor": actor,
        "action": action,
        "subject": subject,
        "detail": detail,
        "previous": last.hash if last else _GENESIS,
    }
    tx.execute(sa.insert(table).values(**entry, hash=_digest(entry)))


def verify(store: Store) -> int | None:
    """The number of the first entry that is missing, out of order or changed; None when the chain is whole.

    A tail that was cut off is not found here: that needs a copy of the head kept elsewhere.
    """
    table, previous, expected = schema.audit, _GENESIS, 1
    with store.read() as tx:
        rows = tx.execute(sa.select(table).where(table.c.workspace == store.workspace).order_by(table.c.entry))
        for row in rows:
            entry = dict(row._mapping)
            digest = entry.pop("hash")
            if entry["entry"] != expected or entry["previous"] != previous or _digest(entry) != digest:
                return expected
            previous, expected = digest, expected + 1
    return None


def entries(store: Store, *, subject: str | None = None) -> list[Row]:
    table = schema.audit
    query = sa.select(table).where(table.c.workspace == store.workspace).order_by(table.c.entry)
    if subject is not None:
        query = query.where(table.c.subject == subject)
    with store.read() as tx:
        return list(tx.execute(query))


def _digest(entry: dict[str, Any]) -> str:
    return fingerprint.of_value({**entry, "at": clock.iso(entry["at"])})
