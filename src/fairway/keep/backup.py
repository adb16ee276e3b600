"""A backup: the whole workspace in one folder or .tar file, taken also while it serves.

In this order, so that nothing which was acknowledged before is missing, and nothing is there twice after a restore:

    spool/     this machine's pieces of the log that are not folded yet; also those that gateways write at the moment
    store.db   one consistent snapshot of the store, taken after them: a piece folded in between is known by its name
               there, and its copy is not folded again. Always SQLite, whatever the store is; this workspace alone
    blobs/     every blob that the snapshot names, read against its hash
    runs/      reports and logs of runs;  online.db  the look-up state, where it is a file
    backup.json  what is in it, written last: without it nothing is restored

Not in it: cache/ and backtests/ (made again), serve/ (logs of processes), the token and keys/ (secrets; only when asked
for), the project's own files (they are in git), state of views in Redis or Postgres (filled again from the log).
"""

import json
import logging
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import apsw
import sqlalchemy as sa

from fairway import __version__, clock
from fairway.data import segment
from fairway.errors import Refused, SegmentBroken, StoreReadOnly, TamperFound, Unfinished, UsageError
from fairway.keep.backup_files import (
    MANIFEST,
    ONLINE,
    SECRETS,
    STORE,
    Folder,
    Tar,
    Target,
    blob_name,
    names_hash,
    remove,
)
from fairway.keep.pins import pins
from fairway.store import audit, closed, schema, transfer
from fairway.store.base import Store
from fairway.store.blobs import borrowed, changed, sync_folder, trouble
from fairway.store.workspace import BLOBS_KEY, Workspace

FORMAT = 1
_PAGE = 64  # blobs that are fetched before they are written
_NOT_WHOLE = "There would be no whole backup; see: fairway admin doctor"
_SEAL_S = 10.0  # a piece of the log that is just being sealed is whole again within this time

