"""Sequential rate test: known answers and a false-alarm count."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.stats.rates import RateStratum, rate_log_e, ratio_confidence_sequence

ONE = [RateStratum(12, 40, 0.1)]


@pytest.mark.parametrize(
    ("strata", "r0", "log_e"),
    [
        (ONE, 1.0, 2.8338937128500254),
        ([RateStratum(3, 40, 0.1), RateStratum(9, 35, 0.2)], 1.0, -1.9844193580285878),
        ([RateStratum(30, 30, 0.5)], 1.0, -1.8561666421632323),
        ([RateStratum(0, 20, 0.1)], 1.0, -1.7207106513400123),
        (ONE, 1.1, 2.20397313534284),
    ],
)
def test_rate_log_e_known_answers(strata, r0, log_e):
    assert rate_log_e(strata, r0=r0) == pytest.approx(log_e, abs=1e-9)


@pytest.mark.parametrize(
    ("strata", "low", "high"),
    [
        (ONE, 0.8863645, 6.8459487),
        ([RateStratum(30, 30, 0.5)], 0.4425176, 2.2597974),
        ([RateStratum(60, 400, 0.1), RateStratum(90, 350, 0.2)], 0.8311072, 1.5494518),
    ],
)
def test_ratio_confidence_sequence_known_answers(strata, low, high):
    assert ratio_confidence_sequence(strata) == pytest.approx((low, high), abs=1e-6)


def test_confidence_sequence_may_stay_open():
    assert ratio_confidence_sequence([]) == (0.0, math.inf)
    assert ratio_confidence_sequence([RateStratum(0, 200, 0.5)])[0] == 0.0
    assert ratio_confidence_sequence([RateStratum(5000, 1, 0.5)]) == (16.0, math.inf)
    assert ratio_confidence_sequence([RateStratum(1, 5000, 0.5)]) == (0.0, 1 / 16)


counts = st.integers(0, 300)


@given(counts, counts, st.floats(0.01, 0.99))
def test_directions_mirror(n1, n0, share):
    other = rate_log_e([RateStratum(n0, n1, 1 - share)], direction="less")
    assert rate_log_e([RateStratum(n1, n0, share)]) == pytest.approx(other, abs=1e-8)


@given(counts, counts, counts, counts, st.floats(0.01, 0.99))
def test_strata_with_one_share_add_up(a, b, c, d, share):
    split = rate_log_e([RateStratum(a, b, share), RateStratum(c, d, share), RateStratum(0, 3, 0.0)])
    assert split == pytest.approx(rate_log_e([RateStratum(a + c, b + d, share)]), abs=1e-8)


def test_false_alarms_over_all_looks_stay_below_alpha():
    rng = np.random.default_rng(0)
    fired = 0
    for _ in range(200):
        n1 = np.cumsum(rng.binomial(4, 0.1, size=100))
        looks = (rate_log_e([RateStratum(int(k), 4 * (i + 1) - int(k), 0.1)]) for i, k in enumerate(n1))
        fired += any(log_e >= math.log(20) for log_e in looks)
    assert fired <= 16  # alpha 5 % of 200 is 10


@pytest.mark.parametrize("bad", [(-1, 0, 0.5), (1, 0, 0.0), (0, 1, 1.0), (0, 0, 1.5), (0, 0, math.nan)])
def test_stratum_refuses(bad):
    with pytest.raises(ValueError):
        RateStratum(*bad)


def test_options_are_checked_and_state_round_trips():
    for call in (
        lambda: rate_log_e(ONE, r0=0.0),
        lambda: rate_log_e(ONE, direction="up"),
        lambda: ratio_confidence_sequence(ONE, alpha=0.0),
    ):
        with pytest.raises(ValueError):
            call()
    assert RateStratum.from_dict(ONE[0].as_dict()) == ONE[0]
    assert rate_log_e([]) == pytest.approx(0.0, abs=1e-12)
