"""Per-row losses against a second implementation."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, mean_absolute_error
from sklearn.metrics import log_loss as sk_log_loss

from fairway.stats.losses import absolute_error, brier, log_loss, multiclass_brier, zero_one

RNG = np.random.default_rng(0)
Y, P = RNG.integers(0, 2, 200), RNG.random(200)
CODES, PK = RNG.integers(0, 3, 200), RNG.dirichlet([1, 1, 1], 200)


def test_losses_equal_a_second_implementation():
    assert brier(Y, P).mean() == pytest.approx(brier_score_loss(Y, P))
    assert log_loss(Y, P).mean() == pytest.approx(sk_log_loss(Y, P))
    assert log_loss(CODES, PK).mean() == pytest.approx(sk_log_loss(CODES, PK))
    assert multiclass_brier(CODES, PK).mean() == pytest.approx(((PK - np.eye(3)[CODES]) ** 2).sum(axis=1).mean())
    assert absolute_error(Y, P).mean() == pytest.approx(mean_absolute_error(Y, P))
    assert zero_one(Y, P > 0.5).mean() == pytest.approx(((P > 0.5) != Y).mean())


def test_two_classes_cost_twice():
    assert multiclass_brier(Y, np.column_stack([1 - P, P])) == pytest.approx(2 * brier(Y, P))


def test_a_certain_wrong_answer_is_finite():
    assert log_loss([1], [0.0])[0] == pytest.approx(34.54, abs=0.01)


@pytest.mark.parametrize(
    "call",
    [
        lambda: brier([1], [1.1]),
        lambda: brier([1], [np.nan]),
        lambda: brier([1, 0], [0.5]),
        lambda: multiclass_brier([3], [[0.5, 0.5]]),
        lambda: multiclass_brier([0.5], [[0.5, 0.5]]),
        lambda: multiclass_brier([0], [0.5]),
        lambda: absolute_error([1, 2], [1]),
    ],
)
def test_losses_refuse(call):
    with pytest.raises(ValueError):
        call()
