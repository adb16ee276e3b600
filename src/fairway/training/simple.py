"""The simple rival: a linear model on standardised numbers, one-hot categories and how long texts are, which a model
should beat.

Written in NumPy, so that it costs no import; a little ridge keeps separable data finite.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn

from fairway.contract.settings import Task

Floats = NDArray[np.float64]

LEVELS = 30  # of a category, the most common ones; the rest shares the zero
MOST_COLUMNS = 256
MOST_ROWS = 20_000
RIDGE = 1.0
STEPS = 25
NAMES: dict[Task, str] = {
    "binary": "logistic regression", "multiclass": "logistic regression", "regression": "linear regression",
}  # fmt: skip


def predict(task: Task, train: pl.DataFrame, y: NDArray[np.float64], test: pl.DataFrame, *, classes: int) -> Floats:
    """Outputs for `test` in the shape of the task, of a model fitted on at most 20,000 rows of `train`."""
    if train.height > MOST_ROWS:
        keep = np.sort(np.random.default_rng(0).choice(train.height, MOST_ROWS, replace=False))
        train, y = train[keep], y[keep]
    A, B = _design(train, test)
    # One thread: beside a training that uses all cores, BLAS threads wait for each other, and 0.1 s becomes seconds.
    with threadpool_limits(1, user_api="blas"):
        return _fitted(task, A, y, B, classes)


def _fitted(task: Task, A: Floats, y: Floats, B: Floats, classes: int) -> Floats:
    if task == "regression":
        penalty = RIDGE * np.eye(A.shape[1])
        penalty[0, 0] = 1e-9
        return B @ np.linalg.solve(A.T @ A + penalty, A.T @ y)
    if task == "binary":
        return _sigmoid(B @ _logistic(A, y))
    scores = np.column_stack([_sigmoid(B @ _logistic(A, (y == code).astype(np.float64))) for code in range(classes)])
    out: Floats = scores / np.maximum(scores.sum(axis=1, keepdims=True), 1e-300)
    return out


def _design(train: pl.DataFrame, test: pl.DataFrame) -> tuple[Floats, Floats]:
    first, second = [np.ones(train.height)], [np.ones(test.height)]
    for name, dtype in train.schema.items():
        if len(first) >= MOST_COLUMNS:
            break
        if dtype.is_temporal():
            pair = train[name].to_physical().cast(pl.Float64), test[name].to_physical().cast(pl.Float64)
        elif dtype.is_numeric() or dtype == pl.Boolean:
            pair = train[name].cast(pl.Float64), test[name].cast(pl.Float64)
        elif isinstance(dtype, pl.Array):
            _add_matrix(first, second, train[name].to_numpy(), test[name].to_numpy())
            continue
        elif isinstance(dtype, pl.Enum | pl.Categorical):
            common = train[name].cast(pl.String).drop_nulls().value_counts(sort=True).head(LEVELS)[name].to_list()
            for value in sorted(common):
                first.append((train[name].cast(pl.String) == value).fill_null(False).to_numpy().astype(np.float64))
                second.append((test[name].cast(pl.String) == value).fill_null(False).to_numpy().astype(np.float64))
            continue
        elif dtype == pl.String:  # its length; what it says is not for a linear model on a few columns
            pair = train[name].str.len_chars().log1p(), test[name].str.len_chars().log1p()
        else:
            continue
        mean, sd = _number(pair[0].mean()), _number(pair[0].std())
        if not sd or not np.isfinite(sd):
            continue
        for place, column in zip((first, second), pair, strict=True):
            scaled = ((column - mean) / sd).fill_nan(None).fill_null(0.0).to_numpy()
            place.append(np.clip(scaled, -10.0, 10.0))
    return np.column_stack(first), np.column_stack(second)


def _add_matrix(first: list[Floats], second: list[Floats], train: Floats, test: Floats) -> None:
    """A vector's numbers as columns, as many as there is room for."""
    for place in range(min(train.shape[1], MOST_COLUMNS - len(first))):
        known = train[:, place][~np.isnan(train[:, place])]
        mean, sd = (float(known.mean()), float(known.std())) if len(known) else (0.0, 0.0)
        if not sd or not np.isfinite(sd):
            continue
        for columns, values in ((first, train[:, place]), (second, test[:, place])):
            columns.append(np.clip(np.nan_to_num((values - mean) / sd), -10.0, 10.0))


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _sigmoid(z: Floats) -> Floats:
    out: Floats = 1.0 / (1.0 + np.exp(-np.clip(z, -35.0, 35.0)))
    return out


def _logistic(A: Floats, y: Floats) -> Floats:
    """Newton's method on the ridge-penalised log-likelihood; the intercept is free."""
    penalty = np.full(A.shape[1], RIDGE)
    penalty[0] = 1e-9
    share = float(np.clip(y.mean(), 1e-6, 1 - 1e-6))
    beta = np.zeros(A.shape[1])
    beta[0] = np.log(share / (1 - share))
    for _ in range(STEPS):
        p = _sigmoid(A @ beta)
        weights = np.maximum(p * (1 - p), 1e-9)
        step = np.linalg.solve((A.T * weights) @ A + np.diag(penalty), A.T @ (y - p) - penalty * beta)
        beta += step
        if np.abs(step).max() < 1e-6:
            break
    return beta
