"""Train/serve equality as a number: a sample of each window's served predictions, recomputed as training would.

The same inputs and prediction time, the events that were known by then, the packaged version; what a view looked up
and what the model answered must be the same within 1e-9. A difference means that serving sees something else than
training does: a changed online state, events that came late into a history, code that depends on more than its rows.
"""

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock, fingerprint
from fairway.contract.columns import Contract
from fairway.contract.settings import Settings
from fairway.contract.text import parse_contract, parse_settings
from fairway.data import log
from fairway.data.project import Project, agree
from fairway.data.snapshot import source_events
from fairway.errors import FairwayError, StoreUnavailable
from fairway.monitor import alarms, windows
from fairway.monitor.recompute import Recompute, recomputing
from fairway.monitor.resolved import as_dict
from fairway.runtime import package
from fairway.runtime.wire import dtype_of, input_columns
from fairway.store import schema
from fairway.store.base import Row, Store
from fairway.store.workspace import Workspace

SAMPLE = 200
TOLERANCE = 1e-9
LIMIT = 0.99  # a smaller share that is equal is an alarm; any difference is a notice
SHOWN = 5
SUBJECT = "served as trained"
STATE = "equality"  # in monitor_state: per contract, the start of the newest window that was measured
FEWEST = timedelta(days=3)  # windows older than that are not measured when this is new to a store

Json = dict[str, Any]


def due(store: Store, tx: Connection, model: str, now: datetime) -> list[Row]:
    """Closed windows that are not measured yet, oldest first."""
    marks, table = _marks(store, tx, model), schema.window
    since = min((clock.parse_iso(mark) for mark in marks.values()), default=now - FEWEST)
    rows = tx.execute(
        sa.select(table)
        .where(
            table.c.workspace == store.workspace, table.c.model == model, table.c.closed_at.is_not(None),
            table.c.start_at >= since,
        )
        .order_by(table.c.start_at, table.c.contract)
    )  # fmt: skip
    return [row for row in rows if clock.iso(row.start_at) > marks.get(row.contract, "")]


def measure(workspace: Workspace, row: Row, settings: Settings, now: datetime) -> Json:
    """What became of one window's sample; what can't be recomputed is said in `reason`, and is no difference.

    Returns: n, equal, share (None when n is 0), left_out (look-ups that failed when they were served), columns
    (differences by column), first (differing rows), reason.
    """
    frame = log.predictions(workspace, row.model, row.start_at, row.end_at)
    frame = frame.filter(pl.col("contract") == row.contract)
    failed = frame["flags"].list.eval(pl.element().str.starts_with("lookup_failed:")).list.any().fill_null(False)
    left_out = int(failed.sum())
    sample = _sampled(_answered(frame.filter(~failed)), row)
    found: Json = {"n": 0, "equal": 0, "share": None, "left_out": left_out, "columns": {}, "first": [], "reason": None}
    with recomputing() as process:
        for key, rows in sorted(sample.partition_by("_version", as_dict=True).items()):
            version = int(key[0])
            try:
                made = _recompute(workspace, row.model, version, rows, process, settings.limits.memory_mb, now)
            except StoreUnavailable:
                raise
            except (FairwayError, pl.exceptions.PolarsError) as error:  # a number that can't be told is no difference
                found["reason"] = f"@{version}: {error}"[:500]
                continue
            if isinstance(made, str):
                found["reason"] = f"@{version}: {made}"
                continue
            _compare(found, version, rows, made)
    found["share"] = found["equal"] / found["n"] if found["n"] else None
    return found


