"""Two contracts side by side: what changed, what that breaks, and who in the workspace uses what changed."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fairway.contract.columns import Contract
from fairway.contract.compare import Change, compare
from fairway.contract.text import parse_contract
from fairway.errors import UsageError
from fairway.registry import show, versions
from fairway.registry.versions import parse_thing
from fairway.runtime.package import Manifest, read_manifest
from fairway.store import schema
from fairway.store.workspace import Workspace

Json = dict[str, Any]


def is_file(name: str) -> bool:
    """Whether a name means a contract's file (or a project's folder) rather than something of the registry."""
    return name.endswith(".toml") or "/" in name or Path(name).is_dir()


def differences(workspace: Workspace | None, one: str, other: str) -> Json:
    """{"one", "other", "kind": "contract", "changes", "downstream"} of two contract files, or a file and a version.

    Raises: UsageError, SettingsError for a file that can't be read, VersionNotFound.
    """
    found = changed(workspace, _load(workspace, one), _load(workspace, other))
    return {"one": one, "other": other, "kind": "contract", **found}


def changed(workspace: Workspace | None, one: Contract, other: Contract) -> Json:
    """{"changes", "downstream"}: what differs, and which versions, views and lines of code use those columns."""
    changes = compare(one, other)
    uses = downstream(workspace, changes) if workspace is not None and changes else []
    return {"changes": [change.as_dict() for change in changes], "downstream": uses}


def of_version(workspace: Workspace, artifact: str) -> Contract:
    """The contract in a version's package."""
    manifest = read_manifest(workspace.blobs.get(artifact))
    return _contract(workspace, manifest)


def _contract(workspace: Workspace, manifest: Manifest) -> Contract:
    return parse_contract(workspace.blobs.get(manifest.files["contract.toml"]).decode("utf-8"))


def _load(workspace: Workspace | None, name: str) -> Contract:
    if is_file(name):
        path = Path(name) / "contract.toml" if Path(name).is_dir() else Path(name)
        if not path.is_file():
            raise UsageError(f"there is no {path}")
        return parse_contract(path.read_text(encoding="utf-8"), file=path.name)
    if workspace is None:
        raise UsageError(f"{name} is no file, and there is no workspace here that could know it")
    thing = parse_thing(name)
    if thing.kind not in ("version", "model"):
        raise UsageError(f"{name} has no contract: name a version, contract.toml, or a project's folder")
    row = versions.get(workspace.store, thing.name, thing.version)
    return of_version(workspace, row.artifact)


def of_tables(one: Json, other: Json) -> list[Json]:
    """Columns of two datasets as changes: a type that moved is refused by whatever was trained from the first."""
    before, after = (dict(found["columns"]) for found in (one, other))
    found = []
    for name in dict.fromkeys((*before, *after)):
        a, b = before.get(name), after.get(name)
        if a == b:
            continue
        key, says = "type", "training by the first one's contract refuses it"
        if a is None or b is None:
            key, says = "column", "it is read by no contract yet" if a is None else "training that needs it is refused"
        effect: Any = "none" if a is None else "breaks"
        found.append(Change(column=name, key=key, one=a, other=b, effect=effect, says=says).as_dict())
    return found


# -- downstream ------------------------------------------------------------------------------------------------------


def downstream(workspace: Workspace, changes: Sequence[Change]) -> list[Json]:
    """Who uses the columns that changed: endpoints whose callers send them, views, and lines of model code.

    Told from the versions that serve (or shadow), and each model's newest one; a use is a text in code that is the
    column's name, so one that is put together there is not seen. {"column", "what", "version"}.
    """
    names = {change.column for change in changes if change.effect != "none"}
    found: list[Json] = []
    for model, version, artifact, endpoint in _in_use(workspace):
        manifest = read_manifest(workspace.blobs.get(artifact))
        contract = _contract(workspace, manifest)
        label = f"{model}@{version}"
        sent = {c.name for c in contract.request_columns}
        for name in sorted(names):
            for what in _uses(name, sent, manifest, endpoint):
                found.append({"column": name, "what": f"{label}: {what}", "version": label})
        for name, where in _in_code(workspace, manifest, names):
            found.append({"column": name, "what": f"{label}: {where}", "version": label})
    return sorted(found, key=lambda use: (use["column"], use["what"]))


def _uses(name: str, sent: set[str], manifest: Manifest, endpoint: str | None) -> Iterator[str]:
    if name in sent and endpoint is not None:
        yield f"endpoint {endpoint}: its callers send it"
    for view in manifest.views:
        source = f"sources.{view['source']}."
        if name == view["entity"]:
            yield f"view {view['name']} is looked up by it"
        elif name.startswith(source):
            yield f"view {view['name']} reads its table"
    if any(column == name for column, _ in manifest.feature_columns):
        yield "a feature of this name"


def _in_use(workspace: Workspace) -> list[tuple[str, int, str, str | None]]:
    """(model, version, artifact, endpoint that it serves or None): what serves or shadows, and each model's newest."""
    found: dict[tuple[str, int], str | None] = {}
    store = workspace.store
    table = schema.endpoint
    with store.read() as tx:
        for row in tx.execute(sa.select(table).where(table.c.workspace == store.workspace)):
            serving = {int(v) for v, share in (row.shares or {}).items() if share} | {int(v) for v in row.shadows or ()}
            for version in serving:
                found[row.model, version] = row.endpoint
    for model in show.models(store):
        newest = versions.newest(store, model)
        if newest is not None:
            found.setdefault((model, newest.version), None)
    return [(m, v, versions.get(store, m, v).artifact, endpoint) for (m, v), endpoint in sorted(found.items())]


def _in_code(workspace: Workspace, manifest: Manifest, names: Iterable[str]) -> list[tuple[str, str]]:
    wanted = set(names)
    found = []
    for file, digest in sorted(manifest.files.items()):
        if not (file.startswith("code/") and file.endswith(".py")):
            continue
        lines: dict[str, list[int]] = {}
        for node in ast.walk(ast.parse(workspace.blobs.get(digest))):
            texts = [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []
            texts += [node.arg] if isinstance(node, ast.keyword) and node.arg else []
            for text in texts:
                if text in wanted:
                    lines.setdefault(text, []).append(getattr(node, "lineno", 0))
        for name, places in lines.items():
            listed = ", ".join(map(str, sorted(set(places))[:6]))
            found.append((name, f"{file.removeprefix('code/')} line {listed}"))
    return found
