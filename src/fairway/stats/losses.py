"""Loss of each row: shape (n,), lower is better, the metric is the mean.

Missing labels must be dropped by the caller: a nan label gives nan (1.0 in `zero_one`), and a
probability that is nan or outside 0..1 raises ValueError.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Losses = NDArray[np.float64]


def _same_rows(y: NDArray[np.generic], p: NDArray[np.generic]) -> None:
    if y.shape != p.shape or y.ndim != 1:
        raise ValueError(f"labels {y.shape} and predictions {p.shape} must have one shape (n,)")


def _probabilities(p: ArrayLike) -> NDArray[np.float64]:
    out = np.asarray(p, dtype=np.float64)
    if not ((out >= 0.0) & (out <= 1.0)).all():
        raise ValueError("a probability is nan or outside 0..1")
    return out


def _codes(y: ArrayLike, p: NDArray[np.float64]) -> NDArray[np.int64]:
    codes = np.asarray(y)
    if p.ndim != 2 or codes.shape != p.shape[:1]:
        raise ValueError(f"class codes {codes.shape} need probabilities (n, k), found {p.shape}")
    whole = codes.astype(np.int64)
    if (whole != codes).any() or ((whole < 0) | (whole >= p.shape[1])).any():
        raise ValueError(f"class codes must be integers 0..{p.shape[1] - 1}")
    return whole


def brier(y: ArrayLike, p: ArrayLike) -> Losses:
    """Squared error of a probability: y (n,) of 0/1, p (n,) probability of 1; range 0..1.

    >>> brier([1, 0], [0.5, 0.25]).tolist()
    [0.25, 0.0625]
    """
    labels, probs = np.asarray(y, dtype=np.float64), _probabilities(p)
    _same_rows(labels, probs)
    return (probs - labels) ** 2


def multiclass_brier(y: ArrayLike, p: ArrayLike) -> Losses:
    """Sum over classes of squared errors: y (n,) class codes, p (n, k); range 0..2.

    Source: Brier 1950, not halved: with two classes it is twice `brier`.

    >>> multiclass_brier([0], [[0.5, 0.25, 0.25]]).tolist()
    [0.375]
    """
    probs = _probabilities(p)
    codes = _codes(y, probs)
    hit = probs[np.arange(len(codes)), codes]
    return np.asarray((probs**2).sum(axis=1) - hit**2 + (1.0 - hit) ** 2, dtype=np.float64)


def log_loss(y: ArrayLike, p: ArrayLike, *, floor: float = 1e-15) -> Losses:
    """Minus log probability of what happened, in nats.

    y (n,) of 0/1 with p (n,), or class codes with p (n, k). floor: smallest probability used,
    so that one certain and wrong answer costs 34.5 and not infinity.

    >>> log_loss([1, 0], [0.5, 0.5]).round(4).tolist()
    [0.6931, 0.6931]
    """
    probs = _probabilities(p)
    if probs.ndim == 2:
        codes = _codes(y, probs)
        happened = probs[np.arange(len(codes)), codes]
    else:
        labels = np.asarray(y, dtype=np.float64)
        _same_rows(labels, probs)
        happened = labels * probs + (1.0 - labels) * (1.0 - probs)
    return -np.log(np.maximum(happened, floor))


def absolute_error(y: ArrayLike, prediction: ArrayLike) -> Losses:
    """|prediction - y|, shape (n,), in the label's unit."""
    labels, values = np.asarray(y, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    _same_rows(labels, values)
    return np.abs(values - labels)


def zero_one(y: ArrayLike, prediction: ArrayLike) -> Losses:
    """1.0 where the predicted label differs from the label, else 0.0; any comparable labels.

    >>> zero_one(["a", "b"], ["a", "c"]).tolist()
    [0.0, 1.0]
    """
    labels, values = np.asarray(y), np.asarray(prediction)
    _same_rows(labels, values)
    return np.asarray(labels != values, dtype=np.float64)
