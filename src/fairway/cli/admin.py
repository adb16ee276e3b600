"""`fairway admin`: tokens, the audit chain and the doctor. What else belongs here says that it is not built yet."""

from typing import Annotated, Any

import typer

from fairway.cli import later
from fairway.cli.terminal import DryFlag, JsonFlag, emit, table
from fairway.cli.things import allowed, workspace_here
from fairway.errors import Refused, UsageError
from fairway.web.words import local

app = typer.Typer(help="Audit, doctor and tokens.", no_args_is_help=True, rich_markup_mode=None)
token = typer.Typer(help="Tokens of people and services.", no_args_is_help=True, rich_markup_mode=None)
audit = typer.Typer(help="The audit log.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(token, name="token")
app.add_typer(audit, name="audit")

LATER = ("backup", "restore", "gc", "upgrade", "move", "ci", "retire")
for _verb in LATER:
    app.command(_verb, help="(not in this version)", context_settings={"ignore_unknown_options": True})(
        later.refuse(f"admin {_verb}")
    )


@token.command("create")
def token_create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for, for example kim@example.com.")],
    role: Annotated[
        list[str],
        typer.Option(
            "--role", metavar="ROLE", help="Repeatable: viewer, scientist, approver, admin, predict, feedback."
        ),
    ],
    expires: Annotated[str | None, typer.Option("--expires", metavar="30d", help="When it ends.")] = None,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
) -> None:
    """Make a token and show it, once."""
    from fairway import clock
    from fairway.contract.view import parse_duration
    from fairway.store import tokens

    try:
        ends = clock.now() + parse_duration(expires) if expires else None
    except ValueError as exc:
        raise UsageError(str(exc), field="expires") from exc
    workspace = workspace_here()
    by = allowed(workspace, "admin")
    result: dict[str, Any] = {"name": name, "roles": role, "expires_at": clock.iso(ends) if ends else None}
    if dry_run:
        emit(
            {**result, "dry_run": True}, json=json, lines=lambda: [f"would make a token for {name}: {', '.join(role)}"]
        )
        return
    made = tokens.create(workspace.store, name=name, roles=role, actor=by.name, expires_at=ends)
    emit(
        {**result, "token": made},
        json=json,
        lines=lambda: [
            made,
            f"for {name}, {', '.join(role)}{', until ' + local(result['expires_at']) if ends else ''}; "
            "shown only now. Use it as FAIRWAY_TOKEN, or to log in to the pages.",
        ],
    )


@token.command("list")
def token_list(json: JsonFlag = False) -> None:
    """Names, roles and ends; never the tokens."""
    from fairway.store import tokens

    workspace = workspace_here()
    allowed(workspace, "admin")
    rows = [dict(row._mapping) for row in tokens.named(workspace.store)]
    emit(
        rows,
        json=json,
        lines=lambda: table(
            [["NAME", "ROLES"], *([row["name"], ", ".join(row["roles"])] for row in rows)] if rows else [["no tokens"]]
        ),
    )


@audit.command("verify")
def audit_verify(json: JsonFlag = False) -> None:
    """Check that no entry was changed, removed or moved."""
    from fairway.store import audit as log

    store = workspace_here().store
    broken, entries = log.verify(store), len(log.entries(store))
    if broken is not None:
        raise Refused(f"audit entry {broken} is missing, out of order or changed; entries before it are whole")
    emit(
        {"entries": entries, "broken_at": None},
        json=json,
        lines=lambda: [
            f"entries 1 to {entries:,} unbroken" if entries else "the audit log is empty",
            "A cut tail can't be told from this store alone: that takes a copy of the head kept elsewhere.",
        ],
    )


@app.command("doctor")
def doctor(json: JsonFlag = False) -> None:
    """Look whether the parts are whole.

    The databases, the store, every blob against its hash, the audit chain.
    """
    import sqlite3

    import apsw

    from fairway.errors import FairwayError
    from fairway.store import audit as log

    workspace = workspace_here()
    found: list[dict[str, Any]] = []

    def note(name: str, ok: bool, text: str) -> None:
        found.append({"check": name, "verdict": "pass" if ok else "fail", "summary": text})

    wal = sqlite3.sqlite_version_info >= (3, 51, 3)
    journal = "write-ahead log" if wal else "journal TRUNCATE: before 3.51.3 a write-ahead log can be corrupted"
    note("sqlite", True, f"{sqlite3.sqlite_version} for the store ({journal})")
    note("apsw", True, f"SQLite {apsw.sqlite_lib_version()} for the spool")
    try:
        store = workspace.store
        note("store", True, f"{workspace.folder / 'store.db'} opens")
        broken = log.verify(store)
        note("audit", broken is None, "chain unbroken" if broken is None else f"entry {broken} changed or missing")
    except FairwayError as exc:
        note("store", False, str(exc))
    bad, total = [], 0
    for digest in workspace.blobs:
        total += 1
        try:
            workspace.blobs.get(digest)
        except FairwayError as exc:
            bad.append(str(exc))
    note("blobs", not bad, f"{total:,} blobs equal their hash" if not bad else "; ".join(bad[:5]))
    emit(
        found,
        json=json,
        lines=lambda: table([[f["check"], f["verdict"], f["summary"]] for f in found], indent="  "),
    )
    if any(f["verdict"] == "fail" for f in found):
        raise typer.Exit(1)
