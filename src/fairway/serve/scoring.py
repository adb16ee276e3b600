"""Scores a batch from the wire with a loaded model. Runs the project's code: only in model processes and backtests."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from fairway import clock

MAX_ERROR = 300  # characters of an error that reach the log


class Model(Protocol):
    """What `runtime.loader.LoadedModel` offers."""

    def predict_columns(
        self, columns: dict[str, list[Any]], at_us: list[int], events: dict[str, dict[str, list[Any]]]
    ) -> Any: ...


Events = Sequence[Mapping[str, Mapping[str, list[Any]]] | None] | None


def score(model: Model, columns: Mapping[str, list[Any]], at_us: Sequence[int], events: Events) -> dict[str, Any]:
    """The answer of the model process protocol: outputs, status, errors and looked_up per row, ms for the batch.

    A batch that raises is scored again row by row, so that one bad row never fails its neighbours. An output that is
    not finite is an error of that row.
    """
    started = clock.elapsed()
    rows = len(at_us)
    try:
        scored = _batch(model, columns, at_us, events)
    except Exception as error:
        if rows == 1:
            scored = ([None], ["model_error"], [_short(error)], [None])
        else:
            scored = ([], [], [], [])
            for row in range(rows):
                one = {name: [values[row]] for name, values in columns.items()}
                part = score(model, one, [at_us[row]], None if events is None else [events[row]])
                for into, key in zip(scored, ("outputs", "status", "errors", "looked_up"), strict=True):
                    into.append(part[key][0])
    outputs, status, errors, looked_up = scored
    return {
        "ok": True,
        "outputs": outputs,
        "status": status,
        "errors": errors,
        "looked_up": looked_up,
        "ms": (clock.elapsed() - started) * 1000,
    }


_Scored = tuple[list[Any], list[str], list[str | None], list[Any]]


def _batch(model: Model, columns: Mapping[str, list[Any]], at_us: Sequence[int], events: Events) -> _Scored:
    predicted = model.predict_columns(dict(columns), list(at_us), merge_events(events))
    outputs: list[Any] = predicted.outputs.tolist()
    looked_up: pl.DataFrame | None = predicted.looked_up
    if len(outputs) != len(at_us):
        raise ValueError(f"{len(outputs)} outputs for {len(at_us)} rows")
    found: list[Any] = [None] * len(at_us)
    if looked_up is not None and looked_up.width:
        found = looked_up.to_dicts()
    status, errors = ["ok"] * len(outputs), [None] * len(outputs)
    result: _Scored = (outputs, status, list[str | None](errors), found)
    for row, output in enumerate(outputs):
        if not all(map(math.isfinite, output if isinstance(output, list) else (output,))):
            result[0][row], result[1][row], result[2][row] = None, "model_error", "the output is not a finite number"
    return result


def merge_events(events: Events) -> dict[str, dict[str, list[Any]]]:
    """The rows' events as one table per source, each event once.

    Rows may share a table: a view keeps to the events of a row's entity, in its window, known by its `at`.
    """
    tables: dict[str, dict[str, list[Any]]] = {}
    seen: dict[str, set[tuple[Any, ...]]] = {}
    for row in events or ():
        for source, columns in (row or {}).items():
            table = tables.setdefault(source, {name: [] for name in columns})
            known = seen.setdefault(source, set())
            for event in zip(*(columns[name] for name in table), strict=True):
                if event not in known:
                    known.add(event)
                    for name, value in zip(table, event, strict=True):
                        table[name].append(value)
    return tables


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_ERROR]
