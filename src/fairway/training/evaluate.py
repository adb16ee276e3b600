"""How good a version is on rows it has not seen: its metrics, its rivals' on the same rows, and the differences.

Everything that the report and the gate need later is in an `Evaluation`, so no raw rows are kept for them.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from fairway.contract.settings import Task
from fairway.stats.compare import flips, slice_report
from fairway.stats.intervals import wilson
from fairway.training import curves
from fairway.training.metrics import (
    METRICS,
    PRIMARY_LOSS,
    Z95,
    Estimate,
    Means,
    add_columns,
    auc_difference,
    base_rate,
    decide,
    formulas,
    mean_of,
    metrics_of,
    minus,
    row_losses,
)

Floats = NDArray[np.float64]

__all__ = ["BASE_RATE", "CHAMPION", "Comparison", "Evaluation", "base_rate", "evaluate", "row_losses"]

SLICE_ROWS = 200  # METHODS 6d: smaller categories are only listed

CHAMPION = "champion"
BASE_RATE = "base rate"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """This version against a rival on the same rows.

    differences: this version minus the rival, per metric in its own unit. z: paired, of the primary loss; positive
    means that this version is better. shown: what the primary loss's interval says.
    """

    n: int
    metrics: dict[str, Estimate]
    differences: dict[str, Estimate]
    loss: str
    loss_difference: Estimate
    z: float
    shown: Literal["better", "worse", "neither"]
    flips: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that is known of one version on its held-out rows; `as_dict` is JSON.

    comparisons: by rival's name. slices: worst first. untested: slices too small to tell, with their rows.
    roc, precision_recall, thresholds: binary. residuals: regression. confusion: [true][predicted].
    perfect: this version made no error at all on the rows, which real data rarely allow.
    """

    task: Task
    n: int
    rows: str
    classes: tuple[str, ...]
    class_rows: tuple[int, ...]
    metrics: dict[str, Estimate]
    comparisons: dict[str, Comparison]
    slices: list[dict[str, Any]] = field(default_factory=list)
    untested: list[dict[str, Any]] = field(default_factory=list)
    sliced_against: str | None = None
    calibration: list[dict[str, float]] = field(default_factory=list)
    calibration_error: float | None = None
    roc: list[list[float]] = field(default_factory=list)
    precision_recall: list[list[float]] = field(default_factory=list)
    thresholds: list[dict[str, float | None]] = field(default_factory=list)
    residuals: dict[str, Any] | None = None
    confusion: list[list[int]] = field(default_factory=list)
    perfect: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON form: plain dicts, lists, numbers, strings and None."""
        return asdict(self)


def evaluate(
    task: Task,
    y: ArrayLike,
    outputs: ArrayLike,
    *,
    classes: tuple[str, ...] = (),
    rivals: Mapping[str, ArrayLike] | None = None,
    champion: ArrayLike | None = None,
    champion_rows: ArrayLike | None = None,
    slices: pl.DataFrame | None = None,
    groups: ArrayLike | None = None,
    rows: str = "",
    loss: str | None = None,
    seed: int = 0,
) -> Evaluation:
    """Metrics of one version with 95 % intervals, and paired differences from its rivals on the same rows.

    y: (n,) 0/1 (binary), class codes by `classes` (multiclass), or numbers. outputs, rivals, champion: (n,) P(1) or
    value, (n, k) probabilities for multiclass. classes: their names, negative first for binary.
    champion_rows: (n,) bool, the rows newer than both trainings' data; only these compare with the champion. None of
    them: no comparison. slices: (n, any) columns; text, category and bool ones with few values make slices.
    groups: (n,) entity or day of dependent rows, which are then drawn together. loss: the primary loss (default by
    task). Intervals: AUC DeLong, accuracy, precision and recall Wilson, all else bootstrap of 2,000 draws (from
    100,000 rows on the normal interval of the mean, which it equals there).
    Raises: ValueError for other shapes, outputs that are not finite or probabilities outside 0..1.
    """
    labels, values = _checked(task, y, outputs, "outputs")
    n, k = len(labels), len(classes) if classes else (2 if task != "regression" else 0)
    primary = loss or PRIMARY_LOSS[task]
    codes = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]

    everyone = np.ones(n, dtype=bool)
    asked = {name: (_checked(task, y, other, name)[1], everyone) for name, other in (rivals or {}).items()}
    if champion is not None:
        mask = everyone if champion_rows is None else np.asarray(champion_rows, dtype=bool)
        if mask.any():
            asked[CHAMPION] = (_checked(task, y, champion, CHAMPION)[1], mask)

    full = [name for name, (_, mask) in asked.items() if mask.all()]
    own, compared = _judge(task, labels, values, {name: asked[name][0] for name in full}, primary, codes, seed)
    for name, (other, mask) in asked.items():
        if name not in full:
            part = None if codes is None else codes[mask]
            compared |= _judge(task, labels[mask], values[mask], {name: other[mask]}, primary, part, seed)[1]

    more: dict[str, Any] = {}
    if slices is not None and n:
        against = CHAMPION if CHAMPION in asked else next((r for r in asked if r != BASE_RATE), None)
        judge, mask = asked[against] if against else (None, everyone)
        tested, untested = _slices(task, labels, values, judge, mask, slices, primary)
        more |= {"slices": tested, "untested": untested, "sliced_against": against}
    if task == "regression":
        more |= {"residuals": curves.residuals(labels.astype(np.float64), values)}
        perfect = bool(np.allclose(labels, values, rtol=1e-9, atol=1e-12))
        counts: tuple[int, ...] = ()
    else:
        whole, decided = labels.astype(np.int64), decide(task, values)
        counts = tuple(int(c) for c in np.bincount(whole, minlength=k))
        perfect = bool((decided == whole).all())
        if k <= 30:
            more["confusion"] = curves.confusion(whole, decided, k)
        if task == "binary":
            table = curves.calibration(whole, values)
            more |= {
                "roc": curves.roc(whole, values),
                "precision_recall": curves.precision_recall(whole, values),
                "thresholds": curves.thresholds(whole, values),
            }
        else:
            table = curves.calibration(decided == whole, values.max(axis=1))
        more |= {"calibration": table, "calibration_error": curves.calibration_error(table)}
    return Evaluation(
        task=task, n=n, rows=rows or f"{n:,} rows held back", classes=tuple(classes), class_rows=counts, metrics=own,
        comparisons={name: compared[name] for name in asked}, perfect=perfect, **more,
    )  # fmt: skip


def _checked(task: Task, y: ArrayLike, outputs: ArrayLike, name: str) -> tuple[NDArray[Any], Floats]:
    labels, values = np.asarray(y), np.asarray(outputs, dtype=np.float64)
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"labels have shape {labels.shape}; expected (n,) with at least one row")
    wanted = 2 if task == "multiclass" else 1
    if values.ndim != wanted or len(values) != len(labels):
        raise ValueError(f"{name} have shape {values.shape} for {len(labels)} rows of a {task} task")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))[0])
        raise ValueError(f"{name} of row {row} are not finite")
    if task != "regression" and not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{name} hold a probability outside 0..1")
    return labels, values


def _judge(
    task: Task,
    y: NDArray[Any],
    outputs: Floats,
    rivals: Mapping[str, Floats],
    primary: str,
    codes: NDArray[Any] | None,
    seed: int,
) -> tuple[dict[str, Estimate], dict[str, Comparison]]:
    means = Means(codes, len(y), seed)
    everybody = {"this": outputs} | {f"rival {name}": other for name, other in rivals.items()}
    for who, values in everybody.items():
        add_columns(task, means, who, y, values)
        means.add(f"{who}.loss", row_losses(primary, task, y, values))
    means.draw()
    own, compared = metrics_of(task, means, "this", y, outputs), {}
    for name, other in rivals.items():
        who, k = f"rival {name}", outputs.shape[1] if outputs.ndim == 2 else 2
        mine, theirs = formulas(task, "this", k), formulas(task, who, k)
        differences = {metric: means.estimate(minus(mine[metric], theirs[metric])) for metric in mine}
        if task == "binary":
            differences["auc"] = auc_difference(y, outputs, other)
        gap = means.estimate(minus(mean_of("this.loss"), mean_of(f"{who}.loss")))
        worse, better = gap.low is not None and gap.low > 0, gap.high is not None and gap.high < 0
        compared[name] = Comparison(
            n=len(y),
            metrics=metrics_of(task, means, who, y, other),
            differences={metric: differences[metric] for metric in METRICS[task]},
            loss=primary,
            loss_difference=gap,
            z=_paired_z(
                row_losses(primary, task, y, other) - row_losses(primary, task, y, outputs), codes
            ),
            shown="worse" if worse else "better" if better else "neither",
            flips=None if task == "regression" else flips(y, decide(task, other), decide(task, outputs)).as_dict(),
        )  # fmt: skip
    return own, compared


def _paired_z(gain: Floats, codes: NDArray[Any] | None) -> float:
    """Mean gain over its standard error; of groups' totals when rows are dependent. 0 when nothing differs."""
    if codes is not None:
        gain = np.bincount(codes, weights=gain).astype(np.float64)
    if len(gain) < 2:
        return 0.0
    mean, sd = float(gain.mean()), float(gain.std(ddof=1))
    if sd == 0.0:
        return 0.0 if mean == 0.0 else math.copysign(1e9, mean)  # finite, for JSON
    return mean / (sd / math.sqrt(len(gain)))


