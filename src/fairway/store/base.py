"""The store: transactions over the tables, sequences and formats. SQL itself stands beside the code that needs it."""

import json
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, exc

from fairway import clock
from fairway.errors import StoreError
from fairway.store import schema
from fairway.store.engine import make_engine

Row = sa.Row[Any]


class Store:
    """One workspace's metadata. Safe to share between threads; each process opens its own (never across a fork).

    Every statement must name the workspace: `store.workspace`. Times in rows are aware UTC.
    """

    def __init__(self, url: str, *, workspace: str = "default") -> None:
        """Open, creating the tables where there are none. Raises: StoreError if the store is newer or unreadable."""
        self.url, self.workspace = url, workspace
        self._engine = make_engine(url)
        weakref.finalize(self, self._engine.dispose)  # a store that nobody holds any more closes its connections
        try:
            self._prepare()
        except exc.DBAPIError as error:
            raise StoreError(f"the store {self.url} can't be opened: {error.orig}") from error

    def _prepare(self) -> None:
        tables = sa.inspect(self._engine).get_table_names()
        if "meta" not in tables:
            with self.write() as tx:
                schema.metadata.create_all(tx)  # within IMMEDIATE: two first starts at once make it once
        with self.read() as tx:
            found = tx.scalar(
                sa.select(schema.meta.c.value).where(schema.meta.c.workspace == "", schema.meta.c.key == "format")
            )
        if found is None:
            with self.write() as tx:
                row = {"workspace": "", "key": "format", "value": schema.FORMAT}
                self.insert_new(tx, schema.meta, row)
        elif found > schema.FORMAT:
            raise StoreError(
                f"the store has format {found}; this fairway reads up to {schema.FORMAT}: install a newer one"
            )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the writer's place from the start: what it reads can't change before it writes."""
        with self._engine.connect() as connection:
            connection = connection.execution_options(fairway_begin="BEGIN IMMEDIATE")
            with connection.begin():
                yield connection

    def close(self) -> None:
        self._engine.dispose()

    def insert_new(self, tx: Connection, table: sa.Table, row: dict[str, Any] | list[dict[str, Any]]) -> int:
        """Insert rows whose primary key is not there yet; returns how many were. Values are not compared."""
        if not row:
            return 0
        if self._engine.dialect.name == "postgresql":
            from sqlalchemy.dialects import postgresql

            return tx.execute(postgresql.insert(table).on_conflict_do_nothing(), row).rowcount
        from sqlalchemy.dialects import sqlite

        return tx.execute(sqlite.insert(table).on_conflict_do_nothing(), row).rowcount

    def upsert(self, tx: Connection, table: sa.Table, row: dict[str, Any]) -> None:
        """Insert, or replace all values that are not part of the key."""
        key = [c.name for c in table.primary_key]
        where = sa.and_(*(table.c[name] == row[name] for name in key))
        values = {name: value for name, value in row.items() if name not in key}
        if tx.execute(sa.update(table).where(where).values(values)).rowcount == 0:
            tx.execute(sa.insert(table).values(row))

    def next_number(self, tx: Connection, name: str) -> int:
        """1, 2, 3 … per name ("rollout", "version/churn"), without gaps for committed transactions."""
        table = schema.sequence
        where = sa.and_(table.c.workspace == self.workspace, table.c.name == name)
        last = tx.scalar(sa.select(table.c.last).where(where).with_for_update())
        if last is None:
            tx.execute(sa.insert(table).values(workspace=self.workspace, name=name, last=1))
            return 1
        tx.execute(sa.update(table).where(where).values(last=last + 1))
        return int(last) + 1

    def database_now(self, tx: Connection) -> datetime:
        """The database's clock: what leases expire by. Not virtual."""
        if self._engine.dialect.name == "postgresql":
            at: datetime = tx.scalar(sa.text("select now()"))
            return at
        return clock.from_us(
            int(tx.scalar(sa.text("select cast((julianday('now') - 2440587.5) * 86400000000 as integer)")) or 0)
        )

    def add_to_counter(self, tx: Connection, name: str, n: int = 1) -> None:
        table = schema.counter
        where = sa.and_(table.c.workspace == self.workspace, table.c.name == name)
        if tx.execute(sa.update(table).where(where).values(value=table.c.value + n)).rowcount == 0:
            tx.execute(sa.insert(table).values(workspace=self.workspace, name=name, value=n))


def jsonable(value: Any) -> Any:
    """A value with times as ISO text, for --json and the web. Raises: TypeError for what JSON has no word for."""

    def default(item: Any) -> Any:
        if isinstance(item, datetime):
            return clock.iso(item)
        if isinstance(item, Path):
            return str(item)
        if isinstance(item, sa.Row):
            return dict(item._mapping)
        raise TypeError(f"{type(item).__name__} is not JSON")

    return json.loads(json.dumps(value, default=default))
