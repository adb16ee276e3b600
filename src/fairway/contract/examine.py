"""A table held against its contract: typed columns, and for every rule how many rows break it and which come first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import polars as pl

from fairway import clock
from fairway.contract.columns import Column, Contract
from fairway.contract.parsed import Parsed
from fairway.contract.parsing import parse
from fairway.contract.rules import BAD, TableRule, compile_rules, count_broken, ends, first_rows, shown
from fairway.contract.toml import nearest
from fairway.contract.view import format_duration
from fairway.errors import ContractViolation, DataError

Locate = Callable[[int], tuple[str, int]]
Verdict = Literal["pass", "fail", "unknown"]

LISTED = 10  # first bad rows that are kept of each rule
_LIKE_AN_ID = 50  # rows; with fewer, whole numbers may differ by chance
_GLANCE = 200  # rows that are looked at before all of a column is counted


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A row that breaks a rule: where it is (rows counted from 1 within their file) and the values that matter."""

    file: str
    row: int
    values: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class RuleResult:
    """One rule on one table.

    rule: its name, "tenure.range". column: None for a rule over several columns or the table. says: what must hold.
    broken: rows that break it (1 for a rule over the whole table). rows: the first of them. told: what is said of the
    first. unknown: could not be told, `told` says why.
    """

    rule: str
    column: str | None
    says: str
    verdict: Verdict
    broken: int = 0
    rows: tuple[BadRow, ...] = ()
    told: str = ""
    hint: str = ""
    error: type[DataError] = ContractViolation

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        kept = {k: v for k, v in vars(self).items() if k not in ("rows", "error")}
        return {**kept, "rows": [dict(vars(row)) for row in self.rows]}


@dataclass(frozen=True, kw_only=True)
class Examined:
    """frame: typed, the columns that are there in the contract's order, every row kept; what did not fit is null.

    results: every rule, in the contract's order. flags: rows per flag ("unseen:COLUMN", "out_of_seen:COLUMN"):
    counted, not refused. warnings: sentences. rows: of the table.
    """

    frame: pl.DataFrame
    results: tuple[RuleResult, ...]
    flags: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    rows: int = 0

    @property
    def broken(self) -> tuple[RuleResult, ...]:
        return tuple(r for r in self.results if r.verdict == "fail")

    @property
    def verdict(self) -> Verdict:
        return "fail" if self.broken else "unknown" if any(r.verdict == "unknown" for r in self.results) else "pass"


def examine(
    frame: pl.DataFrame,
    columns: Sequence[Column],
    *,
    file: str = "",
    locate: Locate | None = None,
    contract: Contract | None = None,
    now: datetime | None = None,
    height: int | None = None,
) -> Examined:
    """Every rule of the columns and, where `contract` is given, those over columns and over the table.

    columns: those that `frame` is to have. locate: row index -> (file, row counted from 1), for tables of many files.
    now: for the age of the newest row. height: rows of the table where `frame` is a part of it.
    Nothing is raised for what the data are: see `table.apply`.
    """
    where = locate or (lambda index: (file, index + 1))
    made: list[pl.Series] = []
    marks: list[pl.Series] = []
    results: list[RuleResult] = []
    flags: dict[str, int] = {}
    warnings: list[str] = []
    present: list[Column] = []
    for column in columns:
        if column.name not in frame.columns:
            results.append(_missing(column, frame.columns))
            continue
        raw = frame[column.name]
        parsed = parse(raw, column)
        warnings += [f"column {column.name}: {note}" for note in parsed.notes]
        results.append(_fit(raw, parsed, column, where, flags))
        if parsed.bad.any():
            marks.append(parsed.bad.alias(BAD + column.name))
        made.append(parsed.values.alias(column.name))
        present.append(column)
    typed = pl.DataFrame(made)
    rules = _rules(present, contract, marks, results)
    whole = typed.with_columns(marks)
    watched = [c for c in present if c.seen is not None and c.role == "feature"]
    counted = [*rules, *(_outside(c) for c in watched)]
    counts = count_broken(whole, counted)
    results += [_result(whole, rule, n, where) for rule, n in zip(rules, counts, strict=False)]
    flags |= {f"out_of_seen:{c.name}": n for c, n in zip(watched, counts[len(rules) :], strict=True) if n}
    results = _in_order(results, columns)
    if contract is not None:
        results += _of_table(typed, contract, present, now, frame.height if height is None else height)
    for column in present:
        warnings += _noticed(typed[column.name], column)
    extra = [name for name in frame.columns if name not in {c.name for c in columns}]
    if extra:
        listed = ", ".join(extra[:LISTED]) + (", …" if len(extra) > LISTED else "")
        warnings.append(f"not used: {listed} (ignored, or not in contract.toml)")
    return Examined(
        frame=typed, results=tuple(results), flags=flags, warnings=tuple(warnings),
        rows=frame.height if height is None else height,
    )  # fmt: skip


