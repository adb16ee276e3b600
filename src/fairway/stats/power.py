"""How long until a rollout can decide? Forecasts made before it starts.

Plans, not guarantees: they assume independent rows and the guessed spread. The decision itself
is made by `means` and `rates`, which stay valid when the guess was wrong.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.special import ndtri

from fairway.stats.means import mixture_rho, one_sided_log_e, planned_v
from fairway.stats.rates import Direction, RateStratum, rate_log_e

_MOST = 10**12


def _smallest(decides: Callable[[int], bool]) -> int:
    """Smallest n for which `decides` holds; it must stay true once it is."""
    high = 2
    while not decides(high):
        high *= 2
        if high > _MOST:
            raise ValueError(f"undecided after {_MOST} rows: the effect is too small for this plan")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        if decides(middle):
            high = middle
        else:
            low = middle
    return high


def _check_power(alpha: float, power: float) -> None:
    if not 0.0 < alpha < 0.5 or not 0.5 <= power < 1.0:
        raise ValueError(f"alpha={alpha!r} must be in 0..0.5 and power={power!r} in 0.5..1")


def rows_to_decide_paired(
    *,
    sd_diff: float,
    margin: float,
    effect: float = 0.0,
    alpha: float = 0.05,
    power: float = 0.8,
    n_max: int | None = None,
) -> int:
    """Paired predictions until the one-sided non-inferiority test is expected to pass.

    sd_diff: standard deviation of challenger minus champion on one row. margin: tolerated
    harm, > 0. effect: true mean difference, higher is better; 0 = equally good.
    n_max: planned maximum for tuning rho; None takes the returned number itself as the plan.
    Returns: n by which the test has passed with about this power (a few points more, because
    it may pass earlier). Multiply by label delay and traffic yourself.
    Raises: ValueError if effect + margin is not positive, or sd_diff is not.
    Known weakness: rows of one entity count as independent; with few entities it takes longer.

    >>> rows_to_decide_paired(sd_diff=0.1, margin=0.01)
    1372
    """
    _check_power(alpha, power)
    drift = effect + margin
    if not sd_diff > 0.0 or not drift > 0.0:
        raise ValueError(f"sd_diff={sd_diff!r} and effect + margin={drift!r} must be positive")
    bar, z = -math.log(alpha), float(ndtri(power))

    def decides(n: int) -> bool:
        v = n * sd_diff * sd_diff
        rho = mixture_rho(planned_v(n if n_max is None else n_max, sd_diff * sd_diff), alpha, sided="one")
        unlucky = n * drift - z * math.sqrt(v)
        return one_sided_log_e(unlucky, v, rho) >= bar

    return _smallest(decides)


@dataclass(frozen=True)
class EventPlan:
    """Events in both arms together, and the units of traffic in which they are expected."""

    events: int
    units: int


def events_to_decide(
    rate0: float, ratio: float, share: float, alpha: float = 0.05, *, r0: float = 1.0, power: float = 0.8
) -> EventPlan:
    """Events until the rate test notices a challenger with this true rate ratio.

    rate0: the champion's events per unit, 0..1. ratio: true challenger / champion rate.
    share: the challenger's share, inside 0..1. r0: tolerated ratio; a ratio below it tests the
    other direction. Raises: ValueError if ratio equals r0 or an argument is out of range.

    >>> events_to_decide(0.01, 2.0, 0.5).events
    126
    """
    from scipy.stats import binom  # takes a second to import, and only a plan needs it

    _check_power(alpha, power)
    if not 0.0 < rate0 <= 1.0 or not 0.0 < share < 1.0 or not ratio > 0.0 or not r0 > 0.0 or ratio == r0:
        raise ValueError(f"no plan for rate0={rate0}, ratio={ratio}, share={share}, r0={r0}")
    weight = share * ratio + 1.0 - share
    direction: Direction = "greater" if ratio > r0 else "less"
    unlucky = 1.0 - power if ratio > r0 else power
    bar = -math.log(alpha)

    def decides(events: int) -> bool:
        n1 = int(binom.ppf(unlucky, events, share * ratio / weight))
        return rate_log_e([RateStratum(n1, events - n1, share)], r0=r0, direction=direction) >= bar

    events = _smallest(decides)
    return EventPlan(events=events, units=math.ceil(events / (rate0 * weight)))
