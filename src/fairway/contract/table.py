"""The contract's rules on a table: typed columns, or a refusal that names file, row, column and value."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from fairway.contract.columns import Column, Contract
from fairway.contract.examine import Locate, examine, refusal
from fairway.contract.parsing import dtype_of

__all__ = ["Checked", "Locate", "apply", "dtype_of", "schema"]


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


def apply(
    frame: pl.DataFrame,
    columns: Sequence[Column],
    *,
    file: str = "",
    locate: Locate | None = None,
    contract: Contract | None = None,
    now: datetime | None = None,
    height: int | None = None,
) -> Checked:
    """The frame's `columns`, typed and checked.

    Nulls in the target are allowed here (a label may not be known yet). Columns of the frame that are not asked for
    are left out and named in the warnings. locate: row index -> (file, row counted from 1), for tables of many files.
    contract: also its rules over columns, over the number of rows (height, where frame is a part of the table) and
    over the age of the newest at `now`.
    Raises: DataError (a value that does not fit its type), ContractViolation (a declared rule), both with file, row,
    column and the first such rows.
    """
    found = examine(frame, columns, file=file, locate=locate, contract=contract, now=now, height=height)
    if found.broken:
        raise refusal(found.broken[0], file=file)
    return Checked(found.frame, found.flags, found.warnings)
