"""Where a question's events lie: events in one order by integer keys, a question a range of it that two searches find.

The order is (entity, event time, all other columns), so it does not depend on how rows or events came.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_STEP = 250_000  # questions searched at once: what that needs of memory is small beside the tables
_WIDEST = 2**62  # keys (entity, time) must fit into a signed 64-bit integer


@dataclass(frozen=True)
class Places:
    """Questions among the ordered events.

    order: event's row in its frame, by place. known: us, by place; None when every event was known as soon as it
    happened. start, end: the question's window as places, in the questions' order. last: place of the last event that
    was known at the question's time, -1 for none; where only that was asked, start and end say nothing. moments: us.
    """

    order: Ints
    known: Ints | None
    start: Ints
    end: Ints
    last: Ints
    moments: Ints

    @cached_property
    def last_rows(self) -> pl.Series:
        """The row of each question's last event in its frame; null for none."""
        if not len(self.order):
            return pl.Series([None] * len(self.last), dtype=pl.UInt32)
        rows = pl.Series(self.order[self.last]).cast(pl.get_index_type())
        nobody = self.last < 0
        return rows.set(pl.Series(nobody), None) if nobody.any() else rows

    @cached_property
    def blind(self) -> NDArray[np.bool_]:
        """Questions with an event in their window that was not known yet: their events are no range."""
        if self.known is None or not len(self.known):
            return np.zeros(len(self.start), dtype=bool)
        asked = self.ascending
        newest = Spans(self.start[asked], self.end[asked]).reduce(np.maximum, self.known)
        blind = np.zeros(len(self.start), dtype=bool)
        blind[asked] = newest > self.moments[asked]
        return blind

    @cached_property
    def ascending(self) -> Ints:
        """Questions with events in their window, in order of their places."""
        order: Ints = pl.Series(self.start).arg_sort().to_numpy()
        return order[self.end[order] > self.start[order]]

    def seen(self, questions: Ints) -> tuple[Ints, Ints]:
        """(place of each event that these questions see, number of the question among them), in order."""
        n = self.end[questions] - self.start[questions]
        asked = np.repeat(np.arange(len(questions)), n)
        place = np.arange(int(n.sum())) - np.repeat(np.cumsum(n) - n, n) + self.start[questions][asked]
        if self.known is not None:
            visible = self.known[place] <= self.moments[questions][asked]
            place, asked = place[visible], asked[visible]
        return place, asked


def find_places(
    events: pl.DataFrame, *, entity: str, time: str, known_at: str | None,
    owners: pl.Series, moments: Ints, window_us: int, latest: bool = False,
) -> Places:  # fmt: skip
    """The places of questions (owners[i], moments[i]).

    owners: the entity of each question; a null one sees nothing. moments: us. events with a null entity or time count
    for nothing. latest: only `last` is asked.
    """
    theirs = events[entity] if events.schema[entity] == owners.dtype else _cast(events[entity], owners.dtype)
    times = micros(events[time])
    valid = theirs.is_not_null() & times.is_not_null()
    kept = None if valid.all() else valid.arg_true()
    if kept is not None:
        theirs, times = theirs.gather(kept), times.gather(kept)
    happened = times.to_numpy()
    asker, owner = _codes(owners, theirs)
    scale = _Scale(happened, int(max(owner.max(initial=0), asker.max(initial=0))) + 1)
    key = owner * scale.size + scale.of_events(happened)
    order = pl.Series(key).arg_sort().to_numpy().astype(np.int64)
    key = key[order]
    _settle_ties(events.drop(entity, time, *([known_at] if known_at else [])), key, order, kept)
    row = order if kept is None else kept.to_numpy().astype(np.int64)[order]
    known = None
    if known_at is not None:
        when = micros(events[known_at]).to_numpy()[row]
        if (when > happened[order]).any():
            known = when
    newest = None if known is None else _Newest(owner[order], np.maximum(known, happened[order]), asker)
    del theirs, times, happened, owner, order  # a million events are 8 MB in each of these
    turn = pl.Series(asker * scale.size + scale.upto(moments)).arg_sort().to_numpy()
    last = np.empty(len(moments), dtype=np.int64)
    start, end = (last, last) if latest else (np.empty_like(last), np.empty_like(last))
    for first in range(0, len(turn), _STEP):
        some = turn[first : first + _STEP]  # searches in order of their answers are five times as fast
        who, at = asker[some], moments[some]
        base = who * scale.size
        low = np.searchsorted(key, base + scale.upto(at - window_us), side="right")
        high = low if latest and newest is not None else np.searchsorted(key, base + scale.upto(at), side="right")
        place = newest.places(who, at) if newest is not None else high - 1
        if not latest:
            start[some], end[some] = low, high
        last[some] = np.where(place >= low, place, -1)  # else another entity's, or before the window
    return Places(row, known, start, end, last, moments)


