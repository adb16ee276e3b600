"""The metadata store: 20 processes that register and promote, and what a transaction costs over the bare driver."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from common import PYTHON, median, scratch, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "backends"))

import psycopg
from postgres_server import PostgresServer, binaries
from two_writers import faults, run_all

from fairway.store.base import Store

PROCESSES, TIMES, TRANSACTIONS = 20, 50, 300
COUNT = "update counter set value = value + 1 where workspace = 'default' and name = 'n'"
LOOK = "select value from counter where workspace = 'default' and name = 'n'"


def main() -> None:
    folder = scratch()
    rows = measure(
        "SQLite", f"sqlite:///{folder / 'a.db'}", f"sqlite:///{folder / 'b.db'}", bare_sqlite(folder / "b.db")
    )
    if binaries() is None:
        rows.append(("Postgres", "skipped: not installed", ""))
    else:
        server = PostgresServer()
        try:
            single = server.new_database()
            rows += measure("Postgres", server.new_database(), single, bare_postgres(single))
        finally:
            server.remove()
    table(f"the store: {PROCESSES} processes register and promote {TIMES} times each; medians of {TRANSACTIONS}", rows)


def measure(name: str, many: str, single: str, bare: Callable[[str], list[float]]) -> list[tuple[str, str, str]]:
    Store(many).close()
    began = time.perf_counter()
    codes = run_all(many, processes=PROCESSES, times=TIMES)
    seconds = time.perf_counter() - began
    with Store(many) as store:
        wrong = faults(store, expected=PROCESSES * TIMES)
    said = "; ".join(wrong) or f"1..{PROCESSES * TIMES:,}, one production, chain whole"
    rows = [
        (f"{name}: versions, production, audit chain", said if not any(codes) else f"exit codes {codes}", "no gap"),
        (f"{name}: writing transactions a second", f"{2 * PROCESSES * TIMES / seconds:,.0f} ({seconds:.1f} s)", ""),
    ]
    with Store(single) as store:
        with store.write() as tx:
            store.add_to_counter(tx, "n")
        ours_write = median(timed(lambda: write(store)))
        ours_read = median(timed(lambda: read(store)))
    for what, ours, statement in (("write", ours_write, COUNT), ("read", ours_read, LOOK)):
        theirs = median(bare(statement))
        rows.append((f"{name}: one {what}", f"{ours * 1e3:.2f} ms, {ours / theirs:.1f} x the bare driver's", ""))
    code = f"from fairway.store.base import Store; import time; t = time.perf_counter(); Store({single!r}); "
    code += "print(time.perf_counter() - t)"
    opened = [float(subprocess.run([PYTHON, "-c", code], capture_output=True, check=True).stdout) for _ in range(5)]
    rows.append((f"{name}: opening a store that is up to date", f"{median(opened) * 1e3:.0f} ms", ""))
    return rows


def write(store: Store) -> None:
    with store.write() as tx:
        store.add_to_counter(tx, "n")


def read(store: Store) -> None:
    with store.read() as tx:
        tx.exec_driver_sql(LOOK).all()


def timed(work: Callable[[], None]) -> list[float]:
    found = []
    for _ in range(TRANSACTIONS):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return found


def bare_sqlite(path: Path) -> Callable[[str], list[float]]:
    def run(statement: str) -> list[float]:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("pragma journal_mode = truncate")
        connection.execute("pragma synchronous = normal")

        def once() -> None:
            connection.execute("begin immediate" if statement is COUNT else "begin")
            connection.execute(statement).fetchall()
            connection.execute("commit")

        found = timed(once)
        connection.close()
        return found

    return run


def bare_postgres(url: str) -> Callable[[str], list[float]]:
    def run(statement: str) -> list[float]:
        with psycopg.connect(url) as connection:

            def once() -> None:
                connection.execute(statement)
                connection.commit()

            return timed(once)

    return run


if __name__ == "__main__":
    main()
