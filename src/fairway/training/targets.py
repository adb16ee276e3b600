"""The target as the numbers that train() gets."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway.contract.classes import class_name, class_names
from fairway.contract.columns import Column
from fairway.contract.settings import Settings
from fairway.errors import DataError


def encode(values: pl.Series, column: Column, settings: Settings) -> tuple[pl.Series, tuple[str, ...]]:
    """(y, classes). Binary: 0/1 as Int8, 1 is settings.positive; multiclass: Int32 codes by `classes`; regression:
    Float64 and no classes. classes: their names, the negative one first for binary.

    Raises: DataError for a null, a class that the contract does not list, or a number that is not finite.
    """
    if values.null_count():
        raise DataError(f"{values.null_count():,} rows have no value; a training row needs one", column=column.name)
    if settings.task == "regression":
        numbers = values.cast(pl.Float64)
        if not numbers.is_finite().all():
            raise DataError("it holds NaN or an infinity", column=column.name)
        return numbers, ()
    names = [class_name(v) for v in values.to_list()]
    classes = class_names(column)
    if settings.task == "binary" and settings.positive is not None:
        classes = (*(c for c in classes if c != settings.positive), settings.positive)
    codes = {name: place for place, name in enumerate(classes)}
    strange = next((name for name in names if name not in codes), None)
    if strange is not None:
        raise DataError(f"class {strange!r} is not in contract.toml ({', '.join(classes)})", column=column.name)
    dtype = pl.Int8 if settings.task == "binary" else pl.Int32
    return pl.Series(values.name, [codes[name] for name in names], dtype=dtype), classes


def check_classes(y: NDArray[np.int64], test: NDArray[np.bool_], classes: tuple[str, ...], target: str) -> None:
    """Every class must be there to learn from and to be judged on. Raises: DataError with the class and its rows."""
    for code, name in enumerate(classes):
        learned, judged = int((y[~test] == code).sum()), int((y[test] == code).sum())
        if not learned or not judged:
            where = "to train on" if not learned else "among the held-out rows"
            raise DataError(
                f"class {name!r} has {learned + judged:,} rows, and none {where}; add rows, "
                "or change [split] in fairway.toml",
                column=target,
            )
