"""Feature views, exact as of the prediction time: in training and in serving by the same code.

A question is a distinct (entity, at) pair. A view's function gets, for many questions at once, the events of each
one's window (at - window, at] that were known at `at`; it never gets another event, so it can't see the future. No row
of the table ever disappears: a question without events is null.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from fairway.contract.view import ViewSpec
from fairway.data.frames import as_asked, as_polars
from fairway.errors import DataError, ModelCodeError

AT = "at"  # what the prediction time is called in the frame that a view gets
KNOWN_AT = "_known_at"
ROW = "_row"
PAIRS = 2_000_000  # (question, event) pairs handed to a view at once: bounds memory at about 200 MB

Schema = Mapping[str, str]
Schemas = Mapping[str, Schema]


def compute(
    views: Sequence[ViewSpec],
    rows: pl.DataFrame,
    events: Mapping[str, pl.DataFrame],
    *,
    at: str,
    event_at: Mapping[str, str],
    schemas: Schemas | None = None,
) -> pl.DataFrame:
    """`rows`, order and count kept, with each view's columns beside them.

    rows: typed, with the views' entity columns and the prediction time `at`. events: typed, per source; the column
    "_known_at" says when an event was known (its absence: at its event time). event_at: the event time's column per
    source. schemas: view -> column -> dtype as in a package, so that types don't depend on which events there are.
    Raises: ModelCodeError for a view that breaks its promises, DataError for frames that lack a column.
    """
    return look_up(views, rows, events, at=at, event_at=event_at, schemas=schemas)[0]


def look_up(
    views: Sequence[ViewSpec],
    rows: pl.DataFrame,
    events: Mapping[str, pl.DataFrame],
    *,
    at: str,
    event_at: Mapping[str, str],
    schemas: Schemas | None = None,
) -> tuple[pl.DataFrame, dict[str, Schema]]:
    """As `compute`, with each view's columns and their types beside the frame."""
    looked, found = rows, {}
    for view in views:
        source = _source(view, events, event_at)
        questions = _questions(view, rows, at)
        answers = [
            _ask(view, joined, asked)
            for joined, asked in _chunks(view, questions, source, event_at[view.source], rows.schema[view.entity])
        ]
        schema = (schemas or {}).get(view.name) or _schema(view, answers, source, rows)
        looked = _attach(view, looked, at, answers, schema)
        found[view.name] = schema
    return looked, found


def compute_given(
    views: Sequence[ViewSpec],
    rows: pl.DataFrame,
    events: Mapping[str, pl.DataFrame],
    *,
    at: str,
    event_at: Mapping[str, str],
    schemas: Schemas,
) -> pl.DataFrame:
    """As `compute`, where each row brings its own events: it sees these and no others. Made for a request.

    events: per source, all rows' events in one frame whose column "_row" is the number of the row in `rows`.
    Events outside a view's window or of another entity are left out here too. Of rows that ask the same question the
    first one's events count.
    """
    looked = rows
    for view in views:
        source = events.get(view.source)
        answers: list[pl.DataFrame] = []
        if source is not None and source.height:
            joined = _windowed(view, rows, source, at, event_at[view.source])
            if joined.height:
                answers.append(_answer(view, joined, rows.schema[view.entity], rows.schema[at]))
        looked = _attach(view, looked, at, answers, schemas[view.name])
    return looked


def _windowed(view: ViewSpec, rows: pl.DataFrame, source: pl.DataFrame, at: str, time: str) -> pl.DataFrame:
    """The rows' own events joined with their questions. By NumPy: each Polars query costs more than all of it."""
    place = source[ROW].to_numpy()
    moments = rows[at].cast(pl.Int64).to_list()
    first: dict[tuple[Any, Any], int] = {}
    asks = np.zeros(rows.height, dtype=bool)
    for row, question in enumerate(zip(rows[view.entity].to_list(), moments, strict=True)):
        asks[row] = None not in question and first.setdefault(question, row) == row
    moment = np.array([m if m is not None else 0 for m in moments], dtype=np.int64)[place]
    happened = source[time].cast(pl.Int64).to_numpy()
    whose = rows[view.entity][place]
    same = (source[view.entity].cast(pl.String) == whose.cast(pl.String)).to_numpy()
    seen = asks[place] & (happened <= moment) & (happened > moment - _us(view)) & same
    if KNOWN_AT in source.columns:
        seen &= source[KNOWN_AT].cast(pl.Int64).to_numpy() <= moment
    columns = [
        whose.alias(name) if name == view.entity else source[name]
        for name in source.columns
        if name not in (ROW, KNOWN_AT)
    ]
    joined = pl.DataFrame([*columns, rows[at][place].alias(AT)])[np.flatnonzero(seen)]
    return joined.sort(_order(view, joined, time)) if joined.height > 1 else joined


