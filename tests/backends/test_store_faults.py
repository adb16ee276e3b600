"""A store that is locked, read-only, full or gone: one clear error, nothing half, and it goes on when it is back."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from postgres_server import PostgresServer

from fairway import clock
from fairway.errors import StoreError, StoreReadOnly, StoreUnavailable, UsageError
from fairway.store import schema
from fairway.store.base import Store, _lock_key
from fairway.store.changes import Changes
from fairway.store.engine import make_engine
from fairway.store.trouble import explain

WRITERS = 50


def add(store: Store, n: int = 1) -> None:
    with store.write() as tx:
        store.add_to_counter(tx, "a", n)
        store.add_to_counter(tx, "b", n)


def counters(store: Store) -> dict[str, int]:
    with store.read() as tx:
        return {row.name: row.value for row in tx.execute(sa.select(schema.counter))}


def in_threads(work: Callable[[], None], n: int) -> list[BaseException]:
    """The errors of n threads that each do `work` once."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


# -- locked ----------------------------------------------------------------------------------------------------------


def test_fifty_writers_at_a_locked_sqlite_store_are_told_and_leave_nothing_half(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store(f"sqlite:///{path}", busy_s=0.3) as store:
        add(store)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("begin immediate")
        errors = in_threads(lambda: add(store), WRITERS)
        holder.execute("rollback")
        holder.close()
        assert len(errors) == WRITERS and {type(error) for error in errors} == {StoreUnavailable}
        assert "is locked" in str(errors[0]) and "nothing was changed, try again" in str(errors[0])
        assert counters(store) == {"a": 1, "b": 1}


def test_fifty_writers_at_a_locked_postgres_store_are_told_and_leave_nothing_half(postgres_url: str) -> None:
    with Store(postgres_url, busy_s=0.2) as store:
        add(store)
        with psycopg.connect(postgres_url) as holder:
            holder.execute("select pg_advisory_xact_lock(%s)", [_lock_key("default")])
            errors = in_threads(lambda: add(store), WRITERS)
        assert len(errors) == WRITERS and {type(error) for error in errors} == {StoreUnavailable}
        assert "is locked" in str(errors[0])
        assert counters(store) == {"a": 1, "b": 1}


@pytest.mark.parametrize("engine", ["sqlite", "postgres"])
def test_fifty_writers_at_once_all_get_their_turn(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}" if engine == "sqlite" else request.getfixturevalue("postgres_url")
    with Store(url, busy_s=60) as store:
        assert in_threads(lambda: add(store), WRITERS) == []
        assert counters(store) == {"a": WRITERS, "b": WRITERS}


def test_a_writer_of_one_workspace_does_not_wait_for_another(postgres_url: str) -> None:
    with Store(postgres_url, busy_s=0.2) as one, Store(postgres_url, workspace="two", busy_s=0.2) as two:
        with one.write() as tx:
            one.add_to_counter(tx, "a")
            add(two)
            with pytest.raises(StoreUnavailable, match="locked"), two.everything():
                pass  # while somebody writes, nobody changes the tables
        add(one)


# -- read-only -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def read_only(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store with something in it, opened by who can't write."""
    if request.param == "sqlite":
        url, path = f"sqlite:///{tmp_path / 'store.db'}", tmp_path / "store.db"
        closed = f"sqlite:///file:{path}?mode=ro&uri=true"
    else:
        url = request.getfixturevalue("postgres_url")
        closed = f"{url}?options=-c%20default_transaction_read_only%3Don"
    with Store(url) as store:
        add(store)
    with Store(closed) as store:
        yield store


def test_a_read_only_store_is_read_and_refuses_to_be_written_at_the_start(read_only: Store) -> None:
    assert counters(read_only) == {"a": 1, "b": 1}
    with pytest.raises(StoreReadOnly, match="can be read and served from, and not changed"):
        read_only.check_writable()
    with pytest.raises(StoreReadOnly):
        add(read_only)
    assert counters(read_only) == {"a": 1, "b": 1}


def test_a_store_that_can_be_written_says_so_and_is_not_changed(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        store.check_writable()
        with store.read() as tx:
            assert tx.scalar(sa.select(schema.meta.c.value).where(schema.meta.c.key == "format")) == schema.FORMAT


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user who may not write")
def test_a_file_that_the_user_may_not_write_is_a_read_only_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with Store(f"sqlite:///{path}") as store:
        add(store)
    path.chmod(0o444)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path("/") and folder != Path("/tmp"):
            folder.chmod(0o755)
    code = (
        "import os, sqlite3\nfrom fairway.store.base import Store\nfrom fairway.errors import StoreReadOnly\n"
        f"os.setuid(65534)\nstore = Store('sqlite:///{path}')\n"
        "try:\n    store.check_writable()\nexcept StoreReadOnly as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "is read-only" in done.stdout, done.stderr


# -- gone ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server that these tests may stop. (The session's shows that there is one to start.)"""
    server = PostgresServer()
    yield server
    server.remove()


def test_the_store_waits_for_a_restart_and_goes_on(own_server: PostgresServer) -> None:
    with Store(own_server.new_database()) as store, Changes(store) as changes:
        add(store)
        changes.wait(0.1)
        done, stopped = 0, threading.Event()

        def work() -> None:
            nonlocal done
            while not stopped.is_set():
                try:
                    add(store)
                    done += 1
                except StoreUnavailable:
                    unsure.append(1)  # the connection broke in the middle, perhaps of the commit

        unsure: list[int] = []
        thread = threading.Thread(target=work)
        thread.start()
        for kill in (False, True):
            time.sleep(0.2)
            own_server.stop(kill=kill)
            time.sleep(0.3)
            own_server.start()
        time.sleep(0.3)
        before = done
        stopped.set()
        thread.join()
        found = counters(store)
        assert found["a"] == found["b"] and done + 1 <= found["a"] <= done + 1 + len(unsure)
        assert before > 0 and len(unsure) <= 4
        until_s = clock.elapsed() + 10
        heard = False
        while not heard and clock.elapsed() < until_s:  # it connects again by itself
            try:
                with store.write() as tx:
                    store.announce(tx)
                heard = changes.wait(0.5)
            except StoreUnavailable:
                time.sleep(0.05)
        assert heard


def test_a_server_that_stays_away_is_named_without_the_password(own_server: PostgresServer) -> None:
    url = own_server.new_database().replace("fairway@", "fairway:secret@")
    with Store(url) as store:
        own_server.stop()
        try:
            with pytest.raises(StoreUnavailable, match="can't be reached") as raised, store.read(patience_s=0.0):
                pass
            assert "secret" not in str(raised.value) and str(own_server.port) in str(raised.value)
        finally:
            own_server.start()
        add(store)


def test_a_connection_that_is_cut_in_the_middle_leaves_nothing(own_server: PostgresServer) -> None:
    with Store(own_server.new_database()) as store:

        def cut() -> None:
            with store.write() as tx:
                store.add_to_counter(tx, "a")
                everyone = "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
                own_server.execute(everyone)
                store.add_to_counter(tx, "b")

        with pytest.raises(StoreUnavailable):
            cut()
        assert counters(store) == {}


# -- what it is called -----------------------------------------------------------------------------------------------


def test_a_wrong_url_is_said_without_its_password() -> None:
    for url, said in (("mysql://u:secret@h/d", "'mysql'"), ("postgresql:/:secret", "no URL"), ("secret", "no URL")):
        with pytest.raises(UsageError, match=said) as raised:
            make_engine(url)
        assert "secret" not in str(raised.value) and "postgresql://" in str(raised.value)


def test_a_file_that_is_no_store_is_said(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"no database at all, but long enough to have a header" * 100)
    with pytest.raises(StoreError, match="not a database"):
        Store(f"sqlite:///{path}")
    with pytest.raises(StoreError, match="unable to open"):
        Store(f"sqlite:///{tmp_path / 'nowhere' / 'store.db'}")


def test_a_mistake_of_ours_stays_what_it_is() -> None:
    error = sa.exc.ProgrammingError("select", {}, Exception('relation "x" does not exist'))
    assert explain(error, "s") is None
