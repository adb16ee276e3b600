"""Wrong labels and learning curves, on data where the truth was planted."""

import numpy as np
import pytest

from fairway.stats.curve import fit, forecast
from fairway.stats.noise import confident_learning, residual_outliers


def test_planted_wrong_labels_are_found_and_counted() -> None:
    rng = np.random.default_rng(1)
    n, k = 4000, 3
    true = rng.integers(0, k, n)
    outputs = np.full((n, k), 0.05)
    outputs[np.arange(n), true] = 0.9
    outputs = np.clip(outputs + rng.normal(0, 0.03, (n, k)), 0.001, None)
    outputs /= outputs.sum(axis=1, keepdims=True)
    given, flipped = true.copy(), rng.choice(n, 200, replace=False)
    given[flipped] = (true[flipped] + 1) % k
    found = confident_learning(given, outputs)
    assert set(found.suspects) <= set(flipped)
    assert len(found.suspects) > 0.8 * len(flipped)  # the others miss the threshold that the flips themselves lower
    assert (found.suggested[found.suspects] == true[found.suspects]).all()
    assert found.share == pytest.approx(0.05, abs=0.01)


def test_right_labels_of_an_unsure_model_are_left_alone() -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(0.05, 0.95, 5000)
    y = (rng.uniform(size=5000) < p).astype(int)  # calibrated: the noise is the world's
    found = confident_learning(y, np.column_stack([1 - p, p]))
    most_doubtful = found.score[found.suspects[:50]]
    assert (most_doubtful < -0.6).all()  # what is listed first is what the model is surest of
    assert found.joint.sum() == pytest.approx(5000)


def test_a_class_without_rows_is_never_suggested() -> None:
    found = confident_learning([0, 0, 1, 1], [[0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.1, 0.8, 0.1], [0.2, 0.7, 0.1]])
    assert 2 not in found.suggested[found.suspects]


@pytest.mark.parametrize(("y", "p"), [([0, 1], [[1.0, 0.0]]), ([0, 2], [[1.0, 0.0], [0.5, 0.5]])])
def test_labels_that_do_not_fit_are_refused(y: list[int], p: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="labels"):
        confident_learning(y, p)


def test_residual_outliers_are_robust_to_what_they_look_for() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(0, 1, 1000)
    truth = y.copy()
    y[:30] += 1000  # 3 %: a standard deviation would hide them
    found, _ = residual_outliers(y, truth + rng.normal(0, 0.1, 1000))
    assert sorted(found) == list(range(30))


def test_equal_residuals_leave_nothing_to_look_at() -> None:
    found, scaled = residual_outliers(np.arange(9.0), np.arange(9.0))
    assert not len(found) and (scaled == 0).all()


def test_a_power_law_is_recovered_and_forecast() -> None:
    n = np.array([250, 500, 1000, 2000])
    rng = np.random.default_rng(4)
    losses = (0.12 + 1.5 * n**-0.6)[:, None] + rng.normal(0, 0.0005, (4, 5))
    found = forecast(n, losses, now=2000, then=4000)
    truth = 1.5 * 2000**-0.6 - 1.5 * 4000**-0.6
    assert found.shown
    assert found.low <= truth <= found.high


def test_a_flat_curve_promises_nothing() -> None:
    rng = np.random.default_rng(5)
    found = forecast([100, 200, 400, 800], 0.3 + rng.normal(0, 0.01, (4, 4)), now=800, then=1600)
    assert not found.shown


def test_a_curve_that_rises_has_no_fall() -> None:
    assert fit([10, 20, 40], [0.1, 0.2, 0.3]).fall == 0.0
