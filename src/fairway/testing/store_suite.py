"""What every store must do, as tests: subclass `StoreSuite`, give it the fixture `store`, and run pytest.

    class TestMine(StoreSuite):
        @pytest.fixture
        def store(self, tmp_path):
            with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
                yield store

The store must be empty, made for this test alone, and reachable by its URL from other processes of this machine.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from fairway import clock
from fairway.store import audit, jobs, schema
from fairway.store.base import Store
from fairway.store.changes import Changes

AT = datetime(2014, 5, 1, 7, 0, 0, 123457, tzinfo=UTC)

# Drives a store from another process: argv is url, workspace, what to do and how often.
_OTHER_PROCESS = """
import os, sys
from datetime import timedelta
from fairway.store import audit, jobs
from fairway.store.base import Store
url, workspace, what, times = sys.argv[1:]
store = Store(url, workspace=workspace)
if what == "count":
    for _ in range(int(times)):
        with store.write() as tx:
            number = store.next_number(tx, "version/churn")
            audit.record(store, tx, actor="process", action="register", subject=f"churn@{number}")
            store.add_to_counter(tx, "registered")
        print(number)
elif what == "hang":
    with store.write() as tx:
        store.next_number(tx, "version/churn")
        store.add_to_counter(tx, "registered")
        print("writing", flush=True)
        sys.stdin.read()
elif what == "claim":
    while (claim := jobs.claim(store, owner=f"process-{os.getpid()}", lease=timedelta(minutes=5))) is not None:
        with store.write() as tx:
            if jobs.finish(store, tx, claim, result={}):
                store.add_to_counter(tx, claim.payload["effect"])
