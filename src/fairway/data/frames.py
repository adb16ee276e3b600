"""Frames at the border to project code: handed over as the kind that a function asks for, taken back as Polars."""

import inspect
from collections.abc import Callable
from typing import Any

import polars as pl

from fairway._optional import need
from fairway.errors import ModelCodeError


def as_asked(frame: pl.DataFrame, function: Callable[..., Any], place: int) -> Any:
    """The frame as pandas when the function's parameter at `place` is annotated so, else as it is."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return frame  # a callable without a signature was written in C, and asks for nothing
    if place >= len(parameters) or not _is_pandas(parameters[place].annotation):
        return frame
    need("pandas", extra="pandas")
    need("pyarrow", extra="pandas")
    return frame.to_pandas()


def as_polars(value: Any, who: str) -> pl.DataFrame:
    """A frame that project code returned, as Polars. Raises: ModelCodeError when it is none."""
    if isinstance(value, pl.DataFrame):
        return value
    if isinstance(value, pl.LazyFrame):
        return value.collect()
    if type(value).__module__.split(".")[0] == "pandas" and hasattr(value, "columns"):
        return pl.from_pandas(value.reset_index(drop=True))
    raise ModelCodeError(f"{who} returned {type(value).__name__}; expected a DataFrame")


def _is_pandas(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return annotation.replace("pandas.", "pd.") == "pd.DataFrame"
    return str(getattr(annotation, "__module__", "")).split(".")[0] == "pandas"
