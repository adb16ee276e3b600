"""The result of a query: read only, streamed in chunks, in one transaction."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import sqlalchemy as sa

from fairway.data.delimited import refuse_duplicates
from fairway.data.source_rows import Rows
from fairway.errors import DataError, SettingsError, UsageError
from fairway.store.engine import reading_engine

CHUNK_ROWS = 10_000
_SECRET = re.compile(r"//([^/@:]*):([^/@]+)@")


def resolve_url(url: str, root: Path, *, field: str) -> str:
    """The URL itself: "env:NAME" is looked up; a relative SQLite path starts at the project. Raises: SettingsError."""
    if url.startswith("env:"):
        name = url.removeprefix("env:")
        found = os.environ.get(name)
        if not found:
            raise SettingsError(f"the variable {name} is not set; it holds the URL of the database",
                                file="fairway.toml", field=field)  # fmt: skip
        url = found
    if url.startswith("sqlite:///") and not url.startswith(("sqlite:////", "sqlite:///:memory:", "sqlite:///file:")):
        url = f"sqlite:///{root / url.removeprefix('sqlite:///')}"
    return url


def read_query(sql: str, url: str, *, file: str) -> pl.DataFrame:
    """All rows of the query's result, columns by their names. It can't write: the transaction is read-only.

    Raises: DataError with row and column for values of two kinds in one column, and with the database's own words when
    the query fails; SettingsError for a URL that can't be used.
    """
    path = url.removeprefix("sqlite:///") if url.startswith("sqlite:///") else ""
    if path and not Path(path).is_file():
        raise DataError(f"there is no database {path}", file=file)
    try:
        engine = reading_engine(url)
    except UsageError as exc:
        raise SettingsError(f"the URL of the query can't be used: {exc}", file="fairway.toml", field="url") from exc
    try:
        with engine.connect() as connection, connection.begin():
            _read_only(connection)
            # The driver's cursor keeps its place on the server, and hands over so many rows at a time.
            streaming = connection.execution_options(stream_results=True, yield_per=CHUNK_ROWS)
            with closing(streaming.exec_driver_sql(_escaped(sql, connection))) as result:
                return _frame(result, file)
    except sa.exc.DBAPIError as exc:
        said = str(exc.orig).strip().splitlines()
        raise DataError(f"the query failed: {said[0] if said else type(exc.orig).__name__}", file=file) from exc
    except sa.exc.SQLAlchemyError as exc:
        raise DataError(f"the query failed: {_SECRET.sub('//…@', str(exc)).splitlines()[0]}", file=file) from exc
    finally:
        engine.dispose()


def _read_only(connection: sa.Connection) -> None:
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA query_only=ON")
        connection.exec_driver_sql("PRAGMA busy_timeout=10000")
    elif connection.dialect.name in ("postgresql", "mysql", "mariadb", "oracle"):
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def _escaped(sql: str, connection: sa.Connection) -> str:
    """A percent sign is the query's own, and no place for a parameter."""
    return sql.replace("%", "%%") if connection.dialect.paramstyle in ("format", "pyformat") else sql


def _frame(result: Any, file: str) -> pl.DataFrame:
    if not result.returns_rows:
        raise DataError("the statement returns no rows; write a select", file=file)
    names: Sequence[str] = list(result.keys())
    refuse_duplicates(list(names), file)
    rows = Rows(file, names=names)
    number = 0
    for chunk in result.partitions(CHUNK_ROWS):
        numbered: list[tuple[int, Mapping[str, Any]]] = [
            (number + place, dict(zip(names, row, strict=True))) for place, row in enumerate(chunk, 1)
        ]
        number += len(chunk)
        rows.add(numbered)
    return rows.frame()
