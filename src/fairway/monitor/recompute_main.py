"""The inside of the process that recomputes predictions: runs the project's code of packages, one question per line.

Answers go to a descriptor of their own, so that nothing a project prints can be taken for one.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fairway.runtime import loader
from fairway.training.child_main import _die_with_parent

_loaded: dict[str, loader.LoadedModel] = {}


def main() -> None:
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = recompute(json.loads(line))
        except BaseException as error:  # SystemExit too: the project's code may raise what it likes
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")
    os._exit(0)  # no exit handlers of the project, no waiting for its threads


def recompute(question: dict[str, Any]) -> dict[str, Any]:
    """Predict logged rows as training would. question: package, artifact, rows (typed, Arrow), events (source: Arrow),
    out (where the view columns and `_output` go), hidden (the entity's column where the log does not tell it, or None).

    Returns: {"hidden_counts": whether the answers depend on the hidden entity}.
    """
    artifact = str(question["artifact"])
    if artifact not in _loaded:
        _loaded.clear()
        _loaded[artifact] = loader.load(Path(question["package"]), artifact=artifact)
    model = _loaded[artifact]
    rows = pl.read_ipc(question["rows"])
    events = {name: pl.read_ipc(path) for name, path in question["events"].items()}
    made = model.predict(rows, events)
    hidden = question["hidden"]
    counts = False
    if hidden is not None:
        other = model.predict(rows.with_columns(pl.lit("another").alias(hidden)), events)
        counts = not np.array_equal(made.outputs, other.outputs, equal_nan=True)
    output = pl.Series("_output", made.outputs.tolist())
    made.looked_up.with_columns(output).write_ipc(question["out"])
    return {"hidden_counts": counts}


if __name__ == "__main__":
    main()
