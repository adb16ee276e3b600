"""Online state of source tables: recent events by key, for look-ups at prediction time. One SQLite file, all gateways.

An event is visible at `at` when it happened in (at - window, at] and was received by `at`; the same rule holds in
training, so a look-up repeats there exactly.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import msgspec

from fairway.data.segment import EventRow

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()
MAX_EVENTS = 100_000  # of one look-up


class OnlineStore:
    """Safe for several processes; within one, belongs to one thread."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = apsw.Connection(str(path))
        self._db.set_busy_timeout(5000)
        self._db.pragma("journal_mode", "wal")
        self._db.pragma("synchronous", 1)
        self._db.execute(
            "create table if not exists event(source text, key text, at_us integer, known_us integer, data text,"
            " primary key(source, key)) without rowid"
        )
        self._indexed: set[tuple[str, str]] = set()

    def put(self, source: str, rows: Sequence[EventRow]) -> int:
        """Keep events whose key is not known yet; returns how many were new."""
        before = self._db.total_changes()
        values = [(source, row.key, row.at_us, row.known_us, _encoder.encode(row.data).decode()) for row in rows]
        self._db.execute("begin immediate")
        try:
            self._db.executemany("insert or ignore into event values(?, ?, ?, ?, ?)", values)
        except BaseException:
            self._db.execute("rollback")
            raise
        self._db.execute("commit")
        return self._db.total_changes() - before

    def window(self, source: str, column: str, value: Any, *, at_us: int, window_us: int) -> list[dict[str, Any]]:
        """Events of the entity that are visible at `at_us`, in order of time; each with its `_known_at` (us)."""
        self._index(source, column)
        rows = self._db.execute(
            f"select data, known_us from event where source = {_text(source)} and {_path(column)} = ?"
            " and at_us > ? and at_us <= ? and known_us <= ? order by at_us, key limit ?",
            (value, at_us - window_us, at_us, at_us, MAX_EVENTS),
        ).fetchall()
        return [{**_decoder.decode(str(data)), "_known_at": known} for data, known in rows]

    def prune(self, source: str, *, before_us: int) -> int:
        """Forget events that no window reaches any more."""
        changes = self._db.total_changes()
        self._db.execute("delete from event where source = ? and at_us < ?", (source, before_us))
        return self._db.total_changes() - changes

    def _index(self, source: str, column: str) -> None:
        if (source, column) not in self._indexed:
            name = "event_" + hashlib.sha256(f"{source}\x1f{column}".encode()).hexdigest()[:16]
            self._db.execute(
                f"create index if not exists {name} on event({_path(column)}, at_us) where source = {_text(source)}"
            )
            self._indexed.add((source, column))

    def close(self) -> None:
        self._db.close()


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _path(column: str) -> str:
    quoted = column.replace("\\", "\\\\").replace('"', '\\"')
    path = _text(f'$."{quoted}"')
    return f"json_extract(data, {path})"
