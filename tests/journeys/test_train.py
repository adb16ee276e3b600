"""`train`, from a table on disk to a registered version, and again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import sqlalchemy as sa
from train_project import MODEL, SETTINGS, load, table, write_project

import fairway
from fairway.errors import DataError, ModelCodeError, VersionNotFound
from fairway.path.train import train
from fairway.registry import versions
from fairway.runtime import loader, package
from fairway.store import audit, schema


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One project with one version; tests work on copies."""
    root = write_project(tmp_path_factory.mktemp("trained") / "churn")
    result = train(load(root), actor="ana")
    return root, result


@pytest.fixture
def copy(trained, tmp_path):
    shutil.copytree(trained[0], tmp_path / "churn")
    return tmp_path / "churn"


def again(root: Path):
    """(result, names of the steps that were done anew)."""
    result = train(load(root))
    return result, {line.name for line in result.steps if not line.cached}


def runs(root: Path) -> list:
    store = load(root).workspace.store
    with store.read() as tx:
        return list(tx.execute(sa.select(schema.run).order_by(schema.run.c.started_at)))


def test_a_first_version_is_registered_whole(trained):
    root, result = trained
    assert (result.version, result.new, result.verdict) == (1, True, "pass"), [
        (c.name, c.summary) for c in result.checks if c.verdict not in ("pass", "skip")
    ]
    assert [line.name for line in result.steps] == [
        "snapshot", "contract", "features", "train", "evaluate", "package", "checks", "register",
    ]  # fmt: skip
    assert result.metrics["metrics"]["auc"]["low"] > 0.7
    assert set(result.metrics["comparisons"]) == {"base rate", "logistic regression"}
    assert result.runtime["kind"] == "treelite"
    assert abs(sum(result.details["importance"].values()) - 1) < 1e-9
    assert all(c.repeat == f"fairway check churn@1 --only {c.name}" for c in result.checks)
    assert "<svg" in result.report.read_text()
    assert json.dumps(result.as_dict())
    store = load(root).workspace.store
    row = versions.get(store, "churn", 1)
    assert (row.artifact, row.dataset, row.author) == (result.artifact, result.dataset, "ana")
    assert [e.action for e in audit.entries(store, subject="churn@1")] == ["version_registered"]
    assert audit.verify(store) is None
    (run,) = runs(root)
    assert (run.status, run.run) == ("done", result.run)


def test_the_package_answers_as_it_says(trained):
    root, result = trained
    folder = package.materialise(load(root).workspace, result.artifact)
    model = loader.load(folder, artifact=result.artifact)
    heldout = package.read_heldout(folder)
    assert len(heldout["rows"]) == 200
    columns = {name: [row[name] for row in heldout["rows"]] for name in heldout["rows"][0]}
    assert model.predict_columns(columns, [None] * 200).outputs.tolist() == heldout["outputs"]
    assert sorted(p.name for p in (folder / "code").rglob("*.py")) == ["model.py", "shaping.py"]
    assert fairway.load("churn@1", workspace=root).manifest == model.manifest
    with pytest.raises(VersionNotFound, match="known: 1"):
        fairway.load("churn@7", workspace=root)


def test_an_unchanged_run_and_touched_files_do_nothing_anew(copy, trained):
    for name in ("data.csv", "model.py", "shared/shaping.py", "fairway.toml", "contract.toml"):
        os.utime(copy / name)
    result, done = again(copy)
    assert (result.version, result.new) == (1, False)
    assert done <= {"contract"}
    assert result.artifact == trained[1].artifact
    assert len(runs(copy)) == 2


def change(copy: Path, what: str) -> None:
    if what == "parameter":
        (copy / "fairway.toml").write_text(SETTINGS.replace("max_iter = 20", "max_iter = 21"))
    elif what == "gate":
        (copy / "fairway.toml").write_text(SETTINGS + '[gates]\nauc = ">= 0.6"\n')
    elif what == "comment in fairway.toml":
        (copy / "fairway.toml").write_text("# a word\n" + SETTINGS)
    elif what == "data":
        text = (copy / "data.csv").read_text()
        (copy / "data.csv").write_text(text.replace("c00003,", "c90003,", 1))
    elif what == "helper":
        path = copy / "shared" / "shaping.py"
        path.write_text(path.read_text().replace("+ 1", "+ 2"))
    elif what == "lock":
        (copy / "requirements.lock").write_text("numpy==2\n")
    elif what == "unrelated module":
        (copy / "notes.py").write_text("1 / 0\n")


