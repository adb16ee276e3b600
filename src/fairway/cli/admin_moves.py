"""`fairway admin move`, `backup` and `restore`: a whole workspace, elsewhere."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fairway.cli.terminal import DryFlag, JsonFlag, emit, progress, table
from fairway.cli.things import allowed, workspace_here
from fairway.errors import UsageError

if TYPE_CHECKING:
    from fairway.keep.backup import Backup
    from fairway.store.move import Move, Mover

_EVERY_S = 2.0


def register(app: typer.Typer) -> None:
    app.command("move")(move)
    app.command("backup")(backup)
    app.command("restore")(restore)


def move(
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="URL", help="postgresql://user@host/database, or embedded: .fairway/store.db."),
    ] = None,
    blobs: Annotated[
        str | None,
        typer.Option("--blobs", metavar="URL", help="s3://bucket/prefix, a folder, or embedded. Else they stay."),
    ] = None,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Give up a move that was interrupted; with --to its half copy is deleted.")
    ] = False,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
) -> None:
    """Take the whole workspace with its history to other servers, or back. Interrupted, the same command goes on.

    Nothing may serve the workspace meanwhile. Every row and blob is compared; the old place keeps its copy, and refuses
    to be written to.
    """
    from fairway.store import move as moving
    from fairway.store.closed import shown

    workspace = workspace_here()
    by = allowed(workspace, "admin")
    if cancel:
        if dry_run:
            raise UsageError(
                "--cancel has no --dry-run: it opens the store where the workspace is, and deletes nothing"
            )
        ended = moving.cancel(workspace, to=to, actor=by.name)
        half = "its half copy is deleted" if ended["cleared"] else f"{shown(ended['to'])} keeps its half copy, closed"
        emit(ended, json=json, lines=lambda: [f"the move is given up; {shown(ended['store'])} is open again ({half})"])
        return
    if to is None:
        raise UsageError("where to? Say --to postgresql://user@host/database, or --to embedded", field="to")
    mover = moving.Mover(workspace, to=to, blobs=blobs, say=_now_and_then())
    if dry_run:
        plan = mover.plan()
        emit({**plan.as_dict(), "dry_run": True}, json=json, lines=lambda: _would_move(plan))
        return
    done = mover.run(actor=by.name)
    emit({**done.as_dict(), "set": mover.settings()}, json=json, lines=lambda: _moved(done, mover))


def _would_move(plan: "Move") -> list[str]:
    standing = {"fresh": "", "resumes": " (goes on where it was interrupted)", "done": " (all is there already)"}
    lines = [f"would move workspace {plan.workspace}{standing[plan.state]}"]
    blobs = f"to {plan.to_blobs}, {plan.blobs:,} of {size(plan.size_bytes)}" if plan.to_blobs else "stay there"
    from fairway.store.closed import shown

    rows = [
        ["store", shown(plan.from_store), f"to {shown(plan.to_store)}, {plan.rows:,} rows"],
        ["blobs", plan.from_blobs, blobs],
    ]
    return lines + table(rows, indent="  ")


def _moved(done: "Move", mover: "Mover") -> list[str]:
    from fairway.store.closed import shown

    back = ", each blob was read back" if done.to_blobs else ""
    lines = [
        f"moved workspace {done.workspace} in {done.seconds:g} s; every table has the same rows and hashes there{back}",
        f"  {done.rows:,} rows to {shown(done.to_store)}",
        *([f"  {done.blobs:,} blobs, {size(done.size_bytes)}, to {done.to_blobs}"] if done.to_blobs else []),
        f"{shown(done.from_store)} keeps its copy, and takes no more writes.",
    ]
    wanted = mover.settings()
    kept = [f"export {name}='{value}'" for name, value in wanted.items() if value]
    gone = [f"unset {name}" for name, value in wanted.items() if not value]
    lines += ["Set, for every process of this workspace:", *(f"  {line}" for line in [*kept, *gone])]
    if any(value and ":***@" in value for value in wanted.values()):
        lines.append("  (with the password in place of ***)")
    if wanted["FAIRWAY_STORE"] and not wanted["FAIRWAY_BLOBS"]:
        lines.append(f"The blobs stay in {done.from_blobs}: another machine needs them in a bucket, by --blobs s3://…")
    if done.unfolded:
        lines.append(
            f"{done.unfolded} pieces of the log wait on this machine: the next `fairway serve` here folds them."
        )
    return lines


def size(size_bytes: int) -> str:
    """
    >>> size(1_234_567)
    '1.2 MB'
    """
    return f"{size_bytes / 1e9:,.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.1f} MB"


def _now_and_then() -> Callable[[str], None]:
    """Progress, first after two seconds and then every two."""
    from fairway import clock

    last_s = clock.elapsed()

    def say(text: str) -> None:
        nonlocal last_s
        if clock.elapsed() - last_s >= _EVERY_S:
            last_s = clock.elapsed()
            progress(f"  {text}")

    return say


def backup(
    to: Annotated[Path, typer.Option("--to", metavar="PLACE", help="A new folder, or a file whose name ends in .tar.")],
    secrets: Annotated[
        bool, typer.Option("--with-secrets", help="The owner's token and signing keys too: guard it like those.")
    ] = False,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
) -> None:
    """Copy the whole workspace, also while it serves: what was acknowledged before is in it, each row once."""
    from fairway.keep import backup as backups
    from fairway.store.closed import shown

    workspace = workspace_here()
    by = allowed(workspace, "admin")
    if dry_run:
        plan = backups.plan(workspace, to)
        emit({**plan, "dry_run": True}, json=json, lines=lambda: [
            f"would copy {plan['rows']:,} rows of {shown(plan['store'])} and up to {plan['blobs']:,} blobs "
            f"({size(plan['size_bytes'])}) of {plan['blobs_in']} to {plan['to']}"
        ])  # fmt: skip
        return
    made = backups.backup(workspace, to, actor=by.name, secrets=secrets, say=_now_and_then())
    emit(made.as_dict(), json=json, lines=lambda: _backed_up(made))


def _backed_up(made: "Backup") -> list[str]:
    lines = [
        f"{made.place}   {made.rows:,} rows, {made.blobs:,} blobs, {size(made.size_bytes)}, in {made.seconds:g} s; "
        "every blob was read against its hash",
    ]
    if not made.secrets:
        lines.append("Without the token and the signing keys (.fairway/token, keys/): keep those elsewhere.")
    return [*lines, f"Restore: fairway admin restore {made.place} --to FOLDER"]


def restore(
    place: Annotated[Path, typer.Argument(metavar="BACKUP", help="A folder or .tar file that `backup` made.")],
    to: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="Where the workspace shall be; it must have no .fairway yet.")
    ],
    json: JsonFlag = False,
    dry_run: DryFlag = False,
) -> None:
    """Make a workspace from a backup, in a folder. Everything is verified before it gets its name.

    To take it to servers: fairway admin move --to postgresql://…, in that folder.
    """
    from fairway.keep import restore as restores

    found = restores.restore(place, to, dry_run=dry_run, say=_now_and_then())
    emit({**found.as_dict(), "dry_run": dry_run}, json=json, lines=lambda: _restored(found, to, dry_run))


def _restored(found: "Backup", to: Path, dry_run: bool) -> list[str]:
    import os

    what = f"workspace {found.workspace} of {found.made_at[:16]}Z: {found.rows:,} rows, {found.blobs:,} blobs"
    if dry_run:
        return [f"would restore {what} to {to}; the backup is whole"]
    lines = [f"{to}   {what}, in {found.seconds:g} s; all as it was backed up"]
    told = [name for name in ("FAIRWAY_STORE", "FAIRWAY_BLOBS") if os.environ.get(name)]
    if told:
        lines.append(f"It is in that folder: unset {' and '.join(told)} there, or it is not what you see.")
    if found.workspace != os.environ.get("FAIRWAY_WORKSPACE", "default"):
        lines.append(f"Its name is not the one set here: FAIRWAY_WORKSPACE={found.workspace}")
    if found.unfolded:
        lines.append(f"{found.unfolded} pieces of the log wait to be folded: `fairway serve` does it.")
    return [*lines, f"Look: cd {to} && fairway admin doctor"]
