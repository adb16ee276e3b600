"""The times at which everything settles while a virtual clock is moved: the same for the processes and a backtest."""

from collections.abc import Iterator
from datetime import datetime, timedelta

GRID = timedelta(hours=1)


def grid(after: datetime, until: datetime) -> Iterator[datetime]:
    """The full hours in (after, until].

    >>> [at.hour for at in grid(datetime(2014, 5, 1, 7), datetime(2014, 5, 1, 9, 30))]
    [8, 9]
    """
    at = after.replace(minute=0, second=0, microsecond=0) + GRID
    while at <= until:
        yield at
        at += GRID
