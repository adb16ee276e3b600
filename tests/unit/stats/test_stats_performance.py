"""Loss detectors: the known stream, planted rises and false alarms."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from fairway.stats.performance import EDetector, judge_loss_window, reference_rate, update

STREAM = [0, 1, 0, 0, 1, 1, 1, 0, 1, 1]
TRACE = [0.884375, 2.726719, 3.253033, 3.752765, 6.856155, 11.881722, 20.400779, 17.895920, 30.413866, 52.825483]


def test_known_stream():
    start = EDetector.start(0.2)
    assert start.qs == pytest.approx((0.22, 0.25, 0.3, 0.4))
    found = update(start, STREAM)
    assert found.trace == pytest.approx(TRACE, abs=1e-6)
    assert found.state.level == pytest.approx(TRACE[-1], abs=1e-6)
    assert (found.state.n, found.alarms) == (10, ())


@given(st.lists(st.integers(0, 1), max_size=60), st.integers(0, 60))
def test_batches_equal_one_batch(stream, cut):
    start = EDetector.start(0.2, c=20.0)
    first = update(start, stream[:cut])
    second = update(EDetector.from_dict(json.loads(json.dumps(first.state.as_dict()))), stream[cut:])
    whole = update(start, stream)
    assert second.state == whole.state
    assert [*first.trace, *second.trace] == whole.trace.tolist()
    assert [*first.alarms, *(i + len(stream[:cut]) for i in second.alarms)] == list(whole.alarms)


def test_planted_rise_is_found_and_quiet_stream_is_not():
    rng = np.random.default_rng(0)
    quiet = update(EDetector.start(0.2, c=10_000), (rng.random(50_000) < 0.19).astype(int))
    assert quiet.alarms == ()
    risen = update(quiet.state, rng.random(3000) < 0.3)
    assert risen.alarms and risen.alarms[0] < 500
    assert risen.state.alarms == len(risen.alarms)


def test_restart_after_alarm():
    found = update(EDetector.start(0.2, c=3.0), STREAM[:4])
    assert found.alarms == (2,) and found.trace[3] == pytest.approx(TRACE[0], abs=1e-6)


def test_detector_refuses():
    assert len(EDetector.start(0.95).qs) == 1
    for p0 in (0.0, 0.99, math.nan):
        with pytest.raises(ValueError):
            EDetector.start(p0)
    with pytest.raises(ValueError):
        update(EDetector.start(0.2), [0.5])


def test_reference_rate_is_the_exact_bound():
    exact = binomtest(200, 1000, alternative="less").proportion_ci(0.95).high
    assert reference_rate(200, 1000) == pytest.approx(exact + 0.01, abs=1e-9)
    assert reference_rate(200, 1000, tolerance=0.0) == pytest.approx(exact, abs=1e-9)
    for bad in ((10, 999), (1001, 1000)):
        with pytest.raises(ValueError):
            reference_rate(*bad)


def test_loss_windows():
    means = np.random.default_rng(0).normal(1.0, 0.05, 28)
    assert judge_loss_window(1.02, means).state == "ok"
    found = judge_loss_window(1.5, means)
    assert found.state == "alarm" and found.now
    json.dumps(found.as_dict(), allow_nan=False)
    assert judge_loss_window(0.5, means).state == "ok"
    assert judge_loss_window(1.5, means[:13]).state == "refused"
    mild = judge_loss_window(1.10, means)
    assert mild.state == "ok" and judge_loss_window(1.10, means, history=[mild.p]).state == "alarm"
    assert judge_loss_window(1.10, means, 2.0, history=[mild.p]).state == "ok"
    with pytest.raises(ValueError):
        judge_loss_window(math.nan, means)
