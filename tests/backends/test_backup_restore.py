"""`fairway admin backup` and `restore`: from every engine, into folders and .tar files, tampered with and killed."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import sqlalchemy as sa
from filled import fill, sums

from fairway import clock
from fairway.data import segment
from fairway.data.log import fold
from fairway.errors import FairwayError, Refused, StoreError, TamperFound, UsageError
from fairway.keep.backup import backup
from fairway.keep.backup_files import MANIFEST
from fairway.keep.restore import restore
from fairway.store import audit, schema
from fairway.store.base import Store
from fairway.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.create(tmp_path / "ws")
    fill(made)
    runs = made.dir("runs") / "run-1"
    runs.mkdir()
    (runs / "report.html").write_text("<p>report</p>")
    (runs / "lock").touch()
    made.token()
    return made


def open_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    for name in ("FAIRWAY_STORE", "FAIRWAY_BLOBS"):
        monkeypatch.delenv(name, raising=False)
    return Workspace(folder)


@pytest.mark.parametrize("name", ["copy", "copy.tar"])
def test_what_was_backed_up_is_restored(
    workspace: Workspace, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, digests, place = sums(workspace), list(workspace.blobs), tmp_path / name
    unnamed = workspace.blobs.put(b"that no row names")
    made = backup(workspace, place)
    assert made.blobs == len(digests) and made.rows > 200 and place.stat().st_mode & 0o077 == 0
    assert restore(place, tmp_path / "new", dry_run=True).rows == made.rows and not (tmp_path / "new").exists()
    restore(place, tmp_path / "new")
    there = open_at(tmp_path / "new", monkeypatch)
    assert sums(there) == before
    assert list(there.blobs) == digests and unnamed not in there.blobs
    assert (there.folder / "runs" / "run-1" / "report.html").read_text() == "<p>report</p>"
    assert not (there.folder / "token").exists() and there.token() != workspace.token()
    assert audit.verify(there.store) is None and audit.entries(there.store)[-1].action == "restored"
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


def test_secrets_come_along_when_asked_for(workspace: Workspace, tmp_path: Path) -> None:
    keys = workspace.dir("keys")
    (keys / "audit.key").write_text("private")
    assert backup(workspace, tmp_path / "copy", secrets=True).secrets
    restore(tmp_path / "copy", tmp_path / "new")
    there = Workspace(tmp_path / "new")
    assert there.token() == workspace.token() and (there.folder / "token").stat().st_mode & 0o777 == 0o600
    assert (there.folder / "keys" / "audit.key").stat().st_mode & 0o777 == 0o600


def test_from_servers(tmp_path: Path, postgres_url: str, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRWAY_STORE", postgres_url)
    monkeypatch.setenv("FAIRWAY_BLOBS", s3_url)
    workspace = Workspace.create(tmp_path / "ws")
    fill(workspace)
    with Store(postgres_url, workspace="another") as other, other.write() as tx:
        other.add_to_counter(tx, "of_another")
    before, digests = sums(workspace), list(workspace.blobs)
    backup(workspace, tmp_path / "copy.tar")
    restore(tmp_path / "copy.tar", tmp_path / "new")
    workspace.store.close()
    there = open_at(tmp_path / "new", monkeypatch)
    assert sums(there) == before and list(there.blobs) == digests
    with there.store.read() as tx:
        assert set(tx.scalars(sa.select(schema.counter.c.workspace))) == {"default"}


def test_another_workspace_of_the_same_file_is_not_in_it(workspace: Workspace, tmp_path: Path) -> None:
    with Store(workspace.store.url, workspace="another") as other, other.write() as tx:
        other.add_to_counter(tx, "secret_of_another")
    backup(workspace, tmp_path / "copy")
    assert b"secret_of_another" in Path(workspace.folder / "store.db").read_bytes()
    assert b"secret_of_another" not in (tmp_path / "copy" / "store.db").read_bytes()


# -- the log that is not folded yet ----------------------------------------------------------------------------------


def piece(folder: Path, name: str, labels: int) -> object:
    """An open segment with `labels` feedback rows, as a living gateway has it."""
    folder.mkdir(parents=True, exist_ok=True)
    connection = segment.create(folder / f"{name}.seg", gateway="g1", opened_us=1)
    now_us = clock.to_us(clock.now())
    for number in range(labels):
        row = segment.LabelRow(f"p-{name}-{number}", "late", "e", "yes", now_us)
        with connection:
            connection.execute(
                "insert into record(kind, data) values(?, ?)", segment.encode(segment.Labels(now_us, [row]))
            )
    return connection


def test_pieces_that_are_still_written_are_in_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    spool = workspace.dir("spool")
    living = piece(spool / "open" / "g1", "living", 3)
    segment.close(piece(spool / "sealed", "sealed", 2))  # type: ignore[arg-type]
    segment.close(piece(spool / "sealed", "folded", 4))  # type: ignore[arg-type]
    kept = (spool / "sealed" / "folded.seg").read_bytes()
    fold(workspace, spool / "sealed" / "folded.seg")
    (spool / "sealed" / "folded.seg").write_bytes(kept)  # folded, and not deleted yet
    assert backup(workspace, tmp_path / "copy").unfolded == 3
    segment.close(living)  # type: ignore[arg-type]  # the gateway was not kept from it
    restore(tmp_path / "copy", tmp_path / "new")
    there = open_at(tmp_path / "new", monkeypatch)
    fold(there, sorted((there.folder / "spool" / "sealed").glob("*.seg")))
    with there.store.read() as tx:
        found = sorted(tx.scalars(sa.select(schema.label.c.prediction).where(schema.label.c.name == "late")))
    assert found == sorted(
        f"p-{name}-{n}" for name, count in (("living", 3), ("sealed", 2), ("folded", 4)) for n in range(count)
    )


# -- damage ----------------------------------------------------------------------------------------------------------


def test_any_change_to_a_backup_is_found(workspace: Workspace, tmp_path: Path) -> None:
    place, rng = tmp_path / "copy", random.Random(11)
    backup(workspace, place)
    files = [p for p in sorted(place.rglob("*")) if p.is_file() and p.name != MANIFEST and p.stat().st_size]
    for path in files:
        whole = path.read_bytes()
        spot = rng.randrange(len(whole))
        path.write_bytes(whole[:spot] + bytes([whole[spot] ^ 1]) + whole[spot + 1 :])
        with pytest.raises(TamperFound):
            restore(place, tmp_path / "new")
        path.unlink()
        with pytest.raises(TamperFound):
            restore(place, tmp_path / "new")
        path.write_bytes(whole)
    (place / "runs" / "extra").write_text("x")
    with pytest.raises(TamperFound, match="was added"):
        restore(place, tmp_path / "new")
    (place / "runs" / "extra").unlink()
    (place / "evil").write_text("x")
    with pytest.raises(TamperFound, match="does not belong"):
        restore(place, tmp_path / "new")
    (place / "evil").unlink()
    (place / "runs" / "link").symlink_to("/etc/passwd")
    with pytest.raises(TamperFound, match="link"):
        restore(place, tmp_path / "new")
    (place / "runs" / "link").unlink()
    assert not (tmp_path / "new" / ".fairway").exists()
    restore(place, tmp_path / "new")


@pytest.mark.parametrize(
    "name", ["../escaped", "/tmp/escaped", "runs/../../escaped", "blobs/x/ab/notahash", "store.db/x"]
)
def test_an_archive_can_not_write_elsewhere(workspace: Workspace, tmp_path: Path, name: str) -> None:
    backup(workspace, tmp_path / "copy.tar")
    with tarfile.open(tmp_path / "copy.tar") as old, tarfile.open(tmp_path / "evil.tar", "w") as new:
        info = tarfile.TarInfo(name)
        info.size = 4
        for member in old:
            new.addfile(member, old.extractfile(member))
        new.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(FairwayError):
        restore(tmp_path / "evil.tar", tmp_path / "new")
    assert not (tmp_path / "new" / ".fairway").exists() and not list(tmp_path.rglob("escaped"))
    link = tarfile.TarInfo("runs/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "link.tar", "w") as new:
        new.addfile(link)
    with pytest.raises(TamperFound, match="no plain file"):
        restore(tmp_path / "link.tar", tmp_path / "new")


def test_a_blob_that_is_gone_or_changed_makes_no_backup(workspace: Workspace, tmp_path: Path) -> None:
    digest = next(e.digest for page in workspace.blobs.pages() for e in page if e.size_bytes > 10)
    path, whole = workspace.blobs.path(digest), workspace.blobs.get(digest)
    path.write_bytes(b"?" + whole[1:])
    with pytest.raises(TamperFound, match=r"no whole backup; see: fairway admin doctor"):
        backup(workspace, tmp_path / "copy")
    path.unlink()
    with pytest.raises(Refused, match=rf"missing from .*{digest[:12]}"):
        backup(workspace, tmp_path / "copy.tar")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ws"]


def test_what_is_no_backup_is_said(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.tar").write_text("no archive at all, but long enough to look at" * 100)
    for place in (tmp_path / "empty", tmp_path / "text.tar", tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="no backup"):
            restore(place, tmp_path / "new")
    backup(workspace, tmp_path / "copy")
    with pytest.raises(UsageError, match="is there already"):
        backup(workspace, tmp_path / "copy")
    with pytest.raises(UsageError, match="has a workspace already"):
        restore(tmp_path / "copy", workspace.root)
    about = json.loads((tmp_path / "copy" / MANIFEST).read_text())
    (tmp_path / "copy" / MANIFEST).write_text(json.dumps({**about, "format": 99}))
    with pytest.raises(StoreError, match="format 99"):
        restore(tmp_path / "copy", tmp_path / "new")


# -- death -----------------------------------------------------------------------------------------------------------

RUN = """
import os, signal, sys, threading
from pathlib import Path
from fairway.keep.backup import backup
from fairway.keep.restore import restore
from fairway.store.workspace import Workspace
what, one, other, wait_s = sys.argv[1:]
threading.Timer(float(wait_s), os.kill, (os.getpid(), signal.SIGKILL)).start()
backup(Workspace(Path(one)), Path(other)) if what == "backup" else restore(Path(one), Path(other))
os._exit(0)
"""


@pytest.mark.parametrize("what", ["backup", "restore"])
def test_killed_it_leaves_nothing_with_a_name_and_is_repeated(workspace: Workspace, tmp_path: Path, what: str) -> None:
    for number in range(30):
        workspace.blobs.put(os.urandom(200_000) + bytes([number]))
    if what == "restore":
        backup(workspace, tmp_path / "copy.tar")
    one, other = (
        (workspace.root, tmp_path / "copy2.tar") if what == "backup" else (tmp_path / "copy.tar", tmp_path / "new")
    )
    target = other if what == "backup" else other / ".fairway"
    deaths = 0
    while not target.exists():
        wait_s = str(0.004 * 1.6**deaths)
        done = subprocess.run([sys.executable, "-c", RUN, what, str(one), str(other), wait_s], check=False)
        deaths += done.returncode == -signal.SIGKILL
    assert deaths >= 2
    if what == "backup":
        restore(other, tmp_path / "new")
    assert sums(Workspace(tmp_path / "new")) == sums(workspace)