def windows_of(
    views: Sequence[ViewSpec],
    rows: pl.DataFrame,
    events: Mapping[str, pl.DataFrame],
    *,
    at: str,
    event_at: Mapping[str, str],
) -> dict[str, pl.DataFrame]:
    """What each row's views see, per source, as `compute_given` takes it: with the number of the row in "_row"."""
    found: dict[str, list[pl.DataFrame]] = {}
    numbered = rows.with_row_index(ROW).with_columns(pl.col(ROW).cast(pl.Int64))
    for view in views:
        source = _source(view, events, event_at)
        names = [name for name in source.columns if name != KNOWN_AT]
        back = pl.col(view.entity).cast(pl.String).cast(source.schema[view.entity])
        asked = numbered.select(ROW, view.entity, pl.col(at).alias(AT))
        questions, entity = _questions(view, rows, at), rows.schema[view.entity]
        pieces = found.setdefault(view.source, [source.clear().select(pl.lit(0, pl.Int64).alias(ROW), *names)])
        for joined, _ in _chunks(view, questions, source, event_at[view.source], entity):
            pieces.append(joined.join(asked, on=[view.entity, AT]).with_columns(back).select(ROW, *names))
    return {name: pl.concat(pieces).unique().sort(pl.all()) for name, pieces in found.items()}


def _source(view: ViewSpec, events: Mapping[str, pl.DataFrame], event_at: Mapping[str, str]) -> pl.DataFrame:
    if view.source not in event_at:
        raise ModelCodeError(f"view {view.name} reads source {view.source!r}, which is not under [sources]")
    if view.source not in events:
        raise DataError(f"view {view.name} needs the events of source {view.source!r}")
    source = events[view.source]
    for name in (view.entity, event_at[view.source]):
        if name not in source.columns:
            raise DataError(f"source {view.source!r} has no column {name!r}, which view {view.name} needs", column=name)
    if AT in source.columns:
        raise DataError(f"source {view.source!r} has a column {AT!r}: a view gets the prediction time so; rename it")
    return source


def _us(view: ViewSpec) -> int:
    return int(view.window.total_seconds() * 1_000_000)


def _questions(view: ViewSpec, rows: pl.DataFrame, at: str) -> pl.DataFrame:
    """Distinct (entity, at) pairs, without nulls, sorted."""
    for name in (view.entity, at):
        if name not in rows.columns:
            raise DataError(f"the table has no column {name!r}, which view {view.name} needs", column=name)
    return rows.select(view.entity, pl.col(at).alias(AT)).drop_nulls().unique().sort(view.entity, AT)


def _prepared(view: ViewSpec, source: pl.DataFrame, time: str, entity: Any) -> pl.DataFrame:
    """Events in one order wherever they come from, with the entity's type of the rows.

    Ties are ordered by the other columns: a view that takes the last event must not depend on how a store sorts.
    """
    if source.schema[view.entity] != entity:
        source = source.with_columns(pl.col(view.entity).cast(pl.String).cast(entity, strict=False))
    return source.drop_nulls([view.entity, time]).sort(_order(view, source, time))


def _order(view: ViewSpec, frame: pl.DataFrame, time: str) -> list[str]:
    others = [name for name in frame.columns if name not in (view.entity, time, AT, KNOWN_AT)]
    return [view.entity, *([AT] if AT in frame.columns else []), time, *others]


def _chunks(
    view: ViewSpec, questions: pl.DataFrame, source: pl.DataFrame, time: str, entity: Any
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """(events joined with their questions, those questions), at most about PAIRS events at once."""
    ordered = _prepared(view, source, time, entity)
    if not ordered.height or not questions.height:
        return
    # One sorted integer per event, entity before time, so that a window is a range and two searches find its ends.
    names = pl.concat([questions[view.entity], ordered[view.entity]]).unique().sort()
    places = pl.DataFrame({view.entity: names, "_code": pl.Series(range(len(names)), dtype=pl.Int64)})
    moments, code = (
        questions[AT].dt.timestamp("us").to_numpy(),
        questions.join(places, on=view.entity, how="left", maintain_order="left")["_code"].to_numpy(),
    )
    times = ordered[time].dt.timestamp("us").to_numpy()
    owner = ordered.join(places, on=view.entity, how="left", maintain_order="left")["_code"].to_numpy()
    known = ordered[KNOWN_AT].dt.timestamp("us").to_numpy() if KNOWN_AT in ordered.columns else None
    distinct, rank = np.unique(times, return_inverse=True)
    base = len(distinct) + 1
    key = owner * base + rank
    order = np.argsort(key, kind="stable")  # already sorted unless the entity's own order differs from its codes'
    key = key[order]
    length = _us(view)
    start = np.searchsorted(key, code * base + np.searchsorted(distinct, moments - length, side="right"))
    end = np.searchsorted(key, code * base + np.searchsorted(distinct, moments, side="right"))
    counts = end - start
    ends = np.cumsum(counts)
    visible = ordered.select(pl.exclude(KNOWN_AT))
    first = 0
    while first < len(counts):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + PAIRS, side="right")))
        n = counts[first:last]
        question = np.repeat(np.arange(first, last), n)
        offset = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n)
        event = order[start[question] + offset]
        if known is not None:
            seen = known[event] <= moments[question]
            question, event = question[seen], event[seen]
        asked = questions.slice(first, last - first)
        if len(event):
            yield visible[event].with_columns(questions[AT].gather(question).alias(AT)), asked
        first = last


