"""The id of a dataset version: by content, so that the same rows written again get the same id."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway import fingerprint

_CHUNK_ROWS = 65_536


def sorted_rows(frame: pl.DataFrame, *, at: str | None, entity: str | None) -> pl.DataFrame:
    """Rows in the order that the id and training use: by time, entity, then all columns; nulls first."""
    first = [name for name in (at, entity) if name is not None]
    rest = [name for name in frame.columns if name not in first]
    return frame.sort(first + rest, nulls_last=False) if first + rest else frame


def dataset_id(frame: pl.DataFrame, *, at: str | None = None, entity: str | None = None) -> str:
    """ "data-" and 16 hex digits: SHA-256 over the schema, then each column's canonical bytes in chunks of rows.

    Canonical bytes of a chunk: one byte per row for null or not, then the values little-endian with nulls as zero
    (texts: byte lengths as 64-bit integers, then their UTF-8; categories as their texts; times as microseconds UTC).
    -0.0 counts as 0.0. Rows may come in any order; columns count by their name and order.

    >>> dataset_id(pl.DataFrame({"a": [1, 2], "b": ["x", None]}))
    'data-ffc365875f6e5e0c'
    """
    floats = pl.col(pl.Float64)
    clean = frame.with_columns(pl.when(floats == 0).then(0.0).otherwise(floats).name.keep())
    ordered = sorted_rows(clean, at=at, entity=entity)
    digest = hashlib.sha256(fingerprint.canonical(_schema(ordered)))
    for column in ordered.get_columns():
        for start in range(0, len(column), _CHUNK_ROWS):
            for part in _bytes(column.slice(start, _CHUNK_ROWS)):
                digest.update(part)
    return "data-" + digest.hexdigest()[:16]


def _schema(frame: pl.DataFrame) -> list[list[object]]:
    named: list[list[object]] = [["rows", frame.height]]
    for name, dtype in frame.schema.items():
        named.append([name, ["category", dtype.categories.to_list()] if isinstance(dtype, pl.Enum) else str(dtype)])
    return named


def _bytes(column: pl.Series) -> Sequence[bytes]:
    valid = column.is_not_null().cast(pl.UInt8).to_numpy().tobytes()
    if isinstance(column.dtype, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        text = column.fill_null("")
        lengths = text.str.len_bytes().cast(pl.Int64).to_numpy()
        return valid, _little(lengths), "".join(text.to_list()).encode()
    if isinstance(column.dtype, pl.Datetime):
        column = column.dt.timestamp("us")
    elif column.dtype == pl.Date:
        column = column.to_physical()
    elif column.dtype == pl.Boolean:
        column = column.cast(pl.UInt8)
    return valid, _little(column.fill_null(0).to_numpy())


def _little(values: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()
