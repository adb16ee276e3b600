"""What the steps of a run hand to each other."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway.path.split import Split
from fairway.path.steps import Steps


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a run: typed frame, events by source, split, and the target as numbers. scratch: makes a folder."""

    dataset: str
    frame: pl.DataFrame
    events: Mapping[str, pl.DataFrame]
    split: Split
    y: NDArray[Any]
    classes: tuple[str, ...]
    scratch: Callable[[], Path]


@dataclass(frozen=True)
class Made:
    """What training made: files in `folder`, facts in `result`; see `train.work`."""

    key: str
    folder: Path
    result: dict[str, Any]

    def array(self, name: str) -> NDArray[np.float64]:
        """outputs or simple: of the held-out rows."""
        found: NDArray[np.float64] = np.load(self.folder / f"{name}.npy", allow_pickle=False)
        return found

    @cached_property
    def looked(self) -> pl.DataFrame:
        """All rows as features() got them."""
        return pl.read_ipc(self.folder / "looked.arrow")

    @property
    def view_columns(self) -> list[str]:
        return [name for schema in self.result["schemas"].values() for name in schema]

    @property
    def importance(self) -> dict[str, float]:
        """Shares of the loss that shuffling adds; they sum to 1."""
        added = {name: max(0.0, value) for name, value in self.result["importance"].items()}
        total = sum(added.values())
        return {name: value / total for name, value in added.items()} if total > 0 else {}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """How good it is. evaluation: JSON form, None with the reason in `error`. champion: its name."""

    key: str
    evaluation: dict[str, Any] | None
    error: str
    champion: str | None
    champion_error: str

    @classmethod
    def of(cls, found: dict[str, Any], *, key: str, champion: str | None) -> "Judged":
        """From a step's stored result."""
        return cls(
            key=key, champion=champion, evaluation=found["evaluation"], error=found["error"],
            champion_error=found["champion_error"],
        )  # fmt: skip


class Progress:
    """Says the child's steps when it has done them. ready: called once, when it begins to train."""

    def __init__(self, path: Path, lines: Steps, *, features_cached: bool, ready: Callable[[], None]) -> None:
        self._path, self._lines, self._told, self._cached = path, lines, 0, features_cached
        self._ready = ready

    def look(self) -> None:
        try:
            lines = self._path.read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return
        for line in lines[self._told :]:
            if not line.endswith("\n"):
                return
            self._told += 1
            told = json.loads(line)
            if told["step"] == "features":
                seconds = 0.0 if self._cached else told["seconds"]
                self._lines.say("features", f"{told['columns']} columns", seconds, cached=self._cached)
                self._ready()
            else:
                self._lines.say("train", f"{told['rows']:,} rows", told["seconds"])
