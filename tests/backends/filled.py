"""A workspace with something in every table and among the blobs, as awkward as the types allow."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from fairway.store import audit, schema, transfer
from fairway.store.workspace import Workspace

MOMENT = datetime(2026, 3, 29, 1, 59, 59, 999_999, tzinfo=UTC)
_JSON: list[Any] = [
    {"b": [1, 2.5, None, "é\u2028 \0 \" ' \\"], "a": {}}, [], 1.0, -0.0, 1e300, 0.1 + 0.2, 12345678901234, "text", True,
    "5", float("inf"),
]  # fmt: skip


def fill(workspace: Workspace, *, rows: int = 12, blobs: int = 9, seed: int = 0) -> None:
    """rows: in each table. The audit log is a real chain."""
    rng = random.Random(seed)
    store = workspace.store
    with store.write() as tx:
        for table in schema.metadata.sorted_tables:
            if table in (schema.audit, schema.meta):
                continue
            values = [
                {c.name: _value(c, n, rng) for c in table.columns} | {"workspace": store.workspace} for n in range(rows)
            ]
            store.insert_new(tx, table, values)
        for number in range(rows):
            audit.record(store, tx, actor="a", action="x", subject=f"s{number}", detail_of=rng.choice(_JSON[:-1]))
    digests = [workspace.blobs.put(rng.randbytes(rng.choice([0, 1, 1000, 100_000]) + n)) for n in range(blobs)]
    with store.write() as tx:
        tx.execute(sa.delete(schema.dataset))
        tx.execute(sa.delete(schema.log_file))
        tx.execute(sa.delete(schema.version))
        named = {"workspace": store.workspace, "kind": "prediction", "model": "m", "contract": "c", "hour": MOMENT}
        tx.execute(sa.insert(schema.log_file), [{**named, "blob": d, "rows": 1, "segment": "s"} for d in digests])


def _value(column: sa.Column[Any], number: int, rng: random.Random) -> Any:
    if isinstance(column.type, schema.Timestamp):
        return MOMENT + timedelta(microseconds=number * 7_777_777)
    if isinstance(column.type, schema.JSON):
        if column.nullable and number % 3 == 0:
            return sa.null() if number % 2 else None
        return _JSON[number % len(_JSON)]
    if column.nullable and number % 4 == 0:
        return None
    if isinstance(column.type, sa.Boolean):
        return number % 2 == 0
    if isinstance(column.type, sa.Float):
        return rng.choice([0.1, -1.5, 1e-300, 1e300, 3.0, 2.0**53])
    if isinstance(column.type, sa.Integer):
        return number
    return f"{column.name} {number} é\N{SNOWMAN} ' \" \\ {'Z' if number % 2 else 'a'} \0"


def sums(workspace: Workspace) -> dict[str, transfer.Sum]:
    """Of every table but the two that a move writes to."""
    with workspace.store.read() as tx:
        return {
            table.name: transfer.sum_of(tx, table, workspace.name)
            for table in transfer.tables()
            if table not in (schema.audit, schema.meta)
        }
