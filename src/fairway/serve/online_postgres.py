"""Online state in Postgres, for a team: several machines' gateways share it. Needs the extra `postgres`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, LifoQueue
from typing import Any

from fairway._optional import need
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

CONNECTIONS = 8
STATEMENT_MS = 5_000
_BATCH = 2_000
_LOCK = 0x66616972  # of this schema's making; sources have locks of their own

_TABLES = """
create table if not exists fairway_online_slot(id bigint generated always as identity primary key,
    workspace text not null, source text not null, field text not null, unique(workspace, source, field));
create table if not exists fairway_online_event(id bigint generated always as identity primary key,
    workspace text not null, source text not null, key text not null, at_us bigint not null, known_us bigint not null,
    history boolean not null, data bytea not null, unique(workspace, source, key));
create table if not exists fairway_online_place(slot bigint not null, entity text not null, at_us bigint not null,
    event bigint not null references fairway_online_event on delete cascade,
    primary key(slot, entity, at_us, event));
create index if not exists fairway_online_place_event on fairway_online_place(event);
"""
_READ = """
with ask as (select * from unnest(%s::int[], %s::bigint[], %s::text[], %s::bigint[], %s::bigint[], %s::boolean[])
    as a(n, slot, entity, since_us, at_us, last))
select a.n, e.key, e.at_us, e.known_us, e.data from ask a cross join lateral (
    select e.* from fairway_online_place p join fairway_online_event e on e.id = p.event
    where p.slot = a.slot and p.entity = a.entity and p.at_us > a.since_us and p.at_us <= a.at_us
        and e.known_us <= a.at_us order by p.at_us desc
    fetch first (case when a.last then 1 else %s end) rows with ties) e
"""
_PUT = """
insert into fairway_online_event as e(workspace, source, key, at_us, known_us, history, data)
select %s, %s, * from unnest(%s::text[], %s::bigint[], %s::bigint[], %s::boolean[], %s::bytea[])
on conflict (workspace, source, key) do update set at_us = excluded.at_us, known_us = excluded.known_us,
    history = excluded.history, data = excluded.data where e.history and not excluded.history
returning id, key, xmax = 0
"""
_PLACE = """
insert into fairway_online_place select * from unnest(%s::bigint[], %s::text[], %s::bigint[], %s::bigint[])
on conflict do nothing
"""
_PRUNE = """
delete from fairway_online_place p where slot = %(slot)s and at_us <= %(horizon)s - %(window)s and (
    at_us <= %(horizon)s - %(latest)s or exists (
        select 1 from fairway_online_place q join fairway_online_event e on e.id = q.event where q.slot = p.slot
        and q.entity = p.entity and q.at_us > p.at_us and q.at_us <= %(horizon)s and e.known_us <= %(horizon)s))
"""
_FORGET = """
delete from fairway_online_event e where workspace = %s and source = any(%s) and at_us <= %s
    and not exists (select 1 from fairway_online_place p where p.event = e.id)
