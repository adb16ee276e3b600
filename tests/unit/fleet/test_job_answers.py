"""A job that waits for a person's answer goes on with it, whether the answer comes before or after the wait."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairway import clock
from fairway.rollout import asks
from fairway.store import jobs, signals
from fairway.store.base import Store
from fairway.store.jobs import Claim
from fairway.store.steps import Job


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        yield store


def ask(store: Store) -> str:
    with store.write() as tx:
        return asks.open_review(
            store, tx, model="churn", kind="approve", subject="rollout-1", question="churn@1: approve?", evidence={},
            choices={"approve": "it begins", "reject": "it ends"}, assignee="risk", now=clock.now(),
        )  # fmt: skip


def record(store: Store, review: str, answer: str) -> None:
    with store.write() as tx:
        asks.record_answer(store, tx, review, answer=answer, actor="kim", why="MC-212", now=clock.now())


def claimed(store: Store) -> Claim:
    with store.write() as tx:
        jobs.submit(store, tx, kind="deploy", key="churn", payload={})
    claim = jobs.claim(store, owner="w")
    assert claim is not None
    return claim


def wait(store: Store, claim: Claim, review: str) -> Any:
    return Job(store, claim).wait(asks.answered(review), known=lambda tx: asks.answer_of(store, tx, review))


def test_an_answer_wakes_the_job_that_waits_for_it(store: Store) -> None:
    review, claim = ask(store), claimed(store)
    with pytest.raises(signals.Parked):
        wait(store, claim, review)
    record(store, ask(store), "approve")
    again = jobs.claim(store, owner="w")
    assert again is not None and wait(store, again, review) == {"answer": "approve", "by": "kim"}


def test_an_answer_that_came_before_the_wait_is_found(store: Store) -> None:
    review, claim = ask(store), claimed(store)
    record(store, review, "reject")
    assert wait(store, claim, review) == {"answer": "reject", "by": "kim"}


def test_a_question_that_is_withdrawn_wakes_the_job_too(store: Store) -> None:
    review, claim = ask(store), claimed(store)
    with pytest.raises(signals.Parked):
        wait(store, claim, review)
    with store.write() as tx:
        asks.withdraw(store, tx, subject="rollout-1", now=clock.now(), why="rolled back")
    again = jobs.claim(store, owner="w")
    assert again is not None and wait(store, again, review)["answer"] == "withdrawn"
