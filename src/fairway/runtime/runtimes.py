"""What answers for a model: its trees through treelite, or the Python object. The faster one only by proof."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway.contract.settings import Task
from fairway.data.frames import as_asked
from fairway.errors import ModelCodeError
from fairway.runtime import boosters, objects
from fairway.runtime.code import MODEL, Code
from fairway.runtime.formats import refuse_pickles

Floats = NDArray[np.float64]

TREES = "trees.bin"
TREES_META = "trees.json"
OBJECT = "object.skops"
FLOAT32_MAX = float(np.finfo(np.float32).max)


class Runtime(Protocol):
    """Outputs for feature rows: (n,) P(positive) or value, (n, k) class probabilities; float64."""

    kind: str

    def predict(self, X: pl.DataFrame) -> Floats: ...


class TreeliteRuntime:
    """Tree ensembles in double precision, one thread; needs neither scikit-learn nor the project's classes.

    It refuses what the Python object refuses: infinities (unless `infinite`), nulls where `nulls` is false, and values
    beyond float32 where the model compares in that (`float32`). `categories`: by column number, the codes seen in
    training; another code is missing to scikit-learn, but would be just "not in the list" to treelite.
    """

    kind = "treelite"

    def __init__(self, trees: Any, meta: dict[str, Any]) -> None:
        self._trees, self._meta = trees, meta
        self._known = {
            int(place): np.asarray(sorted(codes), dtype=np.float64)
            for place, codes in meta["categories"].items()
            if codes
        }

    @classmethod
    def load(cls, folder: Path) -> "TreeliteRuntime":
        import treelite

        trees = treelite.Model.deserialize_bytes((folder / TREES).read_bytes())
        return cls(trees, json.loads((folder / TREES_META).read_text()))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TREES).write_bytes(self._trees.serialize_bytes())
        (folder / TREES_META).write_text(json.dumps(self._meta, sort_keys=True))

    def predict(self, X: pl.DataFrame) -> Floats:
        import treelite.gtil

        matrix = as_matrix(X)
        limit = FLOAT32_MAX if self._meta["float32"] else np.inf
        bad = np.abs(matrix) >= limit if limit == np.inf else np.abs(matrix) > limit
        if bad.any() and not self._meta.get("infinite"):
            row, place = (int(i) for i in np.argwhere(bad)[0])
            raise ModelCodeError(f"row {row}: feature {X.columns[place]} is {matrix[row, place]}, beyond the model")
        if not self._meta["nulls"] and np.isnan(matrix).any():
            row, place = (int(i) for i in np.argwhere(np.isnan(matrix))[0])
            raise ModelCodeError(f"row {row}: feature {X.columns[place]} is null, which this model can't take")
        if self._meta["float32"]:
            with np.errstate(over="ignore"):  # beyond it is infinite, where the model takes that
                matrix = matrix.astype(np.float32).astype(np.float64)
        for place, codes in self._known.items():
            column = matrix[:, place]
            near = codes[
                np.minimum(np.searchsorted(codes, column), len(codes) - 1)
            ]  # sorted; isin takes 5 times as long
            column[near != column] = np.nan
        post = self._meta["post"]
        raw = treelite.gtil.predict(self._trees, matrix, nthread=1, pred_margin=post == "softmax")
        out: Floats = np.asarray(raw, dtype=np.float64).reshape(len(matrix), -1)
        if post == "softmax":  # treelite's own softmax is in single precision
            out = np.exp(out - out.max(axis=1, keepdims=True))
            out /= out.sum(axis=1, keepdims=True)
        if self._meta["task"] == "binary":
            return np.ascontiguousarray(out[:, -1])
        return out if self._meta["task"] == "multiclass" else out[:, 0]


class ObjectRuntime:
    """The trained Python object: the project's predict(model, X) where there is one, else the object's own method."""

    kind = "python"

    def __init__(self, model: Any, code: Code, *, task: Task, classes: int) -> None:
        self.model, self._code, self._task, self._classes = model, code, task, classes

    def predict(self, X: pl.DataFrame) -> Floats:
        if self._code.has("predict"):
            function = self._code.function("predict")
            raw, who = function(self.model, as_asked(X, function, 1)), f"{MODEL}, predict()"
        elif (own := boosters.answers(self.model, self._task)) is not None:
            raw, who = own(as_matrix(X) if _all_numbers(X) else self._code.for_model(X)), "the model's predict()"
        elif self._task == "regression":
            raw, who = self._method("predict")(self._code.for_model(X)), "the model's predict()"
        else:
            raw, who = self._method("predict_proba")(self._code.for_model(X)), "the model's predict_proba()"
        return checked(raw, X.height, self._task, self._classes, who)

    @property
    def asks_polars(self) -> bool:
        """Whether the model itself is given Polars frames: no predict() stands between, and train() takes no pandas."""
        return not self._code.has("predict") and isinstance(self._code.for_model(pl.DataFrame()), pl.DataFrame)

    def _method(self, name: str) -> Any:
        method = getattr(self.model, name, None)
        if not callable(method):
            raise ModelCodeError(
                f"{MODEL}, train() returned {type(self.model).__name__}, which has no {name}(); "
                f"add predict(model, X) to {MODEL}"
            )
        return method


class BoosterRuntime:
    """A model of LightGBM, XGBoost or CatBoost, from its library's own file, on one thread.

    feed: "matrix" hands it bare numbers, "frame" the frame that train() got. The project's predict() goes before both.
    """

    def __init__(self, kind: str, model: Any, code: Code, *, task: Task, classes: int, feed: str) -> None:
        self.kind, self._feed, self._task, self._classes = kind, feed, task, classes
        self.object = ObjectRuntime(model, code, task=task, classes=classes)
        self._ask = boosters.by_matrix(model, task)

    def predict(self, X: pl.DataFrame) -> Floats:
        if self._feed == "frame":
            boosters.refuse_unread(self.kind if self.object.asks_polars else "", X)
            return self.object.predict(X)
        return checked(self._ask(as_matrix(X)), X.height, self._task, self._classes, "the model's predict()")


def checked(raw: Any, n: int, task: Task, classes: int, who: str) -> Floats:
    """Outputs in their one shape. Raises: ModelCodeError for a wrong shape or type, a value that is not finite, or a
    probability outside 0..1 (to 1e-9; rounding errors beyond the ends are cut off)."""
    if hasattr(raw, "detach"):  # a tensor of PyTorch may still want gradients, or lie elsewhere
        raw = raw.detach().cpu().numpy()
    elif isinstance(raw, pl.DataFrame | pl.Series) or hasattr(raw, "to_numpy"):
        raw = raw.to_numpy()
    try:
        out: Floats = np.array(raw, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise ModelCodeError(f"{who} returned {type(raw).__name__}, which is not an array of numbers") from exc
    if out.ndim == 2 and out.shape[1] == 1:
        out = out[:, 0]
    if task == "binary" and out.shape == (n, 2):
        out = np.ascontiguousarray(out[:, 1])
    wanted = (n, classes) if task == "multiclass" else (n,)
    if out.shape != wanted:
        raise ModelCodeError(f"{who} returned shape {out.shape} for {n} rows; expected {wanted}")
    bad = ~np.isfinite(out)
    if bad.any():
        raise ModelCodeError(f"{who} returned {out[bad][0]} in row {int(np.argwhere(bad)[0][0])}; it must be finite")
    if task != "regression":
        outside = (out < -1e-9) | (out > 1 + 1e-9)
        if outside.any():
            row = int(np.argwhere(outside)[0][0])
            raise ModelCodeError(f"{who} returned {out[outside][0]} in row {row}; a probability is within 0..1")
        out = np.clip(out, 0.0, 1.0)
    return out


def as_matrix(X: pl.DataFrame) -> Floats:
    """(n, columns) float64 with nulls as NaN. Raises: ModelCodeError for a column that is neither number nor bool."""
    matrix = np.empty((X.height, X.width), dtype=np.float64, order="C")
    for place, column in enumerate(X.get_columns()):
        if not is_number(column.dtype):
            raise ModelCodeError(f"feature {column.name} is {column.dtype}, not a number")
        matrix[:, place] = column.cast(pl.Float64).to_numpy()
    return matrix


def _all_numbers(X: pl.DataFrame) -> bool:
    return all(is_number(dtype) for dtype in X.dtypes)


def is_number(dtype: Any) -> bool:
    return bool(dtype.is_numeric() or dtype == pl.Boolean)


def load_runtime(manifest: Mapping[str, Any], folder: Path, code: Code, *, task: Task, classes: int) -> Runtime:
    """The runtime that a manifest's `runtime` names, from the package's model/ folder. No fall-back to another.

    The one place where a stored model becomes an object. Raises: TamperFound for a file of a format that could run
    code, or a type that the manifest does not allow.
    """
    kind, types = manifest["kind"], list(manifest.get("types", ()))
    refuse_pickles(folder)
    if kind == "treelite":
        return TreeliteRuntime.load(folder)
    if kind in boosters.FILES:
        found = boosters.load(folder, kind, types, classes=classes)
        return BoosterRuntime(kind, found, code, task=task, classes=classes, feed=manifest["feed"])
    if kind == "python":
        model = objects.load(folder / OBJECT, types)
    elif kind == "project":
        model = code.function("load")(folder)
    else:
        raise ModelCodeError(
            f"unknown runtime {kind!r}; this fairway has treelite, {', '.join(boosters.FILES)}, python and project"
        )
    return ObjectRuntime(model, code, task=task, classes=classes)
