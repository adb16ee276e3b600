"""The doctor: looks whether everything that this workspace relies on is whole, and says what to try where it is not."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from fairway import clock
from fairway.errors import FairwayError, StoreUnavailable
from fairway.keep import gc
from fairway.runtime.package import read_manifest
from fairway.store import audit, closed, heads, schema
from fairway.store.gateways import SERVE, is_served, try_lock
from fairway.store.place import warning as unsafe
from fairway.store.workspace import Workspace

Verdict = Literal["pass", "warn", "fail"]

_WAL_SAFE = (3, 51, 3)
_SKEW_WARN, _SKEW_FAIL = timedelta(seconds=2), timedelta(minutes=1)
_FUTURE = timedelta(minutes=5)
_FOLD_LATE = timedelta(minutes=10)


@dataclass(frozen=True)
class Finding:
    """One line. try_next: what to do about it; empty when nothing is wrong."""

    check: str
    verdict: Verdict
    summary: str
    try_next: str = ""

    def as_dict(self) -> dict[str, str]:
        """JSON form."""
        return {"check": self.check, "verdict": self.verdict, "summary": self.summary, "try": self.try_next}


Say = Callable[[str], None]


def examine(workspace: Workspace, *, say: Say = lambda text: None) -> Iterator[Finding]:
    """Every check in turn. Without a store that opens, only those that need none. say: progress of the long ones."""
    yield _engines()
    yield _place(workspace)
    yield _disk(workspace)
    yield _secrets(workspace)
    yield _server(workspace)
    try:
        store = workspace.store
        with store.read() as tx:
            formats = dict(
                tx.execute(sa.select(schema.meta.c.key, schema.meta.c.value).where(schema.meta.c.workspace == "")).all()
            )
            moved = closed.reason(tx, workspace.name, name=store.name)
    except StoreUnavailable as exc:
        yield Finding("store", "fail", str(exc), "start its server, or see who keeps it; gateways answer meanwhile")
        return
    except FairwayError as exc:
        yield Finding("store", "fail", str(exc), "restore a backup: fairway admin restore")
        return
    told = f"{closed.shown(store.name)} opens, format {formats.get('format')} of {schema.FORMAT}"
    yield Finding("store", "pass", told) if moved is None else Finding("store", "fail", moved, "set what it says")
    for check in (_database, _clocks, _audit, _packages, _tables):
        yield from check(workspace)
    yield _blobs(workspace, say)
    yield from _left_over(workspace)


def _engines() -> Finding:
    import apsw

    return Finding(
        "sqlite", "pass", f"{sqlite3.sqlite_version} for the store, {apsw.sqlite_lib_version()} for the spool"
    )


# -- the folder ------------------------------------------------------------------------------------------------------


def _place(workspace: Workspace) -> Finding:
    wrong = unsafe(workspace.folder)
    if wrong is not None:
        advice = "move it to a local disk, or the store to a server: fairway admin move --to postgresql://..."
        return Finding("folder", "warn", wrong, advice)
    if not os.access(workspace.folder, os.W_OK):
        return Finding("folder", "fail", f"{workspace.folder} can't be written", "give it back to its owner")
    return Finding("folder", "pass", str(workspace.folder))


def _disk(workspace: Workspace) -> Finding:
    usage, inodes = shutil.disk_usage(workspace.folder), os.statvfs(workspace.folder)
    free_gb = usage.free / 2**30
    left = inodes.f_favail / inodes.f_files if inodes.f_files else 1.0
    text = f"{free_gb:,.1f} GB free of {usage.total / 2**30:,.0f}" + (f", {left:.0%} of the inodes" if left < 1 else "")
    if usage.free < 256 * 2**20 or left < 0.01:
        return Finding("disk", "fail", text, "make room: predictions are refused when the log can't be written")
    if usage.free < 2 * 2**30 or usage.free < 0.05 * usage.total or left < 0.05:
        return Finding("disk", "warn", text, "see what could go: fairway admin gc")
    return Finding("disk", "pass", text)


def _secrets(workspace: Workspace) -> Finding:
    """Who has the token may do all that the owner may; who has the key signs heads."""
    files = [workspace.folder / "token", *(workspace.folder / heads.KEYS).glob("*.key")]
    open_ones = [path for path in files if path.is_file() and path.stat().st_mode & 0o077]
    if open_ones:
        names = " ".join(str(path) for path in open_ones)
        return Finding("secrets", "fail", f"others may read {names}", f"chmod 600 {names}")
    return Finding("secrets", "pass", "token and keys are readable by their owner alone")


def _server(workspace: Workspace) -> Finding:
    served = is_served(workspace)
    if served is not None:
        return Finding("server", "pass", f"serves at {served['predict']} (process {served['pid']})")
    if (workspace.folder / SERVE).exists():
        return Finding(
            "server", "warn", f"{SERVE} was left by a server that was killed", "start it again: fairway serve"
        )
    return Finding("server", "pass", "nothing serves")


# -- the store -------------------------------------------------------------------------------------------------------


def _database(workspace: Workspace) -> Iterator[Finding]:
    with workspace.store.read() as tx:
        if tx.dialect.name != "sqlite":
            version = str(tx.scalar(sa.text("show server_version")))
            yield Finding("database", "pass", f"{tx.dialect.name} {version}")
            return
        mode = str(tx.scalar(sa.text("pragma journal_mode"))).lower()
        whole = [str(line) for line in tx.scalars(sa.text("pragma quick_check(5)"))]
    if whole != ["ok"]:
        yield Finding("database", "fail", f"SQLite finds damage: {whole[0]}", "restore a backup: fairway admin restore")
    elif mode == "wal" and sqlite3.sqlite_version_info < _WAL_SAFE:
        yield Finding(
            "database", "fail", f"journal WAL with SQLite {sqlite3.sqlite_version}, which can corrupt it",
            "stop everything that uses the store and start again: fairway sets the journal",
        )  # fmt: skip
    else:
        why = "" if mode == "wal" else ": before 3.51.3 a write-ahead log can be corrupted"
        yield Finding("database", "pass", f"no damage; journal {mode.upper()}{why}")


def _clocks(workspace: Workspace) -> Iterator[Finding]:
    store = workspace.store
    with store.read() as tx:
        away = abs(store.database_now(tx) - clock.machine_now())
        newest = tx.scalar(sa.select(sa.func.max(schema.audit.c.at)).where(schema.audit.c.workspace == store.workspace))
    text = f"{away.total_seconds():.1f} s between this machine and the database"
    advice = "let this machine's time be set from the network (chrony, systemd-timesyncd)"
    first = clock.elapsed()
    if clock.elapsed() < first:
        yield Finding("clock", "fail", "the monotonic clock goes back", "report this machine's kernel")
    elif away > _SKEW_FAIL:
        yield Finding("clock", "fail", text, advice)
    elif newest is not None and newest > clock.now() + _FUTURE:
        yield Finding("clock", "warn", f"the newest audit entry is of {clock.iso(newest)}: a clock went back", advice)
    else:
        yield Finding("clock", "warn" if away > _SKEW_WARN else "pass", text, advice if away > _SKEW_WARN else "")


def _audit(workspace: Workspace) -> Iterator[Finding]:
    place = heads.elsewhere()
    try:
        copies = heads.kept(workspace, place) if place is not None else []
        chain = audit.walk(workspace.store, at={head.entry for head in copies})
        compared = heads.compare(workspace, chain, copies)
    except FairwayError as exc:
        yield Finding("audit", "fail", str(exc), "look at the copies of the head")
        return
    if chain.broken_at is not None:
        yield Finding(
            "audit", "fail", f"entry {chain.broken_at:,} is missing, out of order or changed",
            "compare with a backup; entries before it are whole",
        )  # fmt: skip
    elif compared is not None and compared.outcome != "same":
        yield Finding("audit", "fail", compared.text, "compare with a backup")
    else:
        yield Finding("audit", "pass", f"{_n(chain.entries, 'entry', 'entries')} unbroken")
    yield _heads(workspace, place)


def _heads(workspace: Workspace, place: str | None) -> Finding:
    if place is None:
        return Finding(
            "audit heads", "warn", "no copy of the head is kept elsewhere, so a cut tail would not be found",
            f"set {heads.VARIABLE} to a folder or s3:// path outside of this machine",
        )  # fmt: skip
    last = heads.last_written(workspace)
    if last is None:
        return Finding("audit heads", "warn", f"none was written to {place} yet", "serve, or: fairway admin audit head")
    if clock.now() - clock.parse_iso(last["at"]) > 2 * heads.EVERY:
        return Finding("audit heads", "warn", f"the last one is of {last['at']}", f"see whether {place} can be written")
    return Finding("audit heads", "pass", f"the last one, of entry {last['entry']:,}, is in {place}")


def _packages(workspace: Workspace) -> Iterator[Finding]:
    """Versions in use first: a package that is not whole can't be loaded again."""
    store, table = workspace.store, schema.version
    with store.read() as tx:
        rows = tx.execute(sa.select(table).where(table.c.workspace == store.workspace)).all()
        ends = tx.execute(sa.select(schema.endpoint).where(schema.endpoint.c.workspace == store.workspace)).all()
    live = {
        (end.model, number)
        for end in ends
        for number in (end.champion, end.previous, end.challenger, *end.shadows)
        if number is not None
    }
    broken = []
    for row in rows:
        try:
            manifest = read_manifest(workspace.blobs.get(row.artifact))
        except FairwayError:
            broken.append(row)
            continue
        if any(digest not in workspace.blobs for digest in manifest.files.values()):
            broken.append(row)
    bad = [f"{row.model}@{row.version}" for row in broken if (row.model, row.version) in live]
    if bad:
        yield Finding(
            "packages", "fail", f"in use and not whole: {', '.join(bad[:5])}",
            "restore a backup, or train again and deploy; what is loaded goes on",
        )  # fmt: skip
    elif broken:
        names = ", ".join(f"{row.model}@{row.version}" for row in broken[:5])
        yield Finding("packages", "warn", f"not in use and not whole: {names}", "restore a backup if they matter")
    else:
        yield Finding("packages", "pass", f"{_n(len(rows), 'version')}, complete")


