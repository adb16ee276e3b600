"""A workspace's rows as they are, from one store to another: in pieces, in the order of their keys, and summed.

The sum of a table is its number of rows and the sum of their hashes, so it does not depend on their order and can be
had from either engine. The gateways' heartbeats are of the moment and belong to nobody's history.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.store import closed, schema

CHUNK = 1000
PROGRESS = "move"  # of table meta, at the destination: how far a move has come
OWN_KEYS = (closed.KEY, PROGRESS)  # what the meta table says of this very store
_MODULUS = 2**256


@dataclass(frozen=True)
class Sum:
    """What a table holds: equal sums mean equal rows."""

    rows: int
    hash: str


def tables() -> list[sa.Table]:
    """Those that a workspace's history is in."""
    return [table for table in schema.metadata.sorted_tables if table is not schema.gateway]


def count(tx: Connection, table: sa.Table, workspace: str) -> int:
    return int(tx.scalar(sa.select(sa.func.count()).select_from(table).where(*_mine(table, workspace))) or 0)


def chunks(
    tx: Connection, table: sa.Table, workspace: str, *, after: Sequence[Any] | None = None, size: int = CHUNK
) -> Iterator[list[dict[str, Any]]]:
    """All rows in the order of their keys, from the first one after the key `after` (see `key_of`).

    A JSON column without a value (SQL's null) is `sqlalchemy.null()`, one that holds JSON's null is None: both come
    back as they were when they are inserted.
    """
    keys = [column for column in table.primary_key if column.name != "workspace"]
    unset = [column for column in table.columns if _is_json(column) and column.nullable]
    marks = [column.is_(sa.null()).label(f"{column.name}__unset") for column in unset]
    query = sa.select(*table.columns, *marks).where(*_mine(table, workspace)).order_by(*keys).limit(size)
    while True:
        piece = query
        if after is not None:
            bound = [sa.bindparam(None, _restored(c, v), type_=c.type) for c, v in zip(keys, after, strict=True)]
            piece = query.where(sa.tuple_(*keys) > sa.tuple_(*bound))
        rows = [dict(row._mapping) for row in tx.execute(piece)]
        for row in rows:
            for column in unset:
                if row.pop(f"{column.name}__unset"):
                    row[column.name] = sa.null()
        if rows:
            yield rows
        if len(rows) < size:
            return
        after = key_of(table, rows[-1])


def key_of(table: sa.Table, row: dict[str, Any]) -> list[Any]:
    """A row's key within its workspace, as JSON can hold it."""
    values = (row[column.name] for column in table.primary_key if column.name != "workspace")
    return [clock.to_us(value) if isinstance(value, datetime) else value for value in values]


def insert(tx: Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    """Rows of another store, none of which is there yet."""
    tx.execute(sa.insert(table), rows)


def sum_of(tx: Connection, table: sa.Table, workspace: str) -> Sum:
    total = rows = 0
    for piece in chunks(tx, table, workspace):
        rows += len(piece)
        total = (total + sum(_hash(table, row) for row in piece)) % _MODULUS
    return Sum(rows, f"{total:064x}")


def clear(tx: Connection, workspace: str) -> None:
    """Delete the workspace's rows, what the store says of itself too."""
    for table in reversed(schema.metadata.sorted_tables):
        tx.execute(sa.delete(table).where(table.c.workspace == workspace))


def _mine(table: sa.Table, workspace: str) -> list[Any]:
    where: list[Any] = [table.c.workspace == workspace]
    if table is schema.meta:
        where.append(table.c.key.notin_(OWN_KEYS))
    return where


def _is_json(column: sa.Column[Any]) -> bool:
    return isinstance(column.type, schema.JSON)


def _restored(column: sa.Column[Any], value: Any) -> Any:
    return clock.from_us(value) if isinstance(column.type, schema.Timestamp) else value


def _hash(table: sa.Table, row: dict[str, Any]) -> int:
    values = [_plain(row[column.name]) for column in table.columns if column.name != "workspace"]
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return clock.to_us(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)  # SQLite keeps the JSON number 1.0 as 1
    return ["unset"] if isinstance(value, sa.sql.elements.Null) else value
