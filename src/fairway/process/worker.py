"""The worker: folds what the gateways sealed, lets the loop tick, and runs jobs, each in a child process.

On the real clock it goes round by itself. On a virtual clock it does nothing until the supervisor asks it to `settle`.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fairway import clock
from fairway.data import log as prediction_log
from fairway.data.log import Observer
from fairway.errors import FairwayError, SegmentBroken, StoreUnavailable, UsageError
from fairway.process import control
from fairway.process.holder import kept_alive, run_in_child
from fairway.process.sources import Sources
from fairway.serve import lifeline
from fairway.serve.spool import sealed_segments
from fairway.store import jobs
from fairway.store.jobs import Claim
from fairway.store.workspace import Workspace

ROUND_S = 0.5
MAX_FOLD_BYTES = 2 * 1024 * 1024  # in one transaction: a rollback must not wait long for the writer's place
MAX_ROUNDS = 1000  # of one settle: more means that something changes for ever
LONGEST_PAUSE_S = 30.0  # after rounds that failed
_STOP_S = 15.0

Tick = Callable[[Workspace, datetime], bool]

log = logging.getLogger(__name__)


class Worker:
    """One round of work, and `settle`: rounds until nothing changes. Not for several threads at once.

    run_job: runs a claimed job to its end; by default in a child process, and in this one what is light.
    observers, tick: by default the loop's. lease: how long a job stays with a worker that shows no life.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        observers: Sequence[Observer] | None = None,
        tick: Tick | None = None,
        run_job: Callable[[Workspace, Claim], None] | None = None,
        lease: timedelta = jobs.LEASE,
    ) -> None:
        self.workspace = workspace
        self.name = f"{socket.gethostname()}-worker-{os.getpid()}"
        self.stopping = threading.Event()  # set: the job at hand is given back
        if observers is None or tick is None:
            from fairway.fleet import loop

            observers = loop.OBSERVERS if observers is None else observers
            tick = loop.tick if tick is None else tick
        self._observers, self._tick = observers, tick
        self._run_job = run_job
        self._lease = lease
        self.on_events: Callable[[list[dict[str, Any]]], None] = lambda events: None  # what a fold found of sources

    def fold(self) -> bool:
        """Fold what is sealed; whether there was something. A damaged segment is set aside and counted."""
        paths = sealed_segments(self.workspace.dir("spool"))
        if not clock.is_virtual():  # there all at once, so that nothing depends on how the rows were spread
            paths = _up_to(paths, MAX_FOLD_BYTES)
        if not paths:
            return False
        try:
            self.on_events(prediction_log.fold(self.workspace, paths, self._observers).events)
        except SegmentBroken as error:
            log.error("folding: %s", error)
            for path in paths:
                self._fold_alone(path)
        return True

    def _fold_alone(self, path: Path) -> None:
        try:
            self.on_events(prediction_log.fold(self.workspace, path, self._observers).events)
        except SegmentBroken as error:  # only this: a store that can't be reached says nothing about the segment
            broken = self.workspace.dir("spool") / "broken"
            broken.mkdir(exist_ok=True)
            path.rename(broken / path.name)
            with self.workspace.store.write() as tx:
                self.workspace.store.add_to_counter(tx, "segment_broken")
            log.error("segment %s is kept in %s: %s", path.name, broken, error)

    def tick(self, now: datetime) -> bool:
        return self._tick(self.workspace, now)

    def claim(self) -> Claim | None:
        """A job to run, of the kinds that this version of fairway knows: a newer one beside it may know more."""
        return jobs.claim(
            self.workspace.store, owner=self.name, lease=self._lease, kinds=self._kinds(), not_here=self._not_here
        )

    def _kinds(self) -> Collection[str] | None:
        if self._run_job is not None:
            return None
        from fairway.fleet import jobs as kinds

        return kinds.known()

    def _not_here(self) -> list[tuple[str, str]]:
        """Trainings whose project is in no folder of this machine, where another machine may have it."""
        if self._run_job is not None or not self.workspace.store.is_postgres or clock.is_virtual():
            return []
        from fairway.data.project import absent

        return [("train", model) for model in absent(self.workspace)]

    def run(self, claim: Claim) -> None:
        """Run a claimed job to its end, or give it back when the worker stops."""
        if self._run_job is not None:
            self._run_job(self.workspace, claim)
            return
        from fairway.fleet import schedules

        if claim.kind in schedules.LIGHT:
            with kept_alive(self.workspace.store, claim, self._lease):
                schedules.run(self.workspace, claim)
        else:
            run_in_child(self.workspace, claim, stop=self.stopping.is_set, lease=self._lease)

    def settle(self, now: datetime) -> bool:
        """Fold, tick and run jobs until none of them changes anything; whether anything did. Raises: FairwayError."""
        for number in range(MAX_ROUNDS):
            changed = self.fold()
            while self.fold():
                pass
            changed = self.tick(now) or changed
            while (claim := self.claim()) is not None:
                self.run(claim)
                changed = True
            if not changed:
                return number > 0
        raise FairwayError(f"the loop still changes things after {MAX_ROUNDS} rounds at {clock.iso(now)}")


