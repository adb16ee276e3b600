"""Jobs, steps, signals and schedules on a real Postgres."""

from collections.abc import Iterator

import pytest

from fairway import clock
from fairway.store import jobs
from fairway.store.base import Store
from fairway.testing.job_suite import JobSuite, end, submit, take


class TestPostgres(JobSuite):
    @pytest.fixture
    def store(self, postgres_url: str) -> Iterator[Store]:
        with Store(postgres_url) as store:
            yield store

    def test_claims_and_heartbeats_do_not_wait_for_a_long_transaction(self, store: Store) -> None:
        submit(store, "a")
        submit(store, "b")
        held = take(store)
        began_s = clock.elapsed()
        with store.write() as tx:  # a fold of another machine, say
            store.add_to_counter(tx, "long")
            with Store(store.url) as other:
                assert take(other).key == "b"
                assert jobs.renew(other, held) == "held"
                assert jobs.claim(other, owner="w") is None
        assert clock.elapsed() - began_s < 8  # the writer's place is waited for 10 s
        assert end(store, held)

    def test_a_row_in_other_hands_is_passed_over(self, store: Store) -> None:
        submit(store, "a")
        submit(store, "b")
        with store.beside() as tx:
            jobs.find(store, tx, "job-1", lock=True)
            with Store(store.url) as other:
                assert take(other).key == "b"
        assert take(store).key == "a"
