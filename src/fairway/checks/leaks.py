"""Is the answer among the inputs? How much each column alone tells of the label."""

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway.checks.judged import FEW_ROWS
from fairway.checks.result import CheckResult, failed, passed, too_few
from fairway.contract.columns import Contract
from fairway.contract.settings import Settings
from fairway.training.evaluate import Evaluation

Array = NDArray[Any]

LEAK_LIMIT = {"binary": 0.95, "multiclass": 0.99, "regression": 0.99}
_LEAK_WORD = {"binary": "AUC", "multiclass": "accuracy", "regression": "rank correlation"}


def single_column_scores(frame: pl.DataFrame, columns: list[str], y: Array, task: str) -> dict[str, float]:
    """How far each column alone tells the label, 0..1: AUC (binary), |rank correlation|, or accuracy over folds.

    Nulls count as a value of their own. Categories are scored by the other half of the rows, so many values alone do
    not look like knowledge.
    """
    # What a vector or an image alone tells needs a model of its own.
    plain = [n for n in columns if n in frame.columns and not _is_nested(frame.schema[n])]
    return {name: _score(frame[name], y, task) for name in plain}


def _is_nested(dtype: pl.DataType) -> bool:
    return dtype.is_nested() or dtype == pl.Binary


def _score(column: pl.Series, y: Array, task: str) -> float:
    codes, numeric = _as_numbers(column)
    half = np.arange(len(y)) % 2 == 0
    if task == "regression":
        if not numeric:
            codes = _crossed(codes, y.astype(float), half)
        return abs(_rank_correlation(codes, y.astype(float)))
    if task == "binary":
        if not numeric:
            codes = _crossed(codes, (y == 1).astype(float), half)
        return max(_auc(codes, y), _auc(np.isnan(codes).astype(float), y))
    bins = codes.astype(np.int64) if not numeric else _binned(codes)
    right, k, values = 0, int(y.max()) + 1, int(bins.max()) + 1
    for side in (half, ~half):
        counts = np.bincount(bins[side] * k + y[side], minlength=values * k).reshape(values, k)
        right += int((counts.argmax(axis=1)[bins[~side]] == y[~side]).sum())
    return right / len(y)


def _binned(values: Array) -> Array:
    """32 bins of about equal rows; nulls are the last."""
    known = values[~np.isnan(values)]
    if not len(known):
        return np.zeros(len(values), dtype=np.int64)
    return np.searchsorted(np.unique(np.quantile(known, np.linspace(0, 1, 33)[1:-1])), values)


def _as_numbers(column: pl.Series) -> tuple[Array, bool]:
    kind = column.dtype
    if kind.is_numeric() or kind == pl.Boolean:
        return column.cast(pl.Float64).to_numpy().astype(float), True
    if kind.is_temporal():
        return column.to_physical().cast(pl.Float64).to_numpy().astype(float), True
    return column.cast(pl.String).fill_null("").rank("dense").cast(pl.Float64).to_numpy().astype(float), False


def _crossed(codes: Array, y: Array, half: Array) -> Any:
    """Each category's mean label in the other half; the overall mean where that half has none."""
    whole = codes.astype(np.int64)
    out, k = np.full(len(y), y.mean()), int(whole.max()) + 1
    for side in (half, ~half):
        n = np.bincount(whole[side], minlength=k)
        means = np.where(n > 0, np.bincount(whole[side], weights=y[side], minlength=k) / np.maximum(n, 1), y.mean())
        out[~side] = means[whole[~side]]
    return out


def _auc(values: Array, y: Array) -> float:
    filled = np.where(np.isnan(values), np.nanmin(values) - 1 if not np.isnan(values).all() else 0.0, values)
    ranks = pl.Series(filled).rank().to_numpy()
    one = y == 1
    p, n = int(one.sum()), int((~one).sum())
    if not (p and n):
        return 0.5
    area = (ranks[one].sum() - p * (p + 1) / 2) / (p * n)
    return float(max(area, 1 - area))


def _rank_correlation(values: Array, y: Array) -> float:
    known = ~np.isnan(values)
    if known.sum() < FEW_ROWS:
        return 0.0
    first, second = pl.Series(values[known]).rank().to_numpy(), pl.Series(y[known]).rank().to_numpy()
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def leak_suspect(
    contract: Contract,
    settings: Settings,
    train: pl.DataFrame,
    y: Array,
    evaluation: Evaluation | None,
    *,
    extra_columns: tuple[str, ...] = (),
) -> CheckResult:
    """A column that alone tells the answer is usually one that is only known after it.

    train: typed rows, with the columns of views in extra_columns; y: their labels as numbers (0/1, codes or values).
    """
    name = "leak-suspect"
    columns = [c.name for c in contract.request_columns if c.role == "feature"] + list(extra_columns)
    if len(y) < FEW_ROWS:
        return too_few(name, f"only {len(y)} training rows; {FEW_ROWS} needed")
    if len(y) > 20_000:
        keep = np.random.default_rng(0).choice(len(y), 20_000, replace=False)
        train, y = train[keep], y[keep]
    scores = single_column_scores(train, columns, y, settings.task)
    ranked = sorted(scores.items(), key=lambda item: -item[1])
    limit, word = LEAK_LIMIT[settings.task], _LEAK_WORD[settings.task]
    evidence = {"scores": dict(ranked[:10]), "limit": limit, "score": word, "rows": len(y)}
    best = f"column {ranked[0][0]!r} alone has {word} {ranked[0][1]:.3f}" if ranked else "there are no columns"
    if ranked and ranked[0][1] >= limit:
        say = f'{best}: is it known before the answer is? Then say so by leaving it out: known = "later"'
        return failed(name, say, column=ranked[0][0], **evidence)
    if evaluation is not None and evaluation.perfect and evaluation.n >= FEW_ROWS:
        say = f"not one error on {evaluation.n:,} held-out rows; {best}: look for the answer among the inputs"
        return failed(name, say, column=ranked[0][0] if ranked else None, **evidence)
    return passed(name, f"none: {best}, {limit:g} would be suspect", **evidence)
