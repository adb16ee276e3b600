"""`check` and `diff`: whether data, code and gate would do, and how two things differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fairway.cli import contracts, pages, quality
from fairway.cli.make import note_failed, say_step
from fairway.cli.terminal import DryFlag, JsonFlag, YesFlag, emit, progress, say, table
from fairway.cli.things import allowed, parse_model, project_for, workspace_here
from fairway.errors import FairwayError, UsageError
from fairway.web.words import plain

if TYPE_CHECKING:
    from fairway.data.project import Project
    from fairway.path.check import CheckOutcome
    from fairway.path.quality import Quality

_SAID = {"pass": "the gate would pass", "fail": "the gate would fail", "ask": "a person would be asked"}


def register(app: typer.Typer) -> None:
    app.command("check")(check)
    app.command("diff")(diff)


def check(
    thing: Annotated[str | None, typer.Argument(metavar="MODEL[@N]", help="By default this project as it is.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="NAME", help="Just this check; repeatable. table: its contract alone."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Of everything that is drawn.")] = 0,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write the table's rules as a page.")
    ] = None,
    update: Annotated[
        bool, typer.Option("--update-contract", help="Bring contract.toml up to today's table; shown first.")
    ] = False,
    pandera: Annotated[
        str | None, typer.Option("--from-pandera", metavar="FILE:SCHEMA", help="Take its rules into contract.toml.")
    ] = None,
    study: Annotated[
        bool,
        typer.Option("--study", help="What the data could do better: wrong labels, more rows, what to label next."),
    ] = False,
    yes: YesFlag = False,
    dry_run: DryFlag = False,
    json: JsonFlag = False,
) -> None:
    """Data, code and gate; registers nothing. Of a version: its checks once more."""
    named = parse_model(thing) if thing is not None else None
    project = project_for(thing)
    by = allowed(project.workspace, "scientist").name
    if study:
        from fairway.path import study as studies

        progress("training the model about twenty times, on parts of the data ...")
        learned = studies.study_data(project, seed=seed)
        emit(learned.as_dict(), json=json, lines=lambda: studies.lines(learned))
        return
    if update or pandera is not None:
        if named is not None and named.version is not None:
            raise UsageError(f"{thing} is made and stays as it is; --update-contract is for a project")
        contracts.renew(project, pandera=pandera, yes=yes, dry_run=dry_run, json=json)
        return
    if yes or dry_run:
        raise UsageError("--yes and --dry-run belong to --update-contract or --from-pandera: a check changes nothing")
    wanted = tuple(only or ())
    if named is not None and named.version is not None:
        from fairway.path.check import check_version

        _show(check_version(project.workspace, named.model, named.version, project, only=wanted, seed=seed), json=json)
        return
    standing = _data(project, html=html, json=json)
    refused = standing.refusal()
    if refused is not None or wanted == ("table",):
        verdict = {"pass": "pass", "fail": "fail", "unknown": "ask"}[standing.found.verdict]
        result = {"thing": project.settings.name, "verdict": verdict, "checks": [], "contract": standing.as_dict()}
        said = "" if refused is None else "The table breaks its contract: nothing was trained. Rules: contract.toml"
        emit(result, json=json, lines=lambda: [said] * bool(said))
        if verdict != "pass":
            raise typer.Exit(1 if verdict == "fail" else 3)
        return
    from fairway.path.check import check_project

    try:
        found = check_project(project, actor=by, seed=seed, only=wanted, say=say_step)
    except FairwayError as error:
        note_failed(project, error)
        raise
    _show(found, json=json, contract=standing.as_dict())


def _data(project: "Project", *, html: Path | None, json: bool) -> "Quality":
    """The table by its contract, shown at once."""
    from fairway.path.quality import check_data

    standing = check_data(project)
    if not json:
        for line in quality.lines(standing.as_dict(), reviewed=project.contract.reviewed):
            say(line)
    if html is not None:
        standing.write_html(html)
        if not json:
            say(f"  every rule: {html}")
    return standing


def _show(found: "CheckOutcome", *, json: bool, contract: dict[str, Any] | None = None) -> None:
    emit(
        {**found.as_dict(), **({"contract": contract} if contract is not None else {})},
        json=json,
        lines=lambda: [
            *pages.checks([c.as_dict() for c in found.checks]),
            f"{found.thing}: {_SAID[found.verdict]}. Nothing was registered.",
        ],
    )
    if found.verdict != "pass":
        raise typer.Exit(1 if found.verdict == "fail" else 3)


def diff(
    one: Annotated[
        str,
        typer.Argument(metavar="ONE", help="A version, run, dataset or contract: churn@1, run-7f3a, contract.toml."),
    ],
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Another of the same kind.")],
    json: JsonFlag = False,
) -> None:
    """What differs between two versions, runs, datasets or contracts, and what that breaks."""
    from fairway.registry.contracts import is_file

    if is_file(one) or is_file(other):
        contracts.diff(one, other, json=json)
        return
    from fairway.registry.differences import between

    found = between(workspace_here(), one, other)

    def lines() -> list[str]:
        if not found["differences"]:
            return [f"{one} and {other}: no difference in data, contract, code, environment, settings or results"]
        rows = [["", one, other]]
        rows += [[d["what"], plain(d["one"])[:50], plain(d["other"])[:50]] for d in found["differences"]]
        said = table(rows, indent="  ", gap=3)
        changed = found.get("contract")
        if not changed or not changed["changes"]:
            return said
        tables = {"what": "columns", "broken_is": "training"} if found["kind"] == "dataset" else {}
        return [*said, "", *contracts.lines(changed, **tables)]

    emit(found, json=json, lines=lines)
