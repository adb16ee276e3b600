"""A request brings one row, so a feature may only look at its own: features and views, alone and together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from fairway.checks.result import CheckResult, failed, passed, skipped
from fairway.checks.subject import KNOWN_AT, SECOND, Material, Subject, at_column, shown, some, who

ROWS = 3000  # of the table that features are computed on at once
ALONE = 24  # rows that are also computed one by one
SUBSETS = 3
VIEW_ROWS = 12
TOLERANCE = 1e-9  # of a float's size: sums in another order differ in the last digits
_ADVICE = "a request can never have it. Use a feature view, or a constant from train()."


@dataclass(frozen=True)
class Difference:
    """The first value that differs between two ways to compute the same row."""

    column: str
    row: int
    first: Any
    second: Any
    rows: int


def first_difference(whole: pl.DataFrame, part: pl.DataFrame, rows: np.ndarray[Any, Any]) -> Difference | None:
    """Where part[i] is not whole[rows[i]]; floats may differ by 1e-9 of their size, null and NaN equal themselves."""
    wanted = whole[rows]
    for name in whole.columns:
        first, second = wanted[name], part[name]
        if first.dtype != second.dtype:
            try:  # a column that is all null in the part has another type, and the same values
                second = second.cast(first.dtype, strict=True)
            except pl.exceptions.PolarsError:
                return Difference(name, int(rows[0]), f"{first.dtype}", f"{part[name].dtype}", len(rows))
        same = first.eq_missing(second)
        if first.dtype.is_float():
            a, b = first.to_numpy(), second.to_numpy()
            with np.errstate(invalid="ignore"):
                near = np.abs(a - b) <= TOLERANCE * np.maximum(np.abs(a), np.abs(b))
            same = same | pl.Series(near)
        if not same.all():
            where = int(np.flatnonzero(~same.to_numpy())[0])
            return Difference(name, int(rows[where]), first[where], part[name][where], int((~same).sum()))
    return None


def row_wise_features(subject: Subject, material: Material) -> CheckResult:
    """The same features for a row alone, in subsets, in another order and in the whole table."""
    name = "row-wise-features"
    rng = np.random.default_rng(material.seed)
    rows = some(pl.concat([material.train, material.heldout], how="diagonal_relaxed"), ROWS, rng)
    frame = subject.look_up(rows, material.events)
    whole = subject.features(frame)
    if whole.height != frame.height:
        return failed(name, f"features() returned {whole.height:,} rows for {frame.height:,}: every row must stay",
                      rows_in=frame.height, rows_out=whole.height)  # fmt: skip
    everyone = np.arange(frame.height)
    trials = [("a second time", everyone), ("in another order", rng.permutation(everyone))]
    trials += [("alone", np.array([i])) for i in rng.choice(everyone, min(ALONE, len(everyone)), replace=False)]
    for _ in range(SUBSETS):
        size = int(rng.integers(2, max(3, frame.height // 2 + 1)))
        trials.append(("in a part", rng.choice(everyone, min(size, len(everyone)), replace=False)))
    for how, picked in trials:
        try:
            part = subject.features(frame[picked])
        except Exception as error:  # whatever model.py raises is this check's finding
            return failed(name, f"features() fails on {_rows(how, picked)}: {type(error).__name__}: {error}",
                          how=how, error=repr(error), row=_row(frame, int(picked[0])))  # fmt: skip
        if part.columns != whole.columns:
            return failed(
                name, f"features() returns other columns {how}", how=how, whole=whole.columns, part=part.columns
            )
        if part.height != len(picked):
            say = f"features() returned {part.height:,} rows for {len(picked):,} {how}; every row must stay"
            return failed(name, say, how=how, rows_in=len(picked), rows_out=part.height)
        difference = first_difference(whole, part, picked)
        if difference is not None:
            return _explain(name, subject, frame, difference, how)
    return passed(name, f"{len(whole.columns)} columns; the same values row by row and in subsets",
                  columns=len(whole.columns), rows=frame.height, trials=len(trials))  # fmt: skip


def _rows(how: str, picked: np.ndarray[Any, Any]) -> str:
    return "one row alone" if how == "alone" else f"{len(picked):,} rows {how}"


def _row(frame: pl.DataFrame, row: int) -> dict[str, Any]:
    return {key: shown(value) for key, value in frame.row(row, named=True).items()}


def _explain(name: str, subject: Subject, frame: pl.DataFrame, difference: Difference, how: str) -> CheckResult:
    """Prefer the row alone: that is what a request is."""
    one = np.array([difference.row])
    alone = subject.features(frame[one])
    value = (
        alone[difference.column][0] if alone.height == 1 and difference.column in alone.columns else difference.second
    )
    row = _row(frame, difference.row)
    place, other = (
        ("alone", value) if how != "a second time" and value != difference.first else (how, difference.second)
    )
    say = (
        f'column "{difference.column}" of {who(subject.contract, row)} is {_short(other)} {place} and '
        f"{_short(difference.first)} in the whole table. It depends on other rows or calls, so {_ADVICE}"
    )
    return failed(name, say, column=difference.column, how=how, alone=shown(other), whole=shown(difference.first),
                  rows_differ=difference.rows, row=row)  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def views_point_in_time(subject: Subject, material: Material) -> CheckResult:
    """A view's value may depend on what was known by `at`, and on nothing else."""
    name = "views-point-in-time"
    if not subject.views:
        return skipped(name, "the project has no feature views")
    at = at_column(subject.contract)
    if at is None:
        return skipped(name, "there is no `at` column, so no prediction time")
    rng = np.random.default_rng(material.seed)
    rows = some(pl.concat([material.train, material.heldout], how="diagonal_relaxed"), ROWS, rng)
    whole = subject.look_up(rows, material.events)
    columns = [c for c in whole.columns if c not in rows.columns]
    answered = np.flatnonzero(whole.select(pl.any_horizontal(pl.col(columns).is_not_null())).to_series().to_numpy())
    pool = answered if len(answered) else np.arange(rows.height)
    moved = False
    for row in rng.choice(pool, min(VIEW_ROWS, len(pool)), replace=False):
        one = rows[[int(row)]]
        wanted = whole[[int(row)]].select(columns)
        moment = one[at][0]
        own = own_events(subject, material, one)
        trials = {
            "with only its own events": own,
            "with planted later events": _with_future(subject, material, own, one, moment),
            "alone, with all events": dict(material.events),
        }
        for how, events in trials.items():
            again = subject.look_up(one, events).select(columns)
            difference = first_difference(wanted, again, np.array([0]))
            if difference is not None:
                shown_row = _row(one, 0)
                say = (
                    f'column "{difference.column}" of {who(subject.contract, shown_row)} at {moment} is '
                    f"{_short(difference.second)} {how} and {_short(difference.first)} in the whole table: it uses "
                    f"what was not known at that time, or other rows"
                )
                return failed(name, say, column=difference.column, how=how, row=shown_row,
                              whole=shown(difference.first), again=shown(difference.second))  # fmt: skip
        other = subject.look_up(one, _scrambled(own)).select(columns)
        moved = moved or first_difference(wanted, other, np.array([0])) is not None
    if len(answered) and not moved:
        return failed(name, "the values of the views stay the same when their events are replaced: they are made from "
                      "something else, which a request will not have", columns=columns)  # fmt: skip
    tried = min(VIEW_ROWS, len(pool))
    return passed(name, f"{len(columns)} view columns of {tried} rows: the same from only what was known at the time",
                  columns=columns, rows=tried)  # fmt: skip


