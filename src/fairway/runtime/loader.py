"""The one loader of packages: verified files, the project's own code, the runtime that the manifest names.

Loading runs project code: only in a model process, a training or checks child, or where a person asks in a notebook.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway.contract.columns import Contract
from fairway.contract.settings import Settings
from fairway.contract.text import parse_contract, parse_settings
from fairway.data import views
from fairway.errors import ModelCodeError
from fairway.runtime.code import Code, import_code
from fairway.runtime.package import Manifest, verify
from fairway.runtime.runtimes import Runtime, checked, load_runtime
from fairway.runtime.wire import input_columns, typed_frame

Events = Mapping[str, Mapping[str, Sequence[Any]]]


@dataclass(frozen=True)
class Predicted:
    """outputs: (n,) P(positive) or value, (n, k) for multiclass. looked_up: the view columns, n rows."""

    outputs: NDArray[np.float64]
    looked_up: pl.DataFrame


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A packaged model, ready to answer. Not thread-safe where the project's code is not.

    Every method raises whatever the project's code raises, and ModelCodeError for features or outputs that break the
    signature: a batch answers whole or not at all.
    """

    folder: Path
    manifest: Manifest
    contract: Contract
    settings: Settings
    code: Code
    runtime: Runtime

    @property
    def view_columns(self) -> tuple[str, ...]:
        return tuple(name for view in self.manifest.views for name in view["columns"])

    def predict(self, rows: pl.DataFrame, events: Mapping[str, pl.DataFrame] | None = None) -> Predicted:
        """Answers for typed rows (the contract's request columns), in order.

        events: per source, a pool of typed events; each row sees those of its window that were known by its `at`.
        """
        looked = rows
        if self.code.views:
            looked = views.compute(
                self.code.views, rows, events or {}, at=self._at(), event_at=self._event_at(), schemas=self._schemas()
            )
        return self._answer(looked)

    def predict_columns(
        self,
        columns: Mapping[str, Sequence[Any]],
        at_us: Sequence[int | None],
        events: Events | Sequence[Events | None] | None = None,
    ) -> Predicted:
        """As `predict`, from values of the wire: category texts, times as microseconds UTC.

        events: either one pool per source (columns), or one entry per row: the row's own window per source, which is
        then what it sees, whatever the other rows bring. `at_us` fills the `at` column where `columns` lacks it.
        """
        given = dict(columns)
        if self.settings.at is not None and self.settings.at not in given:
            given[self.settings.at] = at_us
        rows = typed_frame(input_columns(self.contract), given)
        if not self.code.views:
            return self._answer(rows)
        if events is None or isinstance(events, Mapping):
            return self.predict(rows, {name: self._events(name, columns) for name, columns in (events or {}).items()})
        own = self._own_events(events)
        return self._answer(
            views.compute_given(
                self.code.views, rows, own, at=self._at(), event_at=self._event_at(), schemas=self._schemas()
            )
        )

    def features(self, looked: pl.DataFrame) -> pl.DataFrame:
        """What the model is given for rows with their view columns: names, order and types as in training."""
        made = self.code.features(looked)
        columns = []
        for name, dtype in self.manifest.feature_columns:
            if name not in made.columns:
                raise ModelCodeError(f"model.py, features() made no column {name!r}, which the model was trained with")
            column = made.get_column(name)
            if str(column.dtype) != dtype:
                wanted = getattr(pl, dtype, None)
                number = column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)
                if wanted is None or not number:
                    raise ModelCodeError(f"model.py, features(): column {name!r} is {column.dtype}, was {dtype}")
                column = column.cast(wanted)  # an all-null column, or whole numbers where there were fractions
            columns.append(column)
        return pl.DataFrame(columns)

    def _answer(self, looked: pl.DataFrame) -> Predicted:
        outputs = self.runtime.predict(self.features(looked))
        task, classes = self.manifest.task, len(self.manifest.classes)
        return Predicted(checked(outputs, looked.height, task, classes, "the model"), looked.select(self.view_columns))

    def _at(self) -> str:
        if self.settings.at is None:
            raise ModelCodeError("a feature view needs the prediction time: name its column as `at` in fairway.toml")
        return self.settings.at

    def _event_at(self) -> dict[str, str]:
        return {name: source.at for name, source in self.settings.sources.items()}

    def _schemas(self) -> dict[str, dict[str, str]]:
        return {view["name"]: view["columns"] for view in self.manifest.views}

    def _own_events(self, windows: Sequence[Events | None]) -> dict[str, pl.DataFrame]:
        """Every row's events of the wire as one typed frame per source, with the row's number."""
        found = {}
        for source, described in self.contract.sources:
            columns: dict[str, list[Any]] = {column.name: [] for column in described}
            known: list[int | None] = []
            place: list[int] = []
            for row, own in enumerate(windows):
                given = (own or {}).get(source)
                n = len(next(iter(given.values()))) if given else 0
                if not given or not n:
                    continue
                for name, values in columns.items():
                    if name not in given:
                        raise ModelCodeError(f"column {name!r} is missing from the events of {source!r}")
                    values.extend(given[name])
                known.extend(given.get(views.KNOWN_AT) or [None] * n)
                place.extend([row] * n)
            if place:
                frame = typed_frame(described, columns)
                extra = [pl.Series(views.ROW, place, dtype=pl.Int64)]
                if None not in known:
                    extra.append(pl.Series(views.KNOWN_AT, known, dtype=pl.Int64).cast(pl.Datetime("us", "UTC")))
                found[source] = frame.with_columns(extra)
        return found

    def _events(self, source: str, columns: Mapping[str, Sequence[Any]]) -> pl.DataFrame:
        described = dict(self.contract.sources)[source]
        return typed_frame(described, columns or {column.name: () for column in described})


def load(folder: Path, *, artifact: str | None = None) -> LoadedModel:
    """The model of a package folder, every file verified first.

    artifact: the hash that the manifest must have. Raises: TamperFound, ModelCodeError, whatever model.py raises.
    """
    manifest = verify(folder, artifact=artifact)
    contract = parse_contract((folder / "contract.toml").read_text(encoding="utf-8"), file="contract.toml")
    settings = parse_settings((folder / "fairway.toml").read_text(encoding="utf-8"), file="fairway.toml")
    code = import_code(folder / "code")
    runtime = load_runtime(manifest.runtime, folder / "model", code, task=manifest.task, classes=len(manifest.classes))
    return LoadedModel(
        folder=folder, manifest=manifest, contract=contract, settings=settings, code=code, runtime=runtime
    )
