"""Folding: sealed segments become rows, Parquet and sums, each segment exactly once, in one transaction.

The transaction inserts the segment's name first; where it is there already, the segment was folded and is only
deleted. Everything that counts predictions (rollout sums, window profiles) does so in an observer within the same
transaction, so a death at any moment leaves either all of a segment's effects or none.

Rows are worked out and Parquet is put among the blobs before the transaction begins: it holds the one writer's place,
for which a rollback would wait, and no row names a file that is not there yet. Where another process folded something
meanwhile that changes what is new, it is worked out again.
"""

import io
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock, fingerprint
from fairway.data import labels, segment
from fairway.data.segment import Columns, Events, Labels, Predictions, hashed
from fairway.store import schema
from fairway.store.base import Store
from fairway.store.workspace import Workspace

_HOUR_US = 3_600_000_000
_CHUNK = 500  # ids per IN list: below every engine's limit of parameters

_DTYPES: dict[str, pl.DataType] = {
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "category": pl.String(),
    "string": pl.String(),
    "text": pl.String(),
    "vector": pl.List(pl.Float64()),  # not pl.Array: contracts with other lengths are read together
    "image": pl.Binary(),
    "datetime": pl.Datetime("us", "UTC"),
    "date": pl.Date(),
}
_FIXED = {
    "prediction_id": pl.String(),
    "request_id": pl.String(),
    "row": pl.Int64(),
    "endpoint": pl.String(),
    "at": pl.Datetime("us", "UTC"),
    "received_at": pl.Datetime("us", "UTC"),
    "entity": pl.String(),
    "unit": pl.String(),
    "rollout": pl.String(),
    "share_epoch": pl.Int64(),
    "arm": pl.Int64(),
    "propensity": pl.Float64(),
    "contract": pl.String(),
    "gateway": pl.String(),
    "body": pl.String(),
    "flags": pl.List(pl.String()),
    "answers": pl.String(),
}


@dataclass(frozen=True)
class FoldedBatch:
    """What one fold added. Rows are ordered by (at, id), so sums over them do not depend on the order of segments.

    predictions: dicts with prediction, request_id, row, endpoint, model, at, received_at, entity, unit, rollout,
    share_epoch, arm, propensity, contract, flags, gateway, inputs and looked_up {column: value}, and answers {version
    as text: {"role", "status", "output", "latency_ms"}}. labels: dicts with prediction, name, event, value, at,
    received_at and matched. relabelled: ids of predictions whose current label changed in this fold. events: dicts with
    source, key, at, received_at, known_at and data.
    """

    predictions: list[dict[str, Any]] = field(default_factory=list)
    labels: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    relabelled: list[str] = field(default_factory=list)


Observer: TypeAlias = Callable[[Store, Connection, FoldedBatch], None]


def fold(workspace: Workspace, segments: Path | Sequence[Path], observers: Sequence[Observer] = ()) -> FoldedBatch:
    """Fold sealed segments together, in one transaction, and delete their files.

    One prediction per id: the first commit wins, a repetition is dropped, one whose request had another body is
    counted ("conflict"). Safe to repeat and to kill; two processes may fold the same files.
    Raises: SegmentBroken for a damaged segment (nothing is folded then); whatever an observer raises.
    """
    paths = [segments] if isinstance(segments, Path) else list(segments)
    read = sorted((segment.read(path) for path in paths), key=lambda s: (s.opened_us, s.name))
    store = workspace.store
    prepared = None
    while True:
        with store.read() as tx:
            there = _there(store, tx, read)
        if prepared is None or prepared.there != there:
            prepared = _prepare(workspace, read, there)
        with store.write() as tx:
            if _there(store, tx, read) != there:
                continue
            fresh = [s for s in read if s.name not in there.segments]
            batch = FoldedBatch()
            if fresh:
                tx.execute(sa.insert(schema.segment), [_segment_row(store, s) for s in fresh])
                batch = _fold_into(store, tx, fresh, prepared)
                for observe in observers:
                    observe(store, tx, batch)
            break
    for path in paths:
        path.unlink(missing_ok=True)
    return batch


