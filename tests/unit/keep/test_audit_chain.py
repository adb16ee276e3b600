"""The chain finds every single change and names its entry; signed heads tell a cut and a rewritten tail."""

import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from fairway import clock, fingerprint
from fairway.errors import FairwayError, TamperFound, UsageError
from fairway.runtime.package import materialise
from fairway.store import audit, heads, schema
from fairway.store.workspace import Workspace

TABLE = schema.audit
DRAWS = 60  # of 500 in bench/bench_keep.py


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path / "ws")


def write(workspace: Workspace, n: int) -> None:
    with workspace.store.write() as tx:
        for number in range(n):
            audit.record(
                workspace.store, tx, actor="ana", action="promote", subject=f"churn@{number}", n=number, why="naïve"
            )


def put_back(workspace: Workspace, rows: list[Any]) -> None:
    with workspace.store.write() as tx:
        tx.execute(sa.delete(TABLE))
        tx.execute(sa.insert(TABLE), [dict(row._mapping) for row in rows])


def change(workspace: Workspace, draw: random.Random, n: int) -> int:
    """One drawn change of one drawn entry; the number of the first entry that is not what it was."""
    entry = draw.randint(1, n - 1)
    kind = draw.choice(["value", "hash", "previous", "at", "detail", "broken", "removed", "swapped", "renumbered"])
    at = TABLE.c.entry == entry
    with workspace.store.write() as tx:
        if kind == "value":
            tx.execute(sa.update(TABLE).where(at).values({draw.choice(["actor", "action", "subject"]): "eve"}))
        elif kind in ("hash", "previous"):
            tx.execute(sa.update(TABLE).where(at).values({kind: fingerprint.of_bytes(draw.randbytes(8))}))
        elif kind == "at":
            tx.execute(sa.update(TABLE).where(at).values(at=clock.now() - timedelta(days=400)))
        elif kind == "detail":
            tx.execute(sa.update(TABLE).where(at).values(detail={"n": -1}))
        elif kind == "broken":
            tx.execute(sa.text("update audit set detail = '{', at = 'noon' where entry = :e").bindparams(e=entry))
        elif kind == "removed":
            tx.execute(sa.delete(TABLE).where(at))
        elif kind == "swapped":
            for old, new in ((entry, 0), (entry + 1, entry), (0, entry + 1)):
                tx.execute(sa.update(TABLE).where(TABLE.c.entry == old).values(entry=new))
        else:
            tx.execute(sa.update(TABLE).where(at).values(entry=n + 7))
    return entry


def test_drawn_changes_are_all_found_with_their_number(workspace: Workspace) -> None:
    n, draw = 40, random.Random(19)
    write(workspace, n)
    rows = audit.entries(workspace.store)
    assert audit.verify(workspace.store) is None
    for _ in range(DRAWS):
        entry = change(workspace, draw, n)
        assert audit.verify(workspace.store) == entry
        put_back(workspace, rows)
    assert audit.verify(workspace.store) is None


def test_a_changed_byte_of_a_package_or_its_manifest_is_refused(kept: Any) -> None:
    draw, workspace = random.Random(20), kept.workspace
    artifact = kept.package()
    names = {artifact, *package_files(workspace, artifact)}
    for _ in range(20):
        digest = draw.choice(sorted(names))
        path = workspace.blobs.path(digest)
        before = path.read_bytes()
        place = draw.randrange(len(before))
        path.write_bytes(before[:place] + bytes([before[place] ^ (1 << draw.randrange(8))]) + before[place + 1 :])
        with pytest.raises(FairwayError, match=digest[:12]):
            materialise(workspace, artifact)
        path.write_bytes(before)
    assert materialise(workspace, artifact).is_dir()


def package_files(workspace: Workspace, artifact: str) -> list[str]:
    from fairway.runtime.package import read_manifest

    return list(read_manifest(workspace.blobs.get(artifact)).files.values())


