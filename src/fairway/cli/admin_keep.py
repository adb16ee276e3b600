"""`fairway admin doctor`, `gc` and `erase`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairway.cli.terminal import DryFlag, JsonFlag, WhyOption, YesFlag, emit, progress, table
from fairway.cli.things import allowed, parse_model, workspace_here
from fairway.errors import UsageError
from fairway.web.words import count

if TYPE_CHECKING:
    from fairway.keep.erasure import Erased
    from fairway.keep.gc import Found
    from fairway.store.workspace import Workspace

_FOLD_S = 30.0


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)
    app.command("gc")(collect_garbage)
    app.command("erase")(erase)


def doctor(json: JsonFlag = False) -> None:
    """Look whether everything is whole: store, blobs, packages, audit log, clock, disk, permissions, what is left over.

    Ends with 1 when something failed; what to try stands beside it.
    """
    from fairway import clock
    from fairway.keep.doctor import examine

    workspace = workspace_here()
    last_s = clock.elapsed()

    def say(text: str) -> None:
        nonlocal last_s
        if clock.elapsed() - last_s >= 2.0:
            last_s = clock.elapsed()
            progress(text)

    found = list(examine(workspace, say=say))
    worst = {f.verdict for f in found}

    def lines() -> list[str]:
        told = table([[f.check, f.verdict, f.summary] for f in found], indent="  ")
        steps = [f"  {f.check}: {f.try_next}" for f in found if f.try_next]
        return [*told, *(["To try:", *steps] if steps else [])]

    emit([f.as_dict() for f in found], json=json, lines=lines)
    if "fail" in worst:
        raise typer.Exit(1)


def collect_garbage(
    unused: Annotated[
        str, typer.Option("--unused", metavar="30d", help="How long data that no version was made from is kept.")
    ] = "30d",
    grace: Annotated[
        str, typer.Option("--grace", metavar="24h", help="What is younger stays: a run may be about to name it.")
    ] = "24h",
    yes: YesFlag = False,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
) -> None:
    """Delete what nothing needs. Says what would go; with --yes it goes."""
    from fairway.contract.view import parse_duration
    from fairway.keep import gc

    try:
        kept, young = parse_duration(unused), parse_duration(grace)
    except ValueError as exc:
        raise UsageError(str(exc), field="unused") from exc
    workspace = workspace_here()
    by = allowed(workspace, "admin")
    found = gc.collect(workspace, actor=by.name, delete=yes and not dry_run, unused=kept, grace=young, say=_every(2.0))
    emit(found.as_dict(), json=json, lines=lambda: gc_lines(found))


def gc_lines(found: "Found") -> list[str]:
    """Sizes by kind, and what happens next."""
    kinds = [(name, kind) for name, kind in found.kinds.items() if kind.count]
    young = f"  kept, as young: {count(found.kept_young, 'blob')} that nothing needs yet"
    rest = [young] if found.kept_young else []
    rest += [f"  under way: {', '.join(found.running)}; caches and unused data are kept"] if found.running else []
    if not kinds:
        return ["nothing to delete", *rest]
    verb = "deleted" if found.deleted else "would delete"
    rows = [
        [name, f"{kind.count:,}", size(kind.size_bytes), ", ".join(n[:12] for n in kind.names[:3])]
        for name, kind in kinds
    ]
    end = [] if found.deleted else ["Nothing was deleted. Delete it: fairway admin gc --yes"]
    return [f"{verb} {size(found.size_bytes)}", *table(rows, indent="  ", right=[1, 2]), *rest, *end]


def size(n_bytes: int) -> str:
    """
    >>> size(0), size(2048), size(31 * 10**9)
    ('0 B', '2.0 kB', '31.0 GB')
    """
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            break
        value /= 1000
    return f"{value:.0f} B" if unit == "B" else f"{value:,.1f} {unit}"


def erase(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    entity: Annotated[
        str | None, typer.Option("--entity", metavar="VALUE", help="Whose rows: a value of the entity column.")
    ] = None,
    prediction: Annotated[
        str | None, typer.Option("--prediction", metavar="p-...", help="One logged prediction instead.")
    ] = None,
    why: WhyOption = None,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
) -> None:
    """Take one entity out of data, log, labels, samples and reports. Models are not changed; those it taught are named.

    It can be repeated: a killed one goes on. Ends with 3 when pieces of the log still wait to be folded.
    """
    from fairway import clock
    from fairway.keep.erasure import erase as erase_entity
    from fairway.store.gateways import is_served

    workspace = workspace_here()
    by = allowed(workspace, "admin")
    if not why and not dry_run:
        raise UsageError('an erasure can\'t be undone: say why with --why "..."', field="why")
    done = erase_entity(
        workspace, parse_model(model).model, entity=entity, prediction=prediction, why=why or "dry run", actor=by.name,
        now=clock.now(), dry_run=dry_run, wait_s=_FOLD_S if is_served(workspace) is not None else 0.0,
        forget=lambda source, column, value: _forget_online(workspace, source, column, value),
    )  # fmt: skip
    if not dry_run:
        from fairway.store.gateways import poke

        poke(workspace)  # gateways take the packages without the rows
    emit(done.as_dict(), json=json, lines=lambda: erase_lines(done))
    if not done.done and not dry_run:
        raise typer.Exit(3)


def _forget_online(workspace: "Workspace", source: str, column: str, value: str) -> int:
    from fairway.serve.online import Slot, online_place, open_online

    place = online_place(workspace.folder)
    if "://" not in place and not (workspace.folder / "online.db").exists():
        return 0
    store = open_online(place, workspace=workspace.name)
    try:
        return store.forget(Slot(source, column), value)
    finally:
        store.close()


def erase_lines(done: "Erased") -> list[str]:
    """What went, what stays, and what is the reader's to do."""
    found = [f"  {name:<26}{n:>8,}" for name, n in done.counts.items()]
    head = f"would erase from {done.model}" if done.dry_run else f"{done.erasure}   erased from {done.model}"
    lines = [f"{head}:" if found else f"{head}: nothing was found", *found]
    if done.versions:
        them = ", ".join(done.versions)
        lines.append(f"  not changed: {them} learned from these rows, and what a model learned can't be taken out.")
        lines.append("  To be rid of that: train again, deploy it, and let nothing older serve.")
    if done.yours:
        lines.append(f"  yours to change: {', '.join(done.yours)}; what is left there comes back with a training.")
    if done.waits:
        lines.append(
            f"Not finished: {count(done.waits, 'piece')} of the log wait to be folded. Run it again when they are "
            "(fairway serve folds them)."
        )
    if done.dry_run:
        lines.append("Nothing was changed.")
    return lines


def _every(seconds: float) -> Any:
    from fairway import clock

    last = clock.elapsed()

    def say(text: str) -> None:
        nonlocal last
        if clock.elapsed() - last >= seconds:
            last = clock.elapsed()
            progress(text)

    return say
