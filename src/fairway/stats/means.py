"""Sequential comparison of means: accuracy, Brier, absolute error, revenue, mean latency.

A stratified score with a normal mixture: asymptotic in the number of units, valid over all
looks together. Independent arms enter through `score`, paired predictions (both versions
scored the same unit) through `paired_score`; everything after that is the same.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from scipy.special import log_ndtr

Sided = Literal["one", "two"]


@dataclass(frozen=True)
class MeanStratum:
    """Sums of both arms while the share was constant: units, sum and sum of squares.

    Suffix 1 is the challenger, 0 the champion; the unit is the unit of assignment.
    Raises: ValueError on a negative count.
    """

    n1: int
    sum1: float
    sumsq1: float
    n0: int
    sum0: float
    sumsq0: float

    def __post_init__(self) -> None:
        if self.n1 < 0 or self.n0 < 0:
            raise ValueError(f"negative unit count: n1={self.n1}, n0={self.n0}")

    def as_dict(self) -> dict[str, float]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, float]) -> "MeanStratum":
        """Inverse of `as_dict`."""
        return cls(
            n1=int(data["n1"]), sum1=data["sum1"], sumsq1=data["sumsq1"],
            n0=int(data["n0"]), sum0=data["sum0"], sumsq0=data["sumsq0"],
        )  # fmt: skip


@dataclass(frozen=True)
class MeanScore:
    """Score S, its variance v (intrinsic time) and weight W; the effect is S / W."""

    S: float
    v: float
    W: float

    @property
    def effect(self) -> float:
        """Challenger minus champion, in the metric's unit; nan before any weight."""
        return self.S / self.W if self.W > 0 else math.nan

    def as_dict(self) -> dict[str, float]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, float]) -> "MeanScore":
        """Inverse of `as_dict`."""
        return cls(S=data["S"], v=data["v"], W=data["W"])


def _alpha(alpha: float) -> float:
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha is {alpha!r}; expected 0..1")
    return alpha


def _check(v: float, rho: float) -> None:
    if not (v >= 0.0 and math.isfinite(v)):
        raise ValueError(f"v is {v!r}; expected a finite variance >= 0")
    if not (rho > 0.0 and math.isfinite(rho)):
        raise ValueError(f"rho is {rho!r}; expected a positive number (mixture_rho gives it)")


def planned_v(n_max: int, variance: float, *, share: float | None = None) -> float:
    """`v_opt` for `mixture_rho`: the v expected at a quarter of the planned maximum.

    n_max: planned units (paired predictions if share is None).
    variance: of the champion's metric from before the start; of the difference when paired.

    >>> planned_v(8000, 0.25, share=0.5)
    125.0
    """
    weight = 1.0 if share is None else share * (1.0 - share)
    return n_max / 4.0 * weight * variance


def mixture_rho(v_opt: float, alpha: float, *, sided: Sided) -> float:
    """Mixture variance rho for which the boundary is tightest around v = v_opt.

    alpha: the level of the test itself; a one-sided test is tuned at 2 alpha.
    Fix it before the first look: tuning it on arriving data breaks the guarantee.
    Raises: ValueError if v_opt is not positive, alpha is outside 0..1 (one-sided: 0..0.5), or
    `sided` is unknown. Source: Howard et al. 2021, section 3.5.

    >>> round(mixture_rho(100, 0.05, sided="two"), 6)
    12.600561
    """
    if sided not in ("one", "two"):
        raise ValueError(f"sided is {sided!r}; expected 'one' or 'two'")
    if not (v_opt > 0.0 and math.isfinite(v_opt)):
        raise ValueError(f"v_opt is {v_opt!r}; expected a positive variance")
    level = _alpha(alpha if sided == "two" else 2.0 * alpha)
    log_term = -2.0 * math.log(level)
    return v_opt / (log_term + math.log1p(log_term))


def _variance(n: int, total: float, squares: float) -> float:
    return max(squares / n - (total / n) ** 2, 0.0)


