"""`deploy`, `rollback` and `answer`: what moves traffic, or decides whether it moves."""

import re
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairway import clock
from fairway.cli import jobs, pages
from fairway.cli.terminal import DryFlag, JsonFlag, WhyOption, YesFlag, emit, progress, table
from fairway.cli.things import allowed, model_for, project_here, workspace_here
from fairway.errors import NotServed, RolloutRefused, UsageError
from fairway.web.words import length, local

if TYPE_CHECKING:
    from fairway.path.deploy import Call, DeployResult
    from fairway.store.workspace import Workspace

_LOOK_S = 1.0
NOTHING_SERVES = "Nothing serves this workspace, so there is no traffic to move. Start it with: fairway serve"

Thing = Annotated[str | None, typer.Argument(metavar="MODEL[@N]", help="By default this project's newest version.")]


def register(app: typer.Typer) -> None:
    app.command("deploy")(deploy)
    app.command("rollback")(rollback)
    app.command("answer")(answer)


def deploy(
    thing: Thing = None,
    forecast: Annotated[bool, typer.Option("--forecast", help="The plan and how long it should take.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the rollout until it ends.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Keep the shares as they are.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after --pause.")] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="Make it champion now, past what is not shown yet; needs --why.")
    ] = False,
    paired_shadow: Annotated[
        bool, typer.Option("--paired-shadow", help="The plan for low traffic: shadow, then champion.")
    ] = False,
    why: WhyOption = None,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
    yes: YesFlag = False,
) -> None:
    """Test a version over HTTP, then start its rollout. Never trains."""
    if sum((forecast, pause, resume, finish)) > 1:
        raise UsageError("only one of --forecast, --pause, --resume and --finish at a time")
    workspace = _workspace()
    by = allowed(workspace, "scientist")
    named = model_for(thing)
    if finish and not why:
        raise UsageError('--finish goes past what is not shown yet: say why with --why "..."', field="why")
    if pause or resume or (finish and _running(workspace, named.model)):
        _change(workspace, named.model, by=by, pause=pause, resume=resume, why=why, json=json, dry_run=dry_run)
        return
    if watch and (running := _open_rollout(workspace, named.model, named.version)):
        _watch(workspace, running, json=json)
        return
    if named.version is None:
        refuse_changed_code(workspace, named.model)
    from fairway.path.deploy import deploy as deploy_version

    call = _no_call if forecast or dry_run else _call(workspace)
    result = deploy_version(
        workspace, named.model, named.version, actor=by.name, call=call, forecast_only=forecast,
        dry_run=dry_run, paired_shadow=paired_shadow, past=why if finish else None,
    )  # fmt: skip
    emit(result.as_dict(), json=json, lines=lambda: deploy_lines(result))
    if result.outcome == "waiting":
        raise typer.Exit(3)
    if watch and result.rollout:
        _watch(workspace, result.rollout, json=json)


def _workspace() -> "Workspace":
    project = project_here()
    return project.workspace if project is not None else workspace_here()


def _call(workspace: "Workspace") -> "Call":
    """The served gateway's. Raises: NotServed, also when serve.json is that of a supervisor that was killed."""
    from fairway.path.served import served_call
    from fairway.store.gateways import is_served

    if is_served(workspace) is None:
        raise NotServed(NOTHING_SERVES)
    return served_call(workspace)


def _no_call(path: str, body: bytes) -> tuple[int, bytes]:
    raise NotServed(NOTHING_SERVES)


def refuse_changed_code(workspace: "Workspace", model: str) -> None:
    """Raises: UsageError when the project's code is not what its newest version was trained from."""
    import hashlib

    from fairway.registry import show as read
    from fairway.runtime.code import closure
    from fairway.runtime.package import read_manifest

    project = project_here()
    if project is None or project.settings.name != model:
        return
    known = read.versions(workspace.store, model=model)
    if not known:
        raise UsageError(f"{model} has no version yet, and deploy never trains. Train it: fairway train")
    newest = max(known, key=lambda line: int(line["version"]))
    trained = {
        name.removeprefix("code/"): digest
        for name, digest in read_manifest(workspace.blobs.get(newest["artifact"])).files.items()
        if name.startswith("code/")
    }
    here = {name: hashlib.sha256(data).hexdigest() for name, data in closure(project.root).items()}
    changed = sorted(name for name in {*here, *trained} if here.get(name) != trained.get(name))
    if changed:
        version = f"{model}@{newest['version']}"
        raise UsageError(
            f"{', '.join(changed[:3])} {'has' if len(changed) == 1 else 'have'} changed since {version} was trained, "
            f"and deploy never trains. Train it: fairway train.  Or deploy what exists: fairway deploy {version}"
        )


