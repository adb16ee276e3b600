"""Intervals of a metric on one labelled sample, and of the difference of two versions.

Fixed-sample intervals: for a decision that is looked at again and again use `rates` and `means`.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]
# (y, prediction) -> the metric, or the loss of each row (n,), whose mean is the metric.
MetricFn = Callable[[Any, Any], Any]

_CHUNK = 4_000_000  # drawn row numbers held at once: 32 MB
_DISTINCT = 64


def _quantile_z(level: float) -> float:
    if not 0.0 < level < 1.0:
        raise ValueError(f"level is {level!r}; expected 0..1")
    return float(ndtri(0.5 + level / 2.0))


def wilson(k: int, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval for a rate after k events in n independent rows; (0, 1) when n is 0.

    Raises: ValueError unless 0 <= k <= n. Source: Wilson 1927.
    Known weakness: rows of one entity or one bad hour are not independent; it is then too short.

    >>> [round(x, 4) for x in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} events in {n} rows")
    z = _quantile_z(level)
    if n == 0:
        return 0.0, 1.0
    rate, shrink = k / n, z * z / n
    middle = (rate + shrink / 2.0) / (1.0 + shrink)
    half = math.sqrt(rate * (1.0 - rate) * shrink + shrink * shrink / 4.0) / (1.0 + shrink)
    # Exact at the ends, where rounding would leave 1e-17.
    return (0.0 if k == 0 else middle - half), (1.0 if k == n else middle + half)


def _placements(y: ArrayLike, s: ArrayLike) -> tuple[Floats, Floats]:
    """Share of negatives below each positive, and of positives above each negative; ties half."""
    labels, scores = np.asarray(y), np.asarray(s, dtype=np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must have one shape (n,)")
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    if not ((labels == 0) | (labels == 1)).all():
        raise ValueError("labels must be 0 or 1")
    one = labels == 1
    pos, neg = scores[one], scores[~one]
    if not (len(pos) and len(neg)):
        raise ValueError(f"AUC needs both classes, found {len(pos)} positives and {len(neg)} negatives")
    return _share_below(neg, pos), 1.0 - _share_below(pos, neg)


def _share_below(others: Floats, values: Floats) -> Floats:
    """For each value the share of `others` below it; equal ones count half."""
    ordered = np.sort(others)
    sides = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(sides / (2.0 * len(ordered)))


def auc(y: ArrayLike, s: ArrayLike) -> float:
    """Area under the ROC curve: y (n,) of 0/1, s (n,) any finite score; ties count half.

    Raises: ValueError with one class only, other shapes, or a score that is not finite.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    return float(_placements(y, s)[0].mean())


@dataclass(frozen=True)
class DelongResult:
    """AUC of one or two scores with variances; covariance, z and p only for two.

    z has the sign of the first minus the second AUC, p is two-sided.
    """

    aucs: tuple[float, ...]
    variances: tuple[float, ...]
    covariance: float | None = None
    z: float | None = None
    p: float | None = None

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return asdict(self)


def delong(y: ArrayLike, s1: ArrayLike, s2: ArrayLike | None = None) -> DelongResult:
    """AUC with its variance; with a second score on the same rows also a paired test.

    y: (n,) of 0/1 with at least 2 of each. s1, s2: (n,) finite scores.
    Raises: ValueError as `auc`, or with fewer than 2 rows of a class.
    Source: DeLong, DeLong and Clarke-Pearson 1988, by ranks in O(n log n).
    Known weakness: a perfect separation has variance 0 (an interval of no width), and two
    nested models on the rows they were trained on are not tested fairly.

    >>> delong([0, 0, 1, 1], [1, 2, 3, 4]).variances
    (0.0,)
    """
    sides = [_placements(y, s) for s in ([s1] if s2 is None else [s1, s2])]
    n_pos, n_neg = len(sides[0][0]), len(sides[0][1])
    if min(n_pos, n_neg) < 2:
        raise ValueError(f"DeLong needs 2 rows of each class, found {n_pos} and {n_neg}")
    above = np.atleast_2d(np.cov(np.stack([a for a, _ in sides])))
    below = np.atleast_2d(np.cov(np.stack([b for _, b in sides])))
    cov = above / n_pos + below / n_neg
    aucs = tuple(float(a.mean()) for a, _ in sides)
    variances = tuple(float(x) for x in np.diag(cov))
    if s2 is None:
        return DelongResult(aucs=aucs, variances=variances)
    shared = float(cov[0, 1])
    diff, var = aucs[0] - aucs[1], variances[0] + variances[1] - 2.0 * shared
    z = diff / math.sqrt(max(var, 1e-15))  # finite for JSON; rounding alone leaves about 1e-18
    return DelongResult(aucs, variances, shared, z, float(2.0 * ndtr(-abs(z))))


