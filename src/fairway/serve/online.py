"""Online state of source tables: recent events by key, for look-ups at prediction time.

An event is visible at `at` when it happened in (at - window, at] and was known by `at`; the same rule holds in
training, so a look-up repeats there exactly. What is kept is events, ordered by entity and time: every answer is exact
for its own `at`, and whatever a view computes from them is computed by the code that training uses.

Three backends speak one protocol, chosen by FAIRWAY_ONLINE: a SQLite file (the default), Postgres, Redis.
`fairway.testing.OnlineSuite` is what each of them must pass.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from fairway.data.segment import EventRow
from fairway.errors import FairwayError, UsageError

VARIABLE = "FAIRWAY_ONLINE"
MAX_EVENTS = 100_000  # of one look-up; more is refused: a window so full belongs into an aggregate of its own

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


class OnlineFailed(FairwayError):
    """The online state could not be read or written: its server is away, or the look-up is too large."""

    code = "lookup_failed"


class Slot(NamedTuple):
    """What events are looked up by: a column of a source."""

    source: str
    column: str


class Ask(NamedTuple):
    """Events of `entity` (as text) that happened in (since_us, at_us] and were known by at_us.

    last: only those of the newest moment among them, usually one.
    """

    slot: Slot
    entity: str
    since_us: int
    at_us: int
    last: bool


class Seen(NamedTuple):
    """One event. data: its row, packed; see `unpack`."""

    key: str
    at_us: int
    known_us: int
    data: bytes


class Need(NamedTuple):
    """How far back a slot is looked up: by views that see a window, and by views of the last event (0: none)."""

    slot: Slot
    window_us: int
    latest_us: int


class OnlineStore(Protocol):
    """Safe for several processes. `local`: answers at once and from one thread only; others from several threads.

    Every method may raise OnlineFailed. What has returned is kept when this process is killed.
    """

    local: bool

    def watch(self, slots: Sequence[Slot]) -> None:
        """Make look-ups by these slots possible, also for events that are there already. Safe to repeat."""
        ...

    def put(self, source: str, rows: Sequence[EventRow], *, history: bool = False) -> int:
        """Keep events, one per key, the first to come; returns how many were new. known_us must be set in each.

        history: from the source's history, which only fills gaps: an event that is sent itself takes its place.
        """
        ...

    def read(self, asks: Sequence[Ask]) -> list[list[Seen]]:
        """The events of each ask, in no order."""
        ...

    def prune(self, needs: Sequence[Need], *, horizon_us: int) -> int:
        """Forget events that no look-up at or after `horizon_us` can reach; returns how many."""
        ...

    def forget(self, slot: Slot, entity: str) -> int:
        """Delete every event whose column says this entity, whether it is looked up by that column or not; how many."""
        ...

    def close(self) -> None: ...


def open_online(place: str | Path, *, workspace: str = "default") -> OnlineStore:
    """The backend of a path (SQLite), postgresql:// or redis:// URL. Raises: UsageError, OnlineFailed, MissingExtra."""
    text = str(place)
    kind = text.partition("://")[0].partition("+")[0] if "://" in text else ""
    if not kind:
        from fairway.serve.online_sqlite import SqliteOnline

        return SqliteOnline(Path(place))
    if kind in ("postgresql", "postgres"):
        from fairway.serve.online_postgres import PostgresOnline

        return PostgresOnline(text, workspace=workspace)
    if kind in ("redis", "rediss"):
        from fairway.serve.online_redis import RedisOnline

        return RedisOnline(text, workspace=workspace)
    raise UsageError(
        f"{VARIABLE} is a URL of {kind!r}; the online state is kept in redis://HOST:6379/0, postgresql://HOST/NAME, "
        "or, when it is not set, in .fairway/online.db",
        field=VARIABLE,
    )


def online_place(file: Path) -> str:
    """Where the online state is: at FAIRWAY_ONLINE where that is set, else in this file.

    Read by each process for itself: a URL may hold a password, which no command line should.
    """
    return os.environ.get(VARIABLE) or str(file)


def pack(data: dict[str, Any]) -> bytes:
    return _encoder.encode(data)


def unpack(data: bytes) -> dict[str, Any]:
    found: dict[str, Any] = _decoder.decode(data)
    return found


def entity_text(value: Any) -> str:
    """An entity as it is looked up by: numbers and text that read the same are the same, as where training joins.

    >>> entity_text(7), entity_text("7"), entity_text(True)
    ('7', '7', 'true')
    """
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else str(value)


def entity_of(row: EventRow, column: str) -> str | None:
    value = row.data.get(column)
    return None if value is None else entity_text(value)


def is_about(data: bytes, column: str, entity: str) -> bool:
    """Whether a packed row's column says this entity."""
    value = unpack(data).get(column)
    return value is not None and entity_text(value) == entity


def known_of(row: EventRow) -> int:
    return row.at_us if row.known_us is None else row.known_us


def too_many(ask: Ask) -> OnlineFailed:
    return OnlineFailed(
        f"{ask.slot.column} {ask.entity[:40]!r} has more than {MAX_EVENTS:,} events of {ask.slot.source!r} in one "
        "window; a shorter window or an aggregated source is needed"
    )
