"""A small real model with a view, packaged and registered as `train` would, for tests of serving."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa

from fairway import clock
from fairway.contract.text import parse_contract, parse_settings
from fairway.monitor.resolved import as_dict
from fairway.runtime import package
from fairway.runtime.code import closure, import_code
from fairway.runtime.proof import choose
from fairway.runtime.runtimes import ObjectRuntime
from fairway.runtime.wire import input_columns, typed_frame, wire_rows
from fairway.store import schema
from fairway.store.workspace import Workspace

SETTINGS = """format = 1
name = "small"
task = "binary"
target = "left"
positive = "yes"
entity = "who"
at = "asked_at"
label_delay = "6h"
[data]
source = "small.parquet"
[sources.trips]
path = "trips.parquet"
at = "left_at"
key = "trip"
[endpoint]
at_from_caller = true
max_skew = "20min"
"""

CONTRACT_TOML = """format = 1
reviewed = false
[columns.who]
type = "string"
role = "entity"
[columns.asked_at]
type = "datetime"
role = "at"
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
[sources.trips.columns.trip]
type = "string"
[sources.trips.columns.color]
type = "category"
values = ["red", "green", "blue"]
[sources.trips.columns.left_at]
type = "datetime"
[sources.trips.columns.km]
type = "float"
"""
CONTRACT = parse_contract(CONTRACT_TOML, file="contract.toml")

MODEL = """
import polars as pl
import polars.selectors as cs
from sklearn.ensemble import HistGradientBoostingClassifier

import fairway

@fairway.view(source="trips", entity="color", window="2h")
def recent_km(trips: pl.DataFrame) -> pl.DataFrame:
    return trips.group_by("color", "at").agg(recent_km=pl.col("km").mean())

def features(data: pl.DataFrame) -> pl.DataFrame:
    BEFORE
    return data.drop("who", "asked_at").with_columns(cs.enum().to_physical())

def train(X, y, params):
    model = HistGradientBoostingClassifier(categorical_features=["color"], max_iter=5, random_state=0, **params)
    return model.fit(X, y)
"""


def frame(n: int = 300, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    values: dict[str, list[Any]] = {
        "who": [f"w{i}" for i in range(n)],
        "asked_at": [1_700_000_000_000_000 + i for i in range(n)],
        "size": [None if i % 11 == 0 else float(v) for i, v in enumerate(rng.normal(size=n))],
        "color": [None if i % 7 == 0 else v for i, v in enumerate(rng.choice(["red", "blue"], n).tolist())],
    }
    return typed_frame(input_columns(CONTRACT), values)


def make_package(root: Path, *, leaf: int = 20, before: str = "pass", settings: str = SETTINGS) -> Path:
    """Train and build `root`/package. leaf: min_samples_leaf, so that versions answer differently. before: a statement
    at the start of features()."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "model.py").write_text(MODEL.replace("BEFORE", before))
    files = closure(root)
    code = import_code(root)
    rng = np.random.default_rng(1)
    km = pl.Series("recent_km", rng.normal(10, 3, 300)).set(pl.Series([i % 3 == 0 for i in range(300)]), None)
    X = MODEL_FEATURES(frame().with_columns(km))
    strange = (X["size"].fill_null(0.3) + X["recent_km"].fill_null(8.0) / 10) > 1.2
    model = code.function("train")(code.for_model(X), strange.cast(pl.Int8).alias("left"), {"min_samples_leaf": leaf})
    outputs = ObjectRuntime(model, code, task="binary", classes=2).predict(X)
    choice = choose(model, code, root / "made", task="binary", classes=2, train=X, heldout=X, outputs=outputs)
    manifest = package.Manifest(
        model="small", task="binary", positive="yes", classes=("no", "yes"),
        feature_columns=tuple((name, str(dtype)) for name, dtype in X.schema.items()),
        views=(
            {"name": "recent_km", "source": "trips", "entity": "color", "window_us": 7_200_000_000,
             "columns": {"recent_km": "Float64"}},
        ),
        contract=CONTRACT.version, runtime=choice.manifest, environment={},
    )  # fmt: skip
    first = MODEL_FEATURES(frame().head(5).with_columns(recent_km=pl.lit(None, pl.Float64)))
    offline = ObjectRuntime(model, code, task="binary", classes=2).predict(first)
    heldout = {"rows": wire_rows(frame().head(5)), "events": [{}] * 5, "outputs": [float(p) for p in offline]}
    package.build(
        root / "package", manifest, settings_toml=settings, contract_toml=CONTRACT_TOML, code=files,
        model=root / "made", reference={}, heldout=heldout,
    )  # fmt: skip
    return root / "package"


def MODEL_FEATURES(data: pl.DataFrame) -> pl.DataFrame:
    """features() of the model, without what a test puts before it."""
    return data.drop("who", "asked_at").with_columns(pl.col("color").to_physical())


def register(workspace: Workspace, folder: Path, version: int) -> str:
    """The version in the store; its artifact."""
    artifact = package.store_package(workspace, folder)
    resolved = as_dict(parse_settings((folder / "fairway.toml").read_text()))
    store, now = workspace.store, clock.now()
    with store.write() as tx:
        model = {"workspace": "default", "model": "small", "settings": resolved}
        store.insert_new(tx, schema.model, model | {"created_at": now})
        tx.execute(
            sa.insert(schema.version).values(
                workspace="default", model="small", version=version, run=f"run-{version}", artifact=artifact,
                contract=CONTRACT.version, verdict="pass", metrics={}, checks=[], settings=resolved, author="a",
                created_at=now, fairway="0", format=1,
            )
        )  # fmt: skip
    return artifact


def desire(workspace: Workspace, *, epoch: int, name: str = "small", **values: Any) -> None:
    """Write the endpoint row: what a rollout or a deployment would."""
    row = {
        "workspace": "default", "endpoint": name, "model": "small", "epoch": epoch, "share_epoch": epoch,
        "champion": None, "previous": None, "challenger": None, "rollout": None, "shares": {}, "shadows": [],
        "salt": "salt", "state": "live", "changed_by": "test", "changed_at": clock.now(),
    }  # fmt: skip
    with workspace.store.write() as tx:
        workspace.store.upsert(tx, schema.endpoint, row | values)


def served(version: int) -> dict[str, Any]:
    return {"champion": version, "shares": {str(version): 1.0}}
