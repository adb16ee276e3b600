"""A snapshot: the rows that may be learned from by a given time, as an immutable dataset version."""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from fairway import clock
from fairway.contract.classes import class_name
from fairway.contract.columns import Column
from fairway.contract.table import Locate, apply, dtype_of
from fairway.data import log
from fairway.data.identity import canonical, dataset_id, duplicates
from fairway.data.parts import load_dataset, store_dataset
from fairway.data.project import Project
from fairway.data.source import Raw, read_table
from fairway.data.source_state import Look, look_at, look_at_events
from fairway.data.view_events import KNOWN_AT, one_event_per_key, with_known_at
from fairway.errors import DataError

__all__ = ["Snapshot", "columns_of", "load_dataset", "snapshot", "source_events", "store_dataset"]

MIN_ROWS = 2
MIN_PER_CLASS = 2  # one to learn from, one to judge by
_LABEL_AT = "_label_at"


@dataclass(frozen=True)
class Snapshot:
    """frame: typed, the contract's columns in its order (without those with role "ignore"), sorted by time, entity.

    dataset: id by content; parts: hashes of its Parquet files. origin: files with their hashes, rows of the log.
    counts: rows by what became of them: table, log, used, no_label (target null), future (`at` after now), unknown_yet
    (label known only later), until (cut by data.until), replaced (by a row of the log), duplicates (equal rows, kept).
    flags: rows per "unseen:COLUMN" and "out_of_seen:COLUMN". warnings: sentences. newest: the latest `at`.
    """

    dataset: str
    parts: tuple[str, ...]
    frame: pl.DataFrame
    origin: dict[str, Any]
    counts: dict[str, int]
    flags: dict[str, int]
    warnings: tuple[str, ...]
    newest: datetime | None

    @property
    def rows(self) -> int:
        return self.frame.height


def columns_of(project: Project) -> tuple[Column, ...]:
    """The contract's columns that a snapshot holds: all but the ignored ones, and the label's time if there is one."""
    wanted = project.settings.data.label_at
    columns = (c for c in project.contract.columns if c.role != "ignore" or c.name == wanted)
    return _with_decimal(columns, project.settings.data.decimal)


def _with_decimal(columns: Iterable[Column], decimal: str) -> tuple[Column, ...]:
    """The columns with the table's decimal mark where they have none of their own."""
    return tuple(
        dataclasses.replace(c, decimal=decimal) if decimal != "." and c.type == "float" and c.decimal == "." else c
        for c in columns
    )


def snapshot(project: Project, *, now: datetime, seen: Callable[[Look], None] | None = None) -> Snapshot:
    """The training rows whose label is known by `now`, checked against the contract, stored once by content.

    A label is known at data.label_at; without it at `at` + label_delay (unknown counts as none); without `at`, always.
    seen: gets rows and newest time of the table as it was read, before its values are checked; it may refuse it, and
    then decides alone whether the table is fresh enough.
    Raises: DataError with file, row, column and reason; ContractViolation; SettingsError for an unreadable source.
    """
    settings, columns = project.settings, columns_of(project)
    raw = read_table(settings.data, project.root)
    if seen is not None:
        seen(look_at(project, raw, now))
    rules = project.contract if seen is None else dataclasses.replace(project.contract, fresh=None)
    if not raw.frame.height:
        raise DataError("the table has no rows, only its columns", file=raw.name)
    part, locate = checkable(project, raw)
    checked = apply(part, columns, file=raw.name, locate=locate, contract=rules, now=now, height=raw.frame.height)
    warnings = list(checked.warnings)
    counts = {"table": raw.frame.height, "no_label": raw.frame.height - part.height}
    table = _known_by(checked.frame, project, now, counts)
    logged, lost = _from_log(project, columns, now)
    counts["log"] = logged.height
    if lost:
        hidden = ", ".join(c.name for c in columns if c.log != "plain")
        why = f"; the log keeps {hidden} hashed or not at all" if hidden else ""
        warnings.append(f"{lost:,} labelled rows of the log lack a value that the contract asks for{why}")
    as_read = _one_per_decision(table, logged, project, counts) if logged.height else table
    frame = canonical(as_read, at=settings.at, entity=settings.entity)
    counts["duplicates"] = duplicates(frame)
    counts["used"] = frame.height
    if counts["duplicates"]:
        n = counts["duplicates"]
        copies = "1 row is an exact copy of another" if n == 1 else f"{n:,} rows are exact copies of others"
        warnings.append(f"{copies}; kept")
    for key, says in (("future", "lie in the future"), ("unknown_yet", "have a label that is not known yet")):
        if counts[key]:
            warnings.append(f"{counts[key]:,} rows {says} and were left out")
    _enough(frame, project, raw, counts)
    warnings += _rare_classes(frame, project, raw)
    dataset = dataset_id(frame, at=settings.at, entity=settings.entity, is_canonical=True)
    origin = {"files": raw.files, **raw.pinned, "log_rows": logged.height, "as_of": clock.iso(now)}
    parts = store_dataset(
        project.workspace, dataset, frame, origin, now=now, at=settings.at, entity=settings.entity, as_read=as_read
    )
    newest: Any = frame[settings.at].max() if settings.at is not None else None
    return Snapshot(dataset, tuple(parts), frame, origin, counts, checked.flags, tuple(warnings), newest)


