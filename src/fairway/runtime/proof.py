"""Which runtime a trained model gets: the quickest that equals the Python object on held-out and on extreme rows.

treelite for tree ensembles of scikit-learn, LightGBM and XGBoost; the own file of LightGBM, XGBoost or CatBoost; the
project's save() and load(), or its load() alone for a module of PyTorch; else the Python object itself, as skops.
"""

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway import clock
from fairway.contract.settings import Task
from fairway.errors import ModelCodeError, TamperFound
from fairway.runtime import boosters, modules, objects
from fairway.runtime.code import MODEL, Code
from fairway.runtime.formats import refuse_pickles
from fairway.runtime.runtimes import (
    FLOAT32_MAX,
    OBJECT,
    Floats,
    ObjectRuntime,
    Runtime,
    TreeliteRuntime,
    is_number,
    load_runtime,
)

TOLERANCE = 1e-9
EXTREME_ROWS = 600
_FLOAT32_MODELS = ("ensemble._forest", "ensemble._gb", "tree._classes")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen runtime, what the manifest says of it, and timings, which would make an artifact's hash differ."""

    runtime: Runtime
    manifest: dict[str, Any]
    ms_per_row: dict[str, float] = field(default_factory=dict)


def choose(
    model: Any,
    code: Code,
    folder: Path,
    *,
    task: Task,
    classes: int,
    train: pl.DataFrame,
    heldout: pl.DataFrame,
    outputs: Floats,
    seed: int = 0,
) -> Choice:
    """Store the model in `folder` and choose what answers for it.

    train, heldout: feature frames. outputs: the Python object's, on `heldout`.
    Raises: ModelCodeError when the model can be stored in no way.
    """
    python = ObjectRuntime(model, code, task=task, classes=classes)
    if code.has("save") or code.has("load"):
        manifest = _own_format(model, code, folder)
        return _finished(manifest, folder, code, task, classes, heldout, {})
    if modules.is_module(model):
        raise ModelCodeError(modules.advice(model))
    candidate = _treelite(model, code, python, task, train, heldout, outputs, seed)
    if not isinstance(candidate, str):
        trees, found, extreme = candidate
        trees.save(folder)
        times = {"python": _ms_per_row(python, heldout)}
        reason = f"equal to {_short(found)} on {heldout.height:,} held-out and {extreme:,} extreme rows"
        facts = {"kind": "treelite", "chosen": True, "why": reason, "max_diff": found}
        return _finished(_manifest("treelite", reason, [facts]), folder, code, task, classes, heldout, times)
    refused = {"kind": "treelite", "chosen": False, "why": candidate}
    library = boosters.library_of(model)
    if library is not None:
        own = _own_file(model, library, code, python, folder, task, classes, heldout, outputs, seed)
        manifest = own | {"candidates": [refused, *own["candidates"]]}
        times = {"python": _ms_per_row(python, heldout)}
        return _finished(manifest, folder, code, task, classes, heldout, times)
    types = objects.dump(model, folder / OBJECT)
    manifest = _manifest("python", f"treelite: {candidate}", [refused]) | {"types": types}
    return _finished(manifest, folder, code, task, classes, heldout, {})


