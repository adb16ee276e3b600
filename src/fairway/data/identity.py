"""The id of a dataset version: by content, so that the same rows written again get the same id."""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway import fingerprint

_CHUNK_ROWS = 65_536
_THREADS = 2  # one makes bytes while the other's are hashed; more only take memory
_AHEAD = 8  # chunks of a column


def canonical(frame: pl.DataFrame, *, at: str | None, entity: str | None) -> pl.DataFrame:
    """The frame as its id sees it: -0.0 is 0.0, and rows in the order of `sorted_rows`."""
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    nested = [name for name, dtype in frame.schema.items() if _is_vector(dtype)]
    clean = frame.with_columns(
        *(
            pl.when(pl.col(name) == 0).then(0.0).otherwise(pl.col(name)).cast(frame.schema[name]).alias(name)
            for name in floats
        ),
        *(_map_inner(frame[name]) for name in nested),
    )
    return sorted_rows(clean, at=at, entity=entity)


def sorted_rows(frame: pl.DataFrame, *, at: str | None, entity: str | None) -> pl.DataFrame:
    """Rows in the order that the id and training use: by time, entity, then all columns; nulls first."""
    first = [name for name in (at, entity) if name is not None]
    if not frame.width:
        return frame
    if not first:
        return frame[_order(frame, frame.columns)] if _any_vector(frame) else frame.sort(frame.columns)
    frame = frame.sort(first, maintain_order=True)
    same = _same_as_before(frame, first)
    if not same.any():
        return frame
    # Only rows that tie in time and entity need the other columns, and they stand together already.
    tied = same | np.append(same[1:], False)
    places = np.flatnonzero(tied)
    rest = [name for name in frame.columns if name not in first]
    order = np.arange(frame.height)
    order[places] = places[_order(frame[places], first + rest)]
    return frame[order]


def duplicates(frame: pl.DataFrame) -> int:
    """Rows of a sorted frame that are equal to the row before them in every column."""
    return int(_same_as_before(frame, frame.columns).sum()) if frame.height else 0


def dataset_id(
    frame: pl.DataFrame, *, at: str | None = None, entity: str | None = None, is_canonical: bool = False
) -> str:
    """ "data-" and 16 hex digits: SHA-256 over the schema, then each column's canonical bytes in chunks of rows.

    Canonical bytes of a chunk: one byte per row for null or not, then the values little-endian with nulls as zero
    (texts and images: byte lengths as 64-bit integers, then their bytes; categories as their texts; vectors: lengths,
    then the same for their numbers; times as microseconds UTC). -0.0 counts as 0.0. Rows may come in any order; columns
    count by their name and order. is_canonical: the frame is what `canonical` gave.

    >>> dataset_id(pl.DataFrame({"a": [1, 2], "b": ["x", None]}))
    'data-ffc365875f6e5e0c'
    """
    ordered = frame if is_canonical else canonical(frame, at=at, entity=entity)
    return "data-" + _digest(ordered)[:16]


def content_hash(frame: pl.DataFrame) -> str:
    """SHA-256 over the same bytes as a dataset's id, with the rows as they come and of any column type."""
    odd = [name for name, dtype in frame.schema.items() if not _is_plain(dtype)]
    return _digest(frame.with_columns(pl.col(odd).cast(pl.String, strict=False)) if odd else frame)


def _digest(frame: pl.DataFrame) -> str:
    digest = hashlib.sha256(fingerprint.canonical(_schema(frame)))
    for parts in _chunks(frame):
        for part in parts:
            digest.update(part)
    return digest.hexdigest()


def _chunks(frame: pl.DataFrame) -> Iterator[Sequence[Any]]:
    """The bytes of every chunk in order, made a little ahead by other threads."""
    places = ((column, start) for column in frame.get_columns() for start in range(0, len(column), _CHUNK_ROWS))
    if frame.height <= _CHUNK_ROWS:
        yield from (_bytes(column.slice(start, _CHUNK_ROWS)) for column, start in places)
        return
    waiting: deque[Future[Sequence[Any]]] = deque()
    with ThreadPoolExecutor(_THREADS) as pool:
        for column, start in places:
            waiting.append(pool.submit(_bytes, column.slice(start, _CHUNK_ROWS)))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _schema(frame: pl.DataFrame) -> list[list[object]]:
    named: list[list[object]] = [["rows", frame.height]]
    for name, dtype in frame.schema.items():
        named.append([name, ["category", dtype.categories.to_list()] if isinstance(dtype, pl.Enum) else str(dtype)])
    return named


