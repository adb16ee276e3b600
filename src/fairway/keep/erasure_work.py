"""One erasure under way: what is looked for, what was done so far, and what is still to be deleted."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock, fingerprint
from fairway.errors import ModelNotFound, Unfinished, UsageError
from fairway.keep import gc
from fairway.keep.pins import pins
from fairway.keep.rewrite import Person
from fairway.store import audit, schema
from fairway.store.base import Store
from fairway.store.workspace import Workspace

Json = dict[str, Any]
_CHUNK = 500


def mark_of(workspace: Workspace, model: str, value: str) -> str:
    """What is written down of an entity that was erased: a hash, so that a later question can be answered."""
    return "e-" + fingerprint.of_bytes("\x1f".join((workspace.name, model, value)).encode())[:32]


@dataclass
class Work:
    """One erasure under way."""

    workspace: Workspace
    model: str
    entity: str | None
    prediction: str | None
    actor: str
    dry_run: bool
    name: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    doomed: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    resumed: bool = False

    def __post_init__(self) -> None:
        if (self.entity is None) == (self.prediction is None):
            raise UsageError("name what to erase: --entity VALUE, or --prediction p-...", field="entity")
        self.person = Person(self.entity or self.prediction or "")
        self.by_entity = self.entity is not None
        self.pieces = _pieces(self.workspace)
        table = schema.model
        with self.store.read() as tx:
            mine = table.c.workspace == self.store.workspace
            rows = tx.execute(sa.select(table.c.model, table.c.settings).where(mine))
            known = {row.model: row.settings for row in rows}
        if self.model not in known:
            raise ModelNotFound(self.model, known=sorted(known))
        self.settings: Json = known[self.model]
        self.column: str | None = self.settings.get("entity")
        if self.by_entity and self.column is None:
            raise UsageError(
                f"{self.model} has no entity column, so its rows belong to nobody; erase by --prediction",
                field="entity",
            )

    @property
    def store(self) -> Store:
        return self.workspace.store

    # -- the record --------------------------------------------------------------------------------------------------

    def begin(self, why: str, now: datetime) -> None:
        """A new erasure, or the one of the same entity that was not finished."""
        table, mark = schema.erasure, mark_of(self.workspace, self.model, self.person.value)
        mine = sa.and_(table.c.workspace == self.store.workspace, table.c.model == self.model, table.c.entity == mark)
        with self.store.write() as tx:
            busy = [name for name, _ in gc.runs_under_way(self.workspace, tx)]
            table_run = schema.run
            mine_busy = tx.scalars(
                sa.select(table_run.c.run).where(
                    table_run.c.workspace == self.store.workspace, table_run.c.model == self.model,
                    table_run.c.run.in_(busy),
                )
            ).all()  # fmt: skip
            if mine_busy:
                raise Unfinished(f"{', '.join(mine_busy)} of {self.model} is under way and holds its rows; wait for it")
            row = tx.execute(sa.select(table).where(mine, table.c.state == "running")).first()
            if row is not None:
                self.name, self.counts, self.resumed = row.erasure, dict(row.found["counts"]), True
                self.doomed, self.versions = set(row.found["doomed"]), set(row.found["versions"])
                return
            self.name = f"erasure-{self.store.next_number(tx, 'erasure')}"
            tx.execute(
                sa.insert(table).values(
                    workspace=self.store.workspace, erasure=self.name, model=self.model, entity=mark, state="running",
                    found=self._found(), asked_by=self.actor, asked_at=now, why=why,
                )
            )  # fmt: skip
            audit.record(
                self.store, tx, actor=self.actor, action="erasure_started", subject=self.name, model=self.model,
                entity=mark, why=why,
            )  # fmt: skip

    def _found(self) -> Json:
        return {"counts": self.counts, "doomed": sorted(self.doomed), "versions": sorted(self.versions)}

    def count(self, what: str, n: int) -> None:
        if n:
            self.counts[what] = self.counts.get(what, 0) + n

    def note(self, tx: Connection) -> None:
        """What was done so far, in the transaction that does it."""
        table = schema.erasure
        mine = sa.and_(table.c.workspace == self.store.workspace, table.c.erasure == self.name)
        tx.execute(sa.update(table).where(mine).values(found=self._found()))

    def end(self, *, done: bool) -> None:
        table = schema.erasure
        mine = sa.and_(table.c.workspace == self.store.workspace, table.c.erasure == self.name)
        with self.store.write() as tx:
            self.note(tx)
            if done:
                tx.execute(sa.update(table).where(mine).values(state="done", ended_at=clock.now()))
                audit.record(
                    self.store, tx, actor=self.actor, action="erasure_done", subject=str(self.name), model=self.model,
                    entity=mark_of(self.workspace, self.model, self.person.value), counts=self.counts,
                    versions=sorted(self.versions),
                )  # fmt: skip

    # -- the end -----------------------------------------------------------------------------------------------------

    def wait_for_fold(self, limit_s: float) -> None:
        """What serves seals its open pieces within 10 s, and folds them."""
        until_s = clock.elapsed() + limit_s
        while self.waiting() and clock.elapsed() < until_s:
            time.sleep(0.2)

    def waiting(self) -> int:
        """Pieces of the log that were there at the start and are not folded: they may hold rows of the entity."""
        return len(self.pieces & _pieces(self.workspace))

    def bury(self) -> None:
        """Delete the bytes that hold the entity, whatever their age, unless something else needs them."""
        if not self.doomed:
            return
        with self.store.read() as tx:
            pinned = pins(self.workspace, tx, without_packages=self.doomed)
        for blob in sorted(self.doomed - pinned):
            self.workspace.blobs.delete(blob)
        self.count("files deleted", len(self.doomed - pinned))
        self.doomed &= pinned

    def yours(self) -> tuple[str, ...]:
        """The project's own tables: they are not fairway's to change."""
        data = self.settings.get("data") or {}
        sources = (self.settings.get("sources") or {}).values()
        named = [data.get("source"), *(source.get("path") for source in sources)]
        return tuple(str(path) for path in named if path)


def _pieces(workspace: Workspace) -> set[str]:
    """Names of the pieces of the log that wait here: a piece keeps its name from its start until it is folded."""
    spool = workspace.folder / "spool"
    return {path.name for pattern in ("open/*/*.seg", "sealed/*.seg") for path in spool.glob(pattern)}


def overwrite(tx: Connection) -> None:
    """Have SQLite overwrite what is deleted, and not only forget where it was."""
    if tx.dialect.name == "sqlite":
        tx.execute(sa.text("pragma secure_delete = on"))


def chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
