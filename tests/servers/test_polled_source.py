"""A source's table that grows while it is served: each new row becomes an event once, also over a restart."""

import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import small_model
import sqlalchemy as sa
from running import Running, row, running, wait_until

from fairway import clock
from fairway.data import log
from fairway.store import schema
from fairway.store.workspace import Workspace


def write(workspace: Workspace, hours_ago: list[float]) -> None:
    """Replaced as a whole, as what exports a table does."""
    now = clock.now()
    frame = pl.DataFrame(
        {
            "trip": [f"t{i}" for i in range(len(hours_ago))],
            "color": ["red"] * len(hours_ago),
            "left_at": [now - timedelta(hours=h) for h in hours_ago],
            "km": [float(i) for i in range(len(hours_ago))],
        }
    )
    frame.write_parquet(workspace.root / "new.parquet")
    (workspace.root / "new.parquet").replace(workspace.root / "trips.parquet")


def events(workspace: Workspace) -> list[str]:
    found = log.source_events(workspace, "trips", clock.now())
    return [] if found is None else sorted(found["_key"].to_list())


def rows_in_log(workspace: Workspace) -> int:
    table = schema.log_file
    with workspace.store.read() as tx:
        found = tx.scalar(sa.select(sa.func.sum(table.c.rows)).where(table.c.kind == "source"))
    return found or 0


def looked(workspace: Workspace) -> int:
    """Rows of the table when it was last read."""
    with workspace.store.read() as tx:
        return tx.scalar(sa.select(schema.source_state.c.rows)) or 0


def test_new_rows_become_events_once(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path / "ws")
    settings = small_model.SETTINGS.replace('key = "trip"\n', 'key = "trip"\nevery = "1s"\n')
    (workspace.root / "fairway.toml").write_text(settings)
    (workspace.root / "contract.toml").write_text(small_model.CONTRACT_TOML)
    small_model.register(workspace, small_model.make_package(tmp_path / "v1", settings=settings), 1)
    with workspace.store.write() as tx:
        tx.execute(sa.update(schema.model).values(project_path=str(workspace.root)))
    small_model.desire(workspace, epoch=1, **small_model.served(1))
    history = [30.0, 20.0, 10.0]
    write(workspace, history)
    with running(workspace) as served:
        served.ready()
        assert wait_until(lambda: looked(workspace) == 3, 30) and events(workspace) == []  # history is no event
        write(workspace, [*history, 0.0, 0.0])
        assert wait_until(lambda: len(events(workspace)) == 2, 30)
        assert served.predict([row()]).status_code == 200
        goes_on_with_broken_settings(workspace, served, settings)
    write(workspace, [*history, 0.0, 0.0, 0.0])  # the same rows and one more, in another file, while nobody looks
    with running(workspace) as served:
        served.ready()
        assert wait_until(lambda: len(events(workspace)) == 3, 30)
        assert wait_until(lambda: looked(workspace) == 6, 30)
    assert events(workspace) == ["t3", "t4", "t5"] and rows_in_log(workspace) == 3


def goes_on_with_broken_settings(workspace: Workspace, served: Running, settings: str) -> None:
    """A file that became wrong: the old version answers as before, the error is shown, and it heals by itself."""
    file = workspace.root / "fairway.toml"
    for wrong, says in ((settings + "treshold = 3\n", "unknown key"), ("[[", "not readable as TOML")):
        file.write_text(wrong)
        told = fairway(workspace, "status")
        assert told.returncode == 0 and says in told.stdout and "What is served goes on" in told.stdout
        assert served.predict([row()]).status_code == 200
        assert fairway(workspace, "deploy", "small@1").returncode == 2
    assert wait_until(lambda: "are not looked at" in worker_log(workspace), 30)
    file.write_text(settings)
    assert "fairway.toml" not in fairway(workspace, "status").stdout


def fairway(workspace: Workspace, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fairway.cli.main", *arguments]
    return subprocess.run(command, cwd=workspace.root, capture_output=True, text=True, timeout=60, check=False)


def worker_log(workspace: Workspace) -> str:
    return (workspace.folder / "serve" / "worker.log").read_text()
