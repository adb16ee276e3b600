"""`fairway admin move`: a whole workspace with its history into another store (and other blobs), and back.

    1 close    the old store is marked "moving": from now on nobody writes to it, on any machine
    2 blobs    each is copied and read back against its hash, before any row that names it
    3 rows     table by table in the order of keys; each piece commits together with how far it has come
    4 compare  rows and hashes of every table, here and there
    5 open     the new store is opened, then the old one marked "moved"

A kill at any point leaves a store that is closed and a destination that knows how far it is: the same command goes on
there. `cancel` opens the old store again, as long as the new one was never opened. Nothing is deleted at the old place.
"""

import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.errors import StoreError, TamperFound, UsageError
from fairway.store import audit, closed, engine, schema, transfer
from fairway.store.base import Store
from fairway.store.blobs import Blobs, borrowed, changed, missing
from fairway.store.gateways import LOCK, live_gateways, try_lock
from fairway.store.transfer import PROGRESS
from fairway.store.trouble import explain
from fairway.store.workspace import BLOBS_KEY, Workspace, embedded_blobs_url, embedded_store_url

HERE = "embedded"  # as a destination: the workspace's own folder
IDENTITY, PLACES = "identity", "blob_places"  # of table meta: which workspace it is, and where it has put blobs
_PAGE = 200  # blobs between two notes of how far a move is
_THREADS = 8

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Move:
    """What is moved, or was. tables: rows by table. blobs: None when they stay where they are."""

    workspace: str
    from_store: str
    to_store: str
    from_blobs: str
    to_blobs: str | None
    tables: dict[str, int]
    blobs: int
    size_bytes: int
    state: str  # fresh | resumes | done
    seconds: float = 0.0
    unfolded: int = 0  # segments of this machine's spool, which go on to the new store

    @property
    def rows(self) -> int:
        return sum(self.tables.values())

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {**asdict(self), "rows": self.rows}


