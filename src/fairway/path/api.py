"""The verbs in Python, for notebooks and scripts: what `fairway.train(...)` and its like call. Thin on purpose."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairway import clock
from fairway.contract.view import parse_duration
from fairway.data.project import Project, load_project
from fairway.errors import UsageError
from fairway.registry.versions import get, parse_thing
from fairway.store import tokens
from fairway.store.workspace import Workspace

if TYPE_CHECKING:
    import polars as pl

    from fairway.path.deploy import DeployResult
    from fairway.path.notebook import NotebookProject
    from fairway.path.train import TrainResult
    from fairway.rollout.controller import Moved
    from fairway.runtime.loader import LoadedModel

Where = Project | Path | str | None


def new(name: str, *, data: Any, target: str, folder: Path | str | None = None, **answers: Any) -> "NotebookProject":
    """Make a project from a table (path, or Polars, pandas or Arrow table), as `fairway new NAME --yes` does.

    Prints what was found and where it was written: a frame goes to NAME/data/NAME.parquet. answers: task, at, entity,
    positive, label_delay where you know better than the table. Raises: UsageError, DataError.
    """
    from fairway.path.new import new as make
    from fairway.path.notebook import opened

    made = make(name, data, target, folder=folder, yes=True, **answers)
    print("\n".join([*made.found(), "", *made.written()[:-1]]))
    return opened(made.project)


def project(path: Path | str | None = None) -> "NotebookProject":
    """The project at or above `path` (default: the current folder); its frame() gives what train() would get."""
    from fairway.path.notebook import opened

    return opened(_project(path))


def train(project: Where = None, *, seed: int = 0) -> "TrainResult":
    """Train a version of the project at or above `project` (default: the current folder), in a child process.

    Nothing of this process is seen by the run: what works here works in `fairway train`. It never changes traffic.
    """
    from fairway.path.train import train as run

    return run(_project(project), seed=seed)


def load(thing: str, *, workspace: Path | str | None = None) -> "LoadedModel":
    """The packaged model of "churn@3" (or of the newest version of "churn"), verified, in this process.

    It runs the code of that version's project here. Raises: ModelNotFound, VersionNotFound, TamperFound.
    """
    from fairway.runtime import loader
    from fairway.runtime.package import materialise

    home, model, version = _version(thing, workspace)
    artifact = get(home.store, model, version).artifact
    return loader.load(materialise(home, artifact), artifact=artifact)


def log_frame(endpoint: str, *, last: str | None = None, workspace: Path | str | None = None) -> "pl.DataFrame":
    """Logged predictions with their labels, one row each. last: only the newest "7d" by prediction time."""
    from fairway.data.log import predictions

    since = clock.now() - parse_duration(last) if last else None
    return predictions(_workspace(workspace), endpoint, since=since)


def deploy(thing: str, *, forecast: bool = False, workspace: Path | str | None = None) -> "DeployResult":
    """Test a version on the served staging endpoint and start its rollout; like `fairway deploy churn@3`.

    forecast: only say how long the rollout would take. Raises: NotServed, GateFailed, RolloutRefused, Unfinished.
    """
    from fairway.path.deploy import deploy as start
    from fairway.path.served import served_call

    home, model, version = _version(thing, workspace)
    return start(home, model, version, actor=tokens.owner(home).name, call=served_call(home), forecast_only=forecast)


def rollback(model: str, *, why: str, workspace: Path | str | None = None) -> "Moved":
    """Back to the version before, at once; ends a rollout that is under way. Raises: ModelNotFound, RolloutRefused."""
    from fairway.rollout.controller import rollback as go_back

    home = _workspace(workspace)
    return go_back(home.store, model, why=why, actor=tokens.owner(home).name, now=clock.now())


def _project(project: Where) -> Project:
    return project if isinstance(project, Project) else load_project(Path(project) if project is not None else None)


def _workspace(workspace: Path | str | None) -> Workspace:
    return Workspace.find(Path(workspace) if workspace is not None else Path.cwd())


def _version(thing: str, workspace: Path | str | None) -> tuple[Workspace, str, int | None]:
    named = parse_thing(thing)
    if named.kind == "id":
        raise UsageError(f"{thing} is no version; write for example churn@3")
    return _workspace(workspace), named.name, named.version
