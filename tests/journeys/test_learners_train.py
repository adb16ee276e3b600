"""Every learner from a plain model.py to a version: trained, packaged, loaded, and made again byte by byte."""

import pytest
from train_project import CONTRACT, SETTINGS, load, write_project

import fairway
from fairway.path.reproduce import reproduce
from fairway.path.train import train
from fairway.runtime import package

HEAD = """
import polars as pl
import polars.selectors as cs

def features(data: pl.DataFrame) -> pl.DataFrame:
    return data.drop("customer").with_columns(cs.enum().to_physical())
"""
PANDAS_HEAD = """
import pandas as pd

def features(data: pd.DataFrame) -> pd.DataFrame:
    made = data.drop(columns="customer")
    made["monthly"] = made["charges"] / (made["tenure"].clip(0, 1000) + 1)
    return made
"""
LIGHTGBM = (
    PANDAS_HEAD
    + """
import lightgbm

def train(X: pd.DataFrame, y: pd.Series, params: dict):
    assert isinstance(X, pd.DataFrame) and isinstance(y, pd.Series) and str(X["plan"].dtype) == "category"
    return lightgbm.LGBMClassifier(n_estimators=20, num_leaves=7, n_jobs=1, verbose=-1, random_state=0).fit(X, y)
"""
)
CODES = (
    HEAD
    + """
import lightgbm

def train(X, y, params):
    return lightgbm.train({"objective": "binary", "num_leaves": 7, "num_threads": 1, "verbose": -1, "seed": 0},
                          lightgbm.Dataset(X.to_numpy(), y.to_numpy(), categorical_feature=[2]), 20)
"""
)
XGBOOST = (
    HEAD
    + """
import xgboost

def train(X, y, params):
    return xgboost.XGBClassifier(n_estimators=20, max_depth=3, n_jobs=1, random_state=0).fit(X, y)
"""
)
CATBOOST = (
    HEAD
    + """
from catboost import CatBoostClassifier

def train(X, y, params):
    model = CatBoostClassifier(iterations=20, depth=3, verbose=0, allow_writing_files=False, thread_count=1)
    return model.fit(X.to_pandas(), y.to_numpy())
"""
)
OWN = (
    HEAD
    + """
import json
import numpy as np

def train(X, y, params):
    rate = X.with_columns(y=y).group_by("tenure").agg(pl.col("y").mean()).sort("tenure")
    return {"rates": dict(zip(map(str, rate["tenure"].to_list()), rate["y"].to_list())), "mean": float(y.mean())}

def predict(model, X):
    return np.array([model["rates"].get(str(t), model["mean"]) for t in X["tenure"].to_list()])

def save(model, folder):
    (folder / "rates.json").write_text(json.dumps(model, sort_keys=True))

def load(folder):
    return json.loads((folder / "rates.json").read_text())
"""
)
TORCH = (
    HEAD
    + """
import numpy as np
import torch
from safetensors.torch import load_file

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))

def numbers(X):
    matrix = np.nan_to_num(X.to_numpy().astype(np.float32)) / np.array([72, 120, 3], dtype=np.float32)
    return torch.tensor(np.clip(matrix, -10, 10))

def train(X, y, params):
    torch.set_num_threads(1)
    model, goal = net(), torch.tensor(y.to_numpy().astype(np.float32))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(150):
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(numbers(X))[:, 0], goal).backward()
        optimiser.step()
    return model.eval()

def predict(model, X):
    return torch.sigmoid(model(numbers(X)))[:, 0].double()

def load(folder):
    model = net()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model.eval()
"""
)


