"""One history, through a backtest and through real processes on a virtual clock: the same log and decisions."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from fairway.data import log
from fairway.data.project import Project, load_project
from fairway.errors import UsageError
from fairway.store.workspace import Workspace
from fairway.testing.backtest import STEP, copy_project, run_backtest
from fairway.testing.history import history_of
from fairway.testing.replay import replay
from fairway.testing.summary import outcomes
from fairway.testing.targets import HttpTarget

EXAMPLE = Path(__file__).parents[2] / "examples" / "late-flights"
START = datetime(2014, 4, 15, tzinfo=UTC)
ROWS = 5_000


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The flights example, its data prepared."""
    folder = tmp_path_factory.mktemp("flights") / "late-flights"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".demo", ".fairway"))
    subprocess.run([sys.executable, "prepare.py"], cwd=folder, check=True)
    settings = (folder / "fairway.toml").read_text().replace('every = "14d"', 'every = "6d"')
    (folder / "fairway.toml").write_text(settings)
    Workspace.create(folder)
    return load_project(folder)


def comparable(workspace: Workspace, endpoint: str) -> list[dict]:
    """The prediction log without what may differ: which gateway answered, and how fast."""
    rows = log.predictions(workspace, endpoint).drop("gateway").to_dicts()
    for row in rows:
        answers = json.loads(row["answers"])
        row["answers"] = {v: {k: x for k, x in a.items() if k != "latency_ms"} for v, a in answers.items()}
    return rows


def test_backtest_equals_the_real_processes(project: Project, tmp_path: Path) -> None:
    rows = pl.read_parquet(project.root / "data" / "flights.parquet")
    end = rows.filter(pl.col("decide_at") >= START)["decide_at"].sort()[ROWS - 1] + timedelta(microseconds=1)
    summary = run_backtest(project, start=START, end=end, retrain="6d")
    embedded = Workspace.find(Path(summary["folder"]))

    copy_project(project, tmp_path / "real", retrain="6d")
    real = Workspace.create(tmp_path / "real")
    command = [sys.executable, "-m", "fairway.cli.main"]
    serve = [*command, "serve", "--port", "0", "--console-port", "0", "--virtual-clock", START.isoformat()]
    output = (tmp_path / "serve.log").open("wb")
    server = subprocess.Popen(serve, cwd=real.root, stdout=output, stderr=output)
    try:
        with HttpTarget.wait_for(real, server) as target:
            for verb in ("train", "deploy"):
                subprocess.run([*command, verb], cwd=real.root, check=True, capture_output=True)
            history = history_of(load_project(real.root), start=START, end=end)
            done = replay(target, history, start=START, end=end, step=STEP)
    finally:
        server.terminate()
        server.wait(60)
        output.close()

    assert done.predictions == summary["predictions"] >= ROWS
    name = project.settings.name
    assert comparable(real, name) == comparable(embedded, name)
    found, expected = (
        outcomes(load_project(real.root)),
        {k: summary[k] for k in ("versions", "rollouts", "alarms", "reviews")},
    )
    assert found == expected
    assert len(found["versions"]) >= 2, "a retrain is part of what is compared"
    assert len(found["rollouts"]) >= 2


def test_a_table_without_a_time_column_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"id": range(300), "x": [i % 7 for i in range(300)], "y": ["a", "b", "b"] * 100}).write_csv(
        tmp_path / "t.csv"
    )
    command = [sys.executable, "-m", "fairway.cli.main", "new", "plain", "--data", "t.csv", "--target", "y", "--yes"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    with pytest.raises(UsageError, match="no time column"):
        run_backtest(load_project(tmp_path / "plain"), start=START, end=START + timedelta(days=1))
