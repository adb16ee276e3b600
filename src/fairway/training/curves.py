"""What the report draws, as small tables: curves, calibration, thresholds and residuals, never raw rows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairway.stats.intervals import wilson

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POINTS = 200  # of a curve: more can't be seen
BINS = 10


def _thin(n: int) -> Ints:
    """At most POINTS row numbers of 0..n-1, both ends kept."""
    return np.unique(np.linspace(0, n - 1, min(n, POINTS)).astype(np.int64))


def _steps(y: Ints, p: Floats) -> tuple[Floats, Floats, Floats]:
    """(thresholds, true positives, false positives) at each distinct score, from the highest down."""
    order = np.argsort(-p, kind="stable")
    scores, labels = p[order], y[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    tp = np.cumsum(labels)[last].astype(np.float64)
    return scores[last], tp, (last + 1) - tp


def roc(y: Ints, p: Floats) -> list[list[float]]:
    """Points [false positive rate, true positive rate] from (0, 0) to (1, 1); empty with one class only."""
    positives = float(y.sum())
    if not 0 < positives < len(y):
        return []
    _, tp, fp = _steps(y, p)
    x, up = np.append(0.0, fp / (len(y) - positives)), np.append(0.0, tp / positives)
    keep = _thin(len(x))
    return [[float(a), float(b)] for a, b in zip(x[keep], up[keep], strict=True)]


def precision_recall(y: Ints, p: Floats) -> list[list[float]]:
    """Points [recall, precision], recall growing; empty without a positive."""
    positives = float(y.sum())
    if positives == 0:
        return []
    _, tp, fp = _steps(y, p)
    recall, precision = tp / positives, tp / (tp + fp)
    keep = _thin(len(recall))
    return [[float(a), float(b)] for a, b in zip(recall[keep], precision[keep], strict=True)]


def _bins(values: Floats, count: int) -> Ints:
    """Bin number of each value, with about equal rows a bin; equal values share one."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]))
    return np.searchsorted(edges, values, side="left").astype(np.int64)


def calibration(hit: NDArray[Any], p: Floats) -> list[dict[str, float]]:
    """Per bin of the stated probability: mean of it, share that happened with its 95 % interval, rows."""
    bins, rows = _bins(p, BINS), []
    for number in np.unique(bins):
        mask = bins == number
        n, k = int(mask.sum()), int(hit[mask].sum())
        low, high = wilson(k, n)
        rows.append({"stated": float(p[mask].mean()), "happened": k / n, "low": low, "high": high, "n": n})
    return rows


def calibration_error(table: list[dict[str, float]]) -> float:
    """Mean distance of stated and happened over the rows of a calibration table."""
    total = sum(row["n"] for row in table)
    return sum(row["n"] * abs(row["stated"] - row["happened"]) for row in table) / total if total else 0.0


def thresholds(y: Ints, p: Floats) -> list[dict[str, float | None]]:
    """What flagging everything at or above each threshold gives: share flagged, precision, recall, accuracy."""
    positives, rows = int(y.sum()), []
    for cut in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        flagged = p >= cut
        n, tp = int(flagged.sum()), int(y[flagged].sum())
        rows.append(
            {
                "threshold": cut,
                "flagged": n / len(y),
                "precision": tp / n if n else None,
                "recall": tp / positives if positives else None,
                "accuracy": float((flagged == (y == 1)).mean()),
            }
        )
    return rows


def confusion(y: Ints, predicted: Ints, k: int) -> list[list[int]]:
    """Counts [true class][predicted class]."""
    counts = np.bincount(y * k + predicted, minlength=k * k).reshape(k, k)
    return [[int(c) for c in row] for row in counts]


def residuals(y: Floats, predicted: Floats) -> dict[str, Any]:
    """Of y - prediction: 21 quantiles, and per bin of the prediction its 10, 50 and 90 % quantiles."""
    left = y - predicted
    shares = np.linspace(0, 1, 21)
    bins, rows = _bins(predicted, 2 * BINS), []
    for number in np.unique(bins):
        mask = bins == number
        low, middle, high = np.quantile(left[mask], [0.1, 0.5, 0.9])
        rows.append(
            {
                "predicted": float(predicted[mask].mean()),
                "happened": float(y[mask].mean()),
                "p10": float(low),
                "p50": float(middle),
                "p90": float(high),
                "n": int(mask.sum()),
            }
        )
    counts, edges = np.histogram(left, bins=40)
    return {
        "quantiles": [[float(s), float(q)] for s, q in zip(shares, np.quantile(left, shares), strict=True)],
        "by_prediction": rows,
        "histogram": {"edges": [float(e) for e in edges], "counts": [int(c) for c in counts]},
    }
