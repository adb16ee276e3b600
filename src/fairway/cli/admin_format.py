"""`fairway admin format`: which format the store has, and the step that ends an upgrade."""

from typing import Annotated

import typer

from fairway.cli.terminal import DryFlag, JsonFlag, emit
from fairway.cli.things import allowed, workspace_here


def register(app: typer.Typer) -> None:
    app.command("format")(format_)


def format_(
    contract: Annotated[
        bool, typer.Option("--contract", help="Drop what only older fairway needs; it is turned away from then on.")
    ] = False,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
) -> None:
    """The format of the store, and the end of an upgrade.

    A newer fairway adds what it needs when it first opens a store; the one before goes on working beside it until
    somebody runs this with --contract. That waits for gateways that older code runs, and can't be undone.
    """
    from fairway.store import audit, migrate, schema
    from fairway.store.closed import shown

    workspace = workspace_here()
    store = workspace.store
    if contract:
        by = allowed(workspace, "admin")
    with store.read() as tx:
        before, expanded = migrate.formats(tx)
        older = migrate.older_gateways(store, tx, schema.FORMAT)
    done = False
    if contract and not dry_run:
        done = migrate.contract(store)
        if done:
            with store.write() as tx:
                audit.record(
                    store, tx, actor=by.name, action="store.contract", subject="store", before=before,
                    format=schema.FORMAT,
                )  # fmt: skip
    oldest = schema.FORMAT if done else before
    result = {"format": oldest, "expanded": expanded, "older_gateways": older, "contracted": done, "dry_run": dry_run}

    def lines() -> list[str]:
        opens = f"fairway of format {oldest} and newer opens it" if oldest < expanded else "nothing is left to do"
        text = [f"{shown(store.name)} has format {expanded}; {opens}"]
        if done:
            return [*text, "older fairway is turned away from now on"]
        if oldest < expanded and older:
            text.append(f"older code still serves: {', '.join(older)}")
        if oldest < expanded:
            text.append(
                "would contract it" if dry_run and contract else "end the upgrade: fairway admin format --contract"
            )
        return text

    emit(result, json=json, lines=lines)
