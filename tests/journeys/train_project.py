"""A small project on disk, as a person would have it."""

from pathlib import Path

import numpy as np
import polars as pl

from fairway.data.project import Project, load_project
from fairway.store.workspace import Workspace

SETTINGS = """format = 1
name = "churn"
task = "binary"
target = "left"
positive = "yes"
entity = "customer"
[data]
source = "data.csv"
[train]
max_iter = 20
"""

CONTRACT = """format = 1
reviewed = true
[columns.customer]
type = "string"
role = "entity"
[columns.tenure]
type = "int"
[columns.charges]
type = "float"
nulls = true
[columns.plan]
type = "category"
values = ["basic", "plus", "pro"]
[columns.left]
type = "category"
values = ["no", "yes"]
role = "target"
known = "later"
"""

MODEL = '''"""Will a customer leave?"""
import polars as pl
import polars.selectors as cs
from sklearn.ensemble import HistGradientBoostingClassifier

from shared.shaping import per_month


def features(data: pl.DataFrame) -> pl.DataFrame:
    return data.drop("customer").with_columns(cs.enum().to_physical(), monthly=per_month(data))


def train(X, y, params):
    model = HistGradientBoostingClassifier(categorical_features=["plan"], random_state=0, **params)
    return model.fit(X, y)
'''

SHAPING = """import polars as pl

def per_month(data):
    return data["charges"] / (data["tenure"].clip(0, 1000) + 1)
"""


def table(n: int = 1500, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    tenure, charges, plan = rng.integers(0, 72, n), rng.uniform(20, 120, n).round(2), rng.integers(0, 3, n)
    score = 1.5 - tenure / 20 + (charges - 70) / 40 - (plan == 2) + rng.normal(size=n)
    return pl.DataFrame(
        {
            "customer": [f"c{i:05d}" for i in range(n)],
            "tenure": tenure,
            "charges": [None if i % 50 == 0 else float(c) for i, c in enumerate(charges)],
            "plan": [("basic", "plus", "pro")[p] for p in plan],
            "left": ["yes" if s > 0 else "no" for s in score],
        }
    )


def write_project(root: Path, *, model: str = MODEL, settings: str = SETTINGS, contract: str = CONTRACT) -> Path:
    (root / "shared").mkdir(parents=True)
    table().write_csv(root / "data.csv")
    (root / "fairway.toml").write_text(settings)
    (root / "contract.toml").write_text(contract)
    (root / "model.py").write_text(model)
    (root / "shared" / "shaping.py").write_text(SHAPING)
    Workspace.create(root)
    return root


def load(root: Path) -> Project:
    return load_project(root)