def score(strata: Sequence[MeanStratum]) -> MeanScore:
    """Stratified score of challenger minus champion.

    Strata with fewer than 2 units in an arm are left out until they have them.
    Returns: MeanScore(0, 0, 0) when no stratum counts yet.
    The variance is the larger of the pooled and the unpooled form: at a 5 % share and a skewed
    metric the unpooled form alone rejects two to three times too often.
    Known weakness: sums of squares cancel when the mean is far larger than the spread; shift
    such a metric by a constant before summing. A few huge values break the normal limit: cap.

    >>> score([MeanStratum(1000, 120, 140, 9000, 1000, 1180), MeanStratum(3000, 390, 470, 7000, 800, 960)]).S
    41.0
    """
    total_s, total_v, total_w = [], [], []
    for k in strata:
        if k.n1 < 2 or k.n0 < 2:
            continue
        var1, var0 = _variance(k.n1, k.sum1, k.sumsq1), _variance(k.n0, k.sum0, k.sumsq0)
        n = k.n1 + k.n0
        weight = k.n1 * k.n0 / n
        unpooled = var1 / k.n1 + var0 / k.n0
        pooled = (k.n1 * var1 + k.n0 * var0) / n * (1.0 / k.n1 + 1.0 / k.n0)
        total_s.append((k.n0 * k.sum1 - k.n1 * k.sum0) / n)  # weight * (mean1 - mean0)
        total_v.append(weight * weight * max(unpooled, pooled))
        total_w.append(weight)
    return MeanScore(S=math.fsum(total_s), v=math.fsum(total_v), W=math.fsum(total_w))


def paired_score(n: int, sum_d: float, sumsq_d: float) -> MeanScore:
    """Score of paired differences d = challenger minus champion on the same unit.

    n: pairs; sum_d, sumsq_d: sum of d and of d squared. A loss is negated by the caller.
    Returns: MeanScore(0, 0, 0) below 2 pairs. Raises: ValueError if n is negative.

    >>> paired_score(4, 2.0, 2.0)
    MeanScore(S=2.0, v=1.0, W=4.0)
    """
    if n < 0:
        raise ValueError(f"negative number of pairs: {n}")
    if n < 2:
        return MeanScore(0.0, 0.0, 0.0)
    return MeanScore(S=float(sum_d), v=max(sumsq_d - sum_d * sum_d / n, 0.0), W=float(n))


def one_sided_log_e(S: float, v: float, rho: float) -> float:
    """Log e-value against "the expected score is not positive".

    Returns: natural log; reject at any look once it reaches ln(1/alpha).
    Raises: ValueError if v is negative or rho not positive.
    Source: Robbins 1970 (half-normal mixture); asymptotic: Waudby-Smith et al. 2024.
    Known weakness: not valid for very small samples; look after the burn-in of 100 units an arm.

    >>> round(one_sided_log_e(20, 100, mixture_rho(100, 0.05, sided="one")), 6)
    1.39229
    """
    _check(v, rho)
    spread = v + rho
    tail = float(log_ndtr(S / math.sqrt(spread)))
    return 0.5 * math.log(4.0 * rho / spread) + S * S / (2.0 * spread) + tail


def radius(v: float, rho: float, alpha: float) -> float:
    """Two-sided boundary u(v): |S| >= u(v) rejects "no difference" at level alpha, at any look.

    >>> round(radius(10, mixture_rho(100, 0.05, sided="two"), 0.05), 6)
    12.190753
    """
    _check(v, rho)
    spread = v + rho
    return math.sqrt(spread * (-2.0 * math.log(_alpha(alpha)) + math.log(spread / rho)))


def confidence_sequence(score: MeanScore, rho: float, alpha: float) -> tuple[float, float, float]:
    """(effect, low, high): interval for the effect that holds at all looks together.

    rho: from `mixture_rho(..., sided="two")`. Without any weight: (nan, -inf, inf).

    >>> confidence_sequence(MeanScore(0.0, 0.0, 0.0), 1.0, 0.05)
    (nan, -inf, inf)
    """
    reach = radius(score.v, rho, alpha)
    if score.W <= 0.0:
        return math.nan, -math.inf, math.inf
    return score.effect, (score.S - reach) / score.W, (score.S + reach) / score.W


def noninferiority_log_e(score: MeanScore, *, margin: float, rho: float) -> float:
    """Log e-value against "the challenger is worse by the margin or more".

    Higher is better: negate a loss before summing. margin: >= 0, in the metric's unit.
    Raises: ValueError if the margin is negative. With margin 0 it tests superiority.
    """
    if not margin >= 0.0:
        raise ValueError(f"margin is {margin!r}; expected a number >= 0")
    return one_sided_log_e(score.S + margin * score.W, score.v, rho)
