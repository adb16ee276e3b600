"""Keeping it on real servers: chain, pins, gc, retention and erasure on Postgres and a bucket; heads in a bucket."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "keep"))
from keep_world import MODEL, NOW, Kept, request

from fairway import clock
from fairway.data import log
from fairway.keep import as_of, erasure, gc, retention
from fairway.rollout import traffic
from fairway.store import audit, heads, schema, tokens
from fairway.store.workspace import Workspace


@pytest.fixture
def kept(tmp_path: Path, postgres_url: str, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("FAIRWAY_STORE", postgres_url)
    monkeypatch.setenv("FAIRWAY_BLOBS", s3_url)
    monkeypatch.setenv(heads.VARIABLE, s3_url + "/heads")
    made = Kept(Workspace.create(tmp_path / "ws"))
    yield made
    made.workspace.store.close()


def test_a_team_keeps_it_like_one_machine(kept: Any) -> None:
    workspace, store = kept.workspace, kept.workspace.store
    data = kept.dataset(["jo", "b", "c"])
    kept.version(artifact=kept.package(["jo", "b"]), dataset=data)
    with store.write() as tx:
        traffic.change(store, tx, MODEL, actor="ana", action="rollout.first", now=clock.now(), model=MODEL, champion=1,
                       shares={"1": 1.0})  # fmt: skip
    kept.fold(request("r1", ["jo", "b"], at=NOW))
    kept.fold(request("r2", ["b"], at=NOW + timedelta(days=3)))
    needed = set(workspace.blobs)
    orphan = workspace.blobs.put(b"left over")
    done = gc.collect(workspace, actor="ana", delete=True, grace=timedelta(seconds=-60))
    assert done.kinds["blobs"].names == [orphan] and set(workspace.blobs) == needed

    erased = erasure.erase(workspace, MODEL, entity="jo", why="ticket 88", actor="ana", now=clock.now())
    assert erased.done and erased.counts["rows of the log"] == erased.counts["held-out rows in packages"] == 1
    assert log.predictions(workspace, MODEL)["entity"].to_list() == ["b", "b"]
    assert retention.drop(workspace, MODEL, keep=timedelta(days=1), now=NOW + timedelta(days=3))
    assert log.predictions(workspace, MODEL).height == 1

    for _ in range(2):
        heads.write_elsewhere(workspace, heads.elsewhere() or "")
    copies = heads.kept(workspace, heads.elsewhere() or "")
    found = as_of.evidence(workspace, MODEL, at=clock.now(), copies=copies)
    assert as_of.problems(found) == [] and found["chain"]["head"]["outcome"] == "same"
    assert audit.verify(store) is None and len(list(audit.lines(store))) == found["chain"]["entries"]
    with store.write() as tx:
        tx.execute(sa.delete(schema.audit).where(schema.audit.c.entry >= copies[0].entry))
    chain = audit.walk(store, at={copies[0].entry})
    compared = heads.compare(workspace, chain, copies, keys=[copies[0].public_key])
    assert compared is not None and compared.outcome == "cut"


def test_every_change_is_found_on_postgres_too(kept: Any) -> None:
    store = kept.workspace.store
    with store.write() as tx:
        for number in range(8):
            audit.record(store, tx, actor="ana", action="promote", subject="churn", n=number, x=0.1)
    for change in ({"actor": "eve"}, {"detail": {"n": 9}}, {"at": NOW}, {"hash": "0" * 64}):
        with store.read() as tx:
            before = dict(tx.execute(sa.select(schema.audit).where(schema.audit.c.entry == 5)).one()._mapping)
        with store.write() as tx:
            tx.execute(sa.update(schema.audit).where(schema.audit.c.entry == 5).values(**change))
        assert audit.verify(store) == 5
        with store.write() as tx:
            tx.execute(sa.update(schema.audit).where(schema.audit.c.entry == 5).values(**before))
    assert audit.verify(store) is None
    token = tokens.create(store, name="kim", roles=["viewer"], actor="t")
    assert tokens.identify(store, token) and next(iter(tokens.named(store))).last_used_at is not None
