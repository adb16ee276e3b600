"""`fairway admin token`: who may call, and as what."""

from typing import Annotated, Any

import typer

from fairway.cli.terminal import DryFlag, JsonFlag, WhyOption, emit, table
from fairway.cli.things import allowed, workspace_here
from fairway.errors import UsageError
from fairway.web.words import local

token = typer.Typer(help="Tokens of people and services.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.add_typer(token, name="token")


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
    """Names, roles, ends and last uses (to the hour); never the tokens."""
    from fairway import clock
    from fairway.store import tokens

    workspace = workspace_here()
    allowed(workspace, "admin")
    own = tokens.owner(workspace)
    line = {"name": own.name, "roles": sorted(own.roles), "created_at": None, "expires_at": None, "last_used_at": None}
    rows: list[dict[str, Any]] = [{**line, "file": str(workspace.folder / "token")}]
    rows += [{**dict(row._mapping), "file": None} for row in tokens.named(workspace.store)]

    def when(value: Any) -> str:
        return "-" if value is None else local(clock.iso(value))

    def ends(row: dict[str, Any]) -> str:
        at = row["expires_at"]
        return "never" if at is None else f"{when(at)}{' (over)' if at <= clock.now() else ''}"

    emit(
        rows,
        json=json,
        lines=lambda: table(
            [
                ["NAME", "ROLES", "ENDS", "LAST USED"],
                *(
                    [
                        row["name"] + (" (this machine, .fairway/token)" if row["file"] else ""),
                        ", ".join(row["roles"]),
                        ends(row),
                        when(row["last_used_at"]),
                    ]
                    for row in rows
                ),
            ]
        ),
    )


@token.command("revoke")
def token_revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in: fairway admin token list.")],
    why: WhyOption = None,
    json: JsonFlag = False,
    dry_run: DryFlag = False,
) -> None:
    """End a token: nobody is let in with it from now on."""
    from fairway.errors import ThingNotFound
    from fairway.store import tokens

    workspace = workspace_here()
    by = allowed(workspace, "admin")
    if dry_run:
        if name not in {row.name for row in tokens.named(workspace.store)}:
            raise ThingNotFound(f"no token is named {name!r}; see them with: fairway admin token list", field="name")
        emit({"name": name, "dry_run": True}, json=json, lines=lambda: [f"would end the token of {name}"])
        return
    tokens.revoke(workspace.store, name=name, actor=by.name, why=why)
    emit({"name": name, "revoked": True}, json=json, lines=lambda: [f"the token of {name} has ended"])