def refusal(result: RuleResult, *, file: str = "") -> DataError:
    """A broken rule as the sentence that a command ends with: file, row, column, the value, and how many such rows.

    file: what a rule over the whole table names.
    """
    text = result.told
    if result.broken > 1 and result.rows:
        listed = ", ".join(str(row.row) for row in result.rows)
        text += f" ({result.broken:,} such rows: {listed}{', …' if result.broken > len(result.rows) else ''})"
    first = result.rows[0] if result.rows else None
    return result.error(
        text + (f".\n{result.hint}" if result.hint else ""),
        file=(first.file if first else file) or None,
        row=first.row if first else None,
        column=result.column,
    )


# -- types -----------------------------------------------------------------------------------------------------------


_KINDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "category": "a text of its list",
    "string": "a text", "text": "a text", "datetime": "a time with its zone", "date": "a date",
}  # fmt: skip


def _missing(column: Column, names: Sequence[str]) -> RuleResult:
    hint = nearest(column.name, names)
    told = "the table has no such column" + (f"; did {hint} take its place?" if hint else "")
    return RuleResult(
        rule=f"{column.name}.column", column=column.name, says="is there", verdict="fail", broken=1, told=told,
        error=DataError,
    )  # fmt: skip


def _fit(raw: pl.Series, parsed: Parsed, column: Column, where: Locate, flags: dict[str, int]) -> RuleResult:
    """Whether every value is of its type; a category never seen is flagged, unless that is refused."""
    kind = _KINDS.get(column.type) or (f"{column.length} numbers" if column.type == "vector" else "an image's bytes")
    listed = column.type == "category" and not parsed.wrong.startswith("a text")
    rule, says = f"{column.name}.type", f"is {kind}"
    if listed and (column.role == "target" or column.unseen == "reject"):
        rule, says = f"{column.name}.values", f"is one of {len(column.values):,} values"
    bad = parsed.bad
    if not bad.any():
        return RuleResult(rule=rule, column=column.name, says=says, verdict="pass")
    places = [int(place) for place in bad.arg_true().head(LISTED)]
    value, error, hint = raw[places[0]], DataError, parsed.hint
    if listed and column.role != "target":
        if column.unseen == "null":
            flags[f"unseen:{column.name}"] = int(bad.sum())
            return RuleResult(rule=rule, column=column.name, says=says, verdict="pass")
        told = f'{shown(value)} is none of the declared values, and unseen = "reject"'
        error, hint = ContractViolation, ""
    elif column.type == "category" and listed:
        close = nearest(str(value), column.values) or ""
        told, hint = f"{shown(value)} is no class of the target{close and f'; {close}?'}", ""
    else:
        told = f"{shown(value)} is not {parsed.wrong}"
    rows = tuple(_bad_row(where, place, {column.name: raw[place]}) for place in places)
    return RuleResult(
        rule=rule, column=column.name, says=says, verdict="fail", broken=int(bad.sum()), rows=rows, told=told,
        hint=hint, error=error,
    )  # fmt: skip


# -- rules -----------------------------------------------------------------------------------------------------------


def _rules(
    present: Sequence[Column], contract: Contract | None, marks: Sequence[pl.Series], results: list[RuleResult]
) -> list[TableRule]:
    """What can be compiled; a rule over a column that is not there is unknown."""
    names = {c.name for c in present}
    possible = []
    for rule in contract.rules if contract is not None else ():
        try:
            compile_rules((), (rule,), known=present)
        except ValueError as exc:
            results.append(
                RuleResult(rule=rule.name, column=None, says=rule.check, verdict="unknown", told=f"it {exc}")
            )
        else:
            possible.append(rule)
    marked = [series.name.removeprefix(BAD) for series in marks]
    return compile_rules(present, possible, marked=[name for name in marked if name in names])


