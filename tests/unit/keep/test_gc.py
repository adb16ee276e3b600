"""gc deletes what nothing pins, never what a row or a run under way needs, and can be killed and repeated."""

import contextlib
import fcntl
import os
import threading
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from fairway import clock, fingerprint
from fairway.errors import Refused, StoreError
from fairway.keep import gc
from fairway.keep.pins import NOT_BLOBS, looked_at, pins, text_columns
from fairway.runtime.package import read_manifest
from fairway.store import schema

# Columns that name blobs today. A new one is looked at without being named here.
NAMED = {
    ("version", "artifact"), ("dataset", "blob"), ("dataset", "parts"), ("log_file", "blob"), ("segment", "blob"),
    ("step", "result"), ("run", "result"), ("run", "steps"), ("job", "payload"), ("job", "result"),
    ("job_step", "result"), ("signal", "payload"), ("source_state", "content"), ("meta", "value"),
}  # fmt: skip


def value_for(column: sa.Column[Any], digest: str) -> Any:
    if column.name == "workspace":
        return "default"
    if column in text_columns(column.table):
        return {"it": [digest]} if type(column.type).__name__ == "JSON" else digest
    return clock.now() if type(column.type).__name__ == "Timestamp" else 1


@pytest.mark.parametrize("table", schema.metadata.sorted_tables, ids=lambda t: t.name)
def test_every_column_of_every_table_that_could_name_a_blob_pins_it(kept: Any, table: sa.Table) -> None:
    """A column that is added tomorrow pins what it names, or stands in NOT_BLOBS with a reason."""
    digests = {c.name: fingerprint.of_bytes(f"{table.name}.{c.name}".encode()) for c in text_columns(table)}
    row = {c.name: value_for(c, digests.get(c.name, "")) for c in table.columns}
    with kept.workspace.store.write() as tx:
        tx.execute(sa.insert(table).values(**row))
    with kept.workspace.store.read() as tx:
        if table is schema.version:  # its artifact is no package: then nothing may be deleted at all
            with pytest.raises(Refused, match="nothing is deleted"):
                pins(kept.workspace, tx)
            return
        found = pins(kept.workspace, tx)
    pinned = {name for name, digest in digests.items() if digest in found}
    assert set(digests) - pinned == set(NOT_BLOBS.get(table.name, ()))
    assert {name for t, name in NAMED if t == table.name} <= {c.name for c in looked_at(table)}


def test_not_blobs_names_only_columns_that_are_there() -> None:
    for name, columns in NOT_BLOBS.items():
        assert set(columns) <= {c.name for c in schema.metadata.tables[name].columns}


def test_only_what_nothing_names_goes(kept: Any) -> None:
    number = kept.version()
    row = kept.rows(schema.version)[0]
    files = set(read_manifest(kept.workspace.blobs.get(row["artifact"])).files.values())
    needed = set(kept.workspace.blobs)
    orphan = kept.workspace.blobs.put(b"left by a killed command")
    kept.age(days=2)
    tried = gc.collect(kept.workspace, actor="ana")
    assert not tried.deleted and tried.kinds["blobs"].names == [orphan] and orphan in kept.workspace.blobs
    done = gc.collect(kept.workspace, actor="ana", delete=True)
    assert done.kinds["blobs"].count == 1 and done.size_bytes == len(b"left by a killed command")
    assert set(kept.workspace.blobs) == needed >= files | {row["artifact"]} and number == 1
    assert gc.collect(kept.workspace, actor="ana", delete=True).size_bytes == 0
    assert kept.actions()[-4:] == ["version_registered", "gc", "gc_done", "gc"]


def test_what_is_young_or_put_again_stays(kept: Any) -> None:
    orphan = kept.workspace.blobs.put(b"about to be named")
    found = gc.collect(kept.workspace, actor="ana", delete=True)
    assert found.kept_young == 1 and found.kinds["blobs"].count == 0
    kept.age(days=2)
    kept.workspace.blobs.put(b"about to be named")
    assert gc.collect(kept.workspace, actor="ana", delete=True).kept_young == 1 and orphan in kept.workspace.blobs


def test_a_run_under_way_protects_what_was_put_since_it_began(kept: Any) -> None:
    kept.run("run-live", status="running")
    folder = kept.workspace.dir("runs") / "run-live"
    folder.mkdir()
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    old = kept.workspace.blobs.put(b"from before")
    kept.age(days=5)
    began = (clock.machine_now() - timedelta(days=4)).timestamp()
    os.utime(folder / "lock", (began, began))
    mine = kept.workspace.blobs.put(b"made by the run")
    past = (clock.machine_now() - timedelta(days=3)).timestamp()  # one day into the run
    os.utime(kept.workspace.blobs.path(mine), (past, past))
    (kept.workspace.dir("cache") / "steps" / "abc").mkdir(parents=True)
    os.utime(kept.workspace.dir("cache") / "steps" / "abc", (past, past))
    done = gc.collect(kept.workspace, actor="ana", delete=True)
    assert done.running == ("run-live",) and done.kinds["blobs"].names == [old]
    assert mine in kept.workspace.blobs and (kept.workspace.dir("cache") / "steps" / "abc").exists()
    os.close(lock)  # it was killed: its row still says running
    done = gc.collect(kept.workspace, actor="ana", delete=True)
    assert done.running == () and done.kinds["blobs"].names == [mine] and done.kinds["step results"].count == 1