class Spans:
    """Ranges start[i]:end[i] of ordered values, none empty, to reduce many columns over.

    A span's result depends on its values and their order only, to the last bit: not on what lies around it. Fast when
    spans ascend: what lies between the end of one and the start of the next is gone over too.
    """

    def __init__(self, start: Ints, end: Ints) -> None:
        self.counts = end - start
        new = np.ones(len(start), dtype=bool)
        new[1:] = (start[1:] != start[:-1]) | (end[1:] != end[:-1])
        self._ends = np.empty(2 * int(new.sum()), dtype=np.int64)
        self._ends[::2], self._ends[1::2] = start[new], end[new]
        self._back = None if new.all() else np.cumsum(new) - 1

    def reduce(self, ufunc: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """ufunc over the values of each span."""
        if not len(self.counts):
            return values[:0]
        padded = np.append(values, values[:1])  # an end may lie behind the last value
        made = ufunc.reduceat(padded, self._ends)[::2]
        return np.asarray(made if self._back is None else made[self._back])


class _Scale:
    """Times as offsets that fit into a key beside an entity's code: differences in us, or ranks where those don't."""

    def __init__(self, times: Ints, codes: int) -> None:
        self._low = int(times.min()) if len(times) else 0
        self._high = int(times.max()) if len(times) else 0
        self.size = self._high - self._low + 2
        self._distinct: Ints | None = None
        if self.size * (codes + 1) >= _WIDEST:
            self._distinct = np.unique(times)
            self.size = len(self._distinct) + 1

    def of_events(self, times: Ints) -> Ints:
        """The offset of each event's own time, from 1."""
        return times - self._low + 1 if self._distinct is None else np.searchsorted(self._distinct, times) + 1

    def upto(self, moments: Ints) -> Ints:
        """The offset of the last event time that is not after each moment; 0 for none."""
        if self._distinct is not None:
            return np.searchsorted(self._distinct, moments, side="right")
        return np.clip(moments, self._low - 1, self._high) - (self._low - 1)


def _codes(one: pl.Series, two: pl.Series) -> tuple[Ints, Ints]:
    """Equal values of both get equal numbers from 0, in order of the values; null is -1."""
    if one.dtype.is_integer() or one.dtype == pl.Boolean or isinstance(one.dtype, pl.Enum):
        first, second = (s.cast(pl.Int64) if s.dtype == pl.Boolean else s.to_physical() for s in (one, two))
        ends = [v for s in (first, second) for v in (s.min(), s.max()) if v is not None]
        low, high = (int(min(ends)), int(max(ends))) if ends else (0, 0)  # type: ignore[arg-type]
        if high - low < 2**31:
            made = [(s.cast(pl.Int64) - low).fill_null(-1).to_numpy() for s in (first, second)]
            return made[0], made[1]
    names = pl.concat([one.unique(), two.unique()]).unique().drop_nulls().sort().alias("name")
    numbered = names.to_frame().with_row_index("code")
    found = [
        s.alias("name").to_frame().join(numbered, on="name", how="left", maintain_order="left")["code"]
        for s in (one, two)
    ]
    made = [s.cast(pl.Int64).fill_null(-1).to_numpy() for s in found]
    return made[0], made[1]


def _cast(values: pl.Series, dtype: Any) -> pl.Series:
    """The events' entities in the type of the questions'; what has no place there belongs to nobody."""
    return values.cast(pl.String).cast(dtype, strict=False)


def _settle_ties(others: pl.DataFrame, key: Ints, order: Ints, kept: pl.Series | None) -> None:
    """Order events of one entity and moment by their other columns: no store's order decides which is last."""
    same = key[1:] == key[:-1]
    if not same.any():
        return
    tied = np.zeros(len(key), dtype=bool)
    tied[1:] |= same
    tied[:-1] |= same
    places = np.flatnonzero(tied)
    number = order[places]
    row = number if kept is None else kept.to_numpy()[number]
    names = [n for n, dtype in others.schema.items() if sortable(dtype)]
    frame = others.select(names)[row].select(pl.all().name.prefix("c_"))
    frame = frame.with_columns(pl.Series("key", key[places]), pl.Series("number", number))
    order[places] = frame.sort("key", *(f"c_{n}" for n in names))["number"].to_numpy()


def micros(times: pl.Series) -> pl.Series:
    """Times as microseconds since 1970."""
    return times.to_physical() if times.dtype == pl.Datetime("us", "UTC") else times.dt.timestamp("us")


def sortable(dtype: pl.DataType) -> bool:
    return not dtype.is_nested() and dtype != pl.Binary


class _Newest:
    """Finds, of an entity's events that were visible at a moment, the last in order of event time.

    Ordered by (entity, moment of becoming visible), that is the greatest place so far.
    """

    def __init__(self, owner: Ints, visible: Ints, asker: Ints) -> None:
        """owner, visible: by place, the entity and the moment from which it is seen."""
        self._scale = _Scale(visible, int(max(owner.max(initial=0), asker.max(initial=0))) + 1)
        key = owner * self._scale.size + self._scale.of_events(visible)
        order = np.argsort(key, kind="stable")
        self._key, self._newest = key[order], np.maximum.accumulate(order)

    def places(self, asker: Ints, moments: Ints) -> Ints:
        """The event's place, perhaps of another entity where the question's own has none; -1 for none at all."""
        wanted = asker * self._scale.size + self._scale.upto(moments)
        found = np.searchsorted(self._key, wanted, side="right") - 1
        return np.where(found >= 0, self._newest[np.maximum(found, 0)], -1) if len(self._key) else found
