"""Profiles: bins, merging, JSON states, hostile values."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairway.stats.profiles import (
    CategoricalBins,
    NumericBins,
    NumericProfile,
    bins_from_dict,
    merge,
    profile,
    profile_from_dict,
)

EDGY = st.sampled_from([float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 0.0, -0.0, 5e-324])
numbers = st.lists(st.one_of(st.integers(-100, 100).map(float), EDGY), max_size=50)
words = st.lists(
    st.one_of(st.none(), st.sampled_from("abcdefgh"), st.just(float("nan")), st.integers(0, 3)), max_size=50
)


@given(numbers, numbers, numbers)
def test_merging_equals_profiling_both(reference, a, b):
    bins = NumericBins.from_reference(reference, n_bins=6)
    merged, whole = merge(profile(bins, a), profile(bins, b)), profile(bins, a + b)
    for name in ("counts", "null", "nonfinite", "n", "min", "max"):
        assert getattr(merged, name) == getattr(whole, name)
    size = max(abs(whole.min or 0.0), abs(whole.max or 0.0), 1.0)  # rounding is relative to the largest value
    assert merged.mean / size == pytest.approx(whole.mean / size, abs=1e-12)
    assert merged.m2 == pytest.approx(whole.m2, rel=1e-9, abs=1e-6)
    assert whole.finite + whole.null + whole.nonfinite == whole.n == len(a + b)


@given(words, words, words)
def test_merging_categories_equals_profiling_both(reference, a, b):
    bins = CategoricalBins.from_reference(np.array(reference, dtype=object), top=3)
    both = profile(bins, np.array(a + b, dtype=object))
    assert merge(profile(bins, np.array(a, dtype=object)), profile(bins, np.array(b, dtype=object))) == both
    assert sum(both.counts) + both.null == both.n == len(a + b)


@given(numbers, words)
def test_states_survive_json(values, categories):
    numeric = NumericBins.from_reference(values)
    text = CategoricalBins.from_reference(np.array(categories, dtype=object))
    for bins, data in ((numeric, values), (text, np.array(categories, dtype=object))):
        state = profile(bins, data)
        assert bins_from_dict(json.loads(json.dumps(bins.as_dict(), allow_nan=False))) == bins
        assert profile_from_dict(json.loads(json.dumps(state.as_dict(), allow_nan=False))) == state


def test_quantile_bins_hold_equal_shares():
    values = np.random.default_rng(0).normal(size=20_000)
    bins = NumericBins.from_reference(values)
    assert bins.size == 20 and bins.edges[0] == -np.inf
    counts = np.array(profile(bins, values).counts)
    assert counts.min() > 900 and counts.max() < 1100


def test_a_spike_has_its_own_bin():
    values = np.concatenate([np.zeros(700), np.arange(1, 301)])
    bins = NumericBins.from_reference(values)
    assert 700 in profile(bins, values).counts and bins.size <= 20
    constant = NumericBins.from_reference(np.full(50, 3.0))
    assert profile(constant, [2.0, 3.0, 4.0]).counts == (1, 1, 1)
    assert NumericBins.from_reference([np.nan]).size == 1


def test_moments_and_vector():
    values = np.array([1.0, 2.0, 4.0, np.nan, np.inf])
    state = profile(NumericBins((2.0,)), values)
    assert state.counts == (1, 2) and state.vector().tolist() == [1, 2, 1]
    assert state.sd == pytest.approx(np.std([1, 2, 4], ddof=1)) and state.nonfinite == 1
    assert profile(NumericBins((2.0,)), np.array([None, 1, True], dtype=object)).null == 1
    assert profile(NumericBins(()), []) == NumericProfile(counts=(0,))
    assert NumericProfile(counts=(1,)).sd is None


def test_unseen_is_not_other():
    bins = CategoricalBins.from_reference(np.array(["a"] * 5 + ["b"] * 3 + ["c"], dtype=object), top=2)
    assert (bins.top, bins.rest) == (("a", "b"), ("c",))
    state = profile(bins, np.array(["a", "c", "new", None, np.nan, "b"], dtype=object))
    assert (state.counts, state.unseen, state.null, state.n) == ((1, 1, 2), 1, 2, 6)
    assert profile(bins, np.array(["a", "x"])).counts == (1, 0, 1)
    ids = CategoricalBins.from_reference(np.arange(50).astype(str), keep=20)
    assert not ids.complete and profile(ids, ["new"]).unseen == 0


def test_refusals():
    with pytest.raises(ValueError):
        merge(NumericProfile(counts=(1,)), NumericProfile(counts=(1, 2)))
    with pytest.raises(ValueError):
        NumericBins.from_reference([1.0], n_bins=1)
    with pytest.raises(ValueError):
        profile_from_dict({"kind": "image"})
