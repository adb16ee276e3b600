"""`serve` and `backtest`: what runs for longer."""

import contextlib
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from fairway.cli import history
from fairway.cli.terminal import JsonFlag, emit, progress, say
from fairway.cli.things import project_for, workspace_here
from fairway.errors import StoreUnavailable, UsageError


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)
    app.command("backtest")(backtest)


def serve(
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="PORT", help="Predict, feedback, /metrics; 0 = any.")
    ] = 8080,
    console_port: Annotated[
        int, typer.Option("--console-port", min=0, max=65535, metavar="PORT", help="Pages; 0 = any.")
    ] = 8081,
    gateways: Annotated[int, typer.Option("--gateways", min=1, max=64, metavar="N", help="Gateway processes.")] = 2,
    virtual_clock: Annotated[
        str | None, typer.Option("--virtual-clock", metavar="TIME", help="Start a settable clock at this time.")
    ] = None,
) -> None:
    """Predict, watch and show pages, on this machine, until Ctrl-C."""
    from fairway.data.project import troubles
    from fairway.process import supervisor

    workspace = workspace_here()
    start = parse_time(virtual_clock, option="--virtual-clock") if virtual_clock else None
    with contextlib.suppress(StoreUnavailable):  # the supervisor says that, and what it does then
        for model, error in troubles(workspace, variables=True).items():
            say(f"{model}: {error}")
    supervisor.serve(workspace, port=port, console_port=console_port, gateways=gateways, virtual_clock=start, say=say)


def backtest(
    start: Annotated[str, typer.Option("--from", metavar="DATE", help="First day to replay.")],
    end: Annotated[str, typer.Option("--to", metavar="DATE", help="Replay until before this.")],
    thing: Annotated[str | None, typer.Argument(metavar="MODEL", help="By default this project.")] = None,
    retrain: Annotated[
        str, typer.Option("--retrain", metavar="WHEN", help="never, a period such as 30d, or alarm.")
    ] = "never",
    json: JsonFlag = False,
) -> None:
    """History replayed through the same code. On a virtual clock; nothing live is touched."""
    from fairway.contract.view import parse_duration
    from fairway.testing.backtest import run_backtest

    if retrain not in ("never", "alarm"):
        try:
            parse_duration(retrain)
        except ValueError as exc:
            raise UsageError(f"--retrain takes never, alarm, or a period: {exc}", field="retrain") from exc
    first, last = parse_time(start, option="--from"), parse_time(end, option="--to")
    if last <= first:
        raise UsageError(f"--to {end} is not after --from {start}", field="to")
    result: dict[str, Any] = run_backtest(project_for(thing), start=first, end=last, retrain=retrain, say=progress)
    emit(result, json=json, lines=lambda: history.backtest(result))


def parse_time(text: str, *, option: str) -> datetime:
    """A date (its first moment, UTC) or an ISO time with a zone. Raises: UsageError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as exc:
        raise UsageError(f"{option} {text!r} is no date: write 2014-05-01 or 2014-05-01T06:00Z") from exc
    if at.tzinfo is None:
        if len(text) > 10:
            raise UsageError(f"{option} {text} has no time zone; add Z or an offset")
        at = at.replace(tzinfo=UTC)
    return at.astimezone(UTC)