def test_unused_data_goes_after_its_time_and_shared_parts_stay(kept: Any) -> None:
    used = kept.dataset(["a", "b"])
    kept.version(dataset=used)
    shared = next(row for row in kept.rows(schema.dataset) if row["dataset"] == used)
    unused = kept.dataset(["x", "y"])
    with kept.workspace.store.write() as tx:
        twin = {**shared, "dataset": "data-twin", "created_at": clock.now()}
        tx.execute(sa.insert(schema.dataset).values(**twin))
    kept.age(days=2)
    later = timedelta(microseconds=-1)  # everything is older than that
    tried = gc.collect(kept.workspace, actor="ana", unused=later)
    assert sorted(tried.kinds["datasets"].names) == sorted([unused, "data-twin"]) and tried.kinds["blobs"].count == 1
    gc.collect(kept.workspace, actor="ana", delete=True, unused=later)
    assert [row["dataset"] for row in kept.rows(schema.dataset)] == [used] and shared["blob"] in kept.workspace.blobs


def test_folders_of_what_came_to_nothing_go(kept: Any) -> None:
    artifact = kept.package()
    kept.version(artifact=artifact)
    kept.run("run-1")
    kept.run("run-bad", status="failed")
    for name in ("run-1", "run-bad", "run-unknown"):
        (kept.workspace.dir("runs") / name).mkdir()
        (kept.workspace.dir("runs") / name / "report.html").write_text("x")
    for name in (artifact, "0" * 64, ".halfway"):
        (kept.workspace.dir("cache") / "artifacts" / name).mkdir(parents=True)
    store = kept.workspace.store
    with store.write() as tx:
        from fairway.rollout import traffic

        traffic.change(store, tx, "small", actor="t", action="t", now=clock.now(), model="small", champion=1)
    kept.age(days=2)
    gc.collect(kept.workspace, actor="ana", delete=True, unused=timedelta(microseconds=-1))
    assert sorted(p.name for p in (kept.workspace.folder / "runs").iterdir()) == ["run-1"]
    assert [p.name for p in (kept.workspace.folder / "cache" / "artifacts").iterdir()] == [artifact]


def test_gc_beside_runs_that_name_what_lies_there(kept: Any) -> None:
    """A run puts bytes that are there, old and pinned by nothing, and names them; a gc goes all the time."""
    blobs, lost = kept.workspace.blobs, []
    contents = [f"part {i}".encode() for i in range(12)]
    stop = threading.Event()

    def collecting() -> None:
        while not stop.is_set():
            gc.collect(kept.workspace, actor="gc", delete=True)

    thread = threading.Thread(target=collecting)
    thread.start()
    try:
        for turn in range(2):
            past = (clock.machine_now() - timedelta(days=3)).timestamp()
            for data in contents:
                digest = blobs.put(data)
                with contextlib.suppress(FileNotFoundError, StoreError):  # the gc was there
                    os.utime(blobs.path(digest), (past, past))
            for data in contents:  # the run: it puts, and a moment later its row says so
                digest = blobs.put(data)
                lost += [] if digest in blobs else [(turn, digest)]
            with kept.workspace.store.write() as tx:
                row = {
                    "workspace": "default",
                    "segment": f"s{turn}",
                    "blob": "x" * 64,
                    "rows": 1,
                    "folded_at": clock.now(),
                }
                tx.execute(sa.insert(schema.segment).values(**row))
    finally:
        stop.set()
        thread.join()
    assert lost == [] and all(fingerprint.of_bytes(data) in blobs for data in contents)


def test_a_killed_gc_is_repeated(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.version()
    for number in range(6):
        kept.workspace.blobs.put(f"orphan {number}".encode())
    kept.age(days=2)
    needed = {row["artifact"] for row in kept.rows(schema.version)}
    delete, deaths = kept.workspace.blobs.delete, iter([False, False, True])

    def dying(digest: str, **more: Any) -> bool:
        if next(deaths, True):
            raise KeyboardInterrupt
        return bool(delete(digest, **more))

    monkeypatch.setattr(kept.workspace.blobs, "delete", dying)
    with pytest.raises(KeyboardInterrupt):
        gc.collect(kept.workspace, actor="ana", delete=True)
    monkeypatch.undo()
    assert gc.collect(kept.workspace, actor="ana", delete=True).kinds["blobs"].count == 4
    assert needed <= set(kept.workspace.blobs)


def test_a_version_whose_package_is_gone_stops_gc(kept: Any) -> None:
    kept.version()
    kept.workspace.blobs.delete(kept.rows(schema.version)[0]["artifact"])
    kept.age(days=2)
    before = set(kept.workspace.blobs)
    with pytest.raises(Refused, match="small@1 can't be read"):
        gc.collect(kept.workspace, actor="ana", delete=True)
    assert set(kept.workspace.blobs) == before
