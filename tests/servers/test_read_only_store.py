"""A store that can't be written: it serves; what would change it is refused at once, with a sentence."""

import subprocess
import sys
from pathlib import Path

import pytest
import small_model
from running import row, running

from fairway.serve.spool import sealed_segments
from fairway.store.workspace import Workspace


def test_it_serves_and_refuses_to_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    small_model.register(workspace, small_model.make_package(tmp_path / "v1", leaf=20), 1)
    small_model.desire(workspace, epoch=1, **small_model.served(1))
    workspace.store.close()
    monkeypatch.setenv("FAIRWAY_STORE", f"sqlite:///file:{workspace.folder / 'store.db'}?mode=ro&uri=true")
    with running(Workspace(workspace.root)) as served:
        served.ready()
        assert served.predict([row()], request_id="r1").status_code == 200
        for command in (["deploy", "small@1"], ["rollback", "small"], ["train"]):
            whole = [sys.executable, "-m", "fairway.cli.main", *command]
            done = subprocess.run(whole, cwd=workspace.root, capture_output=True, text=True, check=False, timeout=60)
            assert done.returncode == 2
            if command != ["train"]:  # there is no project here to train
                assert "is read-only" in done.stderr
        assert [r["active"] for r in served.gateway_rows()] == []  # nobody could write one
    assert len(sealed_segments(workspace.dir("spool"))) == 1  # kept for a store that can be written
    monkeypatch.delenv("FAIRWAY_STORE")
    with running(workspace) as served:
        served.ready()
        assert served.predict([row()], request_id="r1").json()["outputs"][0]["version"] == 1
