"""Jobs whose effects are counted, the workers that run them as real processes, and what kills those.

As a program it is both: `counting_jobs.py worker --root … --parent …` is a worker, `counting_jobs.py job --root …
--parent … --claim …` one job.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fairway import clock
from fairway.store import jobs, schema
from fairway.store.base import Store
from fairway.store.jobs import Claim
from fairway.store.steps import Job, attempt
from fairway.store.workspace import Workspace

ME = Path(__file__).resolve()
LEASE = timedelta(seconds=2)


# -- a job -----------------------------------------------------------------------------------------------------------


def count(workspace: Workspace, claim: Claim) -> bool:
    """Two effects, one in a step and one at the end, with time to be killed before, between and after."""
    store, job, payload = workspace.store, Job(workspace.store, claim), claim.payload

    def slowly(tx: Any = None) -> float:
        time.sleep(payload["seconds"] / 3)
        return float(payload["seconds"])

    def effect(tx: Any) -> None:
        store.add_to_counter(tx, f"step/{claim.job}")
        slowly()

    def do() -> bool:
        job.step("look", payload, slowly)
        job.commit("effect", payload, effect)
        slowly()
        with store.write() as tx:
            store.add_to_counter(tx, f"end/{claim.job}")
            return jobs.finish(store, tx, claim, result=payload)

    return attempt(store, claim, do)


# -- those who run it ------------------------------------------------------------------------------------------------


class Crew:
    """Some workers; one that ends is started again. Use as a context manager."""

    def __init__(self, workspace: Workspace, *, size: int, url: str | None = None) -> None:
        self.workspace, self._environment = workspace, os.environ | ({"FAIRWAY_STORE": url} if url else {})
        self.workers = [self._start() for _ in range(size)]

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, str(ME), "worker", "--root", str(self.workspace.root), "--parent", str(os.getpid())]
        return subprocess.Popen(command, env=self._environment, stderr=subprocess.DEVNULL)

    def kill_one(self, store: Store, rng: random.Random) -> None:
        """kill -9 of one that has a job (of any, when none has), and another takes its place."""
        table, until_s, busy = schema.job, clock.elapsed() + 5.0, []
        while not busy and clock.elapsed() < until_s:
            with store.read() as tx:
                owners = set(tx.scalars(sa.select(table.c.owner).where(table.c.status == "running")))
            pids = {int(owner.rpartition("-")[2]) for owner in owners}
            busy = [place for place, worker in enumerate(self.workers) if worker.pid in pids]
        place = rng.choice(busy or range(len(self.workers)))
        time.sleep(rng.uniform(0.0, 0.5))
        self.workers[place].send_signal(signal.SIGKILL)
        self.workers[place].wait()
        self.workers[place] = self._start()

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        codes = [worker.poll() for worker in self.workers]
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(30)
        assert codes == [None] * len(codes), f"workers ended by themselves: {codes}"


@dataclass
class Found:
    """What became of the jobs."""

    statuses: dict[str, int] = field(default_factory=dict)
    attempts: int = 0
    missing: list[str] = field(default_factory=list)  # effects that are not there
    double: list[str] = field(default_factory=list)  # effects that are there more than once


def submit(store: Store, n: int, *, seed: int, seconds: float) -> list[str]:
    rng, names = random.Random(seed), []
    with store.write() as tx:
        for number in range(n):
            name = jobs.submit(
                store, tx, kind="count", key=str(number), payload={"seconds": rng.uniform(0.1, 1.0) * seconds},
                max_attempts=20,
            )  # fmt: skip
            assert name is not None
            names.append(name)
    return names


def wait_for(store: Store, *, within_s: float) -> None:
    """Until every job has ended."""
    until_s = clock.elapsed() + within_s
    while jobs.pending(store):
        assert clock.elapsed() < until_s, f"{jobs.pending(store)} jobs have not ended within {within_s} s"
        time.sleep(0.1)


def look(store: Store, names: list[str]) -> Found:
    found = Found()
    with store.read() as tx:
        for row in tx.execute(sa.select(schema.job).where(schema.job.c.job.in_(names))):
            found.statuses[row.status] = found.statuses.get(row.status, 0) + 1
            found.attempts += row.attempts
        counts = {row.name: row.value for row in tx.execute(sa.select(schema.counter))}
    for name in [f"{what}/{job}" for job in names for what in ("step", "end")]:
        if counts.get(name, 0) == 0:
            found.missing.append(name)
        elif counts[name] > 1:
            found.double.append(name)
    return found


def disturb(
    crew: Crew, store: Store, *, kills: int, rng: random.Random, pause_s: float, also: Callable[[], None]
) -> None:
    """Kill a worker now and then; `also` is called between two kills."""
    for _ in range(kills):
        time.sleep(rng.uniform(0.3, 1.7) * pause_s)
        crew.kill_one(store, rng)
        also()


# -- as a program ----------------------------------------------------------------------------------------------------


def main() -> int:
    what, *arguments = sys.argv[1:]
    if what == "job":
        from fairway.process import job

        return job.main(arguments, run=count)
    from fairway.process import worker
    from fairway.process.holder import run_in_child

    def make(workspace: Workspace) -> worker.Worker:
        def run(_: Workspace, claim: Claim) -> None:
            command = (sys.executable, str(ME), "job")
            run_in_child(workspace, claim, stop=made.stopping.is_set, lease=LEASE, command=command)

        made = worker.Worker(workspace, observers=[], tick=lambda *_: False, run_job=run, lease=LEASE)
        return made

    return worker.main(arguments, make=make)


if __name__ == "__main__":
    sys.exit(main())
