"""A snapshot: the rows that may be learned from by a given time, as an immutable dataset version."""

import dataclasses
import io
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from fairway import clock
from fairway.contract.classes import class_name
from fairway.contract.columns import Column
from fairway.contract.table import apply, dtype_of
from fairway.data import log
from fairway.data.identity import dataset_id, sorted_rows
from fairway.data.project import Project
from fairway.data.source import Raw, read_table
from fairway.errors import DataError, ThingNotFound
from fairway.store import schema
from fairway.store.workspace import Workspace

MIN_ROWS = 2
MIN_PER_CLASS = 2  # one to learn from, one to judge by
_LABEL_AT = "_label_at"


@dataclass(frozen=True)
class Snapshot:
    """frame: typed, the contract's columns in its order (without those with role "ignore"), sorted by time, entity.

    dataset: id by content; blob: hash of its Parquet file. origin: files with their hashes, rows of the log. counts:
    rows by what became of them: table, log, used, no_label (target null), future (`at` after now), unknown_yet (label
    known only after now), until (cut by data.until), replaced (by a row of the log), duplicates (equal rows, kept).
    flags: rows per "unseen:COLUMN" and "out_of_seen:COLUMN". warnings: sentences. newest: the latest `at`.
    """

    dataset: str
    blob: str
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
    return tuple(c for c in project.contract.columns if c.role != "ignore" or c.name == wanted)


def snapshot(project: Project, *, now: datetime) -> Snapshot:
    """The training rows whose label is known by `now`, checked against the contract, stored once by content.

    A label is known at data.label_at; without it at `at` + label_delay (unknown counts as none); without `at`, always.
    Raises: DataError with file, row, column and reason; ContractViolation; SettingsError for an unreadable source.
    """
    settings, columns = project.settings, columns_of(project)
    raw = read_table(settings.data, project.root)
    if not raw.frame.height:
        raise DataError("the table has no rows, only its columns", file=raw.name)
    # Rows without a label are of no use here, and may lack what is only known of the others: they go unchecked.
    labelled = _labelled(raw, project)
    rows = labelled.arg_true()
    ignored = {c.name for c in project.contract.columns} - {c.name for c in columns}
    checked = apply(
        raw.frame.drop(ignored, strict=False).filter(labelled),
        columns,
        file=raw.name,
        locate=lambda index: raw.locate(int(rows[index])),
    )
    warnings = list(checked.warnings)
    counts = {"table": raw.frame.height, "no_label": raw.frame.height - len(rows)}
    table = _known_by(checked.frame, project, now, counts)
    logged, lost = _from_log(project, columns, now)
    counts["log"] = logged.height
    if lost:
        hidden = ", ".join(c.name for c in columns if c.log != "plain")
        why = f"; the log keeps {hidden} hashed or not at all" if hidden else ""
        warnings.append(f"{lost:,} labelled rows of the log lack a value that the contract asks for{why}")
    frame = _one_per_decision(table, logged, project, counts) if logged.height else table
    frame = sorted_rows(frame, at=settings.at, entity=settings.entity)
    counts["duplicates"] = frame.height - frame.n_unique() if frame.height else 0
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
    dataset = dataset_id(frame, at=settings.at, entity=settings.entity)
    origin = {"files": raw.files, "log_rows": logged.height, "as_of": clock.iso(now)}
    blob = store_dataset(project.workspace, dataset, frame, origin, now=now)
    newest: Any = frame[settings.at].max() if settings.at is not None else None
    return Snapshot(dataset, blob, frame, origin, counts, checked.flags, tuple(warnings), newest)


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
        kept = table.filter(~reason)
        counts[name] = table.height - kept.height
        table = kept
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


def store_dataset(
    workspace: Workspace, dataset: str, frame: pl.DataFrame, origin: dict[str, Any], *, now: datetime
) -> str:
    """Keep the frame under its id; the same id is stored once. Returns the hash of its Parquet file."""
    table = schema.dataset
    where = sa.and_(table.c.workspace == workspace.store.workspace, table.c.dataset == dataset)
    with workspace.store.read() as tx:
        blob = tx.scalar(sa.select(table.c.blob).where(where))
    if blob is not None and blob in workspace.blobs:
        return str(blob)
    buffer = io.BytesIO()
    frame.write_parquet(buffer)
    blob = workspace.blobs.put(buffer.getvalue())
    row = {
        "workspace": workspace.store.workspace,
        "dataset": dataset,
        "blob": blob,
        "rows": frame.height,
        "columns": [[name, str(dtype)] for name, dtype in frame.schema.items()],
        "origin": origin,
        "created_at": now,
    }
    with workspace.store.write() as tx:
        workspace.store.upsert(tx, table, row)
    return blob


def load_dataset(workspace: Workspace, dataset: str) -> pl.DataFrame:
    """The frame of a dataset version. Raises: StoreError, TamperFound when its bytes are not those that were stored."""
    table = schema.dataset
    with workspace.store.read() as tx:
        blob = tx.scalar(
            sa.select(table.c.blob).where(table.c.workspace == workspace.store.workspace, table.c.dataset == dataset)
        )
    if blob is None:
        raise ThingNotFound(f"no dataset {dataset!r}; list them with: fairway show datasets")
    return pl.read_parquet(io.BytesIO(workspace.blobs.get(str(blob))))


# -- source tables ---------------------------------------------------------------------------------------------------


def source_events(project: Project, name: str, *, now: datetime) -> pl.DataFrame:
    """The events of a source table that were known by `now`: its typed columns and `_known_at`, by event time.

    Its history file counts as known at the event's time; events that came by HTTP when they were received. An event
    (by its key) that is in both is the received one. Raises: DataError with file, row and column.
    """
    settings = project.settings.sources[name]
    columns = dict(project.contract.sources)[name]
    needed = tuple(dataclasses.replace(c, nulls=False) if c.name in (settings.at, settings.key) else c for c in columns)
    names = [c.name for c in columns]
    parts = []
    if settings.path is not None:
        raw = read_table(settings.path, project.root)
        typed = apply(raw.frame, needed, file=raw.name, locate=raw.locate).frame
        typed = typed.with_columns(_known_at=pl.col(settings.at)).filter(pl.col(settings.at) <= now)
        _one_row_per_key(typed, settings.key, raw.name)
        parts.append(typed)
    logged = log.source_events(project.workspace, name, now)
    if logged is not None:
        typed = apply(logged.select(names), needed, file=f"events of {name} in the log").frame
        parts.append(typed.with_columns(_known_at=logged["_known_at"]))
    if not parts:
        return pl.DataFrame(schema={c.name: dtype_of(c) for c in columns} | {"_known_at": pl.Datetime("us", "UTC")})
    every = pl.concat(parts) if len(parts) > 1 else parts[0]
    return every.unique(settings.key, keep="last", maintain_order=True).sort(settings.at, settings.key)


def _one_row_per_key(events: pl.DataFrame, key: str, file: str) -> None:
    """The same event twice is once; two different events under one key can't both be right."""
    twice = events.unique().filter(pl.col(key).is_duplicated())
    if twice.height:
        raise DataError(f"{twice[key][0]!r} is the key of more than one event", file=file, column=key)
