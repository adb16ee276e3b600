"""Transactions, sequences, jobs, blobs, the audit chain, and refusing a newer store."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from fairway.errors import StoreError, TamperFound
from fairway.store import audit, jobs, schema
from fairway.store.base import Store, jsonable
from fairway.store.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.create(tmp_path)


def test_numbers_have_no_gap_and_no_double_under_concurrent_writers(workspace: Workspace) -> None:
    store, numbers = workspace.store, []

    def work() -> None:
        for _ in range(10):
            with store.write() as tx:
                numbers.append(store.next_number(tx, "version/churn"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 41))


def test_a_failed_transaction_leaves_nothing(workspace: Workspace) -> None:
    store = workspace.store

    def die() -> None:
        with store.write() as tx:
            store.next_number(tx, "rollout")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        die()
    with store.write() as tx:
        assert store.next_number(tx, "rollout") == 1


def test_a_newer_store_is_refused(workspace: Workspace) -> None:
    with workspace.store.write() as tx:
        tx.execute(sa.update(schema.meta).where(schema.meta.c.key == "format").values(value=schema.FORMAT + 1))
    with pytest.raises(StoreError, match="install a newer one"):
        Store(workspace.store.url)


def test_times_are_exact_and_aware(workspace: Workspace) -> None:
    at = datetime(2014, 5, 1, 7, 0, 0, 123457, tzinfo=UTC)
    store = workspace.store
    with store.write() as tx:
        row = {"workspace": "default", "segment": "s", "blob": "b", "rows": 1, "folded_at": at}
        assert store.insert_new(tx, schema.segment, row) == 1
        assert store.insert_new(tx, schema.segment, row) == 0
        assert tx.scalar(sa.select(schema.segment.c.folded_at)) == at
    assert jsonable({"at": at}) == {"at": "2014-05-01T07:00:00.123457Z"}


def test_a_job_is_queued_once_claimed_once_and_fenced(workspace: Workspace) -> None:
    store = workspace.store
    with store.write() as tx:
        assert jobs.submit(store, tx, kind="train", key="churn", payload={"a": 1}) == "job-1"
        assert jobs.submit(store, tx, kind="train", key="churn", payload={}) is None
    first = jobs.claim(store, owner="a", lease=timedelta(seconds=-1))  # its holder is already late
    second = jobs.claim(store, owner="b")
    assert first and second and (first.job, first.attempts, second.attempts) == ("job-1", 1, 2)
    assert jobs.claim(store, owner="c") is None
    with store.write() as tx:
        assert not jobs.finish(store, tx, first, result={})  # the fence: an old holder can't end it
        assert jobs.finish(store, tx, second, result={"ok": True})
    assert jobs.pending(store) == 0


def test_every_single_change_to_the_audit_chain_is_found(workspace: Workspace) -> None:
    store = workspace.store
    for number in range(6):
        with store.write() as tx:
            audit.record(store, tx, actor="ana", action="promote", subject=f"churn@{number}", n=number)
    assert audit.verify(store) is None
    original = audit.entries(store)
    for row in original[1:5]:
        entry = row.entry
        for change in (
            sa.update(schema.audit).where(schema.audit.c.entry == entry).values(actor="eve"),
            sa.delete(schema.audit).where(schema.audit.c.entry == entry),
        ):
            with store.write() as tx:
                tx.execute(change)
            assert audit.verify(store) == entry
            with store.write() as tx:
                tx.execute(sa.delete(schema.audit).where(schema.audit.c.entry == entry))
                tx.execute(sa.insert(schema.audit).values(**row._mapping))
    assert audit.verify(store) is None


def test_blobs_are_by_content_and_a_changed_byte_is_found(workspace: Workspace) -> None:
    digest = workspace.blobs.put(b"model")
    assert workspace.blobs.put(b"model") == digest
    assert digest in workspace.blobs and list(workspace.blobs) == [digest]
    workspace.blobs.path(digest).write_bytes(b"mOdel")
    with pytest.raises(TamperFound):
        workspace.blobs.get(digest)
    with pytest.raises(StoreError, match="missing"):
        workspace.blobs.get("0" * 64)


def test_the_token_is_made_once_and_private(workspace: Workspace) -> None:
    token = workspace.token()
    assert token.startswith("fw_") and workspace.token() == token
    assert (workspace.folder / "token").stat().st_mode & 0o777 == 0o600


def test_the_workspace_is_found_upwards(workspace: Workspace) -> None:
    inner = workspace.root / "a" / "b"
    inner.mkdir(parents=True)
    assert Workspace.find(inner).root == workspace.root