def _bytes(column: pl.Series) -> Sequence[Any]:
    valid = column.is_not_null().cast(pl.UInt8).to_numpy() if column.null_count() else b"\x01" * len(column)
    if isinstance(column.dtype, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        text = column.fill_null("")
        lengths = text.str.len_bytes().cast(pl.Int64).to_numpy()
        return valid, _little(lengths), (text.str.join("").item() or "").encode()
    if column.dtype == pl.Binary:
        data = column.fill_null(b"")
        return valid, _little(data.bin.size().cast(pl.Int64).to_numpy()), b"".join(data.to_list())
    if _is_vector(column.dtype):
        lists = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
        numbers = lists.drop_nulls().explode(empty_as_null=False) if len(lists) else pl.Series([], dtype=pl.Float64)
        lengths = lists.list.len().fill_null(0).cast(pl.Int64).to_numpy()
        return valid, _little(lengths), *_bytes(numbers)
    if isinstance(column.dtype, pl.Datetime):
        column = column.dt.timestamp("us")
    elif column.dtype == pl.Date:
        column = column.to_physical()
    elif column.dtype == pl.Boolean:
        column = column.cast(pl.UInt8)
    return valid, _little((column.fill_null(0) if column.null_count() else column).to_numpy())


def _little(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))


# -- columns that Polars neither sorts nor compares as a whole -------------------------------------------------------


def _is_vector(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.List | pl.Array)


def _any_vector(frame: pl.DataFrame) -> bool:
    return any(_is_vector(dtype) for dtype in frame.dtypes)


def _is_plain(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        inner = dtype.inner
        return isinstance(inner, pl.DataType) and inner.is_numeric()
    return dtype.is_integer() or dtype.is_float() or isinstance(
        dtype, pl.String | pl.Binary | pl.Boolean | pl.Date | pl.Datetime | pl.Enum
    )  # fmt: skip


def _map_inner(column: pl.Series) -> pl.Series:
    """The vectors with 0.0 for -0.0."""
    lists = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
    cleaned = lists.list.eval(pl.when(pl.element() == 0).then(0).otherwise(pl.element()))
    return cleaned.cast(column.dtype)


def _sortable(column: pl.Series) -> pl.Series:
    """A column that orders and compares as this one; a vector by the bytes of its numbers."""
    if not _is_vector(column.dtype):
        return column
    lists = column.arr.to_list() if isinstance(column.dtype, pl.Array) else column
    ends = np.concatenate([[0], np.cumsum(lists.list.len().fill_null(0).to_numpy())]).astype(np.int64)
    numbers = lists.drop_nulls().explode(empty_as_null=False).fill_null(float("nan")).to_numpy()
    data, size = _little(numbers).tobytes(), numbers.dtype.itemsize
    rows = [
        None if null else data[start * size : end * size]
        for null, (start, end) in zip(lists.is_null(), pairwise(ends.tolist()), strict=True)
    ]
    return pl.Series(column.name, rows, pl.Binary)


def _order(frame: pl.DataFrame, names: Sequence[str]) -> NDArray[Any]:
    keys = pl.DataFrame([_sortable(frame[name]).alias(f"k{i}") for i, name in enumerate(names)])
    columns = keys.columns
    order = keys.with_row_index("place").sort(columns, maintain_order=True)["place"]
    return order.to_numpy().astype(np.int64)


def _same_as_before(frame: pl.DataFrame, names: Sequence[str]) -> NDArray[np.bool_]:
    """Which rows equal the one before them in these columns."""
    same = np.ones(frame.height, dtype=np.bool_)
    same[:1] = False
    for name in names:
        if not same.any():
            break
        column = _sortable(frame[name])
        same[1:] &= column[1:].eq_missing(column[:-1]).to_numpy()
    return same