def _manifest(kind: str, reason: str, candidates: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": kind, "reason": reason, "candidates": candidates, "types": []}


def _finished(
    manifest: dict[str, Any], folder: Path, code: Code, task: Task, classes: int, heldout: pl.DataFrame,
    times: dict[str, float],
) -> Choice:  # fmt: skip
    runtime = load_runtime(manifest, folder, code, task=task, classes=classes)
    name = "python" if manifest["kind"] == "project" else manifest["kind"]
    return Choice(runtime=runtime, manifest=manifest, ms_per_row=times | {name: _ms_per_row(runtime, heldout)})


def _own_format(model: Any, code: Code, folder: Path) -> dict[str, Any]:
    """The manifest of a model that the project itself reads: written by its save(), or the tensors of a module."""
    folder.mkdir(parents=True, exist_ok=True)
    code.function("load")  # a model that can only be saved can't serve
    if modules.is_module(model) and not code.has("save"):
        modules.save(model, folder)
        return _manifest("project", f"tensors in {modules.WEIGHTS}; model.py has load()", [])
    code.function("save")(model, folder)
    try:
        refuse_pickles(folder)
    except TamperFound as exc:
        raise ModelCodeError(f"{MODEL}, save(): {exc}") from exc
    if not any(path.is_file() for path in folder.rglob("*")):
        raise ModelCodeError(f"{MODEL}, save(model, folder) wrote nothing into the folder")
    return _manifest("project", "model.py has save() and load()", [])


def _own_file(
    model: Any, library: str, code: Code, python: ObjectRuntime, folder: Path, task: Task, classes: int,
    heldout: pl.DataFrame, outputs: Floats, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """The manifest of a booster in its library's file: fed with bare numbers where that changes nothing, else frames.

    Raises: ModelCodeError when what is read back answers otherwise.
    """
    types, tried = boosters.save(model, folder), []
    numbers = not code.has("predict") and all(is_number(dtype) for dtype in heldout.dtypes)
    rows = extreme_rows(heldout, {}, set(), float32=True, nulls=True, seed=seed) if numbers else heldout[:0]
    try:
        expected = _quietly(python, rows) if rows.height else None
    except Exception:  # whatever its library says of such rows, both ways of asking are the library's own
        expected = None
    for feed in ("matrix", "frame") if numbers else ("frame",):
        manifest = _manifest(library, "", []) | {"types": types, "feed": feed}
        try:
            runtime = load_runtime(manifest, folder, code, task=task, classes=classes)
            differences = [runtime.predict(heldout) - outputs]
            if expected is not None and feed == "matrix":
                differences.append(_quietly(runtime, rows) - expected)
        except Exception as exc:  # its library may refuse bare numbers, as CatBoost does for categories
            tried.append(f"{feed}: {str(exc).splitlines()[0][:200] if str(exc) else type(exc).__name__}")
            continue
        largest = max(float(np.abs(d).max(initial=0.0)) for d in differences)
        if largest <= TOLERANCE * max(1.0, float(np.abs(outputs).max(initial=0.0))):
            count = f"{heldout.height:,} held-out" + (f" and {rows.height:,} extreme" if len(differences) > 1 else "")
            reason = f"its own file, equal to {_short(largest)} on {count} rows"
            facts = {"kind": library, "feed": feed, "chosen": True, "why": reason, "max_diff": largest}
            return manifest | {"reason": reason, "candidates": [*_refused(library, tried), facts]}
        tried.append(f"{feed}: differs by {_short(largest)}")
    raise ModelCodeError(
        f"{type(model).__name__} answers otherwise once it is read back from {library}'s own file "
        f"({'; '.join(tried)}); add save(model, folder) and load(folder) to {MODEL}"
    )


def _refused(kind: str, tried: list[str]) -> list[dict[str, Any]]:
    return [{"kind": kind, "chosen": False, "why": why} for why in tried]


def _treelite(
    model: Any, code: Code, python: ObjectRuntime, task: Task, train: pl.DataFrame, heldout: pl.DataFrame,
    outputs: Floats, seed: int,
) -> tuple[TreeliteRuntime, float, int] | str:  # fmt: skip
    """The proven runtime, its largest difference and the extreme rows tried; or why there is none."""
    if code.has("predict"):
        return "model.py has its own predict()"
    module = type(model).__module__
    library = boosters.library_of(model)
    if not module.startswith("sklearn.ensemble") and library not in ("lightgbm", "xgboost"):
        return f"{type(model).__name__} is not one of its tree ensembles"
    strange = [name for name, dtype in heldout.schema.items() if not is_number(dtype)]
    if strange:
        return f"feature {strange[0]} is {heldout.schema[strange[0]]}, not a number"
    import treelite

    try:
        with warnings.catch_warnings():
            # The importer casts the list of a column's categories to integers, and a null is one of them.
            warnings.filterwarnings("ignore", "invalid value encountered in cast", RuntimeWarning)
            trees = _imported(model, library)
    except (treelite.TreeliteError, NotImplementedError, ValueError, AttributeError, TypeError) as exc:
        return f"can't import {type(model).__name__}: {str(exc).splitlines()[0][:200]}"
    post = trees.get_header_accessor().get_field("postprocessor")
    splits, categorical = _splits(trees)
    known = {
        place: sorted(float(code) for code in train.to_series(place).drop_nulls().unique()) for place in categorical
    }
    meta = {
        "task": task,
        "float32": library == "xgboost" or any(part in module for part in _FLOAT32_MODELS),
        "nulls": True,
        # Single precision is what XGBoost's own softmax has.
        "post": "softmax" if library != "xgboost" and post == "softmax" else "own",
        # To LightGBM a code that it has not seen is just in no list, and to treelite too.
        "categories": {} if library else {str(place): codes for place, codes in known.items()},
        "infinite": bool(library),
    }
    runtime = TreeliteRuntime(trees, meta)
    rows = extreme_rows(heldout, splits, categorical, float32=bool(meta["float32"]), nulls=True, seed=seed)
    try:
        expected = _quietly(python, rows)
    except Exception:  # scikit-learn's models refuse nulls with all kinds of errors; without nulls they must answer
        rows = extreme_rows(heldout, splits, categorical, float32=bool(meta["float32"]), nulls=False, seed=seed)
        meta["nulls"] = False
        try:
            expected = _quietly(python, rows)
        except Exception as exc:  # the object can't answer, so there is nothing to be equal to
            return f"the Python object refuses extreme rows: {str(exc).splitlines()[0][:200]}"
    try:
        differences = [runtime.predict(heldout) - outputs, runtime.predict(rows) - expected]
    except ModelCodeError as exc:
        return f"it refuses what the Python object answers: {exc}"
    scale = max(1.0, float(np.abs(outputs).max(initial=0.0)))  # of a regression; a probability's is 1
    for name, difference in zip(("held-out", "extreme"), differences, strict=True):
        largest = float(np.abs(difference).max(initial=0.0)) if np.isfinite(difference).all() else np.inf
        if largest > TOLERANCE * scale:
            return f"differs by {_short(largest)} on {name} rows"
    return runtime, max(float(np.abs(d).max(initial=0.0)) for d in differences), rows.height


def _quietly(runtime: Runtime, rows: pl.DataFrame) -> Floats:
    """NumPy's warnings about sums of values near the end of a type say nothing about the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return runtime.predict(rows)


def _imported(model: Any, library: str | None) -> Any:
    import treelite

    if library is None:
        return treelite.sklearn.import_model(model)
    if library == "xgboost":
        booster = model if type(model).__name__ == "Booster" else model.get_booster()
        return _base_first(treelite.frontend.from_xgboost(booster))
    return treelite.frontend.from_lightgbm(model if type(model).__name__ == "Booster" else model.booster_)


def _base_first(trees: Any) -> Any:
    """XGBoost's trees, with each class's base score within its first tree.

    XGBoost adds up in single precision and begins with the base score; treelite would add it last, which differs.
    """
    header = trees.get_header_accessor()
    base, classes = header.get_field("base_scores"), header.get_field("class_id")
    if header.get_field("postprocessor") == "sigmoid":  # as XGBoost makes it of the share: in single precision
        share, one = (1 / (1 + np.exp(-base))).astype(np.float32), np.float32(1)
        base = -np.log((one / share - one).astype(np.float64))
    for number in range(len(base)):
        own = np.flatnonzero(classes == number)
        if not len(own):
            raise ValueError("its trees answer for all classes at once")
        tree = trees.get_tree_accessor(int(own[0]))
        tree.set_field("leaf_value", tree.get_field("leaf_value") + np.float32(base[number]))
    header.set_field("base_scores", np.zeros_like(base))
    return trees


def _splits(trees: Any) -> tuple[dict[int, NDArray[Any]], set[int]]:
    """Thresholds by column number, and the numbers of the columns that some tree splits by category."""
    columns, values = [], []
    categorical: set[int] = set()
    for number in range(trees.num_tree):
        tree = trees.get_tree_accessor(number)
        kind, column = tree.get_field("node_type"), tree.get_field("split_index")
        threshold = tree.get_field("threshold")
        columns.append(column[kind == 1])
        values.append(threshold[kind == 1])
        categorical.update(int(c) for c in np.unique(column[kind == 2]))
    place = np.concatenate(columns) if columns else np.empty(0, dtype=np.int64)
    value = np.concatenate(values).astype(np.float64) if values else np.empty(0)
    finite = np.isfinite(value)
    return {int(c): np.unique(value[finite & (place == c)]) for c in np.unique(place)}, categorical


def extreme_rows(
    base: pl.DataFrame, splits: dict[int, NDArray[Any]], categorical: set[int], *, float32: bool, nulls: bool, seed: int
) -> pl.DataFrame:
    """Held-out rows with one to three values, or all, put on split points, beside them, or at the ends of the type."""
    rng = np.random.default_rng(seed)
    n = EXTREME_ROWS
    picks = rng.integers(0, base.height, size=n)
    width = base.width
    replaced = np.zeros((n, width), dtype=bool)
    for row in range(n):
        replaced[row, rng.choice(width, size=min(width, int(rng.integers(1, 4))), replace=False)] = True
    replaced[-n // 10 :] = True
    made = []
    for place, column in enumerate(base.get_columns()):
        pool = _pool(column, splits.get(place), place in categorical, float32)
        values = column.gather(picks).to_list()
        chosen = rng.integers(0, len(pool), size=n)
        out = [pool[int(chosen[row])] if replaced[row, place] else values[row] for row in range(n)]
        if not nulls:
            out = [value if value is not None else pool[0] for value in out]
        made.append(pl.Series(column.name, out, dtype=column.dtype))
    return pl.DataFrame(made)


def _pool(column: pl.Series, splits: NDArray[Any] | None, categorical: bool, float32: bool) -> list[Any]:
    dtype = column.dtype
    if dtype == pl.Boolean:
        return [False, True, None]
    if categorical:
        last = int(column.max() or 0)  # type: ignore[arg-type]
        return [*range(min(last + 2, 200)), 254, None]
    points = [] if splits is None else [float(s) for s in splits[:: max(1, len(splits) // 40)]]
    if dtype.is_float():
        big = FLOAT32_MAX if float32 or dtype == pl.Float32 else 1e308
        beside = [math.nextafter(p, side) for p in points for side in (math.inf, -math.inf)]
        return [0.0, -0.0, big, -big, 1e-308, -1e-308, 2.0**53 + 2, *points, *beside, None]
    low, high = (int(pl.select(end).item()) for end in (dtype.min(), dtype.max()))  # type: ignore[attr-defined]
    whole = {0, 1, low, high, 2**53 + 1, -1, *(math.floor(p) for p in points), *(math.ceil(p) for p in points)}
    return [*sorted(v for v in whole if low <= v <= high), None]


def _ms_per_row(runtime: Runtime, heldout: pl.DataFrame) -> float:
    """Median of single-row calls, at most 20 calls and about 50 ms."""
    times: list[float] = []
    rows = min(20, heldout.height)
    for row in range(rows):
        start = clock.elapsed()
        runtime.predict(heldout.slice(row, 1))
        times.append((clock.elapsed() - start) * 1000)
        if sum(times) > 50 and len(times) >= 3:
            break
    return round(float(np.median(times)), 4)


def _short(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-") if value else "0"
