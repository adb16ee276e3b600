"""The contract's rules as Polars expressions over a typed frame: one select counts what breaks each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from fairway import clock
from fairway.contract.columns import Column, Rule
from fairway.contract.comparison import Comparison, Literal, Name, RowRule, read_rule
from fairway.contract.formats import HEADS
from fairway.errors import ContractViolation, DataError

BAD = "\x00bad "  # prefix of the column that marks the rows of another one that did not fit its type


@dataclass(frozen=True, kw_only=True)
class TableRule:
    """One rule of a table.

    name: "tenure.range", or a cross-column rule's own name. says: what must hold, after the column's name. columns:
    whose values are shown of a bad row. rows: an expression, True where a row breaks it (null counts as kept).
    count: how many do, as one number; with `exact`, only whether any do. told: what is said of the first bad row's
    values.
    """

    name: str
    column: Column | None
    columns: tuple[str, ...]
    says: str
    rows: pl.Expr
    count: pl.Expr
    exact: pl.Expr | None = None
    told: Callable[[Sequence[Any]], str]
    hint: str = ""
    error: type[DataError] = ContractViolation


def compile_rules(
    columns: Sequence[Column],
    rules: Sequence[Rule] = (),
    *,
    known: Sequence[Column] | None = None,
    marked: Sequence[str] = (),
) -> list[TableRule]:
    """The rules in the contract's order: each column's own, then those across columns.

    known: the columns that `rules` may name, by default `columns`. marked: columns whose rows that did not fit are
    marked in the frame (`BAD` + name): those are not null by rule. Raises: ValueError for a rule that can't be read.
    """
    found: list[TableRule] = []
    for column in columns:
        found += _of_column(column, column.name in marked)
    named = columns if known is None else known
    return found + [_across(read_rule(rule, named), named) for rule in rules]


def count_broken(frame: pl.DataFrame, rules: Sequence[TableRule]) -> list[int]:
    """How many rows break each rule: one pass over the frame, all rules side by side."""
    if not rules or not frame.height:
        return [0] * len(rules)
    counted = frame.select(rule.count.alias(str(place)) for place, rule in enumerate(rules))
    found = [int(n or 0) for n in counted.row(0)]
    again = {str(p): r.exact for p, r in enumerate(rules) if found[p] and r.exact is not None}
    if again:
        exact = frame.select(**again).row(0, named=True)
        found = [int(exact.get(str(place), n)) for place, n in enumerate(found)]
    return found


def first_rows(frame: pl.DataFrame, rule: TableRule, n: int) -> list[int]:
    """Places of the first `n` rows that break the rule."""
    broken = frame.select(rule.rows.fill_null(False)).to_series()
    return [int(place) for place in broken.arg_true().head(n)]


# -- one column ------------------------------------------------------------------------------------------------------


def _of_column(column: Column, marked: bool) -> list[TableRule]:
    value = pl.col(column.name)
    found: list[TableRule] = []

    def add(
        name: str, says: str, rows: pl.Expr, told: Callable[[Any], str], *, count: pl.Expr | None = None,
        exact: pl.Expr | None = None, hint: str = "", error: type[DataError] = ContractViolation,
    ) -> None:  # fmt: skip
        rule = TableRule(
            name=f"{column.name}.{name}", column=column, columns=(column.name,), says=says, rows=rows,
            count=rows.sum() if count is None else count, exact=exact, told=lambda values: told(values[0]), hint=hint,
            error=error,
        )  # fmt: skip
        found.append(rule)

    if not column.nulls and column.role != "target":
        missing = value.is_null() & ~pl.col(BAD + column.name) if marked else value.is_null()
        hint = "Set nulls = true for the column in contract.toml if that is right."
        if column.role in ("entity", "at"):
            hint = f"Every row needs its {'entity' if column.role == 'entity' else 'prediction time'}."
        count = None if marked else value.null_count()
        add("nulls", "is never null", missing, lambda _: "is null, which is not allowed here", count=count, hint=hint)
    if column.range is not None:
        _range(column, value, add)
    if column.type in ("string", "text", "image"):
        _sizes(column, value, add)
    if column.formats:
        kinds = " or ".join(column.formats)
        other = ~_like(value, column.formats)
        add("formats", f"is a {kinds} image", other, lambda v: f"{shown(v)} are no {kinds} image")
    if column.pattern is not None:
        pattern = column.pattern
        rows = ~value.str.contains(rf"^(?:{pattern})$")
        text = f"does not match the declared pattern {pattern}"
        add("pattern", f"matches {pattern}", rows, lambda v: f"{shown(v)} {text}")
    if column.role == "target" and column.values and column.type == "int":
        rows = ~value.is_in([int(v) for v in column.values])
        listed = ", ".join(column.values[:10])
        says = f"is one of {listed}{', …' if len(column.values) > 10 else ''}"
        add("values", says, rows, lambda v: f"{shown(v)} is no class of the target", error=DataError)
    if column.unique:
        rows = value.is_duplicated() & value.is_not_null()
        # Rows that share a value are marked only where there may be some: that all hashes differ is told much sooner.
        nulls = (value.null_count().cast(pl.Int64) - 1).clip(0, None)
        extra = value.len().cast(pl.Int64) - value.hash().n_unique().cast(pl.Int64) - nulls
        told = "comes more than once, and unique = true"
        add("unique", "comes once", rows, lambda v: f"{shown(v)} {told}", count=extra, exact=rows.sum())
    if column.monotonic is not None:
        before = value.forward_fill().shift(1)
        strictly = column.monotonic == "strictly"
        rows = value <= before if strictly else value < before
        says = "rises from row to row" if strictly else "never falls from row to row"
        ended = f'{"is not above" if strictly else "is below"} the row before, and monotonic = "{column.monotonic}"'
        add("monotonic", says, rows, lambda v: f"{shown(v)} {ended}")
    return found


def _range(column: Column, value: pl.Expr, add: Callable[..., None]) -> None:
    assert column.range is not None
    low, high = ends(column, column.range)
    text = shown_range(column.range)
    least, most = (value.arr.min(), value.arr.max()) if column.type == "vector" else (value, value)
    outside = ([least < low] if low is not None else []) + ([most > high] if high is not None else [])
    rows = outside[0] if len(outside) == 1 else outside[0] | outside[1]
    if column.type == "vector":
        says = f"has numbers of {text}" if None in column.range else f"has numbers from {text}"
        add("range", says, rows, lambda v: f"{shown(v)} leaves the declared range {text}")
        return
    says = f"is {text}" if None in column.range else f"lies in {text}"
    add("range", says, rows, lambda v: f"{shown(v)} is outside the declared range {text}")


def _sizes(column: Column, value: pl.Expr, add: Callable[..., None]) -> None:
    image = column.type == "image"
    what, unit = ("an image", "bytes") if image else ("a text", "characters")
    long = value.bin.size() > column.longest if image else value.str.len_chars() > column.longest
    text = f"{what} is longer than max_length ({column.longest:,} {unit})"
    add("max_length", f"has at most {column.longest:,} {unit}", long, lambda _: text)


def _like(value: pl.Expr, formats: Sequence[str]) -> pl.Expr:
    """Whether bytes begin like one of the formats, as `formats.is_image` says of one value."""
    heads = []
    for name in formats:
        for head in HEADS[name]:
            begins = value.bin.starts_with(head)
            if name == "webp":
                begins &= value.bin.encode("hex").str.slice(16, 8) == b"WEBP".hex()
            heads.append(begins)
    return pl.any_horizontal(heads)


def ends(column: Column, given: tuple[Any, Any]) -> tuple[Any, Any]:
    """A range's ends as values of the column."""
    read = {"datetime": clock.parse_iso, "date": date.fromisoformat}.get(column.type)
    if read is None:
        return given
    low, high = given
    return None if low is None else read(low), None if high is None else read(high)


