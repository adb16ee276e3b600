"""The worker: folds what the gateways sealed, lets the loop tick, and runs jobs, each in a child process.

On the real clock it goes round by itself. On a virtual clock it does nothing until the supervisor asks it to `settle`.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from fairway import clock
from fairway.data import log as prediction_log
from fairway.data.log import Observer
from fairway.errors import FairwayError, StoreError, UsageError
from fairway.process import control
from fairway.serve import lifeline
from fairway.serve.spool import sealed_segments
from fairway.store import jobs
from fairway.store.jobs import Claim
from fairway.store.workspace import Workspace

ROUND_S = 0.5
MAX_FOLD_BYTES = 2 * 1024 * 1024  # in one transaction: a rollback must not wait long for the writer's place
MAX_ROUNDS = 1000  # of one settle: more means that something changes for ever
_RENEW_S = 10.0
_STOP_S = 15.0

Tick = Callable[[Workspace, datetime], bool]

log = logging.getLogger(__name__)


class Worker:
    """One round of work, and `settle`: rounds until nothing changes. Not for several threads at once.

    run_job: runs a claimed job to its end; by default in a child process. observers, tick: by default the loop's.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        observers: Sequence[Observer] | None = None,
        tick: Tick | None = None,
        run_job: Callable[[Workspace, Claim], None] | None = None,
    ) -> None:
        self.workspace = workspace
        self.name = f"worker-{os.getpid()}"
        if observers is None or tick is None:
            from fairway.fleet import loop

            observers = loop.OBSERVERS if observers is None else observers
            tick = loop.tick if tick is None else tick
        self._observers, self._tick = observers, tick
        self._run_job = run_job or run_in_child

    def fold(self) -> bool:
        """Fold what is sealed; whether there was something. A damaged segment is set aside and counted."""
        paths = sealed_segments(self.workspace.dir("spool"))
        if not clock.is_virtual():  # there all at once, so that nothing depends on how the rows were spread
            paths = _up_to(paths, MAX_FOLD_BYTES)
        if not paths:
            return False
        try:
            prediction_log.fold(self.workspace, paths, self._observers)
        except StoreError as error:
            log.error("folding: %s", error)
            for path in paths:
                self._fold_alone(path)
        return True

    def _fold_alone(self, path: Path) -> None:
        try:
            prediction_log.fold(self.workspace, path, self._observers)
        except StoreError as error:
            broken = self.workspace.dir("spool") / "broken"
            broken.mkdir(exist_ok=True)
            path.rename(broken / path.name)
            with self.workspace.store.write() as tx:
                self.workspace.store.add_to_counter(tx, "segment_broken")
            log.error("segment %s is kept in %s: %s", path.name, broken, error)

    def tick(self, now: datetime) -> bool:
        return self._tick(self.workspace, now)

    def claim(self) -> Claim | None:
        return jobs.claim(self.workspace.store, owner=self.name)

    def run(self, claim: Claim) -> None:
        self._run_job(self.workspace, claim)

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


def run_in_child(workspace: Workspace, claim: Claim) -> None:
    """Run a job in a process of its own and wait for it, renewing the lease.

    A child that dies without ending its job leaves it failed, with the reason.
    """
    import subprocess

    command = [
        sys.executable, "-m", "fairway.process.job", "--root", str(workspace.root), "--parent", str(os.getpid()),
        "--claim", json.dumps(asdict(claim)),
    ]  # fmt: skip
    child = subprocess.Popen(command)
    while True:
        try:
            code = child.wait(timeout=_RENEW_S)
            break
        except subprocess.TimeoutExpired:
            if not jobs.renew(workspace.store, claim):
                child.kill()  # another worker has the job: two must not finish it
    how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
    error = None if code == 0 else f"the job's process {how}; see the worker's log"
    with workspace.store.write() as tx:
        jobs.finish(workspace.store, tx, claim, error=error)  # no effect when the job has ended itself


def _up_to(paths: Sequence[Path], limit: int) -> list[Path]:
    taken: list[Path] = []
    size = 0
    for path in paths:
        size += path.stat().st_size
        if taken and size > limit:
            break
        taken.append(path)
    return taken


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fairway.process.worker")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    lifeline.die_with(options.parent)
    asyncio.run(_run(Worker(Workspace(options.root, os.environ.get("FAIRWAY_WORKSPACE", "default")))))
    return 0


def control_socket(workspace: Workspace) -> Path:
    return workspace.sockets / "worker.sock"


async def _run(worker: Worker) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    settling = asyncio.Lock()

    async def command(question: dict[str, Any]) -> dict[str, Any]:
        if question["op"] == "ping":
            return {}
        if question["op"] != "settle":
            raise UsageError(f"unknown op {question['op']!r}")
        async with settling:
            return {"changed": await asyncio.to_thread(worker.settle, clock.now())}

    server = await control.serve(control_socket(worker.workspace), command)
    round_trips = () if clock.is_virtual() else (_every(worker, stop), _jobs(worker, stop))
    tasks = [asyncio.create_task(coroutine) for coroutine in round_trips]
    await stop.wait()
    server.close()
    _, late = await asyncio.wait(tasks, timeout=_STOP_S) if tasks else (set(), set())
    if late:
        log.info("a job is left to the next worker: its lease ends with this process")
        os._exit(0)  # its child dies with us


async def _every(worker: Worker, stop: asyncio.Event) -> None:
    """Fold and tick. An error is logged and the round repeated later: nothing of it was kept."""
    pause_s = ROUND_S
    while not stop.is_set():
        try:
            await asyncio.to_thread(worker.fold)
            await asyncio.to_thread(worker.tick, clock.now())
            pause_s = ROUND_S
        except Exception:
            log.exception("a round of the loop failed")
            pause_s = min(pause_s * 2, 30.0)
        await _pause(stop, pause_s)


async def _jobs(worker: Worker, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            claim = await asyncio.to_thread(worker.claim)
            if claim is not None:
                await asyncio.to_thread(worker.run, claim)
                continue
        except Exception:
            log.exception("a job could not be run")
        await _pause(stop, ROUND_S)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


if __name__ == "__main__":
    sys.exit(main())
