"""Sequential mean test: known answers, strata, pairs, false alarms."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.stats.means import (
    MeanScore,
    MeanStratum,
    confidence_sequence,
    mixture_rho,
    noninferiority_log_e,
    one_sided_log_e,
    paired_score,
    planned_v,
    radius,
    score,
)

TWO, ONE = mixture_rho(100, 0.05, sided="two"), mixture_rho(100, 0.05, sided="one")
STRATA = [MeanStratum(1000, 120, 140, 9000, 1000, 1180), MeanStratum(3000, 390, 470, 7000, 800, 960)]


def test_rho_known_answers():
    assert pytest.approx(12.60056097925634, abs=1e-9) == TWO
    assert pytest.approx(15.80063490685053, abs=1e-9) == ONE


@pytest.mark.parametrize(("v", "u"), [(10, 12.1907531463415), (100, 30.35208990376253), (1000, 102.51228683166386)])
def test_radius_known_answers(v, u):
    assert radius(v, TWO, 0.05) == pytest.approx(u, abs=1e-9)


@pytest.mark.parametrize(
    ("s", "v", "log_e"),
    [
        (20, 100, 1.392289800898049),
        (30, 100, 3.580569603558775),
        (-10, 50, -1.4782464883261177),
        (60, 400, 3.385437536306326),
    ],
)
def test_one_sided_known_answers(s, v, log_e):
    assert one_sided_log_e(s, v, ONE) == pytest.approx(log_e, abs=1e-9)


def test_two_strata_known_answers():
    found = score(STRATA)
    assert pytest.approx((41, 3000), abs=1e-9) == (found.S, found.W)
    assert found.v == pytest.approx(396.0533174603175, abs=1e-9)
    assert found.effect == pytest.approx(0.0136666667, abs=1e-9)
    rho = mixture_rho(500, 0.05, sided="one")
    assert one_sided_log_e(found.S, found.v, rho) == pytest.approx(1.534999678801958, abs=1e-9)
    effect, low, high = confidence_sequence(found, mixture_rho(500, 0.05, sided="two"), 0.05)
    assert high - effect == pytest.approx(0.0201717647318235, abs=1e-9)
    assert effect - low == pytest.approx(0.0201717647318235, abs=1e-9)


def test_thin_strata_wait():
    thin = [MeanStratum(1, 1, 1, 500, 100, 100), MeanStratum(500, 9, 9, 0, 0, 0)]
    assert score([*STRATA, *thin]) == score(STRATA)
    assert score(thin) == paired_score(1, 1, 1) == MeanScore(0, 0, 0)
    effect, low, high = confidence_sequence(score(thin), TWO, 0.05)
    assert math.isnan(effect) and (low, high) == (-math.inf, math.inf)


def test_noninferiority_is_the_shifted_score():
    found = score(STRATA)
    expected = one_sided_log_e(41 + 0.01 * 3000, found.v, ONE)
    assert noninferiority_log_e(found, margin=0.01, rho=ONE) == pytest.approx(expected, abs=1e-9)
    with pytest.raises(ValueError):
        noninferiority_log_e(found, margin=-0.01, rho=ONE)


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=60))
def test_paired_score_equals_its_definition(d):
    found = paired_score(len(d), sum(d), sum(x * x for x in d))
    assert len(d) == found.W
    assert found.v == pytest.approx(len(d) * np.var(d), abs=1e-6)
    assert found.effect == pytest.approx(np.mean(d), abs=1e-9)


@given(st.permutations(range(4)))
def test_order_of_strata_does_not_matter(order):
    strata = [*STRATA, MeanStratum(50, 5, 9, 450, 60, 80), MeanStratum(7, 1.5, 2, 3, 0.1, 0.3)]
    assert score([strata[i] for i in order]) == score(strata)


def test_false_promotions_over_all_looks_stay_near_alpha():
    rng = np.random.default_rng(1)
    d = rng.choice([-1.0, 0.0, 1.0], p=[0.06, 0.9, 0.04], size=(400, 3000))  # truth: at -margin
    total, square = np.cumsum(d, axis=1), np.cumsum(d * d, axis=1)
    rho = mixture_rho(planned_v(3000, 0.1), 0.05, sided="one")
    fired = 0
    for i in range(400):
        looks = range(200, 3000, 50)
        scores = (paired_score(n, total[i, n - 1], square[i, n - 1]) for n in looks)
        fired += any(noninferiority_log_e(x, margin=0.02, rho=rho) >= math.log(20) for x in scores)
    assert fired / 400 <= 0.07


def test_options_and_states():
    for call in (
        lambda: mixture_rho(0.0, 0.05, sided="two"),
        lambda: mixture_rho(1.0, 0.5, sided="one"),
        lambda: mixture_rho(1.0, 0.05, sided="both"),
        lambda: radius(-1.0, 1.0, 0.05),
        lambda: one_sided_log_e(0.0, 1.0, 0.0),
        lambda: MeanStratum(-1, 0, 0, 1, 0, 0),
        lambda: paired_score(-1, 0, 0),
    ):
        with pytest.raises(ValueError):
            call()
    for state in (STRATA[0], score(STRATA)):
        assert type(state).from_dict(json.loads(json.dumps(state.as_dict()))) == state
