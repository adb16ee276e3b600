"""What `fairway serve` does, in one process and in step: for a backtest, where nothing may depend on timing."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

from fairway import clock
from fairway.data.log import Observer
from fairway.errors import FairwayError, Unfinished
from fairway.process.actuator import read_desired
from fairway.process.sources import Sources
from fairway.process.worker import Tick, Worker
from fairway.runtime import loader, package
from fairway.serve import desired, scoring
from fairway.serve.endpoint import Desired, VersionSpec
from fairway.serve.gateway import Gateway
from fairway.serve.predictor import InProcessPredictor, Predictor
from fairway.store.jobs import Claim
from fairway.store.workspace import Workspace

MAX_ROUNDS = 100

log = logging.getLogger(__name__)


class EmbeddedServing:
    """One gateway, the worker's rounds and desired state over a workspace; nothing happens between calls.

    The same gateway core, spool, fold and loop as the processes have; models run in this process. Not thread-safe; may
    be called from a job that `settle` runs (a deployment tests its candidate through `call`).
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        observers: Sequence[Observer] | None = None,
        tick: Tick | None = None,
        run_job: Callable[[Workspace, Claim], None] | None = None,
        online: str | None = None,
    ) -> None:
        """run_job: by default `fairway.fleet.jobs.run_job`, in this process, with this object's `call` and `wait`.

        online: URL of the online state; by default a file of the workspace, whatever FAIRWAY_ONLINE says.
        """
        self.workspace = workspace
        self._loop = asyncio.new_event_loop()
        self._loaded: dict[str, Predictor] = {}
        self._worker = Worker(workspace, observers=observers, tick=tick, run_job=run_job or self._job)
        self._online = online or str(workspace.folder / "online.db")
        self._sources = Sources(workspace, place=self._online)
        self._gateway = self._loop.run_until_complete(self._start())
        self.failed: dict[str, str] = {}  # endpoint -> why its newest epoch can't be reached

    async def _start(self) -> Gateway:
        return Gateway(
            workspace=self.workspace.name,
            name="g1",
            spool=self.workspace.dir("spool"),
            online=self._online,
            predictor=self._predictor,
            access=None,
        )

    def _predictor(self, spec: VersionSpec) -> Predictor:
        """A model is loaded once; loading imports the project's code into this process."""
        if spec.artifact not in self._loaded:
            model = loader.load(Path(spec.dir), artifact=spec.artifact)
            self._loaded[spec.artifact] = InProcessPredictor(partial(scoring.score, model))
        return self._loaded[spec.artifact]

    def call(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """One request; desired state is up to date before it is answered."""
        self.apply_desired_state()
        status, _, answer = self._loop.run_until_complete(self._gateway.handle(method, path, {}, body))
        return status, answer

    def wait(self, endpoint: str, epoch: int) -> None:
        """Bring the epoch about. Raises: Unfinished with the reason why it could not."""
        self.apply_desired_state()
        if self._gateway.report()["active"].get(endpoint, -1) < epoch:
            raise Unfinished(f"{endpoint}: epoch {epoch} is not active: {self.failed.get(endpoint, 'unknown')}")

    def apply_desired_state(self) -> bool:
        """Prepare and activate what the store says; whether there was something to do."""
        rows, artifacts, _ = read_desired(self.workspace)
        active = self._gateway.report()["active"]
        self._gateway.expect([])
        worked = False
        for row in rows:
            name = row["endpoint"]
            if active.get(name) == row["epoch"]:
                continue
            try:
                state = desired.build(row, artifacts, self._locate)
                self._fill(state)
                self._loop.run_until_complete(self._prepare_and_activate(state))
                self.failed.pop(name, None)
                worked = True
            except (FairwayError, KeyError) as error:
                if self.failed.get(name) != str(error):
                    log.error("%s: epoch %d can't be reached: %s", name, row["epoch"], error)
                self.failed[name] = str(error)
        for gone in active.keys() - {row["endpoint"] for row in rows}:
            self._gateway.drop(gone)
        return worked

    async def _prepare_and_activate(self, state: Desired) -> None:
        await self._gateway.prepare(state)
        self._gateway.activate(state.endpoint, state.epoch)

    def _fill(self, state: Desired) -> None:
        """As the supervisor does it: what hinders it is logged, and hinders no epoch."""
        if not state.versions or state.staging:
            return
        try:
            self._sources.fill(state.model, clock.now())
        except FairwayError as error:
            log.warning("%s: its look-ups may lack history: %s", state.model, error)

    def _locate(self, artifact: str) -> tuple[str, str]:
        return str(package.materialise(self.workspace, artifact)), ""

    def settle(self, now: datetime | None = None) -> None:
        """Seal, fold, tick, jobs, desired state: until nothing changes any more. Raises: FairwayError."""
        for _ in range(MAX_ROUNDS):
            self._loop.run_until_complete(self._gateway.spool.seal())
            changed = self._worker.settle(now or clock.now())
            if not self.apply_desired_state() and not changed:
                return
        raise FairwayError(f"desired state still changes after {MAX_ROUNDS} rounds")

    def _job(self, workspace: Workspace, claim: Claim) -> None:
        from fairway.fleet import jobs

        jobs.run_job(workspace, claim, call=lambda path, body: self.call("POST", path, body), wait=self.wait)

    def close(self) -> None:
        self._loop.run_until_complete(self._gateway.close())
        self._sources.close()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
