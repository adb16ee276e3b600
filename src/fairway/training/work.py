"""What a run does in its child process: features, training, runtime, rivals, importance. Runs the project's code.

Frames and arrays come and go as files in the run's folder; the payload and the result are JSON.
"""

import inspect
import json
import random
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway import clock
from fairway.contract.columns import Contract
from fairway.contract.settings import Settings
from fairway.data import views
from fairway.errors import ModelCodeError
from fairway.runtime import loader
from fairway.runtime.code import MODEL, Code, import_code
from fairway.runtime.package import HELDOUT_ROWS
from fairway.runtime.proof import choose
from fairway.runtime.runtimes import ObjectRuntime, Runtime, is_number
from fairway.runtime.wire import wire_rows
from fairway.training import simple

ENTRY = "fairway.training.work:features_and_train"
PREDICT_ENTRY = "fairway.training.work:predict_package"
IMPORTANCE_ROWS = 1_000
IMPORTANCE_S = 30.0  # more, and importance is said to be unknown
PROGRESS = "progress.jsonl"

Array = NDArray[Any]


def features_and_train(payload: dict[str, Any]) -> dict[str, Any]:
    """payload: folder (with frame.arrow, y.npy, test.npy, events/*.arrow, code/), settings, contract, classes, seed;
    looked: None, or the views' columns when looked.arrow and X.arrow of an earlier run are there already.

    Writes looked.arrow, X.arrow, outputs.npy, simple.npy, heldout.msgpack and model/.
    """
    folder, seed = Path(payload["folder"]), int(payload["seed"])
    settings, contract = read_values(payload)
    random.seed(seed)
    np.random.seed(seed)  # project code that draws from the global generator is repeatable so
    begun = clock.elapsed()
    code = import_code(folder / "code")
    code.function("features")
    code.function("train")
    imported = clock.elapsed() - begun
    begun = clock.elapsed()
    events = read_events(folder)
    if payload["looked"] is None:
        looked, X, schemas = make_features(code, settings, contract, pl.read_ipc(folder / "frame.arrow"), events)
        looked.write_ipc(folder / "looked.arrow")
        X.write_ipc(folder / "X.arrow")
    else:
        looked, X = pl.read_ipc(folder / "looked.arrow"), pl.read_ipc(folder / "X.arrow")
        schemas = payload["looked"]
    odd = {name: str(dtype) for name, dtype in X.schema.items() if not is_number(dtype)}
    _progress(folder, "features", clock.elapsed() - begun, columns=X.width, odd=odd)

    y, test = np.load(folder / "y.npy", allow_pickle=False), np.load(folder / "test.npy", allow_pickle=False)
    classes = len(payload["classes"])
    begun = clock.elapsed()
    model = fit(code, X.filter(~test), _series(y[~test], settings), settings.train)
    trained = clock.elapsed() - begun
    heldout = X.filter(test)
    python = ObjectRuntime(model, code, task=settings.task, classes=classes)
    outputs = python.predict(heldout)
    np.save(folder / "outputs.npy", outputs)
    _progress(folder, "train", trained, rows=int((~test).sum()))

    begun = clock.elapsed()
    choice = choose(
        model, code, folder / "model", task=settings.task, classes=classes, train=X.filter(~test), heldout=heldout,
        outputs=outputs, seed=seed,
    )  # fmt: skip
    _write_heldout(folder, code, settings, contract, looked.filter(test), heldout, events, choice.runtime, seed)
    packaged = clock.elapsed() - begun
    begun = clock.elapsed()
    inputs = _inputs(looked, contract)
    rival = simple.predict(
        settings.task, inputs.filter(~test), y[~test].astype(np.float64), inputs.filter(test), classes=classes
    )
    np.save(folder / "simple.npy", rival)
    importance, unknown = _importance(
        code, choice.runtime, looked.filter(test), X.columns, list(inputs.columns), y[test], settings, seed
    )
    return {
        "seconds": {"import": imported, "train": trained, "package": packaged, "rivals": clock.elapsed() - begun},
        "feature_columns": [[name, str(dtype)] for name, dtype in X.schema.items()],
        "schemas": {name: dict(schema) for name, schema in schemas.items()},
        "views": [
            {"name": v.name, "source": v.source, "entity": v.entity,
             "window_us": v.window_us, "latest": v.latest} for v in code.views
        ],
        "runtime": choice.manifest,
        "ms_per_row": choice.ms_per_row,
        "importance": importance,
        "importance_unknown": unknown,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }  # fmt: skip