def record(store: Store, tx: Connection, row: Row, found: Json, settings: Settings, now: datetime) -> None:
    """Keep the window's number; raise the alarm when it falls, close it when all is equal again."""
    windows.update(store, tx, row, judgement={**(row.judgement or {}), "equality": found})
    marks = _marks(store, tx, row.model) | {row.contract: clock.iso(row.start_at)}
    store.upsert(
        tx,
        schema.monitor_state,
        {"workspace": store.workspace, "model": row.model, "name": STATE, "state": {"measured": marks}},
    )
    if found["share"] is None:
        return
    if found["share"] < 1.0:
        span = {"start": clock.iso(row.start_at), "end": clock.iso(row.end_at)}
        alarms.raise_alarm(
            store, tx, model=row.model, kind="equality", subject=SUBJECT,
            severity="alarm" if found["share"] < LIMIT else "notice",
            evidence={"window": span, "rows": row.rows, **found}, settings=as_dict(settings), now=now,
            action={"did": "nothing: which side is right is a person's to see"},
        )  # fmt: skip
    elif (opened := alarms.open_alarm(store, tx, model=row.model, kind="equality", subject=SUBJECT)) is not None:
        alarms.close(store, tx, opened.alarm, now=now, why=f"all {found['n']} of a window are equal again")


def _marks(store: Store, tx: Connection, model: str) -> dict[str, str]:
    table = schema.monitor_state
    state = tx.scalar(
        sa.select(table.c.state).where(
            table.c.workspace == store.workspace, table.c.model == model, table.c.name == STATE
        )
    )
    return dict(state["measured"]) if state else {}


