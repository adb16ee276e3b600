"""Is the model still better than knowing nothing? An e-detector on its loss against a constant answer. Pure.

Why beside METHODS 4a: with a low base rate the 0/1 error at one half is about the base rate whatever the model does,
and the Brier score moves far less with the model than with the base rate. What tells is the difference of the two Brier
losses on the same rows, D = (p - y)^2 - (b - y)^2, b the base rate of the held-out rows. While the model knows anything
its mean is below 0; when its answers have nothing to do with the labels, it is the variance of the answers.

    M_j <- (M_j + 1) (1 + lambda_j D),   lambda_j = (0.1, 0.25, 0.5, 0.95) / max(b, 1-b)^2;   alarm when mean_j M_j >= c

D >= -max(b, 1-b)^2, so every factor is positive, and while E[D | past] <= 0 its mean is at most 1: an e-detector as in
4a (Shin, Ramdas, Rinaldo 2023), with at least c rows on average between false alarms, for any distribution of the rows.
Known weakness: a model that has got worse but still beats the constant never alarms here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

_BETS = (0.1, 0.25, 0.5, 0.95)


@dataclass(frozen=True, kw_only=True)
class SkillDetector:
    """base: the constant answer, 0..1. m: one value per bet; 0 at the start and after an alarm."""

    base: float
    c: float = 100_000.0
    m: tuple[float, ...] = (0.0,) * len(_BETS)
    n: int = 0
    alarms: int = 0

    def __post_init__(self) -> None:
        if not 0.0 < self.base < 1.0 or not self.c > 0.0:
            raise ValueError(f"base={self.base!r} must be inside 0..1 and c={self.c!r} positive")

    @property
    def level(self) -> float:
        """Mean of m; an alarm is due at c."""
        return sum(self.m) / len(self.m)

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "m": list(self.m)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "SkillDetector":
        """Inverse of `as_dict`."""
        return cls(**{**data, "m": tuple(data["m"])})


def update(state: SkillDetector, rows: Sequence[tuple[float, float]]) -> tuple[SkillDetector, float]:
    """Feed (probability, label 0/1) rows in order of prediction time; new state and the highest level reached.

    Batches of any size give the same states. After an alarm it restarts.

    >>> state, level = update(SkillDetector(base=0.2), [(0.9, 0.0), (0.9, 0.0)])
    >>> state.n, level > 1
    (2, True)
    """
    scale = max(state.base, 1.0 - state.base) ** 2
    bets = [share / scale for share in _BETS]
    m, alarmed, highest = list(state.m), 0, state.level
    for p, y in rows:
        d = float((p - y) ** 2 - (state.base - y) ** 2)
        m = [(x + 1.0) * (1.0 + bet * d) for x, bet in zip(m, bets, strict=True)]
        level = sum(m) / len(m)
        highest = max(highest, level)
        if level >= state.c:
            alarmed += 1
            m = [0.0] * len(m)
    return replace(state, m=tuple(m), n=state.n + len(rows), alarms=state.alarms + alarmed), highest
