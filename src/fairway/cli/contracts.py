"""Contracts on the terminal: how two of them differ, and the one that today's table asks for."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from fairway.cli.terminal import ask, emit, interactive, say, table
from fairway.cli.things import parse_model, project_for, workspace_here
from fairway.errors import UsageError
from fairway.web.words import count

if TYPE_CHECKING:
    from fairway.contract.columns import Column, Contract
    from fairway.data.project import Project

_CUT = 40
_EFFECTS = {"breaks": "breaks", "changes": "changes", "widens": "widens", "none": ""}


def diff(one: str, other: str, *, json: bool) -> None:
    """Two contracts, at least one of which is a file."""
    from fairway.registry.contracts import differences

    try:
        workspace = workspace_here()
    except UsageError:
        workspace = None  # two files can be compared anywhere; nothing is downstream of them then
    found = differences(workspace, one, other)
    emit(found, json=json, lines=lambda: lines(found))


def lines(found: Mapping[str, Any], *, what: str = "contract", broken_is: str = "what callers send") -> list[str]:
    """What changed, what it does, and who uses it."""
    changes = found["changes"]
    if not changes:
        return [f"{what}: no difference"]
    broken = sum(change["effect"] == "breaks" for change in changes)
    those = "it breaks" if len(changes) == 1 else f"{broken} of them {'breaks' if broken == 1 else 'break'}"
    said = f"; {those} {broken_is}" if broken else ""
    shown = [f"{what}: {count(len(changes), 'change')}{said}"]
    shown += table([_cells(change) for change in changes], indent="  ", gap=3)
    uses = found.get("downstream") or []
    if uses:
        shown += ["used by", *table([[use["column"], use["what"]] for use in uses], indent="  ", gap=3)]
    return shown


def _cells(change: Mapping[str, Any]) -> list[str]:
    one, other = change["one"], change["other"]
    if change["key"] == "values":  # what was added and taken away is said; the whole lists are in --json
        return [change["column"], change["key"], "", _EFFECTS[change["effect"]], change["says"]]
    if change["key"] in ("column", "type", "role", "known"):
        one, other = (None if text is None else text.strip('"') for text in (one, other))
    what = f"{_cut(one)} -> {_cut(other)}" if one is not None and other is not None else (
        f"+ {_cut(other)}" if one is None else f"- {_cut(one)}"
    )  # fmt: skip
    return [change["column"], change["key"], what, _EFFECTS[change["effect"]], change["says"]]


def _cut(text: str) -> str:
    return text if len(text) <= _CUT else text[: _CUT - 1] + "…"


def renew(project: "Project", *, pandera: str | None, yes: bool, dry_run: bool, json: bool) -> None:
    """Shows what would change; writes when it is confirmed. Exit code 3 when it waits for that."""
    from fairway.path.renewed import propose

    proposal = propose(project, pandera=pandera)
    found = proposal.as_dict()
    if not json:
        for line in _proposed(found):
            say(line)
    pending = proposal.text != proposal.before and not dry_run
    write = pending and (yes or (interactive() and not json and _confirmed(len(proposal.changes))))
    if write:
        proposal.write()
    option = f"--from-pandera {pandera}" if pandera else "--update-contract"
    changed = proposal.text != proposal.before
    done = _ended(option, pending=pending, written=write, dry_run=dry_run, changed=changed)
    emit({**found, "written": write}, json=json, lines=lambda: [done])
    if pending and not write:
        raise typer.Exit(3)


def _proposed(found: Mapping[str, Any]) -> list[str]:
    shown = lines(found) if found["changes"] else ["contract.toml says what the table says"]
    if found["left"]:
        shown += ["stays as it is", *(f"  {text}" for text in found["left"])]
    return shown


def _confirmed(changes: int) -> bool:
    return ask(f"Write {count(changes, 'change')} to contract.toml?", "yes").lower() in ("y", "yes")


def _ended(option: str, *, pending: bool, written: bool, dry_run: bool, changed: bool) -> str:
    if written:
        return "contract.toml is written; comments are kept. It counts as not reviewed where a rule changed."
    if pending:
        return f"Nothing was written. Write it with: fairway check {option} --yes"
    return "Nothing was written (--dry-run)." if dry_run and changed else "Nothing to write."


def show(thing: str, *, odcs: bool, json: bool) -> None:
    """This project's contract ("contract"), or a version's; in the Open Data Contract Standard with `odcs`."""
    contract, name, owner = _contract_of(thing)
    from fairway.contract.odcs import as_odcs

    document = as_odcs(contract, name=name, owner=owner)
    if odcs:
        from fairway._optional import need

        text = need("yaml", extra="odcs").safe_dump(document, sort_keys=False, allow_unicode=True, width=110)
        emit(document, json=json, lines=text.rstrip("\n").splitlines)
        return
    reviewed = "reviewed" if contract.reviewed else "not reviewed yet: read contract.toml, then set reviewed = true"
    rows = [["COLUMN", "TYPE", "ROLE", "KNOWN", "NULLS", "RULES"]]
    rows += [_column_cells(column) for column in contract.columns]
    head = f"{name}   {contract.version}   {count(len(contract.columns), 'column')}; {reviewed}"
    over = [f"  rule {rule.name}: {rule.check}{f' when {rule.when}' if rule.when else ''}" for rule in contract.rules]
    over += [f"  rows {contract.rows[0]:,} to {contract.rows[1]:,}"] if contract.rows else []
    found = {"name": name, "version": contract.version, "reviewed": contract.reviewed, "odcs": document}
    emit(found, json=json, lines=lambda: [head, *table(rows, indent="  ", gap=3), *over])


def _column_cells(column: "Column") -> list[str]:
    from fairway.contract.rules import shown_range

    said = [shown_range(column.range)] if column.range else []
    said += [f"{len(column.values):,} values"] if column.values else []
    said += [f"{column.length} numbers"] if column.length else []
    said += [f"matches {column.pattern}"] if column.pattern else []
    said += ["unique"] if column.unique else []
    said += [column.monotonic] if column.monotonic else []
    said += [f"assumed: {', '.join(column.assumed)}"] if column.assumed else []
    known = column.known if column.role == "feature" else ""
    return [column.name, column.type, column.role, known, "yes" if column.nulls else "", "; ".join(said)]


def _contract_of(thing: str) -> "tuple[Contract, str, str | None]":
    if thing == "contract":
        project = project_for(None)
        return project.contract, project.settings.name, project.settings.owner
    from fairway.contract.text import parse_settings
    from fairway.registry import versions
    from fairway.registry.contracts import of_version
    from fairway.runtime.package import read_manifest

    named, workspace = parse_model(thing), workspace_here()
    row = versions.get(workspace.store, named.model, named.version)
    manifest = read_manifest(workspace.blobs.get(row.artifact))
    settings = parse_settings(workspace.blobs.get(manifest.files["fairway.toml"]).decode("utf-8"))
    return of_version(workspace, row.artifact), named.model, settings.owner
