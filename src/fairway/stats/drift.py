"""Has a column drifted? A threshold that the reference itself sets.

Each reference window's distance to the other reference windows shows how much ordinary days
differ; a window is judged against that. Profiles and distances live in their own modules and
are offered here too, so that a monitor needs one import.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtr

from fairway.stats.distances import (
    expected_null_js,
    js_distance,
    ks_binned,
    leave_one_out_js,
    psi,
    total_variation,
    wasserstein_binned,
)
from fairway.stats.profiles import (
    CategoricalBins,
    CategoricalProfile,
    NumericBins,
    NumericProfile,
    Profile,
    merge,
    profile,
)

__all__ = [
    "CategoricalBins",
    "CategoricalProfile",
    "ColumnVerdict",
    "NumericBins",
    "NumericProfile",
    "Profile",
    "Reference",
    "Tuning",
    "expected_null_js",
    "js_distance",
    "judge_column",
    "ks_binned",
    "leave_one_out_js",
    "limits",
    "merge",
    "profile",
    "psi",
    "season_ratio",
    "student_tail",
    "tail_ps",
    "total_variation",
    "tune_f",
    "wasserstein_binned",
]

Floats = NDArray[np.float64]
State = Literal["ok", "notice", "alarm", "refused"]

MIN_WINDOWS = 14
MAX_NULL_JS = 0.10
SEASON_GAIN = 1.05
MIN_SEASON_WINDOWS = 4
# Distances below this mean nothing at any window size, and ln(0) does not exist.
DISTANCE_FLOOR = 1e-3
_LARGEST_F = 10.0


def _t_values(now: Floats, reference: Floats) -> Floats:
    """Prediction t of each column: now (c,), reference (b, c), without the factor f."""
    count = len(reference)
    mean, sd = reference.mean(axis=0), reference.std(axis=0, ddof=1)
    constant = np.ptp(reference, axis=0) == 0.0
    t = (now - mean) / (np.where(constant, 1.0, sd) * math.sqrt(1.0 + 1.0 / count))
    # A constant reference has no spread: anything above is impossible, the rest is ordinary.
    return np.where(constant, np.where(now > reference[0], np.inf, -np.inf), t)


def _check_f(f: float) -> None:
    if not f >= 1.0:
        raise ValueError(f"f is {f!r}; expected at least 1")


def student_tail(x_now: float, x_b: ArrayLike, f: float = 1.0) -> float:
    """Upper tail p of one new value against B earlier ones (Student t, B-1 df).

    x_b: (B,), at least 2. f: spread factor >= 1. A constant x_b gives 0 above it, else 1.
    Raises: ValueError on fewer values, a value that is not finite, or f below 1.
    """
    _check_f(f)
    values = np.asarray(x_b, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not (np.isfinite(values).all() and math.isfinite(x_now)):
        raise ValueError(f"expected at least 2 finite reference values, found shape {values.shape}")
    t = _t_values(np.array([x_now]), values[:, None])[0]
    return float(stdtr(len(values) - 1, -t / f))


def tail_ps(x_now: float, x_b: ArrayLike, f: float = 1.0) -> tuple[float, float]:
    """(p_ln, p_23): how unusual a distance is among reference distances x_b (B,).

    Two transforms, since the law of a distance lies between a log-normal and a chi-square.
    Distances are floored at 1e-3 before, so zeros and constant columns are safe.
    Raises: ValueError as `student_tail`. Source: Wilson and Hilferty 1931 for the power 2/3.

    >>> ref = (0.02, 0.025, 0.018, 0.03, 0.022, 0.027, 0.019, 0.024, 0.021, 0.026)
    >>> [round(p, 4) for p in tail_ps(0.03, ref)]
    [0.0775, 0.0678]
    """
    now = max(x_now, DISTANCE_FLOOR) if not math.isnan(x_now) else x_now
    floored = np.maximum(np.asarray(x_b, dtype=np.float64), DISTANCE_FLOOR)
    log_p = student_tail(math.log(now), np.log(floored), f)
    return log_p, student_tail(now ** (2.0 / 3.0), floored ** (2.0 / 3.0), f)


def limits(*, columns: int, window_days: float, budget: float) -> tuple[float, float]:
    """(limit of p_ln for "now", limit of g for "lasting") under a false-alarm budget.

    columns: judged columns of the model; budget: false column alarms per model and 30 days.

    >>> [round(x, 5) for x in limits(columns=10, window_days=1.0, budget=0.25)]
    [0.00042, 0.01443]
    """
    if columns < 1 or not window_days > 0.0 or not budget > 0.0:
        raise ValueError(f"columns={columns}, window_days={window_days}, budget={budget} must be positive")
    per_month = 30.0 / window_days
    return budget / per_month / (2.0 * columns), math.sqrt(budget / (4.0 * per_month * columns))


def _season_js(counts: NDArray[np.int64], seasons: Sequence[Hashable]) -> Floats | None:
    """Distances within the same season, or None if a season has fewer than 4 windows."""
    keys = [str(key) for key in seasons]
    if len(keys) != len(counts):
        raise ValueError(f"{len(counts)} windows but {len(keys)} season keys")
    out = np.empty(len(counts))
    for key in set(keys):
        rows = [i for i, own in enumerate(keys) if own == key]
        if len(rows) < MIN_SEASON_WINDOWS:
            return None
        out[rows] = leave_one_out_js(counts[rows])
    return out


def season_ratio(window_counts: ArrayLike, seasons: Sequence[Hashable]) -> float | None:
    """Mean distance against all windows over mean distance within the season.

    window_counts: (B, K); seasons: (B,) keys such as the weekday. Above 1.05 a season pays.
    None if a season has fewer than 4 windows.
    """
    counts = np.asarray(window_counts, dtype=np.int64)
    within = _season_js(counts, seasons)
    if within is None:
        return None
    pooled = float(leave_one_out_js(counts).mean())
    if within.mean() == 0.0:
        return 1.0 if pooled == 0.0 else math.inf
    return pooled / float(within.mean())


@dataclass(frozen=True)
class Reference:
    """What a column's windows are judged against.

    x: (B,) distance of each reference window to the others. totals: bin counts by season key;
    the key "" holds all windows. seasonal: x and new distances stay within the season.
    """

    x: tuple[float, ...]
    totals: Mapping[str, tuple[int, ...]]
    seasonal: bool = False
    f: float = 1.0

    @classmethod
    def from_windows(
        cls, window_counts: ArrayLike, *, seasons: Sequence[Hashable] | None = None, f: float = 1.0
    ) -> "Reference":
        """Reference from bin counts (B, K) of at least 2 windows with rows.

        seasons: (B,) keys such as the weekday; used if each has 4 windows and it pays by 5 %.
        """
        counts = np.asarray(window_counts, dtype=np.int64)
        pooled = leave_one_out_js(counts)
        totals = {"": tuple(int(c) for c in counts.sum(axis=0))}
        ratio = None if seasons is None else season_ratio(counts, seasons)
        if seasons is None or ratio is None or ratio <= SEASON_GAIN:
            return cls(tuple(float(x) for x in pooled), totals, f=f)
        within = _season_js(counts, seasons)
        assert within is not None
        for key in {str(s) for s in seasons}:
            rows = [i for i, own in enumerate(seasons) if str(own) == key]
            totals[key] = tuple(int(c) for c in counts[rows].sum(axis=0))
        return cls(tuple(float(x) for x in within), totals, seasonal=True, f=f)

    def distance(self, counts: ArrayLike, *, season: Hashable | None = None) -> float:
        """JS distance of a new window's bin counts (K,) to the reference (of its season).

        Raises: ValueError if the reference is seasonal and the season is missing or unknown.
        """
        if self.seasonal and str(season) not in self.totals:
            raise ValueError(f"season {season!r} is not in the reference; known: {sorted(self.totals)[1:]}")
        return js_distance(counts, self.totals[str(season) if self.seasonal else ""])

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        totals = {key: list(counts) for key, counts in self.totals.items()}
        return {"x": list(self.x), "totals": totals, "seasonal": self.seasonal, "f": self.f}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Reference":
        """Inverse of `as_dict`."""
        totals = {key: tuple(counts) for key, counts in data["totals"].items()}
        return cls(tuple(data["x"]), totals, bool(data["seasonal"]), float(data["f"]))


@dataclass(frozen=True)
class Tuning:
    """Result of `tune_f`; exchangeable is False when f exceeds 1.5 or never suffices.

    Not exchangeable means that days differ in ways the reference does not explain: take longer
    windows or a season key.
    """

    f: float
    alarms_per_30_days: float
    exchangeable: bool

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def tune_f(reference_x: ArrayLike, *, window_days: float = 1.0, budget: float = 0.25, js_alarm: float = 0.10) -> Tuning:
    """Smallest f (1.0, 1.1, ...) whose replay over the reference keeps the alarm budget.

    reference_x: (B, C) reference distances in time order, one column per judged column, or
    (B,) for one; at least 3 windows. Each window is judged by all others; alarms of all columns
    count together. Stops at f = 10. Raises: ValueError on fewer windows.
    Known weakness: 28 windows cannot tell 0.25 alarms a month from none, so it removes all.
    """
    x = np.asarray(reference_x, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or len(x) < 3 or not np.isfinite(x).all():
        raise ValueError(f"expected finite distances (windows >= 3, columns), found shape {x.shape}")
    windows, columns = x.shape
    now_limit, lasting_limit = limits(columns=columns, window_days=window_days, budget=budget)
    floored = np.maximum(x, DISTANCE_FLOOR)
    t_ln, t_23 = (
        np.array([_t_values(values[b], np.delete(values, b, axis=0)) for b in range(windows)])
        for values in (np.log(floored), floored ** (2.0 / 3.0))
    )
    step, f = 0, 1.0
    while True:
        p_ln, p_23 = (stdtr(windows - 2, -t / f) for t in (t_ln, t_23))
        small = (np.sqrt(p_ln * p_23) <= lasting_limit).astype(np.int64)
        in_last_3 = small.copy()
        in_last_3[1:] += small[:-1]
        in_last_3[2:] += small[:-2]
        alarms = ((p_ln <= now_limit) | (in_last_3 >= 2)) & (x >= js_alarm)
        rate = float(alarms.sum()) * 30.0 / (windows * window_days)
        if rate <= budget or f >= _LARGEST_F:
            return Tuning(f=f, alarms_per_30_days=rate, exchangeable=f <= 1.5 and rate <= budget)
        step += 1
        f = round(1.0 + 0.1 * step, 1)


@dataclass(frozen=True)
class ColumnVerdict:
    """Verdict on one column and window with the numbers that led to it.

    state "refused": too few rows to tell. p_ln, p_23, g are None when not computed; keep g for
    the next window's history. now_limit, lasting_limit: what p_ln and g were held against.
    """

    state: State
    reason: str
    x_now: float
    windows: int
    p_ln: float | None = None
    p_23: float | None = None
    g: float | None = None
    now: bool = False
    lasting: bool = False
    now_limit: float | None = None
    lasting_limit: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def judge_column(
    x_now: float,
    history: Sequence[float | None],
    reference: ArrayLike,
    *,
    columns: int,
    window_days: float = 1.0,
    budget: float = 0.25,
    f: float = 1.0,
    js_alarm: float = 0.10,
    js_notice: float = 0.05,
    null_js: float = 0.0,
) -> ColumnVerdict:
    """Judge one window of one column against its reference.

    x_now: JS distance of the window. history: g of the windows before, oldest first; only the
    last two count, None where there was none. reference: x_b (B,), see `Reference.x`.
    columns: judged columns. null_js: `expected_null_js` of this window; above 0.1 it is refused.
    With fewer than 14 reference windows the state is at most "notice".
    Raises: ValueError if a number is not finite or an option is not positive.
    Known weakness: the budget holds if windows are exchangeable; tune f (`tune_f`) first.

    >>> judge_column(0.2, [], [0.02, 0.03] * 7, columns=5).state
    'alarm'
    """
    x_b = np.asarray(reference, dtype=np.float64)
    if not math.isfinite(x_now) or not np.isfinite(x_b).all() or math.isnan(null_js):
        raise ValueError(f"x_now, null_js and the reference must be finite, found x_now={x_now!r}")
    now_limit, lasting_limit = limits(columns=columns, window_days=window_days, budget=budget)
    _check_f(f)
    count = len(x_b)
    if null_js > MAX_NULL_JS:
        return ColumnVerdict("refused", f"no change would already show {null_js:.3f}", x_now, count)
    if count < MIN_WINDOWS:
        bar = js_alarm + 2.0 * null_js
        state: State = "notice" if x_now >= bar else "ok"
        return ColumnVerdict(state, f"{count} of {MIN_WINDOWS} reference windows; notice at {bar:.3f}", x_now, count)
    p_ln, p_23 = tail_ps(x_now, x_b, f)
    g = math.sqrt(p_ln * p_23)
    small = [value is not None and value <= lasting_limit for value in [*history[-2:], g]]
    now, lasting = p_ln <= now_limit, sum(small) >= 2
    if not (now or lasting):
        state, reason = "ok", "within the reference"
    else:
        state = "alarm" if x_now >= js_alarm else "notice" if x_now >= js_notice else "ok"
        reason = ("unusual now" if now else "unusual in 2 of 3 windows") + (
            ", but too small to matter" if state == "ok" else ""
        )
    return ColumnVerdict(state, reason, x_now, count, p_ln, p_23, g, now, lasting, now_limit, lasting_limit)
