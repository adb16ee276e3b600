"""The metrics of one version as numbers with 95 % intervals, and the bootstrap that they share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fairway.contract.settings import Task
from fairway.stats import losses
from fairway.stats.intervals import delong, wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS = 2000  # METHODS 6c
_CHUNK = 4_000_000  # drawn row numbers held at once: 32 MB
_NORMAL_ABOVE = 5_000  # rows: there the bootstrap of a mean is the normal interval, and costs seconds

Z95 = 1.959963984540054

HIGHER_IS_BETTER = {
    "auc": True, "accuracy": True, "balanced_accuracy": True, "precision": True, "recall": True, "f1": True,
    "brier": False, "log_loss": False, "mae": False, "rmse": False, "r2": True,
}  # fmt: skip
METRICS: dict[Task, tuple[str, ...]] = {
    "binary": ("auc", "accuracy", "brier", "log_loss", "precision", "recall", "f1"),
    "multiclass": ("accuracy", "balanced_accuracy", "brier", "log_loss"),
    "regression": ("mae", "rmse", "r2"),
}
PRIMARY_LOSS: dict[Task, str] = {"binary": "brier", "multiclass": "brier", "regression": "absolute_error"}


@dataclass(frozen=True)
class Estimate:
    """A metric, or a difference, with its 95 % interval; None where it can't be told (`why` says)."""

    value: float | None
    low: float | None = None
    high: float | None = None
    why: str | None = None


def base_rate(task: Task, y: ArrayLike, *, k: int, n: int) -> NDArray[np.float64]:
    """What somebody answers who knows only the training labels: (n,) share or mean, or (n, k) class shares.

    y: training labels as in `evaluate`; k: number of classes (ignored for regression).
    """
    labels = np.asarray(y)
    if task == "multiclass":
        shares = np.bincount(labels.astype(np.int64), minlength=k) / len(labels)
        return np.tile(shares, (n, 1)).astype(np.float64)
    return np.full(n, float(labels.mean()))


def row_losses(loss: str, task: Task, y: ArrayLike, outputs: ArrayLike) -> Floats:
    """Loss of each row (n,): brier, log_loss, zero_one or absolute_error, by the shapes of `task`."""
    labels, values = np.asarray(y), np.asarray(outputs, dtype=np.float64)
    if loss == "absolute_error":
        return losses.absolute_error(labels, values)
    if loss == "zero_one":
        return losses.zero_one(labels, decide(task, values))
    if loss == "log_loss":
        return losses.log_loss(labels, values)
    if loss == "brier":
        return losses.multiclass_brier(labels, values) if task == "multiclass" else losses.brier(labels, values)
    raise ValueError(f"unknown loss {loss!r}; known: brier, log_loss, zero_one, absolute_error")


def decide(task: Task, outputs: Floats) -> Ints:
    """Class codes (n,): the likeliest class; 1 from a probability of 0.5 on."""
    codes = outputs.argmax(axis=1) if task == "multiclass" else outputs >= 0.5
    return np.asarray(codes, dtype=np.int64)