def _tables(workspace: Workspace) -> Iterator[Finding]:
    """Data and log: is every file there that a row names?"""
    store = workspace.store
    with store.read() as tx:
        files = list(
            tx.scalars(sa.select(schema.log_file.c.blob).where(schema.log_file.c.workspace == store.workspace))
        )
        datasets = tx.execute(sa.select(schema.dataset).where(schema.dataset.c.workspace == store.workspace)).all()
        half = tx.scalars(
            sa.select(schema.erasure.c.erasure).where(
                schema.erasure.c.workspace == store.workspace, schema.erasure.c.state != "done"
            )
        ).all()
    lost = [blob[:12] for blob in files if blob not in workspace.blobs]
    gone = [
        row.dataset[:11]
        for row in datasets
        if any(blob not in workspace.blobs for blob in {row.blob, *(row.parts or ())})
    ]
    if lost or gone:
        what = [f"{len(lost)} files of the log" if lost else "", f"datasets {', '.join(gone[:5])}" if gone else ""]
        yield Finding("data", "fail", f"missing: {', '.join(filter(None, what))}", "restore a backup")
    else:
        yield Finding(
            "data", "pass", f"{_n(len(datasets), 'dataset')} and {_n(len(files), 'file')} of the log are there"
        )
    if half:
        yield Finding("erasures", "warn", f"not finished: {', '.join(half)}", "run the same fairway admin erase again")


