"""Flips, multiplicity and slices."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from fairway.stats.compare import benjamini_hochberg, flagged, flips, holm, mcnemar, slice_report, worse_mid_p

P = (0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205)


def test_mcnemar_known_answers():
    assert mcnemar(30, 15) == pytest.approx((0.0356978036, 0.0258960818), abs=1e-9)
    assert mcnemar(0, 0) == (1.0, 1.0)
    assert mcnemar(7, 7) == pytest.approx((1.0, 1.0))
    with pytest.raises(ValueError):
        mcnemar(-1, 2)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_equals_a_second_implementation(b, c):
    exact, mid = mcnemar(b, c)
    assert exact == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1.0)
    assert 0.0 <= mid <= exact <= 1.0
    assert worse_mid_p(b, c) + worse_mid_p(c, b) == pytest.approx(1.0)


def test_flips_count_rows():
    y = np.array(["a"] * 6)
    found = flips(y, ["a", "a", "b", "b", "b", "a"], ["a", "b", "a", "c", "b", "c"])
    assert (found.b, found.c, found.n, found.differ) == (2, 1, 6, 4)
    assert found.as_dict()["flip_rate"] == pytest.approx(4 / 6)
    assert found.negative_flip_rate == pytest.approx(2 / 6)
    assert flips([], [], []).flip_rate == 0.0
    with pytest.raises(ValueError):
        flips([1], [1, 2], [1, 2])


def test_adjustments_known_answers():
    assert holm(P)[:3] == pytest.approx((0.008, 0.056, 0.234), abs=1e-9)
    expected = (0.008, 0.032, 0.0672, 0.0672, 0.0672, 0.08, 0.0845714286, 0.205)
    assert benjamini_hochberg(P) == pytest.approx(expected, abs=1e-9)
    assert holm([]).shape == benjamini_hochberg([]).shape == (0,)
    with pytest.raises(ValueError):
        holm([1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.randoms())
def test_adjusted_p_values_follow_their_order(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    for adjust in (holm, benjamini_hochberg):
        whole = adjust(p)
        assert adjust([p[i] for i in order]).tolist() == [whole[i] for i in order]
        assert (whole >= np.asarray(p) - 1e-15).all() and (whole <= 1).all()
    assert (holm(p) >= benjamini_hochberg(p) - 1e-12).all()


def _planted(n=6000):
    rng = np.random.default_rng(0)
    old = rng.random(n) < 0.8
    new = np.where(rng.random(n) < 0.1, rng.random(n) < 0.8, old)
    bad = np.arange(n) < 500
    new[bad & (rng.random(n) < 0.15)] = False
    slices = {"all": np.ones(n, bool), "bad": bad, "good": ~bad, "tiny": np.arange(n) < 5, "none": np.zeros(n, bool)}
    return old, new, slices


def test_slice_report_finds_the_planted_slice():
    report = slice_report(*_planted())
    assert report[0].name == "bad" and flagged(report) == ["bad"]
    by_name = {r.name: r for r in report}
    assert by_name["bad"].diff > 0.08 and by_name["bad"].testable
    assert by_name["tiny"].p is None and not by_name["tiny"].testable
    assert by_name["none"].diff is None and by_name["none"].n_needed > 30
    assert not by_name["good"].flagged
    json.dumps([r.as_dict() for r in report])


def test_flags_and_losses_agree():
    old, new, slices = _planted()
    assert slice_report(old, new, slices) == slice_report(1.0 - old, 1.0 - new, slices)


def test_slice_report_of_real_losses():
    rng = np.random.default_rng(0)
    old = rng.random(1000)
    part = np.arange(1000) < 300
    new = old + rng.normal(0, 0.05, 1000) + 0.05 * part
    report = slice_report(old, new, {"hit": part, "rest": ~part})
    assert flagged(report) == ["hit"] and report[0].diff == pytest.approx(0.05, abs=0.01)
    same = slice_report(old, old, {"all": np.ones(1000, bool)})[0]
    assert not same.flagged and same.p == 0.5 and same.testable


def test_false_flags_are_rare():
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(100):
        old, new = rng.random((2, 1000)) < 0.8
        group = rng.integers(0, 4, 1000)
        wrong += bool(flagged(slice_report(old, new, {str(g): group == g for g in range(4)})))
    assert wrong <= 11


def test_slice_report_refuses():
    for args in (([1.0], [1.0, 2.0], {}), ([1.0], [np.nan], {}), ([1.0], [2.0], {"a": [1]})):
        with pytest.raises(ValueError):
            slice_report(*args)
