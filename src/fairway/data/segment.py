"""The file format of one piece of the log, shared by the gateway that writes it and the fold that reads it.

A segment is one SQLite file. Its records are MessagePack arrays: predictions (one record per request), labels, events
of source tables, and the columns that the inputs of a contract have, so that a segment can be read without anything
else. Light: the gateway imports this, so neither polars nor SQLAlchemy may be imported here.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import apsw
import msgspec

from fairway import fingerprint
from fairway.contract.columns import Column
from fairway.errors import SegmentBroken

FORMAT = 1
LOOKED_UP = "lookup"  # role of a note about a column that no request carries
OPEN, SEALED, BROKEN = "open", "sealed", "broken"  # folders under .fairway/spool

_TABLES = """
create table meta(key text primary key, value) without rowid;
create table record(id integer primary key, kind integer not null, data blob not null);
"""


class ColumnNote(msgspec.Struct, array_like=True, frozen=True):
    """What the log must know of a column to write it: its type and how plainly it may be kept."""

    name: str
    type: str
    role: str
    log: str


class Columns(msgspec.Struct, array_like=True, frozen=True):
    """Columns of a contract's requests (owner "") or of a source table (owner = its name)."""

    contract: str
    owner: str
    columns: list[ColumnNote]


class VersionAnswers(msgspec.Struct, array_like=True):
    """What one version said to some rows of a request. `rows`, `served`, `status`, … have one item per such row."""

    version: int
    rows: list[int]
    served: list[bool]
    status: list[str]  # ok | model_error | timeout | shed
    outputs: list[Any]  # float, list of floats, or None
    errors: list[str | None]
    latency_ms: float


class Predictions(msgspec.Struct, array_like=True):
    """One request: lists have one item per row. Times are microseconds since 1970 UTC."""

    endpoint: str
    model: str
    gateway: str
    contract: str
    request_id: str
    body: str
    received_us: int
    rollout: str | None
    share_epoch: int
    ids: list[str]
    at_us: list[int]
    entities: list[str | None]
    units: list[str]
    arms: list[int]
    propensities: list[float]
    flags: list[list[str]]
    columns: dict[str, list[Any]]
    looked_up: list[dict[str, Any] | None]
    answers: list[VersionAnswers]


class LabelRow(msgspec.Struct, array_like=True, frozen=True):
    prediction: str
    name: str
    event: str
    value: Any
    at_us: int


class Labels(msgspec.Struct, array_like=True):
    """Feedback rows that were accepted together."""

    received_us: int
    rows: list[LabelRow]


class EventRow(msgspec.Struct, array_like=True, frozen=True):
    """known_us: when the event counts as known; None: when it was received."""

    key: str
    at_us: int
    data: dict[str, Any]
    known_us: int | None = None


class Events(msgspec.Struct, array_like=True):
    """Rows of a source table that arrived together."""

    source: str
    contract: str
    received_us: int
    rows: list[EventRow]


Record: TypeAlias = Columns | Predictions | Labels | Events
_KINDS: tuple[type[Any], ...] = (Columns, Predictions, Labels, Events)
_encoder = msgspec.msgpack.Encoder()
_decoders = tuple(msgspec.msgpack.Decoder(kind) for kind in _KINDS)


def encode(record: Record) -> tuple[int, bytes]:
    """(kind, bytes) as stored."""
    return _KINDS.index(type(record)), _encoder.encode(record)


def column_notes(columns: Sequence[Column]) -> list[ColumnNote]:
    return [ColumnNote(c.name, c.type, c.role, c.log) for c in columns]


def lookup_notes(columns: Sequence[Column]) -> list[ColumnNote]:
    """Of looked-up columns that may not be kept plainly; no request carries them."""
    return [ColumnNote(c.name, c.type, LOOKED_UP, c.log) for c in columns if c.known == "lookup" and c.log != "plain"]


def hashed(value: Any) -> str | None:
    """How a column with `log = "hash"` is kept: equal values stay equal, nothing else is told."""
    return None if value is None else "h-" + fingerprint.of_bytes(str(value).encode())[:24]


def kept_key(value: Any, column: str, columns: Sequence[ColumnNote]) -> str:
    """The key of an event as it may be kept: hashed where its column is not plain, so that it is still told apart."""
    private = any(c.name == column and c.log != "plain" for c in columns)
    return str(hashed(value)) if private else str(value)


def kept_event(row: EventRow, columns: Sequence[ColumnNote], *, plain: Collection[str]) -> EventRow:
    """An event as it may be kept for look-ups: as its log is, but for the columns in `plain`, by which it is found."""
    data = dict(row.data)
    for c in columns:
        if c.log != "plain" and c.name in data and c.name not in plain:
            data[c.name] = hashed(data[c.name]) if c.log == "hash" else None
    return EventRow(row.key, row.at_us, data, row.known_us)


@dataclass(frozen=True)
class Segment:
    """A sealed segment, read. `opened_us`: machine time of its start, for an order among segments."""

    name: str
    path: Path
    opened_us: int
    records: list[Record]


def create(path: Path, *, gateway: str, opened_us: int) -> apsw.Connection:
    """A new, empty segment, open for writing by its gateway.

    WAL with synchronous=NORMAL: a committed record survives the death of the process at any moment (not the loss of
    the machine's power). Checkpoints happen only when the segment is closed, so that no answer waits for one.
    """
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", 1)
    connection.pragma("wal_autocheckpoint", 0)
    with connection:
        connection.execute(_TABLES)
        connection.execute(
            "insert into meta values('format', ?), ('gateway', ?), ('opened_us', ?)", (FORMAT, gateway, opened_us)
        )
    return connection


def close(connection: apsw.Connection) -> None:
    """Fold the write-ahead log into the file and close it: afterwards the file stands alone."""
    connection.pragma("wal_checkpoint(truncate)")
    connection.pragma("journal_mode", "delete")
    connection.close()


def recover(path: Path) -> int:
    """Make the segment of a dead gateway stand alone; how many records it has (0 also when it was never begun)."""
    connection = apsw.Connection(str(path))
    try:
        if not connection.execute("select 1 from sqlite_master where name = 'record'").fetchall():
            return 0
        count = int(connection.execute("select count(*) from record").get)
        connection.pragma("wal_checkpoint(truncate)")
        connection.pragma("journal_mode", "delete")
        return count
    finally:
        connection.close()


def read(path: Path) -> Segment:
    """All records in the order of their commit. Raises: SegmentBroken when the file is damaged or of a newer format."""
    try:
        connection = apsw.Connection(f"file:{path}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        try:
            meta: dict[Any, Any] = dict(connection.execute("select key, value from meta").fetchall())  # type: ignore[arg-type]
            if meta["format"] > FORMAT:
                raise SegmentBroken(f"log segment {path.name} has format {meta['format']}; this fairway reads {FORMAT}")
            rows: list[Any] = connection.execute("select kind, data from record order by id").fetchall()
        finally:
            connection.close()
        records = [_decoders[kind].decode(data) for kind, data in rows]
    except (apsw.Error, msgspec.DecodeError, KeyError, IndexError) as exc:
        raise SegmentBroken(f"log segment {path.name} can't be read: {exc}") from exc
    return Segment(path.name.removesuffix(".seg"), path, int(meta["opened_us"]), records)
