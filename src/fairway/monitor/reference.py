"""What windows are judged against: bins per column, and how much ordinary windows of the training data differ.

A reference is a JSON-able dict that travels in the version's package (`reference.json`). When a version may take
traffic it is installed for its (model, contract); the champion's is the current one. A window keeps the reference it
was opened with, since profiles add only in the same bins.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Literal

import numpy as np
import polars as pl
import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.contract.columns import Contract
from fairway.stats.drift import CategoricalBins, NumericBins, Reference, profile, tune_f
from fairway.store import schema
from fairway.store.base import Store

FORMAT = 1
MIN_WINDOWS, MOST_WINDOWS = 14, 56
LIVE_WINDOWS = 28  # without `at`, so many first live windows become the reference
_THIN = 0.2  # a window with less than this share of the median rows (the cut ends) is no ordinary one
_NULL_JS = 0.08  # bins are so few that no change shows less than this at the usual rows per window

Kind = Literal["numeric", "categorical", "length", "norm", "time"]


@dataclass(frozen=True)
class ColumnBins:
    """How one column is counted.

    `length`: a text or image, by its size; `norm`: a vector, by its length; `time`: by its age at the prediction time,
    in seconds (the time itself always moves).
    """

    kind: Kind
    bins: NumericBins | CategoricalBins

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {"kind": self.kind, "bins": self.bins.as_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "ColumnBins":
        """Inverse of `as_dict`."""
        bins = CategoricalBins if data["kind"] == "categorical" else NumericBins
        return cls(data["kind"], bins.from_dict(data["bins"]))

    def profile(self, values: Sequence[Any], ats: Sequence[datetime]) -> dict[str, Any]:
        """Profile of logged values, and their prediction times, in these bins; JSON form."""
        raw = _raw(values, self.kind)
        if self.kind == "time":
            raw = np.array([at.timestamp() for at in ats], dtype=np.float64) - raw
        return self.count(raw)

    def count(self, values: Any) -> dict[str, Any]:
        """Profile of an array (n,): numbers, or texts as objects."""
        if isinstance(self.bins, CategoricalBins):
            return profile(self.bins, values).as_dict()
        return profile(self.bins, values).as_dict()


def _raw(values: Sequence[Any], kind: Kind) -> Any:
    """Logged values as an array: categories as text, times (microseconds or ISO text in the log) in seconds."""
    if kind == "categorical":
        return np.array([None if v is None else _text(v) for v in values], dtype=object)
    if kind == "length":
        sizes = (math.nan if v is None else float(len(v if isinstance(v, bytes) else str(v))) for v in values)
        return np.array(list(sizes), dtype=np.float64)
    if kind == "norm":
        return np.array([math.nan if v is None else math.hypot(*v) for v in values], dtype=np.float64)
    if kind == "time":
        return np.array([_seconds(v) for v in values], dtype=np.float64)
    return np.array([math.nan if v is None else float(v) for v in values], dtype=np.float64)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _seconds(value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, int):
        return value / 1e6
    if isinstance(value, str):
        value = date.fromisoformat(value) if len(value) == 10 else clock.parse_iso(value)
    if isinstance(value, datetime):
        return value.timestamp()
    return float((value - date(1970, 1, 1)).total_seconds())


def _array(series: pl.Series, kind: Kind, times: pl.Series | None) -> Any:
    """A column of the training frame as `_raw` gives it for the log."""
    if kind == "categorical":
        text = series.cast(pl.String)
        return text.to_numpy() if text.null_count() == 0 else np.array(text.to_list(), dtype=object)
    if kind == "length":
        sizes = series.bin.size() if series.dtype == pl.Binary else series.str.len_chars()
        return sizes.cast(pl.Float64).to_numpy()
    if kind == "norm":
        return np.linalg.norm(series.to_numpy(), axis=1)
    if kind == "time":
        seconds = (series.cast(pl.Datetime("us")).dt.epoch("us").cast(pl.Float64) / 1e6).to_numpy()
        now = math.nan if times is None else (times.dt.epoch("us").cast(pl.Float64) / 1e6).to_numpy()
        return now - seconds
    return series.cast(pl.Float64).to_numpy()


def window_start(at: datetime, length: timedelta) -> datetime:
    """Start of the window that holds `at`: windows count from 1970, UTC."""
    size = length // timedelta(microseconds=1)
    return clock.from_us(clock.to_us(at) // size * size)


def season_of(start: datetime, length: timedelta) -> Hashable:
    """The season key of a window: its weekday; windows longer than a day have none."""
    return start.weekday() if length <= timedelta(days=1) else 0


def build_reference(
    frame: pl.DataFrame,
    *,
    at: str | None,
    contract: Contract,
    importance: Mapping[str, float] | None = None,
    window: timedelta = timedelta(days=1),
    losses: pl.Series | None = None,
    budget: float = 0.25,
    js_alarm: float = 0.10,
) -> dict[str, Any]:
    """The reference of a version from its training rows, as JSON-able dict.

    frame: one row per training row, with the request's features, the view columns and, if there is one, `at`; other
    columns by role (entity, target, ignored) and those known later are left out. importance: column -> share of the
    model's importance. losses: (n,) primary loss of the held-out rows, null for rows that were trained on: their means
    per window are what live losses are judged against. Without `at` the reference windows are the first live ones.
    """
    times = None if at is None else frame.get_column(at)
    starts = None if times is None else times.dt.epoch("us").to_numpy() // (window // timedelta(microseconds=1))
    chosen = _ordinary_windows(starts)
    columns: dict[str, Any] = {}
    counts: dict[str, Any] = {}
    usual = int(np.median([len(rows) for rows in chosen.values()])) if chosen else 0
    private = {c.name for c in contract.columns if c.log != "plain"}
    for name in _watched(frame, at, contract):
        made, values = _column(frame.get_column(name), usual, times, private=name in private)
        columns[name] = made.as_dict() | {"importance": float((importance or {}).get(name, 0.0))}
        profiles = [made.count(values[rows]) for rows in chosen.values()]
        counts[name] = [[*p["counts"], p["null"]] for p in profiles]
        columns[name]["null_share"] = max((p["null"] / max(p["n"], 1) for p in profiles), default=None)
    keys = [clock.from_us(int(start) * (window // timedelta(microseconds=1))) for start in chosen]
    return {
        "format": FORMAT,
        "window_s": window.total_seconds(),
        "rows": frame.height,
        "live": at is None or len(chosen) < MIN_WINDOWS,
        "windows": [clock.iso(key) for key in keys],
        "columns": judged_columns(columns, counts, keys, window=window, budget=budget, js_alarm=js_alarm),
        "losses": _loss_windows(starts, losses),
    }


def judged_columns(
    columns: Mapping[str, Mapping[str, Any]],
    counts: Mapping[str, Sequence[Sequence[int]]],
    starts: Sequence[datetime],
    *,
    window: timedelta,
    budget: float,
    js_alarm: float,
) -> dict[str, Any]:
    """Columns with their `reference` (stats.drift.Reference, JSON) and common f; None below 3 windows."""
    if len(starts) < 3:
        return {name: {**column, "reference": None} for name, column in columns.items()}
    seasons = [season_of(start, window) for start in starts]
    found = {name: Reference.from_windows(counts[name], seasons=seasons) for name in columns}
    days = window / timedelta(days=1)
    f = 1.0
    if found:
        x = np.array([reference.x for reference in found.values()]).T
        f = tune_f(x, window_days=days, budget=budget, js_alarm=js_alarm).f
    return {name: {**columns[name], "reference": {**found[name].as_dict(), "f": f}} for name in columns}


def _ordinary_windows(starts: Any) -> dict[int, Any]:
    """Row numbers by window, the newest windows with a usual number of rows, in order of time."""
    if starts is None or not len(starts):
        return {}
    order = np.argsort(starts, kind="stable")
    keys, begins = np.unique(starts[order], return_index=True)
    groups = dict(zip(keys.tolist(), np.split(order, begins[1:]), strict=True))
    median = float(np.median([len(rows) for rows in groups.values()]))
    usual = {key: rows for key, rows in groups.items() if len(rows) >= max(1.0, _THIN * median)}
    return dict(list(usual.items())[-MOST_WINDOWS:])


def _watched(frame: pl.DataFrame, at: str | None, contract: Contract) -> list[str]:
    skipped = {c.name for c in contract.columns if c.role != "feature" or c.known in ("later", "unsure")}
    names = [name for name in frame.columns if name not in skipped and name != at]
    # Without a prediction time a time has no age, and times themselves always drift.
    return [n for n in names if at is not None or frame.schema[n] not in (pl.Datetime, pl.Date)]


def _column(series: pl.Series, usual: int, times: pl.Series | None, *, private: bool = False) -> tuple[ColumnBins, Any]:
    """(bins, values): so few bins that `usual` rows a window can be judged. private: no bin is named by a value."""
    fitting = max(5, int(_NULL_JS**2 * 8 * math.log(2.0) * usual)) if usual else 10_000
    dtype = series.dtype
    kind: Kind = "numeric"
    if dtype == pl.String:
        kind = "length" if private or series.n_unique() > 1000 else "categorical"
    elif dtype in (pl.Boolean, pl.Categorical) or isinstance(dtype, pl.Enum):
        kind = "categorical"
    elif dtype in (pl.Datetime, pl.Date):
        kind = "time"
    elif isinstance(dtype, pl.Array):
        kind = "norm"
    elif dtype == pl.Binary:
        kind = "length"
    values = _array(series, kind, times)
    if kind == "categorical":
        return ColumnBins(kind, CategoricalBins.from_reference(values, top=min(49, fitting))), values
    return ColumnBins(kind, NumericBins.from_reference(values, n_bins=min(20, fitting))), values


def _loss_windows(starts: Any, losses: pl.Series | None) -> list[dict[str, float]]:
    if starts is None or losses is None:
        return []
    known = losses.is_not_null().to_numpy()
    values = losses.to_numpy()
    chosen = _ordinary_windows(starts[known])
    kept = values[known]
    return [{"n": len(rows), "mean": float(np.mean(kept[rows]))} for rows in chosen.values()]


# -- in the store ----------------------------------------------------------------------------------------------------


def _bins_row(store: Store, tx: Connection, model: str, contract: str) -> dict[str, Any] | None:
    table = schema.bins
    found: dict[str, Any] | None = tx.scalar(
        sa.select(table.c.bins).where(
            table.c.workspace == store.workspace, table.c.model == model, table.c.contract == contract
        )
    )
    return found


def _keep(store: Store, tx: Connection, model: str, contract: str, bins: Mapping[str, Any]) -> None:
    row = {"workspace": store.workspace, "model": model, "contract": contract, "bins": dict(bins)}
    store.upsert(tx, schema.bins, row)


def install(
    store: Store, tx: Connection, *, model: str, contract: str, version: int, reference: Mapping[str, Any]
) -> None:
    """Make a version's reference known before its first prediction; the first one is current at once."""
    bins = _bins_row(store, tx, model, contract) or {"current": str(version), "references": {}}
    if str(version) in bins["references"]:
        return
    references = {**bins["references"], str(version): dict(reference)}
    keep = {bins["current"], *sorted(references, key=int)[-3:]}
    _keep(store, tx, model, contract, {**bins, "references": {k: v for k, v in references.items() if k in keep}})


def activate(store: Store, tx: Connection, model: str, version: int) -> None:
    """Judge the windows that open from now on against this version's reference (it has become champion)."""
    table = schema.bins
    rows = tx.execute(sa.select(table).where(table.c.workspace == store.workspace, table.c.model == model))
    for row in rows.all():
        if str(version) in row.bins["references"]:
            _keep(store, tx, model, row.contract, {**row.bins, "current": str(version)})


def installed(store: Store, tx: Connection, model: str, contract: str) -> tuple[str, dict[str, Any]] | None:
    """(key of the current reference, all references by key); None when none is installed."""
    bins = _bins_row(store, tx, model, contract)
    return None if bins is None else (bins["current"], bins["references"])


def replace(store: Store, tx: Connection, *, model: str, contract: str, key: str, reference: Mapping[str, Any]) -> None:
    """Store a reference that has grown by a live window."""
    bins = _bins_row(store, tx, model, contract)
    if bins is not None:
        _keep(store, tx, model, contract, {**bins, "references": {**bins["references"], key: dict(reference)}})
