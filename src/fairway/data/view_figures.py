"""Declared views: count, sum, mean, min, max and last of the events that a question sees, computed by fairway.

One function makes a figure from spans of ordered values, for a million training rows and for one request: the same
values in the same order give the same bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway.contract.view import Feature, ViewSpec
from fairway.data.view_places import Ints, Places, Spans
from fairway.errors import DataError, ModelCodeError

PAIRS = 2_000_000  # (question, event) pairs spelled out at once where an event was not known in time


def schema_of(view: ViewSpec, events: Mapping[str, pl.DataType]) -> dict[str, str]:
    """The view's columns and their types, from those of its source. Raises: DataError, ModelCodeError."""
    return {feature.name: str(_dtype(view, feature, events)) for feature in view.features}


def figures(view: ViewSpec, events: pl.DataFrame, places: Places) -> list[pl.Series]:
    """One column per feature, one value per question."""
    groups = [] if view.latest else _groups(places)
    return [_figure(view, feature, events, places, groups) for feature in view.features]


def span_figures(view: ViewSpec, events: pl.DataFrame, start: Ints, end: Ints) -> list[pl.Series]:
    """As `figures`, where question i sees exactly the rows start[i]:end[i] of `events`, in that order."""
    order = np.arange(events.height)
    last = np.where(end > start, end - 1, -1)
    nothing = np.zeros(0, dtype=np.int64)
    return figures(view, events, Places(order, None, start, end, last, nothing))


@dataclass(frozen=True)
class _Group:
    """Questions with their events: spans of the ordered events, or of those `picked` from them."""

    questions: Ints
    spans: Spans
    picked: Ints | None

    def reduce(self, ufunc: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        return self.spans.reduce(ufunc, values if self.picked is None else values[self.picked])


def _groups(places: Places) -> list[_Group]:
    """The questions that have events."""
    ranges = places.ascending
    blind = places.blind[ranges] if places.known is not None else np.zeros(len(ranges), dtype=bool)
    plain = ranges[~blind]
    found = [_Group(plain, Spans(places.start[plain], places.end[plain]), None)]
    for part in _parts(ranges[blind], places):
        place, asked = places.seen(part)
        n = np.bincount(asked, minlength=len(part))
        ends = np.cumsum(n)
        some = n > 0
        found.append(_Group(part[some], Spans((ends - n)[some], ends[some]), place))
    return found


def _figure(
    view: ViewSpec, feature: Feature, events: pl.DataFrame, places: Places, groups: Sequence[_Group]
) -> pl.Series:
    dtype = _dtype(view, feature, events.schema)
    if feature.how == "last":
        assert feature.column is not None
        return events[feature.column].gather(places.last_rows).cast(dtype).alias(feature.name)
    values, present = _values(feature, events, places)
    made = np.zeros(len(places.start), dtype=values.dtype if feature.how != "mean" else np.float64)
    found = np.zeros(len(places.start), dtype=bool)
    ufunc = {"min": np.minimum, "max": np.maximum}.get(feature.how, np.add)
    for group in groups:
        n = group.spans.counts if present is None else group.reduce(np.add, present)
        if feature.how == "count":
            made[group.questions], found[group.questions] = n, True
            continue
        result = group.reduce(ufunc, values)
        made[group.questions] = result / np.maximum(n, 1) if feature.how == "mean" else result
        found[group.questions] = n > 0
    column = pl.Series(feature.name, made)
    if not found.all():
        column = column.set(pl.Series(~found), None)
    return column.cast(dtype)


def _values(feature: Feature, events: pl.DataFrame, places: Places) -> tuple[NDArray[Any], Ints | None]:
    """The column in the order of the places as numbers, nulls as what changes nothing, and which are present."""
    if feature.column is None:
        return np.zeros(len(places.order), dtype=np.int64), None
    column = events[feature.column].gather(places.order)
    present = column.is_not_null().to_numpy().astype(np.int64) if column.null_count() else None
    if feature.how == "count":
        return np.zeros(len(places.order), dtype=np.int64), present
    exact = pl.Float64 if column.dtype.is_float() or feature.how == "mean" else pl.Int64
    nothing: dict[str, float] = {"min": np.inf, "max": -np.inf}
    if exact == pl.Int64:
        nothing = {"min": np.iinfo(np.int64).max, "max": np.iinfo(np.int64).min}
    return column.cast(exact).fill_null(nothing.get(feature.how, 0)).to_numpy(), present


def _parts(questions: Ints, places: Places) -> list[Ints]:
    """The questions in parts of about PAIRS events each."""
    ends = np.cumsum(places.end[questions] - places.start[questions])
    cuts = np.searchsorted(ends, np.arange(PAIRS, int(ends[-1]) if len(ends) else 0, PAIRS))
    return [part for part in np.split(questions, cuts) if len(part)]


def _dtype(view: ViewSpec, feature: Feature, events: Mapping[str, pl.DataType]) -> Any:
    if feature.column is None:
        return pl.Int64()
    if feature.column not in events:
        raise DataError(
            f"source {view.source!r} has no column {feature.column!r}, which {feature.name} of view {view.name} needs; "
            f"it has {', '.join(list(events)[:20])}",
            column=feature.column,
        )
    dtype = events[feature.column]
    number = dtype.is_numeric() or dtype == pl.Boolean
    if feature.how == "count":
        return pl.Int64()
    if feature.how == "last":
        if isinstance(dtype, pl.Enum | pl.Categorical):
            return pl.String()
        if number or dtype == pl.String:
            return dtype
    elif number:
        return pl.Float64() if feature.how == "mean" or dtype.is_float() else pl.Int64()
    raise ModelCodeError(
        f"model.py, view {view.name}: {feature.name} is the {feature.how} of {feature.column!r}, which is {dtype}; "
        "a view's columns are numbers, bools, text"
    )


def check_names(view: ViewSpec, taken: Sequence[str]) -> None:
    """Raises: ModelCodeError when the table or an earlier view has a column of that name."""
    for feature in view.features:
        if feature.name in taken:
            raise ModelCodeError(
                f"model.py, view {view.name} makes a column {feature.name!r} that the table has already; "
                'name it otherwise, as in columns={"NEW": "COLUMN"}'
            )
