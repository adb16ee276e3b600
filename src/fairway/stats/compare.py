"""Two versions on the same labelled rows: flips, and slices in which the new one is worse."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrc, ndtri, stdtr

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Flips:
    """Rows on which two versions differ.

    b: old right and new wrong (negative flips); c: old wrong and new right; differ: predictions
    that differ at all (with more than two classes both may be wrong). p_exact and p_mid are
    two-sided McNemar p-values of "equally often right".
    """

    b: int
    c: int
    n: int
    differ: int
    p_exact: float
    p_mid: float

    @property
    def flip_rate(self) -> float:
        """Share of rows whose prediction changed; 0 without rows."""
        return self.differ / self.n if self.n else 0.0

    @property
    def negative_flip_rate(self) -> float:
        """Share of rows that were right and are now wrong; 0 without rows."""
        return self.b / self.n if self.n else 0.0

    def as_dict(self) -> dict[str, float]:
        """JSON form, with both rates."""
        return {**asdict(self), "flip_rate": self.flip_rate, "negative_flip_rate": self.negative_flip_rate}


def mcnemar(b: int, c: int) -> tuple[float, float]:
    """(exact, mid) two-sided p-value for b against c discordant rows; 1 without any.

    Source: McNemar 1947; mid-p: Fagerland, Lydersen, Laake 2013.

    >>> [round(p, 6) for p in mcnemar(30, 15)]
    [0.035698, 0.025896]
    """
    if min(b, c) < 0:
        raise ValueError(f"negative count: b={b}, c={c}")
    if b + c == 0:
        return 1.0, 1.0
    tail = 2.0 * float(bdtr(min(b, c), b + c, 0.5))
    return min(1.0, tail), min(1.0, tail - _half_binomial(min(b, c), b + c))


def _half_binomial(k: int, n: int) -> float:
    """P(X = k) for X of n fair tosses. `scipy.stats` has it too, but takes a second to import."""
    return math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2.0))


def worse_mid_p(b: int, c: int) -> float:
    """One-sided mid-p of "the new version is more often wrong": small when b is large.

    >>> worse_mid_p(0, 0)
    0.5
    """
    if min(b, c) < 0:
        raise ValueError(f"negative count: b={b}, c={c}")
    return float(bdtrc(b, b + c, 0.5)) + 0.5 * _half_binomial(b, b + c)


def flips(y: ArrayLike, old: ArrayLike, new: ArrayLike) -> Flips:
    """Count flips between two versions' predicted labels, each of shape (n,).

    Raises: ValueError if the shapes differ.

    >>> flips([1, 1, 0], [1, 0, 0], [0, 1, 0]).b
    1
    """
    labels, first, second = np.asarray(y), np.asarray(old), np.asarray(new)
    if not (labels.shape == first.shape == second.shape and labels.ndim == 1):
        raise ValueError(f"shapes differ: labels {labels.shape}, old {first.shape}, new {second.shape}")
    was, now = first == labels, second == labels
    b, c = int((was & ~now).sum()), int((~was & now).sum())
    exact, mid = mcnemar(b, c)
    return Flips(b, c, len(labels), int((first != second).sum()), exact, mid)


def _p_values(p: ArrayLike) -> Floats:
    out = np.asarray(p, dtype=np.float64)
    if out.ndim != 1 or not ((out >= 0.0) & (out <= 1.0)).all():
        raise ValueError("p-values must be a vector (m,) of numbers from 0 to 1")
    return out


def holm(p: ArrayLike) -> Floats:
    """Holm-adjusted p-values (m,) in the given order: controls any false finding.

    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = _p_values(p)
    order = np.argsort(values, kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    out = np.empty_like(values)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(values) else steps
    return out


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Benjamini-Hochberg adjusted p-values (m,): controls the share of false findings.

    Known weakness: proven for independent or positively dependent tests.
    """
    values = _p_values(p)
    order = np.argsort(values, kind="stable")
    steps = values[order] * len(values) / np.arange(1, len(values) + 1)
    out = np.empty_like(values)
    out[order] = np.minimum(np.minimum.accumulate(steps[::-1])[::-1], 1.0) if len(values) else steps
    return out


@dataclass(frozen=True)
class SliceResult:
    """One slice: mean loss of the new minus the old version, and whether it is worse.

    diff: positive is worse, None without rows. p, p_holm: one-sided, None if too few rows to
    test. flagged: p_holm below alpha and diff at least the minimum. n_needed: rows at which a
    harm of the minimum would be found with 80 % power; testable: n reaches it, or it is flagged.
    """

    name: str
    n: int
    diff: float | None
    p: float | None
    p_holm: float | None
    flagged: bool
    testable: bool
    n_needed: int

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return asdict(self)


def _losses(values: ArrayLike) -> Floats:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"expected one value a row, found shape {array.shape}")
    losses = 1.0 - array if array.dtype == np.bool_ else array.astype(np.float64)
    if not np.isfinite(losses).all():
        raise ValueError("a loss is not finite")
    return np.asarray(losses, dtype=np.float64)


def _worse_p(diff: Floats, zero_one: bool) -> float:
    if zero_one:
        return worse_mid_p(int((diff > 0).sum()), int((diff < 0).sum()))
    mean, sd = float(diff.mean()), float(diff.std(ddof=1))
    if sd <= 1e-12 * abs(mean) or sd == 0.0:
        return 0.5 if mean == 0.0 else float(mean < 0.0)
    return float(stdtr(len(diff) - 1, -mean / sd * math.sqrt(len(diff))))


def slice_report(
    old: ArrayLike,
    new: ArrayLike,
    slices: Mapping[str, ArrayLike],
    *,
    alpha: float = 0.05,
    min_diff: float = 0.02,
    min_rows: int = 30,
    power: float = 0.8,
) -> list[SliceResult]:
    """In which slices is the new version worse? Flagged first, then by difference.

    old, new: (n,) on the same rows: bool means "right" per row, numbers are losses (higher is
    worse). slices: name to bool mask (n,); they may overlap.
    min_diff: smallest harm worth a flag, in the loss's unit. min_rows: smaller slices are
    listed and not tested (and do not count in the Holm adjustment), at least 2.
    Raises: ValueError on other shapes or a loss that is not finite.
    Source: one-sided McNemar mid-p for 0/1 losses, else paired t; Holm 1979.
    Known weakness: the t test is rough for heavy tails; slices chosen by looking at these rows
    must be judged on others.

    >>> right = np.ones(400, dtype=bool)
    >>> wrong = np.arange(400) >= 40
    >>> slice_report(right, wrong, {"all": right})[0].flagged
    True
    """
    if min_rows < 2:
        raise ValueError(f"min_rows is {min_rows}; expected at least 2")
    first, second = _losses(old), _losses(new)
    if first.shape != second.shape:
        raise ValueError(f"old has {len(first)} rows, new has {len(second)}")
    diff = second - first
    zero_one = bool(np.isin(first, (0.0, 1.0)).all() and np.isin(second, (0.0, 1.0)).all())
    parts: dict[str, Floats] = {}
    for name, mask in slices.items():
        chosen = np.asarray(mask)
        if chosen.dtype != np.bool_ or chosen.shape != diff.shape:
            raise ValueError(f"slice {name!r} must be a bool mask of shape {diff.shape}")
        parts[name] = diff[chosen]
    tested = [name for name, part in parts.items() if len(part) >= min_rows]
    raw = {name: _worse_p(parts[name], zero_one) for name in tested}
    adjusted = dict(zip(tested, holm(list(raw.values())).tolist(), strict=True))
    z = float(ndtri(1.0 - alpha / max(1, len(tested))) + ndtri(power))
    spread = float(diff.std(ddof=1)) if len(diff) > 1 else 0.0
    results = []
    for name, part in parts.items():
        mean = float(part.mean()) if len(part) else None
        # A small slice's own spread is unreliable low, never a reason to ask for fewer rows.
        sd = max(spread, float(part.std(ddof=1))) if name in raw else spread
        needed = max(min_rows, math.ceil((z * sd / min_diff) ** 2))
        flagged = mean is not None and mean >= min_diff and adjusted.get(name, 1.0) < alpha
        results.append(
            SliceResult(
                name=name, n=len(part), diff=mean, p=raw.get(name), p_holm=adjusted.get(name),
                flagged=flagged, testable=flagged or len(part) >= needed, n_needed=needed,
            )
        )  # fmt: skip
    return sorted(results, key=_worst_first)


def _worst_first(result: SliceResult) -> tuple[bool, bool, float, str]:
    harm = -math.inf if result.diff is None else result.diff
    return not result.flagged, result.p is None, -harm, result.name


def flagged(results: Sequence[SliceResult]) -> list[str]:
    """Names of the flagged slices, worst first."""
    return [r.name for r in results if r.flagged]
