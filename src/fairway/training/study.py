"""What a study of the data does in its child process: the project's own model, trained again and again.

Out-of-sample outputs by cross-validation, answers to rows without a label, and losses at growing sizes. Frames and
arrays come and go as files in the study's folder; the payload and the result are JSON.
"""

import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway import clock
from fairway.runtime.code import Code, import_code
from fairway.runtime.runtimes import ObjectRuntime
from fairway.training.evaluate import row_losses
from fairway.training.work import fit, make_features, read_events, read_values

ENTRY = "fairway.training.study:run"
FOLDS = 5
SHARES = (0.1, 0.2, 0.4, 0.8)  # below 1: repeats of all rows would be one and the same, and look certain
REPEATS = 4
FEWEST = 100  # training rows of the smallest size

Array = NDArray[Any]


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """payload: folder (with frame.arrow, y.npy, test.npy, fold.npy, events/*.arrow, code/ and, when there are rows
    without a label, open.arrow), settings, contract, classes, loss, seed, budget_s.

    Writes outputs.npy, (n,) or (n, k): each row answered by a model that was not trained on its fold; and open.npy,
    (folds, m) or (folds, m, k). Returns sizes and losses of the learning curve: (size, repeat), over the held-out rows.
    """
    folder, seed = Path(payload["folder"]), int(payload["seed"])
    settings, contract = read_values(payload)
    random.seed(seed)
    np.random.seed(seed)
    begun = clock.elapsed()
    code = import_code(folder / "code")
    frame, events = pl.read_ipc(folder / "frame.arrow"), read_events(folder)
    _, X, _ = make_features(code, settings, contract, frame, events)
    y, test, fold = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("y", "test", "fold"))
    open_X = None
    if (folder / "open.arrow").exists():
        _, open_X, _ = make_features(code, settings, contract, pl.read_ipc(folder / "open.arrow"), events)
    trained = _Trainer(code, X, y, payload)

    outputs: Array | None = None
    answers: list[Array] = []
    for place in range(int(fold.max()) + 1):
        model = trained.on(fold != place)
        found = model.predict(X.filter(fold == place))
        if outputs is None:
            outputs = np.zeros((len(y), *found.shape[1:]))
        outputs[fold == place] = found
        if open_X is not None:
            answers.append(model.predict(open_X))
    assert outputs is not None
    np.save(folder / "outputs.npy", outputs)
    if answers:
        np.save(folder / "open.npy", np.stack(answers))
    crossed = clock.elapsed() - begun

    held, truth = X.filter(test), y[test]
    rng, learned = np.random.default_rng(seed), np.flatnonzero(~test)
    sizes = sorted({round(len(learned) * share) for share in SHARES if len(learned) * share >= FEWEST})
    curve: list[list[float]] = [[] for _ in sizes]
    # Repeat by repeat, so that a study that runs out of time has every size equally often.
    for _ in range(REPEATS):
        if clock.elapsed() - begun > payload["budget_s"]:
            break
        for place, size in enumerate(sizes):
            chosen = _some(rng, learned, y, size, classes=len(payload["classes"]))
            losses = row_losses(payload["loss"], settings.task, truth, trained.on(chosen).predict(held))
            curve[place].append(float(np.mean(losses)))
    return {"sizes": sizes, "losses": curve, "seconds": {"crossed": crossed, "all": clock.elapsed() - begun}}


class _Trainer:
    """The project's train() on some of the rows."""

    def __init__(self, code: Code, X: pl.DataFrame, y: Array, payload: dict[str, Any]) -> None:
        self._code, self._X, self._y = code, X, y
        self._settings, _ = read_values(payload)
        self._classes = len(payload["classes"])

    def on(self, rows: Array) -> ObjectRuntime:
        """rows: mask or numbers."""
        keep = rows if rows.dtype == bool else np.isin(np.arange(len(self._y)), rows)
        dtype = {"binary": pl.Int8, "multiclass": pl.Int32, "regression": pl.Float64}[self._settings.task]
        labels = pl.Series(self._settings.target, self._y[keep], dtype=dtype)
        model = fit(self._code, self._X.filter(keep), labels, self._settings.train)
        return ObjectRuntime(model, self._code, task=self._settings.task, classes=self._classes)


def _some(rng: np.random.Generator, learned: Array, y: Array, size: int, *, classes: int) -> Array:
    """`size` of the training rows, and at least one of every class: no model learns a class that it never sees."""
    drawn = rng.choice(learned, size, replace=False)
    firsts = [rng.choice(learned[y[learned] == code], 1) for code in range(classes) if not (y[drawn] == code).any()]
    return np.concatenate([drawn, *firsts])