def _masks(frame: pl.DataFrame) -> dict[str, NDArray[np.bool_]]:
    """One mask per value of each column with few values, largest first; at most 20 a column."""
    found = {}
    for column in frame.get_columns():
        kind = column.dtype
        if not (kind in (pl.String, pl.Boolean, pl.Categorical) or isinstance(kind, pl.Enum)):
            continue
        counts = column.value_counts(sort=True).drop_nulls()
        if kind == pl.String and len(counts) > 50:
            continue  # free text or an id: its values are no groups
        for value in counts[column.name].head(20).to_list():
            mask = (column == value).fill_null(False).to_numpy()
            if not mask.all():
                shown = str(value).lower() if isinstance(value, bool) else f'"{value}"'
                found[f"{column.name} = {shown}"] = mask
    return found


def _slices(
    task: Task,
    y: NDArray[Any],
    outputs: Floats,
    other: Floats | None,
    rows: NDArray[np.bool_],
    frame: pl.DataFrame,
    primary: str,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(tested, untested): this version's own metric per slice, and its difference from `other` (METHODS 6d)."""
    if frame.height != len(y):
        raise ValueError(f"slices have {frame.height} rows for {len(y)} labels")
    masks = {name: mask & rows for name, mask in _masks(frame).items()}
    large = {name: mask for name, mask in masks.items() if mask.sum() >= SLICE_ROWS}
    if task == "regression":
        own = row_losses("absolute_error", task, y, outputs)
        metric, theirs = "mae", None if other is None else row_losses(primary, task, y, other)
        mine: NDArray[Any] = row_losses(primary, task, y, outputs)
        limit = 0.02 * float(np.mean(theirs)) if theirs is not None else 0.0
    else:
        mine = decide(task, outputs) == y
        own, metric = mine.astype(np.float64), "accuracy"
        theirs = None if other is None else decide(task, other) == y
        limit = 0.02
    against: dict[str, dict[str, Any]] = {}
    if theirs is not None and large:
        against = {r.name: r.as_dict() for r in slice_report(theirs, mine, large, min_diff=limit or 1e-12)}
    tested: list[dict[str, Any]] = []
    for name, mask in large.items():
        part = own[mask]
        value, n = float(part.mean()), len(part)
        half = Z95 * float(part.std(ddof=1)) / math.sqrt(n)
        low, high = (value - half, value + half) if task == "regression" else wilson(int(part.sum()), n)
        found = {"name": name, "metric": metric, "value": value, "low": low, "high": high, "n": n}
        tested.append(found | {"against": against.get(name)})
    sign = -1.0 if task == "regression" else 1.0
    tested.sort(key=lambda s: (not (s["against"] or {}).get("flagged", False), sign * s["value"]))
    small = [
        {"name": name, "n": int(mask.sum()), "n_needed": SLICE_ROWS}
        for name, mask in masks.items()
        if name not in large
    ]
    return tested, sorted(small, key=lambda s: -s["n"])
