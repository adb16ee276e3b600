"""Text and foreign types as the contract's types: strict, and with the rows that don't fit."""

from typing import Any

import polars as pl

from fairway.contract.columns import Column
from fairway.contract.nested import image, vector
from fairway.contract.parsed import Parsed, refused, result

__all__ = ["Parsed", "dtype_of", "parse", "split_time"]

UTC = pl.Datetime("us", "UTC")
_INT = r"^[+-]?[0-9]{1,19}$"
_FLOAT = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_TIME = (
    r"^(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ](?P<clock>[0-9]{2}:[0-9]{2})(?P<second>:[0-9]{2}(?:\.[0-9]{1,9})?)?)?"
    r" ?(?P<zone>Z|[+-][0-9]{2}:?[0-9]{2})?$"
)
_TRUE, _FALSE = ["true", "True", "TRUE"], ["false", "False", "FALSE"]
_EXACT = 2**53  # beyond this a float no longer holds every integer


def dtype_of(column: Column) -> pl.DataType:
    """The Polars type of a typed column."""
    kinds: dict[str, Any] = {
        "int": pl.Int64(),
        "float": pl.Float64(),
        "bool": pl.Boolean(),
        "category": pl.Enum(list(column.values)),
        "string": pl.String(),
        "text": pl.String(),
        "datetime": UTC,
        "date": pl.Date(),
        "vector": pl.Array(pl.Float64(), column.length or 1),
        "image": pl.Binary(),
    }
    found: pl.DataType = kinds[column.type]
    return found


def parse(series: pl.Series, column: Column) -> Parsed:
    """One raw column as the contract's type. Null tokens become null; what does not fit is marked, never guessed."""
    if series.dtype == pl.Null:
        empty = pl.Series(series.name, [None] * len(series), dtype=dtype_of(column))
        return Parsed(empty, _none_bad(series))
    if isinstance(series.dtype, pl.Categorical | pl.Enum):
        series = series.cast(pl.String)
    if column.null_values and series.dtype == pl.String:
        series = series.set(series.is_in(list(column.null_values)).fill_null(False), None)
    if column.type == "category":
        return _category(series, column)
    if column.type == "vector":
        return vector(series, column)
    if column.type == "image":
        return image(series)
    if column.type in ("string", "text"):
        return _texts(series)
    if column.type == "int":
        return _int(series)
    if column.type == "float":
        return _float(series, column)
    if column.type == "bool":
        return _bool(series)
    return _datetime(series, column) if column.type == "datetime" else _date(series)


def _texts(series: pl.Series) -> Parsed:
    if series.dtype.is_nested() or series.dtype == pl.Binary:
        return refused(series, pl.String(), f"a text (the table has {series.dtype})")
    return result(series, series.cast(pl.String, strict=False), "text")


def _none_bad(series: pl.Series) -> pl.Series:
    return pl.repeat(False, len(series), dtype=pl.Boolean, eager=True)


def _int(series: pl.Series) -> Parsed:
    if series.dtype == pl.String:
        fits = series.str.contains(_INT)
        values = series.set(~fits, None).cast(pl.Int64, strict=False)
        return result(series, values, "a whole number", _number_hint(series.filter(~fits)))
    if series.dtype.is_integer():
        return result(series, series.cast(pl.Int64, strict=False), "a whole number of 64 bits")
    if series.dtype.is_float():
        # pandas keeps integers with gaps as floats; taken back where not one bit is lost.
        series = series.fill_nan(None)
        whole = (series == series.round(0)) & (series.abs() <= _EXACT)
        return result(series, series.set(~whole, None).cast(pl.Int64, strict=False), "a whole number")
    return refused(series, pl.Int64(), f"a whole number (the table has {series.dtype})")


def _float(series: pl.Series, column: Column) -> Parsed:
    if series.dtype == pl.String:
        text = series
        if column.decimal == ",":
            text = series.set(series.str.contains(".", literal=True), "?").str.replace(",", ".", literal=True)
        fits = text.str.contains(_FLOAT)
        values = text.set(~fits, None).cast(pl.Float64, strict=False)
        values = values.set(values.is_infinite(), None)
        return result(series, values, "a number", _number_hint(series.filter(~fits)))
    if series.dtype.is_integer():
        values = series.cast(pl.Float64)
        exact = (values.cast(series.dtype, strict=False) == series).fill_null(False)
        return result(series, values.set(~exact, None), "a whole number that a float holds exactly")
    if series.dtype.is_float() or series.dtype.is_decimal():
        values = series.cast(pl.Float64)
        n = int(values.is_nan().sum())
        values = values.fill_nan(None)
        raw = values
        notes = (f"{n:,} NaN became null",) if n else ()
        return result(raw, values.set(values.is_infinite(), None), "a finite number", notes=notes)
    return refused(series, pl.Float64(), f"a number (the table has {series.dtype})")