@pytest.mark.parametrize(
    ("what", "again_done", "new"),
    [
        ("parameter", {"train", "evaluate", "package", "checks", "register"}, True),
        ("gate", {"package", "checks", "register"}, True),
        ("comment in fairway.toml", set(), False),
        ("data", {"snapshot", "features", "train", "evaluate", "package", "checks", "register"}, True),
        ("helper", {"features", "train", "evaluate", "package", "checks", "register"}, True),
        ("lock", {"features", "train", "evaluate", "package", "checks", "register"}, True),
        ("unrelated module", set(), False),
    ],
)
def test_a_change_reruns_exactly_what_depends_on_it(copy, what, again_done, new):
    change(copy, what)
    result, done = again(copy)
    assert done - {"contract"} == again_done
    assert (result.new, result.version) == (new, 2 if new else 1)


def test_the_same_inputs_make_the_same_artifact_in_another_place(trained, tmp_path):
    root = write_project(tmp_path / "élsewhere with blanks" / "churn")
    assert train(load(root)).artifact == trained[1].artifact


def test_a_champion_is_compared_on_rows_that_neither_has_seen(copy):
    project = load(copy)
    store = project.workspace.store
    row = {
        "workspace": store.workspace, "endpoint": "churn", "model": "churn", "epoch": 1, "share_epoch": 1,
        "champion": 1, "shares": {"1": 1.0}, "shadows": [], "salt": "", "state": "live", "changed_by": "ana",
        "changed_at": datetime.now(UTC),
    }  # fmt: skip
    with store.write() as tx:
        tx.execute(sa.insert(schema.endpoint).values(row))
    change(copy, "parameter")
    result, _ = again(copy)
    compared = result.metrics["comparisons"]["champion"]
    assert compared["n"] == result.details["rows"]["heldout"]
    assert {c.name: c.verdict for c in result.checks}["not-worse-than-champion"] in ("pass", "too_few")


BROKEN = {
    "raises": ('data["charge"]', r'model.py line \d+, in features\(\): column "charge" not found'),
    "typo": ('data["tenur"]', r'column "tenur" not found; the table has "tenure"'),
    "exits": ("__import__('sys').exit(0)", "called sys.exit"),
    "dies": ("__import__('os')._exit(0)", "before it had a result"),
    "is killed": ("__import__('os').kill(__import__('os').getpid(), 9)", "killed by signal 9"),
    "crashes": ("__import__('ctypes').string_at(0)", "killed by signal 11"),
    "hangs": ("__import__('time').sleep(1000)", "time limit"),
    "loses rows": ("data.head(3)", "3 rows for 1,500"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_code_that_fails_leaves_everything_as_it_was(copy, how):
    call, said = BROKEN[how]
    broken = MODEL.replace('    return data.drop("customer")', f"    data = {call}\n    return data.drop('customer')")
    (copy / "model.py").write_text(broken)
    if how == "hangs":
        (copy / "fairway.toml").write_text(SETTINGS + '[limits]\ntrain = "4s"\n')
    project = load(copy)
    blobs = set(project.workspace.blobs)
    with pytest.raises(ModelCodeError, match=said):
        train(project)
    run = runs(copy)[-1]
    assert (run.status, run.result) == ("failed", None)
    assert run.error and run.ended_at
    assert (copy / ".fairway" / "runs" / run.run / "log.txt").stat().st_size > 0
    assert versions.newest(project.workspace.store, "churn").version == 1
    assert set(project.workspace.blobs) == blobs
    assert not list((copy / ".fairway" / "cache" / "steps").glob(".*"))
    (copy / "model.py").write_text(MODEL)
    (copy / "fairway.toml").write_text(SETTINGS)
    assert again(copy)[0].version == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MODEL.replace("return model.fit(X, y)", "pass"), r"train\(\) returned nothing"),
        (MODEL.replace("return model.fit(X, y)", "return 3"), "has no predict_proba"),
        (MODEL + "\ndef predict(model, X):\n    return [2.0] * X.height\n", "within 0..1"),
        (MODEL + "\ndef predict(model, X):\n    return [0.5]\n", "shape"),
        (MODEL + "\ndef predict(model, X):\n    return [float('nan')] * X.height\n", "must be finite"),
        (MODEL.replace("def train", "def fit"), r"no function train\(\)"),
        (MODEL.replace("import polars as pl\n", "import polars as pl\nimport not_there\n", 1), "imports not_there"),
        (MODEL.replace("return model.fit", "return Own()\n\nclass Own:\n    def predict_proba(self, X):\n"
                       "        return [0.5] * len(X)\n\ndef other(): model.fit"), "needs save"),
    ],
)  # fmt: skip
def test_what_train_returns_must_be_a_model(copy, text, said):
    (copy / "model.py").write_text(text)
    with pytest.raises(ModelCodeError, match=said):
        train(load(copy))
    assert runs(copy)[-1].status == "failed"


