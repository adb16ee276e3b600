"""A contract brought up to today's table: what was observed is taken anew, what people declared stays."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from fairway.contract.columns import Column, Contract
from fairway.contract.compare import Change, compare
from fairway.contract.guess import guess
from fairway.contract.infer import infer
from fairway.contract.parsing import parse
from fairway.contract.settings import Settings
from fairway.errors import DataError

_READING = ("type", "null_values", "decimal", "zone", "values", "length", "formats", "max_length")


@dataclass(frozen=True, kw_only=True)
class Update:
    """contract: the new one. changes: from the old one to it. left: sentences on what the table has and the contract
    refuses, and that stays so: a person's to correct in the table or to declare.
    """

    contract: Contract
    changes: tuple[Change, ...]
    left: tuple[str, ...]


def update(raw: pl.DataFrame, contract: Contract, settings: Settings, *, file: str = "") -> Update:
    """The contract by the table as it is read now (raw).

    Kept: roles, known, range, unit, unseen, log, pattern, unique, monotonic, rules, rows, fresh, and the order of
    category lists, which only grow. Taken anew: seen, new categories, nulls where there are some now, new columns;
    columns that are gone go. `reviewed` becomes false when a rule changes.
    """
    kept: list[Column] = []
    left: list[str] = []
    for column in contract.columns:
        if column.name not in raw.columns:
            if column.role in ("target", "entity", "at"):
                left.append(f"column {column.name} is the {column.role}, and the table has it no longer")
                kept.append(column)
            continue
        new, note = _again(raw[column.name], column, file)
        kept.append(new)
        left += [note] if note else []
    kept += _added(raw, contract, settings, file)
    made = replace(contract, columns=tuple(kept))
    if _rules_of(made) != _rules_of(contract):
        made = replace(made, reviewed=False)
    return Update(contract=made, changes=compare(contract, made), left=tuple(left))


def _rules_of(contract: Contract) -> str:
    """Identity of what refuses or reads a row; what was only seen does not count."""
    return replace(contract, columns=tuple(replace(c, seen=None) for c in contract.columns)).version


def _again(raw: pl.Series, column: Column, file: str) -> tuple[Column, str]:
    """The column as today's values have it, and what could not be taken."""
    if column.role == "ignore":
        return column, ""
    if column.type == "category" and raw.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean):
        return _categories(raw, column), ""
    parsed = parse(raw, column)
    if not parsed.bad.any():
        return _observed(parsed.values, column), ""
    place = int(parsed.bad.arg_max() or 0)
    wrong = f"{file}, row {place + 1:,}, column {column.name}: {str(raw[place])[:60]!r} is not {parsed.wrong}"
    if int(parsed.bad.sum()) < len(parsed.bad) - raw.null_count():
        return column, f"{wrong}; a few such rows are mistakes in the table, or declare what they mean"
    try:
        found = guess(raw, file=file)
    except DataError as error:
        return column, str(error)
    if found is None or column.role == "at":
        return column, wrong
    changed = {key: getattr(found.column, key) for key in _READING}
    values = replace(column, **changed, range=None, pattern=None, seen=found.column.seen, nulls=found.column.nulls)
    return values, f"column {column.name} is another type now: its declared range and pattern are gone with it"


def _categories(raw: pl.Series, column: Column) -> Column:
    texts = raw.cast(pl.String)
    if column.null_values:
        texts = texts.set(texts.is_in(list(column.null_values)).fill_null(False), None)
    new = [value for value in texts.drop_nulls().unique().sort().to_list() if value not in column.values]
    nulls = column.nulls or (bool(texts.null_count()) and column.role != "target")
    return replace(column, values=(*column.values, *new), nulls=nulls)


def _observed(values: pl.Series, column: Column) -> Column:
    """Nulls where there are some, the seen range where one was written, a limit that all values keep."""
    nulls = bool(values.null_count()) and column.role not in ("target", "entity", "at")
    changed = replace(column, nulls=column.nulls or nulls)
    known = values.drop_nulls()
    if known.is_empty() or column.seen is None:
        return changed
    if column.type in ("datetime", "date"):
        known = known.dt.to_string("%Y-%m-%dT%H:%M:%S%.6fZ" if column.type == "datetime" else "%Y-%m-%d")
    if column.type == "vector":
        known = known.explode()
    ends: Any = (known.min(), known.max())
    return replace(changed, seen=ends)


def _added(raw: pl.DataFrame, contract: Contract, settings: Settings, file: str) -> Sequence[Column]:
    """New columns, inferred as `new` would, with everything assumed about them marked."""
    known = {c.name for c in contract.columns}
    names = [name for name in raw.columns if name not in known]
    if not names:
        return ()
    needed = [n for n in (settings.target, settings.entity, settings.at) if n is not None]
    if any(name not in raw.columns for name in needed):
        return ()
    found = infer(
        raw.select(*dict.fromkeys((*needed, *names))), target=settings.target, file=file, at=settings.at,
        entity=settings.entity, task=settings.task, positive=settings.positive,
    )  # fmt: skip
    return [c for c in found.contract.columns if c.name in names]
