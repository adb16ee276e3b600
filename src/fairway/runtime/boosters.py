"""LightGBM, XGBoost and CatBoost models in their libraries' own formats: text, JSON and cbm. Nothing unpickles."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway._optional import need
from fairway.contract.settings import Task
from fairway.errors import ModelCodeError, TamperFound

FILES = {"lightgbm": "model.txt", "xgboost": "model.json", "catboost": "model.cbm"}
_TYPES = {
    "lightgbm": ("Booster", "LGBMClassifier", "LGBMRegressor"),
    "xgboost": ("Booster", "XGBClassifier", "XGBRegressor", "XGBRFClassifier", "XGBRFRegressor"),
    "catboost": ("CatBoost", "CatBoostClassifier", "CatBoostRegressor"),
}
_OF_THE_DAY = ("model_guid", "train_finish_time")  # of a cbm file: they differ between two equal trainings


def library_of(model: Any) -> str | None:
    """lightgbm, xgboost or catboost when the object is exactly of one of their classes that can be stored."""
    kind = type(model)
    library = kind.__module__.split(".")[0]
    return library if kind.__name__ in _TYPES.get(library, ()) else None


def save(model: Any, folder: Path) -> list[str]:
    """Write the model's file; returns its type as the manifest names it. Equal models give equal bytes."""
    library = str(library_of(model))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILES[library]
    if library == "lightgbm":
        booster = model if type(model).__name__ == "Booster" else model.booster_
        path.write_text(booster.model_to_string(), encoding="utf-8")
    elif library == "xgboost":
        model.save_model(path)
    else:
        kept = model.copy()
        notes = kept.get_metadata()
        for name in _OF_THE_DAY:
            with contextlib.suppress(KeyError):
                del notes[name]
        kept.save_model(str(path), format="cbm")
    return [f"{library}.{type(model).__name__}"]


def load(folder: Path, kind: str, types: list[str], *, classes: int) -> Any:
    """The object of a class that `save` can store, made by its library from its own file; it predicts on one thread.

    Raises: TamperFound for a class that is not in the list, MissingExtra without the library.
    """
    name = types[0].partition(".")[2] if len(types) == 1 else ""
    if name not in _TYPES[kind] or types != [f"{kind}.{name}"]:
        raise TamperFound(f"the manifest names {', '.join(types) or 'no type'}, which is none of {kind}'s")
    library = need(kind, extra=kind)
    path = folder / FILES[kind]
    if kind == "lightgbm":
        return _lightgbm(library, name, path.read_text(encoding="utf-8"), classes)
    model = getattr(library, name)()
    model.load_model(str(path))
    if kind == "xgboost":
        # Two OpenMP threads on one core turn microseconds of a single row into milliseconds.
        model.set_param({"nthread": 1}) if name == "Booster" else model.set_params(n_jobs=1)
    return model


def _lightgbm(library: Any, name: str, text: str, classes: int) -> Any:
    booster = library.Booster(model_str=text)
    if name == "Booster":
        return booster
    model = getattr(library, name)(n_jobs=1)
    # LightGBM reads back only boosters; its wrapper keeps nothing else that a prediction needs. The proof compares it.
    model._Booster, model.fitted_, model._n_features = booster, True, booster.num_feature()
    model._n_features_in, model._objective = booster.num_feature(), booster.dump_model(0, 0).get("objective")
    if name == "LGBMClassifier":
        model._n_classes, model._classes = classes, np.arange(classes)
        model._le = _Codes()
    return model


class _Codes:
    """What LGBMClassifier asks of its label encoder: classes are their codes here."""

    def inverse_transform(self, codes: NDArray[Any]) -> NDArray[Any]:
        return codes


def answers(model: Any, task: Task) -> Callable[[Any], Any] | None:
    """How a model that has no predict_proba() of its own (a bare booster) answers for a frame or a matrix; else None.

    A bare booster's own objective must give probabilities.
    """
    library, name = library_of(model), type(model).__name__
    if library == "lightgbm" and name == "Booster":
        return lambda X: model.predict(X, num_threads=1)
    if library == "xgboost" and name == "Booster":
        return lambda X: model.inplace_predict(X, validate_features=not isinstance(X, np.ndarray))
    if library == "catboost" and name == "CatBoost":
        form = "RawFormulaVal" if task == "regression" else "Probability"
        return lambda X: model.predict(X, prediction_type=form)
    return None


def by_matrix(model: Any, task: Task) -> Callable[[NDArray[np.float64]], Any]:
    """The quickest way to ask the model for rows that are all numbers: without a frame and its names."""
    library = library_of(model)
    if library == "lightgbm":
        booster = model if type(model).__name__ == "Booster" else model.booster_
        return lambda matrix: booster.predict(matrix, num_threads=1)
    own = answers(model, task)
    if own is not None:
        return own
    method = model.predict if task == "regression" else model.predict_proba
    if library == "catboost":
        return lambda matrix: method(matrix, thread_count=1)
    return lambda matrix: method(matrix)


def refuse_unread(library: str, X: pl.DataFrame) -> None:
    """Raises: ModelCodeError for a column type on which LightGBM would end the whole process."""
    if library != "lightgbm":
        return
    for name, dtype in X.schema.items():
        if not (dtype.is_numeric() or dtype == pl.Boolean):
            raise ModelCodeError(
                f"feature {name} is {dtype}: LightGBM aborts on it; give it numbers, of an Enum "
                f'pl.col("{name}").to_physical()'
            )