def checkable(project: Project, raw: Raw) -> tuple[pl.DataFrame, Locate]:
    """The rows and columns that the contract is asked about, and where each row is in the table.

    Rows without a label are of no use here, and may lack what is only known of the others: they go unchecked.
    """
    ignored = {c.name for c in project.contract.columns} - {c.name for c in columns_of(project)}
    wanted = raw.frame.drop(ignored, strict=False)
    labelled = _labelled(raw, project)
    if labelled.all():
        return wanted, raw.locate
    rows = labelled.arg_true()
    return wanted.filter(labelled), lambda index: raw.locate(int(rows[index]))


def _labelled(raw: Raw, project: Project) -> pl.Series:
    """Which rows have a value in the target, null tokens aside. A column that is missing is `apply`'s to refuse."""
    target = project.contract.column(project.settings.target)
    if target.name not in raw.frame.columns:
        return pl.repeat(True, raw.frame.height, eager=True)
    values = raw.frame[target.name]
    if values.dtype.is_float():
        values = values.fill_nan(None)
    if target.null_values and values.dtype == pl.String:
        return values.is_not_null() & ~values.is_in(list(target.null_values)).fill_null(False)
    return values.is_not_null()


def _known_by(table: pl.DataFrame, project: Project, now: datetime, counts: dict[str, int]) -> pl.DataFrame:
    """Rows with a label that was known by `now`; what was left out is counted by its first reason."""
    settings = project.settings
    at, label_at, until = settings.at, settings.data.label_at, settings.data.until
    reasons: list[tuple[str, pl.Expr]] = []
    if at is not None:
        reasons.append(("future", pl.col(at) > now))
    if label_at is not None:
        reasons.append(("unknown_yet", (pl.col(label_at) > now).fill_null(True)))
    elif at is not None and settings.label_delay is not None:
        reasons.append(("unknown_yet", pl.col(at) + settings.label_delay > now))
    if until is not None and at is not None:
        end = clock.parse_iso(until if len(until) > 10 else until + "T00:00:00Z")
        reasons.append(("until", pl.col(at) >= end))
    counts |= dict.fromkeys(("future", "unknown_yet", "until"), 0)
    for name, reason in reasons:
        out = table.select(reason).to_series().fill_null(True)
        counts[name] = int(out.sum())
        if counts[name]:
            table = table.filter(~out)
    return table


def _from_log(project: Project, columns: tuple[Column, ...], now: datetime) -> tuple[pl.DataFrame, int]:
    """Labelled predictions as training rows, and how many have a null where the contract allows none."""
    names = [c.name for c in columns]
    if not project.settings.data.log:
        return pl.DataFrame(schema=dict.fromkeys(names, pl.Null)), 0
    found = log.labelled_rows(project.workspace, project, now)
    label_at = project.settings.data.label_at
    if label_at is not None and _LABEL_AT in found.columns:
        found = found.with_columns(pl.col(_LABEL_AT).alias(label_at))
    needed = [c.name for c in columns if not c.nulls and (c.known == "request" or c.role == "target")]
    kept = found.select(names).drop_nulls(needed) if needed else found.select(names)
    return kept, found.height - kept.height


def _one_per_decision(
    table: pl.DataFrame, logged: pl.DataFrame, project: Project, counts: dict[str, int]
) -> pl.DataFrame:
    """Table and log as one: where both hold the same decision (entity and time), the log's row counts."""
    settings = project.settings
    key = [name for name in (settings.entity, settings.at) if name is not None]
    if settings.entity is None:  # without an entity only an equal row is the same decision
        key = [name for name in table.columns if name != settings.target]
    order = [settings.at] if settings.at is not None else []
    logged = logged.sort(order, maintain_order=True).unique(key, keep="last", maintain_order=True)
    keyed, entity = table, project.contract.by_role("entity")
    if entity is not None and entity.log == "hash":  # the log does not say who it was, only whether it was the same
        keyed = table.with_columns(pl.col(entity.name).map_elements(log.hashed, return_dtype=pl.String))
    kept = table[keyed.with_row_index("_place").join(logged, on=key, how="anti", nulls_equal=True)["_place"].sort()]
    counts["replaced"] = table.height - kept.height
    return pl.concat([kept, logged.cast(dict(kept.schema))])  # type: ignore[arg-type]


