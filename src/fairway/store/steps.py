"""A claimed job in the hands of the code that does it: named steps that are done once, and waits for a signal.

What is kept of a job is data alone: names, hashes of inputs and results as JSON. So its code may be edited between two
attempts, also while it waits for days: the new code finds the results of the old steps by their names.
"""

import json
import logging
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock, fingerprint
from fairway.errors import FairwayError, LeaseLost
from fairway.store import jobs, schema, signals
from fairway.store.base import Store, jsonable
from fairway.store.jobs import Claim

log = logging.getLogger(__name__)


class Job:
    """One attempt at a job. Use from one thread; steps are told apart by their names, so each name stands once.

    >>> def run(job: Job) -> None:
    ...     made = job.step("train", {"model": "churn"}, lambda: {"version": 3})
    ...     answer = job.wait("approval")
    ...     job.commit("write", [made, answer], lambda tx: None)
    """

    def __init__(self, store: Store, claim: Claim) -> None:
        self.store, self.claim = store, claim

    @property
    def payload(self) -> dict[str, Any]:
        return self.claim.payload

    def step(self, name: str, given: Any, do: Callable[[], Any]) -> Any:
        """The result of `do()`, which is kept; a later attempt takes the kept one when `given` is the same.

        given: JSON; what the step depends on, results of earlier steps included: when it differs, the step runs again.
        The result must be JSON, and comes back as it was stored. When the process dies between the doing and the
        keeping, it is done again: an effect in the store belongs into `commit`. Raises: LeaseLost.
        """
        digest = fingerprint.of_value(jsonable(given))
        known = self._known(name, digest)
        if known is not None:
            return known[0]
        result = _plain(do())
        with self.store.write() as tx:
            self._keep(tx, name, digest, result)
        return result

    def commit(self, name: str, given: Any, do: Callable[[Connection], Any]) -> Any:
        """As `step`, with `do` inside the transaction that keeps its result: its effect in the store is there once."""
        digest = fingerprint.of_value(jsonable(given))
        known = self._known(name, digest)
        if known is not None:
            return known[0]
        with self.store.write() as tx:
            jobs.guard(self.store, tx, self.claim)  # before the effect: only one holder gets past here
            result = _plain(do(tx))
            self._keep(tx, name, digest, result)
        return result

    def wait(self, name: str, *, known: Callable[[Connection], Any] | None = None) -> Any:
        """The payload of the signal `name`, or the job is parked until it comes. See `signals.wait`."""
        return signals.wait(self.store, self.claim, name, known=known)

    def _known(self, name: str, digest: str) -> tuple[Any] | None:
        table = schema.job_step
        with self.store.read() as tx:
            row = tx.execute(
                sa.select(table.c.input, table.c.result).where(
                    table.c.workspace == self.store.workspace, table.c.job == self.claim.job, table.c.step == name
                )
            ).first()
        return (row.result,) if row is not None and row.input == digest else None

    def _keep(self, tx: Connection, name: str, digest: str, result: Any) -> None:
        jobs.guard(self.store, tx, self.claim)
        key = {"workspace": self.store.workspace, "job": self.claim.job, "step": name}
        values = {"input": digest, "result": result, "fence": self.claim.fence, "ended_at": clock.now()}
        self.store.upsert(tx, schema.job_step, key | values)


def attempt(store: Store, claim: Claim, do: Callable[[], bool]) -> bool:
    """One attempt: `do` ends the job and says so; what it raises parks, queues again or fails the job.

    Returns: False when the lease was lost: nothing was written, another holder does it again. Raises: StoreError when
    not even the failure can be written; the job's lease then ends by itself.
    """
    try:
        return do()
    except signals.Parked as parked:
        log.info("%s", parked)
        return True
    except LeaseLost as lost:
        log.warning("%s", lost)
        return False
    except Exception as error:
        text = str(error) if isinstance(error, FairwayError) else f"{type(error).__name__}: {error}"
        with store.write() as tx:
            after = jobs.fail(store, tx, claim, error=text, again=jobs.worth_retry(error))
        ours = not isinstance(error, FairwayError)
        log.error("%s, attempt %d: %s (%s)", claim.job, claim.attempts, text, after or "lost", exc_info=ours)
        return after is not None


def _plain(value: Any) -> Any:
    """As it will come back from the store, so that the first attempt sees what a later one would. Raises: TypeError."""
    return json.loads(json.dumps(jsonable(value), allow_nan=False))