class Mover:
    """One move of a workspace, from where the environment says it is to `to` and `blobs`.

    to: a store's URL, or HERE. blobs: s3://…, an absolute folder, HERE, or None to leave them.
    """

    def __init__(self, workspace: Workspace, *, to: str, blobs: str | None, say: Say = lambda text: None) -> None:
        """Raises: UsageError when they are the same place."""
        self.workspace, self.name, self._say = workspace, workspace.name, say
        self.to_url = embedded_store_url(workspace.root) if to == HERE else to
        self.source, self.from_blobs = workspace.store, workspace.blobs
        wanted = embedded_blobs_url(workspace.root) if blobs == HERE else blobs
        self.to_blobs: Blobs = self.from_blobs if wanted is None else workspace.blobs_at(wanted)
        self.moves_blobs = self.to_blobs.where != self.from_blobs.where
        self._blobs_url = workspace.blobs_url if wanted is None else wanted
        if engine.parse_url(self.to_url) == engine.parse_url(workspace.store_url):
            raise UsageError(
                f"the workspace is in {closed.shown(self.source.name)} already; name another store", field="to"
            )

    # -- what would happen -------------------------------------------------------------------------------------------

    def plan(self) -> Move:
        """Look, and change nothing. Raises: UsageError, StoreMoved, StoreError."""
        self._nobody_serves()
        state = "fresh"
        if _has_tables(self.to_url):
            with Store(self.to_url, workspace=self.name) as destination:
                state = self._standing(destination)
        with self.source.read() as tx:
            tables = {t.name: transfer.count(tx, t, self.name) for t in transfer.tables()}
        entries = [e for page in self.from_blobs.pages() for e in page] if self.moves_blobs else []
        return self._report(tables, len(entries), sum(e.size_bytes for e in entries), state)

    def _report(self, tables: dict[str, int], blobs: int, size_bytes: int, state: str, seconds: float = 0.0) -> Move:
        return Move(
            workspace=self.name, from_store=self.source.name, to_store=self._to_name(),
            from_blobs=self.from_blobs.where, to_blobs=self.to_blobs.where if self.moves_blobs else None,
            tables={n: c for n, c in tables.items() if c},
            blobs=blobs, size_bytes=size_bytes, state=state, seconds=round(seconds, 1),
            unfolded=len(list((self.workspace.folder / "spool").glob("*/**/*.seg"))),
        )  # fmt: skip

    def _to_name(self) -> str:
        return _name_of(self.to_url)

    def _standing(self, destination: Store) -> str:
        """fresh | resumes | done. Raises: UsageError when something else is at the destination."""
        with self.source.read() as tx:
            here, identity = closed.mark(tx, self.name), _meta(tx, self.name, IDENTITY)
            places = _meta(tx, self.name, PLACES) or []
        if here is not None and here["state"] != "moving":
            with self.source.read() as tx:
                closed.refuse(tx, self.name, name=self.source.name)
        if here is not None and (here["to"], here["blobs"]) != (self._to_name(), self._told_blobs()):
            blobs = f" with blobs to {here['blobs']}" if here["blobs"] else ""
            raise UsageError(
                f"a move to {closed.shown(here['to'])}{blobs} is under way: repeat that one, or give it up with: "
                "fairway admin move --cancel"
            )
        with destination.read() as tx:
            there, progress = closed.mark(tx, self.name), _meta(tx, self.name, PROGRESS)
            same = identity is not None and _meta(tx, self.name, IDENTITY) == identity
            held = [t.name for t in transfer.tables() if transfer.count(tx, t, self.name)]
        if here is not None and progress is not None and progress["move"] == here["move"]:
            return "resumes" if there is not None else "done"
        started = progress is not None and identity is not None and progress["identity"] == identity
        left = there is not None and (same or started)  # this workspace's own, from before it went on, or given up
        if held and not left:
            what = f"another workspace named {self.name!r} ({', '.join(held[:3])} …)"
            raise UsageError(f"{closed.shown(self._to_name())} holds {what}: choose another database", field="to")
        if self.moves_blobs and self.to_blobs.where not in places and next(self.to_blobs.pages(size=1), None):
            raise UsageError(
                f"{self.to_blobs.where} holds blobs of another workspace named {self.name!r}: choose another prefix",
                field="blobs",
            )
        return "fresh"

    def _nobody_serves(self) -> None:
        live = live_gateways(self.source)
        if live:
            hosts = sorted({row.supervisor.rpartition("-")[0] for row in live})
            raise UsageError(
                f"`fairway serve` runs on this workspace, on {', '.join(hosts)}: stop it first, so that nothing is lost"
            )

    # -- the move ----------------------------------------------------------------------------------------------------

    def run(self, *, actor: str) -> Move:
        """Move everything, or go on with what was interrupted. Safe to kill and to repeat.

        Raises: UsageError, StoreMoved, TamperFound for a damaged blob, StoreError.
        """
        began_s = clock.elapsed()
        with _not_served(self.workspace), Store(self.to_url, workspace=self.name) as destination:
            self._nobody_serves()
            state = self._standing(destination)
            move = self._close(actor)
            if state == "done":
                with destination.read() as tx:
                    done = _meta(tx, self.name, PROGRESS)
                self._leave()
                return self._report(done["rows"], done["blobs"], done["size_bytes"], "done", clock.elapsed() - began_s)
            if state == "fresh":
                self._receive(destination, move)
            blobs, size_bytes = self._copy_blobs(destination)
            for table in transfer.tables():
                self._copy_rows(destination, table)
            sums = {table.name: self._compare(destination, table) for table in transfer.tables()}
            self._open(destination, actor, sums, blobs, size_bytes)
            self._leave()
            rows = {name: found.rows for name, found in sums.items()}
            return self._report(rows, blobs, size_bytes, "done", clock.elapsed() - began_s)

    def _close(self, actor: str) -> str:
        """Nobody writes here any more; the move's own id."""
        with self.source.write(closed_too=True) as tx:
            mark = closed.mark(tx, self.name)
            if mark is not None:
                return str(mark["move"])
            move = secrets.token_hex(16)
            if _meta(tx, self.name, IDENTITY) is None:
                self._set(self.source, tx, IDENTITY, secrets.token_hex(16))
            places = {*(_meta(tx, self.name, PLACES) or []), self.from_blobs.where, self.to_blobs.where}
            self._set(self.source, tx, PLACES, sorted(places))
            to = {"to": self._to_name(), "blobs": self._told_blobs(), "set": self.settings()}
            audit.record(self.source, tx, actor=actor, action="move_started", subject=self.name, **to)
            mark = {"state": "moving", "move": move, "at": clock.iso(clock.machine_now()), "opening": False, **to}
            self._set(self.source, tx, closed.KEY, mark)
            return move

    def _receive(self, destination: Store, move: str) -> None:
        with self.source.read() as tx:
            identity = _meta(tx, self.name, IDENTITY)
        with destination.write(closed_too=True) as tx:
            transfer.clear(tx, self.name)
            self._set(destination, tx, closed.KEY, {"state": "arriving", "from": self.source.name})
            progress = {"move": move, "identity": identity, "tables": {}, "after": "", "blobs": 0, "size_bytes": 0}
            self._set(destination, tx, PROGRESS, progress)

    def _copy_blobs(self, destination: Store) -> tuple[int, int]:
        with destination.read() as tx:
            progress = _meta(tx, self.name, PROGRESS)
        if not self.moves_blobs:
            return 0, 0
        folder = self.workspace.dir("cache") / f"move-{os.getpid()}"
        folder.mkdir(exist_ok=True)
        try:
            with ThreadPoolExecutor(_THREADS) as pool:
                for page in self.from_blobs.pages(size=_PAGE, after=progress["after"]):
                    self._copy_page([entry.digest for entry in page], folder, pool)
                    progress["after"] = page[-1].digest
                    progress["blobs"] += len(page)
                    progress["size_bytes"] += sum(entry.size_bytes for entry in page)
                    with destination.write(closed_too=True) as tx:
                        self._set(destination, tx, PROGRESS, progress)
                    megabytes = progress["size_bytes"] / 1e6
                    self._say(f"blobs   {progress['blobs']:,} copied and read back, {megabytes:,.0f} MB")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return progress["blobs"], progress["size_bytes"]

    def _copy_page(self, digests: list[str], folder: Path, pool: ThreadPoolExecutor) -> None:
        """Raises: TamperFound for a damaged blob at the old place, StoreError of the new one."""
        try:
            with borrowed(self.from_blobs, digests, folder) as paths:
                for digest, found in zip(digests, pool.map(self._copy_blob, digests, paths), strict=True):
                    if found != digest:
                        raise changed(digest, self.from_blobs.where)
        except TamperFound as error:
            raise TamperFound(
                f"{error}. Nothing more is moved. Look with `fairway admin doctor`; to work on here meanwhile: "
                "fairway admin move --cancel"
            ) from error

    def _copy_blob(self, digest: str, path: Path | None) -> str:
        if path is None:
            raise missing(digest, self.from_blobs.where)
        found = self.to_blobs.put_file(path)
        if found == digest:
            self.to_blobs.verify(digest)
        return found

    def _copy_rows(self, destination: Store, table: sa.Table) -> None:
        with destination.read() as tx:
            progress = _meta(tx, self.name, PROGRESS)
        after = progress["tables"].get(table.name)
        if after == "all":
            return
        copied = 0
        try:
            with self.source.read() as tx:
                for rows in transfer.chunks(tx, table, self.name, after=after):
                    progress["tables"][table.name] = transfer.key_of(table, rows[-1])
                    with destination.write(closed_too=True) as there:
                        transfer.insert(there, table, rows)
                        self._set(destination, there, PROGRESS, progress)
                    copied += len(rows)
                    self._say(f"rows    {table.name}: {copied:,} copied")
        except sa.exc.SQLAlchemyError as exc:
            raise StoreError(
                f"rows of {table.name} can't be written to {destination.name}: {exc.__cause__ or exc}"
            ) from exc
        progress["tables"][table.name] = "all"
        with destination.write(closed_too=True) as there:
            self._set(destination, there, PROGRESS, progress)

    def _compare(self, destination: Store, table: sa.Table) -> transfer.Sum:
        self._say(f"compare {table.name}")
        with self.source.read() as tx:
            here = transfer.sum_of(tx, table, self.name)
        with destination.read() as tx:
            there = transfer.sum_of(tx, table, self.name)
        if here == there:
            return here
        with destination.write(closed_too=True) as tx:  # so that a repetition copies it anew
            progress = _meta(tx, self.name, PROGRESS)
            del progress["tables"][table.name]
            where = [table.c.workspace == self.name]
            if table is schema.meta:
                where.append(table.c.key.notin_(transfer.OWN_KEYS))
            tx.execute(sa.delete(table).where(*where))
            self._set(destination, tx, PROGRESS, progress)
        raise StoreError(
            f"table {table.name} is not the same there: {here.rows:,} rows here, {there.rows:,} there, or other "
            "values. Nothing was opened; repeat the command to copy it anew"
        )

    def _open(self, destination: Store, actor: str, sums: dict[str, transfer.Sum], blobs: int, size_bytes: int) -> None:
        with self.source.write(closed_too=True) as tx:  # from here on, only the destination knows whether it is open
            self._set(self.source, tx, closed.KEY, {**(closed.mark(tx, self.name) or {}), "opening": True})
        rows = {name: found.rows for name, found in sums.items()}
        with destination.write(closed_too=True) as tx:
            progress = _meta(tx, self.name, PROGRESS)
            self._set(destination, tx, PROGRESS, {**progress, "rows": rows, "blobs": blobs, "size_bytes": size_bytes})
            self._set(destination, tx, BLOBS_KEY, self._told_blobs())
            audit.record(
                destination, tx, actor=actor, action="moved", subject=self.name, **{"from": self.source.name},
                to=destination.name, blobs=blobs, tables={n: asdict(found) for n, found in sums.items() if found.rows},
            )  # fmt: skip
            self._unset(tx, closed.KEY)

    def _leave(self) -> None:
        with self.source.write(closed_too=True) as tx:
            mark = closed.mark(tx, self.name) or {}
            self._set(self.source, tx, closed.KEY, {**mark, "state": "moved", "at": clock.iso(clock.machine_now())})

    def _told_blobs(self) -> str | None:
        """What FAIRWAY_BLOBS has to be afterwards; None for the workspace's own folder."""
        return None if self._blobs_url == embedded_blobs_url(self.workspace.root) else self.to_blobs.where

    def settings(self) -> dict[str, str | None]:
        """The environment's variables after the move, without a password; None: not set."""
        to = None if self.to_url == embedded_store_url(self.workspace.root) else self._to_name()
        return {"FAIRWAY_STORE": to, "FAIRWAY_BLOBS": self._told_blobs()}

    def _set(self, store: Store, tx: Connection, key: str, value: Any) -> None:
        store.upsert(tx, schema.meta, {"workspace": self.name, "key": key, "value": value})

    def _unset(self, tx: Connection, key: str) -> None:
        table = schema.meta
        tx.execute(sa.delete(table).where(table.c.workspace == self.name, table.c.key == key))


