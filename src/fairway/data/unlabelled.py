"""Rows whose answer nobody knows yet: of the table, and of the newest predictions in the log."""

from datetime import datetime

import polars as pl

from fairway.contract.columns import Column
from fairway.contract.table import apply, dtype_of
from fairway.data import log
from fairway.data.project import Project
from fairway.data.source import read_table

MOST = 5_000
WHERE = "_where"  # the table's row, or the prediction's id: how a person finds it again


def unlabelled_rows(project: Project, *, until: datetime) -> pl.DataFrame:
    """At most 5,000 typed rows with the contract's request columns and "_where" ("row 12", "p-…"); maybe none.

    Rows of the log that lack a value which the contract asks for (hashed or dropped there) are left out.
    """
    columns = project.contract.request_columns
    found = [frame for frame in (_of_log(project, columns, until), _of_table(project, columns)) if frame.height]
    empty = pl.DataFrame(schema={c.name: dtype_of(c) for c in columns} | {WHERE: pl.String})
    return pl.concat(found).head(MOST) if found else empty


def _of_table(project: Project, columns: tuple[Column, ...]) -> pl.DataFrame:
    target = project.contract.column(project.settings.target)
    raw = read_table(project.settings.data, project.root)
    frame = raw.frame.with_row_index(WHERE, offset=1)
    missing = pl.col(target.name).is_null()
    if target.null_values and raw.frame.schema[target.name] == pl.String:
        missing |= pl.col(target.name).is_in(list(target.null_values))
    rows = frame.filter(missing).tail(MOST)
    typed = apply(rows.drop(WHERE, target.name), columns, file=raw.name).frame
    return typed.with_columns(pl.concat_str(pl.lit("row "), rows[WHERE].cast(pl.String)).alias(WHERE))


def _of_log(project: Project, columns: tuple[Column, ...], until: datetime) -> pl.DataFrame:
    settings = project.settings
    logged = log.predictions(project.workspace, settings.name, until=until)
    logged = logged.filter(pl.col("label").is_null()).sort("at").tail(MOST)
    made: list[pl.Series] = []
    for column in columns:
        name = "at" if column.role == "at" else f"in_{column.name}"
        plain = name in logged.columns and (column.log == "plain" or column.role == "entity")
        values = logged[name] if plain else pl.Series([None] * logged.height)
        made.append(values.cast(dtype_of(column), strict=False).alias(column.name))
    needed = [c.name for c in columns if not c.nulls]
    return pl.DataFrame([*made, logged["prediction_id"].alias(WHERE)]).drop_nulls(needed)
