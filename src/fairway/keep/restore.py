"""A workspace from a backup, in a folder: everything is verified before it gets its name."""

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from fairway import clock, fingerprint
from fairway.errors import StoreError, TamperFound, UsageError
from fairway.keep.backup import FORMAT, Backup, facts
from fairway.keep.backup_files import MANIFEST, SECRETS, STORE, Folder, check_name, members, names_hash, remove
from fairway.store import audit, transfer
from fairway.store.base import Store
from fairway.store.blobs import sync_folder, trouble
from fairway.store.workspace import FOLDER

Say = Callable[[str], None]


def restore(place: Path, to: Path, *, dry_run: bool = False, say: Say = lambda text: None) -> Backup:
    """Make `to`/.fairway from a backup. It appears whole, or not at all.

    Raises: UsageError for what is no backup or a folder that has a workspace, TamperFound for a changed, missing or
    extra file, StoreError.
    """
    began_s = clock.elapsed()
    if not place.exists():
        raise UsageError(f"there is no backup {place}", field="backup")
    target, staging = to / FOLDER, to / f"{FOLDER}.restoring"
    if target.exists():
        raise UsageError(f"{to} has a workspace already ({target}): choose another folder", field="to")
    remove(staging)  # of a restore that was killed
    try:
        staging.mkdir(parents=True)
        about, size_bytes = _unpack(place, staging, say)
        secret = [p for name in SECRETS for p in [staging / name, *(staging / name).glob("*")] if p.exists()]
        for path in secret:
            path.chmod(0o700 if path.is_dir() else 0o600)
        found = facts(about)
        with Store(f"sqlite:///{staging / STORE}", workspace=about["workspace"]) as store:
            with store.read() as tx:
                rows = {t.name: transfer.count(tx, t, store.workspace) for t in transfer.tables()}
            if {n: c for n, c in rows.items() if c} != {n: c for n, c in about["tables"].items() if c}:
                raise TamperFound(f"{place} has other numbers of rows than it says")
            if not dry_run:
                with store.write() as tx:
                    audit.record(
                        store, tx, actor="restore", action="restored", subject=store.workspace,
                        backup=fingerprint.of_value(about), made_at=about["made_at"],
                    )  # fmt: skip
        if not dry_run:
            staging.rename(target)
            sync_folder(to)
    except OSError as exc:
        raise trouble(exc, f"{place} can't be restored to {to}") from exc
    finally:
        remove(staging)
        if dry_run and to.is_dir() and not any(to.iterdir()):
            to.rmdir()
    return Backup(place=str(place), size_bytes=size_bytes, seconds=round(clock.elapsed() - began_s, 1), **found)


def _unpack(place: Path, staging: Path, say: Say) -> tuple[dict[str, Any], int]:
    found: dict[str, str] = {}
    blobs: list[str] = []
    size_bytes, into = 0, Folder(staging)
    data = b""
    for name, size, file in members(place):
        if name == MANIFEST:
            data = file.read()
            continue
        check_name(name, place)
        size_bytes += size
        digest = into.add(name, file, size)
        if name.startswith("blobs/"):
            if PurePosixPath(name).name != digest:
                raise TamperFound(f"{name} in {place} was changed: its bytes have another hash")
            blobs.append(digest)
        else:
            found[name] = digest
        say(f"{len(blobs) + len(found):,} files, {size_bytes / 1e6:,.0f} MB")
    if not data:
        raise UsageError(f"{place} is no backup, or not a whole one: it has no {MANIFEST}", field="backup")
    about: dict[str, Any] = json.loads(data)
    if about["format"] > FORMAT:
        raise StoreError(f"the backup has format {about['format']}; this fairway reads {FORMAT}: install a newer one")
    for name in sorted(found.keys() | about["files"].keys()):
        if found.get(name) != about["files"].get(name):
            what = "is missing" if name not in found else "was changed" if name in about["files"] else "was added"
            raise TamperFound(f"{name} in {place} {what}")
    told = about["blobs"]
    if (len(blobs), names_hash(blobs)) != (told["count"], told["hash"]):
        raise TamperFound(
            f"{place} has {len(blobs):,} blobs, and {told['count']:,} belong to it: some are missing or new"
        )
    return about, size_bytes