class Means:
    """Bootstrap of means of many columns at once: every column sees the same draws, so differences are paired."""

    def __init__(self, codes: NDArray[Any] | None, n: int, seed: int) -> None:
        self.names: dict[str, int] = {}
        self.columns: list[Floats] = []
        self.codes, self.n, self.seed = codes, n, seed
        self.whole, self.draws = np.empty(0), np.empty((0, 0))

    def add(self, name: str, values: NDArray[Any]) -> None:
        if name not in self.names:
            self.names[name] = len(self.columns)
            self.columns.append(np.asarray(values, dtype=np.float64))

    def draw(self) -> None:
        table = np.column_stack(self.columns)
        self.whole = table.mean(axis=0)
        rng = np.random.default_rng(self.seed)
        if self.n > _NORMAL_ABOVE and self.codes is None:
            # A joint normal keeps the columns' covariance, so paired and derived metrics stay right.
            cov = np.atleast_2d(np.cov(table, rowvar=False)) / self.n
            self.draws = rng.multivariate_normal(self.whole, cov, size=DRAWS, method="eigh")
            return
        if self.codes is not None:
            table = np.column_stack([np.bincount(self.codes, weights=column) for column in self.columns]).astype(float)
        sizes = np.ones(len(table)) if self.codes is None else np.bincount(self.codes).astype(np.float64)
        units, out = len(table), np.empty((DRAWS, table.shape[1]))
        step = max(1, min(DRAWS, _CHUNK // units))
        for start in range(0, DRAWS, step):
            picks = rng.integers(0, units, size=(min(step, DRAWS - start), units))
            weights = np.stack([np.bincount(row, minlength=units) for row in picks]).astype(np.float64)
            out[start : start + len(picks)] = (weights @ table) / (weights @ sizes)[:, None]
        self.draws = out

    def estimate(self, metric: Callable[[Callable[[str], Any]], Any]) -> Estimate:
        """metric(mean) is called with a look-up of a column's mean: a number, or (draws,) numbers."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = float(metric(lambda name: self.whole[self.names[name]]))
            drawn = np.asarray(metric(lambda name: self.draws[:, self.names[name]]), dtype=np.float64)
        drawn = drawn[np.isfinite(drawn)]
        if not math.isfinite(value) or len(drawn) < 0.9 * DRAWS:
            return Estimate(value if math.isfinite(value) else None, why="undefined on these rows")
        low, high = np.quantile(drawn, [0.025, 0.975])
        return Estimate(value, float(low), float(high))


Metric = Callable[[Callable[[str], Any]], Any]


def formulas(task: Task, who: str, k: int) -> dict[str, Metric]:
    """Each bootstrapped metric of `who` as a function of column means."""
    if task == "regression":
        return {
            "mae": lambda m: m(f"{who}.absolute"),
            "rmse": lambda m: np.sqrt(m(f"{who}.squared")),
            "r2": lambda m: 1.0 - m(f"{who}.squared") / (m("y2") - m("y") ** 2),
        }
    found: dict[str, Metric] = {
        "accuracy": lambda m: m(f"{who}.right"),
        "brier": lambda m: m(f"{who}.brier"),
        "log_loss": lambda m: m(f"{who}.log_loss"),
    }
    if task == "multiclass":
        found["balanced_accuracy"] = lambda m: sum(m(f"{who}.right.{c}") / m(f"is.{c}") for c in range(k)) / k
        return found
    return found | {
        "precision": lambda m: m(f"{who}.tp") / m(f"{who}.flagged"),
        "recall": lambda m: m(f"{who}.tp") / m("y"),
        "f1": lambda m: 2 * m(f"{who}.tp") / (m(f"{who}.flagged") + m("y")),
    }


def add_columns(task: Task, means: Means, who: str, y: NDArray[Any], outputs: Floats) -> None:
    if task == "regression":
        error = outputs - y
        means.add(f"{who}.absolute", np.abs(error))
        means.add(f"{who}.squared", error**2)
        # Around the mean: squares of large labels would lose the digits that the variance is made of.
        middle = y - y.mean()
        means.add("y", middle)
        means.add("y2", middle**2)
        return
    right = decide(task, outputs) == y
    means.add(f"{who}.right", right)
    means.add(f"{who}.brier", row_losses("brier", task, y, outputs))
    means.add(f"{who}.log_loss", row_losses("log_loss", task, y, outputs))
    if task == "binary":
        flagged = outputs >= 0.5
        means.add(f"{who}.flagged", flagged)
        means.add(f"{who}.tp", flagged & (y == 1))
        means.add("y", y)
        return
    for code in range(outputs.shape[1]):
        means.add(f"{who}.right.{code}", right & (y == code))
        means.add(f"is.{code}", y == code)


def metrics_of(task: Task, means: Means, who: str, y: NDArray[Any], outputs: Floats) -> dict[str, Estimate]:
    k = outputs.shape[1] if outputs.ndim == 2 else 2
    found = {name: means.estimate(metric) for name, metric in formulas(task, who, k).items()}
    if task != "regression" and means.codes is None:
        decided = decide(task, outputs)
        counts = {"accuracy": (int((decided == y).sum()), len(y))}
        if task == "binary":
            hits = int(((decided == 1) & (y == 1)).sum())
            counts |= {"precision": (hits, int(decided.sum())), "recall": (hits, int((y == 1).sum()))}
        for name, (hit, of) in counts.items():
            found[name] = Estimate(hit / of, *wilson(hit, of)) if of else Estimate(None, why="no such row")
    if task == "binary":
        found["auc"] = _auc(y, outputs)
    return {name: _within(name, found[name]) for name in METRICS[task]}


def _within(name: str, estimate: Estimate) -> Estimate:
    """The interval cut to the metric's own range; the normal one may pass it."""
    if estimate.low is None or estimate.high is None:
        return estimate
    bottom, top = (-math.inf if name == "r2" else 0.0), (math.inf if not HIGHER_IS_BETTER[name] else 1.0)
    return Estimate(estimate.value, max(bottom, estimate.low), min(top, estimate.high))


def _auc(y: NDArray[Any], outputs: Floats) -> Estimate:
    positives = int((y == 1).sum())
    if min(positives, len(y) - positives) < 2:
        return Estimate(None, why=f"{positives} positive and {len(y) - positives} negative rows; 2 of each needed")
    result = delong(y, outputs)
    if outputs.min() == outputs.max():
        return Estimate(result.aucs[0])  # a constant has no spread, and its interval no meaning
    half = Z95 * math.sqrt(result.variances[0])
    return Estimate(result.aucs[0], max(0.0, result.aucs[0] - half), min(1.0, result.aucs[0] + half))


def auc_difference(y: NDArray[Any], outputs: Floats, other: Floats) -> Estimate:
    positives = int((y == 1).sum())
    if min(positives, len(y) - positives) < 2:
        return Estimate(None, why="too few rows of a class")
    both = delong(y, outputs, other)
    spread = both.variances[0] + both.variances[1] - 2.0 * (both.covariance or 0.0)
    difference, half = both.aucs[0] - both.aucs[1], Z95 * math.sqrt(max(0.0, spread))
    return Estimate(difference, difference - half, difference + half)


def minus(first: Metric, second: Metric) -> Metric:
    return lambda mean: first(mean) - second(mean)


def mean_of(name: str) -> Metric:
    return lambda mean: mean(name)
