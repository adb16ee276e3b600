"""Scores a batch from the wire with a loaded model. Runs the project's code: only in model processes and backtests."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from fairway import clock

MAX_ERROR = 300  # characters of an error that reach the log


_Scored = tuple[list[Any], list[str], list[str | None], list[Any]]
RowEvents = Mapping[str, Mapping[str, Sequence[Any]]]  # one row's own events: source -> columns
Events = Sequence[RowEvents | None] | None


class Model(Protocol):
    """What `runtime.loader.LoadedModel` offers."""

    def predict_columns(
        self,
        columns: Mapping[str, Sequence[Any]],
        at_us: Sequence[int | None],
        events: Sequence[RowEvents | None] | None = None,
    ) -> Any: ...


def score(model: Model, columns: Mapping[str, list[Any]], at_us: Sequence[int], events: Events) -> dict[str, Any]:
    """The answer of the model process protocol: outputs, status, errors and looked_up per row, ms for the batch.

    A batch that raises is scored again row by row, so that one bad row never fails its neighbours. An output that is
    not finite is an error of that row.
    """
    started = clock.elapsed()
    rows = len(at_us)
    scored: _Scored
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
                scored[0].extend(part["outputs"])
                scored[1].extend(part["status"])
                scored[2].extend(part["errors"])
                scored[3].extend(part["looked_up"])
    outputs, status, errors, looked_up = scored
    return {
        "ok": True,
        "outputs": outputs,
        "status": status,
        "errors": errors,
        "looked_up": looked_up,
        "ms": (clock.elapsed() - started) * 1000,
    }


def _batch(model: Model, columns: Mapping[str, list[Any]], at_us: Sequence[int], events: Events) -> _Scored:
    predicted = model.predict_columns(dict(columns), list(at_us), events)
    outputs: list[Any] = predicted.outputs.tolist()
    looked_up: pl.DataFrame | None = predicted.looked_up
    if len(outputs) != len(at_us):
        raise ValueError(f"{len(outputs)} outputs for {len(at_us)} rows")
    found: list[Any] = [None] * len(at_us)
    if looked_up is not None and looked_up.width:
        found = looked_up.to_dicts()
    status = ["ok"] * len(outputs)
    errors: list[str | None] = [None] * len(outputs)
    for row, output in enumerate(outputs):
        if not all(map(math.isfinite, output if isinstance(output, list) else (output,))):
            outputs[row], status[row], errors[row] = None, "model_error", "the output is not a finite number"
    return outputs, status, errors, found


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_ERROR]