Say = Callable[[str], None]
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What a backup holds. unfolded: pieces of the log that are folded after a restore."""

    place: str
    workspace: str
    made_at: str
    rows: int
    blobs: int
    size_bytes: int
    unfolded: int
    secrets: bool
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def plan(workspace: Workspace, place: Path) -> dict[str, Any]:
    """What a backup would copy, at most. Raises: UsageError for a place that is taken."""
    check_free(place)
    with workspace.store.read() as tx:
        rows = sum(transfer.count(tx, table, workspace.name) for table in transfer.tables())
    sizes = [entry.size_bytes for page in workspace.blobs.pages() for entry in page]
    return {
        "to": str(place), "store": workspace.store.name, "rows": rows, "blobs_in": workspace.blobs.where,
        "blobs": len(sizes), "size_bytes": sum(sizes),
    }  # fmt: skip


def backup(
    workspace: Workspace, place: Path, *, actor: str = "fairway", secrets: bool = False, say: Say = lambda text: None
) -> Backup:
    """Write a backup to `place`: a new folder, or a file when the name ends in .tar. It appears whole or not at all.

    actor: who asked; an entry of the audit log says so, where the store takes one. secrets: with the owner's token and
    the signing keys.
    Raises: UsageError for a place that is taken, StoreMoved where the workspace has left, Refused or TamperFound when a
    blob that a row names is gone or changed, StoreError.
    """
    began_s = clock.elapsed()
    check_free(place)
    with workspace.store.read() as tx:  # what a workspace has left is no backup of it
        closed.refuse(tx, workspace.name, name=workspace.store.name)
    part = place.with_name(f".{place.name}.part")
    remove(part)  # of a backup that was killed
    work = place.with_name(f".{place.name}.work")
    remove(work)
    target: Target | None = None
    try:
        work.mkdir(mode=0o700)
        target = Tar(part) if place.suffix == ".tar" else Folder(part)
        spool = _copy_spool(workspace, work / "spool")
        say(f"log: {len(spool)} pieces that are not folded yet")
        snapshot = work / STORE
        _snapshot(workspace, snapshot, say)
        made = _write(workspace, target, snapshot, spool, secrets=secrets, say=say)
        target.finish()
        target.close()
        part.rename(place)
        sync_folder(place.parent)
    except OSError as exc:
        raise trouble(exc, f"the backup {place} can't be written") from exc
    finally:
        if target is not None:
            target.close()
        remove(work)
        remove(part)
    _note(workspace, actor, str(place), made)
    return Backup(place=str(place), seconds=round(clock.elapsed() - began_s, 1), **made)


def _note(workspace: Workspace, actor: str, place: str, made: dict[str, Any]) -> None:
    store = workspace.store
    with suppress(StoreReadOnly), store.write() as tx:  # of what can only be read, a backup is wanted all the more
        audit.record(
            store, tx, actor=actor, action="backup", subject=workspace.name, place=place, rows=made["rows"],
            blobs=made["blobs"], secrets=made["secrets"],
        )  # fmt: skip


def _write(
    workspace: Workspace, target: Target, snapshot: Path, spool: list[Path], *, secrets: bool, say: Say
) -> dict[str, Any]:
    files: dict[str, str] = {}
    size_bytes = 0

    def add(name: str, path: Path) -> None:
        nonlocal size_bytes
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            files[name] = target.add(name, file, size)
        size_bytes += size

    with Store(f"sqlite:///{snapshot}", workspace=workspace.name) as store, store.read() as tx:
        rows = {t.name: transfer.count(tx, t, workspace.name) for t in transfer.tables()}
        needed = _needed(tx, workspace.name)
        try:
            named = pins(workspace, tx) | needed
        except Refused as exc:
            raise Refused(f"{exc.__cause__ or exc}. {_NOT_WHOLE}") from exc
    add(STORE, snapshot)
    for path in spool:
        add(f"spool/{segment.SEALED}/{path.name}", path)
    copied, sizes = _copy_blobs(workspace, target, snapshot.parent, named, needed, say)
    for name, path in _extras(workspace, snapshot.parent, secrets=secrets):
        add(name, path)
    about = {
        "format": FORMAT,
        "fairway": __version__,
        "workspace": workspace.name,
        "made_at": clock.iso(clock.machine_now()),
        "store": workspace.store.name,
        "tables": rows,
        "blobs": {"count": len(copied), "size_bytes": sizes, "hash": names_hash(copied)},
        "secrets": secrets,
        "files": files,
    }
    data = json.dumps(about, indent=1, sort_keys=True).encode()
    target.add(MANIFEST, BytesIO(data), len(data))
    return facts(about) | {"size_bytes": size_bytes + sizes}


def facts(about: dict[str, Any]) -> dict[str, Any]:
    return {
        "workspace": about["workspace"],
        "made_at": about["made_at"],
        "rows": sum(about["tables"].values()),
        "blobs": about["blobs"]["count"],
        "unfolded": sum(name.startswith("spool/") for name in about["files"]),
        "secrets": about["secrets"],
    }


# -- what is copied --------------------------------------------------------------------------------------------------


def _copy_spool(workspace: Workspace, into: Path) -> list[Path]:
    """Pieces of the log as files that stand alone. Without a lock on them: a gateway must not be kept from sealing."""
    into.mkdir()
    spool = workspace.folder / "spool"
    for path in sorted((spool / segment.OPEN).glob("*/*.seg")):
        _copy_open(path, into / path.name)
    for path in sorted((spool / segment.SEALED).glob("*.seg")):
        with suppress(FileNotFoundError):  # folded just now: the snapshot, which comes later, has its rows
            _copy_whole(path, into / path.name)
    return sorted(into.glob("*.seg"))


def _copy_open(path: Path, target: Path) -> None:
    """As a kill at this moment would leave it: the file, and its write-ahead log, to which a gateway only appends.

    Raises: Unfinished when it is being sealed for longer than that takes.
    """
    until_s = clock.elapsed() + _SEAL_S
    ahead, ahead_copy = path.with_name(path.name + "-wal"), target.with_name(target.name + "-wal")
    while clock.elapsed() < until_s:
        for left in (target, ahead_copy, target.with_name(target.name + "-shm")):
            left.unlink(missing_ok=True)
        try:
            before = path.stat()
            _copy_whole(path, target)
            with suppress(FileNotFoundError):
                _copy_whole(ahead, ahead_copy)
            after = path.stat()
            if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size):
                if segment.recover(target):
                    segment.read(target)
                else:
                    target.unlink()
                return
        except FileNotFoundError:
            if not path.exists():
                return  # sealed, or folded by now: the listing of sealed ones, or the snapshot, comes later
        except (apsw.Error, SegmentBroken) as exc:
            log.debug("%s was sealed while it was copied: %s", path.name, exc)
        time.sleep(0.02)
    raise Unfinished(f"the piece {path.name} of the log is being sealed for {_SEAL_S:g} s; try again")


def _copy_whole(source: Path, target: Path) -> None:
    temporary = target.with_name(target.name + ".part")
    shutil.copyfile(source, temporary)
    temporary.rename(target)


def _snapshot(workspace: Workspace, target: Path, say: Say) -> None:
    """The store's rows of this workspace, all of one moment, as a SQLite file without marks of where it was."""
    name, source = workspace.name, workspace.store
    if source.file is not None:
        # One step: a copy in several would begin anew with every write of another process, and never end under load.
        url = f"{source.file.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(url, uri=True)) as database, closing(sqlite3.connect(target)) as copy:
            database.backup(copy)
    with Store(f"sqlite:///{target}", workspace=name) as store:
        if source.file is None:
            with source.read() as tx:
                for table in transfer.tables():
                    for number, rows in enumerate(transfer.chunks(tx, table, name)):
                        with store.write(closed_too=True) as there:
                            transfer.insert(there, table, rows)
                        say(f"store: {table.name}, {(number + 1) * transfer.CHUNK:,} rows")
        with store.everything() as tx:
            for table in schema.metadata.sorted_tables:
                tx.execute(sa.delete(table).where(table.c.workspace.notin_((name, ""))))
            tx.execute(sa.delete(schema.gateway))
            keys = (closed.KEY, transfer.PROGRESS, BLOBS_KEY)
            tx.execute(sa.delete(schema.meta).where(schema.meta.c.workspace == name, schema.meta.c.key.in_(keys)))
    with closing(sqlite3.connect(target)) as database:
        database.execute("vacuum")  # what was deleted above, another workspace's, is not in the file either


