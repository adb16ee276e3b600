"""The learning curve: what more rows would bring.

The loss of a model falls with its training rows about as a + b * n^-c (Hestness et al., Deep Learning Scaling is
Predictable, Empirically, arXiv:1712.00409; Viering, Loog, The Shape of Learning Curves: a Review, TPAMI 2023). Known
weakness: some curves are no power law, and no fit sees what lies beyond its largest size; so it forecasts to twice the
rows and no further.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

EXPONENTS = np.linspace(0.05, 2.0, 40)
DRAWS = 500


@dataclass(frozen=True)
class Curve:
    """loss(n) = floor + fall * n ** -exponent; floor >= 0, fall >= 0."""

    floor: float
    fall: float
    exponent: float

    def at(self, rows: float) -> float:
        return float(self.floor + self.fall * rows**-self.exponent)


@dataclass(frozen=True)
class Forecast:
    """gain: how much the loss falls from `now` to `then` rows, with its 95 % interval over the repeats."""

    now: int
    then: int
    loss: float
    gain: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether more rows are shown to help."""
        return self.low > 0


def fit(sizes: ArrayLike, losses: ArrayLike) -> Curve:
    """Least squares over a grid of exponents, floor and fall never below 0.

    sizes: (m,) training rows, m >= 3. losses: (m,) mean loss at each. Raises: ValueError.

    >>> n = np.array([100, 200, 400, 800])
    >>> found = fit(n, 0.1 + 2.0 * n ** -0.5)
    >>> round(found.exponent, 2), round(found.at(1600), 4)
    (0.5, 0.15)
    """
    n, loss = np.asarray(sizes, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if n.ndim != 1 or n.shape != loss.shape or len(n) < 3:
        raise ValueError(f"a curve needs at least 3 sizes with a loss each; got {n.shape} and {loss.shape}")
    if not (np.isfinite(loss).all() and (n > 0).all()):
        raise ValueError("sizes must be above 0 and losses finite")
    best, least = Curve(float(loss.mean()), 0.0, 1.0), float(((loss - loss.mean()) ** 2).sum())
    for c in EXPONENTS:
        x = n**-c
        gap = x - x.mean()
        fall = float((gap * loss).sum() / (gap**2).sum())
        floor = float(loss.mean() - fall * x.mean())
        if floor < 0:
            floor, fall = 0.0, float((x * loss).sum() / (x**2).sum())
        if fall <= 0:
            continue
        error = float(((loss - floor - fall * x) ** 2).sum())
        if error < least:
            best, least = Curve(floor, fall, float(c)), error
    return best


def forecast(sizes: ArrayLike, losses: ArrayLike, *, now: int, then: int, seed: int = 0) -> Forecast:
    """What `then` rows would bring over `now` rows: at most about twice the largest size that was tried.

    losses: (m, r): r >= 2 repeats at each size, each on rows drawn anew. The interval draws repeats; it does not hold
    what other held-out rows would say.
    """
    n, loss = np.asarray(sizes, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if loss.ndim != 2 or loss.shape[0] != len(n) or loss.shape[1] < 2:
        raise ValueError(f"losses must be (sizes, repeats) with 2 repeats or more; got {loss.shape}")
    rng, repeats = np.random.default_rng(seed), loss.shape[1]

    def gain(mean: Floats) -> float:
        curve = fit(n, mean)
        return curve.at(now) - curve.at(then)

    draws = [gain(np.take_along_axis(loss, rng.integers(0, repeats, loss.shape), 1).mean(axis=1)) for _ in range(DRAWS)]
    low, high = np.quantile(draws, [0.025, 0.975])
    mean = loss.mean(axis=1)
    return Forecast(now, then, fit(n, mean).at(then), gain(mean), float(low), float(high))