@dataclass(frozen=True)
class _There:
    """What the store had of these segments: those already folded, and of the others the predictions (id: body)."""

    segments: frozenset[str]
    predictions: dict[str, str]


@dataclass(frozen=True)
class _Prepared:
    """What a fold will write. kept: rows as they may be stored. files: rows of log_file, whose blobs are there."""

    there: _There
    rows: list[dict[str, Any]]
    kept: list[dict[str, Any]]
    events: list[dict[str, Any]]
    files: list[dict[str, Any]]
    conflicts: int
    repeated: int


def _there(store: Store, tx: Connection, read: Sequence[segment.Segment]) -> _There:
    table, folded = schema.prediction, schema.segment
    names: set[str] = set()
    for some in _chunks([s.name for s in read]):
        where = sa.and_(folded.c.workspace == store.workspace, folded.c.segment.in_(some))
        names.update(tx.scalars(sa.select(folded.c.segment).where(where)))
    known: dict[str, str] = {}
    for ids in _chunks([i for _, r in _requests(read, names) for i in r.ids]):
        where = sa.and_(table.c.workspace == store.workspace, table.c.prediction.in_(ids))
        known.update(
            (row.prediction, row.body) for row in tx.execute(sa.select(table.c.prediction, table.c.body).where(where))
        )
    return _There(frozenset(names), known)


def _requests(read: Sequence[segment.Segment], folded: Collection[str]) -> list[tuple[str, Predictions]]:
    return [(s.name, r) for s in read if s.name not in folded for r in s.records if isinstance(r, Predictions)]


def _segment_row(store: Store, piece: segment.Segment) -> dict[str, Any]:
    return {
        "workspace": store.workspace,
        "segment": piece.name,
        "blob": fingerprint.of_file(piece.path),
        "rows": sum(len(r.ids) for r in piece.records if isinstance(r, Predictions)),
        "folded_at": clock.now(),
    }


def _prepare(workspace: Workspace, read: Sequence[segment.Segment], there: _There) -> _Prepared:
    fresh = [s for s in read if s.name not in there.segments]
    notes = {(r.contract, r.owner): r for s in fresh for r in s.records if isinstance(r, Columns)}
    rows, conflicts, repeated = _new_predictions(_requests(read, there.segments), there.predictions)
    rows.sort(key=lambda row: (row["at"], row["prediction"]))
    kept = _private(rows, notes)
    events = _new_events([(s.name, r) for s in fresh for r in s.records if isinstance(r, Events)])
    files = [*_prediction_files(workspace, kept, notes), *_event_files(workspace, events, notes)]
    return _Prepared(there, rows, kept, events, files, conflicts, repeated)


def _fold_into(store: Store, tx: Connection, fresh: Sequence[segment.Segment], prepared: _Prepared) -> FoldedBatch:
    for name, count in (("conflict", prepared.conflicts), ("repeated", prepared.repeated)):
        if count:
            store.add_to_counter(tx, name, count)
    _insert_predictions(store, tx, prepared.kept)
    store.insert_new(tx, schema.log_file, prepared.files)  # equal bytes of two folds of source events are one file
    new_labels = labels.store_new(
        store, tx, [r for s in fresh for r in s.records if isinstance(r, Labels)], folded_at=clock.now()
    )
    relabelled = labels.match_labels(store, tx, clock.now())
    matched = set(relabelled)
    for row in new_labels:
        row["matched"] = row["prediction"] in matched
    pairs = zip(prepared.rows, prepared.kept, strict=True)
    observed = [row | {"entity": k["entity"], "unit": k["unit"]} for row, k in pairs]
    return FoldedBatch(observed, new_labels, prepared.events, relabelled)


def _new_predictions(
    requests: Sequence[tuple[str, Predictions]], there: Mapping[str, str]
) -> tuple[list[dict[str, Any]], int, int]:
    """(one dict per prediction that the store does not have yet, those under an id with another body, repetitions)."""
    known = dict(there)
    rows: list[dict[str, Any]] = []
    conflicts = repeated = 0
    for name, request in requests:
        expanded = None
        for place, identity in enumerate(request.ids):
            if identity in known:
                if known[identity] != request.body:
                    conflicts += 1
                else:
                    repeated += 1
                continue
            known[identity] = request.body
            expanded = expanded or _expand(request)
            rows.append(expanded[place] | {"segment": name})
    return rows, conflicts, repeated