def _outside(column: Column) -> TableRule:
    """Counts rows outside of what was seen: a flag, no rule."""
    assert column.seen is not None
    low, high = ends(column, column.seen)
    value = pl.col(column.name)
    smallest, largest = (value.arr.min(), value.arr.max()) if column.type == "vector" else (value, value)
    rows = (smallest < low) | (largest > high)
    return TableRule(
        name="seen", column=column, columns=(column.name,), says="", rows=rows, count=rows.sum(), told=lambda _: ""
    )


def _result(frame: pl.DataFrame, rule: TableRule, broken: int, where: Locate) -> RuleResult:
    column = rule.column.name if rule.column is not None else None
    if not broken:
        return RuleResult(rule=rule.name, column=column, says=rule.says, verdict="pass")
    places = first_rows(frame, rule, LISTED)
    rows = tuple(_bad_row(where, p, {name: frame[name][p] for name in rule.columns}) for p in places)
    told = rule.told([frame[name][places[0]] for name in rule.columns])
    return RuleResult(
        rule=rule.name, column=column, says=rule.says, verdict="fail", broken=broken, rows=rows, told=told,
        hint=rule.hint, error=rule.error,
    )  # fmt: skip


def _bad_row(where: Locate, place: int, values: dict[str, Any]) -> BadRow:
    file, row = where(place)
    return BadRow(file=file, row=row, values={name: shown(value) for name, value in values.items()})


def _in_order(results: Sequence[RuleResult], columns: Sequence[Column]) -> list[RuleResult]:
    """By column, each with its type first; what is over several columns last."""
    order: dict[str | None, int] = {c.name: place for place, c in enumerate(columns)}
    return sorted(results, key=lambda r: order.get(r.column, len(order)))


def _of_table(
    typed: pl.DataFrame, contract: Contract, present: Sequence[Column], now: datetime | None, height: int
) -> list[RuleResult]:
    found = []
    if contract.rows is not None:
        low, high = contract.rows
        held = low <= height <= high
        says = f"the table has {low:,} to {high:,} rows"
        told = "" if held else f"the table has {height:,} rows; contract.toml asks for {low:,} to {high:,}"
        found.append(_whole("rows", says, held, told))
    if contract.fresh is not None:
        found.append(_fresh(typed, contract.fresh, present, now))
    return found


def _fresh(typed: pl.DataFrame, limit: timedelta, present: Sequence[Column], now: datetime | None) -> RuleResult:
    says = f"the newest row is at most {format_duration(limit)} old"
    at = next((c.name for c in present if c.role == "at"), None)
    newest: Any = typed[at].max() if at is not None and typed.height else None
    if newest is None or now is None:
        why = "there is no prediction time (at)" if at is None else "no row has one" if newest is None else "no time"
        return RuleResult(rule="fresh", column=None, says=says, verdict="unknown", told=why)
    age = now - newest
    minutes = format_duration(timedelta(minutes=max(1, age // timedelta(minutes=1))))
    most = format_duration(limit)
    told = f"the newest {at} is {clock.iso(newest)}, {minutes} ago; contract.toml asks for at most {most}"
    return _whole("fresh", says, age <= limit, "" if age <= limit else told)


def _whole(rule: str, says: str, held: bool, told: str) -> RuleResult:
    return RuleResult(
        rule=rule, column=None, says=says, verdict="pass" if held else "fail", broken=0 if held else 1, told=told
    )


def _noticed(values: pl.Series, column: Column) -> list[str]:
    """Oddities that no rule forbids. A glance tells most columns apart before all their values are counted."""
    if len(values) < 2 or column.role != "feature":
        return []
    if values.null_count() == len(values):
        return [f"column {column.name} is null in every row"]
    head = values.head(_GLANCE)
    different = head.n_unique()
    if different == 1 and values.n_unique() == 1:
        return [f"column {column.name} has the same value in every row"]
    like_an_id = column.type == "int" and different == len(head) and len(values) >= _LIKE_AN_ID
    if like_an_id and values.n_unique() == len(values):
        return [f"column {column.name} has another value in every row, like an id; is it one?"]
    return []
