"""Where a workspace's store and blobs are, as the environment says it."""

from pathlib import Path

import pytest

from fairway.errors import UsageError
from fairway.store import schema
from fairway.store.blobs import LocalBlobs
from fairway.store.workspace import BLOBS_KEY, Workspace


def test_two_settings_move_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Workspace.create(tmp_path / "ws")
    assert here.blobs.where == str(here.folder / "blobs") and not here.blobs.remote
    monkeypatch.setenv("FAIRWAY_STORE", f"sqlite:///{tmp_path / 'other.db'}")
    monkeypatch.setenv("FAIRWAY_BLOBS", str(tmp_path / "shared"))
    there = Workspace(here.root)
    with there.store.write() as tx:
        there.store.add_to_counter(tx, "x")
    digest = there.blobs.put(b"shared")
    assert (tmp_path / "other.db").exists() and digest not in here.blobs
    assert digest in LocalBlobs(tmp_path / "shared")


def test_a_scratch_workspace_ignores_the_servers_of_the_real_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRWAY_STORE", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setenv("FAIRWAY_BLOBS", "s3://bucket/x")
    scratch = Workspace.create(tmp_path / "scratch", embedded=True)
    scratch.blobs.put(b"x")
    assert Workspace.find(scratch.root).store.file == scratch.folder / "store.db"
    assert Workspace(scratch.root).blobs.where == str(scratch.folder / "blobs")


@pytest.mark.parametrize("url", ["http://host/x", "relative/folder", "s3:/bucket", "s3://", "gs://bucket"])
def test_what_is_no_place_for_blobs_is_refused(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRWAY_BLOBS", url)
    with pytest.raises(UsageError, match=r"write s3://bucket/prefix") as found:
        _ = Workspace.create(tmp_path).blobs
    assert found.value.field == "FAIRWAY_BLOBS"


def test_blobs_that_were_moved_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.create(tmp_path)
    with workspace.store.write() as tx:
        row = {"workspace": "default", "key": BLOBS_KEY, "value": "s3://bucket/x"}
        workspace.store.upsert(tx, schema.meta, row)
    with pytest.raises(UsageError, match="set FAIRWAY_BLOBS=s3://bucket/x"):
        _ = workspace.blobs
    monkeypatch.setenv("FAIRWAY_BLOBS", "s3://bucket/x")
    assert Workspace(tmp_path).blobs.where == "s3://bucket/x"


@pytest.mark.parametrize("name", ["../up", "A", "", "a/b"])
def test_a_workspaces_name_is_part_of_paths(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRWAY_WORKSPACE", name)
    with pytest.raises(UsageError, match="can't name a workspace"):
        Workspace.create(tmp_path)


def test_the_cache_is_in_megabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRWAY_BLOBS", "s3://bucket/x")
    monkeypatch.setenv("FAIRWAY_BLOBS_CACHE", "4 GiB")
    with pytest.raises(UsageError, match="write megabytes"):
        _ = Workspace.create(tmp_path).blobs