def cancel(workspace: Workspace, *, to: str | None, actor: str) -> dict[str, Any]:
    """Give an interrupted move up: the store where the workspace is opens again, and goes on as it was.

    to: the move's destination, whose half copy is then deleted (not its blobs); needed when the move had come so far
    that the destination may be open already. Raises: UsageError when there is no move, or it is done.
    """
    source, name = workspace.store, workspace.name
    with _not_served(workspace):
        with source.read() as tx:
            mark = closed.mark(tx, name)
        if mark is None or mark["state"] == "arriving":
            raise UsageError(f"no move from {closed.shown(source.name)} is under way")
        if mark["state"] == "moved":
            with source.read() as tx:
                closed.refuse(tx, name, name=source.name)
        if mark["opening"] and to is None:
            raise UsageError(
                f"the move to {mark['to']} was about to be finished: repeat it, or say --to {mark['to']} as well, so "
                "that it can be seen whether it was", field="to",
            )  # fmt: skip
        cleared = False
        url = embedded_store_url(workspace.root) if to == HERE else to
        if url is not None and _has_tables(url):
            with Store(url, workspace=name) as destination, destination.write(closed_too=True) as tx:
                progress, there = _meta(tx, name, PROGRESS), closed.mark(tx, name)
                if progress is not None and progress["move"] == mark["move"]:
                    if there is None:
                        raise UsageError(
                            f"the move is done: the workspace is in {mark['to']}. Repeat the move to say so here"
                        )
                    transfer.clear(tx, name)
                    cleared = True
        with source.write(closed_too=True) as tx:
            table = schema.meta
            tx.execute(sa.delete(table).where(table.c.workspace == name, table.c.key == closed.KEY))
            audit.record(source, tx, actor=actor, action="move_cancelled", subject=name, to=mark["to"])
    return {"store": source.name, "to": mark["to"], "cleared": cleared}