def _answered(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows whose serving version answered, with `_version` and its `_output`."""
    versions: list[int | None] = []
    outputs: list[Any] = []
    for text in frame["answers"]:
        served = [(int(v), a) for v, a in json.loads(text).items() if a["role"] == "served" and a["status"] == "ok"]
        versions.append(served[0][0] if served else None)
        outputs.append(json.dumps(served[0][1]["output"]) if served else None)
    made = frame.with_columns(
        pl.Series("_version", versions, dtype=pl.Int64), pl.Series("_output", outputs, dtype=pl.String)
    )
    return made.filter(pl.col("_version").is_not_null())


def _sampled(frame: pl.DataFrame, row: Row) -> pl.DataFrame:
    """At most SAMPLE rows, the same ones whoever draws them."""
    if frame.height <= SAMPLE:
        return frame
    seed = int(fingerprint.of_value([row.model, row.contract, clock.iso(row.start_at)])[:8], 16)
    return frame[np.sort(np.random.default_rng(seed).choice(frame.height, SAMPLE, replace=False))]


@dataclass(frozen=True)
class _Packaged:
    folder: Path
    artifact: str
    settings: Settings
    contract: Contract
    views: Sequence[Mapping[str, Any]]
    root: Path


def _packaged(workspace: Workspace, model: str, version: int) -> _Packaged:
    table, models = schema.version, schema.model
    with workspace.store.read() as tx:
        artifact = tx.scalar(
            sa.select(table.c.artifact).where(
                table.c.workspace == workspace.name, table.c.model == model, table.c.version == version
            )
        )
        root = tx.scalar(
            sa.select(models.c.project_path).where(models.c.workspace == workspace.name, models.c.model == model)
        )
    folder = package.materialise(workspace, str(artifact))
    settings = parse_settings((folder / "fairway.toml").read_text(encoding="utf-8"), file="fairway.toml")
    contract = parse_contract((folder / "contract.toml").read_text(encoding="utf-8"), file="contract.toml")
    manifest = package.read_manifest((folder / package.MANIFEST).read_bytes())
    place = Path(root) if root else workspace.root
    return _Packaged(folder, str(artifact), settings, agree(settings, contract), manifest.views, place)


def _recompute(
    workspace: Workspace, model: str, version: int, rows: pl.DataFrame, process: Recompute, memory_mb: int,
    now: datetime,
) -> pl.DataFrame | str:  # fmt: skip
    """The view columns and `_output` of these rows; or why they can't be told."""
    packaged = _packaged(workspace, model, version)
    hidden = _hidden(packaged)
    if isinstance(hidden, _Untold):
        return hidden.why
    with tempfile.TemporaryDirectory(prefix="fairway-equality-") as folder:
        place = Path(folder)
        _typed(rows, packaged).write_ipc(place / "rows.arrow")
        project = Project(packaged.root, packaged.settings, packaged.contract, workspace)
        events = {}
        for name, since in _since(packaged, rows).items():
            events[name] = str(place / f"{name}.arrow")
            source_events(project, name, now=now, since=since).write_ipc(events[name])
        question = {
            "package": str(packaged.folder), "artifact": packaged.artifact, "rows": str(place / "rows.arrow"),
            "events": events, "out": str(place / "out.arrow"), "hidden": hidden,
        }  # fmt: skip
        answer = process.ask(question, memory_mb=memory_mb)
        if answer["hidden_counts"]:
            return f"{hidden} is hidden in the log, and the model's answers depend on it"
        return pl.read_ipc(place / "out.arrow")


@dataclass(frozen=True)
class _Untold:
    why: str


def _hidden(packaged: _Packaged) -> str | _Untold | None:
    """The entity's column where the log hides it and no view needs it; _Untold when the log hides more than that."""
    keys = {view["entity"] for view in packaged.views}
    entity = None
    for column in input_columns(packaged.contract):
        if column.log == "plain" or column.role == "at":
            continue
        if column.role != "entity" or column.name in keys or column.type != "string":
            return _Untold(f"{column.name} is hidden in the log (log = {column.log!r})")
        entity = column.name
    for name, columns in packaged.contract.sources:
        for column in columns:
            if column.log != "plain" and any(view["source"] == name for view in packaged.views):
                return _Untold(f"{column.name} of source {name} is hidden in the log (log = {column.log!r})")
    return entity


def _typed(rows: pl.DataFrame, packaged: _Packaged) -> pl.DataFrame:
    """The logged inputs as the version's features() gets them."""
    made = []
    for column in input_columns(packaged.contract):
        dtype = dtype_of(column)
        if column.role == "at":
            values = rows["at"]
        elif f"in_{column.name}" in rows.columns:
            values = rows[f"in_{column.name}"]
        else:
            values = pl.Series([None] * rows.height)
        made.append(values.alias(column.name).cast(dtype, strict=False))
    return pl.DataFrame(made)


def _since(packaged: _Packaged, rows: pl.DataFrame) -> dict[str, datetime | None]:
    """By source that a view reads: the first moment that any of these rows may see; None for ever."""
    first: Any = rows["at"].min()
    found: dict[str, datetime | None] = {}
    for view in packaged.views:
        window = timedelta(microseconds=int(view["window_us"]))
        since = first - window if window < timedelta(days=3_650) else None
        known = found.get(view["source"], since)
        found[view["source"]] = None if since is None or known is None else min(since, known)
    return found


def _compare(found: Json, version: int, rows: pl.DataFrame, made: pl.DataFrame) -> None:
    """Add these rows to the window's counts."""
    looked = [name for name in made.columns if name != "_output" and f"lk_{name}" in rows.columns]
    columns = [(name, rows[f"lk_{name}"].to_list(), made[name].to_list()) for name in looked]
    outputs = [json.loads(text) for text in rows["_output"]]
    columns.append(("output", outputs, made["_output"].to_list()))
    found["n"] += rows.height
    for place in range(rows.height):
        differing = [(n, s[place], m[place]) for n, s, m in columns if not same(s[place], m[place])]
        found["equal"] += not differing
        for name, _, _ in differing:
            found["columns"][name] = found["columns"].get(name, 0) + 1
        if differing and len(found["first"]) < SHOWN:
            name, served, recomputed = differing[0]
            found["first"].append({
                "prediction": rows["prediction_id"][place], "at": clock.iso(rows["at"][place]), "version": version,
                "column": name, "served": served, "recomputed": recomputed,
            })  # fmt: skip


def same(one: Any, two: Any) -> bool:
    """Equal within 1e-9 of their size; null equals null.

    >>> same(0.1 + 0.2, 0.3), same(None, 0.0), same([1.0], [1.0]), same("a", "a")
    (True, False, True, True)
    """
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, int | float) and isinstance(two, int | float):
        if math.isnan(one) or math.isnan(two):
            return math.isnan(one) and math.isnan(two)
        return abs(one - two) <= TOLERANCE * max(1.0, abs(one), abs(two))
    return bool(one == two)
