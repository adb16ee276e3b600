"""What the checks ask of a version: the seam between them and the packaged model, which lives in a child process."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway.contract.columns import Contract
from fairway.contract.settings import Settings
from fairway.contract.view import ViewSpec
from fairway.data.segment import hashed

Outputs = NDArray[np.float64]
Events = Mapping[str, pl.DataFrame]
KNOWN_AT = "_known_at"


class Subject(Protocol):
    """A packaged version, loaded. Every method may raise whatever the project's code raises."""

    contract: Contract
    settings: Settings

    @property
    def classes(self) -> Sequence[str]: ...

    @property
    def views(self) -> Sequence[ViewSpec]: ...

    @property
    def runtime(self) -> Mapping[str, Any]:
        """Of the manifest: kind, reason, candidates."""
        ...

    @property
    def feature_columns(self) -> Sequence[tuple[str, str]]:
        """(name, dtype as text) at training."""
        ...

    def look_up(self, rows: pl.DataFrame, events: Events) -> pl.DataFrame:
        """rows with the view columns, by the same code as training and serving."""
        ...

    def features(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The project's features() on rows that have their view columns."""
        ...

    def predict(self, rows: pl.DataFrame, events: Events) -> Outputs:
        """The packaged runtime: (n,) or (n, k)."""
        ...

    def predict_wire(self, columns: Mapping[str, list[Any]], ats: Sequence[int]) -> Outputs:
        """The packaged runtime on decoded request columns, with no events known; ats in microseconds."""
        ...

    def train(self, X: pl.DataFrame, y: pl.Series) -> Callable[[pl.DataFrame], Outputs]:
        """Train anew under the project's seed and parameters; returns its predict on feature frames."""
        ...


@dataclass(frozen=True, kw_only=True)
class Material:
    """What the checks in the child work on.

    train, heldout: typed rows as of the snapshot (a sample of training is enough), without view columns. events: typed,
    with "_known_at". python_outputs: of the trained object on heldout, in memory, before packaging. seed: of all draws.
    request_rows: held-out rows as JSON values, as requests would bring them. now_us: prediction time of requests that
    don't state one. train has the target, heldout may have it.
    """

    train: pl.DataFrame
    heldout: pl.DataFrame
    events: Events
    python_outputs: Outputs
    request_rows: Sequence[Mapping[str, Any]]
    now_us: int
    seed: int = 0


def some(frame: pl.DataFrame, n: int, rng: np.random.Generator) -> pl.DataFrame:
    """At most n rows, drawn, in their order."""
    if frame.height <= n:
        return frame
    return frame[np.sort(rng.choice(frame.height, n, replace=False))]


def who(contract: Contract, row: Mapping[str, Any]) -> str:
    """ "customerID 7590-VHVEG", or the row's number by the caller when there is no entity."""
    entity = contract.by_role("entity")
    if entity is None or entity.name not in row or entity.log == "drop":
        return "a row"
    value = row.get(entity.name)
    return f"{entity.name} {hashed(value) if entity.log == 'hash' else value}"


def at_column(contract: Contract) -> str | None:
    column = contract.by_role("at")
    return column.name if column else None


SECOND = timedelta(seconds=1)


def shown(value: Any) -> Any:
    """A value for evidence: JSON, floats as they are."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    return str(value)