def deploy_lines(result: "DeployResult") -> list[str]:
    name, plan = f"{result.model}@{result.version}", result.plan
    lines = []
    if plan["first"]:
        lines.append(
            f"{name} is the first version: there is no champion, so nothing to compare it with and no shares to step "
            "through."
        )
    rows = [["staging" if place == 0 else "", c.summary, c.verdict] for place, c in enumerate(result.checks)]
    lines += table(rows, indent="  ")
    if not plan["first"]:
        lines += [f"  {line}" for line in (result.lines[-1:] if result.outcome == "live" else result.lines)]
        if result.outcome == "dry run":
            lines.append("Nothing was started (--dry-run).")
        if result.outcome in ("forecast", "dry run"):
            lines.append(f"Start it: fairway deploy {name}")
        return lines
    guard = f"{plan['guard_s'] / 3600:g} h"
    if result.outcome == "live":
        lines.append("  live     100 % of the traffic")
    lines += [
        f"  guard    {guard}: taken off when errors pass {plan['max_errors'] * 100:g} % or p99 passes "
        f"{plan['max_ms']:g} ms (absolute: there is no champion).",
        '           With nothing older, "back" means 503 with code no_champion, not a made-up answer.',
    ]
    if result.outcome == "waiting":
        lines.append(result.lines[-1])
    elif result.outcome == "live":
        lines.append(f"{name} is the champion. {_accuracy_from(plan['label_delay_s'])}")
    else:
        lines.append(f"Nothing was started. Start it: fairway deploy {name}")
    return lines


def _accuracy_from(label_delay_s: float | None) -> str:
    if label_delay_s is None:
        return "Live accuracy is off: label_delay in fairway.toml is unknown."
    delay = timedelta(seconds=label_delay_s)
    known = (clock.now() + delay).astimezone()
    when = f"{known:%d %b}" if delay >= timedelta(days=1) else f"{known:%d %b %H:%M}"
    return f"Live accuracy can be told from {when} on (answers are known after {length(delay)})."


def _open_rollout(workspace: "Workspace", model: str, version: int | None) -> str | None:
    from fairway.registry import show as read

    for line in read.rollouts(workspace.store, model=model):
        if not line["ended_at"] and version in (None, line["challenger"]):
            return str(line["rollout"])
    return None


def _running(workspace: "Workspace", model: str) -> bool:
    """Whether a rollout is on its way: one that --finish ends, rather than begins."""
    from fairway.registry import show as read

    return any(
        line["phase"] in ("running", "paused", "waiting") for line in read.rollouts(workspace.store, model=model)
    )


def _change(
    workspace: "Workspace",
    model: str,
    *,
    by: Any,
    pause: bool,
    resume: bool,
    why: str | None,
    json: bool,
    dry_run: bool,
) -> None:
    from fairway.rollout import controller
    from fairway.web import actions

    word = "pause" if pause else "resume" if resume else "finish"
    rollout = _open_rollout(workspace, model, None)
    if rollout is None:
        raise UsageError(f"no rollout of {model} is open, so there is nothing to {word}")
    if dry_run:
        emit({"rollout": rollout, "would": word}, json=json, lines=lambda: [f"would {word} {rollout} of {model}"])
        return
    if word == "finish":
        moved = controller.finish(workspace.store, model, why=why or "", actor=by.name, now=clock.now())
        actions.follow(workspace, moved.endpoint, moved.epoch)
        result = vars(moved)
        text = f"{rollout}: {model}@{moved.to} is the champion, past what was not shown yet; guarded for 24 h."
    else:
        result = (actions.pause if pause else actions.resume)(workspace, rollout, by=by, why=why)
        text = f"{rollout} is {result['phase']}" + ("; traffic stays as it is" if pause else "")
    emit(result, json=json, lines=lambda: [text])


