"""What jobs, steps, signals and schedules promise, as tests: a store proves itself with a `store` fixture.

class TestMine(JobSuite):
    @pytest.fixture
    def store(self, tmp_path):
        with Store(...) as store:
            yield store
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from fairway.errors import DataError, LeaseLost, Refused, StoreUnavailable, ThingNotFound, Unfinished, UsageError
from fairway.store import audit, jobs, schedules, schema, signals
from fairway.store.base import Store
from fairway.store.fenced import FencedStore
from fairway.store.jobs import Claim
from fairway.store.steps import Job, attempt

GONE = timedelta(seconds=-1)  # a lease that has ended: its holder is dead, or as good as
HOUR = timedelta(hours=1)
START = datetime(2014, 5, 1, tzinfo=UTC)


def submit(store: Store, key: str = "churn", **more: Any) -> str | None:
    with store.write() as tx:
        return jobs.submit(store, tx, kind=more.pop("kind", "count"), key=key, payload=more.pop("payload", {}), **more)


def take(store: Store, **more: Any) -> Claim:
    claim = jobs.claim(store, owner="suite", **more)
    assert claim is not None, "nothing to claim"
    return claim


def row(store: Store, job: str) -> Any:
    with store.read() as tx:
        return jobs.find(store, tx, job)


def make_due(store: Store, job: str) -> None:
    """As if the pause before the next attempt were over."""
    with store.write() as tx:
        tx.execute(sa.update(schema.job).where(schema.job.c.job == job).values(not_before=None))


def end(store: Store, claim: Claim, **values: Any) -> bool:
    with store.write() as tx:
        return jobs.finish(store, tx, claim, **values)


def together(*work: Callable[[], object]) -> None:
    """Run at once, each in a thread; the first error is raised."""
    errors: list[BaseException] = []

    def run(one: Callable[[], object]) -> None:
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


class JobSuite:
    """Leases, fences, retries, cancellation, steps, signals and schedules of one store."""

    def test_the_same_work_is_queued_once_until_it_has_ended(self, store: Store) -> None:
        first = submit(store)
        assert (first, submit(store)) == ("job-1", None)
        assert submit(store, "other") == "job-2"
        assert end(store, take(store), result={"n": 1})
        assert row(store, "job-1").result == {"n": 1} and submit(store) == "job-3"

    def test_many_takers_get_each_job_once(self, store: Store) -> None:
        for number in range(24):
            submit(store, str(number))
        taken: list[str] = []

        def work() -> None:
            while (claim := jobs.claim(store, owner="w")) is not None:
                taken.append(claim.job)
                end(store, claim)

        together(*[work] * 4)
        assert len(taken) == len(set(taken)) == 24 and jobs.pending(store) == 0

    def test_only_the_last_holder_may_write(self, store: Store) -> None:
        submit(store)
        former, held = take(store, lease=GONE), take(store)
        assert (former.attempts, held.attempts, held.fence) == (1, 2, 2)
        assert not end(store, former, result={"who": "former"})
        with store.write() as tx:
            assert jobs.fail(store, tx, former, error="late", again=True) is None
            assert not jobs.release(store, tx, former) and not jobs.stopped(store, tx, former)
        assert (jobs.renew(store, former), jobs.renew(store, held)) == ("lost", "held")
        with pytest.raises(LeaseLost):
            Job(store, former).step("a", 1, lambda: 1)
        with pytest.raises(LeaseLost):
            Job(store, former).commit("a", 1, lambda tx: pytest.fail("the effect of a former holder"))
        with pytest.raises(LeaseLost):
            signals.wait(store, former, "answer")
        assert end(store, held, result={"who": "held"}) and row(store, "job-1").result == {"who": "held"}

    def test_a_fenced_store_writes_nothing_for_a_former_holder(self, store: Store) -> None:
        submit(store)
        former = take(store, lease=GONE)
        with FencedStore(store.url, former, workspace=store.workspace) as fenced:
            with fenced.write() as tx:
                fenced.add_to_counter(tx, "effect")
            take(store)
            with pytest.raises(LeaseLost), fenced.write() as tx:
                fenced.add_to_counter(tx, "effect")
        with store.read() as tx:
            assert tx.scalar(sa.select(schema.counter.c.value)) == 1

    def test_a_lease_that_is_renewed_is_not_taken(self, store: Store) -> None:
        submit(store)
        held = take(store, lease=GONE)
        assert jobs.renew(store, held) == "held" == jobs.standing(store, held)
        assert jobs.claim(store, owner="other") is None

    def test_what_has_been_free_for_longest_comes_first(self, store: Store) -> None:
        for key in ("a", "b", "c"):
            submit(store, key)
        assert take(store, lease=timedelta(0)).key == "a"  # it kills its worker …
        time.sleep(0.01)
        assert [take(store).key for _ in range(3)] == ["b", "c", "a"]  # … and does not keep the others from their turn
        submit(store, "train", kind="train")
        assert jobs.claim(store, owner="w", kinds=("count",)) is None and take(store, kinds=("train",)).key == "train"

    def test_what_lacks_something_here_is_left_to_others_for_a_while(self, store: Store) -> None:
        elsewhere, here = submit(store, "far", kind="train"), submit(store, "near", kind="train")

        def absent() -> list[tuple[str, str]]:
            return [("train", "far")]

        assert take(store, not_here=absent).job == here
        assert jobs.claim(store, owner="suite", not_here=absent) is None
        with store.write() as tx:
            queued = store.database_now(tx) - jobs.OTHERS_FIRST - timedelta(seconds=1)
            tx.execute(sa.update(schema.job).where(schema.job.c.job == elsewhere).values(queued_at=queued))
        assert take(store, not_here=absent).job == elsewhere

    def test_a_failure_is_tried_again_after_a_pause_until_the_attempts_are_used(self, store: Store) -> None:
        submit(store, max_attempts=3)
        for number in (1, 2, 3):
            claim = take(store)
            assert claim.attempts == number
            with store.write() as tx:
                then = jobs.fail(store, tx, claim, error=f"failure {number}", again=True)
            assert then == ("queued" if number < 3 else "failed")
            assert jobs.claim(store, owner="w") is None  # it waits, or has ended
            make_due(store, "job-1")
        assert (row(store, "job-1").status, row(store, "job-1").error) == ("failed", "failure 3")

    def test_a_job_whose_holders_all_die_fails_with_the_reason(self, store: Store) -> None:
        submit(store, max_attempts=2)
        take(store, lease=GONE)
        take(store, lease=GONE)
        assert jobs.claim(store, owner="w") is None
        found = row(store, "job-1")
        assert found.status == "failed" and "killed in each of 2 attempts" in found.error and found.ended_at

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            (DataError("no rows"), "failed"),
            (UsageError("no such model"), "failed"),
            (StoreUnavailable("gone"), "queued"),
            (Unfinished("a gateway does not follow"), "queued"),
            (OSError("disk"), "queued"),
        ],
    )
    def test_only_what_may_succeed_later_is_tried_again(self, store: Store, error: Exception, status: str) -> None:
        submit(store)

        def work() -> bool:
            raise error

        assert attempt(store, take(store), work)
        assert row(store, "job-1").status == status and str(error) in row(store, "job-1").error

    def test_what_a_stopping_worker_gives_back_is_not_counted(self, store: Store) -> None:
        submit(store, max_attempts=1)
        held = take(store)
        with store.write() as tx:
            assert jobs.release(store, tx, held)
        assert take(store).attempts == 1

    # -- cancelling --------------------------------------------------------------------------------------------------

    def test_what_nobody_holds_is_cancelled_at_once(self, store: Store) -> None:
        submit(store)
        with store.write() as tx:
            assert jobs.cancel(store, tx, "job-1", actor="ana", why="not needed") == "cancelled"
        found = row(store, "job-1")
        assert (found.status, found.error) == ("cancelled", "cancelled by ana: not needed")
        assert jobs.claim(store, owner="w") is None and submit(store) == "job-2"
        (entry,) = audit.entries(store, subject="job-1")
        assert (entry.action, entry.actor, entry.detail["why"]) == ("job.cancel", "ana", "not needed")
        with store.write() as tx, pytest.raises(Refused, match="has ended"):
            jobs.cancel(store, tx, "job-1", actor="ana")
        with store.write() as tx, pytest.raises(ThingNotFound):
            jobs.cancel(store, tx, "job-9", actor="ana")

    def test_a_running_job_is_cancelled_by_its_holder(self, store: Store) -> None:
        submit(store)
        held = take(store)
        with store.write() as tx:
            assert jobs.cancel(store, tx, "job-1", actor="ana") == "running"
        assert jobs.standing(store, held) == "cancel" == jobs.renew(store, held)
        with store.write() as tx:
            assert jobs.stopped(store, tx, held)
        assert row(store, "job-1").status == "cancelled"

    def test_a_cancelled_job_whose_holder_died_is_not_run_again(self, store: Store) -> None:
        submit(store)
        take(store, lease=GONE)
        with store.write() as tx:
            jobs.cancel(store, tx, "job-1", actor="ana")
        assert jobs.claim(store, owner="w") is None and row(store, "job-1").status == "cancelled"

    # -- steps -------------------------------------------------------------------------------------------------------

    def test_a_step_is_done_once_and_again_for_another_input(self, store: Store) -> None:
        submit(store)
        done: list[str] = []

        def read(rows: int) -> Any:
            done.append(f"read {rows}")
            return {"rows": rows, "at": START}

        def train(rows: int) -> Any:
            done.append(f"train {rows}")
            return [rows]

        def work(claim: Claim, rows: int) -> Any:
            job = Job(store, claim)
            table = job.step("read", {"rows": rows}, lambda: read(rows))
            return job.step("train", table, lambda: train(table["rows"]))

        assert work(take(store, lease=GONE), 7) == work(take(store, lease=GONE), 7) == [7]
        assert done == ["read 7", "train 7"]
        assert work(take(store), 8) == [8]  # its input changed, and so did that of what follows from it
        assert done == ["read 7", "train 7", "read 8", "train 8"]

    def test_an_effect_and_its_step_commit_together(self, store: Store) -> None:
        submit(store)

        def count(tx: Any) -> None:
            store.add_to_counter(tx, "effect")

        def die(tx: Any) -> None:
            count(tx)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            Job(store, take(store, lease=GONE)).commit("count", None, die)
        for _ in range(2):
            Job(store, take(store, lease=GONE)).commit("count", None, count)
        with store.read() as tx:
            assert tx.scalar(sa.select(schema.counter.c.value)) == 1

    # -- signals -----------------------------------------------------------------------------------------------------

    def test_a_job_waits_as_a_row_until_its_signal(self, store: Store) -> None:
        submit(store)
        with pytest.raises(signals.Parked):
            Job(store, take(store)).wait("answer")
        found = row(store, "job-1")
        assert (found.status, found.waits_for, found.owner, found.lease_until) == ("waiting", "answer", None, None)
        assert jobs.claim(store, owner="w") is None and submit(store) is None
        with store.write() as tx:
            assert signals.send(store, tx, "job-1", "other", 1, by="ana")
        assert jobs.claim(store, owner="w") is None
        with store.write() as tx:
            assert signals.send(store, tx, "job-1", "answer", {"yes": True}, by="ana")
            assert not signals.send(store, tx, "job-1", "answer", {"yes": False}, by="eve")  # the first one stands
        held = take(store)
        assert Job(store, held).wait("answer") == {"yes": True} and held.attempts == 1

    def test_a_signal_may_come_before_the_wait(self, store: Store) -> None:
        submit(store)
        with store.write() as tx:
            signals.send(store, tx, "job-1", "answer", None, by="ana")
        assert Job(store, take(store)).wait("answer") is None

    def test_a_waiting_job_is_cancelled(self, store: Store) -> None:
        submit(store)
        with pytest.raises(signals.Parked):
            Job(store, take(store)).wait("answer")
        with store.write() as tx:
            assert jobs.cancel(store, tx, "job-1", actor="ana") == "cancelled"
            signals.send(store, tx, "job-1", "answer", 1, by="ana")
        assert jobs.claim(store, owner="w") is None

    def test_no_signal_is_lost_between_the_look_and_the_wait(self, store: Store) -> None:
        claims = []
        for number in range(10):
            submit(store, str(number))
            claims.append(take(store))

        def wait(claim: Claim) -> None:
            try:
                Job(store, claim).wait("go")
            except signals.Parked:
                return
            end(store, claim)

        def send(claim: Claim) -> None:
            with store.write() as tx:
                signals.send(store, tx, claim.job, "go", by="suite")

        for claim in claims:
            together(lambda c=claim: wait(c), lambda c=claim: send(c))  # type: ignore[misc]
        assert {row(store, claim.job).status for claim in claims} <= {"done", "queued"}

    # -- schedules ---------------------------------------------------------------------------------------------------

    def test_a_tick_makes_one_job_whoever_sees_it_first(self, store: Store) -> None:
        put(store, "all", every=HOUR)
        together(*[lambda: schedules.tick(store, START + 3 * HOUR)] * 4)
        assert made(store, "nightly") == {0: "job-1", 1: "job-2", 2: "job-3", 3: "job-4"}
        assert not schedules.tick(store, START + 3 * HOUR)
        assert row(store, "job-2").payload == {"n": 1, "tick": "2014-05-01T01:00:00Z"}

    @pytest.mark.parametrize(
        ("backfill", "expected"),
        [("none", {0: 1, 5: 0}), ("latest", {0: 1, 5: 1}), ("all", dict.fromkeys(range(6), 1))],
    )
    def test_missed_ticks_follow_the_backfill_rule(self, store: Store, backfill: Any, expected: dict[int, int]) -> None:
        put(store, backfill, every=HOUR)
        schedules.tick(store, START + HOUR / 2)
        end(store, take(store))
        schedules.tick(store, START + 5.5 * HOUR)
        ran = {number: int(job is not None) for number, job in made(store, "nightly").items()}
        assert set(ran) == set(range(6)) and {n: ran[n] for n in expected} == expected
        assert sum(ran.values()) == sum(expected.values())

    def test_a_paused_schedule_makes_nothing_and_goes_on_by_its_rule(self, store: Store) -> None:
        put(store, "latest", every=HOUR)
        with store.write() as tx:
            schedules.pause(store, tx, "nightly")
        assert not schedules.tick(store, START + 9 * HOUR)
        with store.write() as tx:
            schedules.pause(store, tx, "nightly", paused=False)
            assert not put_in(store, tx, "latest", every=HOUR)  # as it stands
        assert schedules.tick(store, START + 9 * HOUR)
        assert [job for job in made(store, "nightly").values() if job] == ["job-1"]
        with store.write() as tx, pytest.raises(ThingNotFound):
            schedules.pause(store, tx, "weekly")

    def test_a_tick_is_skipped_while_the_job_before_has_not_ended(self, store: Store) -> None:
        put(store, "latest", every=HOUR)
        for hour in range(3):
            schedules.tick(store, START + hour * HOUR)
        assert made(store, "nightly") == {0: "job-1", 1: None, 2: None}
        end(store, take(store))
        schedules.tick(store, START + 3 * HOUR)
        assert made(store, "nightly")[3] == "job-2"

    def test_a_schedule_that_is_removed_or_changed_makes_what_it_says_now(self, store: Store) -> None:
        put(store, "latest", every=HOUR)
        schedules.tick(store, START)
        end(store, take(store))
        put(store, "latest", every=2 * HOUR)
        assert not schedules.tick(store, START + HOUR) and schedules.tick(store, START + 2 * HOUR)
        with store.write() as tx:
            schedules.remove(store, tx, "nightly")
        assert not schedules.tick(store, START + 99 * HOUR) and made(store, "nightly") == {}


def put(store: Store, backfill: schedules.Backfill, *, every: timedelta) -> None:
    with store.write() as tx:
        assert put_in(store, tx, backfill, every=every)


def put_in(store: Store, tx: sa.Connection, backfill: schedules.Backfill, *, every: timedelta) -> bool:
    return schedules.put(
        store, tx, "nightly", kind="count", payload={"n": 1}, every=every, starts_at=START, backfill=backfill
    )


def made(store: Store, name: str) -> dict[int, str | None]:
    """Hour of each tick since START, and its job."""
    table = schema.schedule_tick
    with store.read() as tx:
        rows = tx.execute(sa.select(table).where(table.c.schedule == name).order_by(table.c.tick)).all()
    return {int((row.tick - START) / HOUR): row.job for row in rows}
