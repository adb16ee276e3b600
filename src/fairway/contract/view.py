"""`@fairway.view`: declares a feature view. Light: importing it loads neither numpy nor polars."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class ViewSpec:
    """A view: `function` is called with the events of `source` in (at - window, at] that were known at `at`.

    The frame it gets has the source's columns plus `at`, the prediction time; one (entity, at) pair is one question.
    It returns one row per (entity, at) pair that has events: those two columns and the view's feature columns. Pairs
    without events become null. The same call answers thousands of training rows or one request.
    """

    name: str
    source: str
    entity: str
    window: timedelta
    function: Callable[..., Any]


def view(*, source: str, entity: str, window: str) -> Callable[[F], F]:
    """Declare a feature view over a source table.

    source: a name under [sources] in fairway.toml. entity: the column that rows and events share. window: "2h", "30d".
    Raises: ValueError for a window that is not a duration.
    """
    length = parse_duration(window)

    def mark(function: F) -> F:
        name: str = function.__name__
        function.__fairway_view__ = ViewSpec(name, source, entity, length, function)  # type: ignore[attr-defined]
        return function

    return mark


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
