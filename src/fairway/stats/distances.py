"""Distances between two histograms over the same bins.

Arguments are counts (k,) and are normalised here. Jensen-Shannon drives decisions; the others
are shown beside it. None is a p-value: at a million rows every tiny shift is "significant".
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def _shares(p_counts: ArrayLike, q_counts: ArrayLike) -> tuple[Floats, Floats]:
    p, q = np.asarray(p_counts, dtype=np.float64), np.asarray(q_counts, dtype=np.float64)
    if p.shape != q.shape or p.ndim != 1:
        raise ValueError(f"bins differ: {p.shape} and {q.shape}")
    if not (np.isfinite(p).all() and np.isfinite(q).all()) or min(p.min(initial=0), q.min(initial=0)) < 0:
        raise ValueError("counts must be finite and >= 0")
    if p.sum() == 0 or q.sum() == 0:
        raise ValueError("a side has no rows")
    return p / p.sum(), q / q.sum()


def _js_rows(p: Floats, q: Floats) -> Floats:
    """JS distance of each row of shares (b, k), base 2."""
    middle = 0.5 * (p + q)
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(p > 0, p * np.log2(p / middle), 0.0).sum(axis=-1)
        two = np.where(q > 0, q * np.log2(q / middle), 0.0).sum(axis=-1)
    return np.asarray(np.sqrt(np.clip(0.5 * (one + two), 0.0, 1.0)), dtype=np.float64)


def js_distance(p_counts: ArrayLike, q_counts: ArrayLike) -> float:
    """Jensen-Shannon distance, base 2: 0 for equal shares, 1 for disjoint bins.

    Raises (as all functions here): ValueError if bins differ or a side has no rows.
    Source: Endres and Schindelin 2003. Known weakness: grows with the number of bins and falls
    with rows even without any change (`expected_null_js`), so thresholds need a reference.

    >>> js_distance([1, 0], [0, 1])
    1.0
    """
    p, q = _shares(p_counts, q_counts)
    return float(_js_rows(p, q))


def leave_one_out_js(window_counts: ArrayLike) -> Floats:
    """JS distance (b,) of each window against all the other windows together.

    window_counts: (b, k), at least 2 windows with rows each; larger windows weigh more.
    Raises: ValueError on fewer windows or a window without rows.

    >>> leave_one_out_js([[5, 5], [5, 5], [5, 5]]).tolist()
    [0.0, 0.0, 0.0]
    """
    counts = np.asarray(window_counts, dtype=np.float64)
    if counts.ndim != 2 or len(counts) < 2:
        raise ValueError(f"expected at least 2 windows over the same bins, found shape {counts.shape}")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("counts must be finite and >= 0")
    rest = counts.sum(axis=0) - counts
    totals = counts.sum(axis=1, keepdims=True)
    if (totals == 0).any():
        raise ValueError(f"window {int(np.argmin(totals))} has no rows; leave it out")
    return _js_rows(counts / totals, rest / rest.sum(axis=1, keepdims=True))


def expected_null_js(k_bins: int, n: int) -> float:
    """About the JS distance that a window of n rows shows without any change.

    k_bins: bins in use; infinity for n = 0. Valid when the reference is much larger than n.

    >>> round(expected_null_js(21, 1000), 4)
    0.0601
    """
    if k_bins < 1 or n < 0:
        raise ValueError(f"{k_bins} bins and {n} rows")
    return math.sqrt((k_bins - 1) / (8.0 * n * math.log(2.0))) if n else math.inf


def total_variation(p_counts: ArrayLike, q_counts: ArrayLike) -> float:
    """Largest difference in probability of any set of bins, 0..1: the share of rows that moved.

    >>> round(total_variation([50, 50], [60, 40]), 4)
    0.1
    """
    p, q = _shares(p_counts, q_counts)
    return float(0.5 * np.abs(p - q).sum())


def psi(p_counts: ArrayLike, q_counts: ArrayLike, *, floor: float = 1e-4) -> float:
    """Population stability index in nats, >= 0; bin shares are floored so that it stays finite.

    Known weakness: grows with the bin count and with small samples, so the customary 0.1 and
    0.25 fit no window in particular.

    >>> round(psi([50, 50], [60, 40]), 4)
    0.0405
    """
    p, q = (np.maximum(side, floor) for side in _shares(p_counts, q_counts))
    return float(((p - q) * np.log(p / q)).sum())


def ks_binned(p_counts: ArrayLike, q_counts: ArrayLike) -> float:
    """Largest difference of the cumulative shares over ordered bins (null bin left out), 0..1.

    Known weakness: a lower bound of the statistic on raw values, which bins cannot show.
    """
    p, q = _shares(p_counts, q_counts)
    return float(np.abs(np.cumsum(p - q)).max())


def wasserstein_binned(
    p_counts: ArrayLike, q_counts: ArrayLike, *, positions: ArrayLike | None = None, scale: float = 1.0
) -> float:
    """Mean distance that rows moved, over ordered bins (null bin left out).

    positions: (k,) increasing place of each bin, by default its number 0..k-1; for numeric
    columns pass bin centres and scale = the reference's standard deviation to read it in sd.

    >>> wasserstein_binned([1, 0, 0], [0, 0, 1])
    2.0
    """
    p, q = _shares(p_counts, q_counts)
    places = np.arange(len(p), dtype=np.float64) if positions is None else np.asarray(positions, np.float64)
    steps = np.diff(places)
    if places.shape != p.shape or not np.isfinite(places).all() or (steps < 0).any():
        raise ValueError(f"positions must be {len(p)} finite increasing numbers")
    if not scale > 0.0:
        raise ValueError(f"scale is {scale!r}; expected a positive number")
    return float((np.abs(np.cumsum(p - q))[:-1] * steps).sum() / scale)
