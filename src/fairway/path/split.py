"""Which rows are held back: the newest by `at`, else those that the hash of their entity picks."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fairway import clock
from fairway.contract.settings import Settings
from fairway.errors import DataError

MIN_ROWS = 20


@dataclass(frozen=True)
class Split:
    """test: (n,) True for held-out rows. trained_until: newest `at` of the others. how: for people."""

    test: NDArray[np.bool_]
    trained_until: datetime | None
    how: str


def split(frame: pl.DataFrame, settings: Settings) -> Split:
    """Rows with the same `at`, or the same entity, stay on one side. Raises: DataError when a side would be empty."""
    n = frame.height
    if n < MIN_ROWS:
        raise DataError(f"the table has {n} rows with a known answer; a run needs at least {MIN_ROWS}")
    if settings.at is None:
        share = settings.split.test_share
        test = places(frame, settings) < share
        key = settings.entity or "the row"
        how = f"{share:.0%} by a hash of {key}"
    else:
        times = frame[settings.at]
        if settings.split.test_from is not None:
            start = _moment(settings.split.test_from)
        else:
            ordered = times.sort()
            start = ordered[min(n - 1, int(np.ceil(n * (1 - settings.split.test_share))))]
        test = (times >= start).to_numpy()
        how = f"from {clock.iso(start)} on"
    if not test.any() or test.all():
        side = "held back" if not test.any() else "left to train on"
        raise DataError(f"no row is {side} when rows are split ({how}); change [split] in fairway.toml")
    until = None
    if settings.at is not None:
        newest: Any = frame[settings.at].filter(~test).max()
        until = newest
    return Split(test, until, how)


def places(frame: pl.DataFrame, settings: Settings) -> NDArray[np.float64]:
    """(n,) in 0..1 by SHA-256 of the entity (without one, of the row but its target): the same in every run."""
    if settings.entity is not None:
        keys = [str(value) for value in frame[settings.entity].to_list()]
    else:
        columns = [name for name in frame.columns if name != settings.target]
        keys = [repr(row) for row in frame.select(columns).iter_rows()]
    known: dict[str, float] = {}
    for key in keys:
        if key not in known:
            known[key] = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
    return np.array([known[key] for key in keys], dtype=np.float64)


def newer_than_both(
    frame: pl.DataFrame, split: Split, settings: Settings, *, trained_until: datetime | None, test_share: float
) -> NDArray[np.bool_]:
    """Among the held-out rows, those that another training has not seen either (METHODS 9).

    trained_until, test_share: of that training; without `at`, its rows were kept out by the same hash.
    """
    held = frame.filter(split.test)
    if settings.at is not None:
        if trained_until is None:
            return np.zeros(held.height, dtype=bool)
        return (held[settings.at] > trained_until).to_numpy()
    return places(held, settings) < test_share


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
