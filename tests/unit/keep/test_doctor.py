"""The doctor names what is broken and what to try; a whole workspace passes."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from keep_world import request

from fairway import clock
from fairway.keep.doctor import Finding, examine
from fairway.rollout import traffic
from fairway.store import audit, heads, schema


def findings(kept: Any) -> dict[str, Finding]:
    return {f.check: f for f in examine(kept.workspace)}


@pytest.fixture
def whole(kept: Any) -> Any:
    kept.version()
    kept.workspace.token()
    kept.fold(request("r1", ["a"]))
    store = kept.workspace.store
    with store.write() as tx:
        traffic.change(store, tx, "small", actor="t", action="t", now=clock.now(), model="small", champion=1)
    return kept


def test_a_whole_workspace_passes(whole: Any) -> None:
    found = findings(whole)
    assert {name: f.verdict for name, f in found.items() if f.verdict != "pass"} == {"audit heads": "warn"}
    assert heads.VARIABLE in found["audit heads"].try_next and all(f.summary for f in found.values())
    assert {"sqlite", "folder", "disk", "secrets", "server", "store", "database", "clock", "audit", "packages", "data",
            "blobs", "orphans", "spool"} <= found.keys()  # fmt: skip


def broken_blob(kept: Any) -> None:
    path = kept.workspace.blobs.path(kept.rows(schema.log_file)[0]["blob"])
    path.write_bytes(b"x" + path.read_bytes()[1:])


def lost_package(kept: Any) -> None:
    kept.workspace.blobs.delete(kept.rows(schema.version)[0]["artifact"])


def lost_data(kept: Any) -> None:
    kept.workspace.blobs.delete(kept.rows(schema.dataset)[0]["blob"])


def open_token(kept: Any) -> None:
    (kept.workspace.folder / "token").chmod(0o644)


def changed_entry(kept: Any) -> None:
    with kept.workspace.store.write() as tx:
        tx.execute(sa.update(schema.audit).where(schema.audit.c.entry == 1).values(actor="eve"))


def broken_segment(kept: Any) -> None:
    folder = kept.workspace.dir("spool") / "broken"
    folder.mkdir()
    (folder / "s.seg").write_text("x")


def left_segment(kept: Any) -> None:
    folder = kept.workspace.dir("spool") / "open" / "g1"
    folder.mkdir(parents=True)
    (folder / "s.seg").write_text("x")


def dead_server(kept: Any) -> None:
    (kept.workspace.folder / "serve.json").write_text('{"pid": 1, "predict": "http://x"}')


def future_entry(kept: Any) -> None:
    with kept.workspace.store.write() as tx:
        audit.record(kept.workspace.store, tx, actor="t", action="t", subject="t")
        tx.execute(sa.update(schema.audit).values(at=clock.now() + timedelta(hours=1)))


def half_erasure(kept: Any) -> None:
    with kept.workspace.store.write() as tx:
        tx.execute(sa.insert(schema.erasure).values(workspace="default", erasure="erasure-1", model="small", entity="e",
                                                    state="running", found={}, asked_by="a", asked_at=clock.now(),
                                                    why="w"))  # fmt: skip


@pytest.mark.parametrize(
    ("breaks", "check", "verdict"),
    [
        (broken_blob, "blobs", "fail"), (lost_package, "packages", "fail"), (lost_data, "data", "fail"),
        (open_token, "secrets", "fail"), (changed_entry, "audit", "fail"), (broken_segment, "spool", "fail"),
        (left_segment, "spool", "warn"), (dead_server, "server", "warn"), (future_entry, "clock", "warn"),
        (half_erasure, "erasures", "warn"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)  # fmt: skip
def test_what_is_broken_is_named(whole: Any, breaks: Any, check: str, verdict: str) -> None:
    breaks(whole)
    found = findings(whole)[check]
    assert found.verdict == verdict and found.try_next


def test_a_cut_tail_is_found_with_the_copies(whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(heads.VARIABLE, str(tmp_path / "elsewhere"))
    heads.write_elsewhere(whole.workspace, heads.elsewhere() or "")
    assert findings(whole)["audit heads"].verdict == "pass"
    with whole.workspace.store.write() as tx:
        tx.execute(sa.delete(schema.audit).where(schema.audit.c.entry == 3))
    assert "entry 3 is gone" in findings(whole)["audit"].summary


def test_what_nothing_needs_is_counted(whole: Any) -> None:
    whole.workspace.blobs.put(b"orphan")
    whole.age(days=2)
    assert "1 thing that nothing needs" in findings(whole)["orphans"].summary


def test_a_store_that_does_not_open_is_said_and_the_rest_looked_at(whole: Any) -> None:
    from fairway.store.workspace import Workspace

    whole.workspace.store.close()
    os.truncate(whole.workspace.folder / "store.db", 1000)
    found = {f.check: f for f in examine(Workspace(whole.workspace.root))}
    assert found["store"].verdict == "fail" and found["disk"].verdict == "pass"
