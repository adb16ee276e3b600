"""Rows that come as Python values, from JSON or a database: into columns of one type each, or refused by their row."""

import datetime as dt
import decimal
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from fairway.errors import DataError

MAX_CELLS = 1_000_000_000  # rows x columns: past this the table would not fit into a laptop's memory
_EXACT = 2**53  # beyond this a float no longer holds every integer
_KINDS: dict[type, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", bytes: "bytes",
    dt.datetime: "a time", dt.date: "a date", decimal.Decimal: "a number", list: "a list of numbers",
}  # fmt: skip
_TYPES: dict[str, Any] = {
    "true or false": pl.Boolean, "a whole number": pl.Int64, "a number": pl.Float64, "text": pl.String,
    "bytes": pl.Binary, "a date": pl.Date, "a list of numbers": pl.List(pl.Float64),
}  # fmt: skip


def refuse_many(rows: int, columns: int, file: str) -> None:
    """Raises: DataError for a table that is too large to be read, told from its size alone."""
    if rows * columns > MAX_CELLS:
        raise DataError(f"has {rows:,} rows x {columns:,} columns; at most {MAX_CELLS:,} values are read", file=file)


def memory_limit() -> int:
    """Bytes of values that are unpacked at most: half of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def plain_texts(frame: pl.DataFrame, file: str) -> pl.DataFrame:
    """The frame with texts in place of category codes. Raises: DataError for more text than can be worked on.

    A text that comes a million times is once in the file and in memory; what hashes and compares sees every one.
    """
    coded = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Categorical | pl.Enum)]
    frame = frame.with_columns(_spelled_out(frame[name]) for name in coded)
    size = 0
    for name, dtype in frame.schema.items():
        if dtype == pl.String:
            size += int(frame[name].str.len_bytes().cast(pl.Int64).sum())  # a sum of 32 bits would wrap around
        elif dtype == pl.Binary:
            size += int(frame[name].bin.size().cast(pl.Int64).sum())
    most = memory_limit() // 2
    if size > most:
        text = f"holds {size / 2**30:,.1f} GiB of text; at most {most / 2**30:,.1f} GiB are read on this machine"
        raise DataError(text, file=file)
    return frame


def _spelled_out(column: pl.Series) -> pl.Series:
    """Texts for codes; equal ones share their bytes, of which Polars' own cast makes a copy for every row."""
    each = column.drop_nulls().unique()
    texts = pl.DataFrame({"code": each.to_physical(), "text": each.cast(pl.String)})
    codes = pl.DataFrame({"code": column.to_physical()})
    return codes.join(texts, on="code", how="left", maintain_order="left")["text"].alias(column.name)


