"""`fairway new`: what it writes is whole, says what was decided, and trains as it is."""

import importlib.util
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import treelite
from sklearn.metrics import roc_auc_score

from fairway.contract.request import compile_request
from fairway.data.project import load_project
from fairway.data.snapshot import snapshot
from fairway.errors import DataError, UsageError
from fairway.path.new import NewProject, example_rows, new
from fairway.training.targets import encode

TELCO = Path(__file__).resolve().parents[4] / "shared" / "data" / "telco-churn" / "telco.csv.gz"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
N = 600


def frame(**more: Any) -> pl.DataFrame:
    draw = np.random.default_rng(3)
    x = draw.normal(size=N)
    start = datetime(2020, 1, 1)
    base = {
        "customer id": [f"c-{i}" for i in range(N)],
        "at": [start + timedelta(hours=7 * i) for i in range(N)],
        "x": [None if i % 9 == 0 else float(v) for i, v in enumerate(x)],
        'the "kind"': draw.choice(["a", "b", "c"], N),
        "big": draw.random(N) < 0.5,
        "since": [start.date() - timedelta(days=int(d)) for d in draw.integers(0, 900, N)],
        "code": [f"code {i % 350}" for i in range(N)],
        "note": [f"some words of note number {i}!" for i in range(N)],
        "label": np.where(x + draw.normal(size=N) > 0, "yes", "no"),
    }
    return pl.DataFrame(base | more)


def write(folder: Path, data: pl.DataFrame | None = None) -> Path:
    path = folder / "table.parquet"
    (frame() if data is None else data).write_parquet(path)
    return path


def trained(made: NewProject) -> tuple[Any, pl.DataFrame, pl.Series]:
    """The generated code on a snapshot: the model, features and target of the rows held back."""
    project = made.project
    rows = snapshot(project, now=NOW).frame
    spec = importlib.util.spec_from_file_location("generated", made.root / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    X = module.features(rows.select(c.name for c in project.contract.request_columns))
    y, _ = encode(rows[project.settings.target], project.contract.column(project.settings.target), project.settings)
    test = pl.Series(np.random.default_rng(0).random(len(y)) < 0.2)
    model = module.train(X.filter(~test), y.filter(~test), dict(project.settings.train))
    return model, X.filter(test), y.filter(test)


def test_a_project_appears_whole_and_trains(tmp_path: Path) -> None:
    made = new("late-kind", write(tmp_path), "label", yes=True, folder=tmp_path, owner="ana@example.com")
    root = tmp_path / "late-kind"
    assert made.root == root.resolve() and (root / ".fairway").is_dir()
    assert all((root / name).is_file() for name in made.files)
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".late")]
    project = load_project(root)
    assert project.settings == made.project.settings and project.contract == made.project.contract
    assert project.settings.data.source == "../table.parquet"
    assert (project.settings.entity, project.settings.at, project.settings.positive) == ("customer id", "at", "yes")
    assert not project.contract.reviewed and project.contract.column("x").assumed == ("known",)
    text = (root / "model.py").read_text()
    assert len(text.splitlines()) <= 45  # free text takes a pipeline
    assert "fairway" not in text.replace("fairway.toml", "")
    model, X, y = trained(made)
    assert roc_auc_score(y, model.predict_proba(X)[:, 1]) > 0.65
    assert model[0].transformers_[0][2] == "note"  # its words are learned from
    plain = new("plain", frame().drop("note"), "label", yes=True, folder=tmp_path)
    assert len((plain.root / "model.py").read_text().splitlines()) <= 30
    model, X, y = trained(plain)
    native = treelite.gtil.predict(treelite.sklearn.import_model(model), X.to_numpy().astype(np.float64))
    assert np.abs(native.ravel() - model.predict_proba(X)[:, 1]).max() < 1e-12
    assert roc_auc_score(y, native.ravel()) > 0.65


