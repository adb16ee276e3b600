"""`status` and `show`: reads only."""

import dataclasses
from typing import Annotated, Any

import typer

from fairway.cli import contracts, jobs, pages
from fairway.cli.terminal import JsonFlag, emit
from fairway.cli.things import parse_model, project_here, workspace_here
from fairway.errors import ModelNotFound, SettingsError, StoreUnavailable, Unfinished, UsageError

LISTS = ("runs", "reviews", "alarms", "rollouts", "versions", "datasets", "models", "jobs", "schedules", "defaults")


def register(app: typer.Typer) -> None:
    app.command("status")(status)
    app.command("show")(show)


def status(
    thing: Annotated[str | None, typer.Argument(metavar="MODEL", help="By default this project, or all.")] = None,
    json: JsonFlag = False,
) -> None:
    """What needs you: this project, or all models."""
    from fairway.data.project import troubles
    from fairway.path.served import without_store
    from fairway.registry import show as read
    from fairway.store.gateways import is_served

    try:
        project = project_here() if thing is None else None
    except SettingsError:
        project = None  # said below, with all else there is to say
    workspace = project.workspace if project is not None else workspace_here()
    name = parse_model(thing).model if thing else None
    try:
        if project is not None and read.models(workspace.store) == [project.settings.name]:
            name = project.settings.name
        found = read.status(workspace.store, model=name)
    except StoreUnavailable as error:
        away = {"store": str(error), "serving": is_served(workspace), **without_store(workspace)}
        emit(away, json=json, lines=lambda: pages.store_away(away))
        raise typer.Exit(Unfinished.exit_code) from None
    found["serving"] = is_served(workspace)
    broken = troubles(workspace)
    found["broken"] = {line["model"]: broken[line["model"]] for line in found["models"] if line["model"] in broken}
    emit(found, json=json, lines=lambda: pages.status(found))


def show(
    thing: Annotated[
        str, typer.Argument(metavar="THING", help="An id (run-7f3a, rollout-9 ...), a version, contract, or a list.")
    ],
    json: JsonFlag = False,
    log: Annotated[bool, typer.Option("--log", help="A run's log.")] = False,
    recompute: Annotated[bool, typer.Option("--recompute", help="A rollout's decision again, from its sums.")] = False,
    rows: Annotated[bool, typer.Option("--rows", help="The predictions of a rollout's challenger.")] = False,
    odcs: Annotated[
        bool, typer.Option("--odcs", help="A contract in the Open Data Contract Standard, as YAML.")
    ] = False,
    card: Annotated[bool, typer.Option("--card", help="A version's model card, as Markdown.")] = False,
) -> None:
    """Anything by id, or a list.

    The lists: runs, reviews, alarms, rollouts, versions, datasets, models, jobs, schedules,
    defaults.
    """
    from fairway.registry import show as read

    if thing == "contract" or odcs:
        contracts.show(thing, odcs=odcs, json=json)
        return
    workspace = workspace_here()
    store = workspace.store
    kind, _, rest = thing.partition("-")
    if recompute or rows:
        if kind != "rollout" or not rest.isdigit():
            raise UsageError("--recompute and --rows belong to a rollout, for example rollout-9")
        _rollout_detail(workspace, thing, json=json, rows=rows)
        return
    if log and kind != "run":
        raise UsageError("--log belongs to a run, for example run-7f3a")
    if card:
        _card(workspace, thing, json=json)
    elif thing in LISTS:
        found = _list(store, thing)
        emit(found, json=json, lines=lambda: pages.listing(thing, found))
    elif thing in read.models(store):  # also a model named like an id
        model = read.model(store, thing)
        emit(model, json=json, lines=lambda: pages.model(model))
    elif kind == "run" and rest:
        run = read.run(store, thing)
        run["folder"] = str(workspace.folder / "runs" / run["run"])
        if log:
            trace = _run_log(workspace, run)
            emit({**run, "log": trace}, json=json, lines=trace.splitlines)
        else:
            emit(run, json=json, lines=lambda: pages.run(run))
    elif kind == "rollout" and rest.isdigit():
        rollout = read.rollout(store, thing)
        emit(rollout, json=json, lines=lambda: pages.rollout(rollout))
    elif kind == "alarm" and rest.isdigit():
        alarm = read.alarm(store, thing)
        emit(alarm, json=json, lines=lambda: pages.alarm(alarm))
    elif kind == "review" and rest.isdigit():
        review = read.review(store, thing)
        emit(review, json=json, lines=lambda: pages.review(review))
    elif kind == "job" and rest.isdigit():
        job = read.job(store, thing)
        emit(job, json=json, lines=lambda: jobs.job(job))
    elif kind == "data" and rest:
        dataset = read.dataset(store, thing)
        emit(dataset, json=json, lines=lambda: pages.dataset(dataset))
    elif kind == "p" and rest.isupper():
        from fairway.data.log import find

        prediction = find(workspace, thing)
        emit(prediction, json=json, lines=lambda: pages.prediction(prediction))
    else:
        named = parse_model(thing)
        if named.version is None:
            raise ModelNotFound(named.model, known=read.models(store))
        version = read.version(store, named.model, named.version)
        emit(version, json=json, lines=lambda: pages.version(version))


def _list(store: Any, name: str) -> list[Any]:
    from fairway.registry import show as read

    if name == "models":
        return list(read.status(store)["models"])
    if name == "defaults":
        from fairway.fleet import defaults

        return defaults.describe()
    return list(getattr(read, name)(store))


def _card(workspace: Any, thing: str, *, json: bool) -> None:
    """Markdown; its HTML is in the run's folder."""
    from fairway.path import card, page
    from fairway.registry.versions import get

    named = parse_model(thing)
    row = get(workspace.store, named.model, named.version)
    text = page.markdown(card.card(workspace, named.model, int(row.version)))
    path = workspace.folder / "runs" / row.run / card.NAME
    emit({"model": named.model, "version": int(row.version), "markdown": text, "html": str(path)}, json=json,
         lines=text.splitlines)  # fmt: skip


def _run_log(workspace: Any, run: dict[str, Any]) -> str:
    """The run's log file where there is one, else the recorded error."""
    path = workspace.folder / "runs" / run["run"] / "log.txt"
    if path.exists():
        return str(path.read_text(errors="replace"))
    return run["error"] or f"{run['run']} left no log"


def _rollout_detail(workspace: Any, name: str, *, json: bool, rows: bool) -> None:
    from fairway.registry import show as read

    rollout = read.rollout(workspace.store, name)
    if rows:
        from fairway.data.log import predictions

        frame = predictions(workspace, rollout["endpoint"])
        frame = frame.filter(frame["rollout"] == name) if frame.height else frame
        found = frame.to_dicts()
        emit(found, json=json, lines=lambda: pages.prediction_rows(rollout, found))
        return
    from fairway.rollout import controller

    again = dataclasses.asdict(controller.recompute(workspace.store, name))
    emit(again, json=json, lines=lambda: pages.recomputed(rollout, again))
