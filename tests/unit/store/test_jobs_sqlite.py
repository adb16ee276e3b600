"""Jobs, steps, signals and schedules on SQLite; and what is pure of them."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from fairway import clock
from fairway.fleet import schedules as calendar
from fairway.store import jobs, schedules, schema
from fairway.store.base import Store
from fairway.store.workspace import Workspace
from fairway.testing import job_suite
from fairway.testing.job_suite import HOUR, START, JobSuite, end, made, submit, take


class TestSqlite(JobSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
            yield store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        yield store


def test_pauses_grow_to_ten_minutes_and_jobs_come_back_apart() -> None:
    pauses = [jobs.backoff("job-1", attempt) for attempt in range(1, 80)]
    assert all(p <= jobs.LONGEST_PAUSE and p >= jobs.FIRST_PAUSE / 2 for p in pauses)
    assert pauses[-1] >= jobs.LONGEST_PAUSE / 2
    assert len({jobs.backoff(f"job-{n}", 3) for n in range(50)}) == 50


def test_on_a_virtual_clock_a_retry_is_at_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock.VirtualClock(tmp_path / "clock", START)
    monkeypatch.setenv(clock.VARIABLE, str(tmp_path / "clock"))
    submit(store)
    held = take(store)
    with store.write() as tx:
        assert jobs.fail(store, tx, held, error="lost", again=True) == "queued"
    assert take(store).attempts == 2


def test_workspaces_do_not_see_each_others_jobs(store: Store) -> None:
    submit(store)
    with Store(store.url, workspace="other") as other:
        assert jobs.claim(other, owner="w") is None
        job_suite.put(other, "all", every=HOUR)
        assert not schedules.tick(store, START) and schedules.tick(other, START)
        assert submit(other) == "job-2"


@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    looks=st.lists(st.integers(0, 600), min_size=1, max_size=12),
    backfill=st.sampled_from(["none", "latest", "all"]),
    every=st.integers(10, 90),
)
def test_whatever_the_looks_each_tick_is_noted_once_in_order(
    looks: list[int], backfill: schedules.Backfill, every: int
) -> None:
    """looks, every: minutes."""
    with Store("sqlite://") as store:
        job_suite.put(store, backfill, every=timedelta(minutes=every))
        for look in sorted(looks):
            now = START + timedelta(minutes=look)
            schedules.tick(store, now)
            assert not schedules.tick(store, now)
            while (claim := jobs.claim(store, owner="w")) is not None:
                end(store, claim)
        with store.read() as tx:
            rows = tx.exec_driver_sql("select tick, job from schedule_tick order by tick").all()
        last = max(looks)
        assert [(clock.from_us(r.tick) - START).seconds // 60 for r in rows] == list(range(0, last + 1, every))
        if backfill == "all":
            assert all(r.job is not None for r in rows)
        elif backfill == "latest":
            assert rows[-1].job is not None


def test_old_jobs_of_the_calendar_are_forgotten_and_trainings_stay(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path)
    store = workspace.store
    assert calendar.tick(workspace, START)
    midnight = START + timedelta(days=1)
    assert not calendar.tick(workspace, midnight - timedelta(seconds=1)) and calendar.tick(workspace, midnight)
    submit(store, kind="train")
    while (claim := jobs.claim(store, owner="w")) is not None:
        assert calendar.run(workspace, claim) if claim.kind in calendar.KINDS else end(store, claim)
    assert results(store) == {
        "audit_head": {"written": False}, "drop_old_log": {"dropped": False}, "tidy_jobs": {"jobs": 0, "ticks": 0},
        "gc_report": results(store)["gc_report"], "train": None,
    }  # fmt: skip
    assert results(store)["gc_report"]["deleted"] is False
    calendar.tick(workspace, clock.now() + timedelta(days=31))
    assert calendar.run(workspace, take(store, kinds=("tidy_jobs",)))
    assert set(results(store)) == {"audit_head", "drop_old_log", "gc_report", "tidy_jobs", "train"}
    with store.read() as tx:
        ended = list(tx.exec_driver_sql("select kind from job where status = 'done' order by kind").scalars())
        assert ended == ["tidy_jobs", "train"]
        assert (
            tx.exec_driver_sql("select max(n) from (select count(*) n from schedule_tick group by schedule)").scalar()
            < 35
        )
    store.close()


def results(store: Store) -> dict[str, Any]:
    """The result of each kind's newest job."""
    with store.read() as tx:
        return {row.kind: row.result for row in tx.execute(sa.select(schema.job).order_by(schema.job.c.queued_at))}


def test_next_tick_says_what_comes(store: Store) -> None:
    job_suite.put(store, "latest", every=HOUR)
    with store.read() as tx:
        (found,) = schedules.listed(store, tx)
    assert schedules.next_tick(found, START - HOUR) == START
    schedules.tick(store, START)
    with store.read() as tx:
        (found,) = schedules.listed(store, tx)
    assert schedules.next_tick(found, START + HOUR / 4) == START + HOUR
    assert made(store, "nightly") == {0: "job-1"}
