"""`new` and `train`: what is made."""

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairway.cli.terminal import DryFlag, JsonFlag, YesFlag, ask, emit, interactive, progress, say, table
from fairway.cli.things import allowed, project_for, workspace_here
from fairway.errors import FairwayError, SourceHeld, UsageError
from fairway.web.words import count, length, metric_name, number, short

if TYPE_CHECKING:
    from fairway.data.project import Project
    from fairway.path.steps import StepLine
    from fairway.path.train import TrainResult

Thing = Annotated[str | None, typer.Argument(metavar="MODEL", help="By default this project.")]


def register(app: typer.Typer) -> None:
    app.command("new")(new)
    app.command("train")(train)


# -- new -------------------------------------------------------------------------------------------------------------


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name; a folder of this name is made.")],
    data: Annotated[str, typer.Option("--data", metavar="TABLE", help='A file, folder, glob, s3:// or "select ...".')],
    target: Annotated[str, typer.Option("--target", metavar="COLUMN", help="What is to be predicted.")],
    at: Annotated[str | None, typer.Option("--at", metavar="COLUMN", help="When a prediction is asked.")] = None,
    entity: Annotated[str | None, typer.Option("--entity", metavar="COLUMN", help="What a row is about.")] = None,
    task: Annotated[
        str | None, typer.Option("--task", metavar="TASK", help="binary, multiclass or regression.")
    ] = None,
    positive: Annotated[
        str | None, typer.Option("--positive", metavar="CLASS", help="The class that is looked for.")
    ] = None,
    label_delay: Annotated[
        str | None, typer.Option("--label-delay", metavar="30d", help="Until the true answer is known, or unknown.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", metavar="env:NAME", help="Of a query's database: a variable that holds it.")
    ] = None,
    contract: Annotated[
        str | None, typer.Option("--contract", metavar="FILE:SCHEMA", help="A Pandera schema whose rules are taken.")
    ] = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
) -> None:
    """A project from your table. Every decision is said, every guess is marked."""
    import tempfile
    from contextlib import ExitStack

    from fairway.path.new import new as make
    from fairway.path.new_source import from_anywhere

    questions = ask if interactive() and not yes and not json else None
    with ExitStack() as stack:
        # A dry run does all of it, in a folder that is gone afterwards.
        folder = stack.enter_context(tempfile.TemporaryDirectory()) if dry_run else None
        table, database = from_anywhere(data, url) if dry_run else (data, url)
        made = make(
            name, table, target, url=database, contract=contract, at=at, entity=entity, task=task,
            positive=positive, label_delay=label_delay, yes=yes or questions is None, ask=questions, folder=folder,
            say=None if json else say,
        )  # fmt: skip
    written = ["Nothing was written (--dry-run)."] if dry_run else made.written()
    result = {**made.as_dict(), **({"root": None, "dry_run": True} if dry_run else {})}
    emit(result, json=json, lines=lambda: ["", *written])


# -- train -----------------------------------------------------------------------------------------------------------


