"""Evaluation: equal to scikit-learn and to the library's own bootstrap, paired, and complete without raw rows."""

import json

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as sk

from fairway.stats import losses
from fairway.stats.intervals import bootstrap_interval, paired_bootstrap
from fairway.training import curves
from fairway.training.evaluate import BASE_RATE, CHAMPION, base_rate, evaluate, row_losses


def binary(n: int = 900, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.3).astype(np.int64)
    shared = rng.normal(size=n)
    first = 1 / (1 + np.exp(-(2.0 * (y - 0.5) + shared - 0.5)))
    second = 1 / (1 + np.exp(-(1.4 * (y - 0.5) + shared + 0.4 * rng.normal(size=n) - 0.5)))
    return y, first, second


def test_binary_metrics_equal_scikit_learn() -> None:
    y, p, other = binary()
    found = evaluate("binary", y, p, classes=("no", "yes"), rivals={"other": other}).metrics
    said = p >= 0.5
    wanted = {
        "auc": sk.roc_auc_score(y, p), "accuracy": sk.accuracy_score(y, said), "brier": sk.brier_score_loss(y, p),
        "log_loss": sk.log_loss(y, p), "precision": sk.precision_score(y, said), "recall": sk.recall_score(y, said),
        "f1": sk.f1_score(y, said),
    }  # fmt: skip
    for name, value in wanted.items():
        estimate = found[name]
        assert estimate.value == pytest.approx(value, abs=1e-12), name
        assert estimate.low is not None and estimate.high is not None
        assert estimate.low < value < estimate.high, name