def _at_of(subject: Subject, source: str) -> str:
    return subject.settings.sources[source].at


def own_events(subject: Subject, material: Material, one: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Only the events that the row's views may see."""
    found: dict[str, pl.DataFrame] = {}
    at = at_column(subject.contract)
    if at is None:
        return {}
    moment = one[at][0]
    for spec in subject.views:
        events = material.events[spec.source]
        when = _at_of(subject, spec.source)
        mask = (
            (pl.col(spec.entity) == one[spec.entity][0])
            & (pl.col(when) <= moment)
            & (pl.col(when) > moment - spec.window)
        )
        if KNOWN_AT in events.columns:
            mask &= pl.col(KNOWN_AT) <= moment
        seen = events.filter(mask)
        found[spec.source] = (
            pl.concat([found[spec.source], seen]).unique(maintain_order=True) if spec.source in found else seen
        )
    return {source: events[:0] for source, events in material.events.items()} | found


def _with_future(
    subject: Subject, material: Material, own: dict[str, pl.DataFrame], one: pl.DataFrame, moment: Any
) -> dict[str, pl.DataFrame]:
    """The row's events plus extreme ones: some that happen later, some that happened before and become known later."""
    found = dict(own)
    for spec in subject.views:
        when = _at_of(subject, spec.source)
        pattern = own[spec.source][:5] if own[spec.source].height else material.events[spec.source][:5]
        numbers = [c for c, kind in pattern.schema.items() if kind.is_numeric() and c != spec.entity]
        entity = pl.lit(one[spec.entity][0]).cast(pattern.schema[spec.entity]).alias(spec.entity)
        planted = pattern.with_columns(entity, *(pl.lit(123_456_789).cast(pattern.schema[c]).alias(c) for c in numbers))
        soon, before = (_time(moment + SECOND, pattern.schema[when]), _time(moment - SECOND, pattern.schema[when]))
        later = planted.with_columns(soon.alias(when))
        if KNOWN_AT in planted.columns:
            unknown_yet = planted.with_columns(before.alias(when), soon.alias(KNOWN_AT))
            later = pl.concat([later.with_columns(soon.alias(KNOWN_AT)), unknown_yet])
        found[spec.source] = pl.concat([found[spec.source], later.select(found[spec.source].columns)])
    return found


def _time(moment: Any, kind: pl.DataType) -> pl.Expr:
    return pl.lit(moment).cast(kind)


def _scrambled(own: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Other numbers in every second of the events only."""
    found = {}
    for source, events in own.items():
        numbers = [pl.col(c) * 3 + 1 for c, kind in events.schema.items() if kind.is_float()]
        found[source] = events.gather_every(2).with_columns(numbers) if numbers else events[:0]
    return found
