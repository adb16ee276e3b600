"""Small projects, packaged as a run would package them, for the checks to look at. Runs their code in this process."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from fairway import fingerprint
from fairway.checks.suite import CheckInput
from fairway.contract.text import parse_contract, parse_settings
from fairway.runtime import package
from fairway.training import work
from fairway.training.evaluate import BASE_RATE, Evaluation, base_rate, evaluate
from fairway.training.metrics import PRIMARY_LOSS, row_losses
from fairway.training.targets import encode


@dataclass(frozen=True)
class Table:
    """A training table with what belongs to it. events: typed, with _known_at."""

    settings: str
    contract: str
    frame: pl.DataFrame
    events: Mapping[str, pl.DataFrame]
    model: str


def build(
    table: Table, folder: Path, *, model: str | None = None, settings: str = "", test_share: float = 0.3
) -> CheckInput:
    """Train and package `table` with its own model.py or another one; settings: text added to fairway.toml."""
    folder.mkdir(parents=True)
    source, text = model or table.model, table.settings + settings
    parsed, contract = parse_settings(text, file="fairway.toml"), parse_contract(table.contract, file="contract.toml")
    target = contract.column(parsed.target)
    run, frame = folder / "run", table.frame
    (run / "code").mkdir(parents=True)
    (run / "code" / "model.py").write_text(source)
    (run / "events").mkdir()
    for name, events in table.events.items():
        events.write_ipc(run / "events" / f"{name}.arrow")
    y, classes = encode(frame[parsed.target], target, parsed)
    test = np.random.default_rng(1).random(frame.height) < test_share
    frame.write_ipc(run / "frame.arrow")
    np.save(run / "y.npy", y.to_numpy())
    np.save(run / "test.npy", test)
    done = work.features_and_train(
        {"folder": str(run), "classes": list(classes), "seed": 0, "looked": None, **work.write_values(parsed, contract)}
    )
    views = tuple(v | {"columns": done["schemas"][v["name"]]} for v in done["views"])
    manifest = package.Manifest(
        model=parsed.name, task=parsed.task, positive=parsed.positive, classes=classes,
        feature_columns=tuple(tuple(c) for c in done["feature_columns"]), views=views, contract=contract.version,
        runtime=done["runtime"], environment={},
    )  # fmt: skip
    package.build(
        folder / "package", manifest, settings_toml=text, contract_toml=table.contract,
        code={"model.py": source.encode()}, model=run / "model", reference={},
        heldout=msgspec.msgpack.decode((run / "heldout.msgpack").read_bytes()),
    )  # fmt: skip
    outputs, labels = np.load(run / "outputs.npy"), y.to_numpy()
    evaluation: Evaluation | None = None
    error = ""
    try:
        rival = base_rate(parsed.task, labels[~test], k=len(classes), n=int(test.sum()))
        evaluation = evaluate(parsed.task, labels[test], outputs, classes=classes, rivals={BASE_RATE: rival})
    except ValueError as exc:
        error = str(exc)
    return CheckInput(
        version=f"{parsed.name}@1", settings=parsed, contract=contract, package=folder / "package", cwd=folder,
        log=folder / "log.txt", train=frame.filter(~test), heldout=frame.filter(test), y_train=labels[~test],
        y_heldout=labels[test], classes=classes, events=table.events, python_outputs=outputs,
        losses=row_losses(PRIMARY_LOSS[parsed.task], parsed.task, labels[test], outputs),
        evaluation=evaluation, evaluation_error=error,
    )  # fmt: skip


def rebuild(folder: Path, change: Callable[[Path], None]) -> None:
    """Change a package's files and write a manifest that agrees with them again, as a wrong build would."""
    change(folder)
    path = folder / package.MANIFEST
    value: dict[str, Any] = json.loads(path.read_text())
    shutil.rmtree(folder / "code" / "__pycache__", ignore_errors=True)
    value["files"] = {
        str(p.relative_to(folder)): fingerprint.of_file(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != package.MANIFEST
    }
    path.write_text(json.dumps(value))


def _contract(columns: Mapping[str, str], events: Mapping[str, Mapping[str, str]] | None = None) -> str:
    lines = ["format = 1", "reviewed = true"]
    for name, rules in columns.items():
        lines += [f"[columns.{name}]", rules]
    for source, inner in (events or {}).items():
        for name, rules in inner.items():
            lines += [f"[sources.{source}.columns.{name}]", rules]
    return "\n".join(lines) + "\n"


_UTC = pl.Datetime("us", "UTC")
_PLANS, _REGIONS = ["basic", "plus", "pro"], ["north", "south", "west"]

BINARY_MODEL = """
import polars as pl
import polars.selectors as cs
from sklearn.ensemble import HistGradientBoostingClassifier


def features(data: pl.DataFrame) -> pl.DataFrame:
    codes = cs.enum().to_physical()
    return data.drop("id").with_columns(codes, ratio=pl.col("charge") / (pl.col("tenure").abs() + 1.0))


def train(X, y, params):
    return HistGradientBoostingClassifier(max_iter=30, max_leaf_nodes=7, random_state=0, early_stopping=False).fit(X, y)
"""


def binary(n: int = 900) -> Table:
    """Like telco churn: numbers with nulls, categories, a flag."""
    rng = np.random.default_rng(0)
    tenure, plan = rng.integers(0, 72, n), rng.integers(0, 3, n)
    charge = np.round(20 + 25 * plan + rng.normal(0, 5, n), 2)
    logit = -0.2 - 0.06 * (tenure - 36) + 0.8 * (plan == 0) + 0.02 * (charge - 45) + rng.normal(0, 0.5, n)
    churn = rng.random(n) < 1 / (1 + np.exp(-logit))
    frame = pl.DataFrame(
        {
            "id": [f"c{i:05d}" for i in range(n)],
            "tenure": pl.Series(tenure, dtype=pl.Int64),
            "charge": pl.Series([None if rng.random() < 0.02 else float(c) for c in charge], dtype=pl.Float64),
            "plan": pl.Series([_PLANS[p] for p in plan], dtype=pl.Enum(_PLANS)),
            "region": pl.Series([_REGIONS[i] for i in rng.integers(0, 3, n)], dtype=pl.Enum(_REGIONS)),
            "senior": pl.Series(rng.random(n) < 0.2),
            "churn": pl.Series(["yes" if c else "no" for c in churn], dtype=pl.Enum(["no", "yes"])),
        }
    )
    contract = _contract(
        {
            "id": 'type = "string"\nrole = "entity"',
            "tenure": 'type = "int"\nseen = [0, 72]',
            "charge": 'type = "float"\nnulls = true\nseen = [5.0, 90.0]',
            "plan": 'type = "category"\nvalues = ["basic", "plus", "pro"]',
            "region": 'type = "category"\nvalues = ["north", "south", "west"]',
            "senior": 'type = "bool"',
            "churn": 'type = "category"\nrole = "target"\nvalues = ["no", "yes"]',
        }
    )
    settings = (
        'format = 1\nname = "churn"\ntask = "binary"\ntarget = "churn"\npositive = "yes"\nentity = "id"\n'
        '[data]\nsource = "churn.csv"\n'
    )
    return Table(settings, contract, frame, {}, BINARY_MODEL)


REGRESSION_MODEL = """
import polars as pl
import polars.selectors as cs
from sklearn.ensemble import HistGradientBoostingRegressor


def features(data: pl.DataFrame) -> pl.DataFrame:
    return data.drop("id").with_columns(
        cs.enum().to_physical(), month=pl.col("sold").dt.month(), sold=pl.col("sold").dt.epoch("d")
    )


def train(X, y, params):
    return HistGradientBoostingRegressor(max_iter=30, max_leaf_nodes=7, random_state=0, early_stopping=False).fit(X, y)
"""


def regression(n: int = 700) -> Table:
    """House prices: nulls, a date, free text that no feature uses."""
    rng = np.random.default_rng(1)
    from datetime import date, timedelta

    area, days = rng.uniform(30, 200, n), rng.integers(0, 1500, n)
    kind = rng.integers(0, 2, n)
    price = 2000 * area + 30_000 * kind + 20 * days + rng.normal(0, 30_000, n)
    frame = pl.DataFrame(
        {
            "id": pl.Series(range(n), dtype=pl.Int64),
            "area": pl.Series([None if rng.random() < 0.05 else float(a) for a in area], dtype=pl.Float64),
            "sold": pl.Series([date(2020, 1, 1) + timedelta(int(d)) for d in days], dtype=pl.Date),
            "kind": pl.Series([["flat", "house"][k] for k in kind], dtype=pl.Enum(["flat", "house"])),
            "price": pl.Series(price, dtype=pl.Float64),
        }
    )
    contract = _contract(
        {
            "id": 'type = "int"\nrole = "entity"',
            "area": 'type = "float"\nnulls = true\nrange = [0.0, 10000.0]',
            "sold": 'type = "date"',
            "kind": 'type = "category"\nvalues = ["flat", "house"]\nunseen = "reject"',
            "price": 'type = "float"\nrole = "target"',
        }
    )
    settings = (
        'format = 1\nname = "price"\ntask = "regression"\ntarget = "price"\nentity = "id"\n[data]\nsource = "p.csv"\n'
    )
    return Table(settings, contract, frame, {}, REGRESSION_MODEL)


MULTICLASS_MODEL = """
import polars as pl
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def features(data: pl.DataFrame) -> pl.DataFrame:
    return data.select(pl.col("length", "width").clip(-1e6, 1e6), pl.col("age").cast(pl.Float64))


def train(X, y, params):
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(X.to_numpy(), y.to_numpy())


def predict(model, X):
    return model.predict_proba(X.to_numpy())
"""


def multiclass(n: int = 600) -> Table:
    """Three kinds told apart by two lengths, without an entity; the Python object itself serves."""
    rng = np.random.default_rng(2)
    kind = rng.integers(0, 3, n)
    frame = pl.DataFrame(
        {
            "length": pl.Series(4 + 1.2 * kind + rng.normal(0, 0.8, n), dtype=pl.Float64),
            "width": pl.Series(2 + 0.5 * kind + rng.normal(0, 0.5, n), dtype=pl.Float64),
            "age": pl.Series(rng.integers(1, 9, n), dtype=pl.Int64),
            "kind": pl.Series([["ash", "elm", "oak"][k] for k in kind], dtype=pl.Enum(["ash", "elm", "oak"])),
        }
    )
    contract = _contract(
        {
            "length": 'type = "float"\nseen = [1.0, 9.0]',
            "width": 'type = "float"\nseen = [0.5, 5.0]',
            "age": 'type = "int"\nseen = [1, 9]',
            "kind": 'type = "category"\nrole = "target"\nvalues = ["ash", "elm", "oak"]',
        }
    )
    settings = 'format = 1\nname = "trees"\ntask = "multiclass"\ntarget = "kind"\n[data]\nsource = "t.csv"\n'
    return Table(settings, contract, frame, {}, MULTICLASS_MODEL)


VIEW_MODEL = """
import polars as pl
import polars.selectors as cs
from sklearn.ensemble import HistGradientBoostingClassifier

import fairway


@fairway.view(source="departures", entity="origin", window="2h")
def recent_delay(departures: pl.DataFrame) -> pl.DataFrame:
    return departures.group_by("origin", "at").agg(recent_delay=pl.col("delay").mean())


def features(data: pl.DataFrame) -> pl.DataFrame:
    return data.drop("id", "decide_at").with_columns(cs.enum().to_physical())


def train(X, y, params):
    return HistGradientBoostingClassifier(max_iter=20, max_leaf_nodes=7, random_state=0, early_stopping=False).fit(X, y)
"""


def flights(n: int = 800) -> Table:
    """Late flights: departures of the last two hours from the same origin, known when they happen."""
    from datetime import UTC, datetime, timedelta

    rng = np.random.default_rng(3)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    minutes = np.sort(rng.integers(0, 60 * 24 * 20, n))
    origin = rng.integers(0, 2, n)
    busy = np.sin(minutes / 300.0) * 12 + 6
    delay = busy + rng.normal(0, 6, n)
    late = rng.random(n) < 1 / (1 + np.exp(-(busy - 8) / 4))
    at = [start + timedelta(minutes=int(m)) for m in minutes]
    names = [["PDX", "SEA"][o] for o in origin]
    frame = pl.DataFrame(
        {
            "id": [f"f{i}" for i in range(n)],
            "decide_at": pl.Series(at, dtype=_UTC),
            "origin": pl.Series(names, dtype=pl.Enum(["PDX", "SEA"])),
            "distance": pl.Series(rng.uniform(100, 2500, n), dtype=pl.Float64),
            "late": pl.Series(["yes" if x else "no" for x in late], dtype=pl.Enum(["no", "yes"])),
        }
    )
    left = [a + timedelta(minutes=7) for a in at]
    events = pl.DataFrame(
        {
            "id": [f"f{i}" for i in range(n)],
            "left_at": pl.Series(left, dtype=_UTC),
            "origin": pl.Series(names, dtype=pl.Enum(["PDX", "SEA"])),
            "delay": pl.Series(delay, dtype=pl.Float64),
            "_known_at": pl.Series(left, dtype=_UTC),
        }
    )
    contract = _contract(
        {
            "id": 'type = "string"\nrole = "entity"',
            "decide_at": 'type = "datetime"\nrole = "at"',
            "origin": 'type = "category"\nvalues = ["PDX", "SEA"]',
            "distance": 'type = "float"\nseen = [100.0, 2500.0]',
            "late": 'type = "category"\nrole = "target"\nvalues = ["no", "yes"]',
        },
        {
            "departures": {
                "id": 'type = "string"', "left_at": 'type = "datetime"',
                "origin": 'type = "category"\nvalues = ["PDX", "SEA"]', "delay": 'type = "float"\nnulls = true',
            }
        },
    )  # fmt: skip
    settings = (
        'format = 1\nname = "late"\ntask = "binary"\ntarget = "late"\npositive = "yes"\nentity = "id"\n'
        'at = "decide_at"\n'
        '[data]\nsource = "f.parquet"\n[sources.departures]\npath = "d.parquet"\nat = "left_at"\nkey = "id"\n'
        "[endpoint]\nat_from_caller = true\n"
    )
    return Table(settings, contract, frame, {"departures": events}, VIEW_MODEL)


HONEST: dict[str, Callable[[], Table]] = {
    "binary": binary, "regression": regression, "multiclass": multiclass, "views": flights,
}  # fmt: skip