def _needed(tx: sa.Connection, workspace: str) -> set[str]:
    """Blobs without which the snapshot is not whole: data, log and (by `pins`, which reads them) packages."""
    found: set[str] = set()
    data, log = schema.dataset, schema.log_file
    for row in tx.execute(sa.select(data.c.blob, data.c.parts).where(data.c.workspace == workspace)):
        found |= {row.blob, *(row.parts or ())}
    found.update(tx.scalars(sa.select(log.c.blob).where(log.c.workspace == workspace)))
    return found


def _copy_blobs(
    workspace: Workspace, target: Target, work: Path, named: set[str], needed: set[str], say: Say
) -> tuple[list[str], int]:
    copied: list[str] = []
    size_bytes = 0
    for page in workspace.blobs.pages(size=_PAGE):
        digests = [entry.digest for entry in page if entry.digest in named]
        with borrowed(workspace.blobs, digests, work) as paths:
            for digest, path in zip(digests, paths, strict=True):
                if path is None:
                    continue  # collected meanwhile; one that is needed is told of below
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    if target.add(blob_name(workspace.name, digest), file, size) != digest:
                        raise TamperFound(f"{changed(digest, workspace.blobs.where)}. {_NOT_WHOLE}")
                copied.append(digest)
                size_bytes += size
        say(f"blobs: {len(copied):,}, {size_bytes / 1e6:,.0f} MB")
    gone = sorted(needed - set(copied))
    if gone:
        first = (
            f"{len(gone)} blobs that the store names are missing from {workspace.blobs.where}, the first {gone[0][:12]}"
        )
        raise Refused(f"{first}. {_NOT_WHOLE}")
    return copied, size_bytes


def _extras(workspace: Workspace, work: Path, *, secrets: bool) -> Iterator[tuple[str, Path]]:
    """(name in the backup, file). Reports and logs of runs, the look-up state, and secrets when asked for."""
    for path in sorted((workspace.folder / "runs").rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name != "lock":
            with suppress(FileNotFoundError):  # replaced, or collected, meanwhile
                yield path.relative_to(workspace.folder).as_posix(), Path(shutil.copyfile(path, work / "run"))
    online = workspace.folder / ONLINE
    if online.exists():
        copy = work / online.name
        source = apsw.Connection(str(online), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            source.set_busy_timeout(10_000)
            with closing(apsw.Connection(str(copy))) as into, into.backup("main", source, "main") as step:
                step.step()
        finally:
            source.close()
        yield online.name, copy
    if secrets:
        for name in SECRETS:
            place = workspace.folder / name
            for path in [place] if place.is_file() else sorted(place.glob("*")):
                yield path.relative_to(workspace.folder).as_posix(), path


def check_free(place: Path) -> None:
    if place.exists() and (not place.is_dir() or any(place.iterdir()) or place.suffix == ".tar"):
        raise UsageError(f"{place} is there already; name a new place", field="to")
    if not place.parent.is_dir():
        raise UsageError(f"there is no folder {place.parent}", field="to")