class Rows:
    """Chunks of rows become typed columns. place: what a row's number is called, "row" or "line".

    A column has one kind in all rows: text among numbers is refused with its row, and never made text silently. Whole
    numbers among numbers are numbers.
    """

    def __init__(self, file: str, *, place: str = "row", names: Sequence[str] | None = None) -> None:
        self.file, self._place = file, place
        self._kinds: dict[str, tuple[str, int]] = {}  # column -> kind and the first row that has it
        self._chunks: list[dict[str, pl.Series]] = []
        self._sizes: list[int] = []
        self._names = list(names or ())
        self._known = set(self._names)
        self._fixed = names is not None

    def add(self, rows: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        """The next rows with their numbers in the file. Raises: DataError."""
        if not rows:
            return
        if not self._fixed:
            for _, row in rows:
                for name in row:
                    if name not in self._known:
                        self._known.add(name)
                        self._names.append(name)
        height = sum(self._sizes) + len(rows)
        if height * len(self._names) > MAX_CELLS:
            raise DataError(f"has more than {MAX_CELLS:,} values; that is the most that are read", file=self.file)
        made = {}
        for name in self._names:
            values = [row.get(name) for _, row in rows]
            made[name] = self._column(name, values, rows)
        self._chunks.append(made)
        self._sizes.append(len(rows))

    def frame(self) -> pl.DataFrame:
        """All rows; a column without any value is of type Null."""
        columns = []
        for name in self._names:
            kind = self._kinds.get(name, ("", 0))[0]
            parts = [
                chunk[name] if name in chunk else pl.Series(name, [None] * size, pl.Null)
                for chunk, size in zip(self._chunks, self._sizes, strict=True)
            ]
            dtype = self._dtype(kind)
            if kind == "a number":
                self._refuse_inexact(name, parts)
            columns.append(pl.concat([part.cast(dtype) for part in parts]) if parts else pl.Series(name, [], dtype))
        return pl.DataFrame(columns)

    def _refuse_inexact(self, name: str, parts: Sequence[pl.Series]) -> None:
        """Whole numbers that came before the first fraction."""
        for part in parts:
            if part.dtype == pl.Int64 and bool((part.abs() > _EXACT).any()):
                large = part.filter(part.abs() > _EXACT)[0]
                text = f"{large} is a whole number that no float holds exactly, and other rows have fractions"
                raise DataError(text, file=self.file, column=name)

    def _dtype(self, kind: str) -> Any:
        if kind in ("a time with a zone", "a time without a zone"):
            return pl.Datetime("us", "UTC" if kind == "a time with a zone" else None)
        return _TYPES.get(kind, pl.Null)

    def _column(self, name: str, values: list[Any], rows: Sequence[tuple[int, Mapping[str, Any]]]) -> pl.Series:
        kinds = {type(value) for value in values}
        kinds.discard(type(None))
        for index, value in enumerate(values) if self._is_odd(name, kinds) else ():
            if value is not None:
                values[index] = self._value(name, value, rows[index][0])
        if not kinds:
            return pl.Series(name, values, pl.Null)
        if int in kinds and self._kinds[name][0] == "a number":  # those of this chunk before its first fraction
            for (row, _), value in zip(rows, values, strict=True):
                if isinstance(value, int) and abs(value) > _EXACT:
                    raise self._refused(name, row, f"{value} is a whole number that no float holds exactly")
        kind = self._kinds[name][0] if name in self._kinds else ""
        if not kind:  # one plain type in the whole chunk, and the first of the column
            kind = _KINDS[next(iter(kinds))]
            self._kinds[name] = (kind, next(n for (n, _), v in zip(rows, values, strict=True) if v is not None))
        try:
            if kind == "a time with a zone":
                return pl.Series(name, values, pl.Datetime("us", "UTC"))
            if kind == "a time without a zone":
                return pl.Series(name, values, pl.Datetime("us"))
            return pl.Series(name, values, _TYPES[kind], strict=False)
        except (OverflowError, pl.exceptions.PolarsError) as exc:
            raise DataError(f"can't be read as {kind}: {exc}", file=self.file, column=name) from exc

    def _is_odd(self, name: str, kinds: set[type]) -> bool:
        """Whether the values must be looked at one by one: no plain type, or not the column's."""
        if len(kinds) != 1:
            return bool(kinds)
        only = next(iter(kinds))
        plain = only in (bool, float, str, bytes)
        return not plain or (name in self._kinds and self._kinds[name][0] != _KINDS[only])

    def _value(self, name: str, value: Any, row: int) -> Any:
        """The value as the column keeps it; its kind is that of the column so far, or refused."""
        if isinstance(value, memoryview | bytearray):
            value = bytes(value)
        elif isinstance(value, uuid.UUID):
            value = str(value)
        if isinstance(value, list | tuple):
            if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in value):
                raise self._refused(name, row, "holds a list of other things than numbers; fairway has no type for it")
            value = [float(item) for item in value]
        kind = _KINDS.get(type(value))
        if kind is None:
            what = "an object" if isinstance(value, dict) else type(value).__name__
            raise self._refused(name, row, f"holds {what}; write its parts into columns of their own")
        if kind == "a time":
            kind = "a time with a zone" if value.tzinfo is not None else "a time without a zone"
            value = value.astimezone(dt.UTC) if value.tzinfo is not None else value
        if kind == "a whole number" and not -(2**63) <= value < 2**63:
            raise self._refused(name, row, f"{value} is no whole number of 64 bits")
        before, first = self._kinds.setdefault(name, (kind, row))
        if kind == before:
            return float(value) if kind == "a number" else value
        if {kind, before} == {"a whole number", "a number"}:
            if kind == "a whole number" and abs(value) > _EXACT:
                raise self._refused(name, row, f"{value} is a whole number that no float holds exactly")
            self._kinds[name] = ("a number", first)
            return float(value)
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        shown = shown if len(shown) <= 60 else shown[:57] + "…"
        raise self._refused(name, row, f"{shown} is {kind}; {self._place} {first:,} has {before}")

    def _refused(self, name: str, row: int, text: str) -> DataError:
        if self._place == "row":
            return DataError(text, file=self.file, row=row, column=name)
        return DataError(f"line {row:,}: {text}", file=self.file, column=name)
