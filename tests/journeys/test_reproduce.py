"""A run made again: identical, or exactly what differs; its card; and its frames in a notebook."""

import shutil
from datetime import UTC, datetime

import polars as pl
import pytest
import sqlalchemy as sa
from commands import fairway as run
from train_project import MODEL, SETTINGS, load, table, write_project

import fairway
from fairway.errors import ThingNotFound, UsageError
from fairway.path.reproduce import environment_differences, reproduce
from fairway.path.train import train
from fairway.registry import versions
from fairway.store import schema

ODD = "<b>x</b> | `y` \\\\ *z*"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = write_project(
        tmp_path_factory.mktemp("again") / "churn",
        settings=SETTINGS.replace('entity = "customer"', f'entity = "customer"\npurpose = "{ODD}"'),
    )
    (root / "requirements.lock").write_text("numpy==2\n")
    return root, train(load(root), seed=3)


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "churn")
    return tmp_path / "churn"


def test_the_same_run_is_identical_from_the_store_alone(copy, trained):
    result = trained[1]
    for name in ("data.csv", "requirements.lock"):
        (copy / name).unlink()
    shutil.rmtree(copy / ".fairway" / "cache")
    (copy / "model.py").write_text(MODEL + "\n# another thought\n")
    (copy / "fairway.toml").write_text(SETTINGS.replace("max_iter = 20", "max_iter = 2"))
    workspace = load(copy).workspace
    before = versions.newest(workspace.store, "churn").version
    found = reproduce(workspace, result.run)
    assert found.identical and not found.differences and found.artifact == result.artifact, found
    # The folder it was trained in is still there, and unchanged: that is where the code is compared.
    assert reproduce(workspace, "churn@1").identical
    assert versions.newest(workspace.store, "churn").version == before
    with workspace.store.read() as tx:
        assert tx.scalar(sa.select(sa.func.count()).select_from(schema.run)) == 1


def test_the_command_says_it(copy, trained):
    done = run(copy, "train", "--reproduce", trained[1].run)
    assert done.code == 0, done.err
    assert "identical in this environment" in done.out
    assert run(copy, "train", "--reproduce", "run-none").code == 2
    assert run(copy, "train", "--rebuild-environment").code == 2
    assert run(copy, "train", "churn", "--reproduce", trained[1].run).code == 2


def test_what_cannot_be_made_again_says_why(copy, trained):
    workspace, result = load(copy).workspace, trained[1]
    with pytest.raises(ThingNotFound):
        reproduce(workspace, "run-none")
    with workspace.store.write() as tx:
        tx.execute(
            sa.update(schema.dataset)
            .where(schema.dataset.c.dataset == result.dataset)
            .values(erased_at=datetime(2026, 3, 4, tzinfo=UTC), parts=[], blob="0" * 64)
        )
    found = reproduce(workspace, result.run)
    (difference,) = found.differences
    assert not found.identical and found.artifact is None
    assert result.dataset in difference.what and "erased on 04 Mar 2026" in difference.now
    done = run(copy, "train", "--reproduce", result.run)
    assert done.code == 1 and "can't be made again" in done.out and "erased" in done.out
    with workspace.store.write() as tx:
        tx.execute(sa.delete(schema.dataset))
    (difference,) = reproduce(workspace, result.run).differences
    assert "gone" in difference.now


def test_a_failed_run_made_nothing(tmp_path):
    root = write_project(tmp_path / "churn", model="def features(data):\n    return data\n")
    with pytest.raises(fairway.errors.ModelCodeError):
        train(load(root))
    workspace = load(root).workspace
    with workspace.store.read() as tx:
        run = tx.scalar(sa.select(schema.run.c.run))
    with pytest.raises(UsageError, match="is failed"):
        reproduce(workspace, run)


def test_code_that_is_not_repeatable_differs_in_the_model_and_the_predictions(tmp_path):
    text = MODEL.replace(
        "random_state=0, **params", "random_state=int(time.time_ns() % 2**31), max_features=0.5, **params"
    )
    root = write_project(
        tmp_path / "churn", model=text.replace("import polars as pl", "import time\nimport polars as pl")
    )
    result = train(load(root))
    found = reproduce(load(root).workspace, result.run)
    assert not found.identical and found.artifact not in (None, result.artifact)
    said = {d.what: d.now for d in found.differences}
    assert any(what.startswith("the model's bytes, model/trees.bin") for what in said), said
    assert "differ, at most by" in said["predictions"]


