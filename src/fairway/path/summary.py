"""What a finished run says about itself: the facts of its report and of `fairway show`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fairway import clock
from fairway.data.project import Project
from fairway.runtime.package import read_heldout
from fairway.store.base import Row

if TYPE_CHECKING:
    from fairway.data.snapshot import Snapshot
    from fairway.path.record import TrainResult
    from fairway.training.evaluate import Evaluation


def evaluation_from(value: Mapping[str, Any]) -> "Evaluation":
    """The inverse of `Evaluation.as_dict`."""
    from fairway.training.evaluate import Evaluation  # SciPy; only judging needs it

    return msgspec.convert(value, Evaluation)


def details(
    *,
    project: Project,
    made: Mapping[str, Any],
    importance: Mapping[str, float],
    taken: "Snapshot",
    env: Mapping[str, Any],
    n_train: int,
    n_test: int,
    how: str,
    champion: str | None,
    champion_error: str,
    seed: int,
    events: Mapping[str, str],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """JSON facts of a run that are in no other table."""
    unknown = []
    if project.settings.at is None:
        unknown.append('whether it holds for later rows: the table has no time column, so "later" can\'t be tested.')
    if project.settings.label_delay is None:
        unknown.append("live accuracy: label_delay is unknown.")
    if made.get("importance_unknown"):
        unknown.append(f"the importance of the columns: {made['importance_unknown']}.")
    if champion_error:
        unknown.append(f"how {champion} does on these rows: {champion_error}.")
    nulls = {name: count for name, count in taken.frame.null_count().row(0, named=True).items() if count}
    return {
        "rows": {"train": n_train, "heldout": n_test, "split": how},
        "importance": dict(importance),
        "nulls": nulls,
        "noticed": noticed(taken),
        "counts": dict(taken.counts),
        "origin": taken.origin,
        "champion": champion,
        "unknown": unknown,
        "cost": {
            "training_s": made["seconds"]["train"],
            "memory_mb": made["peak_mb"],
            "ms_per_row": made["ms_per_row"],
        },
        "environment": {"python": env["python"], "digest": env["digest"], "locks": env["locks"]},
        "machine": dict(machine),
        "seed": seed,
        "events": dict(events),
    }


def noticed(taken: "Snapshot") -> list[str]:
    """What was repaired, left out or odd in the table, and refused nothing: sentences."""
    says = {
        "unseen": "are none of the declared values and became null",
        "out_of_seen": "are outside of what was seen when the contract was written",
    }
    said = list(taken.warnings)
    for flag, rows in taken.flags.items():
        kind, _, column = flag.partition(":")
        said.append(f"column {column}: {rows:,} values {says[kind]}")
    return said


def report(
    folder: Path, result: "TrainResult", project: Project, package: Path, *, previous: Row | None, error: str
) -> Path:
    """Write report.html and report.md of the run."""
    from fairway.path.report import RunReport, write_report

    facts, settings = result.details, project.settings
    heldout = read_heldout(package)
    rows = facts["rows"]
    cost = facts["cost"]
    speed = {f"ms a row, {name}": f"{value:g}" for name, value in cost["ms_per_row"].items()}
    columns = [
        {
            "name": column.name,
            "type": column.type,
            "known": column.role if column.role != "feature" else column.known,
            "nulls": facts["nulls"].get(column.name, 0),
            "note": column.why or ("assumed: " + ", ".join(column.assumed) if column.assumed else ""),
        }
        for column in project.contract.columns
    ]
    return write_report(
        folder,
        RunReport(
            model=result.model, run=result.run, task=settings.task, risk=settings.risk, answer=result.verdict,
            version=result.version, owner=settings.owner,
            made=f"{clock.now():%d %b %Y %H:%M} UTC", champion=facts["champion"],
            evaluation=result.metrics, evaluation_error=error, checks=[c.as_dict() for c in result.checks],
            data={
                "dataset": result.dataset,
                "training rows": f"{rows['train']:,}",
                "held-out rows": f"{rows['heldout']:,}",
                "held back": rows["split"],
                **({"noticed": "; ".join(facts["noticed"])} if facts.get("noticed") else {}),
            },
            columns=columns,
            importance=sorted(facts["importance"].items(), key=lambda item: -item[1]),
            runtime=result.runtime,
            cost={"training": f"{cost['training_s']:.1f} s", "memory": f"{cost['memory_mb']:,} MB", **speed},
            changes=_changes(result, previous),
            unknown=facts["unknown"],
            reproduce={
                "run": result.run, "dataset": result.dataset, "package": result.artifact,
                "python": facts["environment"]["python"], "environment": facts["environment"]["digest"][:12],
            },
            row=heldout["rows"][0] if heldout["rows"] else {},
            label=settings.positive,
        ),
    )  # fmt: skip


def _changes(result: "TrainResult", previous: Row | None) -> list[str]:
    """What is not as it was in the version before."""
    if previous is None or previous.version == result.version:
        return []
    said = [f"compared with {result.model}@{previous.version}:"]
    said.append(
        "the same data" if previous.dataset == result.dataset else f"data: {previous.dataset} -> {result.dataset}"
    )
    return said
