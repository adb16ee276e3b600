"""The target as numbers, and the simple rival against scikit-learn's."""

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from fairway.contract.columns import Column
from fairway.contract.settings import Settings
from fairway.errors import DataError
from fairway.training import simple
from fairway.training.targets import check_classes, encode


def settings(task, positive=None):
    return Settings(name="m", task=task, target="y", positive=positive)


def test_binary_is_one_for_the_positive_class_whatever_the_type():
    column = Column(name="y", type="category", values=("stay", "go"))
    y, classes = encode(pl.Series("y", ["go", "stay"]), column, settings("binary", "go"))
    assert (y.to_list(), y.dtype, classes) == ([1, 0], pl.Int8, ("stay", "go"))
    y, classes = encode(pl.Series("y", ["go", "stay"]), column, settings("binary", "stay"))
    assert (y.to_list(), classes) == ([0, 1], ("go", "stay"))
    y, classes = encode(pl.Series("y", [True, False]), Column(name="y", type="bool"), settings("binary", "true"))
    assert (y.to_list(), classes) == ([1, 0], ("false", "true"))
    y, classes = encode(pl.Series("y", [0, 1]), Column(name="y", type="int"), settings("binary", "0"))
    assert (y.to_list(), classes) == ([1, 0], ("1", "0"))


def test_multiclass_codes_follow_the_classes_and_regression_stays_a_number():
    column = Column(name="y", type="category", values=("a", "b", "c"))
    y, classes = encode(pl.Series("y", ["c", "a"]), column, settings("multiclass"))
    assert (y.to_list(), y.dtype, classes) == ([2, 0], pl.Int32, ("a", "b", "c"))
    y, classes = encode(pl.Series("y", [3, 4]), Column(name="y", type="int"), settings("regression"))
    assert (y.to_list(), y.dtype, classes) == ([3.0, 4.0], pl.Float64, ())


def test_what_can_not_be_a_target_is_said():
    column = Column(name="y", type="category", values=("a", "b"))
    with pytest.raises(DataError, match="1 rows have no value"):
        encode(pl.Series("y", ["a", None]), column, settings("binary", "a"))
    with pytest.raises(DataError, match="'q' is not in contract"):
        encode(pl.Series("y", ["a", "q"]), column, settings("binary", "a"))
    with pytest.raises(DataError, match="infinity"):
        encode(pl.Series("y", [1.0, float("inf")]), Column(name="y", type="float"), settings("regression"))
    y, test = np.array([0, 0, 1]), np.array([False, True, True])
    with pytest.raises(DataError, match="class 'go' has 1 rows, and none to train on"):
        check_classes(y, test, ("stay", "go"), "y")
    with pytest.raises(DataError, match="none among the held-out rows"):
        check_classes(y, ~test[::-1], ("stay", "go"), "y")


def frame(n: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame(
        {
            "a": rng.normal(3, 10, n),
            "b": [None if v > 1.5 else v for v in rng.normal(size=n).tolist()],
            "c": pl.Series(rng.choice(["x", "y", "z"], n), dtype=pl.Enum(["x", "y", "z"])),
            "text": ["free"] * n,
        }
    )


def design(train, test):
    return simple._design(train, test)


def test_the_rival_is_a_logistic_regression_as_scikit_learn_fits_it():
    train, test = frame(800, 0), frame(100, 1)
    score = (train["a"] / 10 + (train["c"] == "x")).to_numpy() + np.random.default_rng(2).normal(size=800)
    y = (score > 0.5).astype(float)
    A, B = design(train, test)
    known = LogisticRegression(C=1.0, max_iter=2000, tol=1e-10).fit(A[:, 1:], y).predict_proba(B[:, 1:])[:, 1]
    assert simple.predict("binary", train, y, test, classes=2) == pytest.approx(known, abs=1e-5)
    value = simple.predict("regression", train, score, test, classes=0)
    assert value == pytest.approx(Ridge(alpha=1.0).fit(A[:, 1:], score).predict(B[:, 1:]), abs=1e-8)
    several = simple.predict("multiclass", train, np.digitize(score, [0, 1]).astype(float), test, classes=3)
    assert several.shape == (100, 3)
    assert several.sum(axis=1) == pytest.approx(np.ones(100))


def test_separable_data_stay_finite():
    train = pl.DataFrame({"a": [0.0] * 50 + [1.0] * 50})
    out = simple.predict("binary", train, np.repeat([0.0, 1.0], 50), train, classes=2)
    assert np.isfinite(out).all()
    assert out[0] < 0.1 < 0.9 < out[-1]


def test_the_rival_sees_how_long_a_text_is():
    draw = np.random.default_rng(0)
    y = (draw.random(400) < 0.5).astype(float)
    texts = pl.DataFrame({"text": [None if i % 50 == 7 else "x" * int(20 + 30 * v) for i, v in enumerate(y)]})
    out = simple.predict("binary", texts[:300], y[:300], texts[300:], classes=2)
    assert np.mean((out > 0.5) == (y[300:] == 1)) > 0.95