def predict_package(payload: dict[str, Any]) -> dict[str, Any]:
    """Outputs of another version's package on the rows of payload["rows"], into payload["outputs"]."""
    model = loader.load(Path(payload["package"]), artifact=payload["artifact"])
    rows = pl.read_ipc(payload["rows"])
    wanted = [c.name for c in model.contract.request_columns]
    missing = [name for name in wanted if name not in rows.columns]
    if missing:
        raise ModelCodeError(f"it needs column {missing[0]!r}, which the data no longer have")
    events = {name: pl.read_ipc(path) for name, path in payload["events"].items()}
    typed = rows.select(wanted)
    np.save(payload["outputs"], model.predict(_as_known(typed, model.contract), events).outputs)
    return {"classes": list(model.manifest.classes)}


def _as_known(rows: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """Categories as that version's contract lists them: a newer value is one it has never seen."""
    made = [
        pl.col(c.name).cast(pl.String).cast(pl.Enum(c.values), strict=False)
        for c in contract.request_columns
        if c.type == "category"
    ]
    return rows.with_columns(made)


def read_values(payload: Mapping[str, Any]) -> tuple[Settings, Contract]:
    """Settings and contract from their JSON form, made by `write_values`."""
    return msgspec.convert(payload["settings"], Settings), msgspec.convert(payload["contract"], Contract)


def write_values(settings: Settings, contract: Contract) -> dict[str, Any]:
    return {"settings": msgspec.to_builtins(settings), "contract": msgspec.to_builtins(contract)}


def read_events(folder: Path) -> dict[str, pl.DataFrame]:
    """By source, from events/NAME.arrow."""
    return {path.stem: pl.read_ipc(path) for path in sorted((folder / "events").glob("*.arrow"))}


def make_features(
    code: Code, settings: Settings, contract: Contract, frame: pl.DataFrame, events: Mapping[str, pl.DataFrame]
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, views.Schema]]:
    """(rows as features() gets them, features, columns by view)."""
    looked = frame.select(c.name for c in contract.request_columns)
    schemas: dict[str, views.Schema] = {}
    if code.views:
        if settings.at is None:
            raise ModelCodeError(
                f"{MODEL}, view {code.views[0].name}() needs the prediction time: set `at` in fairway.toml"
            )
        event_at = {name: source.at for name, source in settings.sources.items()}
        looked, schemas = views.look_up(code.views, looked, events, at=settings.at, event_at=event_at)
    X = code.features(looked)
    if settings.target in X.columns:
        raise ModelCodeError(f"{MODEL}, features() returned the target {settings.target!r}")
    return looked, X, schemas


def fit(code: Code, X: pl.DataFrame, y: pl.Series, params: Mapping[str, Any]) -> Any:
    """The object that train() returns. Raises: ModelCodeError when it is None."""
    function = code.function("train")
    parameters = list(inspect.signature(function).parameters.values())
    if len(parameters) != 3:
        raise ModelCodeError(f"{MODEL}, train() takes {len(parameters)} parameters; write train(X, y, params)")
    given, labels = as_given(code, X, y)
    model = function(given, labels, dict(params))
    if model is None:
        raise ModelCodeError(f"{MODEL}, train() returned nothing; return the trained model")
    return model


def as_given(code: Code, X: pl.DataFrame, y: pl.Series) -> tuple[Any, Any]:
    """X and y as train() gets them: both of pandas when it is annotated so."""
    given = code.for_model(X)
    return given, (y if isinstance(given, pl.DataFrame) else y.to_pandas())


def _series(y: Array, settings: Settings) -> pl.Series:
    dtype = {"binary": pl.Int8, "multiclass": pl.Int32, "regression": pl.Float64}[settings.task]
    return pl.Series(settings.target, y, dtype=dtype)


def _inputs(looked: pl.DataFrame, contract: Contract) -> pl.DataFrame:
    """What the model's answer depends on from outside: without entity and prediction time."""
    roles = {c.name: c.role for c in contract.columns}
    return looked.select(name for name in looked.columns if roles.get(name) not in ("entity", "at"))


