"""Between the wire's plain values and typed frames."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

import polars as pl

from fairway import clock
from fairway.contract.columns import Column, Contract
from fairway.errors import ModelCodeError

_PLAIN: dict[str, Any] = {
    "int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "string": pl.String, "text": pl.String,
    "image": pl.Binary,
}  # fmt: skip


def input_columns(contract: Contract) -> tuple[Column, ...]:
    """What features() gets besides the view columns, in order: entity, `at` and the columns known with the request."""
    return contract.request_columns


def dtype_of(column: Column) -> Any:
    """The Polars type of a contract's column."""
    if column.type == "category":
        return pl.Enum(column.values)
    if column.type == "datetime":
        return pl.Datetime("us", "UTC")
    if column.type == "vector":
        return pl.Array(pl.Float64, column.length or 1)
    return pl.Date if column.type == "date" else _PLAIN[column.type]


def typed_frame(columns: Sequence[Column], values: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
    """Wire values as a typed frame with the contract's columns in order.

    Datetimes are microseconds UTC (or aware datetimes, or ISO texts), dates ISO texts or dates. A value outside a
    category's list becomes null. An unnamed extra column (such as "_known_at") is left out.
    Raises: ModelCodeError for a column that is missing.
    """
    made = []
    for column in columns:
        if column.name not in values:
            raise ModelCodeError(f"column {column.name!r} is missing from the rows")
        given = values[column.name]
        if column.type == "datetime":
            series = pl.Series(column.name, [_us(v) for v in given], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
        elif column.type == "date":
            series = pl.Series(column.name, [_date(v) for v in given], dtype=pl.Date)
        elif column.type == "category":
            series = pl.Series(column.name, given, dtype=pl.String).cast(pl.Enum(column.values), strict=False)
        else:
            series = pl.Series(column.name, given, dtype=dtype_of(column))
        made.append(series)
    return pl.DataFrame(made)


def wire_values(frame: pl.DataFrame) -> dict[str, list[Any]]:
    """A typed frame's columns as wire values: the inverse of `typed_frame`."""
    out = {}
    for column in frame.get_columns():
        if isinstance(column.dtype, pl.Datetime):
            column = column.dt.timestamp("us")
        elif column.dtype == pl.Date:
            column = column.dt.to_string("%Y-%m-%d")
        out[column.name] = column.to_list()
    return out


def wire_rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows as the JSON of a request carries them: categories as text, times as ISO text in UTC, images in base64."""
    made = []
    for column in frame.get_columns():
        if isinstance(column.dtype, pl.Datetime):
            column = column.dt.convert_time_zone("UTC").dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ")
        elif column.dtype == pl.Date:
            column = column.dt.to_string("%Y-%m-%d")
        elif isinstance(column.dtype, pl.Enum | pl.Categorical):
            column = column.cast(pl.String)
        elif column.dtype == pl.Binary:
            column = column.bin.encode("base64")
        made.append(column)
    return pl.DataFrame(made).to_dicts()


def _us(value: Any) -> int | None:
    if value is None or isinstance(value, int):
        return value
    return clock.to_us(value if isinstance(value, datetime) else clock.parse_iso(value))


def _date(value: Any) -> date | None:
    if value is None or isinstance(value, date):
        return value
    return date.fromisoformat(value)
