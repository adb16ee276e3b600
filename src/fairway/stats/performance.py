"""Has the loss risen? Labels have arrived, losses come in order of prediction time.

0/1 losses feed an e-detector row by row; real-valued losses are judged one window at a time
against reference windows.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from fairway.stats.drift import MIN_WINDOWS, limits, student_tail

_RISES = (0.02, 0.05, 0.1, 0.2)
MIN_REFERENCE_ROWS = 1_000


def reference_rate(errors: int, n: int, *, tolerance: float = 0.01) -> float:
    """Error rate still accepted: upper one-sided 95 % bound of the reference, plus tolerance.

    errors of n labelled reference rows; n at least 1 000.
    Raises: ValueError on fewer rows or impossible counts. Source: Clopper and Pearson 1934.

    >>> round(reference_rate(200, 1000), 4)
    0.232
    """
    if not 0 <= errors <= n:
        raise ValueError(f"{errors} errors in {n} rows")
    if n < MIN_REFERENCE_ROWS:
        raise ValueError(f"{n} reference rows; at least {MIN_REFERENCE_ROWS} are needed")
    bound = 1.0 if errors == n else float(betaincinv(errors + 1, n - errors, 0.95))
    return bound + tolerance


@dataclass(frozen=True)
class EDetector:
    """State of the detector of a risen error rate.

    p0: accepted error rate; qs: rates it looks for; m: one value per q, 0 at the start and
    after an alarm; c: alarm threshold, and a lower bound of the mean rows between false alarms;
    n: rows seen; alarms: alarms so far.
    """

    p0: float
    qs: tuple[float, ...]
    m: tuple[float, ...]
    c: float = 100_000.0
    n: int = 0
    alarms: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.p0 < 1.0 or not self.qs or len(self.qs) != len(self.m):
            raise ValueError(f"p0={self.p0!r} must leave room for a higher rate below 1; qs={self.qs}")
        if not self.c > 0.0:
            raise ValueError(f"c is {self.c!r}; expected a positive number of rows")

    @classmethod
    def start(cls, p0: float, *, c: float = 100_000.0) -> "EDetector":
        """Fresh state that looks for rises of 0.02, 0.05, 0.1 and 0.2 (those below 1).

        Raises: ValueError unless 0 < p0 < 0.98.
        """
        qs = tuple(p0 + rise for rise in _RISES if p0 + rise < 1.0)
        return cls(p0=p0, qs=qs, m=(0.0,) * len(qs), c=c)

    @property
    def level(self) -> float:
        """Mean of m; an alarm is due at c."""
        return sum(self.m) / len(self.m)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "qs": list(self.qs), "m": list(self.m)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "EDetector":
        """Inverse of `as_dict`."""
        return cls(**{**data, "qs": tuple(data["qs"]), "m": tuple(data["m"])})


@dataclass(frozen=True)
class EDetectorUpdate:
    """New state, the mean M after each row (before a restart), and the rows that alarmed.

    alarms: numbers of rows within this batch, from 0.
    """

    state: EDetector
    trace: NDArray[np.float64]
    alarms: tuple[int, ...]


def update(state: EDetector, losses01: ArrayLike) -> EDetectorUpdate:
    """Feed 0/1 losses (n,), 1 = wrong, in order of prediction time.

    It restarts after each alarm and goes on, so batches of any size give the same states.
    Takes about 1 s for a million rows. Raises: ValueError if a loss is not 0 or 1.
    Source: Shin, Ramdas, Rinaldo 2023 (Shiryaev-Roberts e-detector, mean of four).
    Known weakness: assumes that errors given the past have at most rate p0: bursts from one
    entity look like a rise.

    >>> update(EDetector.start(0.2), [0, 1]).trace.round(6).tolist()
    [0.884375, 2.726719]
    """
    losses = np.asarray(losses01)
    if losses.ndim != 1 or not ((losses == 0) | (losses == 1)).all():
        raise ValueError(f"expected a vector of 0 and 1, found shape {losses.shape}")
    right = [(1.0 - q) / (1.0 - state.p0) for q in state.qs]
    wrong = [q / state.p0 for q in state.qs]
    m, count = list(state.m), len(state.m)
    trace, alarms = np.empty(len(losses)), []
    for i, loss in enumerate(losses.tolist()):
        m = [(x + 1.0) * factor for x, factor in zip(m, wrong if loss else right, strict=True)]
        level = sum(m) / count
        trace[i] = level
        if level >= state.c:
            alarms.append(i)
            m = [0.0] * count
    after = EDetector(state.p0, state.qs, tuple(m), state.c, state.n + len(losses), state.alarms + len(alarms))
    return EDetectorUpdate(after, trace, tuple(alarms))


@dataclass(frozen=True)
class LossVerdict:
    """Verdict on one window of a real-valued loss; keep p for the next window's history."""

    state: Literal["ok", "alarm", "refused"]
    reason: str
    x_now: float
    windows: int
    p: float | None = None
    now: bool = False
    lasting: bool = False

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def judge_loss_window(
    x_now: float,
    reference_window_means: ArrayLike,
    f: float = 1.0,
    *,
    history: Sequence[float | None] = (),
    columns: int = 1,
    window_days: float = 1.0,
    budget: float = 0.25,
) -> LossVerdict:
    """Is this window's mean loss above what reference windows show? One-sided.

    reference_window_means: (B,) mean loss of windows of the same length; below 14 the verdict
    is "refused". history: p of the windows before, oldest first; the last two count.
    columns: losses judged of this model; budget: false alarms per model and 30 days.
    Returns: "alarm" if p is very small now, or small in 2 of the last 3 windows.
    Raises: ValueError if a mean is not finite or an option is not positive.
    Known weakness: no minimum size of change: many and stable windows alarm on small rises.

    >>> judge_loss_window(2.0, [1.0, 1.1, 0.9] * 5).state
    'alarm'
    """
    means = np.asarray(reference_window_means, dtype=np.float64)
    if not math.isfinite(x_now):
        raise ValueError(f"mean loss is {x_now!r}")
    now_limit, lasting_limit = limits(columns=columns, window_days=window_days, budget=budget)
    if len(means) < MIN_WINDOWS:
        return LossVerdict("refused", f"{len(means)} of {MIN_WINDOWS} reference windows", x_now, len(means))
    p = student_tail(x_now, means, f)
    small = [value is not None and value <= lasting_limit for value in [*history[-2:], p]]
    now, lasting = p <= now_limit, sum(small) >= 2
    reason = "unusual now" if now else "unusual in 2 of 3 windows" if lasting else "within the reference"
    return LossVerdict("alarm" if now or lasting else "ok", reason, x_now, len(means), p, now, lasting)
