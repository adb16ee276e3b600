"""Intervals: DeLong by hand, Wilson, the bootstrap against theory, and its speed."""

import json
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from fairway.stats.intervals import auc, auc_interval, bootstrap_interval, delong, paired_bootstrap, wilson
from fairway.stats.losses import absolute_error, brier

Y = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
S1 = [0.9, 0.8, 0.4, 0.6, 0.5, 0.3, 0.2, 0.6, 0.1, 0.35]
S2 = [0.7, 0.9, 0.5, 0.3, 0.4, 0.2, 0.6, 0.1, 0.3, 0.25]


def test_delong_known_answers():
    found = delong(Y, S1, S2)
    assert found.aucs == pytest.approx((0.8958333333, 0.8541666667), abs=1e-9)
    assert found.variances == pytest.approx((0.0108217593, 0.0163773148), abs=1e-9)
    assert found.covariance == pytest.approx(0.0015046296, abs=1e-9)
    assert found.z == pytest.approx(0.2678998599, abs=1e-9)
    assert found.p == pytest.approx(0.7887764016, abs=1e-9)
    assert json.loads(json.dumps(found.as_dict()))["z"] == found.z


def test_delong_of_one_score_and_of_equal_scores():
    one = delong(Y, S1)
    assert one.z is None and one.variances == pytest.approx((0.0108217593,), abs=1e-9)
    same = delong(Y, S1, S1)
    assert (same.z, same.p) == pytest.approx((0.0, 1.0))
    area, low, high = auc_interval(Y, S1)
    assert low < area < high <= 1.0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40))
def test_auc_equals_a_second_implementation(rows):
    y, s = [int(a) for a, _ in rows], [b for _, b in rows]
    if len(set(y)) < 2:
        with pytest.raises(ValueError, match="both classes"):
            auc(y, s)
    else:
        assert auc(y, s) == pytest.approx(roc_auc_score(y, s), abs=1e-12)


@pytest.mark.parametrize(("y", "s"), [([0, 1], [0.1]), ([0, 2], [0.1, 0.2]), ([0, 1], [0.1, np.nan])])
def test_auc_refuses(y, s):
    with pytest.raises(ValueError):
        auc(y, s)


def test_wilson():
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)  # textbook example
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0 and wilson(5, 5)[1] == 1.0
    for bad in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError):
            wilson(*bad)


def test_bootstrap_of_a_mean_has_the_width_of_theory():
    rng = np.random.default_rng(0)
    y, one, two = rng.normal(size=2000), rng.normal(size=2000), rng.normal(size=2000)
    diff, low, high = paired_bootstrap(absolute_error, y, one, two)
    d = np.abs(one - y) - np.abs(two - y)
    assert diff == pytest.approx(d.mean(), abs=1e-12)
    assert high - low == pytest.approx(2 * 1.96 * d.std() / np.sqrt(2000), rel=0.08)
    scalar = paired_bootstrap(lambda y, p: float(np.abs(p - y).mean()), y, one, two, draws=500)
    assert scalar[0] == pytest.approx(diff, abs=1e-12)
    assert scalar[2] - scalar[1] == pytest.approx(high - low, rel=0.15)


def test_losses_with_few_values_take_the_counting_path():
    y = np.tile([0, 1], 500)
    p = np.where(np.arange(1000) % 10 == 0, 1 - y, y)
    value, low, high = bootstrap_interval(lambda y, p: y != p, y, p)
    assert value == pytest.approx(0.1)
    assert (low, high) == pytest.approx(wilson(100, 1000), abs=0.004)


def test_groups_widen_the_interval():
    rng = np.random.default_rng(0)
    days = np.repeat(np.arange(40), 50)
    p = rng.normal(size=40)[days]
    y = np.zeros(2000)
    rows = bootstrap_interval(absolute_error, y, p)
    grouped = bootstrap_interval(absolute_error, y, p, groups=days)
    scalar = bootstrap_interval(lambda y, p: np.abs(p).mean(), y, p, groups=days, draws=500)
    assert grouped[2] - grouped[1] > 4 * (rows[2] - rows[1])
    assert scalar[2] - scalar[1] == pytest.approx(grouped[2] - grouped[1], rel=0.15)


def test_same_seed_same_interval():
    rng = np.random.default_rng(3)
    y, p, q = rng.normal(size=(3, 300))
    assert paired_bootstrap(absolute_error, y, p, q) == paired_bootstrap(absolute_error, y, p, q)
    assert paired_bootstrap(absolute_error, y, p, q) != paired_bootstrap(absolute_error, y, p, q, seed=1)


def test_undefined_metric_and_unequal_rows_are_refused():
    with pytest.raises(ValueError, match="undefined"):
        bootstrap_interval(lambda y, p: float("nan"), [1, 2], [1, 2], draws=10)
    for rows in (([], [], []), ([1], [1, 2], [1])):
        with pytest.raises(ValueError):
            paired_bootstrap(absolute_error, *rows)
    with pytest.raises(ValueError):
        bootstrap_interval(absolute_error, [1, 2], [1, 2], groups=[1])


def test_large_samples_are_quick():
    rng = np.random.default_rng(0)
    y, p, q = rng.integers(0, 2, 100_000), rng.random(100_000), rng.random(100_000)
    start = time.process_time()
    paired_bootstrap(brier, y, p, q)
    assert time.process_time() - start < 10  # about 2 s; loose for a busy machine
