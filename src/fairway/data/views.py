"""Feature views, exact as of the prediction time: in training and in serving by the same code.

A question is an (entity, at) pair. A view sees the events of the question's window (at - window, at] that were known at
`at` and no others, so it can't see the future. No row of the table ever disappears: a question without events is null.
A declared view's figures are computed here (`data.view_figures`), many questions at once; a view that is a function
gets the events of many questions in one frame.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from fairway.contract.view import ViewSpec
from fairway.data import view_figures
from fairway.data.frames import as_asked, as_polars
from fairway.data.view_events import KNOWN_AT
from fairway.data.view_places import Places, find_places, micros, sortable
from fairway.errors import DataError, ModelCodeError

__all__ = ["AT", "KNOWN_AT", "ROW", "Schema", "Schemas", "compute", "compute_given", "look_up", "windows_of"]

AT = "at"  # what the prediction time is called in the frame that a view gets
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
        given = (schemas or {}).get(view.name)
        if view.function is None:
            view_figures.check_names(view, looked.columns)
            schema = given or view_figures.schema_of(view, source.schema)
            made = view_figures.figures(view, source, _places(view, rows, source, at, event_at))
            looked = looked.with_columns(column.cast(getattr(pl, schema[column.name])) for column in made)
        else:
            questions = _questions(view, rows, at)
            answers = [_ask(view, joined, asked) for joined, asked in _chunks(view, questions, source, event_at)]
            schema = given or _schema(view, answers, source, rows)
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
        if view.function is None:
            looked = _given_figures(view, looked, rows, source, at, event_at[view.source], schemas[view.name])
            continue
        answers: list[pl.DataFrame] = []
        if source is not None and source.height:
            joined = _windowed(view, rows, source, at, event_at[view.source])
            if joined.height:
                answers.append(_answer(view, joined, rows.schema[view.entity], rows.schema[at]))
        looked = _attach(view, looked, at, answers, schemas[view.name])
    return looked


def _given_figures(
    view: ViewSpec, looked: pl.DataFrame, rows: pl.DataFrame, source: pl.DataFrame | None, at: str, time: str,
    schema: Schema,
) -> pl.DataFrame:  # fmt: skip
    types = {name: getattr(pl, dtype) for name, dtype in schema.items()}
    if source is None or not source.height:
        return looked.with_columns(pl.lit(None, dtype=dtype).alias(name) for name, dtype in types.items())
    place, seen, _ = _seen(view, rows, source, at, time)
    mine = source[np.flatnonzero(seen)]
    if mine.height > 1:
        mine = mine.sort(ROW, *_order(view, mine, time)[1:])
    owner = place[seen] if mine.height <= 1 else mine[ROW].to_numpy()
    numbers = np.arange(rows.height)
    start, end = np.searchsorted(owner, numbers), np.searchsorted(owner, numbers, side="right")
    made = view_figures.span_figures(view, mine, start, end)
    return looked.with_columns(column.cast(types[column.name]) for column in made)


def _seen(view: ViewSpec, rows: pl.DataFrame, source: pl.DataFrame, at: str, time: str) -> tuple[Any, Any, pl.Series]:
    """(row, whether the row's question sees it, the row's entity) by event. By NumPy: a query costs more than that."""
    place = source[ROW].to_numpy()
    asked = rows[at]
    moment = micros(asked).fill_null(0).to_numpy()[place]
    happened = micros(source[time]).to_numpy()
    whose = rows[view.entity][place]
    same = (source[view.entity].cast(pl.String) == whose.cast(pl.String)).fill_null(False).to_numpy()
    seen = (happened <= moment) & (happened > moment - view.window_us) & same
    if asked.null_count():
        seen &= asked.is_not_null().to_numpy()[place]
    if KNOWN_AT in source.columns:
        seen &= micros(source[KNOWN_AT]).to_numpy() <= moment
    return place, seen, whose


def _windowed(view: ViewSpec, rows: pl.DataFrame, source: pl.DataFrame, at: str, time: str) -> pl.DataFrame:
    """The rows' own events joined with their questions."""
    place, seen, whose = _seen(view, rows, source, at, time)
    first: dict[tuple[Any, Any], int] = {}
    asks = np.zeros(rows.height, dtype=bool)
    moments = micros(rows[at]).to_list()
    for row, question in enumerate(zip(rows[view.entity].to_list(), moments, strict=True)):
        asks[row] = None not in question and first.setdefault(question, row) == row
    columns = [
        whose.alias(name) if name == view.entity else source[name]
        for name in source.columns
        if name not in (ROW, KNOWN_AT)
    ]
    joined = pl.DataFrame([*columns, rows[at][place].alias(AT)])[np.flatnonzero(seen & asks[place])]
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
    for view in views:
        source = _source(view, events, event_at)
        names = [name for name in source.columns if name != KNOWN_AT]
        places = _places(view, rows, source, at, event_at)
        if view.latest:
            asked = np.flatnonzero(places.last >= 0)
            place, row = places.last[asked], asked
        else:
            place, row = places.seen(np.arange(rows.height))
        seen = source.select(names)[places.order[place]]
        pieces = found.setdefault(view.source, [source.clear().select(pl.lit(0, pl.Int64).alias(ROW), *names)])
        pieces.append(seen.select(pl.Series(ROW, row, dtype=pl.Int64), *names))
    return {name: _each_once(pl.concat(pieces)) for name, pieces in found.items()}