@pytest.mark.parametrize(
    ("text", "kind", "file"),
    [
        (LIGHTGBM, "lightgbm", "model.txt"),
        (CODES, "treelite", "trees.bin"),
        (XGBOOST, "treelite", "trees.bin"),
        (XGBOOST.replace("n_jobs=1", 'booster="dart", rate_drop=0.3, n_jobs=1'), "xgboost", "model.json"),
        (CATBOOST, "catboost", "model.cbm"),
        (OWN, "project", "rates.json"),
        (TORCH, "project", "weights.safetensors"),
    ],
    ids=["lightgbm-pandas", "lightgbm-booster", "xgboost", "xgboost-dart", "catboost", "own-format", "torch"],
)
def test_a_learner_is_trained_packaged_loaded_and_made_again(text, kind, file, tmp_path):
    if text is TORCH:
        pytest.importorskip("torch", reason="PyTorch's wheels are large: not in the lock. pip install 'fairway[torch]'")
    root = write_project(tmp_path / "churn", model=text, settings=SETTINGS.replace("max_iter = 20", ""))
    result = train(load(root))
    refused = [(c.name, c.verdict, c.summary) for c in result.checks if c.verdict not in ("pass", "skip")]
    assert result.verdict == "pass", refused
    assert result.runtime["kind"] == kind, result.runtime
    assert result.metrics["metrics"]["auc"]["low"] > 0.6
    folder = package.materialise(load(root).workspace, result.artifact)
    assert file in [p.name for p in (folder / "model").iterdir()]
    model = fairway.load("churn@1", workspace=root)
    heldout = package.read_heldout(folder)
    columns = {name: [row[name] for row in heldout["rows"]] for name in heldout["rows"][0]}
    assert model.predict_columns(columns, [None] * 200).outputs.tolist() == pytest.approx(heldout["outputs"], abs=1e-12)
    again = reproduce(load(root).workspace, result.run)
    assert again.identical, again.differences


def test_columns_on_which_lightgbm_aborts_are_named_when_it_has(tmp_path):
    text = """
import lightgbm

def features(data):
    return data.drop("customer")

def train(X, y, params):
    return lightgbm.LGBMClassifier(n_estimators=2, verbose=-1).fit(X, y)
"""
    root = write_project(tmp_path / "churn", model=text)
    with pytest.raises(fairway.errors.ModelCodeError) as caught:
        train(load(root))
    assert "plan" in str(caught.value) and "to_physical()" in str(caught.value), str(caught.value)


INPUTS_CONTRACT = CONTRACT.replace(
    "[columns.plan]",
    '[columns.note]\ntype = "text"\n[columns.place]\ntype = "vector"\nlength = 3\n'
    '[columns.photo]\ntype = "image"\n[columns.plan]',
)
INPUTS = '''
import json
import numpy as np
import polars as pl

def features(data: pl.DataFrame) -> pl.DataFrame:
    return data.drop("customer", "plan")

def parts(X):
    """One matrix of every input: numbers, words of the text, the vector, the light of the picture."""
    numbers = X.select(pl.col("tenure", "charges").fill_null(0).cast(pl.Float64)).to_numpy() / 100
    words = X["note"].str.contains("leaving").cast(pl.Float64).to_numpy()
    place = np.clip(X["place"].to_numpy(), -1e3, 1e3)
    light = np.array([np.frombuffer(b, np.uint8).mean() if b else 0.0 for b in X["photo"].to_list()]) / 255
    return np.column_stack([np.ones(X.height), np.clip(numbers, -1e3, 1e3), words, place, light])

def train(X, y, params):
    A = parts(X)
    weights = np.linalg.solve(A.T @ A + 1e-3 * np.eye(A.shape[1]), A.T @ y.to_numpy().astype(float))
    return weights.tolist()

def predict(model, X):
    return 1 / (1 + np.exp(-np.clip(parts(X) @ np.array(model) * 4 - 2, -30, 30)))

def save(model, folder):
    (folder / "weights.json").write_text(json.dumps(model))

def load(folder):
    return json.loads((folder / "weights.json").read_text())
'''


def test_text_vector_and_picture_together_from_table_to_request(tmp_path):
    import numpy as np
    import polars as pl
    from train_project import table

    root = write_project(
        tmp_path / "churn", model=INPUTS, contract=INPUTS_CONTRACT,
        settings=SETTINGS.replace("data.csv", "data.parquet").replace("max_iter = 20", ""),
    )  # fmt: skip
    rows = table(600)
    rng = np.random.default_rng(0)
    left = (rows["left"] == "yes").to_numpy()
    rows.with_columns(
        note=pl.Series(["thinking of leaving" if v and i % 3 else "all is well" for i, v in enumerate(left)]),
        place=pl.Series((rng.normal(size=(600, 3)) + left[:, None]).tolist()),
        photo=pl.Series([bytes([200 if v else 90] * 12 + [i % 256]) for i, v in enumerate(left)]),
    ).write_parquet(root / "data.parquet")
    result = train(load(root))
    refused = [(c.name, c.verdict, c.summary) for c in result.checks if c.verdict not in ("pass", "skip")]
    names = [name for name, _, _ in refused if name != "leak-suspect"]
    assert not names, refused
    assert reproduce(load(root).workspace, result.run).identical
