"""Whether a run can only come to what an earlier one came to, told from the bytes of its inputs without reading them.

Then that run's result is the answer, and neither Polars nor a child process is needed to give it.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from fairway import clock, fingerprint
from fairway.checks.result import CheckResult
from fairway.contract.dump import dump_contract
from fairway.contract.settings import DataSettings, SourceSettings
from fairway.data.project import Project
from fairway.monitor.resolved import as_dict
from fairway.path.record import Record, TrainResult
from fairway.path.steps import StepLine, Steps
from fairway.registry import versions
from fairway.store import schema

NAME = "unchanged"


def key(project: Project, steps: Steps, *, code: str, environment: str, seed: int) -> str | None:
    """The fingerprint of everything outside the log that a run depends on; None when a source is no plain file."""
    settings = project.settings
    tables: tuple[DataSettings | SourceSettings, ...] = (settings.data, *settings.sources.values())
    if project.contract.fresh or any(table.expect_every or table.sql for table in tables):
        return None  # the same bytes may be late by now, and what a query gives is not told from its text
    sources = [settings.data.source, *(source.path for source in settings.sources.values() if source.path)]
    hashes = {}
    for source in sources:
        if source is None:
            return None
        path = project.root / source
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            return None
        hashes[source] = {str(file.relative_to(path.parent)): fingerprint.of_file(file) for file in files}
    return steps.key(
        NAME, code=code, environment=environment, seed=seed, settings=as_dict(settings), files=hashes,
        contract=dump_contract(project.contract),
    )  # fmt: skip


def earlier(project: Project, steps: Steps, found: str | None, record: Record, *, actor: str) -> TrainResult | None:
    """What an earlier run with this fingerprint came to, when nothing else could have changed it since."""
    stored = steps.result(found) if found is not None else None
    if stored is None or clock.iso(record.started) < stored["as_of"] or not _nothing_to_learn(project):
        return None
    value = stored["result"]
    if _champion(project) not in (stored["champion"], value["artifact"]):
        return None  # there is another one to compare with; that it became champion itself changes nothing
    store = project.workspace.store
    known = versions.same(store, model=value["model"], artifact=value["artifact"], dataset=value["dataset"])
    if known is None or known.artifact not in project.workspace.blobs or not Path(value["report"]).is_file():
        return None
    for line in value["steps"]:
        steps.say(line["name"], line["text"], 0.0, cached=True, id=line["id"], notes=line.get("notes", ()))
    result = replace(
        read_result(value), run=record.run, new=False, version=int(known.version), verdict=known.verdict,
        steps=tuple(steps.lines), seconds=record.seconds,
    )  # fmt: skip
    with store.write() as tx:
        versions.remember_model(
            store, tx, project.settings.name, str(project.root), as_dict(project.settings), actor=actor
        )
        record.finish(tx, result)
    return result


def keep(project: Project, steps: Steps, found: str | None, result: TrainResult, *, as_of: str) -> None:
    """Remember what this run came to. Only for runs whose data no passing of time will change."""
    if found is not None:
        steps.keep(NAME, found, {"result": result.as_dict(), "as_of": as_of, "champion": _champion(project)})


def _champion(project: Project) -> str | None:
    row = versions.champion(project.workspace.store, project.settings.name)
    return None if row is None else str(row.artifact)


def read_result(value: Mapping[str, Any]) -> TrainResult:
    """The inverse of `TrainResult.as_dict`."""
    return TrainResult(
        **{k: v for k, v in value.items() if k not in ("checks", "steps", "report")},
        checks=tuple(CheckResult.from_dict(check) for check in value["checks"]),
        steps=tuple(StepLine(**{**line, "notes": tuple(line.get("notes", ()))}) for line in value["steps"]),
        report=Path(value["report"]),
    )


def _nothing_to_learn(project: Project) -> bool:
    """No label of this model and no source event ever came, so the files are all there is to learn from.

    And no table is held: then it has to be looked at, so that the question about it is closed.
    """
    store, predictions, files, tables = project.workspace.store, schema.prediction, schema.log_file, schema.source_state
    with store.read() as tx:
        held = sa.select(tables.c.source).where(
            tables.c.workspace == store.workspace, tables.c.model == project.settings.name, tables.c.state == "held"
        )
        if tx.execute(held.limit(1)).first() is not None:
            return False
        logged = tx.execute(
            sa.select(predictions.c.prediction)
            .where(
                predictions.c.workspace == store.workspace, predictions.c.model == project.settings.name,
                predictions.c.label_at.is_not(None),
            )
            .limit(1)
        ).first()  # fmt: skip
        events = tx.execute(
            sa.select(files.c.blob).where(files.c.workspace == store.workspace, files.c.kind == "source").limit(1)
        ).first()
    return (logged is None or not project.settings.data.log) and events is None
