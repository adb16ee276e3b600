"""Online state in one SQLite file, for all gateways of a machine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from fairway.data.segment import EventRow
from fairway.serve.online import (
    MAX_EVENTS,
    Ask,
    Need,
    OnlineFailed,
    Seen,
    Slot,
    entity_of,
    entity_text,
    is_about,
    known_of,
    pack,
    too_many,
    unpack,
)

FORMAT = 2
_BATCH = 2_000  # events of one transaction: another gateway must not wait long for its turn

_TABLES = """
create table if not exists slot(id integer primary key, source text not null, field text not null,
    unique(source, field));
create table if not exists event(id integer primary key, source text not null, key text not null,
    at_us integer not null, known_us integer not null, history integer not null, data blob not null,
    unique(source, key));
create table if not exists place(slot integer not null, entity text not null, at_us integer not null,
    event integer not null, primary key(slot, entity, at_us, event)) without rowid;
create index if not exists place_event on place(event);
create table if not exists newest(slot integer not null, entity text not null, at_us integer not null,
    known_us integer not null, key text not null, data blob not null, primary key(slot, entity)) without rowid;
"""
# The last event by entity, packed: one seek where it was known by `at` and no other has its moment (key '' otherwise).
_NEWEST = "select key, at_us, known_us, data from newest where slot = ? and entity = ?"
_NEWER = """
insert into newest values(?, ?, ?, ?, ?, ?) on conflict do update set
    key = case when excluded.at_us = at_us and excluded.key <> key then '' else excluded.key end,
    known_us = excluded.known_us, data = excluded.data, at_us = excluded.at_us where excluded.at_us >= at_us
"""
_STALE = """
delete from newest where slot = ? and not exists (
    select 1 from place p where p.slot = newest.slot and p.entity = newest.entity and p.at_us = newest.at_us)
"""
_RENEW = """
insert or replace into newest select p.slot, p.entity, p.at_us, e.known_us,
    case when count(*) > 1 then '' else e.key end, e.data
    from place p join event e on e.id = p.event where p.slot = ? and p.entity = ? and p.at_us = (
        select max(at_us) from place where slot = p.slot and entity = p.entity) group by p.slot
"""
_READ = """
select e.key, p.at_us, e.known_us, e.data from place p cross join event e on e.id = p.event
where p.slot = ? and p.entity = ? and p.at_us > ? and p.at_us <= ? and e.known_us <= ? order by p.at_us desc
"""
_PRUNE = """
delete from place as p where slot = :slot and at_us <= :horizon - :window and (at_us <= :horizon - :latest or exists (
    select 1 from place q cross join event e on e.id = q.event where q.slot = p.slot and q.entity = p.entity
    and q.at_us > p.at_us and q.at_us <= :horizon and e.known_us <= :horizon))