def auc_interval(y: ArrayLike, s: ArrayLike, *, level: float = 0.95) -> tuple[float, float, float]:
    """(auc, low, high): normal interval on the DeLong variance, cut to 0..1.

    Known weakness: with AUC near 1 or a handful of positives it is too short.
    """
    result = delong(y, s)
    half = _quantile_z(level) * math.sqrt(result.variances[0])
    area = result.aucs[0]
    return area, max(0.0, area - half), min(1.0, area + half)


def _group_codes(groups: ArrayLike | None, n: int) -> NDArray[np.int64] | None:
    if groups is None:
        return None
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise ValueError(f"groups have shape {labels.shape}; expected ({n},)")
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _mean_draws(rows: Floats, codes: NDArray[np.int64] | None, draws: int, seed: int) -> Floats:
    """Bootstrap means (draws,) of per-row values, resampling rows or whole groups."""
    rng = np.random.default_rng(seed)
    if codes is None:
        values, repeats = np.unique(rows, return_counts=True)
        if len(values) <= _DISTINCT:  # 0/1 losses: the same law from a few counts
            drawn = rng.multinomial(len(rows), repeats / len(rows), size=draws)
            return np.asarray(drawn @ values / len(rows), dtype=np.float64)
        sums = rows
        sizes: Floats | None = None
    else:
        sums = np.bincount(codes, weights=rows).astype(np.float64)
        sizes = np.bincount(codes).astype(np.float64)
    n, out = len(sums), np.empty(draws)
    step = max(1, min(draws, _CHUNK // n))
    for start in range(0, draws, step):
        stop = min(start + step, draws)
        picks = rng.integers(0, n, size=(stop - start, n))
        total = sums.take(picks).sum(axis=1)
        out[start:stop] = total / (n if sizes is None else sizes.take(picks).sum(axis=1))
    return out


def _bootstrap(
    statistic: Callable[[Any], Any],
    n: int,
    groups: ArrayLike | None,
    draws: int,
    seed: int,
    level: float,
) -> tuple[float, float, float]:
    """statistic(row numbers or slice(None)) -> number, or per-row values with that mean."""
    if draws < 1:
        raise ValueError(f"draws is {draws}; expected at least 1")
    _quantile_z(level)
    codes = _group_codes(groups, n)
    whole = np.asarray(statistic(slice(None)), dtype=np.float64)
    if whole.ndim == 1:
        value, values = float(whole.mean()), _mean_draws(whole, codes, draws, seed)
    else:
        rng, value, values = np.random.default_rng(seed), float(whole), np.empty(draws)
        members = None
        if codes is not None:
            members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
        for i in range(draws):
            if members is None:
                rows = rng.integers(0, n, size=n)
            else:
                rows = np.concatenate([members[g] for g in rng.integers(0, len(members), size=len(members))])
            values[i] = statistic(rows)
    found = values[np.isfinite(values)]
    if len(found) < 0.9 * draws:
        raise ValueError(f"the metric is undefined on {draws - len(found)} of {draws} resamples; more rows needed")
    low, high = np.quantile(found, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return value, float(low), float(high)


def _rows(*arrays: ArrayLike) -> tuple[list[NDArray[Any]], int]:
    out = [np.asarray(a) for a in arrays]
    n = len(out[0]) if out[0].ndim else 0
    if n == 0 or any(a.ndim == 0 or len(a) != n for a in out):
        raise ValueError(f"labels and predictions need the same rows, found {[a.shape for a in out]}")
    return out, n


def paired_bootstrap(
    metric_fn: MetricFn,
    y: ArrayLike,
    pred1: ArrayLike,
    pred2: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """(difference, low, high) of metric(y, pred1) - metric(y, pred2) on the same rows.

    metric_fn: returns the metric as a number, or each row's loss (n,) if the metric is their
    mean (all of `fairway.stats.losses`). Rows' losses take 1-2 s for 100 000 rows and 2 000
    draws; a number costs `draws` calls. It may return nan on up to 10 % of the resamples.
    groups: (n,) entity or day of each row; whole groups are drawn, for dependent rows.
    Returns: percentile interval. Raises: ValueError on different lengths or no rows.
    Source: Efron 1979. Known weakness: with fewer than about 20 groups it is too short.

    >>> from fairway.stats.losses import zero_one
    >>> paired_bootstrap(zero_one, [1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0])
    (0.0, 0.0, 0.0)
    """
    (labels, first, second), n = _rows(y, pred1, pred2)

    def difference(rows: Any) -> Any:
        return np.subtract(metric_fn(labels[rows], first[rows]), metric_fn(labels[rows], second[rows]))

    return _bootstrap(difference, n, groups, draws, seed, level)


def bootstrap_interval(
    metric_fn: MetricFn,
    y: ArrayLike,
    pred: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """(metric, low, high) of one version; arguments and limits as `paired_bootstrap`."""
    (labels, values), n = _rows(y, pred)
    return _bootstrap(lambda rows: metric_fn(labels[rows], values[rows]), n, groups, draws, seed, level)
