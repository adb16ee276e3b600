"""What differs between two versions, runs or datasets: plain values side by side, nothing judged."""

from collections.abc import Mapping
from typing import Any

from fairway.errors import UsageError
from fairway.registry import contracts, show, versions
from fairway.registry.versions import parse_thing
from fairway.runtime.package import read_manifest
from fairway.store.workspace import Workspace

Json = dict[str, Any]

_GONE = "(none)"


def between(workspace: Workspace, one: str, other: str) -> Json:
    """{"one", "other", "kind", "differences": [{"what", "one", "other"}]}, in the order data, code, settings, results.

    Of versions whose contracts differ, and of datasets whose columns do, also "contract": {"changes", "downstream"}.

    Raises: UsageError for two things of different kinds, ThingNotFound, VersionNotFound.
    """
    kind, first = _facts(workspace, one)
    other_kind, second = _facts(workspace, other)
    if kind != other_kind:
        raise UsageError(f"{one} is a {kind} and {other} a {other_kind}; only two of a kind can be compared")
    names = [*first, *(name for name in second if name not in first)]
    found = [
        {"what": name, "one": first.get(name, _GONE), "other": second.get(name, _GONE)}
        for name in names
        if first.get(name, _GONE) != second.get(name, _GONE)
    ]
    result: Json = {"one": one, "other": other, "kind": kind, "differences": found}
    if kind == "version" and first["contract"] != second["contract"]:
        artifacts = (_artifact(workspace, name) for name in (one, other))
        result["contract"] = contracts.changed(workspace, *(contracts.of_version(workspace, a) for a in artifacts))
    elif kind == "dataset":
        tables = (show.dataset(workspace.store, name) for name in (one, other))
        result["contract"] = {"changes": contracts.of_tables(*tables), "downstream": []}
    return result


def _artifact(workspace: Workspace, name: str) -> str:
    thing = parse_thing(name)
    return str(versions.get(workspace.store, thing.name, thing.version).artifact)


def _facts(workspace: Workspace, name: str) -> tuple[str, Json]:
    thing, store = parse_thing(name), workspace.store
    if thing.kind == "version":
        return "version", _version(workspace, show.version(store, thing.name, thing.version or 0))
    if thing.kind == "model":
        newest = show.model(store, thing.name)["newest"]
        if newest is None:
            raise UsageError(f"{thing.name} has no version yet")
        return "version", _version(workspace, show.version(store, thing.name, newest))
    if name.startswith("run-"):
        run = show.run(store, name)
        keys = {f"step {step['name']}": step.get("key") for step in run["steps"]}
        return "run", {
            **{key: run[key] for key in ("model", "status", "cause", "version", "error", "fairway")},
            **_flat("settings", run["settings"]), **keys,
        }  # fmt: skip
    if name.startswith("data-"):
        dataset = show.dataset(store, name)
        return "dataset", {
            "rows": dataset["rows"], "columns": len(dataset["columns"]), **_flat("origin", dataset["origin"]),
        }  # fmt: skip
    raise UsageError(f"{name} can't be compared: name two versions, runs or datasets")


def _version(workspace: Workspace, version: Json) -> Json:
    manifest = read_manifest(workspace.blobs.get(version["artifact"]))
    code = {name: digest[:12] for name, digest in manifest.files.items() if name.startswith("code/")}
    figures = (version["metrics"] or {}).get("metrics") or {}
    return {
        "data": version["dataset"], "trained until": version["trained_until"], "contract": version["contract"],
        **code, **_flat("environment", manifest.environment), "runtime": manifest.runtime.get("kind"),
        **_flat("settings", version["settings"]),
        **{f"metric {name}": value.get("value") for name, value in figures.items()},
        **{f"check {check['name']}": check["verdict"] for check in version["checks"]},
        "verdict": version["verdict"], "author": version["author"],
    }  # fmt: skip


def _flat(prefix: str, value: Any) -> Json:
    """Nested objects as "prefix.a.b": value."""
    if isinstance(value, Mapping):
        return {name: item for key, inner in value.items() for name, item in _flat(f"{prefix}.{key}", inner).items()}
    if isinstance(value, list) and value and all(isinstance(item, Mapping) and "name" in item for item in value):
        return {name: item for inner in value for name, item in _flat(f"{prefix}.{inner['name']}", inner).items()}
    return {prefix: value}
