"""The audit log: append-only entries, each holding the hash of the one before.

Whatever changes production or access records an entry in its own transaction. A changed, removed or moved entry is
found by walking the chain; a tail that was cut off or written anew, only with a signed head kept elsewhere
(`store.heads`).
"""

import json
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock, fingerprint
from fairway.store import schema
from fairway.store.base import Row, Store

GENESIS = "0" * 64
_PIECE = 2_000  # rows in memory at once


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
        "previous": last.hash if last else GENESIS,
    }
    tx.execute(sa.insert(table).values(**entry, hash=_digest(entry)))
    store.announce(tx)  # what is audited changes production or access: supervisors look at once


@dataclass(frozen=True)
class Chain:
    """What a walk over the whole chain found.

    entries: how many are whole, from the first on. last: hash of the newest of them. broken_at: number of the first
    entry that is missing, out of order or changed; None when none is. hashes: of the entries that were asked for.
    """

    entries: int
    last: str
    broken_at: int | None
    hashes: Mapping[int, str] = field(default_factory=dict)


def walk(store: Store, *, at: Collection[int] = ()) -> Chain:
    """Check every entry against its own hash and the one before. Memory stays small whatever the length.

    at: numbers of entries whose hashes are wanted, to compare them with signed heads.
    """
    previous, count = GENESIS, 0
    hashes: dict[int, str] = {}
    with closing(_raw(store)) as rows:  # it may end early, and a cursor on a server must not stay open
        for raw in rows:
            if not _follows(raw, count + 1, previous):
                return Chain(count, previous, count + 1, hashes)
            previous, count = raw["hash"], count + 1
            if count in at:
                hashes[count] = previous
    return Chain(count, previous, None, hashes)


def verify(store: Store) -> int | None:
    """The number of the first entry that is missing, out of order or changed; None when the chain is whole.

    A tail that was cut off is not found here: that needs a copy of the head kept elsewhere.
    """
    return walk(store).broken_at


def entries(store: Store, *, subject: str | None = None) -> list[Row]:
    table = schema.audit
    query = sa.select(table).where(table.c.workspace == store.workspace).order_by(table.c.entry)
    if subject is not None:
        query = query.where(table.c.subject == subject)
    with store.read() as tx:
        return list(tx.execute(query))


def lines(store: Store) -> Iterator[bytes]:
    """Every entry as a line of JSON that can be checked without fairway: `hash` is the SHA-256 of the rest's canonical
    form (sorted keys, no spaces, UTF-8)."""
    for raw in _raw(store):
        yield fingerprint.canonical(_entry(raw) | {"hash": raw["hash"]}) + b"\n"


def _raw(store: Store) -> Generator[dict[str, Any], None, None]:
    """Rows as they lie in the table: a changed one may hold what is neither a time nor JSON."""
    table = schema.audit
    columns = [
        sa.cast(c, sa.Text).label(c.name)
        if c.name == "detail"
        else sa.type_coerce(c, sa.BigInteger if c.name == "at" else c.type).label(c.name)
        for c in table.columns
    ]
    query = sa.select(*columns).where(table.c.workspace == store.workspace).order_by(table.c.entry)
    with store.read() as tx, tx.execute(query.execution_options(yield_per=_PIECE)) as rows:
        for row in rows:
            yield dict(row._mapping)


def _entry(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What is hashed. Raises: ValueError, TypeError, OverflowError for what `record` never wrote."""
    kept = {name: value for name, value in raw.items() if name != "hash"}
    return kept | {"at": clock.iso(clock.from_us(raw["at"])), "detail": json.loads(raw["detail"])}


def _follows(raw: Mapping[str, Any], number: int, previous: str) -> bool:
    try:
        digest = fingerprint.of_value(_entry(raw))
    except (ValueError, TypeError, OverflowError):
        return False
    return bool(raw["entry"] == number and raw["previous"] == previous and digest == raw["hash"])


def _digest(entry: dict[str, Any]) -> str:
    return fingerprint.of_value({**entry, "at": clock.iso(entry["at"])})
