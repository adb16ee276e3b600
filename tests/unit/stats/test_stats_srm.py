"""Sample ratio mismatch: known answers and sums over epochs."""

import math

import pytest

from fairway.stats.srm import srm_log_e, srm_log_e_over_epochs

CASES = [
    ((5100, 4900), (0.5, 0.5), -0.3295119),
    ((1200, 8800), (0.1, 0.9), 18.4321468),
    ((3400, 3300, 3300), (1 / 3, 1 / 3, 1 / 3), -3.6346954),
]


@pytest.mark.parametrize(("counts", "shares", "log_e"), CASES)
def test_srm_known_answers(counts, shares, log_e):
    assert srm_log_e(counts, shares) == pytest.approx(log_e, abs=1e-6)


def test_epochs_add_up():
    total = srm_log_e_over_epochs((c, s) for c, s, _ in CASES)
    assert total == pytest.approx(sum(x for _, _, x in CASES), abs=1e-6)


def test_arm_without_share():
    assert srm_log_e((50, 50, 0), (0.5, 0.5, 0.0)) == pytest.approx(srm_log_e((50, 50), (0.5, 0.5)))
    assert srm_log_e((50, 50, 1), (0.5, 0.5, 0.0)) == math.inf


@pytest.mark.parametrize(
    ("counts", "shares"), [((1,), (0.5, 0.5)), ((-1, 2), (0.5, 0.5)), ((1, 1), (0.5, 0.6)), ((1, 1), (math.nan, 1))]
)
def test_srm_refuses(counts, shares):
    with pytest.raises(ValueError):
        srm_log_e(counts, shares)
