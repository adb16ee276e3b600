"""`fairway admin schedule NAME --pause | --resume`."""

from typing import Annotated

import typer

from fairway.cli.terminal import DryFlag, JsonFlag, WhyOption, emit
from fairway.cli.things import allowed, workspace_here
from fairway.errors import ThingNotFound, UsageError


def register(app: typer.Typer) -> None:
    app.command("schedule")(schedule)


def schedule(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in: fairway show schedules.")],
    pause: Annotated[bool, typer.Option("--pause", help="It makes no jobs.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="It goes on, by its backfill rule.")] = False,
    why: WhyOption = None,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
) -> None:
    """Pause a schedule, or let it go on."""
    from fairway.registry import show as read
    from fairway.store import audit, schedules

    if pause == resume:
        raise UsageError("give one of --pause and --resume")
    workspace = workspace_here()
    by, store = allowed(workspace, "admin"), workspace.store
    if name not in (known := [line["schedule"] for line in read.schedules(store)]):
        raise ThingNotFound(f"no schedule {name!r}; known: {', '.join(known) or 'none yet'}")
    if not dry_run:
        with store.write() as tx:
            schedules.pause(store, tx, name, paused=pause)
            action = "schedule.pause" if pause else "schedule.resume"
            audit.record(store, tx, actor=by.name, action=action, subject=name, why=why)
    (found,) = [line for line in read.schedules(store) if line["schedule"] == name]
    done = f"{name} is {'paused' if pause else 'not paused'}"
    would = f"{name} would be {'paused' if pause else 'resumed'}"
    emit({**found, "dry_run": dry_run}, json=json, lines=lambda: [would if dry_run else done])
