"""Labels that are probably wrong: confident learning for classes, robust residuals for numbers.

Source: Northcutt, Jiang, Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, JAIR 70 (2021). The
outputs must be out of sample (cross-validated): a model that has seen a wrong label agrees with it. Known weakness: a
row that the model can't get right for want of a feature looks the same as a wrong label, so this lists candidates to
look at, never rows to drop.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MAD_TO_SD = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class LabelNoise:
    """suspects: row numbers, most doubtful first. score: (n,), lower is more doubtful. suggested: (n,) the class that
    the outputs would give. joint: (k, k) estimated rows by given (first) and true (second) class; they sum to n.
    """

    suspects: Ints
    score: Floats
    suggested: Ints
    joint: Floats

    @property
    def share(self) -> float:
        """Estimated share of rows whose label is wrong."""
        total = float(self.joint.sum())
        return float((total - np.trace(self.joint)) / total) if total else 0.0


def confident_learning(y: ArrayLike, p: ArrayLike) -> LabelNoise:
    """Candidates for wrong labels among classes.

    y: (n,) codes 0..k-1 as given. p: (n, k) out-of-sample probabilities. A class's threshold is the mean probability of
    that class among the rows labelled so; a row counts for the most likely class among those that reach theirs.
    Raises: ValueError for shapes that differ or a code outside 0..k-1.

    >>> found = confident_learning([0, 0, 0, 1, 1, 1], [[.9, .1], [.8, .2], [.1, .9], [.1, .9], [.2, .8], [.3, .7]])
    >>> found.suspects.tolist(), found.suggested[2].item(), round(found.share, 3)
    ([2], 1, 0.167)
    """
    labels, outputs = np.asarray(y, dtype=np.int64), np.asarray(p, dtype=np.float64)
    if outputs.ndim != 2 or labels.shape != outputs.shape[:1]:
        raise ValueError(f"shapes {labels.shape} and {outputs.shape} don't fit: (n,) labels and (n, k) outputs")
    n, k = outputs.shape
    if n and not (labels.min() >= 0 and labels.max() < k):
        raise ValueError(f"labels go from {labels.min()} to {labels.max()}; there are {k} classes")
    own = outputs[np.arange(n), labels]
    counts = np.bincount(labels, minlength=k)
    # A class without rows has no threshold that could be reached.
    sums = np.bincount(labels, weights=own, minlength=k)
    threshold = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    reached = np.where(outputs >= threshold, outputs, -1.0)
    confident, best = reached.max(axis=1) >= 0, reached.argmax(axis=1)
    joint = np.zeros((k, k))
    np.add.at(joint, (labels[confident], best[confident]), 1.0)
    # Calibrated: each given class keeps its rows, spread as its confident ones are.
    seen = joint.sum(axis=1, keepdims=True)
    joint = np.where(seen > 0, joint / np.maximum(seen, 1.0), np.eye(k)) * counts[:, None]
    others = outputs.copy()
    others[np.arange(n), labels] = -np.inf
    score = own - others.max(axis=1) if k > 1 else np.ones(n)
    wrong = np.flatnonzero(confident & (best != labels))
    return LabelNoise(wrong[np.argsort(score[wrong], kind="stable")], score, best, joint)


def residual_outliers(y: ArrayLike, prediction: ArrayLike, *, limit: float = 6.0) -> tuple[Ints, Floats]:
    """(row numbers, most doubtful first; (n,) residuals in robust standard deviations) of a regression.

    y, prediction: (n,), out of sample. limit: robust standard deviations from the median residual; at 6 a normal
    residual is listed once in 500 million rows, but heavy tails are common: these are rows to look at.

    >>> residual_outliers([1.0, 2.5, 2.9, 4.4, 5000.0], [1.5, 2.0, 3.0, 4.1, 5.0])[0].tolist()
    [4]
    """
    gap = np.asarray(y, dtype=np.float64) - np.asarray(prediction, dtype=np.float64)
    if not len(gap):
        return np.zeros(0, dtype=np.int64), gap
    centred = gap - np.median(gap)
    spread = _MAD_TO_SD * float(np.median(np.abs(centred)))
    # More than half of the residuals are equal: then whatever differs is as far as can be told.
    scaled = centred / spread if spread > 0 else np.copysign(np.where(centred == 0, 0.0, np.inf), centred)
    found = np.flatnonzero(np.abs(scaled) > limit)
    return found[np.argsort(-np.abs(scaled[found]), kind="stable")], scaled
