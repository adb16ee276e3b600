"""Sequential comparison of event rates: errors, timeouts, wrong answers, slow requests.

Only events are counted. Given an event, it falls in the challenger with a probability that
depends on the share and on the rate ratio but not on the base rate, so the base rate may vary
in time as it likes, and the test stays exact at every sample size and every look.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Direction = Literal["greater", "less"]

_ALTERNATIVES = 24  # log-spaced ratios between r0 and 8 r0 (or r0 / 8)
_LARGEST_STEP = 8.0
_GRID_END = 16.0


@dataclass(frozen=True)
class RateStratum:
    """Events of both arms while the share was constant.

    n1, n0: events (not units) in the challenger and in the champion.
    share: the challenger's share of units, 0..1.
    Raises: ValueError on negative counts, or on events in an arm without a share.
    """

    n1: int
    n0: int
    share: float

    def __post_init__(self) -> None:
        if self.n1 < 0 or self.n0 < 0:
            raise ValueError(f"negative event count: n1={self.n1}, n0={self.n0}")
        if not 0.0 <= self.share <= 1.0:
            raise ValueError(f"share is {self.share!r}; expected 0..1")
        if (self.share == 0.0 and self.n1) or (self.share == 1.0 and self.n0):
            raise ValueError(f"events in an arm without traffic: share={self.share}, n1={self.n1}, n0={self.n0}")

    def as_dict(self) -> dict[str, float]:
        """JSON form."""
        return {"n1": self.n1, "n0": self.n0, "share": self.share}

    @classmethod
    def from_dict(cls, data: dict[str, float]) -> "RateStratum":
        """Inverse of `as_dict`."""
        return cls(n1=int(data["n1"]), n0=int(data["n0"]), share=float(data["share"]))


_Columns = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def _columns(strata: Sequence[RateStratum]) -> _Columns:
    """Counts and log-odds of the share, one column each; strata with one arm tell nothing."""
    told = [s for s in strata if 0.0 < s.share < 1.0 and s.n1 + s.n0 > 0]
    table = np.array([(s.n1, s.n0, s.share) for s in told], dtype=np.float64).reshape(-1, 3)
    n1, n0, share = table[:, 0:1], table[:, 1:2], table[:, 2:3]
    return n1, n0, np.log(share) - np.log1p(-share)


def _log_e(columns: _Columns, log_r0: float, direction: Direction) -> float:
    n1, n0, logit = columns
    sign = 1.0 if direction == "greater" else -1.0
    steps = sign * (np.arange(_ALTERNATIVES) + 0.5) / _ALTERNATIVES * math.log(_LARGEST_STEP)
    null, other = logit + log_r0, logit + (log_r0 + steps)
    # ln p = -ln(1 + e^-x) and ln(1 - p) = -ln(1 + e^x), without overflow.
    gain1 = np.logaddexp(0.0, -null) - np.logaddexp(0.0, -other)
    gain0 = np.logaddexp(0.0, null) - np.logaddexp(0.0, other)
    paths = (n1 * gain1 + n0 * gain0).sum(axis=0)
    return float(np.logaddexp.reduce(paths)) - math.log(_ALTERNATIVES)


def rate_log_e(strata: Sequence[RateStratum], *, r0: float = 1.0, direction: Direction = "greater") -> float:
    """Log e-value against "the challenger's rate is at most r0 times the champion's".

    strata: cumulative event counts, one entry per constant share; order does not matter.
    r0: tolerated rate ratio, > 0. direction "less" tests against "at least r0 times".
    Returns: natural log; reject at any look once it reaches ln(1/alpha). 0 without events.
    Raises: ValueError if r0 is not positive or the direction is unknown.
    Source: Lindon and Malek 2020; Robbins 1970 (mixture over 24 ratios up to 8 r0).
    Known weakness: knows nothing of the event's base rate, so a metric whose events are the
    majority wastes power (count the complement), and dependent events (one broken client that
    retries) count as evidence each: use first events per unit.

    >>> round(rate_log_e([RateStratum(n1=12, n0=40, share=0.1)]), 6)
    2.833894
    """
    if not (math.isfinite(r0) and r0 > 0.0):
        raise ValueError(f"r0 is {r0!r}; expected a positive ratio")
    if direction not in ("greater", "less"):
        raise ValueError(f"direction is {direction!r}; expected 'greater' or 'less'")
    return _log_e(_columns(strata), math.log(r0), direction)


def ratio_confidence_sequence(strata: Sequence[RateStratum], *, alpha: float = 0.05) -> tuple[float, float]:
    """Interval for challenger rate / champion rate that holds at all looks together.

    Returns: (low, high). A side that is still open within 1/16 .. 16 is 0.0 or `math.inf`;
    a ratio beyond the grid gives (16, inf) or (0, 1/16).
    Raises: ValueError if alpha is outside 0..1.
    Source: all r0 that neither direction of `rate_log_e` rejects at alpha/2, by bisection; the
    log e-value is monotone in r0, because each log likelihood is concave in ln r0.

    >>> [round(x, 4) for x in ratio_confidence_sequence([RateStratum(12, 40, 0.1)])]
    [0.8864, 6.8459]
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError(f"alpha is {alpha!r}; expected 0..1")
    columns, bar = _columns(strata), math.log(2.0 / alpha)
    end = math.log(_GRID_END)

    def edge(direction: Direction, rejected: float, kept: float) -> float:
        for _ in range(60):
            middle = 0.5 * (rejected + kept)
            if _log_e(columns, middle, direction) >= bar:
                rejected = middle
            else:
                kept = middle
        return math.exp(kept)

    low, high = 0.0, math.inf
    if _log_e(columns, end, "greater") >= bar:
        return _GRID_END, math.inf
    if _log_e(columns, -end, "less") >= bar:
        return 0.0, 1.0 / _GRID_END
    if _log_e(columns, -end, "greater") >= bar:
        low = edge("greater", -end, end)
    if _log_e(columns, end, "less") >= bar:
        high = edge("less", end, -end)
    return low, high
