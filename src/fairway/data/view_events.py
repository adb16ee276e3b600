"""What holds of a source table's events before any view sees them: each has its own key, and a time it was known."""

import polars as pl

from fairway.contract.settings import SourceSettings
from fairway.errors import DataError

KNOWN_AT = "_known_at"


def with_known_at(events: pl.DataFrame, source: SourceSettings) -> pl.DataFrame:
    """The history of a source with `_known_at`: its known_at column where it has one, else the event's own time.

    An event is never known before it has happened, whatever the column says.
    """
    if source.known_at is None:
        return events.with_columns(pl.col(source.at).alias(KNOWN_AT))
    return events.with_columns(pl.max_horizontal(source.at, source.known_at).alias(KNOWN_AT))


def one_event_per_key(events: pl.DataFrame, key: str, *, file: str) -> pl.DataFrame:
    """The events, each once: an exact copy is dropped. Raises: DataError for an empty key or one of two events."""
    column = events[key]
    empty = column.is_null() | (column == "" if column.dtype == pl.String else False)
    if empty.any():
        row = int(empty.arg_max() or 0)
        raise DataError("the key of this event is empty; every event needs its own", file=file, row=row + 1, column=key)
    if column.n_unique() == events.height:
        return events
    once = events.unique(maintain_order=True)
    twice = once.filter(once[key].is_duplicated())
    if twice.height:
        raise DataError(f"{twice[key][0]!r} is the key of more than one event", file=file, column=key)
    return once