"""


class PostgresOnline:
    """`OnlineStore` in tables of their own (fairway_online_*). Safe for several threads: a call borrows a connection.

    A statement that takes longer than 5 s is ended by the server; a server that no longer answers at all is told by
    the caller's deadline, and after about 15 s by TCP.
    """

    local = False

    def __init__(self, url: str, *, workspace: str = "default") -> None:
        self._psycopg = need("psycopg", extra="postgres")
        self._url = "postgresql://" + url.partition("://")[2]
        self._workspace = workspace
        self._idle: LifoQueue[Any] = LifoQueue()
        self._slots: dict[Slot, int] = {}
        self._closed = False
        with self._transaction() as connection:
            connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            connection.execute(_TABLES)

    def watch(self, slots: Sequence[Slot]) -> None:
        if all(slot in self._slots for slot in slots):
            return
        with self._transaction() as connection:
            for slot in sorted(set(slots)):
                self._lock(connection, slot.source)
                found = connection.execute(
                    "insert into fairway_online_slot(workspace, source, field) values(%s, %s, %s)"
                    " on conflict do nothing returning id",
                    (self._workspace, *slot),
                ).fetchone()
                if found is not None:
                    self._place_all(connection, slot, found[0])
            known = self._read_slots(connection)
        self._slots = known

    def _place_all(self, connection: Any, slot: Slot, number: int) -> None:
        events = connection.execute(
            "select id, at_us, data from fairway_online_event where workspace = %s and source = %s",
            (self._workspace, slot.source),
        ).fetchall()
        found = [(number, unpack(data).get(slot.column), at, i) for i, at, data in events]
        self._place(connection, [(n, _clean(entity_text(e)), at, i) for n, e, at, i in found if e is not None])

    def put(self, source: str, rows: Sequence[EventRow], *, history: bool = False) -> int:
        once = {_clean(row.key): row for row in reversed(rows)}  # of a key that comes twice at once, the first counts
        events, new = list(once.items()), 0
        for start in range(0, len(events), _BATCH):
            with self._transaction() as connection:
                new += self._put(connection, source, events[start : start + _BATCH], history)
        return new

    def _put(self, connection: Any, source: str, rows: Sequence[tuple[str, EventRow]], history: bool) -> int:
        self._lock(connection, source)
        columns = zip(*((key, r.at_us, known_of(r), history, pack(r.data)) for key, r in rows), strict=True)
        kept = connection.execute(_PUT, (self._workspace, source, *map(list, columns))).fetchall()
        replaced = [i for i, _, new in kept if not new]
        if replaced:
            connection.execute("delete from fairway_online_place where event = any(%s)", (replaced,))
        by_key = dict(rows)
        slots = [(n, slot.column) for slot, n in self._read_slots(connection).items() if slot.source == source]
        found = [
            (slot, entity_of(by_key[key], column), by_key[key].at_us, i) for i, key, _ in kept for slot, column in slots
        ]
        self._place(connection, [(n, _clean(e), at, i) for n, e, at, i in found if e is not None])
        return sum(bool(new) for _, _, new in kept)

    def read(self, asks: Sequence[Ask]) -> list[list[Seen]]:
        if not all(ask.slot in self._slots for ask in asks):
            self.watch([ask.slot for ask in asks])
        rows = ((n, self._slots[a.slot], _clean(a.entity), a.since_us, a.at_us, a.last) for n, a in enumerate(asks))
        columns = zip(*rows, strict=True)
        with self._connection() as connection:
            events = connection.execute(_READ, (*map(list, columns), MAX_EVENTS + 1), prepare=True).fetchall()
        found: list[list[Seen]] = [[] for _ in asks]
        for n, *event in events:
            found[n].append(Seen(*event))
        for ask, seen in zip(asks, found, strict=True):
            if len(seen) > MAX_EVENTS:
                raise too_many(ask)
        return found

    def prune(self, needs: Sequence[Need], *, horizon_us: int) -> int:
        with self._transaction() as connection:
            self._slots = self._read_slots(connection)
            for need_ in sorted(needs):
                if need_.slot in self._slots:
                    self._lock(connection, need_.slot.source)
                    connection.execute(_PRUNE, {
                        "slot": self._slots[need_.slot], "horizon": horizon_us, "window": need_.window_us,
                        "latest": need_.latest_us,
                    })  # fmt: skip
            sources = sorted({n.slot.source for n in needs})
            return int(connection.execute(_FORGET, (self._workspace, sources, horizon_us)).rowcount)

    def forget(self, slot: Slot, entity: str) -> int:
        with self._transaction() as connection:
            self._lock(connection, slot.source)
            events = connection.execute(
                "select id, data from fairway_online_event where workspace = %s and source = %s",
                (self._workspace, slot.source),
            ).fetchall()
            gone = [number for number, data in events if is_about(data, slot.column, entity)]
            connection.execute("delete from fairway_online_event where id = any(%s)", (gone,))  # its places with it
        return len(gone)

    def close(self) -> None:
        self._closed = True
        while True:
            try:
                self._idle.get_nowait().close()
            except Empty:
                return

    def _lock(self, connection: Any, source: str) -> None:
        """One writer per source: of two that put at once, the second must see the first one's slots and events."""
        connection.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, f"{self._workspace}\x1f{source}"))

    def _read_slots(self, connection: Any) -> dict[Slot, int]:
        rows = connection.execute(
            "select source, field, id from fairway_online_slot where workspace = %s", (self._workspace,)
        ).fetchall()
        return {Slot(source, field): int(number) for source, field, number in rows}

    def _place(self, connection: Any, places: Sequence[tuple[Any, ...]]) -> None:
        if places:
            connection.execute(_PLACE, tuple(map(list, zip(*places, strict=True))))

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        with self._connection() as connection, connection.transaction():
            yield connection

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """Raises: OnlineFailed. A connection that failed is not used again."""
        connection = None
        try:
            connection = self._take()
            yield connection
        except self._psycopg.Error as exc:
            if connection is not None:
                connection.close()
            said = str(exc).strip() or type(exc).__name__
            raise OnlineFailed(f"the online state in Postgres failed: {said}") from exc
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if self._closed or self._idle.qsize() >= CONNECTIONS:
            connection.close()
        else:
            self._idle.put(connection)

    def _take(self) -> Any:
        while True:
            try:
                connection = self._idle.get_nowait()
            except Empty:
                return self._psycopg.connect(
                    self._url, autocommit=True, connect_timeout=2, options=f"-c statement_timeout={STATEMENT_MS}",
                    keepalives_idle=5, keepalives_interval=3, keepalives_count=3, tcp_user_timeout=15_000,
                )  # fmt: skip
            if not connection.closed:
                return connection


def _clean(text: str) -> str:
    """Postgres keeps no NUL in text."""
    return text.replace("\0", "\ue000") if "\0" in text else text
