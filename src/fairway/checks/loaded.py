"""A packaged version as the checks see it. Runs code of the project: only in the child of the checks."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fairway.checks.subject import Events, Outputs
from fairway.data import views
from fairway.runtime.loader import load
from fairway.runtime.runtimes import ObjectRuntime
from fairway.training.targets import encode
from fairway.training.work import fit


class Loaded:
    """`Subject` over `runtime.loader`. Raises: what loading the package raises."""

    def __init__(self, folder: Path) -> None:
        self._model = load(folder)
        self.contract, self.settings = self._model.contract, self._model.settings
        self.classes: Sequence[str] = self._model.manifest.classes
        self.views = self._model.code.views
        self.runtime: Mapping[str, Any] = self._model.manifest.runtime
        self.feature_columns: Sequence[tuple[str, str]] = self._model.manifest.feature_columns

    def look_up(self, rows: pl.DataFrame, events: Events) -> pl.DataFrame:
        if not self.views or self.settings.at is None:
            return rows
        event_at = {name: source.at for name, source in self.settings.sources.items()}
        schemas = {view["name"]: view["columns"] for view in self._model.manifest.views}
        return views.compute(self.views, rows, events, at=self.settings.at, event_at=event_at, schemas=schemas)

    def features(self, frame: pl.DataFrame) -> pl.DataFrame:
        return self._model.code.features(self._given(frame))

    def _given(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What features() may see: the request's columns and the views', in the frame's order."""
        names = {c.name for c in self.contract.request_columns} | set(self._model.view_columns)
        return frame.select(name for name in frame.columns if name in names)

    def predict(self, rows: pl.DataFrame, events: Events) -> Outputs:
        return self._model.predict(self._given(rows), events).outputs

    def predict_wire(self, columns: Mapping[str, list[Any]], ats: Sequence[int]) -> Outputs:
        nothing_known = [None] * len(ats)
        return self._model.predict_columns(columns, ats, nothing_known).outputs

    def train(self, X: pl.DataFrame, y: pl.Series) -> Callable[[pl.DataFrame], Outputs]:
        # No seed is set between two trainings: what the project itself does not seed is what this is to find.
        code, task, classes = self._model.code, self.settings.task, len(self.classes)
        labels, _ = encode(y, self.contract.column(self.settings.target), self.settings)
        return ObjectRuntime(fit(code, X, labels, self.settings.train), code, task=task, classes=classes).predict