def _write_heldout(
    folder: Path, code: Code, settings: Settings, contract: Contract, looked: pl.DataFrame, X: pl.DataFrame,
    events: Mapping[str, pl.DataFrame], runtime: Runtime, seed: int,
) -> None:  # fmt: skip
    n = looked.height
    keep = np.sort(np.random.default_rng(seed).choice(n, min(n, HELDOUT_ROWS), replace=False))
    rows = looked.select(c.name for c in contract.request_columns)[keep]
    windows: list[dict[str, Any]] = [{view.source: [] for view in code.views} for _ in range(rows.height)]
    if code.views and settings.at is not None:
        event_at = {name: source.at for name, source in settings.sources.items()}
        found = views.windows_of(code.views, rows, events, at=settings.at, event_at=event_at)
        for source, frame in found.items():
            for row, event in zip(frame[views.ROW].to_list(), wire_rows(frame.drop(views.ROW)), strict=True):
                windows[row][source].append(event)
    heldout = {"rows": wire_rows(rows), "events": windows, "outputs": runtime.predict(X[keep]).tolist()}
    (folder / "heldout.msgpack").write_bytes(msgspec.msgpack.encode(heldout))


def _importance(
    code: Code, runtime: Runtime, looked: pl.DataFrame, features: list[str], inputs: list[str], y: Array,
    settings: Settings, seed: int,
) -> tuple[dict[str, float], str | None]:  # fmt: skip
    """Loss added when one input column is shuffled, on few rows; or why it is not known."""
    rng = np.random.default_rng(seed)

    def loss(frame: pl.DataFrame, labels: Array) -> float:
        out = runtime.predict(code.features(frame).select(features))
        if settings.task == "regression":
            return float(np.abs(out - labels).mean())
        if settings.task == "multiclass":
            return float(((out - np.eye(out.shape[1])[labels.astype(int)]) ** 2).sum(axis=1).mean())
        return float(((out - labels) ** 2).mean())

    # The rows don't depend on how fast this machine is: the package would differ, and so its identity.
    n = min(looked.height, IMPORTANCE_ROWS)
    try:
        begun = clock.elapsed()
        picks = np.sort(rng.choice(looked.height, n, replace=False))
        rows, labels = looked[picks], y[picks]
        base = loss(rows, labels)
        found: dict[str, float] = {}
        for name in inputs:
            if clock.elapsed() - begun > IMPORTANCE_S:
                return {}, f"the model takes too long: {len(found)} of {len(inputs)} columns in {IMPORTANCE_S:.0f} s"
            shuffled = rows.with_columns(rows[name].gather(rng.permutation(n)))
            found[name] = loss(shuffled, labels) - base
    except Exception as exc:  # shuffled rows may be impossible ones; the model is no worse for it
        return {}, f"the model fails on shuffled rows: {type(exc).__name__}: {exc}"[:300]
    return found, None


def explained(error: ModelCodeError, folder: Path, packages: Sequence[str]) -> ModelCodeError:
    """The error of a training, with the reason where LightGBM has ended the process: it says nothing itself."""
    path = folder / PROGRESS
    if "SIGABRT" not in str(error) or "lightgbm" not in {name.split(".")[0] for name in packages} or not path.is_file():
        return error
    told = [json.loads(line) for line in path.read_text().splitlines()]
    odd: dict[str, str] = next((t["odd"] for t in told if t["step"] == "features"), {})
    if not odd:
        return error
    name, dtype = next(iter(odd.items()))
    more = f", and so are {len(odd) - 1} more" if len(odd) > 1 else ""
    return ModelCodeError(
        f"{error}: LightGBM aborts on Polars columns that are no numbers. {name} is {dtype[:60]}{more}; give it codes: "
        f'pl.col("{name}").to_physical() of an Enum, or annotate train(X: pd.DataFrame, ...)',
        trace=error.trace,
    )


def _progress(folder: Path, step: str, seconds: float, **facts: Any) -> None:
    with (folder / PROGRESS).open("a") as file:
        file.write(json.dumps({"step": step, "seconds": seconds, **facts}) + "\n")
