"""Forecasts against simulated rollouts."""

import math

import numpy as np
import pytest

from fairway.stats.means import mixture_rho, noninferiority_log_e, paired_score, planned_v
from fairway.stats.power import events_to_decide, rows_to_decide_paired
from fairway.stats.rates import RateStratum, rate_log_e

BAR = math.log(20)


@pytest.mark.parametrize(("effect", "margin"), [(0.0, 0.02), (0.01, 0.01), (-0.005, 0.02)])
def test_paired_forecast_matches_simulation(effect, margin):
    n = rows_to_decide_paired(sd_diff=0.2, margin=margin, effect=effect)
    rho = mixture_rho(planned_v(n, 0.04), 0.05, sided="one")
    rng = np.random.default_rng(0)
    decided = 0
    for _ in range(300):
        d = rng.normal(effect, 0.2, n)
        total, square = np.cumsum(d), np.cumsum(d * d)
        looks = [*range(100, n, 25), n]
        scores = (paired_score(k, total[k - 1], square[k - 1]) for k in looks)
        decided += any(noninferiority_log_e(x, margin=margin, rho=rho) >= BAR for x in scores)
    assert 0.7 <= decided / 300 <= 0.97


def test_paired_forecast_moves_the_right_way():
    base = rows_to_decide_paired(sd_diff=0.2, margin=0.02)
    assert rows_to_decide_paired(sd_diff=0.4, margin=0.02) == pytest.approx(4 * base, rel=0.01)
    assert rows_to_decide_paired(sd_diff=0.2, margin=0.02, effect=0.01) < base
    assert rows_to_decide_paired(sd_diff=0.2, margin=0.02, alpha=0.01) > base
    assert rows_to_decide_paired(sd_diff=0.2, margin=0.02, power=0.9) > base
    assert rows_to_decide_paired(sd_diff=0.2, margin=0.02, n_max=20 * base) > base
    for bad in ({"effect": -0.02}, {"sd_diff": 0.0}, {"alpha": 0.6}, {"power": 0.3}):
        with pytest.raises(ValueError):
            rows_to_decide_paired(**{"sd_diff": 0.2, "margin": 0.02, **bad})


@pytest.mark.parametrize(("ratio", "share", "direction"), [(2.0, 0.1, "greater"), (0.5, 0.5, "less")])
def test_event_forecast_matches_simulation(ratio, share, direction):
    plan = events_to_decide(0.01, ratio, share)
    weight = share * ratio + 1 - share
    assert plan.units == math.ceil(plan.events / (0.01 * weight))
    rng = np.random.default_rng(0)
    decided = 0
    for _ in range(200):
        n1 = np.cumsum(rng.random(plan.events) < share * ratio / weight)
        looks = [*range(4, plan.events, 5), plan.events]
        decided += any(
            rate_log_e([RateStratum(int(n1[k - 1]), k - int(n1[k - 1]), share)], direction=direction) >= BAR
            for k in looks
        )
    assert 0.7 <= decided / 200 <= 0.97


def test_event_forecast_refuses():
    for args in ((0.0, 2.0, 0.5), (0.1, 1.0, 0.5), (0.1, 2.0, 1.0), (0.1, -1.0, 0.5)):
        with pytest.raises(ValueError):
            events_to_decide(*args)