def _number_hint(bad: pl.Series) -> str:
    if bad.is_empty():
        return ""
    if bad.str.contains(r"^[+-]?[0-9]+,[0-9]+$").any():
        return 'A comma as decimal mark? Declare decimal = "," for the column in contract.toml.'
    if bad.str.contains(r"^[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?$").any():
        return "Thousands marks are not read; write plain digits."
    few = bad.unique().sort().head(3).to_list()
    if bad.n_unique() <= 3 and all(not any(c.isdigit() for c in text) for text in few):
        listed = ", ".join(f'"{text}"' for text in few)
        return f"Does it stand for null? Declare null_values = [{listed}] for the column in contract.toml."
    return ""


def _bool(series: pl.Series) -> Parsed:
    if series.dtype == pl.Boolean:
        return result(series, series, "true or false")
    if series.dtype == pl.String:
        values = series.is_in(_TRUE).set(~series.is_in(_TRUE + _FALSE), None)
        return result(series, values.set(series.is_null(), None), "true or false")
    return refused(series, pl.Boolean(), f"true or false (the table has {series.dtype})")


def _category(series: pl.Series, column: Column) -> Parsed:
    """Values outside the list are null here; whether they are refused or only flagged is the contract's to say."""
    if series.dtype == pl.Boolean or series.dtype.is_integer():
        series = series.cast(pl.String)
    if series.dtype != pl.String:
        return refused(series, dtype_of(column), f"a text (the table has {series.dtype})")
    return result(series, series.cast(dtype_of(column), strict=False), "a declared value")


def _datetime(series: pl.Series, column: Column) -> Parsed:
    zone = column.zone
    if isinstance(series.dtype, pl.Datetime):
        if series.dtype.time_zone is not None:
            return result(series, series.dt.convert_time_zone("UTC").cast(UTC), "a time")
        return _localised(series, series.cast(pl.Datetime("us")), zone)
    if series.dtype == pl.Date:
        return _localised(series, series.cast(pl.Datetime("us")), zone)
    if series.dtype != pl.String:
        hint = "A number of seconds or milliseconds has no declared unit; write ISO 8601 times."
        return refused(series, UTC, f"a time (the table has {series.dtype})", hint)
    parts = split_time(series)
    naive, offset = parts["naive"], parts["offset_min"]
    shift = (offset.fill_null(0) * 60_000_000).cast(pl.Duration("us"))
    aware = (naive - shift).dt.replace_time_zone("UTC")
    with_zone, without = offset.is_not_null(), naive.is_not_null() & offset.is_null()
    if with_zone.any() and without.any():
        values = aware.set(without, None).cast(UTC)
        return result(
            series, values, "a time with a zone, as in other rows", "Times with and without a zone are mixed."
        )
    if without.any():
        return _localised(series, naive, zone)
    return result(series, aware.cast(UTC), "an ISO 8601 time", "Write 2014-05-01T06:30:00Z.")


def split_time(series: pl.Series) -> pl.DataFrame:
    """ISO times as text -> `naive` (as written, us) and `offset_min` (null without a zone); both null if unreadable."""
    groups = series.str.extract_groups(_TIME).struct.unnest()
    clock, second = groups["clock"].fill_null("00:00"), groups["second"].fill_null(":00")
    text = groups["day"] + "T" + clock + second
    naive = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    zone = groups["zone"]
    digits = zone.str.replace(":", "", literal=True)
    minutes = digits.str.slice(1, 2).cast(pl.Int64, strict=False) * 60 + digits.str.slice(3, 2).cast(
        pl.Int64, strict=False
    )
    minutes = minutes * digits.str.starts_with("-").cast(pl.Int64).replace_strict({0: 1, 1: -1}, default=None)
    minutes = minutes.set((zone == "Z").fill_null(False), 0)
    return pl.DataFrame({"naive": naive, "offset_min": minutes.set(naive.is_null(), None)})


def _localised(raw: pl.Series, naive: pl.Series, zone: str | None) -> Parsed:
    if zone is None:
        hint = 'Declare in which zone they are: zone = "UTC" (or "Europe/Madrid") for the column in contract.toml.'
        return refused(raw, UTC, "a time with a zone", hint)
    if zone == "UTC":
        return result(raw, naive.dt.replace_time_zone("UTC"), "an ISO 8601 time")
    local = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    latest = naive.dt.replace_time_zone(zone, ambiguous="latest", non_existent="null")
    twice = int((local != latest).sum())
    notes = (f"{twice:,} times exist twice (clocks set back) and were read as the earlier",) if twice else ()
    hint = "Clocks were set forward over it." if bool((local.is_null() & naive.is_not_null()).any()) else ""
    return result(raw, local.dt.convert_time_zone("UTC"), f"a time in {zone}", hint, notes)


def _date(series: pl.Series) -> Parsed:
    if series.dtype == pl.Date:
        return result(series, series, "a date")
    if series.dtype == pl.String:
        fits = series.str.contains(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")
        values = series.set(~fits, None).str.to_date("%Y-%m-%d", strict=False)
        return result(series, values, "an ISO date such as 2014-05-01")
    return refused(series, pl.Date(), f"a date (the table has {series.dtype})")
