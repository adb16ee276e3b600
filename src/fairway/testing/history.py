"""A project's own tables as history to replay: its rows with their labels, and the events of its sources."""

from datetime import datetime, timedelta

import polars as pl

from fairway.contract.table import apply
from fairway.data.project import Project
from fairway.data.snapshot import columns_of
from fairway.data.source import read_table
from fairway.errors import UsageError
from fairway.testing.replay import History, SourceHistory


def history_of(project: Project, *, start: datetime, end: datetime) -> History:
    """What happened from `start` to `end`, as the project's tables tell it; events begin one window earlier.

    A label is known at data.label_at; without it `label_delay` after the row's time (unknown counts as at once).
    Raises: UsageError for a project without a time column; DataError for a table that breaks the contract.
    """
    settings = project.settings
    if settings.at is None:
        raise UsageError(f"{settings.name} has no time column (at = ... in fairway.toml): nothing to replay")
    raw = read_table(settings.data, project.root)
    rows = apply(raw.frame, columns_of(project), file=raw.name, locate=raw.locate).frame
    rows = rows.filter(pl.col(settings.at).is_between(start, end, closed="left"))
    delay = settings.label_delay or timedelta(0)
    known = pl.col(settings.data.label_at) if settings.data.label_at else pl.col(settings.at) + delay
    request = tuple(c.name for c in project.contract.request_columns)
    kept = [*request, settings.target]
    return History(
        endpoint=settings.name,
        rows=rows.select(*kept, _label_at=known).sort(settings.at, maintain_order=True),
        request=request,
        at=settings.at,
        target=settings.target,
        label_at="_label_at",
        sources=tuple(_events(project, name, start, end) for name, s in settings.sources.items() if s.path or s.sql),
    )


def _events(project: Project, name: str, start: datetime, end: datetime) -> SourceHistory:
    """Events in [start - one day, end): views of the first rows look back that far."""
    settings = project.settings.sources[name]
    raw = read_table(settings, project.root)
    columns = dict(project.contract.sources)[name]
    typed = apply(raw.frame, columns, file=raw.name, locate=raw.locate).frame.select(c.name for c in columns)
    at = pl.col(settings.at)
    return SourceHistory(
        name, settings.at, typed.filter((at >= start - timedelta(days=1)) & (at < end)).sort(settings.at)
    )