def shown_range(given: tuple[Any, Any]) -> str:
    """For a person: "0 to 72", "0 or more".

    >>> shown_range((0, None)), shown_range((None, 5)), shown_range((0, 5))
    ('0 or more', '5 or less', '0 to 5')
    """
    low, high = given
    return f"{low} or more" if high is None else f"{high} or less" if low is None else f"{low} to {high}"


# -- across columns --------------------------------------------------------------------------------------------------


def _across(rule: RowRule, columns: Sequence[Column]) -> TableRule:
    listed = {c.name for c in columns if c.type == "category"}
    kept = _expression(rule.check, listed)
    broken = ~kept if rule.when is None else _expression(rule.when, listed).fill_null(False) & ~kept
    where = f" where {rule.rule.when}" if rule.rule.when else ""
    says = f"{rule.rule.check}{where}"

    def told(values: Sequence[Any]) -> str:
        facts = ", ".join(f"{name} is {shown(value)}" for name, value in zip(rule.columns, values, strict=True))
        return f"breaks rule {rule.rule.name}, {says}: {facts}"

    return TableRule(
        name=rule.rule.name, column=None, columns=rule.columns, says=says, rows=broken, count=broken.sum(), told=told
    )


def _expression(comparison: Comparison, listed: set[str]) -> pl.Expr:
    """listed: categories. Two of them are compared as texts, as their lists need not be the same; one of them with a
    value of its list (which `read_rule` saw to) as it is.
    """
    kind = comparison.kind
    as_text = kind == "text" and (isinstance(comparison.right, Name) or comparison.left.name not in listed)
    left, right = (_value(side, kind, as_text=as_text) for side in (comparison.left, comparison.right))
    made: pl.Expr = {
        "==": left == right, "!=": left != right, ">=": left >= right, "<=": left <= right, ">": left > right,
        "<": left < right,
    }[comparison.operator]  # fmt: skip
    return made


def _value(side: Name | Literal, kind: str, *, as_text: bool) -> pl.Expr:
    if isinstance(side, Name):
        return pl.col(side.name).cast(pl.String) if as_text else pl.col(side.name)
    value = side.value
    if kind == "datetime":
        assert isinstance(value, int)
        return pl.lit(clock.from_us(value))
    if kind == "date":
        return pl.lit(date.fromisoformat(str(value)))
    return pl.lit(value)


def shown(value: Any) -> str:
    """A value in a message: texts in quotes, the long ones cut, lists and bytes by their size."""
    if value is None:
        return "null"
    if isinstance(value, pl.Series | list):
        return f"a list of {len(value):,}"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    text = str(value)
    return (f'"{text}"' if isinstance(value, str) else text) if len(text) <= 60 else f'"{text[:57]}…"'