def _enough(frame: pl.DataFrame, project: Project, raw: Raw, counts: dict[str, int]) -> None:
    if frame.height >= MIN_ROWS:
        return
    reasons = {
        "no_label": f"without a value in {project.settings.target}",
        "future": f"with {project.settings.at} in the future",
        "unknown_yet": "whose label is not known yet",
        "until": f"after data.until {project.settings.data.until}",
    }
    said = [f"{counts[key]:,} {text}" for key, text in reasons.items() if counts[key]]
    left = "one row is" if frame.height else "no rows are"
    why = f" of {counts['table']:,}: {', '.join(said)}" if said else "; a model needs many"
    raise DataError(f"{left} left to learn from{why}", file=raw.name)


def _rare_classes(frame: pl.DataFrame, project: Project, raw: Raw) -> list[str]:
    """Raises: DataError for one class, or one too rare to be learned and judged. Returns warnings."""
    settings = project.settings
    if settings.task == "regression":
        return []
    target = frame[settings.target]
    found = {class_name(value): n for value, n in target.value_counts().sort("count", descending=True).iter_rows()}
    if len(found) < 2:
        raise DataError(
            f"every one of the {frame.height:,} rows is {next(iter(found))}; a model needs at least two classes",
            file=raw.name, column=settings.target,
        )  # fmt: skip
    rare = [name for name, n in found.items() if n < MIN_PER_CLASS]
    if rare and settings.task == "binary":
        raise DataError(
            f"{rare[0]} is the value of {found[rare[0]]} row of {frame.height:,}; at least {MIN_PER_CLASS} are needed",
            file=raw.name, column=settings.target,
        )  # fmt: skip
    return [f"class {name} has only {found[name]} row" for name in rare]


# -- source tables ---------------------------------------------------------------------------------------------------


def source_events(
    project: Project, name: str, *, now: datetime, since: datetime | None = None,
    seen: Callable[[Look], None] | None = None,
) -> pl.DataFrame:  # fmt: skip
    """The events of a source table that were known by `now`: its typed columns and `_known_at`, by event time.

    An event of its history counts as known at its time, or at known_at; one that came by HTTP when it was received. An
    event (by its key) that is in both is the received one. since: leave out what happened before. seen: as for
    `snapshot`, of the history.
    Raises: DataError with file, row and column.
    """
    settings = project.settings.sources[name]
    columns = _needed(project, name)
    parts = []
    history = source_history(project, name, now=now, seen=seen)
    if history is not None:
        parts.append(history.filter(pl.col(KNOWN_AT) <= now))
    logged = log.source_events(project.workspace, name, now, since)
    if logged is not None:
        typed = apply(logged.select(c.name for c in columns), columns, file=f"events of {name} in the log").frame
        parts.append(typed.with_columns(_known_at=logged["_known_at"]))
    if not parts:
        return pl.DataFrame(schema={c.name: dtype_of(c) for c in columns} | {"_known_at": pl.Datetime("us", "UTC")})
    every = pl.concat(parts) if len(parts) > 1 else parts[0]
    if since is not None:
        every = every.filter(pl.col(settings.at) >= since)
    return every.unique(settings.key, keep="last", maintain_order=True).sort(settings.at, settings.key)


def source_history(
    project: Project, name: str, *, now: datetime, seen: Callable[[Look], None] | None = None
) -> pl.DataFrame | None:
    """All events of a source's own history (path or sql) with `_known_at`, later ones too; None without a history.

    Raises: as `source_events`.
    """
    settings = project.settings.sources[name]
    if settings.path is None and settings.sql is None:
        return None
    raw = read_table(settings, project.root)
    if seen is not None:
        seen(look_at_events(project, name, raw, now))
    typed = apply(raw.frame, _needed(project, name), file=raw.name, locate=raw.locate).frame
    return with_known_at(one_event_per_key(typed, settings.key, file=raw.name), settings)


def _needed(project: Project, name: str) -> tuple[Column, ...]:
    """A source's columns; its key and times are never null."""
    settings = project.settings.sources[name]
    columns = _with_decimal(dict(project.contract.sources)[name], settings.decimal)
    never_null = (settings.at, settings.key, settings.known_at)
    return tuple(dataclasses.replace(c, nulls=False) if c.name in never_null else c for c in columns)
