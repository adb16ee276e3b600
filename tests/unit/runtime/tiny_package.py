"""A small packaged model, built from files that a person could have written."""

from pathlib import Path

import numpy as np
import polars as pl

from fairway.contract.text import parse_contract
from fairway.runtime import package
from fairway.runtime.code import closure, import_code
from fairway.runtime.proof import choose
from fairway.runtime.runtimes import ObjectRuntime
from fairway.runtime.wire import input_columns, typed_frame, wire_rows

SETTINGS = """format = 1
name = "tiny"
task = "binary"
target = "left"
positive = "yes"
entity = "who"
[data]
source = "tiny.parquet"
"""

CONTRACT_TOML = """format = 1
reviewed = false
[columns.who]
type = "string"
role = "entity"
[columns.size]
type = "float"
nulls = true
known = "request"
[columns.color]
type = "category"
values = ["red", "green", "blue"]
nulls = true
known = "request"
[columns.left]
type = "category"
values = ["no", "yes"]
role = "target"
known = "later"
"""
CONTRACT = parse_contract(CONTRACT_TOML, file="contract.toml")

TREES = """
import polars as pl
import polars.selectors as cs
from sklearn.ensemble import HistGradientBoostingClassifier

from helper import TWO

def features(data: pl.DataFrame) -> pl.DataFrame:
    return data.drop("who").with_columns(cs.enum().to_physical(), twice=TWO * pl.col("size"))

def train(X, y, params):
    return HistGradientBoostingClassifier(categorical_features=["color"], max_iter=5, random_state=0).fit(X, y)
"""


def rows(n: int = 400, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    values = {
        "who": [f"w{i}" for i in range(n)],
        "size": [None if i % 11 == 0 else float(v) for i, v in enumerate(rng.normal(size=n))],
        "color": [None if i % 7 == 0 else v for i, v in enumerate(rng.choice(["red", "blue"], n).tolist())],
    }
    return typed_frame(input_columns(CONTRACT), values)


def target(frame: pl.DataFrame) -> pl.Series:
    yes = (frame["size"].fill_null(0.3) + (frame["color"] == "blue").fill_null(False).cast(pl.Float64)) > 0.4
    return yes.cast(pl.Int8).alias("left")


def make_package(root: Path, model_py: str = TREES) -> Path:
    """Train on `rows` and build `root`/package."""
    (root / "model.py").write_text(model_py)
    (root / "helper.py").write_text("TWO = 2\n")
    files = closure(root)
    code = import_code(root)
    frame = rows()
    X, y = code.features(frame), target(frame)
    model = code.function("train")(code.for_model(X), y, {})
    outputs = ObjectRuntime(model, code, task="binary", classes=2).predict(X)
    choice = choose(model, code, root / "made", task="binary", classes=2, train=X, heldout=X, outputs=outputs)
    manifest = package.Manifest(
        model="tiny", task="binary", positive="yes", classes=("no", "yes"),
        feature_columns=tuple((name, str(dtype)) for name, dtype in X.schema.items()), views=(),
        contract=CONTRACT.version, runtime=choice.manifest, environment={},
    )  # fmt: skip
    expected = choice.runtime.predict(X.head(5)).tolist()
    heldout = {"rows": wire_rows(frame.head(5)), "events": [{}] * 5, "outputs": expected}
    package.build(
        root / "package", manifest, settings_toml=SETTINGS, contract_toml=CONTRACT_TOML, code=files,
        model=root / "made", reference={}, heldout=heldout,
    )  # fmt: skip
    return root / "package"
