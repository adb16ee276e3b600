"""The steps of a run that need statistics: evaluation, the champion on the same rows, the monitor's reference, checks.

Apart from `train`, which imports it only when a step has to be done: SciPy takes as long to load as an unchanged run.
"""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway.checks import suite
from fairway.checks.result import CheckResult
from fairway.data.project import Project
from fairway.data.snapshot import load_dataset
from fairway.errors import FairwayError
from fairway.monitor.reference import build_reference
from fairway.path import summary
from fairway.path.made import Judged, Made, Rows
from fairway.path.split import newer_than_both
from fairway.registry import versions
from fairway.runtime import package
from fairway.store.base import Row
from fairway.training import simple, work
from fairway.training.child import Child, limits_of, run_child
from fairway.training.evaluate import BASE_RATE, base_rate, evaluate, row_losses
from fairway.training.metrics import PRIMARY_LOSS
from fairway.training.targets import encode


def evaluation(
    project: Project, made: Made, rows: Rows, *, champion: Row | None, log: Path, seed: int
) -> dict[str, Any]:
    """evaluation (JSON form, None when it can't be made), error (why), champion_error (why it is not compared)."""
    settings, part = project.settings, rows.split
    n = int(part.test.sum())
    rivals = {
        BASE_RATE: base_rate(settings.task, rows.y[~part.test], k=len(rows.classes), n=n),
        simple.NAMES[settings.task]: made.array("simple"),
    }
    outputs, newer, champion_error = None, None, ""
    if champion is not None:
        newer = newer_than_both(
            rows.frame, part, settings, trained_until=champion.trained_until,
            test_share=(champion.settings.get("split") or {}).get("test_share", 1.0),
        )  # fmt: skip
        if newer.any():
            outputs, champion_error = champion_outputs(project, champion, rows, log=log)
        else:
            champion_error = "no held-out row is newer than both trainings' data"
    held = made.looked.filter(part.test)
    try:
        found = evaluate(
            settings.task, rows.y[part.test], made.array("outputs"), classes=rows.classes, rivals=rivals,
            champion=outputs, champion_rows=newer, slices=_slices(held),
            groups=_groups(held, settings.entity), rows=f"{n:,} rows held back ({part.how})", loss=_loss(project),
            seed=seed,
        )  # fmt: skip
    except ValueError as exc:
        return {"evaluation": None, "error": str(exc), "champion_error": champion_error}
    return {"evaluation": found.as_dict(), "error": "", "champion_error": champion_error}


def champion_outputs(
    project: Project, champion: Row, rows: Rows, *, log: Path
) -> tuple[NDArray[np.float64] | None, str]:
    """The champion's answers to the held-out rows, from its own package, or why there are none."""
    folder = rows.scratch()
    try:
        rows.frame.filter(rows.split.test).drop(project.settings.target).write_ipc(folder / "rows.arrow")
        paths = {name: str(folder / f"{name}.arrow") for name in rows.events}
        for name, frame in rows.events.items():
            frame.write_ipc(paths[name])
        payload = {
            "package": str(package.materialise(project.workspace, champion.artifact)), "artifact": champion.artifact,
            "rows": str(folder / "rows.arrow"), "events": paths, "outputs": str(folder / "outputs.npy"),
        }  # fmt: skip
        found = run_child(work.PREDICT_ENTRY, payload, limits_of(project.settings), cwd=project.root, log=log)
        if tuple(found["classes"]) != rows.classes:
            return None, f"it has other classes: {', '.join(found['classes'])}"
        outputs: NDArray[np.float64] = np.load(folder / "outputs.npy", allow_pickle=False)
        return outputs, ""
    except FairwayError as exc:
        return None, str(exc)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def reference(project: Project, made: Made, rows: Rows) -> dict[str, Any]:
    """What windows of this version will be judged against."""
    settings, test = project.settings, rows.split.test
    losses = np.full(len(rows.y), np.nan)
    losses[test] = row_losses(_loss(project), settings.task, rows.y[test], made.array("outputs"))
    return build_reference(
        made.looked, at=settings.at, contract=project.contract, importance=made.importance,
        window=settings.monitor.window, losses=pl.Series("loss", losses).fill_nan(None),
        budget=settings.monitor.budget, js_alarm=settings.monitor.js_alarm,
    )  # fmt: skip


def warm_child(project: Project, log: Path) -> Child:
    """The process of the checks, started while the model is still trained."""
    return suite.warm_child(project.settings, cwd=project.root, log=log)


def checks(
    project: Project, made: Made, judged: Judged, rows: Rows, *, package: Path, run: str, log: Path, seed: int,
    child: Child | None,
) -> tuple[CheckResult, ...]:  # fmt: skip
    """Every check of the packaged version, under the run's name while it has no number."""
    train = ~rows.split.test
    given = suite.CheckInput(
        version=run, cwd=project.root, log=log, settings=project.settings, contract=project.contract, package=package,
        train=rows.frame.filter(train), heldout=rows.frame.filter(rows.split.test), y_train=rows.y[train],
        events=rows.events, python_outputs=made.array("outputs"),
        evaluation=summary.evaluation_from(judged.evaluation) if judged.evaluation is not None else None,
        evaluation_error=judged.error, champion=judged.champion, seed=seed, y_heldout=rows.y[rows.split.test],
        classes=rows.classes,
        losses=row_losses(_loss(project), project.settings.task, rows.y[rows.split.test], made.array("outputs")),
        y_champion=_champions_labels(project, rows) if judged.champion is not None else None,
        look_ups=made.looked.filter(train).select(made.view_columns) if made.view_columns else None,
    )  # fmt: skip
    return tuple(suite.run_checks(given, child=child))


def _champions_labels(project: Project, rows: Rows) -> NDArray[Any] | None:
    """The target of all rows that the champion was made from, as these rows have it; None where that can't be told."""
    champion, target = versions.champion(project.workspace.store, project.settings.name), project.settings.target
    if champion is None or champion.dataset == rows.dataset:
        return rows.y if champion is not None else None
    try:
        values = load_dataset(project.workspace, champion.dataset)[target]
        series, classes = encode(values, project.contract.column(target), project.settings)
    except (FairwayError, pl.exceptions.ColumnNotFoundError):  # another target then, or rows that are erased
        return None
    return series.to_numpy() if classes == rows.classes else None


def _loss(project: Project) -> str:
    return project.settings.rollout.primary or PRIMARY_LOSS[project.settings.task]


def _slices(held: pl.DataFrame) -> pl.DataFrame | None:
    """The columns with few values, or None: a frame without columns has no rows either."""
    few = [n for n, t in held.schema.items() if isinstance(t, pl.Enum | pl.Categorical) or t == pl.Boolean]
    return held.select(few) if few else None


def _groups(held: pl.DataFrame, entity: str | None) -> NDArray[Any] | None:
    """The entity of each row when rows share one: they are then drawn together."""
    if entity is None or entity not in held.columns or held[entity].n_unique() == held.height:
        return None
    return held[entity].cast(pl.String).fill_null("").to_numpy()