def _answer(view: ViewSpec, joined: pl.DataFrame, entity: Any, moment: Any) -> pl.DataFrame:
    """What the view's function makes of these events, with its key's columns in their types."""
    who = f"model.py, view {view.name}()"
    answer = as_polars(view.function(as_asked(joined, view.function, 0)), who)
    for name, dtype in ((view.entity, entity), (AT, moment)):
        if name not in answer.columns:
            raise ModelCodeError(f"{who} returned no column {name!r}; group by {view.entity!r} and {AT!r}")
        if answer.schema[name] != dtype:
            answer = answer.with_columns(pl.col(name).cast(dtype))
    if answer.width == 2:
        raise ModelCodeError(f"{who} returned no column besides {view.entity!r} and {AT!r}")
    return answer


def _ask(view: ViewSpec, joined: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
    """The view's answers for these questions, checked."""
    who, key = f"model.py, view {view.name}()", [view.entity, AT]
    answer = _answer(view, joined, asked.schema[view.entity], asked.schema[AT])
    if answer.select(pl.struct(key).n_unique()).item() != answer.height:
        twice = answer.filter(pl.struct(key).is_duplicated()).row(0, named=True)
        raise ModelCodeError(f"{who} returned two rows for {view.entity} {twice[view.entity]!r} at {twice[AT]}")
    strange = answer.join(asked, on=key, how="anti")
    if strange.height:
        raise ModelCodeError(
            f"{who} returned {view.entity} {strange[view.entity][0]!r} at {strange[AT][0]}, which was not asked"
        )
    return answer


def _schema(view: ViewSpec, answers: list[pl.DataFrame], source: pl.DataFrame, rows: pl.DataFrame) -> Schema:
    """The columns that the view makes: of its first answer, or, where there are no events at all, of an empty call."""
    if answers:
        made = answers[0]
    else:
        entity = pl.col(view.entity).cast(pl.String).cast(rows.schema[view.entity], strict=False)
        empty = source.clear().select(pl.exclude(KNOWN_AT)).with_columns(entity)
        empty = empty.with_columns(pl.lit(None, dtype=pl.Datetime("us", "UTC")).alias(AT))
        made = as_polars(view.function(as_asked(empty, view.function, 0)), f"model.py, view {view.name}()")
    schema = {}
    for name, dtype in made.schema.items():
        if name in (view.entity, AT):
            continue
        if not (dtype.is_numeric() or dtype in (pl.Boolean, pl.String, pl.Null)):
            raise ModelCodeError(
                f"model.py, view {view.name}() returned {name!r} as {dtype}; a view's columns are numbers, bools, text"
            )
        schema[name] = "Float64" if dtype == pl.Null else str(dtype)
    return schema


def _attach(view: ViewSpec, looked: pl.DataFrame, at: str, answers: list[pl.DataFrame], schema: Schema) -> pl.DataFrame:
    for name in schema:
        if name in looked.columns:
            raise ModelCodeError(f"model.py, view {view.name}() makes a column {name!r} that the table has already")
    types = {name: getattr(pl, dtype) for name, dtype in schema.items()}
    if not answers:
        return looked.with_columns(pl.lit(None, dtype=dtype).alias(name) for name, dtype in types.items())
    wanted = [view.entity, AT, *types]
    made = []
    for answer in answers:
        found = [name for name in answer.columns if name not in (view.entity, AT)]
        if set(found) != set(schema):
            name = sorted(set(found) ^ set(schema))[0]
            raise ModelCodeError(f"model.py, view {view.name}(): column {name!r} is there for some questions only")
        odd = [pl.col(name).cast(dtype) for name, dtype in types.items() if answer.schema[name] != dtype]
        typed = answer.with_columns(odd) if odd else answer
        made.append(typed if typed.columns == wanted else typed.select(wanted))
    table = pl.concat(made) if len(made) > 1 else made[0]
    joined = looked.join(table, left_on=[view.entity, at], right_on=wanted[:2], how="left", maintain_order="left")
    if joined.height != looked.height:
        raise ModelCodeError(f"model.py, view {view.name}() returned two rows for one {view.entity} and {AT}")
    return joined
