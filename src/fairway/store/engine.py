"""Engines: the one place that opens the metadata database (a test searches the source for others)."""

import sqlite3
from typing import Any

from sqlalchemy import Engine, create_engine, event

BUSY_S = 10


def make_engine(url: str) -> Engine:
    """An engine with the rules each database needs.

    SQLite: the standard library's driver sends no BEGIN before a SELECT, so transactions are begun here (`store.write`
    asks for IMMEDIATE). Below SQLite 3.51.3 two connections that write and checkpoint a WAL at once can corrupt it,
    so the journal is TRUNCATE there.
    """
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_S, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _connect(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={BUSY_S * 1000}")
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