def compared(workspace: Workspace, *copies: heads.Head, keys: tuple[str, ...] = ()) -> heads.Compared:
    chain = audit.walk(workspace.store, at={copy.entry for copy in copies})
    found = heads.compare(workspace, chain, copies, keys=keys)
    assert found is not None
    return found


def test_a_cut_tail_is_told_only_by_the_head(workspace: Workspace) -> None:
    write(workspace, 10)
    head = heads.sign(workspace)  # entry 11 introduces the key
    assert head.entry == 11 and compared(workspace, head).outcome == "same"
    write(workspace, 3)
    assert compared(workspace, head).outcome == "same"
    with workspace.store.write() as tx:
        tx.execute(sa.delete(TABLE).where(TABLE.c.entry > 9))
    assert audit.verify(workspace.store) is None
    found = compared(workspace, head)
    assert found.outcome == "cut" and "entries 10 to 11 are gone" in found.text


def test_a_rewritten_tail_is_told_from_the_head(workspace: Workspace) -> None:
    write(workspace, 10)
    early, late = heads.sign(workspace), None
    write(workspace, 10)
    late = heads.sign(workspace)
    with workspace.store.write() as tx:
        tx.execute(sa.delete(TABLE).where(TABLE.c.entry > 15))
        for _ in range(9):
            audit.record(workspace.store, tx, actor="eve", action="promote", subject="churn@1")
    assert audit.verify(workspace.store) is None
    found = compared(workspace, late, early)
    assert found.outcome == "rewritten" and "entries from 12 on were written anew" in found.text


def test_a_foreign_key_and_a_changed_head_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    write(workspace, 4)
    other = Workspace.create(tmp_path / "other")
    write(other, 4)
    foreign = heads.sign(other)
    assert compared(workspace, foreign).outcome == "wrong key"
    head = heads.sign(workspace)
    file = tmp_path / "head.json"
    file.write_bytes(head.to_bytes().replace(b'"entry": 5', b'"entry": 4'))
    with pytest.raises(TamperFound, match=r"head\.json was changed"):
        heads.head_file(file)
    file.write_text("{}")
    with pytest.raises(UsageError, match="is no head"):
        heads.head_file(file)


def test_the_key_is_private_and_made_once(workspace: Workspace) -> None:
    first, second = heads.sign(workspace), heads.sign(workspace)
    assert (first.public_key, first.entry) == (second.public_key, second.entry)
    folder = workspace.folder / "keys"
    assert (folder / "audit.key").stat().st_mode & 0o777 == 0o600 and folder.stat().st_mode & 0o777 == 0o700
    assert [row.subject for row in audit.entries(workspace.store)] == [first.public_key]


def test_the_daily_head_goes_to_the_place_kept_elsewhere(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(workspace, 2)
    assert heads.elsewhere() is None and heads.last_written(workspace) is None
    place = tmp_path / "elsewhere"
    monkeypatch.setenv(heads.VARIABLE, str(place))
    for _ in range(2):  # without a new entry the second adds nothing
        heads.write_elsewhere(workspace, heads.elsewhere() or "")
    assert (heads.last_written(workspace) or {})["entry"] == 3
    (file,) = place.iterdir()
    assert file.name == "default-0000000003.json"
    write(workspace, 2)
    assert compared(workspace, *heads.kept(workspace, str(place))).outcome == "same"
    with workspace.store.write() as tx:
        tx.execute(sa.delete(TABLE).where(TABLE.c.entry > 2))
    assert compared(workspace, *heads.kept(workspace, str(place))).outcome == "cut"


def test_lines_can_be_checked_without_fairway(workspace: Workspace) -> None:
    import hashlib
    import json

    write(workspace, 5)
    previous = "0" * 64
    for line in audit.lines(workspace.store):
        entry = json.loads(line)
        digest = entry.pop("hash")
        plain = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert hashlib.sha256(plain).hexdigest() == digest and entry["previous"] == previous
        previous = digest
