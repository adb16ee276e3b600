"""Garbage collection: deletes what nothing pins. A kill at any moment loses nothing, and it can be repeated.

What keeps a running train safe: a blob counts as young from its last put, also of bytes that were there; while runs are
under way nothing is deleted that was put since the oldest of them began; and rows are forgotten only while none runs,
in one transaction, before the pins are computed.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection

from fairway import clock
from fairway.keep.pins import pins
from fairway.rollout.traffic import RETIRED
from fairway.store import audit, schema
from fairway.store.base import Row
from fairway.store.blobs import GRACE
from fairway.store.workspace import Workspace

UNUSED = timedelta(days=30)
KINDS = ("blobs", "datasets", "unpacked packages", "step results", "run folders", "scraps")
_DEAD = timedelta(days=2)  # a run of another machine that says "running" for so long is not
_JUST_BEGUN = timedelta(minutes=1)  # its lock may not be held yet, and must not be touched
_TEMPORARY = "."

Say = Callable[[str], None]


@dataclass
class Kind:
    """Things of one kind that can go. names: at most a few, as examples."""

    count: int = 0
    size_bytes: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str, size_bytes: int) -> None:
        self.count += 1
        self.size_bytes += size_bytes
        if len(self.names) < 5:
            self.names.append(name)


@dataclass(frozen=True)
class Found:
    """What nothing needs, by kind: blobs, datasets, packages unpacked, step results, run folders, half-written files.

    deleted: whether it is gone; with False it is only what would go. kept_young: blobs that nothing pins yet.
    running: names of runs under way.
    """

    kinds: dict[str, Kind]
    deleted: bool
    kept_young: int
    running: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(kind.size_bytes for kind in self.kinds.values())

    def as_dict(self) -> dict[str, object]:
        """JSON form."""
        return {
            "deleted": self.deleted,
            "size_bytes": self.size_bytes,
            "kept_young": self.kept_young,
            "running": list(self.running),
            "kinds": {name: vars(kind) for name, kind in self.kinds.items()},
        }


def collect(
    workspace: Workspace,
    *,
    actor: str,
    delete: bool = False,
    grace: timedelta = GRACE,
    unused: timedelta = UNUSED,
    say: Say = lambda text: None,
) -> Found:
    """Find what nothing pins, and with `delete` delete it.

    grace: blobs and folders that are younger stay. unused: results of runs that made no version, and datasets that no
    version was made from, stay this long.
    Raises: Refused when a version's package can't be read; StoreError.
    """
    store = workspace.store
    kinds = {name: Kind() for name in KINDS}
    before = clock.machine_now() - grace
    with store.write() if delete else store.read() as tx:
        running = runs_under_way(workspace, tx)
        since = clock.now() - unused
        gone = [] if running else _unused_datasets(workspace, tx, since)
        for row in gone:
            kinds["datasets"].add(row.dataset, 0)
        if delete and not running:
            _forget(workspace, tx, [row.dataset for row in gone], since)
        began = [at for _, at in running]
        pinned = pins(
            workspace, tx, runs_since=None if running else since, without_datasets=[row.dataset for row in gone]
        )
        in_use = _artifacts_in_use(workspace, tx)
        known_runs = {row.run: row for row in _runs(workspace, tx)}
        if delete:
            audit.record(
                store, tx, actor=actor, action="gc", subject=workspace.name, datasets=[row.dataset for row in gone],
                grace_s=grace.total_seconds(), unused_s=unused.total_seconds(),
            )  # fmt: skip
    cut = min([before, *began])
    young = _blobs(workspace, pinned, cut, kinds, delete=delete, say=say)
    _folders(workspace, in_use, known_runs, since, before, kinds, delete=delete, running=bool(running))
    names = tuple(name for name, _ in running)
    found = Found(kinds, delete, young, names)
    if delete and (kinds["blobs"].count or found.size_bytes):
        with store.write() as tx:
            audit.record(
                store, tx, actor=actor, action="gc_done", subject=workspace.name, size_bytes=found.size_bytes,
                counts={name: kind.count for name, kind in kinds.items() if kind.count},
            )  # fmt: skip
    return found


# -- blobs -----------------------------------------------------------------------------------------------------------


def _blobs(
    workspace: Workspace, pinned: set[str], cut: datetime, kinds: dict[str, Kind], *, delete: bool, say: Say
) -> int:
    young = seen = 0
    for page in workspace.blobs.pages():
        seen += len(page)
        say(f"{seen:,} blobs looked at")
        for blob in page:
            if blob.digest in pinned:
                continue
            if blob.stored_at >= cut:
                young += 1
            elif not delete or workspace.blobs.delete(blob.digest, before=cut):
                kinds["blobs"].add(blob.digest, blob.size_bytes)
    if delete:
        workspace.blobs.sweep(cut)
    return young


def _runs(workspace: Workspace, tx: Connection) -> list[Row]:
    table = schema.run
    return list(
        tx.execute(
            sa.select(table.c.run, table.c.status, table.c.started_at, table.c.ended_at).where(
                table.c.workspace == workspace.store.workspace
            )
        )
    )


def runs_under_way(workspace: Workspace, tx: Connection) -> list[tuple[str, datetime]]:
    """Runs under way, and since when by the clock of files: their own locks tell, for those of this machine."""
    found = []
    for row in _runs(workspace, tx):
        if row.status != "running":
            continue
        lock = workspace.folder / "runs" / row.run / "lock"
        if lock.exists():
            began = _modified(lock)
            if clock.machine_now() - began < _JUST_BEGUN or _held(lock):
                found.append((row.run, began))
        elif clock.now() - row.started_at < _DEAD:
            found.append((row.run, min(row.started_at, clock.machine_now())))
    return found


def _held(lock: Path) -> bool:
    descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _unused_datasets(workspace: Workspace, tx: Connection, since: datetime) -> list[Row]:
    """Older than `since`, and no version, run since then or held source names them."""
    table, name = schema.dataset, workspace.store.workspace
    rows = list(tx.execute(sa.select(table).where(table.c.workspace == name, table.c.created_at < since)))
    if not rows:
        return []
    named: set[str] = set(
        tx.scalars(sa.select(schema.version.c.dataset).where(schema.version.c.workspace == name).distinct())
    )
    recent = sa.select(sa.cast(schema.run.c.result, sa.Text), sa.cast(schema.run.c.steps, sa.Text)).where(
        schema.run.c.workspace == name, schema.run.c.started_at >= since
    )
    text = " ".join(part for row in tx.execute(recent) for part in row if part)
    states = sa.select(schema.source_state.c.content).where(schema.source_state.c.workspace == name)
    named.update(tx.scalars(states))
    return [row for row in rows if row.dataset not in named and row.dataset not in text]


def _forget(workspace: Workspace, tx: Connection, datasets: list[str], since: datetime) -> None:
    """Rows that only keep what nobody asks for again: unused datasets, and results of steps."""
    name, table = workspace.store.workspace, schema.dataset
    for dataset in datasets:
        tx.execute(sa.delete(table).where(table.c.workspace == name, table.c.dataset == dataset))
    table = schema.step
    tx.execute(sa.delete(table).where(table.c.workspace == name, table.c.created_at < since))


def _artifacts_in_use(workspace: Workspace, tx: Connection) -> set[str]:
    """Packages that are served, could come back at once, or are under test."""
    end, version, name = schema.endpoint, schema.version, workspace.store.workspace
    wanted: set[tuple[str, int]] = set()
    for row in tx.execute(sa.select(end).where(end.c.workspace == name, end.c.state != RETIRED)):
        numbers = [row.champion, row.previous, row.challenger, *row.shadows, *(int(n) for n in row.shares)]
        wanted.update((row.model, int(n)) for n in numbers if n is not None)
    rows = tx.execute(
        sa.select(version.c.model, version.c.version, version.c.artifact).where(version.c.workspace == name)
    )
    return {row.artifact for row in rows if (row.model, row.version) in wanted}


# -- folders of .fairway ---------------------------------------------------------------------------------------------


def _folders(
    workspace: Workspace,
    in_use: set[str],
    runs: dict[str, Row],
    since: datetime,
    before: datetime,
    kinds: dict[str, Kind],
    *,
    delete: bool,
    running: bool,
) -> None:
    """Caches that are made again when needed, folders of runs that came to nothing, what a kill left half-written."""
    cache = workspace.folder / "cache"
    going: list[tuple[str, Path]] = []
    # A run that is under way works in folders that look like scraps: while there is one, the caches stay as they are.
    for name, kind in () if running else (("artifacts", "unpacked packages"), ("steps", "step results")):
        for path in _old(cache / name, before):
            if path.name.startswith(_TEMPORARY):
                going.append(("scraps", path))
            elif path.name not in in_use:
                going.append((kind, path))
    for path in _old(workspace.folder / "runs", before):
        row = runs.get(path.name)
        over = row is None or (row.status == "failed" and row.ended_at is not None and row.ended_at < since)
        if over and not ((path / "lock").exists() and _held(path / "lock")):
            going.append(("run folders", path))
    for kind, path in going:
        kinds[kind].add(path.name, _size(path))
        if delete:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _old(folder: Path, before: datetime) -> Iterator[Path]:
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if _modified(path) < before:
                yield path


def _modified(path: Path) -> datetime:
    try:
        return clock.from_us(path.lstat().st_mtime_ns // 1000)
    except FileNotFoundError:
        return clock.machine_now()


def _size(path: Path) -> int:
    files = (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else iter([path])
    total = 0
    for file in files:
        try:
            total += file.lstat().st_size
        except FileNotFoundError:
            continue
    return total
