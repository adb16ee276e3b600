"""Erasing from the prediction log: Parquet, index, labels, the units that rollouts counted, events of sources."""

from collections.abc import Callable, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway.errors import ThingNotFound
from fairway.keep.erasure_work import Work, chunks, overwrite
from fairway.keep.rewrite import parquet_without
from fairway.store import schema
from fairway.store.base import Row

Forget = Callable[[str, str, str], int]  # source, column, value -> events that were forgotten online


def log(work: Work) -> None:
    """Parquet, index and labels, file by file; then index rows whose file is gone already."""
    files = schema.log_file
    hours = _hours(work)
    with work.store.read() as tx:
        rows = tx.execute(
            sa.select(files)
            .where(
                files.c.workspace == work.store.workspace, files.c.kind == "prediction",
                files.c.model == work.model,
            )
            .order_by(files.c.hour, files.c.blob)
        ).all()  # fmt: skip
    columns = ("entity", "unit", f"in_{work.column}") if work.by_entity else ()
    ids = () if work.by_entity else (str(work.prediction),)
    for row in rows:
        if row.hour in hours:
            rewrite_file(work, row, columns, ids)
    _index(work)


def _hours(work: Work) -> set[datetime]:
    """Full hours in which the index knows the entity."""
    with work.store.read() as tx:
        times = tx.scalars(sa.select(schema.prediction.c.at).where(_mine(work))).all()
    if not work.by_entity and not times and not work.resumed:
        raise ThingNotFound(f"no prediction {work.prediction!r} of {work.model} in the log")
    return {at.replace(minute=0, second=0, microsecond=0) for at in times}


def _mine(work: Work) -> sa.ColumnElement[bool]:
    table = schema.prediction
    what = table.c.unit.in_(work.person.forms) if work.by_entity else table.c.prediction == work.prediction
    return sa.and_(table.c.workspace == work.store.workspace, table.c.model == work.model, what)


def rewrite_file(work: Work, row: Row, columns: Sequence[str], ids: Sequence[str]) -> None:
    found = parquet_without(work.workspace.blobs.get(row.blob), work.person, columns, ids)
    if found.data is None:
        return
    work.count("rows of the log" if row.kind == "prediction" else f"events of {row.model}", found.gone)
    if work.dry_run:
        return
    blob = work.workspace.blobs.put(found.data) if found.rows else None
    files = schema.log_file
    with work.store.write() as tx:
        mine = sa.and_(files.c.workspace == work.store.workspace, files.c.blob == row.blob)
        if tx.execute(sa.delete(files).where(mine)).rowcount == 0:
            return  # dropped meanwhile
        if blob is not None:
            again = {**row._mapping, "blob": blob, "rows": found.rows}
            work.store.insert_new(tx, files, again)
        _forget_predictions(work, tx, found.ids)
        work.doomed.add(row.blob)
        work.note(tx)


def _index(work: Work) -> None:
    """Rows of the index without a file: their hour was rewritten before, or dropped."""
    with work.store.write() if not work.dry_run else work.store.read() as tx:
        ids = tx.scalars(sa.select(schema.prediction.c.prediction).where(_mine(work))).all()
        if work.dry_run:
            labels = schema.label
            for chunk in chunks(ids):
                where = sa.and_(labels.c.workspace == work.store.workspace, labels.c.prediction.in_(chunk))
                n = tx.scalar(sa.select(sa.func.count()).select_from(labels).where(where))
                work.count("labels", int(n or 0))
        elif ids:
            _forget_predictions(work, tx, ids)
            work.note(tx)


def _forget_predictions(work: Work, tx: Connection, ids: Sequence[str]) -> None:
    overwrite(tx)
    for chunk in chunks(ids):
        for table, what in ((schema.label, "labels"), (schema.prediction, "predictions")):
            where = sa.and_(table.c.workspace == work.store.workspace, table.c.prediction.in_(chunk))
            work.count(what, tx.execute(sa.delete(table).where(where)).rowcount)


def units(work: Work) -> None:
    """Which entities a rollout has counted: the counts stay, the names go."""
    table, rollouts = schema.rollout_unit, schema.rollout
    ours = sa.select(rollouts.c.rollout).where(
        rollouts.c.workspace == work.store.workspace, rollouts.c.model == work.model
    )
    mine = sa.and_(
        table.c.workspace == work.store.workspace, table.c.rollout.in_(ours), table.c.unit.in_(work.person.forms)
    )
    if work.dry_run:
        with work.store.read() as tx:
            n = tx.scalar(sa.select(sa.func.count()).select_from(table).where(mine))
        work.count("units of rollouts", int(n or 0))
        return
    with work.store.write() as tx:
        overwrite(tx)
        work.count("units of rollouts", tx.execute(sa.delete(table).where(mine)).rowcount)
        work.note(tx)


def sources(work: Work, forget: Forget) -> None:
    """Events about the entity: of the model's source tables that have its column."""
    files = schema.log_file
    for source in work.settings.get("sources") or {}:
        with work.store.read() as tx:
            rows = tx.execute(
                sa.select(files).where(
                    files.c.workspace == work.store.workspace, files.c.kind == "source", files.c.model == source
                )
            ).all()
        for row in rows:
            rewrite_file(work, row, (str(work.column),), ())
        if not work.dry_run:
            work.count("events online", forget(source, str(work.column), work.person.value))