"""
_FORGET = """
delete from event where source = ? and at_us <= ? and not exists (select 1 from place where place.event = event.id)
"""


class SqliteOnline:
    """`OnlineStore` in a file. Within a process it belongs to one thread."""

    local = True

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = apsw.Connection(str(path))
            self._db.set_busy_timeout(5000)
            self._db.pragma("journal_mode", "wal")
            self._db.pragma("synchronous", 1)
            with self._transaction():
                if self._db.pragma("user_version") != FORMAT:
                    # An older layout: what was in it comes again from the sources' history and the log.
                    self._db.execute("drop table if exists event")
                    self._db.execute(_TABLES)
                    self._db.pragma("user_version", FORMAT)
        except apsw.Error as exc:
            raise OnlineFailed(f"the online state {path} can't be opened: {exc}") from exc
        self._slots: dict[Slot, int] = {}

    def watch(self, slots: Sequence[Slot]) -> None:
        if all(slot in self._slots for slot in slots):
            return
        with self._transaction():
            found = self._read_slots()
            for slot in slots:
                if slot not in found:
                    self._db.execute("insert into slot(source, field) values(?, ?)", slot)
                    number = self._db.last_insert_rowid()
                    events = self._db.execute("select id, at_us, data from event where source = ?", (slot.source,))
                    for i, at_us, data in events.fetchall():
                        entity = unpack(bytes(data)).get(slot.column)  # type: ignore[arg-type]
                        if entity is not None:
                            self._place(number, entity_text(entity), at_us, i)
                    entities = self._db.execute("select distinct entity from place where slot = ?", (number,))
                    for (entity,) in entities.fetchall():
                        self._db.execute(_RENEW, (number, entity))
            self._slots = self._read_slots()

    def put(self, source: str, rows: Sequence[EventRow], *, history: bool = False) -> int:
        new = 0
        for start in range(0, len(rows), _BATCH):
            with self._transaction():
                slots = [(number, slot.column) for slot, number in self._read_slots().items() if slot.source == source]
                for row in rows[start : start + _BATCH]:
                    new += self._keep(source, row, history, slots)
        return new

    def _keep(self, source: str, row: EventRow, history: bool, slots: Sequence[tuple[int, str]]) -> bool:
        execute = self._db.execute
        values = (source, row.key, row.at_us, known_of(row), history, pack(row.data))
        execute("insert into event(source, key, at_us, known_us, history, data) values(?,?,?,?,?,?)"
                " on conflict do nothing", values)  # fmt: skip
        new = self._db.changes() == 1
        if new:
            number = self._db.last_insert_rowid()
        elif history:
            return False
        else:
            found = execute("select id from event where source = ? and key = ? and history", (source, row.key)).get
            if found is None:
                return False
            number = found
            moved = execute("delete from place where event = ? returning slot, entity", (number,)).fetchall()
            execute("update event set at_us = ?, known_us = ?, history = ?, data = ? where id = ?",
                    (*values[2:], number))  # fmt: skip
            for place in moved:
                execute("delete from newest where slot = ? and entity = ?", place)
                execute(_RENEW, place)
        for slot, column in slots:
            if (entity := entity_of(row, column)) is not None:
                self._place(slot, entity, row.at_us, number)
                execute(_NEWER, (slot, entity, row.at_us, values[3], row.key, values[5]))
        return new

    def read(self, asks: Sequence[Ask]) -> list[list[Seen]]:
        try:
            return [self._look(ask) for ask in asks]
        except apsw.Error as exc:
            raise OnlineFailed(f"the online state can't be read: {exc}") from exc

    def _look(self, ask: Ask) -> list[Seen]:
        slot = self._slots.get(ask.slot)
        if slot is None:
            self.watch([ask.slot])
            slot = self._slots[ask.slot]
        if ask.last:
            newest: Any = self._db.execute(_NEWEST, (slot, ask.entity)).fetchone()
            if newest is None or newest[1] <= ask.since_us:
                return []
            if newest[0] and newest[1] <= ask.at_us and newest[2] <= ask.at_us:
                return [Seen(*newest)]
        found: list[Any] = []
        cursor = self._db.execute(_READ, (slot, ask.entity, ask.since_us, ask.at_us, ask.at_us))
        for row in cursor:
            if ask.last and found and row[1] != found[0][1]:
                cursor.close()
                break
            found.append(row)
            if len(found) > MAX_EVENTS:
                cursor.close()
                raise too_many(ask)
        return [Seen(*row) for row in found]

    def prune(self, needs: Sequence[Need], *, horizon_us: int) -> int:
        with self._transaction():
            self._slots = self._read_slots()
            for need in needs:
                if (slot := self._slots.get(need.slot)) is not None:
                    self._db.execute(_PRUNE, {
                        "slot": slot, "horizon": horizon_us, "window": need.window_us, "latest": need.latest_us,
                    })  # fmt: skip
                    self._db.execute(_STALE, (slot,))
            before = self._db.total_changes()
            for source in {need.slot.source for need in needs}:
                self._db.execute(_FORGET, (source, horizon_us))
            return self._db.total_changes() - before

    def forget(self, slot: Slot, entity: str) -> int:
        execute = self._db.execute
        with self._transaction():
            execute("pragma secure_delete = 1")  # what is deleted is overwritten, not only forgotten
            events: Any = execute("select id, data from event where source = ?", (slot.source,)).fetchall()
            gone = [number for number, data in events if is_about(data, slot.column, entity)]
            for number in gone:
                places = execute("delete from place where event = ? returning slot, entity", (number,)).fetchall()
                execute("delete from event where id = ?", (number,))
                for place in places:
                    execute("delete from newest where slot = ? and entity = ?", place)
                    execute(_RENEW, place)
        return len(gone)

    def close(self) -> None:
        self._db.close()

    def _read_slots(self) -> dict[Slot, int]:
        rows: list[Any] = self._db.execute("select source, field, id from slot").fetchall()
        return {Slot(source, field): number for source, field, number in rows}

    def _place(self, slot: int, entity: str, at_us: Any, event: Any) -> None:
        self._db.execute("insert or ignore into place values(?, ?, ?, ?)", (slot, entity, at_us, event))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Raises: OnlineFailed; nothing of it is kept then."""
        try:
            self._db.execute("begin immediate")
            try:
                yield
            except BaseException:
                self._db.execute("rollback")
                raise
            self._db.execute("commit")
        except apsw.Error as exc:
            raise OnlineFailed(f"the online state can't be written: {exc}") from exc
