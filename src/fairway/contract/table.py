"""The contract's rules on a table: typed columns, or a refusal that names file, row, column and value."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from fairway import clock
from fairway.contract.columns import Column
from fairway.contract.parsing import dtype_of, parse
from fairway.contract.toml import nearest
from fairway.errors import ContractViolation, DataError

__all__ = ["Checked", "Locate", "apply", "dtype_of", "schema"]

Locate = Callable[[int], tuple[str, int]]
_LISTED = 10
_LIKE_AN_ID = 50  # rows; with fewer, whole numbers may differ by chance


@dataclass(frozen=True)
class Checked:
    """frame: typed, the contract's columns in its order, every row kept.

    flags: rows per flag ("unseen:COLUMN", "out_of_seen:COLUMN"): counted, not refused. warnings: sentences.
    """

    frame: pl.DataFrame
    flags: dict[str, int]
    warnings: tuple[str, ...]


def schema(columns: Sequence[Column]) -> dict[str, pl.DataType]:
    """Column name -> Polars type of a typed frame."""
    return {column.name: dtype_of(column) for column in columns}


def apply(frame: pl.DataFrame, columns: Sequence[Column], *, file: str = "", locate: Locate | None = None) -> Checked:
    """The frame's `columns`, typed and checked.

    Nulls in the target are allowed here (a label may not be known yet). Columns of the frame that are not asked for
    are left out and named in the warnings. locate: row index -> (file, row counted from 1), for tables of many files.
    Raises: DataError (a value that does not fit its type), ContractViolation (a declared rule), both with file, row,
    column and the first such rows.
    """
    where = locate or (lambda index: (file, index + 1))
    made: list[pl.Series] = []
    flags: dict[str, int] = {}
    warnings: list[str] = []
    for column in columns:
        if column.name not in frame.columns:
            hint = nearest(column.name, frame.columns)
            raise DataError(
                "the table has no such column" + (f"; did {hint} take its place?" if hint else ""),
                file=file or None, column=column.name,
            )  # fmt: skip
        raw = frame[column.name]
        made.append(_column(raw, column, where, flags, warnings))
    extra = [name for name in frame.columns if name not in {c.name for c in columns}]
    if extra:
        listed = ", ".join(extra[:_LISTED]) + (", …" if len(extra) > _LISTED else "")
        warnings.append(f"not used: {listed} (ignored, or not in contract.toml)")
    return Checked(pl.DataFrame(made), flags, tuple(warnings))


def _column(raw: pl.Series, column: Column, where: Locate, flags: dict[str, int], warnings: list[str]) -> pl.Series:
    parsed = parse(raw, column)
    values, bad = parsed.values.alias(column.name), parsed.bad
    warnings += [f"column {column.name}: {note}" for note in parsed.notes]
    if (column.type == "category" and raw.dtype in (pl.String, pl.Boolean)) or bad.any():
        values = _misfits(raw, values, bad, parsed.wrong, parsed.hint, column, where, flags)
    nulls = values.is_null()
    if not column.nulls and column.role != "target":
        missing = nulls & ~bad if column.type == "category" else nulls
        if missing.any():
            text = "is null, which is not allowed here"
            hint = "Set nulls = true for the column in contract.toml if that is right."
            if column.role in ("entity", "at"):
                hint = f"Every row needs its {'entity' if column.role == 'entity' else 'prediction time'}."
            raise _refusal(ContractViolation, text, missing, column, where, hint)
    _check_rules(values, column, where)
    if column.seen is not None and column.role == "feature":
        low, high = _ends(column, column.seen)
        out = int(((values < low) | (values > high)).sum())
        if out:
            flags[f"out_of_seen:{column.name}"] = out
    if len(values) > 1 and column.role == "feature":
        if nulls.all():
            warnings.append(f"column {column.name} is null in every row")
        elif (different := values.n_unique()) == 1:
            warnings.append(f"column {column.name} has the same value in every row")
        elif different == len(values) >= _LIKE_AN_ID and column.type == "int":
            warnings.append(f"column {column.name} has another value in every row, like an id; is it one?")
    return values


def _misfits(
    raw: pl.Series, values: pl.Series, bad: pl.Series, wrong: str, hint: str, column: Column, where: Locate,
    flags: dict[str, int],
) -> pl.Series:  # fmt: skip
    """Refuse what does not fit; a category never seen becomes null and is counted, unless that is refused."""
    if not bad.any():
        return values
    place = int(bad.arg_max() or 0)
    shown = _shown(raw[place])
    if column.type == "category" and column.role != "target" and not wrong.startswith("a text"):
        if column.unseen == "null":
            flags[f"unseen:{column.name}"] = int(bad.sum())
            return values
        raise _refusal(
            ContractViolation, f'{shown} is none of the declared values, and unseen = "reject"', bad, column, where
        )
    if column.type == "category":
        close = nearest(str(raw[place]), column.values) or ""
        raise _refusal(DataError, f"{shown} is no class of the target{close and f'; {close}?'}", bad, column, where)
    raise _refusal(DataError, f"{shown} is not {wrong}", bad, column, where, hint)


def _check_rules(values: pl.Series, column: Column, where: Locate) -> None:
    if column.range is not None:
        low, high = _ends(column, column.range)
        out = ((values < low) | (values > high)).fill_null(False)
        if out.any():
            shown = _shown(values[int(out.arg_max() or 0)])
            ends = f"{column.range[0]} to {column.range[1]}"
            raise _refusal(ContractViolation, f"{shown} is outside the declared range {ends}", out, column, where)
    if column.type == "string":
        long = (values.str.len_chars() > column.max_length).fill_null(False)
        if long.any():
            text = f"a text is longer than max_length ({column.max_length:,} characters)"
            raise _refusal(ContractViolation, text, long, column, where)
    if column.role == "target" and column.values and column.type == "int":
        strange = (~values.cast(pl.String).is_in(list(column.values))).fill_null(False)
        if strange.any():
            shown = _shown(values[int(strange.arg_max() or 0)])
            raise _refusal(DataError, f"{shown} is no class of the target", strange, column, where)


def _ends(column: Column, ends: tuple[Any, Any]) -> tuple[Any, Any]:
    if column.type == "datetime":
        return clock.parse_iso(ends[0]), clock.parse_iso(ends[1])
    if column.type == "date":
        return date.fromisoformat(ends[0]), date.fromisoformat(ends[1])
    return ends


def _shown(value: Any) -> str:
    text = str(value)
    return (f'"{text}"' if isinstance(value, str) else text) if len(text) <= 60 else f'"{text[:57]}…"'


def _refusal(
    kind: type[DataError], text: str, rows: pl.Series, column: Column, where: Locate, hint: str = ""
) -> DataError:
    places = rows.arg_true()
    file, row = where(int(places[0]))
    n = len(places)
    if n > 1:
        listed = ", ".join(str(where(int(p))[1]) for p in places[:_LISTED])
        text += f" ({n:,} such rows: {listed}{', …' if n > _LISTED else ''})"
    return kind(text + (f".\n{hint}" if hint else ""), file=file or None, row=row, column=column.name)
