"""Distances and the self-calibrated drift rule."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from fairway.stats.drift import (
    Reference,
    expected_null_js,
    js_distance,
    judge_column,
    ks_binned,
    leave_one_out_js,
    limits,
    psi,
    season_ratio,
    tail_ps,
    total_variation,
    tune_f,
    wasserstein_binned,
)

WINDOW, REF = (80, 150, 380, 250, 140), (100, 200, 400, 200, 100)
X_B = (0.02, 0.025, 0.018, 0.03, 0.022, 0.027, 0.019, 0.024, 0.021, 0.026)
DAYS = X_B + X_B


def test_distances_known_answers():
    assert js_distance(WINDOW, REF) == pytest.approx(0.0894250955957247, abs=1e-12)
    assert total_variation(WINDOW, REF) == pytest.approx(0.09, abs=1e-12)
    assert psi(WINDOW, REF) == pytest.approx(0.0444889075671833, abs=1e-12)
    assert ks_binned(WINDOW, REF) == pytest.approx(0.09, abs=1e-12)
    assert wasserstein_binned(WINDOW, REF) == pytest.approx(0.22, abs=1e-12)
    assert wasserstein_binned(WINDOW, REF, positions=[0, 2, 4, 6, 8], scale=4) == pytest.approx(0.11, abs=1e-12)


counts = st.lists(st.integers(0, 100), min_size=4, max_size=4).filter(any)


@given(counts, counts)
def test_js_equals_a_second_implementation(p, q):
    assert js_distance(p, q) == pytest.approx(jensenshannon(p, q, base=2), abs=1e-7)
    assert js_distance(p, q) == js_distance(q, p)
    for distance in (js_distance, total_variation, ks_binned):
        assert 0.0 <= distance(p, q) <= 1.0 + 1e-12
    assert psi(p, q) >= 0.0


@pytest.mark.parametrize("distance", [js_distance, total_variation, psi, ks_binned, wasserstein_binned])
def test_distances_refuse(distance):
    for p, q in (([1, 2], [1]), ([0, 0], [1, 1]), ([-1, 2], [1, 1]), ([np.nan, 1], [1, 1])):
        with pytest.raises(ValueError):
            distance(p, q)


def test_leave_one_out_equals_its_definition():
    windows = np.random.default_rng(0).integers(0, 50, (6, 5)) + 1
    expected = [js_distance(w, windows.sum(axis=0) - w) for w in windows]
    assert leave_one_out_js(windows) == pytest.approx(expected, abs=1e-12)
    for bad in ([[1, 2]], [[0, 0], [1, 1]], [[-1, 2], [1, 1]]):
        with pytest.raises(ValueError):
            leave_one_out_js(bad)


def test_expected_null_js_is_close_to_simulation():
    rng = np.random.default_rng(0)
    q = np.full(20, 0.05)
    found = np.mean([js_distance(rng.multinomial(2000, q), q) for _ in range(200)])
    assert found == pytest.approx(expected_null_js(20, 2000), rel=0.05)
    assert expected_null_js(5, 0) == math.inf and expected_null_js(1, 10) == 0.0


@pytest.mark.parametrize(
    ("x", "p_ln", "p_23"),
    [
        (0.03, 0.0774831341, 0.0677969745),
        (0.05, 0.000748318941, 0.000129534327),
        (0.1, 6.8548675e-06, 8.6832027e-08),
    ],
)
def test_tail_ps_known_answers(x, p_ln, p_23):
    assert tail_ps(x, X_B, 1.0) == pytest.approx((p_ln, p_23), rel=1e-6)


def test_tail_ps_of_zeros_and_constants():
    assert tail_ps(0.0, [0.0] * 14) == (1.0, 1.0)
    assert tail_ps(0.2, [0.0] * 14) == (0.0, 0.0)
    assert tail_ps(0.1, [0.1] * 14) == (1.0, 1.0)
    assert 0.0 < tail_ps(0.02, [0.0] * 13 + [0.05])[0] < 1.0
    assert tail_ps(0.05, X_B, 1.5)[0] > tail_ps(0.05, X_B, 1.0)[0]
    for bad in ((math.nan, X_B, 1.0), (0.1, [0.1], 1.0), (0.1, X_B, 0.9)):
        with pytest.raises(ValueError):
            tail_ps(*bad)


def test_limits_follow_the_budget():
    now, lasting = limits(columns=20, window_days=1.0, budget=0.25)
    assert now == pytest.approx(0.25 / 30 / 40) and lasting == pytest.approx(math.sqrt(0.25 / (4 * 30 * 20)))


def test_judge_now():
    assert judge_column(0.025, [], DAYS, columns=10).state == "ok"
    found = judge_column(0.12, [], DAYS, columns=10)
    assert found.state == "alarm" and found.now and found.g == pytest.approx(math.sqrt(found.p_ln * found.p_23))
    assert judge_column(0.06, [], DAYS, columns=10).state == "notice"
    small = judge_column(0.049, [], DAYS, columns=10)
    assert small.now and small.state == "ok" and "too small" in small.reason
    assert judge_column(0.049, [], DAYS, columns=10, js_notice=0.04, js_alarm=0.045).state == "alarm"
    json.dumps(found.as_dict(), allow_nan=False)


def test_judge_lasting_needs_two_of_three():
    noisy = [x * 3 for x in DAYS]
    _, lasting = limits(columns=10, window_days=1.0, budget=0.25)
    once = judge_column(0.105, [], noisy, columns=10)
    assert once.g <= lasting and not once.now and once.state == "ok"
    twice = judge_column(0.105, [once.g, 0.5], noisy, columns=10)
    assert twice.lasting and twice.state == "alarm"
    assert judge_column(0.105, [once.g, 0.5, None], noisy, columns=10).state == "ok"


def test_judge_refuses_small_windows_and_only_notices_without_reference():
    assert judge_column(0.5, [], DAYS, columns=1, null_js=0.11).state == "refused"
    assert judge_column(0.5, [], DAYS[:13], columns=1).state == "notice"
    assert judge_column(0.15, [], DAYS[:13], columns=1, null_js=0.03).state == "ok"
    assert judge_column(0.16, [], [], columns=1, null_js=0.03).state == "notice"
    for bad in ({"columns": 0}, {"columns": 1, "budget": 0}, {"columns": 1, "f": 0.5}):
        with pytest.raises(ValueError):
            judge_column(0.1, [], DAYS, **bad)
    with pytest.raises(ValueError):
        judge_column(math.nan, [], DAYS, columns=1)


def _daily(rng, days, weekday_effect, n=2000):
    shares = np.full((7, 10), 0.1)
    shares[5:, 0] += weekday_effect
    shares /= shares.sum(axis=1, keepdims=True)
    keys = [d % 7 for d in range(days)]
    return np.array([rng.multinomial(n, shares[k]) for k in keys]), keys


def test_season_is_used_only_if_it_pays():
    rng = np.random.default_rng(0)
    flat, keys = _daily(rng, 56, 0.0)
    weekly, _ = _daily(rng, 56, 0.3)
    assert season_ratio(flat, keys) < 1.05 < 1.5 < season_ratio(weekly, keys)
    assert season_ratio(weekly[:21], keys[:21]) is None
    assert not Reference.from_windows(flat, seasons=keys).seasonal
    reference = Reference.from_windows(weekly, seasons=keys)
    assert reference.seasonal
    saturday, _ = _daily(rng, 6, 0.3)
    assert reference.distance(saturday[5], season=5) < 0.05 < reference.distance(saturday[5], season=1)
    with pytest.raises(ValueError, match="season"):
        reference.distance(saturday[5])
    assert Reference.from_dict(json.loads(json.dumps(reference.as_dict()))) == reference


def test_tune_f():
    rng = np.random.default_rng(0)
    quiet = tune_f(rng.lognormal(-2.0, 0.1, (28, 5)))
    assert (quiet.f, quiet.alarms_per_30_days, quiet.exchangeable) == (1.0, 0.0, True)
    wild = rng.lognormal(-2.5, 0.1, (28, 5))
    wild[10, 2] = 0.2
    tuned = tune_f(wild)
    assert tuned.f > 1.5 and not tuned.exchangeable and tuned.alarms_per_30_days == 0.0
    stuck = tune_f([0.02] * 20 + [0.5])
    assert stuck.f == 10.0 and not stuck.exchangeable
    with pytest.raises(ValueError):
        tune_f([0.1, 0.2])


def test_planted_drift_is_caught_and_quiet_days_are_not():
    rng = np.random.default_rng(5)
    base, moved = np.full(20, 0.05), np.full(20, 0.05)
    moved[0], moved[1:] = 0.15, 0.85 / 19
    reference = Reference.from_windows(rng.multinomial(3000, base, size=28))

    def states(shares, days):
        history, out = [], []
        for _ in range(days):
            x = reference.distance(rng.multinomial(3000, shares))
            verdict = judge_column(x, history, reference.x, columns=20, null_js=expected_null_js(20, 3000))
            history.append(verdict.g)
            out.append(verdict.state)
        return out

    assert "alarm" not in states(base, 300)
    assert states(moved, 5) == ["alarm"] * 5