def test_changed_packages_are_named_and_others_only_counted():
    then = {
        "python": "3.11.2", "packages": {"numpy": "2.0.0", "polars": "1.0.0", "scikit-learn": "1.6.0", "ruff": "0.1.0"},
        "imports": {"polars": "polars", "sklearn": "scikit-learn"},
    }  # fmt: skip
    now = {"python": "3.11.7", "packages": then["packages"] | {"numpy": "2.1.0", "ruff": "0.2.0"}}
    found, notes = environment_differences(then, now)
    assert [(d.what, d.then, d.now) for d in found] == [
        ("Python", "3.11.2", "3.11.7"), ("package numpy", "2.0.0", "2.1.0"),
    ]  # fmt: skip
    assert notes == ["1 packages that the run does not need have other versions: ruff"]
    del now["packages"]["polars"]
    assert ("package polars", "not installed") in [(d.what, d.now) for d in environment_differences(then, now)[0]]
    assert environment_differences(then, then) == ([], [])


def test_the_card_says_what_is_stored_and_shows_texts_as_texts(copy, trained):
    result = trained[1]
    folder = trained[0] / ".fairway" / "runs" / result.run
    page, text = (folder / "card.html").read_text(), (folder / "card.md").read_text()
    assert "<b>x</b>" not in page and "&lt;b&gt;x&lt;/b&gt;" in page
    assert r"\<b\>x\</b\> \| \`y\` \\ \*z\*" in text
    for section in ("Use", "Data", "How good it is", "Checks", "Limits, and what is not known", "Environment",
                    "Call it", "Make it again"):  # fmt: skip
        assert f"## {section}\n" in text and f">{section}<" in page, section
    for fact in (result.dataset.replace("_", r"\_"), result.artifact, "requirements.lock", "| seed | 3 |", "base rate"):
        assert fact in text, fact
    assert f"fairway train --reproduce {result.run}" in text
    assert '"customer": "c0' in text  # the entity is logged in plain, so an example may show it
    shown = run(copy, "show", "churn@1", "--card")
    assert shown.code == 0 and shown.out.strip() == text.strip()
    assert run(copy, "show", "churn@9", "--card").code == 2


@pytest.mark.parametrize("kind", ["polars", "pandas", "arrow"])
def test_a_frame_becomes_a_project_and_gives_what_train_gets(kind, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = table(300)
    data = {"polars": lambda: rows, "pandas": rows.to_pandas, "arrow": rows.to_arrow}[kind]()
    project = fairway.new("churn", data=data, target="left")
    said = capsys.readouterr().out
    assert "churn/data/churn.parquet" in said and (tmp_path / "churn" / "data" / "churn.parquet").is_file()
    X, y = project.frame("train")
    held, labels = project.frame("heldout")
    assert X.height + held.height == 300 and len(y) == X.height and len(labels) == held.height
    assert set(y.to_list()) == {0, 1} and "customer" not in X.columns
    assert fairway.project("churn").frame("train")[0].equals(X)
    with pytest.raises(UsageError, match="train or heldout"):
        project.frame("test")
    if kind == "polars":
        code = (tmp_path / "churn" / "model.py").read_text()
        (tmp_path / "churn" / "model.py").write_text(
            code.replace("import polars as pl", "import pandas as pd\nimport polars as pl", 1).replace(
                "train(X: pl.DataFrame", "train(X: pd.DataFrame"
            )
        )
        X, y = project.frame()
        assert type(X).__module__.split(".")[0] == "pandas" == type(y).__module__.split(".")[0]
        run = fairway.train(project)
        assert run.verdict == "pass", [(c.name, c.summary) for c in run.checks if c.verdict != "pass"]
        assert "<iframe" in run._repr_html_()
        assert fairway.load("churn@1", workspace=tmp_path / "churn").predict(rows.head(3).drop("left").with_columns(
            pl.col("plan").cast(pl.Enum(["basic", "plus", "pro"])))).outputs.shape == (3,)  # fmt: skip