def _up_to(paths: Sequence[Path], limit: int) -> list[Path]:
    taken: list[Path] = []
    size = 0
    for path in paths:
        size += path.stat().st_size
        if taken and size > limit:
            break
        taken.append(path)
    return taken


def main(arguments: list[str] | None = None, *, make: Callable[[Workspace], Worker] = Worker) -> int:
    parser = argparse.ArgumentParser(prog="fairway.process.worker")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    lifeline.die_with(options.parent)
    asyncio.run(_run(make(Workspace(options.root, os.environ.get("FAIRWAY_WORKSPACE", "default")))))
    return 0


def control_socket(workspace: Workspace) -> Path:
    return workspace.sockets / "worker.sock"


async def _run(worker: Worker) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    settling = asyncio.Lock()
    sources = Sources(worker.workspace)
    worker.on_events = sources.keep

    async def command(question: dict[str, Any]) -> dict[str, Any]:
        if question["op"] == "ping":
            return {}
        if question["op"] == "fill":
            return {"new": await asyncio.to_thread(sources.fill, question["model"], clock.now())}
        if question["op"] != "settle":
            raise UsageError(f"unknown op {question['op']!r}")
        async with settling:
            return {"changed": await asyncio.to_thread(worker.settle, clock.now())}

    server = await control.serve(control_socket(worker.workspace), command)
    round_trips = () if clock.is_virtual() else (_every(worker, stop), _jobs(worker, stop), _sources(sources, stop))
    tasks = [asyncio.create_task(coroutine) for coroutine in round_trips]
    await stop.wait()
    worker.stopping.set()
    server.close()
    _, late = await asyncio.wait(tasks, timeout=_STOP_S) if tasks else (set(), set())
    if late:
        log.info("a job is left to the next worker: its lease ends with this process")
        os._exit(0)  # its child dies with us


async def _every(worker: Worker, stop: asyncio.Event) -> None:
    """Fold and tick."""

    def round_() -> bool:
        worker.fold()
        worker.tick(clock.now())
        return False

    await _rounds(round_, stop, "a round of the loop failed")


async def _jobs(worker: Worker, stop: asyncio.Event) -> None:
    def round_() -> bool:
        claim = worker.claim()
        if claim is not None:
            worker.run(claim)
        return claim is not None

    await _rounds(round_, stop, "a job could not be run")


async def _sources(sources: Sources, stop: asyncio.Event) -> None:
    await _rounds(lambda: sources.round(clock.now()) and False, stop, "a look at the sources failed")
    sources.close()


async def _rounds(work: Callable[[], bool], stop: asyncio.Event, failed: str) -> None:
    """Work again and again; at once when it says so, else after a pause.

    An error is logged and the round repeated later: nothing of it was kept. A store that can't be reached is said once,
    and once that it is back.
    """
    pause_s, gone = ROUND_S, False
    while not stop.is_set():
        again = False
        try:
            again = await asyncio.to_thread(work)
            if gone:
                log.info("the store is back")
            pause_s, gone = ROUND_S, False
        except StoreUnavailable as error:
            if not gone:
                log.warning("waiting for the store: %s", error)
            pause_s, gone = min(pause_s * 1.5, 5.0), True
        except Exception:
            log.exception(failed)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        if not again:
            await _pause(stop, pause_s)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


if __name__ == "__main__":
    sys.exit(main())
