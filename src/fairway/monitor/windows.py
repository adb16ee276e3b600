"""Windows: spans of predictions with their profiles. They grow while segments are folded and close once, later."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.monitor import reference
from fairway.monitor.reference import ColumnBins, window_start
from fairway.stats.profiles import CategoricalProfile, NumericProfile, merge, profile_from_dict
from fairway.store import schema
from fairway.store.base import Row, Store

GRACE = timedelta(hours=1)  # for segments still on their way when the window ends


def observe(store: Store, tx: Connection, predictions: Sequence[Mapping[str, Any]]) -> None:
    """Add newly folded predictions (with `inputs` and `looked_up`) to the windows of their models.

    Only the model's own endpoint counts, and only after a reference is installed: without bins there is no profile.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for prediction in predictions:
        if prediction["endpoint"] == prediction["model"]:
            groups[(prediction["model"], prediction["contract"])].append(prediction)
    for (model, contract), mine in sorted(groups.items()):
        found = reference.installed(store, tx, model, contract)
        if found is None:
            continue
        current, references = found
        length = timedelta(seconds=references[current]["window_s"])
        by_start: dict[datetime, list[Mapping[str, Any]]] = defaultdict(list)
        for prediction in mine:
            by_start[window_start(prediction["at"], length)].append(prediction)
        for start, rows in sorted(by_start.items()):
            _add(store, tx, model, contract, start, length, rows, current, references)


def _add(
    store: Store, tx: Connection, model: str, contract: str, start: datetime, length: timedelta,
    rows: Sequence[Mapping[str, Any]], current: str, references: Mapping[str, Any],
) -> None:  # fmt: skip
    table = schema.window
    key = {"workspace": store.workspace, "model": model, "contract": contract, "start_at": start}
    where = sa.and_(*(table.c[name] == value for name, value in key.items()))
    row = tx.execute(sa.select(table).where(where)).first()
    mark = current if row is None else row.profile["reference"]
    if mark not in references:
        return  # bins of a version long gone: its window is too old to be judged
    added = profiles(references[mark], rows)
    first = clock.iso(min(p["at"] for p in rows))
    if row is None:
        profile = {"reference": mark, "first": first, "columns": added}
        tx.execute(sa.insert(table).values(**key, end_at=start + length, rows=len(rows), profile=profile))
        return
    merged = {name: merged_profile(row.profile["columns"][name], new) for name, new in added.items()}
    profile = {"reference": mark, "first": min(first, row.profile["first"], key=clock.parse_iso), "columns": merged}
    tx.execute(sa.update(table).where(where).values(rows=row.rows + len(rows), profile=profile))


def profiles(made: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Profile of each watched column over these predictions; a column they lack counts as null."""
    result, ats = {}, [p["at"] for p in rows]
    for name, column in made["columns"].items():
        values = [p["inputs"][name] if name in p["inputs"] else p["looked_up"].get(name) for p in rows]
        result[name] = ColumnBins.from_dict(column).profile(values, ats)
    return result


def merged_profile(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    """Profile of both together, JSON form."""
    a, b = profile_from_dict(one), profile_from_dict(two)
    if isinstance(a, NumericProfile) and isinstance(b, NumericProfile):
        return merge(a, b).as_dict()
    if isinstance(a, CategoricalProfile) and isinstance(b, CategoricalProfile):
        return merge(a, b).as_dict()
    raise ValueError(f"profiles of different kinds: {one['kind']} and {two['kind']}")


def due(store: Store, tx: Connection, now: datetime) -> list[Row]:
    """Windows that are over and not closed yet, in order of time."""
    table = schema.window
    return list(
        tx.execute(
            sa.select(table)
            .where(table.c.workspace == store.workspace, table.c.closed_at.is_(None), table.c.end_at <= now - GRACE)
            .order_by(table.c.start_at, table.c.model, table.c.contract)
        )
    )


def again(store: Store, tx: Connection, row: Row) -> Row:
    """The row as it is in this transaction: another machine's worker may have closed or measured the window."""
    table = schema.window
    return tx.execute(
        sa.select(table).where(
            table.c.workspace == store.workspace, table.c.model == row.model, table.c.contract == row.contract,
            table.c.start_at == row.start_at,
        )
    ).one()  # fmt: skip


def is_whole(row: Row, earlier: Sequence[Row]) -> bool:
    """False for the very first window when traffic began in its midst: half a day is no day."""
    length: timedelta = row.end_at - row.start_at
    return bool(earlier) or clock.parse_iso(row.profile["first"]) < row.start_at + length / 10


def before(store: Store, tx: Connection, row: Row, *, limit: int) -> list[Row]:
    """Judged windows of the same model and contract before `row`, newest last."""
    table = schema.window
    found = tx.execute(
        sa.select(table)
        .where(
            table.c.workspace == store.workspace, table.c.model == row.model, table.c.contract == row.contract,
            table.c.start_at < row.start_at, table.c.closed_at.is_not(None),
        )
        .order_by(table.c.start_at.desc())
        .limit(limit)
    ).all()  # fmt: skip
    return list(reversed(found))


def update(store: Store, tx: Connection, row: Row, **values: Any) -> None:
    table = schema.window
    tx.execute(
        sa.update(table)
        .where(
            table.c.workspace == store.workspace, table.c.model == row.model, table.c.contract == row.contract,
            table.c.start_at == row.start_at,
        )
        .values(**values)
    )  # fmt: skip
