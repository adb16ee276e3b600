"""Columns whose values are lists of numbers (vectors) or bytes (images)."""

import numpy as np
import polars as pl

from fairway.contract.columns import Column
from fairway.contract.formats import unpacked
from fairway.contract.parsed import Parsed, refused, result

_NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
LISTED = rf"^\[\s*{_NUMBER}(?:\s*,\s*{_NUMBER})*\s*\]$"  # a vector in a CSV file: "[0.5, 1, -2e3]"


def vector(series: pl.Series, column: Column) -> Parsed:
    """Lists of exactly `column.length` finite numbers, as pl.Array: NumPy takes it as a matrix without a copy per row.

    Text such as "[0.5, 1]" is read too, for CSV files.
    """
    length = column.length or 1
    dtype = pl.Array(pl.Float64(), length)
    wrong = f"a list of {length:,} finite numbers"
    lists = as_lists(series)
    if lists is None:
        return refused(series, dtype, f"{wrong} (the table has {series.dtype})")
    return result(series, fitted(lists, length), wrong)


def as_lists(series: pl.Series) -> pl.Series | None:
    """The column as lists of floats, null where it holds none; None when its kind can't hold any."""
    if series.dtype == pl.String:
        return _listed(series)
    if isinstance(series.dtype, pl.Array):
        series = series.arr.to_list()
    if not isinstance(series.dtype, pl.List):
        return None
    inner = series.dtype.inner
    if not (inner.is_numeric() or inner == pl.Null):  # type: ignore[attr-defined, unused-ignore]
        return None
    return series.cast(pl.List(pl.Float64), strict=False)


def _listed(series: pl.Series) -> pl.Series:
    fits = series.str.contains(LISTED).fill_null(False)
    plain = series.set(~fits, None).str.replace_all(r"[\[\]\s]", "")
    return plain.str.split(",").cast(pl.List(pl.Float64), strict=False)


def fitted(lists: pl.Series, length: int) -> pl.Series:
    """Lists of floats as arrays of `length`; null where a list is shorter, longer, or holds a null, NaN or infinity."""
    same = (lists.list.len() == length).fill_null(False)
    frame = pl.DataFrame({"lists": lists, "same": same})
    arrays = frame.select(pl.when("same").then("lists")).to_series().cast(pl.Array(pl.Float64(), length))
    finite = np.isfinite(arrays.to_numpy()).all(axis=1) if len(arrays) else np.zeros(0, dtype=bool)
    return arrays.set(pl.Series(~finite, dtype=pl.Boolean), None).alias(lists.name)


def image(series: pl.Series) -> Parsed:
    """Bytes; base64 text in a CSV file; the `bytes` field of a struct, as data sets of images often have it."""
    wrong = "the bytes of an image"
    if isinstance(series.dtype, pl.Struct) and "bytes" in [f.name for f in series.dtype.fields]:
        series = series.struct.field("bytes").alias(series.name)
    if series.dtype == pl.String:
        values = [None if text is None else unpacked(text) for text in series]
        return result(series, pl.Series(series.name, values, dtype=pl.Binary), f"{wrong} in base64")
    if series.dtype != pl.Binary:
        return refused(series, pl.Binary(), f"{wrong} (the table has {series.dtype})")
    return result(series, series, wrong)