def test_the_bootstrap_is_the_librarys_own_on_the_same_draws() -> None:
    y, p, other = binary(400)
    found = evaluate("binary", y, p, classes=("no", "yes"), rivals={"other": other}, seed=5)
    value, low, high = bootstrap_interval(losses.brier, y, p, seed=5)
    mine = found.metrics["brier"]
    assert (mine.value, mine.low, mine.high) == pytest.approx((value, low, high), abs=1e-12)
    gap = paired_bootstrap(losses.brier, y, p, other, seed=5)
    difference = found.comparisons["other"].differences["brier"]
    assert (difference.value, difference.low, difference.high) == pytest.approx(gap, abs=1e-12)
    grouped = evaluate("binary", y, p, classes=("no", "yes"), groups=np.arange(400) // 4, seed=5).metrics["log_loss"]
    wanted = bootstrap_interval(losses.log_loss, y, p, groups=np.arange(400) // 4, seed=5)
    assert (grouped.value, grouped.low, grouped.high) == pytest.approx(wanted, abs=1e-12)


def test_large_samples_take_the_normal_interval_which_agrees() -> None:
    y, p, other = binary(5_001)
    found = evaluate("binary", y, p, rivals={"other": other})
    value, low, high = bootstrap_interval(losses.brier, y, p)
    mine = found.metrics["brier"]
    assert mine.low is not None and mine.high is not None
    assert mine.value == pytest.approx(value) and abs(mine.low - low) < 3e-4 and abs(mine.high - high) < 3e-4


def test_regression_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    y = rng.normal(1e6, 10, 500)
    p = y + rng.normal(0, 4, 500)
    found = evaluate("regression", y, p, rivals={BASE_RATE: base_rate("regression", y, k=0, n=500)})
    assert found.metrics["mae"].value == pytest.approx(sk.mean_absolute_error(y, p))
    assert found.metrics["rmse"].value == pytest.approx(sk.root_mean_squared_error(y, p))
    assert found.metrics["r2"].value == pytest.approx(sk.r2_score(y, p), abs=1e-9)
    assert found.comparisons[BASE_RATE].shown == "better"
    assert found.residuals is not None and found.residuals["quantiles"][10][1] == pytest.approx(np.median(y - p))


def test_multiclass_metrics_equal_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    y = rng.integers(0, 3, 600)
    p = rng.dirichlet([1, 1, 1], 600) + 0.4 * np.eye(3)[y]
    p /= p.sum(axis=1, keepdims=True)
    found = evaluate("multiclass", y, p, classes=("a", "b", "c"))
    assert found.metrics["balanced_accuracy"].value == pytest.approx(sk.balanced_accuracy_score(y, p.argmax(axis=1)))
    assert found.metrics["log_loss"].value == pytest.approx(sk.log_loss(y, p))
    assert found.confusion == sk.confusion_matrix(y, p.argmax(axis=1)).tolist()
    assert found.class_rows == tuple(np.bincount(y).tolist())


def test_champion_is_compared_only_on_rows_new_to_both() -> None:
    y, p, other = binary()
    new = np.arange(len(y)) >= 500
    found = evaluate("binary", y, p, rivals={"simple": other}, champion=other, champion_rows=new)
    against, whole = found.comparisons[CHAMPION], found.comparisons["simple"]
    assert (against.n, whole.n) == (400, 900)
    alone = evaluate("binary", y[new], p[new], rivals={"simple": other[new]}).comparisons["simple"]
    assert against.z == alone.z and against.differences["auc"] == alone.differences["auc"]
    none = evaluate("binary", y, p, champion=other, champion_rows=np.zeros(900, dtype=bool))
    assert CHAMPION not in none.comparisons


def test_paired_z_has_the_sign_of_better_and_zero_for_the_same() -> None:
    y, p, other = binary()
    assert evaluate("binary", y, p, champion=other).comparisons[CHAMPION].z > 2
    assert evaluate("binary", y, other, champion=p).comparisons[CHAMPION].z < -2
    same = evaluate("binary", y, p, champion=p).comparisons[CHAMPION]
    assert same.z == 0.0 and same.shown == "neither" and same.flips is not None and same.flips["differ"] == 0


def test_slices_are_worst_first_and_small_ones_are_listed() -> None:
    y, p, _ = binary(1200)
    part = pl.Series("kind", ["bad"] * 300 + ["good"] * 800 + ["rare"] * 100, dtype=pl.Enum(["bad", "good", "rare"]))
    worse = np.where(np.arange(1200) < 300, 1 - p, p)
    found = evaluate("binary", y, worse, champion=p, slices=pl.DataFrame([part]))
    assert found.slices[0]["name"] == 'kind = "bad"' and found.slices[0]["against"]["flagged"]
    assert [s["name"] for s in found.untested] == ['kind = "rare"'] and found.untested[0]["n"] == 100
    assert found.sliced_against == CHAMPION


def test_everything_is_json_and_small() -> None:
    y, p, other = binary(3000)
    text = json.dumps(
        evaluate("binary", y, p, classes=("no", "yes"), rivals={"a": other}, champion=other).as_dict(), allow_nan=False
    )
    assert len(text) < 60_000


def test_curves_keep_their_ends_and_stay_short() -> None:
    y, p, _ = binary(5000)
    points = curves.roc(y, p)
    assert points[0] == [0.0, 0.0] and points[-1] == [1.0, 1.0] and len(points) <= 200
    area = np.trapezoid([b for _, b in points], [a for a, _ in points])
    assert area == pytest.approx(sk.roc_auc_score(y, p), abs=2e-3)
    assert curves.roc(np.ones(5, dtype=np.int64), p[:5]) == []
    table = curves.calibration(y, p)
    assert sum(r["n"] for r in table) == 5000 and curves.calibration_error(table) < 0.2


def test_one_class_or_a_constant_is_said_not_raised() -> None:
    ones = evaluate("binary", np.ones(60, dtype=np.int64), np.full(60, 0.7))
    assert ones.metrics["auc"].value is None and "negative" in str(ones.metrics["auc"].why)
    y, _, _ = binary()
    constant = evaluate("binary", y, np.full(len(y), 0.3)).metrics["auc"]
    assert (constant.value, constant.low) == (0.5, None)


@pytest.mark.parametrize(
    ("outputs", "what"),
    [([0.5, np.nan], "row 1"), ([0.5], "shape"), ([0.5, 1.5], "outside 0..1"), ([[0.5, 0.5]] * 2, "shape")],
)
def test_bad_outputs_are_refused_with_the_place(outputs: list[object], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        evaluate("binary", [0, 1], np.array(outputs, dtype=float))


def test_base_rate_knows_only_the_training_labels() -> None:
    assert base_rate("binary", [0, 0, 1, 1], k=2, n=2).tolist() == [0.5, 0.5]
    assert base_rate("multiclass", [0, 1, 1, 1], k=3, n=1).tolist() == [[0.25, 0.75, 0.0]]
    with pytest.raises(ValueError, match="unknown loss"):
        row_losses("hinge", "binary", [0], [0.5])