@contextmanager
def _not_served(workspace: Workspace) -> Iterator[None]:
    """No `fairway serve` starts on this machine meanwhile. Raises: UsageError while one runs."""
    until_s = clock.elapsed() + 1.0
    while (lock := try_lock(workspace.folder / LOCK)) is None and clock.elapsed() < until_s:
        time.sleep(0.02)  # who asks whether the workspace is served holds it for a moment
    if lock is None:
        raise UsageError(f"`fairway serve` runs on {workspace.root}: stop it first, so that nothing is lost")
    try:
        yield
    finally:
        os.close(lock)


def _has_tables(url: str) -> bool:
    """Whether a store is there; nothing is made. Raises: UsageError, StoreUnavailable."""
    parsed = engine.parse_url(url)
    if parsed.drivername == "sqlite":
        return parsed.database is not None and Path(parsed.database).exists()
    made = engine.make_engine(url)
    try:
        return bool(sa.inspect(made).has_table("meta"))
    except sa.exc.SQLAlchemyError as exc:
        raise explain(exc, _name_of(url)) or exc from exc
    finally:
        made.dispose()


def _name_of(url: str) -> str:
    """A store's URL as it may be shown."""
    return engine.parse_url(url).render_as_string(hide_password=True).replace("postgresql+psycopg", "postgresql")


def _meta(tx: Connection, workspace: str, key: str) -> Any:
    table = schema.meta
    return tx.scalar(sa.select(table.c.value).where(table.c.workspace == workspace, table.c.key == key))
