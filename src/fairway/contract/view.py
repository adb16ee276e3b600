"""Feature views as a project declares them: `view`, `latest`, `window`. Light: imports neither numpy nor polars."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeVar, get_args

F = TypeVar("F", bound=Callable[..., Any])
How = Literal["count", "sum", "mean", "min", "max", "last"]

HOWS: tuple[How, ...] = get_args(How)
FOREVER = timedelta(days=36_500)  # the window of a latest-value view without ttl: an end that no event reaches

_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Feature:
    """One column of a declared view: `how` over `column` of the events; column None counts events."""

    name: str
    column: str | None
    how: How


@dataclass(frozen=True)
class ViewSpec:
    """A view over the events of `source` in (at - window, at] that were known at `at`; one (entity, at) is a question.

    With a function: it is called with those events, as a frame with the source's columns plus `at`, for many questions
    at once, and returns one row per (entity, at) pair that has events: those two columns and the view's feature
    columns. With `features`: fairway computes them. A question without events is null.
    latest: whether only the last event counts, so that nothing older need be looked up.
    """

    name: str
    source: str
    entity: str
    window: timedelta
    function: Callable[..., Any] | None = None
    features: tuple[Feature, ...] = ()

    @property
    def latest(self) -> bool:
        return self.function is None and all(feature.how == "last" for feature in self.features)

    @property
    def window_us(self) -> int:
        return self.window // timedelta(microseconds=1)


def view(*, source: str, entity: str, window: str) -> Callable[[F], F]:
    """Declare a feature view over a source table, computed by the function below it.

    source: a name under [sources] in fairway.toml. entity: the column that rows and events share. window: "2h", "30d".
    Raises: ValueError for a window that is not a duration.
    """
    length = _length("window", window)

    def mark(function: F) -> F:
        name: str = function.__name__
        function.__fairway_view__ = ViewSpec(name, source, entity, length, function)  # type: ignore[attr-defined]
        return function

    return mark


def latest(*, source: str, entity: str, columns: Sequence[str] | Mapping[str, str], ttl: str | None = None) -> ViewSpec:
    """A view of the last event's values: `account = fairway.latest(source="accounts", entity="customer", ...)`.

    columns: of the source; as a mapping, feature name to column. ttl: an event of that age or older counts as none,
    so its values are null; without it, the last event counts for ever. Of events at one moment, the one whose other
    columns are greatest, compared in the source's order, is the last.
    Raises: ValueError for no columns or a ttl that is no duration.
    """
    named = dict(columns) if isinstance(columns, Mapping) else {name: name for name in columns}
    if isinstance(columns, str) or not named:
        raise ValueError(f'columns must be a list such as ["plan", "balance"], got {columns!r}')
    features = tuple(Feature(name, column, "last") for name, column in named.items())
    return ViewSpec("", source, entity, FOREVER if ttl is None else _length("ttl", ttl), None, features)


def window(*, source: str, entity: str, window: str, features: Mapping[str, tuple[str, How] | How]) -> ViewSpec:
    """A view of figures over a window: `recent = fairway.window(..., features={"delay": ("dep_delay", "mean")})`.

    features: name to (column, how), or to "count" for the number of events. how: count (values that are not null), sum,
    mean, min, max (nulls left out) or last. A question without events is null in every one, counts too.
    Raises: ValueError for an unknown how, no features, or a window that is no duration.
    """
    found = []
    for name, asked in features.items():
        column, how = (None, asked) if isinstance(asked, str) else asked
        if how not in HOWS or (column is None and how != "count"):
            raise ValueError(
                f'{name}: {asked!r} is no figure; write ("COLUMN", one of {", ".join(HOWS)}), or "count" for events'
            )
        found.append(Feature(name, column, how))
    if not found:
        raise ValueError('features is empty; write for example features={"delay": ("dep_delay", "mean")}')
    return ViewSpec("", source, entity, _length("window", window), None, tuple(found))


def _length(what: str, text: str) -> timedelta:
    length = parse_duration(text)
    if not length:
        raise ValueError(f"{what} is {text!r}, in which no event can lie")
    return length


def parse_duration(text: str) -> timedelta:
    """ "250ms", "30s", "15min", "6h", "30d" as a timedelta. Raises: ValueError.

    >>> parse_duration("6h")
    datetime.timedelta(seconds=21600)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|h|d)\s*", text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write for example 30s, 15min, 6h or 30d")
    number, unit = float(match[1]), match[2]
    return timedelta(milliseconds=number) if unit == "ms" else timedelta(**{_UNITS[unit]: number})


def format_duration(length: timedelta) -> str:
    """The shortest exact text that `parse_duration` reads back.

    >>> format_duration(timedelta(hours=36)), format_duration(timedelta(days=30))
    ('36h', '30d')
    """
    ms = length // timedelta(milliseconds=1)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if ms and ms % size == 0:
            return f"{ms // size}{unit}"
    return f"{ms}ms"