def _each_once(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.unique(maintain_order=True).sort(n for n, dtype in frame.schema.items() if sortable(dtype))


def _places(view: ViewSpec, rows: pl.DataFrame, source: pl.DataFrame, at: str, event_at: Mapping[str, str]) -> Places:
    """Where each row's events lie; a row without entity or time sees none."""
    for name in (view.entity, at):
        if name not in rows.columns:
            raise DataError(f"the table has no column {name!r}, which view {view.name} needs", column=name)
    owners, asked = rows[view.entity], micros(rows[at])
    if asked.null_count():
        owners, asked = owners.set(asked.is_null(), None), asked.fill_null(0)
    return find_places(
        source, entity=view.entity, time=event_at[view.source],
        known_at=KNOWN_AT if KNOWN_AT in source.columns else None, owners=owners,
        moments=asked.to_numpy(), window_us=view.window_us, latest=view.latest,
    )  # fmt: skip


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


def _questions(view: ViewSpec, rows: pl.DataFrame, at: str) -> pl.DataFrame:
    """Distinct (entity, at) pairs, without nulls, sorted."""
    for name in (view.entity, at):
        if name not in rows.columns:
            raise DataError(f"the table has no column {name!r}, which view {view.name} needs", column=name)
    return rows.select(view.entity, pl.col(at).alias(AT)).drop_nulls().unique().sort(view.entity, AT)


def _order(view: ViewSpec, frame: pl.DataFrame, time: str) -> list[str]:
    """Ties are ordered by the other columns: a view that takes the last event must not depend on how a store sorts."""
    known = (view.entity, time, AT, KNOWN_AT, ROW)
    others = [name for name, dtype in frame.schema.items() if name not in known and sortable(dtype)]
    return [view.entity, *([AT] if AT in frame.columns else []), time, *others]


def _chunks(
    view: ViewSpec, questions: pl.DataFrame, source: pl.DataFrame, event_at: Mapping[str, str]
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """(events joined with their questions, those questions), at most about PAIRS events at once."""
    if not source.height or not questions.height:
        return
    places = _places(view, questions, source, AT, event_at)
    visible = source.select(pl.exclude(KNOWN_AT))
    ends = np.cumsum(places.end - places.start)
    first = 0
    while first < len(ends):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + PAIRS, side="right")))
        asked = questions.slice(first, last - first)
        place, question = places.seen(np.arange(first, last))
        if len(place):
            joined = visible[places.order[place]]
            owner = asked[view.entity].gather(question)
            yield joined.with_columns(owner.alias(view.entity), asked[AT].gather(question).alias(AT)), asked
        first = last


def _call(view: ViewSpec, events: pl.DataFrame) -> pl.DataFrame:
    assert view.function is not None
    return as_polars(view.function(as_asked(events, view.function, 0)), f"model.py, view {view.name}()")


def _answer(view: ViewSpec, joined: pl.DataFrame, entity: Any, moment: Any) -> pl.DataFrame:
    """What the view's function makes of these events, with its key's columns in their types."""
    who = f"model.py, view {view.name}()"
    answer = _call(view, joined)
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
        made = _call(view, empty)
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
