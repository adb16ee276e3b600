"""Engines: the one place that opens the metadata database (a test searches the source for others)."""

import sqlite3
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from fairway import _optional
from fairway.errors import UsageError

BUSY_S = 10  # how long a writer waits for the writer's place
IDLE_S = 120  # a transaction that does nothing for so long is ended by Postgres: its holder hangs, others wait for it
CONNECT_S = 5

_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")
_EXAMPLES = "postgresql://user@host/database or sqlite:////absolute/path/store.db"


def parse_url(url: str) -> URL:
    """The URL of a store: SQLite's, or Postgres's through psycopg 3. Raises: UsageError for any other."""
    try:
        parsed = make_url(url)
    except ArgumentError as exc:  # its text would repeat the URL, and with it a password
        raise UsageError(f"FAIRWAY_STORE is no URL; use {_EXAMPLES}", field="FAIRWAY_STORE") from exc
    if parsed.drivername in _POSTGRES:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite":
        return parsed
    found = f"the store's URL is one of {parsed.drivername!r}"
    raise UsageError(f"{found}; fairway keeps its store in SQLite or Postgres: {_EXAMPLES}", field="FAIRWAY_STORE")


def make_engine(url: str, *, busy_s: float = BUSY_S) -> Engine:
    """An engine with the rules each database needs. Raises: UsageError, MissingExtra."""
    parsed = parse_url(url)
    return _sqlite(parsed, busy_s) if parsed.drivername == "sqlite" else _postgres(parsed, busy_s)


def _sqlite(url: URL, busy_s: float) -> Engine:
    """The standard library's driver sends no BEGIN before a SELECT, so transactions are begun here (`store.write` asks
    for IMMEDIATE). Below SQLite 3.51.3 two connections that write and checkpoint a WAL at once can corrupt it, so the
    journal is TRUNCATE there.
    """
    engine = create_engine(url, connect_args={"timeout": busy_s, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={int(busy_s * 1000)}")
        cursor.execute("PRAGMA foreign_keys=ON")
        wal_is_safe = sqlite3.sqlite_version_info >= (3, 51, 3)
        cursor.execute(f"PRAGMA journal_mode={'WAL' if wal_is_safe else 'TRUNCATE'}")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        mode = connection.get_execution_options().get("fairway_begin", "BEGIN")
        connection.exec_driver_sql(mode)

    return engine


def _postgres(url: URL, busy_s: float) -> Engine:
    """Times out instead of waiting for ever: for a server that is gone, for a lock, and for a client that hangs while
    it holds one. What the URL itself says comes later and wins.
    """
    _optional.need("psycopg", extra="postgres")
    rules = f"-c lock_timeout={int(busy_s * 1000)} -c idle_in_transaction_session_timeout={IDLE_S * 1000}"
    own = url.query.get("options", "")
    arguments: dict[str, Any] = {
        "connect_timeout": CONNECT_S,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "application_name": "fairway",
    }
    arguments = {name: value for name, value in arguments.items() if name not in url.query}
    arguments["options"] = f"{rules} {own if isinstance(own, str) else ' '.join(own)}".strip()
    engine = create_engine(url.difference_update_query(["options"]), connect_args=arguments, pool_pre_ping=True)

    @event.listens_for(engine, "checkin")
    def _checkin(connection: Any, _record: Any) -> None:
        # After a reader's transaction SQLAlchemy says READ WRITE, which would overrule what the server or the URL says.
        if connection is not None and not connection.closed:
            connection.read_only = None

    return engine


def reading_engine(url: str) -> Engine:
    """An engine on somebody else's database, to query it: any with a driver for SQLAlchemy. One connection, no pool.

    Raises: UsageError for a URL that can't be read or names no known database, MissingExtra without its driver.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername in _POSTGRES:
            _optional.need("psycopg", extra="postgres")
            parsed = parsed.set(drivername="postgresql+psycopg")
        return create_engine(parsed, poolclass=NullPool)
    except ArgumentError as exc:  # its text would repeat the URL, and with it a password
        raise UsageError("it is no URL of a database") from exc
    except (NoSuchModuleError, ImportError) as exc:
        raise UsageError(f"the driver for it is not installed ({exc})") from exc