def train(
    thing: Thing = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, metavar="N", help="Of the split's draws, the training and the checks.")
    ] = 0,
    reproduce: Annotated[
        str | None, typer.Option("--reproduce", metavar="RUN", help="Make what a run or version made again; compare.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild-environment", help="With --reproduce: in the recorded packages, installed by uv.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """From data to a tested version. Never changes traffic."""
    from fairway.path.train import train as run_train

    if reproduce is not None:
        _reproduce(thing, reproduce, rebuild=rebuild, json=json)
        return
    if rebuild:
        raise UsageError("--rebuild-environment belongs to --reproduce RUN", field="rebuild_environment")
    project = project_for(thing)
    by = allowed(project.workspace, "scientist").name
    try:
        result = run_train(project, actor=by, seed=seed, say=say_step)
    except FairwayError as error:
        note_failed(project, error)
        raise
    emit({**result.as_dict(), "may_be_deployed": result.verdict == "pass"}, json=json, lines=lambda: trained(result))
    if result.verdict == "fail":
        raise typer.Exit(1)
    if result.verdict == "ask":
        raise typer.Exit(3)


def _reproduce(thing: str | None, run: str, *, rebuild: bool, json: bool) -> None:
    """Registers nothing. Exit code 1 when it is not identical."""
    from fairway.path.reproduce import reproduce as again

    if thing is not None:
        raise UsageError(f"--reproduce {run} names what is made again; leave {thing} out", field="reproduce")
    workspace = workspace_here()
    allowed(workspace, "scientist")
    found = again(workspace, run, rebuild_environment=rebuild, say=say_step)

    def lines() -> list[str]:
        where = "in its own environment, built again" if found.rebuilt else "in this environment"
        if found.identical:
            said = [f"{found.run}: identical {where}. Artifact {found.artifact_then[:12]}, every byte as before."]
        elif found.artifact is None:
            said = [f"{found.run} can't be made again {where}:"]
        else:
            said = [f"{found.run}: not identical {where}. What differs, causes first:"]
        rows = [["", "then", "now"], *([d.what, d.then[:60], d.now[:90]] for d in found.differences)]
        said += ["", *table(rows, indent="  ", gap=3), ""] if found.differences else []
        return ["", *said, *(f"  note: {note}" for note in found.notes)]

    emit(found.as_dict(), json=json, lines=lines)
    if not found.identical:
        raise typer.Exit(1)


def say_step(line: "StepLine") -> None:
    """ "  snapshot   7,043 rows, 21 columns      data-16320c   0.1 s" """
    name = short(line.id) if line.id.startswith("data-") else ""
    took = "as before" if line.cached else f"{line.seconds:.1f} s"
    progress(f"  {line.name:<10} {line.text:<66} {name:<11} {took:>9}".rstrip())
    for note in line.notes:
        progress(f"             {note}")


def note_failed(project: "Project", error: FairwayError) -> None:
    """Say with the error which run failed, where its log is, and what still serves."""
    from fairway.registry import show as read

    store, model = project.workspace.store, project.settings.name
    failed = [run for run in read.runs(store, model=model) if run["status"] == "failed"]
    if not failed or failed[0]["error"] != str(error)[:2000] or isinstance(error, SourceHeld):
        return
    run, seconds = failed[0]["run"], failed[0]["seconds"]
    took = length(timedelta(seconds=seconds)) if seconds >= 10 else f"{seconds:.1f} s"
    endpoint = read.endpoint(store, model)
    champion = endpoint["champion"] if endpoint else None
    stays = f"{model}@{champion} stays champion." if champion else "Nothing was registered."
    error.add_note(f"{run} failed after {took}; log: fairway show {run} --log. {stays}")


def trained(result: "TrainResult") -> list[str]:
    name = f"{result.model}@{result.version}"
    lines = ["", *metric_table(result.metrics), ""] if result.metrics else [""]
    shown = [c for c in result.checks if c.verdict != "pass"]
    lines += table([[f"  {c.name}", c.verdict, c.summary] for c in shown], gap=3)
    lines += [f"  runtime   {runtime(result)}", ""]
    failed = [c for c in result.checks if c.verdict in ("fail", "unknown")]
    if result.verdict == "fail":
        what = f"{len(failed)} of {count(len(result.checks), 'check')} failed"
        lines.append(f"{name} is registered but may not be deployed: {what}.")
        lines += [f"Repeat just this:  {c.repeat}" for c in failed[:3] if c.repeat]
    elif result.verdict == "ask":
        lines.append(f"{name} waits for a person: at risk high, checks that had too few rows are not taken as passed.")
    else:
        again = "" if result.new else " Nothing has changed since: it is the version that was there."
        lines.append(f"{name} may be deployed.{again}   Report: {shortest(result.report)}")
    if result.verdict != "pass":
        lines.append(f"Report: {shortest(result.report)}")
    else:
        lines.append("Next: fairway serve  (in another terminal), then  fairway deploy")
    return lines


LOSSES = ("mae", "rmse", "brier", "log_loss")  # the lower, the better
_SAID = {"better": "better", "worse": "worse", "neither": "no difference shown"}
SHOWN = {"binary": ("auc", "accuracy"), "multiclass": ("accuracy", "log_loss"), "regression": ("mae", "r2")}


def metric_table(evaluation: dict[str, Any]) -> list[str]:
    """This version and its rivals on the same rows: the first metric with its interval, and a second one."""
    first, second = SHOWN[evaluation["task"]]
    rows = [["", metric_name(first), "95 % interval", metric_name(second)]]
    rows.append(["this version", *_figures(evaluation["metrics"], first, second)])
    for name, rival in evaluation["comparisons"].items():
        rows.append([name, *_figures(rival["metrics"], first, second), _difference(rival, first)])
    return table(rows, indent="  ", gap=3, right=[1, 3])


def _figures(metrics: dict[str, Any], first: str, second: str) -> list[str]:
    one, two = metrics.get(first) or {}, metrics.get(second) or {}
    low, high = one.get("low"), one.get("high")
    span = f"{number(low)} - {number(high)}" if low is not None and high is not None else ""
    return [number(one.get("value")), span, number(two.get("value"))]


def _difference(rival: dict[str, Any], metric: str) -> str:
    found = rival["differences"].get(metric) or {}
    if found.get("value") is None or found.get("low") is None:
        return ""
    toward = -1 if metric in LOSSES else 1
    low, high = sorted((toward * found["low"], toward * found["high"]))
    shown = "better" if low > 0 else "worse" if high < 0 else "neither"
    text = f"{_SAID[shown]}: {metric_name(metric)} differs by {_span(found)}"
    loss = rival["loss"]
    if shown != rival["shown"] and loss != metric:  # the two can disagree, and the gate goes by the loss
        text += f"; {_SAID[rival['shown']]} in {metric_name(loss)}: {_span(rival['loss_difference'])}"
    return text


def _span(found: dict[str, Any]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def runtime(result: "TrainResult") -> str:
    """ "treelite: 0.03 ms a row instead of 1.4 ms, equal to 4e-16 ..." """
    kind, took = result.runtime["kind"], result.ms_per_row
    reason = str(result.runtime.get("reason") or "")
    python = took.get("python")
    speed = f"{_ms(took[kind])} ms a row" if kind in took else ""
    if kind in took and python is not None and kind != "python":
        speed += f" instead of {_ms(python)} ms"
    return f"{kind}: " + ", ".join(part for part in (speed, reason) if part)


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def shortest(path: Path) -> str:
    """A path as short as it can be said from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