def _watch(workspace: "Workspace", rollout: str, *, json: bool) -> None:
    """Print the rollout whenever something changed, until it ends; then its outcome decides the exit code."""
    from fairway.registry import show as read

    last: list[str] = []
    try:
        while True:
            found = read.rollout(workspace.store, rollout)
            lines = pages.rollout(found)
            if found["ended_at"] or found["phase"] == "guarding":
                break
            if lines != last:
                progress("\n".join([*lines, ""]))
                last = lines
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        progress("(the rollout goes on without this window)")
        raise typer.Exit(3) from None
    emit(found, json=json, lines=lambda: lines)
    if found["phase"] not in ("promoted", "guarding"):
        raise typer.Exit(1)


def rollback(
    thing: Annotated[str | None, typer.Argument(metavar="MODEL", help="A model or its rollout.")] = None,
    why: WhyOption = None,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
    yes: YesFlag = False,
) -> None:
    """The version before, at once; also ends a running rollout."""
    from fairway.registry import show as read
    from fairway.web import actions

    workspace = _workspace()
    by = allowed(workspace, "scientist")
    if thing is not None and thing.startswith("rollout-"):
        thing = str(read.rollout(workspace.store, thing)["model"])
    named = model_for(thing)
    if named.version is not None:
        raise UsageError(f"rollback goes to the version before; for a certain one: fairway deploy {thing}")
    if dry_run:
        end = read.endpoint(workspace.store, named.model)
        if end is None or (end["champion"] is None and not end["rollout"]):
            raise RolloutRefused(f"{named.model} has no champion, so there is nothing to go back from")
        running = bool(end and end["rollout"])
        back = (end["champion"] if end["challenger"] else end["previous"]) if end else None
        result = {"model": named.model, "to": back, "rollout": end["rollout"] if end else None, "dry_run": True}
        text = f"would end {end['rollout']} and go back" if end and running else "would go back"
        target = f"to @{back}" if back is not None else "to no champion: callers get 503"
        emit(result, json=json, lines=lambda: [f"{named.model}: {text} {target}"])
        return
    moved = actions.rollback(workspace, named.model, by=by, why=why)
    emit(moved, json=json, lines=lambda: rollback_lines(moved))


def rollback_lines(moved: dict[str, Any]) -> list[str]:
    model, before, to = moved["model"], moved["before"], moved["to"]
    where = (
        f"on {moved['gateways']} gateways" if moved["gateways"] else "in the store; nothing serves this workspace now"
    )
    line = f"{model}: {before} -> {to if to is not None else 'no champion'} in {moved['seconds']:.1f} s {where}."
    if to is None:
        line += " With nothing older, callers get 503 with code no_champion."
    if moved["rollout"]:
        line += f" {moved['rollout']} has ended."
    return [line, *([f"Undo: fairway deploy {model}@{before}"] if before is not None and before != to else [])]


def answer(
    review: Annotated[str, typer.Argument(metavar="REVIEW", help="For example review-31; or a job, job-12.")],
    choice: Annotated[
        str, typer.Argument(metavar="CHOICE", help="One of its choices: approve, retrain, keep ...; of a job: cancel.")
    ],
    why: WhyOption = None,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
    yes: YesFlag = False,
) -> None:
    """Answer a review, or cancel a job; the answer and its reason are kept."""
    from fairway.cli.things import actor
    from fairway.registry import show as read
    from fairway.web import actions

    workspace = _workspace()
    if re.fullmatch(r"job-\d+", review):
        jobs.answer(workspace, review, choice, why=why, json=json, dry_run=dry_run)
        return
    by = actor(workspace)
    if dry_run:
        found = read.review(workspace.store, review)
        effect = found["choices"].get(choice)
        if effect is None:
            raise UsageError(f"{review} can't be answered {choice!r}; choices: {', '.join(found['choices'])}")
        emit(
            {"review": review, "answer": choice, "effect": effect, "dry_run": True},
            json=json,
            lines=lambda: [f"{review}: {choice} would be recorded by {by.name}: {effect}"],
        )
        return
    found = actions.answer(workspace, review, choice, by=by, why=why)
    effect = found["choices"].get(choice) or ""
    emit(
        found,
        json=json,
        lines=lambda: [f"recorded: {choice}, by {by.name}, {local(found['answered_at'])}. {effect}".rstrip()],
    )