def _blobs(workspace: Workspace, say: Say) -> Finding:
    bad: list[str] = []
    total = size = 0
    for page in workspace.blobs.pages():
        for blob in page:
            total += 1
            try:
                size += workspace.blobs.verify(blob.digest)
            except FairwayError as exc:
                bad.append(str(exc))
        say(f"{total:,} blobs checked, {size / 2**20:,.0f} MB")
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        return Finding(
            "blobs", "fail", "; ".join(bad[:5]) + more,
            "restore a backup: a changed blob is refused wherever it is used",
        )  # fmt: skip
    return Finding("blobs", "pass", f"{total:,} equal their hash ({size / 2**20:,.1f} MB)")


# -- what nothing needs any more -------------------------------------------------------------------------------------


def _left_over(workspace: Workspace) -> Iterator[Finding]:
    try:
        found = gc.collect(workspace, actor="doctor")
    except FairwayError as exc:
        yield Finding("orphans", "warn", str(exc))
    else:
        n = sum(kind.count for kind in found.kinds.values())
        text = f"{_n(n, 'thing')} that nothing needs, {found.size_bytes / 2**20:,.1f} MB" if n else "none"
        yield Finding("orphans", "pass", text, "see them: fairway admin gc" if n else "")
    spool = workspace.folder / "spool"
    broken = list((spool / "broken").glob("*.seg")) if spool.is_dir() else []
    late = [p for p in (spool / "sealed").glob("*.seg") if _age(p) > _FOLD_LATE] if spool.is_dir() else []
    ownerless = [folder.name for folder in sorted((spool / "open").glob("*/")) if _ownerless(folder)]
    if broken:
        yield Finding(
            "spool", "fail", f"{len(broken)} pieces of the log can't be read and are kept in {spool / 'broken'}",
            "keep them: predictions that were answered are in there; see .fairway/serve/worker.log",
        )  # fmt: skip
    elif late or ownerless:
        what = f"{len(late)} sealed and not folded" if late else f"left by {', '.join(ownerless)}"
        yield Finding("spool", "warn", f"pieces of the log wait: {what}", "start what folds them: fairway serve")
    else:
        yield Finding("spool", "pass", "nothing waits")


def _n(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _ownerless(folder: Path) -> bool:
    """Segments of a gateway that no longer lives."""
    if not any(folder.glob("*.seg")):
        return False
    lock = try_lock(folder / "lock")
    if lock is None:
        return False
    os.close(lock)
    return True


def _age(path: Path) -> timedelta:
    try:
        return clock.machine_now() - clock.from_us(path.stat().st_mtime_ns // 1000)
    except FileNotFoundError:
        return timedelta(0)
