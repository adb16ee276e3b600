"""`fairway backtest`: a project's history, replayed through the code of production under a virtual clock.

It happens in a scratch workspace inside the project's own (`.fairway/backtests/NAME`), which is kept to be looked at;
nothing of the project's registry, log or endpoints is read or changed.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fairway import clock
from fairway.contract.settings import RetrainSettings
from fairway.contract.text import dump_settings
from fairway.contract.view import parse_duration
from fairway.data.project import Project, load_project
from fairway.errors import GateFailed, UsageError
from fairway.path.deploy import deploy
from fairway.path.train import train
from fairway.process.embedded import EmbeddedServing
from fairway.process.grid import grid
from fairway.store.workspace import Workspace
from fairway.testing.history import history_of
from fairway.testing.replay import Replayed, replay
from fairway.testing.summary import summary_of

STEP = timedelta(minutes=15)  # rows, events and labels of a step are sent together, each with its own time


@dataclass(frozen=True)
class EmbeddedTarget:
    """The parts of `fairway serve` inside this process, on a virtual clock that this process owns."""

    serving: EmbeddedServing
    clock: clock.VirtualClock

    def call(self, path: str, body: bytes) -> tuple[int, bytes]:
        return self.serving.call("POST", path, body)

    def advance(self, to: datetime) -> None:
        """Settle at every full hour on the way, as the supervisor does; then stand at `to`."""
        for at in grid(self.clock.now(), to):
            self.clock.move(at)
            self.serving.settle(at)
        self.clock.move(to)


def run_backtest(
    project: Project,
    *,
    start: datetime,
    end: datetime,
    retrain: str = "alarm",
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Train on what was known at `start`, deploy, and live through [start, end).

    retrain: "never", "alarm" (when live performance has fallen), or an age such as "30d" (alarms count too).
    Returns: JSON-able summary: counts, live metric per week, alarms, rollouts, versions, and the scratch folder.
    Raises: UsageError for a project without a time column or with nothing to replay; GateFailed when the first version
    may not be deployed.
    """
    settings = project.settings
    if settings.at is None:
        raise UsageError(
            f"{settings.name} has no time column (at = ... in fairway.toml), so what was known when can't be told: "
            "nothing to replay"
        )
    if end <= start:
        raise UsageError(f"--to {end.date()} is not after --from {start.date()}")
    history = history_of(project, start=start, end=end)
    if history.rows.is_empty():
        raise UsageError(f"{settings.name} has no rows between {start.date()} and {end.date()}")
    with _scratch(project, start, retrain) as (copy, target):
        say(f"training on what was known at {start:%d %b %Y %H:%M} UTC")
        result = train(copy, cause="backtest", actor="backtest")
        if result.version is None or result.verdict == "fail":
            raise GateFailed(f"the first version may not be deployed; its run is in {copy.root}")
        target.serving.apply_desired_state()
        deploy(
            copy.workspace,
            settings.name,
            actor="backtest",
            call=target.call,
            wait=lambda endpoint, epoch: target.serving.apply_desired_state(),
        )
        target.serving.apply_desired_state()

        def tell(at: datetime, done: Replayed) -> None:
            if at.hour == 0 and at.minute == 0:
                say(f"{at:%d %b %Y}  {done.predictions:,} predictions, {done.labels:,} labels")

        done = replay(target, history, start=start, end=end, step=STEP, workspace=copy.workspace.name, say=tell)
        return summary_of(copy, done, start=start, end=end)


@contextmanager
def _scratch(project: Project, start: datetime, retrain: str) -> Iterator[tuple[Project, EmbeddedTarget]]:
    """A copy of the project in a fresh workspace, whose clock stands at `start`."""
    name = f"{start:%Y%m%d}-{retrain}"
    folder = project.workspace.dir("backtests") / name
    shutil.rmtree(folder, ignore_errors=True)
    copy_project(project, folder, retrain=retrain)
    workspace = Workspace.create(folder, embedded=True)
    virtual = clock.VirtualClock(workspace.folder / "clock", start)
    before = os.environ.get(clock.VARIABLE)
    os.environ[clock.VARIABLE] = str(virtual.path)
    serving = EmbeddedServing(workspace)
    try:
        yield load_project(folder), EmbeddedTarget(serving, virtual)
    finally:
        serving.close()
        workspace.store.close()
        if before is None:
            del os.environ[clock.VARIABLE]
        else:
            os.environ[clock.VARIABLE] = before


def copy_project(project: Project, folder: Path, *, retrain: str | None = None) -> None:
    """The project's code, contract and settings in another folder; data is read where it is.

    With a `retrain` rule, for a backtest: rows then state their own time.
    """
    folder.mkdir(parents=True)
    for path in project.root.rglob("*.py"):
        relative = path.relative_to(project.root)
        if not any(part.startswith(".") for part in relative.parts):
            (folder / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, folder / relative)
    shutil.copy(project.root / "contract.toml", folder / "contract.toml")
    settings = project.settings
    source = settings.data.source
    if source is not None and "://" not in source:
        settings = replace(settings, data=replace(settings.data, source=str((project.root / source).resolve())))
    sources = {
        name: replace(s, path=str((project.root / s.path).resolve())) if s.path else s
        for name, s in settings.sources.items()
    }
    settings = replace(settings, sources=sources)
    if retrain is not None:
        endpoint = replace(settings.endpoint, at_from_caller=True, max_skew=max(settings.endpoint.max_skew, STEP))
        settings = replace(settings, retrain=_retrain(settings.retrain, retrain), endpoint=endpoint)
    (folder / "fairway.toml").write_text(dump_settings(settings))


def _retrain(settings: RetrainSettings, rule: str) -> RetrainSettings:
    if rule == "never":
        return replace(settings, every=None, on_alarm=False)
    if rule == "alarm":
        return replace(settings, every=None, on_alarm=True)
    return replace(settings, every=parse_duration(rule), on_alarm=True)
