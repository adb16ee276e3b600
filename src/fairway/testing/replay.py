"""Replays history against something that serves: rows, source events and labels in order, on a virtual clock.

The driver only does what the world does: it sends events when they happen, asks for predictions when they are due,
reports outcomes when they are known, and lets time pass. What the loop makes of it is the loop's business. The target
is either the processes of `fairway serve --virtual-clock` over HTTP, or the same parts inside one process (backtest).
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import polars as pl

from fairway import fingerprint
from fairway.errors import FairwayError

BATCH = 2000  # rows per request: below the gateway's limit, small enough to keep answers quick


class Target(Protocol):
    """What history is replayed against."""

    def call(self, path: str, body: bytes) -> tuple[int, bytes]:
        """POST a JSON body to the gateway; its status and body."""
        ...

    def advance(self, to: datetime) -> None:
        """Move the virtual clock; returns when all that is due by then has happened."""
        ...


@dataclass(frozen=True)
class SourceHistory:
    """Events of one source: a frame with the source's columns, sent at the time in column `at`."""

    name: str
    at: str
    frame: pl.DataFrame


@dataclass(frozen=True)
class History:
    """What happened.

    rows: one row per prediction: the request's columns, `at`, the target and `label_at` (when it became known; rows
    with a null target or label_at get no label). request: names of the columns that a request carries.
    """

    endpoint: str
    rows: pl.DataFrame
    request: tuple[str, ...]
    at: str
    target: str
    label_at: str
    sources: tuple[SourceHistory, ...] = ()


@dataclass
class Replayed:
    """Counts of what was sent and how it was answered."""

    predictions: int = 0
    labels: int = 0
    events: int = 0
    refused: int = 0


class ReplayError(FairwayError):
    """The target answered a replayed request in a way that history can't go on from."""

    code = "replay"


def replay(
    target: Target,
    history: History,
    *,
    start: datetime,
    end: datetime,
    step: timedelta = timedelta(minutes=15),
    workspace: str = "default",
    say: Callable[[datetime, Replayed], None] = lambda at, done: None,
) -> Replayed:
    """Send what happened in [start, end) in steps; within a step: events, then labels, then predictions.

    A row is sent at the end of the step in which it lies, with its own `at`, so `step` must not exceed the endpoint's
    max_skew. Request ids are derived from the step, so a repeated replay asks the same questions.
    Raises: ReplayError when a request is not answered with 2xx.
    """
    done = Replayed()
    rows_of_history = history.rows.sort(history.at, maintain_order=True).with_row_index("_row")
    predictions = _by_step(rows_of_history, history.at, start, step)
    labels = _by_step(
        rows_of_history.filter(pl.col(history.target).is_not_null() & pl.col(history.label_at).is_not_null()),
        history.label_at,
        start,
        step,
    )
    events = {s.name: _by_step(s.frame, s.at, start, step) for s in history.sources}
    sent: dict[Any, str] = {}  # row number -> prediction id, until its label is sent
    for number in range(1 + (end - start - timedelta(microseconds=1)) // step):
        now = min(start + (number + 1) * step, end)
        target.advance(now)
        for name, steps in events.items():
            for rows in _batches(steps.get(number)):
                _post(target, f"/v1/sources/{name}", {"rows": [_row(r) for r in rows]})
                done.events += len(rows)
        for rows in _batches(labels.get(number)):
            known = [(sent.pop(r["_row"]), r) for r in rows if r["_row"] in sent]
            if known:
                at = history.label_at
                outcomes = [
                    {"id": i, "label": r[history.target], "at": _wire(r[at]), "event": "outcome"} for i, r in known
                ]
                _post(target, "/v1/feedback", {"rows": outcomes})
                done.labels += len(outcomes)
        for part, rows in enumerate(_batches(predictions.get(number))):
            request_id = f"replay-{start:%Y%m%dT%H%M}-{number}-{part}"
            body = {"request_id": request_id, "rows": [{c: _wire(r[c]) for c in history.request} for r in rows]}
            answer = _post(target, f"/v1/models/{history.endpoint}/predict", body)
            for place, row in enumerate(rows):
                sent[row["_row"]] = fingerprint.prediction_id(workspace, history.endpoint, request_id, place)
                if answer["outputs"][place]["id"] != sent[row["_row"]]:
                    raise ReplayError(f"{request_id} row {place}: the answer names another prediction id")
            done.predictions += len(rows)
        say(now, done)
    return done


def _by_step(frame: pl.DataFrame, at: str, start: datetime, step: timedelta) -> dict[int, pl.DataFrame]:
    """Rows by the number of the step whose half-open span (from its start) holds their `at`, in order of `at`."""
    ordered = frame.sort(at, maintain_order=True).with_columns(
        _step=((pl.col(at) - start).dt.total_microseconds() // (step // timedelta(microseconds=1)))
    )
    return {int(key[0]): part.drop("_step") for key, part in ordered.partition_by("_step", as_dict=True).items()}


def _batches(frame: pl.DataFrame | None) -> Iterator[list[dict[str, Any]]]:
    if frame is not None:
        for part in frame.iter_slices(BATCH):
            yield part.to_dicts()


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _wire(value) for name, value in row.items() if name != "_row"}


def _wire(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _post(target: Target, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    status, answer = target.call(path, json.dumps(body).encode())
    if not 200 <= status < 300:
        raise ReplayError(f"POST {path} was answered {status}: {answer.decode(errors='replace')[:300]}")
    parsed: dict[str, Any] = json.loads(answer)
    return parsed