def test_a_run_that_was_killed_is_failed_and_does_not_stop_the_next(copy):
    (copy / "model.py").write_text(
        MODEL.replace("    model = Hist", "    __import__('time').sleep(60)\n    model = Hist")
    )
    code = f"from fairway.path.api import train; train({str(copy)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.monotonic() + 60
    while not any(r.status == "running" for r in runs(copy)) and time.monotonic() < deadline:
        time.sleep(0.05)
    while not list((copy / ".fairway/cache/steps").glob(".*/progress.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    (copy / "model.py").write_text(MODEL)
    assert again(copy)[0].version == 1
    assert [(r.status, r.error) for r in runs(copy)][1] == ("failed", "its process was ended from outside")


def test_a_class_that_is_missing_is_refused_before_training(copy):
    first = pl.col("customer") == "c00001"
    rare = pl.when(first).then(pl.lit("yes")).otherwise(pl.lit("no"))
    table().with_columns(left=rare).write_csv(copy / "data.csv")
    with pytest.raises(DataError, match="column left: yes is the value of 1 row"):
        train(load(copy))
    assert runs(copy)[-1].status == "failed"


def test_pandas_where_the_code_asks_for_it(tmp_path):
    model = """
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier

def features(data: pd.DataFrame) -> pd.DataFrame:
    assert isinstance(data, pd.DataFrame) and list(data["plan"].cat.categories) == ["basic", "plus", "pro"]
    codes = data["plan"].cat.codes.astype(float)
    made = data.drop(columns="customer").assign(plan=codes.where(codes >= 0))
    return made.assign(monthly=made["charges"] / (made["tenure"].clip(0, 1000) + 1))

def train(X: pd.DataFrame, y: pd.Series, params):
    assert isinstance(X, pd.DataFrame) and isinstance(y, pd.Series) and len(X) == len(y)
    return HistGradientBoostingClassifier(categorical_features=["plan"], random_state=0, **params).fit(X, y)
"""
    result = train(load(write_project(tmp_path / "p", model=model)))
    assert (result.version, result.runtime["kind"]) == (1, "treelite"), result.runtime
    assert result.verdict == "pass", [(c.name, c.summary) for c in result.checks if c.verdict not in ("pass", "skip")]


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_other_tasks(tmp_path, task):
    settings = SETTINGS.replace('task = "binary"', f'task = "{task}"').replace('positive = "yes"\n', "")
    root = write_project(tmp_path / "churn", settings=settings)
    made = table()
    text = (root / "contract.toml").read_text()
    if task == "multiclass":
        made = made.with_columns(
            left=pl.when(pl.col("tenure") < 20)
            .then(pl.lit("a"))
            .otherwise("plan")
            .replace({"basic": "b", "plus": "c", "pro": "c"})
        )
        text = text.replace('values = ["no", "yes"]', 'values = ["a", "b", "c"]')
    else:
        made = made.with_columns(left=pl.col("tenure") * 1.5)
        text = text.replace('type = "category"\nvalues = ["no", "yes"]', 'type = "float"')
        (root / "model.py").write_text(MODEL.replace("BoostingClassifier", "BoostingRegressor"))
    made.write_csv(root / "data.csv")
    (root / "contract.toml").write_text(text)
    result = train(load(root))
    assert result.version == 1
    assert result.runtime["kind"] == "treelite", result.runtime
    unknown = [
        (c.name, c.summary) for c in result.checks if c.verdict in ("unknown", "fail") and c.name != "leak-suspect"
    ]
    assert unknown == []


VIEW_MODEL = """import fairway
import polars as pl
from sklearn.ensemble import HistGradientBoostingClassifier

@fairway.view(source="calls", entity="customer", window="7d")
def calls(events: pl.DataFrame) -> pl.DataFrame:
    return events.group_by("customer", "at").agg(n_calls=pl.len(), longest=pl.col("minutes").max())

def features(data: pl.DataFrame) -> pl.DataFrame:
    return data.select("tenure", "charges", "n_calls", "longest")

def train(X, y, params):
    return HistGradientBoostingClassifier(random_state=0, **params).fit(X, y)
"""


def test_views_with_time_are_point_in_time_and_rows_are_split_by_it(tmp_path):
    settings = SETTINGS.replace('entity = "customer"', 'entity = "customer"\nat = "asked"\nlabel_delay = "1d"').replace(
        "[train]", '[sources.calls]\npath = "calls.parquet"\nat = "called"\nkey = "call"\n[train]'
    )
    root = write_project(tmp_path / "churn", settings=settings, model=VIEW_MODEL)
    start, rng = datetime(2024, 1, 1, tzinfo=UTC), np.random.default_rng(0)
    rows = table().with_columns(
        customer=pl.Series([f"c{i % 300}" for i in range(1500)]),
        asked=pl.Series([start + timedelta(minutes=int(m)) for m in rng.integers(0, 60 * 24 * 60, 1500)]),
    )
    rows.write_parquet(root / "data.parquet")
    (root / "fairway.toml").write_text(settings.replace("data.csv", "data.parquet"))
    calls = pl.DataFrame(
        {
            "call": range(4000),
            "customer": [f"c{i}" for i in rng.integers(0, 300, 4000)],
            "called": [start + timedelta(minutes=int(m)) for m in rng.integers(0, 60 * 24 * 60, 4000)],
            "minutes": rng.uniform(1, 30, 4000),
        }
    )
    calls.write_parquet(root / "calls.parquet")
    source = "".join(
        f'[sources.calls.columns.{name}]\ntype = "{kind}"\n'
        for name, kind in (("call", "int"), ("customer", "string"), ("called", "datetime"), ("minutes", "float"))
    )
    text = (
        (root / "contract.toml")
        .read_text()
        .replace("[columns.tenure]", '[columns.asked]\ntype = "datetime"\n[columns.tenure]')
    )
    (root / "contract.toml").write_text(text + source)
    result = train(load(root))
    assert {c.name: c.verdict for c in result.checks}["views-point-in-time"] == "pass"
    row = versions.get(load(root).workspace.store, "churn", 1)
    assert row.trained_until < rows["asked"].max()
    folder = package.materialise(load(root).workspace, result.artifact)
    model, heldout = loader.load(folder), package.read_heldout(folder)
    columns = {name: [r[name] for r in heldout["rows"]] for name in heldout["rows"][0]}
    windows = [
        {s: {c: [e[c] for e in found] for c in found[0]} if found else {} for s, found in own.items()}
        for own in heldout["events"]
    ]
    answered = model.predict_columns(columns, [None] * len(windows), windows)
    assert answered.outputs.tolist() == heldout["outputs"]
    assert answered.looked_up["n_calls"].null_count() < len(windows)
