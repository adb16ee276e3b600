"""The model card of a version: what it is for, what it was made from, how good it is and what is not known.

From stored facts only: the version's row, its run's result and its package. It can be made again at any time.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairway.contract.columns import Contract
from fairway.contract.text import parse_contract
from fairway.path import page, report
from fairway.path.page import Block, Code, Page, Section, Table
from fairway.path.report import RunReport
from fairway.registry import show
from fairway.runtime import package
from fairway.runtime.environment import needed
from fairway.store.workspace import Workspace

NAME = "card.html"
_ALWAYS = ("numpy", "polars", "scikit-learn", "treelite")
_ANSWER = {"pass": "may be deployed", "fail": "may not be deployed", "ask": "waits for a person's approval"}
_TASK = {
    "binary": "the probability that {target} is {positive}", "multiclass": "the probability of each class of {target}",
    "regression": "the number {target}",
}  # fmt: skip


def card(workspace: Workspace, model: str, version: int) -> Page:
    """The card as sections. Raises: ModelNotFound, VersionNotFound; TamperFound for a package that was changed."""
    row = show.version(workspace.store, model, version)
    folder = package.materialise(workspace, str(row["artifact"]))
    manifest = package.read_manifest((folder / package.MANIFEST).read_bytes())
    contract = parse_contract((folder / "contract.toml").read_text(encoding="utf-8"), file="contract.toml")
    settings: Mapping[str, Any] = row["settings"]
    facts: Mapping[str, Any] = (row["result"] or {}).get("details") or {}
    # An example for readers of the card: without what the log must not show either.
    hidden = {c.name for c in contract.columns if c.log != "plain"}
    first: dict[str, Any] = next(iter(package.read_heldout(folder)["rows"]), {})
    example = {name: "..." if name in hidden else value for name, value in first.items()}
    drawn = RunReport(
        model=model, run=str(row["run"]), task=str(settings["task"]), risk=str(settings["risk"]),
        answer=str(row["verdict"]), version=version, champion=facts.get("champion"),
        evaluation=row["metrics"] or None, evaluation_error="its outputs could not be judged",
        checks=row["checks"], unknown=facts.get("unknown", ()), row=example,
        label=settings.get("positive"),
    )  # fmt: skip
    parts = [
        Section("Use", tuple(_use(row, settings, manifest))),
        Section("Data", tuple(_data(row, settings, facts, contract))),
        Section("How good it is", tuple(report.compared(drawn))),
        Section("Where it is worst", tuple(report.slices(drawn))),
        Section("Checks", tuple(_checks(drawn))),
        Section("Limits, and what is not known", tuple(_limits(drawn, settings, facts, contract))),
        Section("Environment", tuple(_environment(row, facts, manifest))),
        Section("Call it", tuple(report.call(drawn))),
        Section("Make it again", (Code(f"fairway train --reproduce {row['run']}"),)),
    ]
    about = (str(row["run"]), str(settings["task"]), f"risk {settings['risk']}", f"made {_day(row['created_at'])}")
    return Page(
        title=f"{model}@{version}", kind="model card", about=about,
        lead=f"{model}@{version} {_ANSWER.get(drawn.answer, drawn.answer)}.",
        tone=report.TONE[drawn.answer], sections=tuple(part for part in parts if part.blocks),
    )  # fmt: skip


def write(workspace: Workspace, model: str, version: int, folder: Path) -> Path:
    """card.html and card.md in the folder; returns the path of the HTML file."""
    found = card(workspace, model, version)
    path = folder / NAME
    path.write_text(page.html(found), encoding="utf-8")
    (folder / "card.md").write_text(page.markdown(found), encoding="utf-8")
    return path


def _use(row: Mapping[str, Any], settings: Mapping[str, Any], manifest: package.Manifest) -> list[Block]:
    says = _TASK[settings["task"]].format(target=settings["target"], positive=settings.get("positive"))
    entity = settings.get("entity")
    facts = {
        "intended use": settings.get("purpose") or "not stated: set purpose in fairway.toml",
        "predicts": says + (f", one {entity} a row" if entity else ""),
        "asked at": settings.get("at") or "the time of the request",
        "the truth is known": f"after {settings['label_delay']}" if settings.get("label_delay") else "not stated",
        "owner": settings.get("owner") or "unknown",
        "risk": settings["risk"],
        "made by": row["author"] or "unknown",
    }
    if manifest.classes:
        facts["classes"] = ", ".join(manifest.classes)
    return [_facts(facts)]


def _data(
    row: Mapping[str, Any], settings: Mapping[str, Any], facts: Mapping[str, Any], contract: Contract
) -> list[Block]:
    rows: Mapping[str, Any] = facts.get("rows") or {}
    said = {"dataset": row["dataset"]}
    if rows:
        said["rows"] = f"{rows['train']:,} to train on, {rows['heldout']:,} held back ({rows['split']})"
    if row.get("trained_until"):
        said["newest row trained on"] = _day(row["trained_until"])
    for file, digest in ((facts.get("origin") or {}).get("files") or {}).items():
        said[f"file {file}"] = f"sha256 {str(digest)[:12]}"
    if (facts.get("origin") or {}).get("log_rows"):
        said["rows of the prediction log"] = f"{facts['origin']['log_rows']:,}"
    for name, dataset in (facts.get("events") or {}).items():
        said[f"events of {name}"] = dataset
    if facts.get("noticed"):
        said["noticed"] = "; ".join(facts["noticed"])
    nulls, importance = facts.get("nulls") or {}, facts.get("importance") or {}
    used = [c for c in contract.columns if c.role != "ignore"]
    cells = tuple(
        (c.name, c.type, c.role if c.role != "feature" else c.known, c.unit or "", f"{nulls.get(c.name, 0):,}",
         f"{importance[c.name]:.0%}" if c.name in importance else "")
        for c in used
    )  # fmt: skip
    return [_facts(said), Table(("column", "type", "role or known", "unit", "nulls", "importance"), cells, (4, 5))]


def _checks(drawn: RunReport) -> list[Block]:
    counted = {v: sum(c["verdict"] == v for c in drawn.checks) for v in ("pass", "fail", "unknown", "too_few", "skip")}
    said = ", ".join(f"{n} {verdict.replace('_', ' ')}" for verdict, n in counted.items() if n)
    blocks: list[Block] = [f"{said}." if said else "No check ran."]
    shown = [c for c in drawn.checks if c["verdict"] in ("fail", "unknown", "too_few")]
    if shown:
        rows = tuple((str(c["name"]), str(c["verdict"]).replace("_", " "), str(c["summary"])) for c in shown)
        blocks.append(Table(("check", "verdict", "evidence"), rows))
    return blocks


def _limits(drawn: RunReport, settings: Mapping[str, Any], facts: Mapping[str, Any], contract: Contract) -> list[Block]:
    said = []
    if not contract.reviewed:
        said.append("Nobody has reviewed the contract: types, units and when a value is known are assumptions.")
    ranges = [c for c in contract.columns if c.seen is not None and c.role == "feature" and c.known == "request"]
    if ranges:
        said.append("It has seen only these ranges; a value outside is predicted all the same, and flagged.")
    unsure = [c.name for c in contract.columns if c.known == "unsure"]
    if unsure:
        said.append(f"Left out, for they may be known only later: {', '.join(unsure)}.")
    blocks: list[Block] = [*said]
    if ranges:
        cells = tuple((c.name, f"{c.seen[0]}", f"{c.seen[1]}", c.unit or "") for c in ranges if c.seen is not None)
        blocks.append(Table(("column", "smallest seen", "largest seen", "unit"), cells, (1, 2)))
    return [*blocks, *report.unknown(drawn)]


def _environment(row: Mapping[str, Any], facts: Mapping[str, Any], manifest: package.Manifest) -> list[Block]:
    recorded = manifest.environment
    versions: Mapping[str, str] = recorded.get("packages") or {}
    runtime = manifest.runtime
    said = {
        "package": str(row["artifact"]),
        "contract": manifest.contract,
        "runtime": f"{runtime.get('kind')}: {runtime.get('reason')}",
        "python": recorded.get("python", "unknown"),
        "fairway": row["fairway"],
        "seed": str(facts.get("seed", "unknown")),
    }
    said |= {name: str(value) for name, value in (facts.get("machine") or {}).items()}
    for name, digest in (recorded.get("locks") or {}).items():
        said[name] = f"sha256 {digest[:12]}, in the package"
    if recorded.get("imports") is not None:
        named = sorted({*recorded["imports"].values(), *_ALWAYS} & set(versions))
        rest = len(needed(recorded) - {*named, "fairway"})
        said["packages"] = ", ".join(f"{n} {versions[n]}" for n in named) + f"; {rest} more that these and fairway need"
    return [_facts(said)]


def _facts(values: Mapping[str, Any]) -> Table:
    return Table(("", ""), tuple((key, str(value)) for key, value in values.items()))


def _day(text: Any) -> str:
    return str(text)[:10]