def test_its_own_tests_pass_and_its_row_is_a_request(tmp_path: Path) -> None:
    made = new("mine", write(tmp_path), "label", yes=True, folder=tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=made.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    body = (made.root / "tests" / "row.json").read_bytes()
    decoded = compile_request(made.project.contract, made.project.settings).decode(body)
    assert decoded.n == 1 and not [flag for flag in decoded.flags[0] if not flag.startswith("null:")]
    assert example_rows(made.root, n=3).height == 3


@pytest.mark.parametrize(
    ("goal", "task"),
    [
        (lambda x: [float(v) for v in x], "regression"),
        (lambda x: ["abc"[int(v * 2.9) % 3] for v in np.abs(x)], "multiclass"),
        (lambda x: [int(v > 0) for v in x], "binary"),
        (lambda x: [None if i % 10 == 0 else bool(v > 0) for i, v in enumerate(x)], "binary"),
    ],
)
def test_every_task_trains(tmp_path: Path, goal: Any, task: str) -> None:
    draw = np.random.default_rng(5).normal(size=N)
    data = (
        frame()
        .drop("label", "note")
        .with_columns(goal=pl.Series(goal(draw)), y=draw + np.random.default_rng(6).normal(size=N))
    )
    made = new("m", data, "goal", yes=True, folder=tmp_path)
    assert made.project.settings.task == task
    model, X, _ = trained(made)
    assert len(model.predict(X)) == X.height
    assert (
        treelite.gtil.predict(treelite.sklearn.import_model(model), X.to_numpy().astype(np.float64)).shape[0]
        == X.height
    )


def test_words_vectors_and_pictures_have_a_baseline(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    spam = draw.random(N) < 0.4
    data = pl.DataFrame(
        {
            "text": [None if i % 40 == 7 else f"{'win cash' if s else 'see you'} {i}" for i, s in enumerate(spam)],
            "place {x}": draw.normal(size=(N, 3)).tolist(),
            "picture": [bytes([i % 256, 1, 2]) for i in range(N)],
            "kind": draw.choice(["a", "b", "c"], N),
            "y": np.where(spam, "yes", "no"),
        }
    )
    made = new("inputs", data, "y", yes=True, folder=tmp_path)
    types = {c.name: c.type for c in made.project.contract.columns}
    assert types == {"text": "text", "place {x}": "vector", "picture": "image", "kind": "category", "y": "category"}
    model, X, y = trained(made)
    assert [name for name in X.columns if name.startswith("place")] == ["place {x}_0", "place {x}_1", "place {x}_2"]
    assert "picture" not in X.columns and roc_auc_score(y, model.predict_proba(X)[:, 1]) > 0.9
    assert "picture: the baseline does without; decode them in features()" in dict(made.decisions)["images"]
    number = data.with_columns(y=draw.normal(size=N) + spam)
    model, X, _ = trained(new("number", number, "y", yes=True, folder=tmp_path))
    assert model.predict(X).std() > 0.2


def test_many_categories_are_named_by_their_suffix(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    long = "a rather long name of a category"
    data = pl.DataFrame(
        {f"{long} {i}": draw.choice(["a", "b"], N) for i in range(60)} | {"y": draw.choice(["u", "v"], N)}
    )
    made = new("wide", data, "y", yes=True, folder=tmp_path)
    text = (made.root / "model.py").read_text()
    assert len(text.splitlines()) <= 30 and "_code" in text
    model, X, _ = trained(made)
    assert X.columns == [f"{long} {i}_code" for i in range(60)] and sum(model.is_categorical_) == 60


def test_a_frame_is_written_into_the_project(tmp_path: Path) -> None:
    project = new("n", frame(), "label", yes=True, folder=tmp_path).project
    assert project.settings.data.source == "data/n.parquet"
    assert pl.read_parquet(project.root / "data" / "n.parquet").equals(frame())


def test_what_no_table_can_tell_is_asked(tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []
    said: list[str] = []

    def ask(question: str, default: str) -> str:
        asked.append((question, default))
        return "at" if question.startswith("Which column") else "30d"

    made = new("a", write(tmp_path), "label", ask=ask, say=said.append, folder=tmp_path)
    assert made.project.settings.label_delay == timedelta(days=30)
    assert asked[1:] == [("How long until the true answer is known, e.g. 6h or 30d?", "unknown")]
    assert said == made.found() and said[0] == "table.parquet   600 rows, 9 columns"
    assert new("b", write(tmp_path), "label", ask=ask, yes=True, folder=tmp_path).project.settings.label_delay is None
    assert 'label_delay = "unknown"' in (tmp_path / "b" / "fairway.toml").read_text()
    told = new("c", write(tmp_path), "label", ask=ask, label_delay="6h", folder=tmp_path)
    assert told.project.settings.label_delay == timedelta(hours=6) and len(asked) == 3


def test_decisions_are_said(tmp_path: Path) -> None:
    made = new("a", write(tmp_path), "label", yes=True, folder=tmp_path)
    topics = dict(made.decisions)
    assert topics["task"].startswith("binary: label is yes in")
    assert "code (350 values)" in topics["strings"]
    assert "note: the baseline is a linear model on its words" in topics["text"]
    assert "does without code" in topics["baseline"]
    assert made.assumed.startswith("Assumed, please look (marked in contract.toml)")
    assert made.written()[-1] == "Next: cd a && fairway train"
    json.dumps(made.as_dict())


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    table = write(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").write_text("")
    for name, target, error in [
        ("Bad Name", "label", UsageError),
        ("there", "label", UsageError),
        ("a", "lable", UsageError),
        ("a", "note", UsageError),
        ("../a", "label", UsageError),
    ]:
        with pytest.raises(error):
            new(name, table, target, yes=True, folder=tmp_path)
    with pytest.raises(UsageError, match="label delay"):
        new("a", table, "label", yes=True, folder=tmp_path, label_delay="soon")
    with pytest.raises(DataError, match="no column is left to learn from: label_copy"):
        new(
            "a", pl.DataFrame({"label_copy": [1, 2] * 50, "label": ["a", "b"] * 50}), "label", yes=True, folder=tmp_path
        )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["table.parquet", "there"]


@pytest.mark.skipif(not TELCO.exists(), reason="the shared data sets are not on this machine")
def test_telco_churn(tmp_path: Path) -> None:
    made = new("churn", TELCO, "Churn", yes=True, folder=tmp_path)
    topics = dict(made.decisions)
    assert topics["entity"] == "customerID: 7,043 different values, none missing"
    assert topics["numbers"] == "TotalCharges was text: 11 blank values become null"
    assert topics["categories"].startswith("15 columns")
    assert topics["leaks"] == "none suspected; the best single column is tenure, AUC 0.74"
    model, X, y = trained(made)
    assert roc_auc_score(y, model.predict_proba(X)[:, 1]) > 0.83


def test_a_table_of_lists_structs_and_nulls_has_a_baseline(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    y = draw.random(N) < 0.4
    place = draw.normal(size=(N, 3)) + y[:, None]
    data = pl.DataFrame(
        {
            "place": pl.Series([None if i % 30 == 7 else row.tolist() for i, row in enumerate(place)]),
            "short": pl.Series(place[:, :2].astype(np.float32).tolist(), dtype=pl.Array(pl.Float32, 2)),
            "whole": draw.integers(0, 5, (N, 3)).tolist(),
            "tags": [["a"] * int(k) for k in draw.integers(0, 4, N)],
            "ragged": [[1.0] * int(k) for k in draw.integers(0, 4, N)],
            "of": [{"x": 1.0}] * N,
            "y": np.where(y, "yes", "no"),
        }
    )
    made = new("lists", write(tmp_path, data), "y", yes=True, folder=tmp_path)
    topics = dict(made.decisions)
    assert topics["vectors"] == "place (3 numbers), short (2 numbers), whole (3 numbers)"
    assert topics["left out"].startswith("tags, ragged: its lists are no vectors")
    assert "of: Struct" in topics["left out"]
    model, X, y_test = trained(made)
    assert X.columns == [f"{name}_{i}" for name, n in (("place", 3), ("short", 2), ("whole", 3)) for i in range(n)]
    assert roc_auc_score(y_test, model.predict_proba(X)[:, 1]) > 0.75
    assert made.project.settings.train["max_leaf_nodes"] == 5  # 600 rows
    with pytest.raises(DataError, match=r"picture: an image, which the baseline can't read\. Add a column"):
        new("p", pl.DataFrame({"picture": [b"1", b"2"] * 50, "y": ["a", "b"] * 50}), "y", yes=True, folder=tmp_path)


@pytest.mark.parametrize("goal", ["y", "price"])
def test_no_number_drives_the_baseline_of_texts_out_of_the_doubles(tmp_path: Path, goal: str) -> None:
    draw = np.random.default_rng(5)
    x = draw.normal(size=N)
    data = pl.DataFrame(
        {
            "text": [f"{'win cash' if v > 0 else 'see you'} {i}" for i, v in enumerate(x)],
            "place": draw.normal(size=(N, 3)).tolist(),
            "size": draw.normal(size=N),
            goal: np.where(x + draw.normal(size=N) > 0, "yes", "no") if goal == "y" else x + draw.normal(size=N),
        }
    )
    model, X, _ = trained(new("m", write(tmp_path, data), goal, yes=True, folder=tmp_path))
    numbers = [name for name in X.columns if name == "size" or name.startswith("place")]
    for signs in ([1, 1, 1, 1], [-1, -1, -1, -1], [1, -1, 1, -1], [-1, 1, 1, -1]):
        ends = zip(numbers, signs, strict=True)
        far = X[:3].with_columns(pl.lit(sign * 1.7976931348623157e308).alias(name) for name, sign in ends)
        with np.errstate(over="ignore", invalid="ignore"):  # scikit-learn's look at the numbers adds them up
            assert np.isfinite(model.predict_proba(far) if goal == "y" else model.predict(far)).all()


def test_words_of_a_single_row_teach_nothing_unless_there_are_no_others(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    x = draw.random(N) < 0.5
    common = pl.DataFrame({"text": [f"{'win cash' if v else 'see you'} now or later {i}" for i, v in enumerate(x)]})
    single = pl.DataFrame({"text": [f"{'win' if v else 'see'}{i} now{i} or{i} later{i}" for i, v in enumerate(x)]})
    for name, texts, told in (("common", common, True), ("single", single, False)):
        data = texts.with_columns(price=2 * x + draw.normal(size=N))
        made = new(name, write(tmp_path, data), "price", yes=True, folder=tmp_path)
        assert ("min_df=2" in (made.root / "model.py").read_text()) is told
        model, X, y = trained(made)
        assert not told or np.corrcoef(model.predict(X), y)[0, 1] > 0.6
