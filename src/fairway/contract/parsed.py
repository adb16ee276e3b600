"""What becomes of one raw column: typed values, and which rows did not fit."""

from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Parsed:
    """values: typed, null where a value does not fit. wrong: says what did not fit, or None; `bad` marks those rows.

    notes: repairs that were made, such as NaN read as null. hint: what to try.
    """

    values: pl.Series
    bad: pl.Series
    wrong: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()


def result(raw: pl.Series, values: pl.Series, wrong: str, hint: str = "", notes: tuple[str, ...] = ()) -> Parsed:
    return Parsed(values, values.is_null() & raw.is_not_null(), wrong, hint, notes)


def refused(raw: pl.Series, column_type: pl.DataType, wrong: str, hint: str = "") -> Parsed:
    values = pl.Series(raw.name, [None] * len(raw), dtype=column_type)
    return Parsed(values, raw.is_not_null(), wrong, hint)
