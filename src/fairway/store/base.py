"""The store: transactions over the tables, sequences and formats. SQL itself stands beside the code that needs it."""

import base64
import hashlib
import json
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy import Connection, Engine, exc

from fairway import clock
from fairway.errors import StoreError
from fairway.store import closed, schema
from fairway.store.engine import BUSY_S, make_engine
from fairway.store.trouble import explain, is_gone

Row = sa.Row[Any]

RECONNECT_S = 10.0  # a server that restarts is waited for, before a transaction begins
CHANNEL = "fairway_desired"
_PAUSE_S = 0.1


class Store:
    """One workspace's metadata. Safe to share between threads; each process opens its own (never across a fork).

    Every statement must name the workspace: `store.workspace`. Times in rows are aware UTC.
    """

    def __init__(self, url: str, *, workspace: str = "default", busy_s: float = BUSY_S) -> None:
        """Open; make the tables where there are none, and bring an older format up to date (see `migrate`).

        busy_s: how long a writer waits for the writer's place.
        Raises: StoreError if the store is newer, unreadable or can't be upgraded; StoreUnavailable.
        """
        self.url, self.workspace = url, workspace
        self._engine = make_engine(url, busy_s=busy_s)
        self.is_postgres = self._engine.dialect.name == "postgresql"
        self.name = url  # as it is shown: without a password
        if self.is_postgres:
            self.name = self._engine.url.set(drivername="postgresql").render_as_string(hide_password=True)
        self._readers: Engine = self._engine
        self._writers = self._engine.execution_options(fairway_begin="BEGIN IMMEDIATE")
        if self.is_postgres:
            self._readers = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._writers = self._engine.execution_options(isolation_level="READ COMMITTED")
        # A store that nobody holds any more closes its connections.
        weakref.finalize(self, self._engine.dispose)
        try:
            self._prepare()
        except exc.DBAPIError as error:
            raise StoreError(f"the store {self.name} can't be opened: {error.orig}") from error

    def _prepare(self) -> None:
        found = self._formats()
        if found is None:
            with self.everything() as tx:  # two first starts at once make it once
                if not sa.inspect(tx).has_table("meta"):
                    schema.metadata.create_all(tx)
                for key in ("format", "expanded"):
                    self.insert_new(tx, schema.meta, {"workspace": "", "key": key, "value": schema.FORMAT})
            found = self._formats() or {}
        if found["format"] > schema.FORMAT:
            raise StoreError(
                f"the store has format {found['format']}; this fairway reads up to {schema.FORMAT}: install a newer one"
            )
        if found.get("expanded", found["format"]) < schema.FORMAT:
            from fairway.store import migrate  # alembic is only loaded where there is something to do

            migrate.expand(self)

    def oldest_format(self) -> int:
        """Of the code that may have the store open beside this one."""
        return (self._formats() or {"format": schema.FORMAT})["format"]

    def _formats(self) -> dict[str, int] | None:
        """`format`: the oldest code that may open it; `expanded`: the newest whose tables are there. None: no tables"""
        table = schema.meta
        query = sa.select(table.c.key, table.c.value).where(
            table.c.workspace == "", table.c.key.in_(("format", "expanded"))
        )
        try:
            with self.read() as tx:
                found = {row.key: int(row.value) for row in tx.execute(query)}
        except (exc.OperationalError, exc.ProgrammingError):  # no such table: anything else is a StoreError
            return None
        return found if "format" in found else None

    @contextmanager
    def read(self, *, patience_s: float = RECONNECT_S) -> Iterator[Connection]:
        """A consistent snapshot. Raises: StoreUnavailable when the database can't be reached for `patience_s`."""
        with self._translated(), self._begin(self._readers, patience_s=patience_s) as connection:
            yield connection

    @contextmanager
    def write(self, *, closed_too: bool = False) -> Iterator[Connection]:
        """A transaction that holds the writer's place from the start: what it reads can't change before it writes.

        closed_too: also in a store that the workspace has left or is leaving, for the move itself.

        SQLite has one writer, by BEGIN IMMEDIATE; on Postgres there is one per workspace, by an advisory lock.
        Raises: StoreUnavailable when the place was not free for 10 s or the connection is lost: nothing was changed,
        unless it was lost during the commit itself; StoreReadOnly; StoreMoved.
        """
        with self._translated(), self._begin(self._writers, place=self._place) as connection:
            if not closed_too:
                closed.refuse(connection, self.workspace, name=self.name)
            yield connection

    @contextmanager
    def beside(self) -> Iterator[Connection]:
        """As `write`, without waiting for the writer's place on Postgres: for rows that are locked one by one.

        What is read here may change before it is written, unless its row is locked (`with_for_update`). A claim or a
        heartbeat of a job must not wait for a long transaction of another machine.
        """
        with self._translated(), self._begin(self._writers) as connection:
            closed.refuse(connection, self.workspace, name=self.name)
            yield connection

    @contextmanager
    def everything(self) -> Iterator[Connection]:
        """As `write`, for all workspaces of the database at once: for changes of the tables themselves."""
        with self._translated(), self._begin(self._writers, place=self._whole_place) as connection:
            yield connection

    # READ COMMITTED, and the lock as the first statement: each later statement sees all that was committed before it,
    # and nobody else may write to this workspace until this transaction ends. A snapshot (REPEATABLE READ) would be
    # taken before the lock is had, and show the state from before the wait.
    def _place(self, connection: Connection) -> None:
        query = sa.text("select pg_advisory_xact_lock_shared(:all), pg_advisory_xact_lock(:own)")
        connection.execute(query, {"all": _lock_key(None), "own": _lock_key(self.workspace)})

    def _whole_place(self, connection: Connection) -> None:
        connection.execute(sa.text("select pg_advisory_xact_lock(:all)"), {"all": _lock_key(None)})

    @contextmanager
    def _begin(self, engine: Engine, *, place: Any = None, patience_s: float = RECONNECT_S) -> Iterator[Connection]:
        until_s = clock.elapsed() + patience_s
        while True:  # until the body begins, nothing was done that could not be done again
            try:
                connection = engine.connect()
                try:
                    transaction = connection.begin()
                    if place is not None and self.is_postgres:
                        place(connection)
                except BaseException:
                    connection.close()
                    raise
                break
            except exc.DBAPIError as error:
                if not self.is_postgres or not is_gone(error) or clock.elapsed() >= until_s:
                    raise
                time.sleep(_PAUSE_S)
        with connection, transaction:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except exc.SQLAlchemyError as error:
            told = explain(error, self.name)
            if told is None:
                raise
            raise told from error

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def file(self) -> Path | None:
        """The file of an SQLite store; None for a server or a store in memory."""
        database = self._engine.url.database
        if self.is_postgres or not database or database == ":memory:":
            return None
        return Path(urlsplit(database).path) if database.startswith("file:") else Path(database)

    def check_writable(self) -> None:
        """For a command that will write: refuse now rather than at its end. Raises: StoreReadOnly, StoreUnavailable."""
        table = schema.meta
        with self._translated(), self._begin(self._writers) as tx:
            closed.refuse(tx, self.workspace, name=self.name)
            tx.execute(sa.update(table).where(table.c.workspace == "", table.c.key == "format").values(value=None))
            tx.rollback()

    def announce(self, tx: Connection) -> None:
        """Wake who waits in `changes.Changes` when this transaction commits. SQLite has no such call: they poll."""
        if self.is_postgres:
            tx.execute(
                sa.text("select pg_notify(:channel, :workspace)"), {"channel": CHANNEL, "workspace": self.workspace}
            )

    def listen(self) -> Any:
        """A driver's connection of its own that hears `announce`; Postgres only. The caller closes it."""
        pooled = self._engine.raw_connection()
        connection: Any = pooled.dbapi_connection
        pooled.detach()  # what listens must not go back to the pool
        connection.autocommit = True
        connection.execute(f"listen {CHANNEL}")
        return connection

    def insert_new(self, tx: Connection, table: sa.Table, row: dict[str, Any] | list[dict[str, Any]]) -> int:
        """Insert rows whose primary key is not there yet; returns how many were. Values are not compared."""
        if not row:
            return 0
        if self.is_postgres:
            from sqlalchemy.dialects import postgresql

            rows = row if isinstance(row, list) else [row]
            statement = postgresql.insert(table).on_conflict_do_nothing().returning(table.c.workspace)
            return len(tx.execute(statement, rows).all())  # many rows go in one statement, which has no row count
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
        """The database's clock: what leases expire by. Not virtual. Grows within a transaction."""
        if self.is_postgres:
            at: datetime = tx.scalar(sa.text("select clock_timestamp()"))  # now() is from before the writer's wait
            return at
        return clock.from_us(
            int(tx.scalar(sa.text("select cast((julianday('now') - 2440587.5) * 86400000000 as integer)")) or 0)
        )

    def add_to_counter(self, tx: Connection, name: str, n: int = 1) -> None:
        table = schema.counter
        where = sa.and_(table.c.workspace == self.workspace, table.c.name == name)
        if tx.execute(sa.update(table).where(where).values(value=table.c.value + n)).rowcount == 0:
            tx.execute(sa.insert(table).values(workspace=self.workspace, name=name, value=n))


def _lock_key(workspace: str | None) -> int:
    """A 64-bit key for an advisory lock: of one workspace's writers, or (None) of all."""
    text = "fairway" if workspace is None else f"fairway\x1f{workspace}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


SHOWN_BYTES = 4096  # an image in a log is megabytes; who looks at a row wants the row


def jsonable(value: Any, *, most_bytes: int | None = None) -> Any:
    """A value with times as ISO text and bytes in base64, for --json and the web.

    most_bytes: longer ones are only described, {"bytes": how many, "sha256"}.
    Raises: TypeError for what JSON has no word for.
    """

    def default(item: Any) -> Any:
        if isinstance(item, datetime):
            return clock.iso(item)
        if isinstance(item, Path):
            return str(item)
        if isinstance(item, bytes):
            if most_bytes is not None and len(item) > most_bytes:
                return {"bytes": len(item), "sha256": hashlib.sha256(item).hexdigest()}
            return base64.b64encode(item).decode()
        if isinstance(item, sa.Row):
            return dict(item._mapping)
        raise TypeError(f"{type(item).__name__} is not JSON")

    return json.loads(json.dumps(value, default=default))