def _expand(request: Predictions) -> list[dict[str, Any]]:
    answers: list[dict[str, dict[str, Any]]] = [{} for _ in request.ids]
    for block in request.answers:
        for item, place in enumerate(block.rows):
            answers[place][str(block.version)] = {
                "role": "served" if block.served[item] else "shadow",
                "status": block.status[item],
                "output": block.outputs[item],
                "latency_ms": block.latency_ms,
            } | ({"error": block.errors[item]} if block.errors[item] else {})
    return [
        {
            "prediction": request.ids[place],
            "request_id": request.request_id,
            "row": place,
            "endpoint": request.endpoint,
            "model": request.model,
            "at": clock.from_us(request.at_us[place]),
            "received_at": clock.from_us(request.received_us),
            "entity": request.entities[place],
            "unit": request.units[place],
            "rollout": request.rollout,
            "share_epoch": request.share_epoch,
            "arm": request.arms[place],
            "propensity": request.propensities[place],
            "contract": request.contract,
            "flags": request.flags[place],
            "gateway": request.gateway,
            "body": request.body,
            "inputs": {name: values[place] for name, values in request.columns.items()},
            "looked_up": request.looked_up[place] or {},
            "answers": answers[place],
        }
        for place in range(len(request.ids))
    ]


def _private(rows: Sequence[dict[str, Any]], notes: dict[tuple[str, str], Columns]) -> list[dict[str, Any]]:
    """The rows as they may be stored: columns marked `log = "hash"` or "drop" are hashed or left out, also where an
    error of the model's code quotes them."""
    if all(c.log == "plain" for n in notes.values() for c in n.columns):
        return list(rows)
    kept = []
    for row in rows:
        private = [c for c in notes[row["contract"], ""].columns if c.log != "plain"]
        inputs, looked_up, entity, unit = dict(row["inputs"]), dict(row["looked_up"]), row["entity"], row["unit"]
        said: list[Any] = []
        for column in private:
            values = looked_up if column.role == segment.LOOKED_UP else inputs
            if column.name not in values:
                continue
            value = values[column.name]
            said.append(value)
            values[column.name] = hashed(value) if column.log == "hash" else None
            if column.role == "entity" and entity is not None:
                # The unit stays distinct per entity, or a rollout could not count entities.
                unit, entity = hashed(entity), hashed(entity) if column.log == "hash" else None
        answers = {version: _without(answer, said) for version, answer in row["answers"].items()}
        kept.append(
            row | {"inputs": inputs, "looked_up": looked_up, "entity": entity, "unit": unit, "answers": answers}
        )
    return kept


def _without(answer: dict[str, Any], values: Sequence[Any]) -> dict[str, Any]:
    """An answer whose error does not quote any of the values."""
    error = answer.get("error")
    if not error:
        return answer
    for text in sorted({str(v) for v in values if v is not None and str(v)}, key=len, reverse=True):
        error = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)" if len(text) < 4 else re.escape(text), "[not logged]", error)
    return answer | {"error": error}


def _insert_predictions(store: Store, tx: Connection, rows: Sequence[dict[str, Any]]) -> None:
    table = schema.prediction
    names = [c.name for c in table.columns if c.name not in ("workspace", "label", "label_at", "judged_at")]
    if rows:
        values = [{name: row[name] for name in names} | {"workspace": store.workspace} for row in rows]
        tx.execute(sa.insert(table), values)


