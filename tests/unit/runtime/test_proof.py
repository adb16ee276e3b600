"""treelite answers only where it was shown to equal the Python object."""

import numpy as np
import polars as pl
import pytest
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fairway.errors import ModelCodeError
from fairway.runtime import objects
from fairway.runtime.code import import_code
from fairway.runtime.proof import choose
from fairway.runtime.runtimes import ObjectRuntime, checked

CODE = "def features(data):\n    return data\n\ndef train(X, y, params):\n    return None\n"


def frame(n: int = 1500, *, nulls: bool = True) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    made = pl.DataFrame(
        {
            "a": rng.normal(size=n),
            "b": rng.integers(-3, 40, n),
            "c": pl.Series(rng.choice([0, 2, 5, 30], n), dtype=pl.UInt8),
        }
    )
    some = pl.int_range(0, n) % 9 != 0
    return made.with_columns(pl.when(some).then("a").alias("a"), pl.when(some).then("c").alias("c")) if nulls else made


def labels(X: pl.DataFrame, kind: str) -> np.ndarray:
    rng = np.random.default_rng(2)
    score = X["a"].fill_null(0.2).to_numpy() + (X["c"] == 5).fill_null(False).to_numpy() + rng.normal(size=X.height)
    if kind == "regression":
        return score
    return (score > 0).astype(int) if kind == "binary" else np.digitize(score, [-0.5, 0.5])


def code(tmp_path, text: str = CODE):
    (tmp_path / "model.py").write_text(text)
    return import_code(tmp_path)


def chosen(model, task, X, tmp_path, *, text: str = CODE):
    classes = {"binary": 2, "multiclass": 3, "regression": 0}[task]
    project = code(tmp_path, text)
    outputs = ObjectRuntime(model, project, task=task, classes=classes).predict(X)
    return choose(
        model, project, tmp_path / "made", task=task, classes=classes, train=X, heldout=X, outputs=outputs
    ), outputs


@pytest.mark.parametrize(
    ("model", "task", "nulls"),
    [
        (HistGradientBoostingClassifier(categorical_features=["c"], max_iter=20, random_state=0), "binary", True),
        (HistGradientBoostingClassifier(categorical_features=["c"], max_iter=10, random_state=0), "multiclass", True),
        (HistGradientBoostingRegressor(max_iter=20, random_state=0), "regression", True),
        (RandomForestClassifier(10, random_state=0), "binary", False),
        (RandomForestClassifier(10, random_state=0), "multiclass", True),
        (ExtraTreesRegressor(10, random_state=0), "regression", True),
        (GradientBoostingClassifier(n_estimators=10, random_state=0), "binary", False),
    ],
)
def test_tree_ensembles_of_scikit_learn_are_shown_equal(model, task, nulls, tmp_path):
    X = frame(nulls=nulls)
    choice, outputs = chosen(model.fit(X, labels(X, task)), task, X, tmp_path)
    assert choice.manifest["kind"] == "treelite", choice.manifest
    assert np.abs(choice.runtime.predict(X) - outputs).max() < 1e-9
    assert choice.manifest["candidates"][0]["max_diff"] < 1e-9
    assert set(choice.ms_per_row) == {"python", "treelite"}


def test_a_code_that_was_not_in_training_is_missing_as_it_is_to_scikit_learn(tmp_path):
    X = frame()
    model = HistGradientBoostingClassifier(categorical_features=["c"], max_iter=20, random_state=0)
    model.fit(X, labels(X, "binary"))
    choice, _ = chosen(model, "binary", X, tmp_path)
    odd = X.head(50).with_columns(c=pl.lit(3, dtype=pl.UInt8))
    assert choice.runtime.predict(odd).tolist() == pytest.approx(model.predict_proba(odd)[:, 1].tolist(), abs=1e-12)


def test_what_the_object_refuses_its_trees_refuse(tmp_path):
    X = frame(nulls=False)
    choice, _ = chosen(GradientBoostingClassifier(n_estimators=5).fit(X, labels(X, "binary")), "binary", X, tmp_path)
    with pytest.raises(ModelCodeError, match="feature a is null"):
        choice.runtime.predict(X.head(3).with_columns(a=pl.lit(None, dtype=pl.Float64)))
    with pytest.raises(ModelCodeError, match="beyond the model"):
        choice.runtime.predict(X.head(3).with_columns(a=pl.lit(1e300)))
    with pytest.raises(ModelCodeError, match="beyond the model"):
        choice.runtime.predict(X.head(3).with_columns(a=pl.lit(float("inf"))))


def test_other_models_stay_python_objects_without_pickle(tmp_path):
    X = frame(nulls=False)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X.to_numpy(), labels(X, "binary"))
    text = CODE + "\ndef predict(model, X):\n    return model.predict_proba(X.to_numpy())\n"
    choice, outputs = chosen(model, "binary", X, tmp_path, text=text)
    assert choice.manifest["kind"] == "python"
    assert "predict()" in choice.manifest["reason"]
    assert choice.runtime.predict(X).tolist() == outputs.tolist()


def test_an_object_has_the_same_bytes_each_time_and_foreign_types_are_refused(tmp_path):
    X = frame(nulls=False)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X.to_numpy(), labels(X, "binary"))
    found = []
    for name in ("one.skops", "two.skops"):
        types = objects.dump(model, tmp_path / name)
        found.append((tmp_path / name).read_bytes())
        again = objects.load(tmp_path / name, types)
        assert again.predict_proba(X.to_numpy()).tolist() == model.predict_proba(X.to_numpy()).tolist()
    assert found[0] == found[1]
    with pytest.raises(ModelCodeError, match="needs save"):
        objects.dump(Own(), tmp_path / "three.skops")


class Own:
    def __init__(self) -> None:
        self.a = 1


def test_a_projects_own_save_and_load_are_used(tmp_path):
    text = CODE + (
        "\nimport json\n\ndef predict(model, X):\n    return [model] * X.height\n"
        "\ndef save(model, folder):\n    (folder / 'm.json').write_text(json.dumps(model))\n"
        "\ndef load(folder):\n    return json.loads((folder / 'm.json').read_text())\n"
    )
    choice, _ = chosen(0.25, "binary", frame(), tmp_path, text=text)
    assert choice.manifest["kind"] == "project"
    assert choice.runtime.predict(frame(3)).tolist() == [0.25] * 3


@pytest.mark.parametrize(
    ("raw", "task", "said"),
    [
        ([0.5, float("nan")], "binary", "row 1"),
        ([0.5, 1.5], "binary", "within 0..1"),
        ([0.5], "binary", "shape"),
        (["a", "b"], "regression", "array of numbers"),
        ([[0.5, 0.5]] * 2, "multiclass", "expected"),
    ],
)
def test_outputs_that_break_the_signature_are_refused(raw, task, said):
    with pytest.raises(ModelCodeError, match=said):
        checked(raw, 2, task, 3, "predict()")
