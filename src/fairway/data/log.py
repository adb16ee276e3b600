"""The prediction log as tables. Files are listed from the store, never from a folder; labels are joined."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl
import sqlalchemy as sa

from fairway.contract.columns import Column, Contract
from fairway.contract.nested import fitted
from fairway.contract.settings import Settings
from fairway.data.fold import FoldedBatch, Observer, fold
from fairway.data.labels import match_labels
from fairway.data.segment import hashed
from fairway.errors import ThingNotFound
from fairway.store import schema
from fairway.store.workspace import Workspace

if TYPE_CHECKING:

    class _Project(Protocol):
        @property
        def settings(self) -> Settings: ...
        @property
        def contract(self) -> Contract: ...


__all__ = [
    "FoldedBatch",
    "Observer",
    "find",
    "fold",
    "hashed",
    "labelled_rows",
    "match_labels",
    "predictions",
    "source_events",
]

_UTC = pl.Datetime("us", "UTC")
_DTYPES: dict[str, Any] = {
    "int": pl.Int64, "float": pl.Float64, "bool": pl.Boolean, "string": pl.String, "text": pl.String, "datetime": _UTC,
    "date": pl.Date, "image": pl.Binary,
}  # fmt: skip


def predictions(
    workspace: Workspace, endpoint: str, since: datetime | None = None, until: datetime | None = None
) -> pl.DataFrame:
    """One row per logged prediction with since <= at < until, ordered by (at, prediction_id).

    Columns: prediction_id, request_id, row, endpoint, at, received_at, entity, unit, rollout, share_epoch, arm,
    propensity, contract, gateway, body, flags, answers (JSON: version -> role, status, output, latency_ms), the inputs
    as in_<column>, the looked-up features as lk_<feature>, label (JSON, null when unknown) and label_at. Empty, with
    the fixed columns, when there are none.
    """
    table, hour = schema.prediction, schema.log_file.c.hour
    where = [table.c.workspace == workspace.name, table.c.endpoint == endpoint]
    files = [schema.log_file.c.kind == "prediction", schema.log_file.c.model == _model(workspace, endpoint)]
    if since is not None:
        where.append(table.c.at >= since)
        files.append(hour >= since.replace(minute=0, second=0, microsecond=0))
    if until is not None:
        where.append(table.c.at < until)
        files.append(hour < until)
    with workspace.store.read() as tx:
        paths = _files(workspace, tx, files)
        labelled = tx.execute(
            sa.select(table.c.prediction, table.c.label, table.c.label_at).where(*where, table.c.label_at.is_not(None))
        ).all()
    frame = _read(workspace, paths)
    if frame is None:
        return _EMPTY.clone()
    keep = pl.col("endpoint") == endpoint
    if since is not None:
        keep &= pl.col("at") >= since
    if until is not None:
        keep &= pl.col("at") < until
    found = pl.DataFrame(
        {
            "prediction_id": [row.prediction for row in labelled],
            "label": [json.dumps(row.label) for row in labelled],
            "label_at": [row.label_at for row in labelled],
        },
        schema={"prediction_id": pl.String, "label": pl.String, "label_at": _UTC},
    )
    return frame.filter(keep).join(found, on="prediction_id", how="left").sort("at", "prediction_id")


_EMPTY = pl.DataFrame(
    schema={
        "prediction_id": pl.String, "request_id": pl.String, "row": pl.Int64, "endpoint": pl.String, "at": _UTC,
        "received_at": _UTC, "entity": pl.String, "unit": pl.String, "rollout": pl.String, "share_epoch": pl.Int64,
        "arm": pl.Int64, "propensity": pl.Float64, "contract": pl.String, "gateway": pl.String, "body": pl.String,
        "flags": pl.List(pl.String), "answers": pl.String, "label": pl.String, "label_at": _UTC,
    }
)  # fmt: skip


def find(workspace: Workspace, prediction_id: str) -> dict[str, Any]:
    """One prediction with its inputs, answers and every label that came. Raises: ThingNotFound."""
    table = schema.prediction
    with workspace.store.read() as tx:
        row = tx.execute(
            sa.select(table).where(table.c.workspace == workspace.name, table.c.prediction == prediction_id)
        ).first()
        if row is None:
            raise ThingNotFound(
                f"no prediction {prediction_id!r} in the log (what was answered is folded within seconds)"
            )
        hour = row.at.replace(minute=0, second=0, microsecond=0)
        files = [
            schema.log_file.c.kind == "prediction",
            schema.log_file.c.model == row.model,
            schema.log_file.c.contract == row.contract,
            schema.log_file.c.hour == hour,
        ]
        paths = _files(workspace, tx, files)
        label = schema.label
        labels = tx.execute(
            sa.select(label.c.name, label.c.event, label.c.value, label.c.at, label.c.received_at)
            .where(label.c.workspace == workspace.name, label.c.prediction == prediction_id)
            .order_by(label.c.at, label.c.received_at)
        ).all()
    found = {name: value for name, value in row._mapping.items() if name not in ("workspace", "segment", "body")}
    frame = _read(workspace, paths)
    if frame is not None:
        kept = frame.filter(pl.col("prediction_id") == prediction_id).to_dicts()[0]
        found["request_id"], found["row"], found["entity"] = kept["request_id"], kept["row"], kept["entity"]
        found["inputs"] = {n.removeprefix("in_"): v for n, v in kept.items() if n.startswith("in_")}
        found["looked_up"] = {n.removeprefix("lk_"): v for n, v in kept.items() if n.startswith("lk_")}
    found["labels"] = [dict(item._mapping) for item in labels]
    return found


def labelled_rows(workspace: Workspace, project: "_Project", until: datetime) -> pl.DataFrame:
    """Logged predictions of the project's endpoint whose label had come by `until`, as typed training rows.

    Columns: those of the contract, in its order (category as pl.Enum of its list; columns that requests don't carry are
    null), and `_label_at`, the label's event time. Columns that the log keeps hashed or not at all are null, but a text
    entity that is hashed stays so: it is told apart, not told.
    """
    contract, settings = project.contract, project.settings
    schema_of = {c.name: _dtype(c) for c in contract.columns}
    table = schema.label
    joined = (
        sa.select(table.c.prediction, table.c.value, table.c.at, table.c.received_at, table.c.event)
        .join(
            schema.prediction,
            sa.and_(
                schema.prediction.c.workspace == table.c.workspace, schema.prediction.c.prediction == table.c.prediction
            ),
        )
        .where(
            table.c.workspace == workspace.name,
            table.c.name == settings.target,
            table.c.received_at <= until,
            schema.prediction.c.endpoint == settings.name,
        )
        .order_by(table.c.at, table.c.received_at, table.c.event)
    )
    with workspace.store.read() as tx:
        latest = {row.prediction: row for row in tx.execute(joined)}  # the last in order counts
    log = predictions(workspace, settings.name) if latest else _EMPTY
    log = log.filter(pl.col("prediction_id").is_in(list(latest)))
    columns: list[pl.Series] = []
    for column in contract.columns:
        dtype = schema_of[column.name]
        if column.name == settings.target:
            values: list[Any] = [latest[i].value for i in log["prediction_id"]]
            if dtype == pl.String or isinstance(dtype, pl.Enum):
                values = [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
            columns.append(pl.Series(column.name, values, strict=False).cast(dtype, strict=False))
        elif column.role == "at":
            columns.append(log["at"].alias(column.name))
        elif f"in_{column.name}" in log.columns and (column.log == "plain" or _told_apart(column)):
            logged = log[f"in_{column.name}"]
            if column.type == "vector":
                columns.append(fitted(logged, column.length or 1).alias(column.name))
            else:
                columns.append(logged.cast(dtype, strict=False).alias(column.name))
        else:
            columns.append(pl.Series(column.name, [None] * log.height, dtype))
    columns.append(pl.Series("_label_at", [latest[i].at for i in log["prediction_id"]], _UTC))
    return pl.DataFrame(columns)


def _told_apart(column: Column) -> bool:
    return column.role == "entity" and column.type == "string" and column.log == "hash"


def source_events(
    workspace: Workspace, name: str, until: datetime, since: datetime | None = None
) -> pl.DataFrame | None:
    """Events of a source table that had been received by `until`, each key once (the first to come), or None.

    since: leave out files whose events all happened before. Columns: the source's, `_key`, and `_known_at`, when it
    counts as known; ordered by (_known_at, _key).
    """
    files = [schema.log_file.c.kind == "source", schema.log_file.c.model == name]
    if since is not None:
        files.append(schema.log_file.c.hour >= since.replace(minute=0, second=0, microsecond=0))
    with workspace.store.read() as tx:
        paths = _files(workspace, tx, files)
    frame = _read(workspace, paths)
    if frame is None:
        return None
    came = frame.filter(pl.col("_received_at") <= until).sort("_received_at", "_known_at", "_key")
    return came.unique("_key", keep="first", maintain_order=True).drop("_received_at").sort("_known_at", "_key")


def _model(workspace: Workspace, endpoint: str) -> str:
    table = schema.endpoint
    with workspace.store.read() as tx:
        found = tx.scalar(
            sa.select(table.c.model).where(table.c.workspace == workspace.name, table.c.endpoint == endpoint)
        )
    return found or endpoint


def _files(workspace: Workspace, tx: sa.Connection, where: Sequence[Any]) -> list[str]:
    table = schema.log_file
    query = sa.select(table.c.blob).where(table.c.workspace == workspace.name, *where)
    return list(tx.scalars(query.order_by(table.c.hour, table.c.blob)))


def _read(workspace: Workspace, blobs: Sequence[str]) -> pl.DataFrame | None:
    """All files as one frame; a column that some lack (another contract) is null there, types widen."""
    frames = [pl.read_parquet(workspace.blobs.path(blob)) for blob in blobs]
    return pl.concat(frames, how="diagonal_relaxed") if frames else None


def _dtype(column: Column) -> Any:
    if column.type == "vector":
        return pl.Array(pl.Float64, column.length or 1)
    return pl.Enum(list(column.values)) if column.type == "category" else _DTYPES[column.type]