def _prediction_files(
    workspace: Workspace, rows: Sequence[dict[str, Any]], notes: dict[tuple[str, str], Columns]
) -> Iterator[dict[str, Any]]:
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows:
        hour = clock.to_us(row["at"]) // _HOUR_US
        groups.setdefault((row["model"], row["contract"], hour), []).append(row)
    for (model, contract, hour), group in groups.items():
        fixed = [
            {
                **{name: row[name] for name in _FIXED if name not in ("prediction_id", "answers")},
                "prediction_id": row["prediction"],
                "answers": json.dumps(row["answers"], separators=(",", ":")),
            }
            for row in group
        ]
        frame = pl.DataFrame(fixed, schema=_FIXED, orient="row")
        inputs = [
            _series(f"in_{c.name}", [row["inputs"].get(c.name) for row in group], c.type, plain=c.log == "plain")
            for c in notes[contract, ""].columns
            if c.role != segment.LOOKED_UP
        ]
        looked_up = sorted({name for row in group for name in row["looked_up"]})
        found = [
            pl.Series(f"lk_{name}", [row["looked_up"].get(name) for row in group], strict=False) for name in looked_up
        ]
        yield _put_file(
            workspace, frame.with_columns(inputs + found), kind="prediction", model=model, contract=contract,
            hour=clock.from_us(hour * _HOUR_US), name=group[0]["segment"],
        )  # fmt: skip


def _new_events(records: Sequence[tuple[str, Events]]) -> list[dict[str, Any]]:
    events = [
        {
            "source": record.source,
            "contract": record.contract,
            "key": row.key,
            "at": clock.from_us(row.at_us),
            "received_at": clock.from_us(record.received_us),
            "known_at": clock.from_us(record.received_us if row.known_us is None else row.known_us),
            "data": row.data,
            "segment": name,
        }
        for name, record in records
        for row in record.rows
    ]
    events.sort(key=lambda e: (e["source"], e["at"], e["key"], e["received_at"]))
    return events


def _event_files(
    workspace: Workspace, events: Sequence[dict[str, Any]], notes: dict[tuple[str, str], Columns]
) -> Iterator[dict[str, Any]]:
    """Events are kept as they came; a repeated key counts once where they are read (data.log.source_events)."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for event in events:
        hour = clock.to_us(event["at"]) // _HOUR_US
        groups.setdefault((event["source"], event["contract"], hour), []).append(event)
    for (source, contract, hour), group in groups.items():
        columns: list[pl.Series] = [
            pl.Series("_key", [e["key"] for e in group], pl.String()),
            pl.Series("_received_at", [e["received_at"] for e in group], pl.Datetime("us", "UTC")),
            pl.Series("_known_at", [e["known_at"] for e in group], pl.Datetime("us", "UTC")),
        ]
        for c in notes[contract, source].columns:
            values = [e["data"].get(c.name) for e in group]
            if c.log != "plain":
                values = [hashed(v) for v in values] if c.log == "hash" else [None] * len(values)
            columns.append(_series(c.name, values, c.type, plain=c.log == "plain"))
        yield _put_file(
            workspace, pl.DataFrame(columns), kind="source", model=source, contract=contract,
            hour=clock.from_us(hour * _HOUR_US), name=group[0]["segment"],
        )  # fmt: skip


def _put_file(
    workspace: Workspace, frame: pl.DataFrame, *, kind: str, model: str, contract: str, hour: datetime, name: str
) -> dict[str, Any]:
    """Put a Parquet file among the blobs; its row of log_file."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd", statistics=False)
    return {
        "workspace": workspace.name,
        "blob": workspace.blobs.put(buffer.getvalue()),
        "kind": kind,
        "model": model,
        "contract": contract,
        "hour": hour,
        "rows": frame.height,
        "segment": name,
    }


def _series(name: str, values: Iterable[Any], kind: str, *, plain: bool) -> pl.Series:
    """Values as they were decoded from the wire (times: microseconds or ISO text), in the column's type."""
    if not plain:
        return pl.Series(name, list(values), pl.String())
    if kind == "datetime":
        return pl.Series(name, [_moment(v) for v in values], _DTYPES[kind])
    if kind == "date":
        return pl.Series(name, [_day(v) for v in values], _DTYPES[kind])
    return pl.Series(name, list(values), _DTYPES[kind], strict=False)


def _moment(value: Any) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    return clock.from_us(value) if isinstance(value, int) else clock.parse_iso(value)


def _day(value: Any) -> date | None:
    if value is None or isinstance(value, date):
        return value
    if isinstance(value, int):
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)).date()
    return date.fromisoformat(value)


def _chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