"""


class StoreSuite:
    """Override `store`. `processes` and `times` size the test of concurrent writers; more is slower, not different."""

    processes = 3
    times = 8

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        raise pytest.UsageError("a subclass of StoreSuite gives the fixture `store`")

    @pytest.fixture
    def other(self, store: Store) -> Iterator[Store]:
        """The same database, another workspace."""
        with Store(store.url, workspace="other") as other:
            yield other

    # -- transactions ------------------------------------------------------------------------------------------------

    def test_what_is_committed_is_there_when_it_is_opened_again(self, store: Store) -> None:
        with store.write() as tx:
            store.add_to_counter(tx, "n", 2)
        with Store(store.url, workspace=store.workspace) as again:
            assert _counter(again, "n") == 2

    def test_a_transaction_that_raises_leaves_nothing(self, store: Store) -> None:
        def fail() -> None:
            with store.write() as tx:
                store.next_number(tx, "rollout")
                store.add_to_counter(tx, "n")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        with store.write() as tx:
            assert store.next_number(tx, "rollout") == 1
        assert _counter(store, "n") is None

    def test_a_statement_that_fails_takes_its_transaction_with_it(self, store: Store) -> None:
        row = _segment(store, "s")

        def fail() -> None:
            with store.write() as tx:
                tx.execute(sa.insert(schema.segment).values(row))
                tx.execute(sa.insert(schema.segment).values(row))

        with pytest.raises(sa.exc.IntegrityError):
            fail()
        with store.read() as tx:
            assert tx.scalar(sa.select(sa.func.count()).select_from(schema.segment)) == 0

    def test_a_reader_sees_one_moment(self, store: Store) -> None:
        with store.write() as tx:
            store.add_to_counter(tx, "n")
        if not store.is_postgres:  # with a rollback journal a writer waits for readers, so it can't run between them
            with store.read() as tx:
                assert _counter_in(tx, store, "n") == 1
            return
        with store.read() as tx:
            assert _counter_in(tx, store, "n") == 1
            with store.write() as writing:
                store.add_to_counter(writing, "n")
                store.add_to_counter(writing, "m")
            assert _counter_in(tx, store, "n") == 1 and _counter_in(tx, store, "m") is None
        assert _counter(store, "n") == 2

    def test_a_reader_sees_nothing_uncommitted(self, store: Store) -> None:
        with store.write() as tx:
            store.add_to_counter(tx, "n")
            assert _counter(store, "n") is None
        assert _counter(store, "n") == 1

    def test_what_a_writer_has_read_stays_true_until_it_writes(self, store: Store) -> None:
        def raise_by_one() -> None:
            for _ in range(self.times):
                with store.write() as tx:
                    found = _counter_in(tx, store, "n") or 0
                    store.upsert(tx, schema.counter, {"workspace": store.workspace, "name": "n", "value": found + 1})

        _in_threads(raise_by_one, 4)
        assert _counter(store, "n") == 4 * self.times

    # -- rows --------------------------------------------------------------------------------------------------------

    def test_insert_new_takes_each_key_once_and_says_how_many(self, store: Store) -> None:
        rows = [_segment(store, f"s{number}") for number in range(5)]
        with store.write() as tx:
            assert store.insert_new(tx, schema.segment, rows[0]) == 1
            assert store.insert_new(tx, schema.segment, {**rows[0], "rows": 99}) == 0
            assert store.insert_new(tx, schema.segment, rows) == 4
            assert store.insert_new(tx, schema.segment, []) == 0
            many = [_segment(store, f"m{number}") for number in range(3000)]
            assert store.insert_new(tx, schema.segment, many) == 3000
            assert store.insert_new(tx, schema.segment, [*many[:10], _segment(store, "new")]) == 1
        with store.read() as tx:
            assert tx.scalar(sa.select(schema.segment.c.rows).where(schema.segment.c.segment == "s0")) == 1

    def test_upsert_replaces_what_is_no_key(self, store: Store) -> None:
        key = {"workspace": store.workspace, "model": "churn", "name": "drift"}
        with store.write() as tx:
            for state in ({"a": 1}, {"b": 2}):
                store.upsert(tx, schema.monitor_state, {**key, "state": state})
        with store.read() as tx:
            assert [row.state for row in tx.execute(sa.select(schema.monitor_state))] == [{"b": 2}]

    def test_counters_add(self, store: Store) -> None:
        with store.write() as tx:
            for n in (1, 41, 2**40):
                store.add_to_counter(tx, "n", n)
        assert _counter(store, "n") == 42 + 2**40

    def test_sequences_count_by_name_without_gaps(self, store: Store) -> None:
        with store.write() as tx:
            assert [store.next_number(tx, "a") for _ in range(3)] == [1, 2, 3]
            assert store.next_number(tx, "b") == 1
        with store.write() as tx:
            assert store.next_number(tx, "a") == 4

    @pytest.mark.parametrize(
        "at",
        [AT, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)],
        ids=["now", "first", "last"],
    )
    def test_times_are_exact_to_the_microsecond(self, store: Store, at: datetime) -> None:
        with store.write() as tx:
            store.insert_new(tx, schema.segment, {**_segment(store, "s"), "folded_at": at})
        with store.read() as tx:
            found = tx.scalar(sa.select(schema.segment.c.folded_at).where(schema.segment.c.folded_at == at))
        assert found == at and found.tzinfo is not None

    def test_times_of_any_zone_are_one_moment_and_naive_ones_are_refused(self, store: Store) -> None:
        east = AT.astimezone(datetime.strptime("+0530", "%z").tzinfo)
        with store.write() as tx:
            store.insert_new(tx, schema.segment, {**_segment(store, "s"), "folded_at": east})
            assert tx.scalar(sa.select(schema.segment.c.folded_at)) == AT
        with pytest.raises(sa.exc.StatementError, match="no time zone"), store.write() as tx:
            store.insert_new(tx, schema.segment, {**_segment(store, "t"), "folded_at": AT.replace(tzinfo=None)})

    @pytest.mark.parametrize(
        "value",
        [
            {"z": 1, "a": {"y": [1, 2.5, -0.0, 1e-300], "b": None}, "ü\n\0": "\0 \\u0000 'quoted' \U0001f6eb"},
            [2**63 - 1, -(2**63), 2**53 + 1, 12345678901234567890123, 0.1, 1e308],
            [],
            {},
            "",
            "5",
            "null",
            2**53 + 1,
            0.1,
            True,
            None,
        ],
        ids=lambda value: str(value)[:12],
    )
    def test_json_comes_back_as_it_was(self, store: Store, value: Any) -> None:
        key = {"workspace": store.workspace, "model": "churn", "name": "drift"}
        with store.write() as tx:
            tx.execute(sa.insert(schema.monitor_state).values(**key, state=value))
        with store.read() as tx:
            found = tx.scalar(sa.select(schema.monitor_state.c.state))
        assert found == value and type(found) is type(value)
        if isinstance(value, dict):
            assert list(found) == list(value)  # in the order of its keys: a fingerprint may depend on it

    def test_a_number_that_is_not_finite_comes_back(self, store: Store) -> None:
        key = {"workspace": store.workspace, "model": "churn", "name": "drift"}
        with store.write() as tx:
            tx.execute(sa.insert(schema.monitor_state).values(**key, state={"auc": float("nan"), "f": [float("-inf")]}))
        with store.read() as tx:
            (found,) = tx.scalars(sa.select(schema.monitor_state.c.state))
        assert found["auc"] != found["auc"] and found["f"] == [float("-inf")]

    def test_a_value_that_is_absent_is_null(self, store: Store) -> None:
        run = {
            "workspace": store.workspace, "model": "churn", "status": "running", "cause": "person", "started_at": AT,
            "settings": {}, "steps": [], "fairway": "0", "format": 1,
        }  # fmt: skip
        with store.write() as tx:
            tx.execute(sa.insert(schema.run).values(**run, run="run-1"))
            tx.execute(sa.insert(schema.run).values(**run, run="run-2", result={"a": None}, error=None))
        with store.read() as tx:
            rows = tx.execute(sa.select(schema.run).order_by(schema.run.c.run)).all()
            absent = tx.scalars(sa.select(schema.run.c.run).where(schema.run.c.result.is_(None))).all()
        assert [row.result for row in rows] == [None, {"a": None}] and list(absent) == ["run-1"]

    @pytest.mark.parametrize("text", ["", "ü\0x", "\0", "\U0010fffe0\0\U0010fffe", "a'b\"c;--", "日本" * 5000])
    def test_any_text_is_kept_and_found(self, store: Store, text: str) -> None:
        with store.write() as tx:
            store.insert_new(tx, schema.segment, {**_segment(store, text), "blob": text})
        with store.read() as tx:
            row = tx.execute(sa.select(schema.segment).where(schema.segment.c.segment == text)).one()
        assert (row.segment, row.blob) == (text, text)

    def test_texts_are_ordered_by_code_points(self, store: Store) -> None:
        names = ["a", "B", "_", "é", "Z", "10", "9", "z", "aa", "日", "\U0001f6eb"]
        with store.write() as tx:
            store.insert_new(tx, schema.segment, [_segment(store, name) for name in names])
        with store.read() as tx:
            table = schema.segment.c.segment
            assert list(tx.scalars(sa.select(table).order_by(table))) == sorted(names)
            assert list(tx.scalars(sa.select(table).where(table < "a").order_by(table))) == ["10", "9", "B", "Z", "_"]

    def test_whole_numbers_have_64_bits(self, store: Store) -> None:
        with store.write() as tx:
            store.insert_new(tx, schema.segment, {**_segment(store, "s"), "rows": 2**62 + 1})
        with store.read() as tx:
            assert tx.scalar(sa.select(schema.segment.c.rows)) == 2**62 + 1

    def test_database_now_is_aware_and_goes_on(self, store: Store) -> None:
        with store.write() as tx:
            first = store.database_now(tx)
        with store.read() as tx:
            second = store.database_now(tx)
        assert first.tzinfo is not None and first <= second
        assert abs(second - clock.machine_now()) < timedelta(minutes=1)  # a server on this machine

    # -- workspaces --------------------------------------------------------------------------------------------------

    def test_every_primary_key_begins_with_the_workspace(self, store: Store) -> None:
        with store.read() as tx:
            inspect = sa.inspect(tx)
            for name in schema.metadata.tables:
                assert inspect.get_pk_constraint(name)["constrained_columns"][0] == "workspace", name

    def test_two_workspaces_never_see_each_other(self, store: Store, other: Store) -> None:
        for each, n in ((store, 1), (other, 2)):
            with each.write() as tx:
                each.add_to_counter(tx, "n", n)
                each.insert_new(tx, schema.segment, _segment(each, "same"))
                for _ in range(n):
                    audit.record(each, tx, actor="ana", action="a", subject=each.workspace)
                    jobs.submit(each, tx, kind="train", key=f"k{_}", payload={"own": each.workspace})
        assert (_counter(store, "n"), _counter(other, "n")) == (1, 2)
        assert [len(audit.entries(each)) for each in (store, other)] == [1, 2]
        assert audit.verify(store) is None and audit.verify(other) is None
        assert (jobs.pending(store), jobs.pending(other)) == (1, 2)
        with store.write() as tx:
            assert store.next_number(tx, "job") == 2 and other.next_number(tx, "job") == 3
        taken = [jobs.claim(other, owner="a"), jobs.claim(other, owner="a"), jobs.claim(other, owner="a")]
        assert [claim.payload if claim else None for claim in taken] == [{"own": "other"}] * 2 + [None]
        assert jobs.pending(store) == 1

    # -- jobs --------------------------------------------------------------------------------------------------------

    def test_a_lease_that_ended_gives_the_job_to_another_and_fences_the_first(self, store: Store) -> None:
        with store.write() as tx:
            name = jobs.submit(store, tx, kind="train", key="churn", payload={})
        first = jobs.claim(store, owner="a", lease=timedelta(seconds=-1))
        second = jobs.claim(store, owner="b")
        assert first and second and first.job == second.job == name and second.fence > first.fence
        assert jobs.claim(store, owner="c") is None
        assert (jobs.renew(store, first), jobs.renew(store, second)) == ("lost", "held")
        with store.write() as tx:
            assert not jobs.finish(store, tx, first, result={}) and jobs.finish(store, tx, second, result={})

    def test_each_job_is_done_once_by_many_processes(self, store: Store) -> None:
        with store.write() as tx:
            for number in range(self.times):
                jobs.submit(store, tx, kind="test", key=str(number), payload={"effect": f"effect-{number}"})
        _finish([self._process(store, "claim") for _ in range(self.processes)])
        assert jobs.pending(store) == 0
        assert [_counter(store, f"effect-{number}") for number in range(self.times)] == [1] * self.times

    # -- several at once ---------------------------------------------------------------------------------------------

    def test_writers_in_processes_and_threads_leave_no_gap_no_double_and_a_whole_chain(self, store: Store) -> None:
        def count() -> None:
            for _ in range(self.times):
                with store.write() as tx:
                    number = store.next_number(tx, "version/churn")
                    audit.record(store, tx, actor="thread", action="register", subject=f"churn@{number}")
                    store.add_to_counter(tx, "registered")
                    mine.append(number)

        mine: list[int] = []
        started = [self._process(store, "count") for _ in range(self.processes)]
        _in_threads(count, 3)
        numbers = [*mine, *(int(line) for answer in _finish(started) for line in answer.split())]
        total = self.times * (self.processes + 3)
        assert sorted(numbers) == list(range(1, total + 1)) and _counter(store, "registered") == total
        assert audit.verify(store) is None and len(audit.entries(store)) == total

    def test_a_killed_writer_leaves_nothing_and_nobody_waits_for_it(self, store: Store) -> None:
        writer = self._process(store, "hang")
        assert writer.stdout is not None and writer.stdout.readline() == "writing\n"
        writer.kill()
        writer.communicate()
        with store.write() as tx:
            assert store.next_number(tx, "version/churn") == 1
        assert _counter(store, "registered") is None

    def test_a_change_wakes_who_waits_for_it(self, store: Store, other: Store) -> None:
        """Or it says nothing, and who waits looks by itself: that is what it returns at once, or after the time."""
        with Changes(store) as changes:
            changes.wait(0.01)
            _announce(other)
            assert changes.wait(0.2) is False  # not this workspace's
            _announce(store)
            assert changes.wait(5.0 if store.is_postgres else 0.01) is store.is_postgres

    def _process(self, store: Store, what: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", _OTHER_PROCESS, store.url, store.workspace, what, str(self.times)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    answers = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return answers


def _in_threads(work: Callable[[], None], n: int) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _segment(store: Store, name: str) -> dict[str, Any]:
    return {"workspace": store.workspace, "segment": name, "blob": "b", "rows": 1, "folded_at": AT}


def _counter(store: Store, name: str) -> int | None:
    with store.read() as tx:
        return _counter_in(tx, store, name)


def _counter_in(tx: sa.Connection, store: Store, name: str) -> int | None:
    table = schema.counter
    found: int | None = tx.scalar(
        sa.select(table.c.value).where(table.c.workspace == store.workspace, table.c.name == name)
    )
    return found


def _announce(store: Store) -> None:
    with store.write() as tx:
        store.announce(tx)
